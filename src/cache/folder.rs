//! A cache that is added to: what is in it, and how files get there.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use super::narinfo::{self, NarFile};
use super::shelf::{Draft, Shelf, ShelfError, Source, Version};
use super::sign::Keys;
use super::{CacheError, Compression, Place, listing};
use crate::nar::Measured;
use crate::s3::Written;
use crate::store::{NarHash, PathInfo, StoreDir, StorePath};

/// The file that makes a folder a cache.
pub(crate) const CACHE_INFO: &str = "nix-cache-info";

/// No `nix-cache-info` is longer.
pub(super) const CACHE_INFO_LIMIT: u64 = 64 * 1024;

/// Nix drops a cache that lacks one of them and can't be written to.
pub(super) const EMPTY_FOLDERS: [&str; 3] = ["log", "realisations", "build-trace-v2"];

/// From what age on a NAR without a narinfo is not used again, where others may be deleting it:
/// they do from a day on.
const REUSED: Duration = Duration::from_secs(12 * 60 * 60);

/// How often a file is written again that others write, too.
const ATTEMPTS: usize = 16;

/// A binary cache, open for adding to it.
#[derive(Debug)]
pub struct CacheFolder {
    store_dir: StoreDir,
    root: Shelf,
    nars: Shelf,
    logs: Shelf,
    realisations: Shelf,
}

/// Whether a path is in a cache.
#[derive(Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is not, or only in part, or not with the contents that we would sign. This was there.
    Absent(Version),
    /// It is, with its NAR. So are the contents that are registered here, or those of another
    /// build.
    Present {
        /// Whether they are those that are registered here.
        same: bool,
    },
    /// It is, but lacks a signature of ours. This is its narinfo with that, in place of what was
    /// there.
    Unsigned(Vec<u8>, Version),
}

impl CacheFolder {
    /// Opens the cache at `path` for paths of `store_dir`, and makes of it what
    /// is missing. What is there is not touched, except a `nix-cache-info` that
    /// Nix wrote, which says too little, and what killed runs have left.
    ///
    /// # Errors
    /// When it is a cache for another store dir, or can't be used.
    pub fn open(place: impl Into<Place>, store_dir: &StoreDir) -> Result<Self, CacheError> {
        let place = place.into();
        let root = place.open_or_make()?;
        let info = root.read(CACHE_INFO, CACHE_INFO_LIMIT)?.unwrap_or_default();
        match parse_cache_info(&String::from_utf8_lossy(&info)) {
            Some(found) if found != store_dir.as_str() => {
                return Err(CacheError::StoreDir {
                    path: place.to_string(),
                    found: found.to_owned(),
                    wanted: store_dir.to_string(),
                });
            }
            Some(_) if info != cache_info_of_nix(store_dir).as_bytes() => {}
            _ => root.write(CACHE_INFO, render_cache_info(store_dir).as_bytes())?,
        }
        for name in EMPTY_FOLDERS {
            root.folder(name)?;
        }
        let nars = root.folder("nar")?;
        let logs = root.folder("log")?;
        root.sweep();
        nars.sweep();
        let realisations = root.folder("realisations")?;
        logs.sweep();
        realisations.sweep();
        Ok(Self { store_dir: store_dir.clone(), root, nars, logs, realisations })
    }

    /// Gives the cache that priority among substituters: lower ones are asked first.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn set_priority(&self, priority: u32) -> Result<(), ShelfError> {
        let info = self.root.read(CACHE_INFO, CACHE_INFO_LIMIT)?.unwrap_or_default();
        let wanted = with_priority(&String::from_utf8_lossy(&info), priority);
        if wanted.as_bytes() == info {
            return Ok(());
        }
        self.root.write(CACHE_INFO, wanted.as_bytes())
    }

    /// Its files.
    #[must_use]
    pub fn root(&self) -> &Shelf {
        &self.root
    }

    /// The error that writing a NAR failed with.
    #[must_use]
    pub fn nar_failure(&self, source: io::Error) -> ShelfError {
        self.root.failure("nar", source)
    }

    /// The error that writing the log `name` failed with.
    #[must_use]
    pub fn log_failure(&self, name: &str, source: io::Error) -> ShelfError {
        self.logs.failure(name, source)
    }

    /// Whether the path of `info` is in the cache, with its NAR, and signed by `keys`.
    ///
    /// # Errors
    /// When that can't be found out.
    pub fn look_for(&self, info: &PathInfo, keys: &Keys) -> Result<Presence, ShelfError> {
        let (contents, version) = self.root.look(&narinfo::file_name(&info.path), narinfo::SIZE_LIMIT)?;
        let Some(contents) = contents else {
            return Ok(Presence::Absent(version));
        };
        let Some(named) = narinfo::check(&self.store_dir, info, &contents) else {
            return Ok(Presence::Absent(version));
        };
        let size = self.nars.size(&named.file_name)?;
        if !size.is_some_and(|size| size > 0 && named.file_size.is_none_or(|wanted| wanted == size)) {
            return Ok(Presence::Absent(version));
        }
        let is_ours = |nar: &Measured| nar.hash == info.nar_hash && (info.nar_size == 0 || nar.size == info.nar_size);
        let nar = named.nar.filter(is_ours);
        if keys.is_empty() {
            return Ok(Presence::Present { same: nar.is_some() });
        }
        // Whoever wrote the narinfo may want our name under what is not ours.
        let Some(nar) = nar else {
            return Ok(Presence::Absent(version));
        };
        let signed = narinfo::add_signatures(&contents, &keys.sign(&self.store_dir, info, &nar));
        Ok(signed.map_or(Presence::Present { same: true }, |signed| Presence::Unsigned(signed, version)))
    }

    /// The NAR with the hash `hash`, compressed so, and the size of its file, if there is one;
    /// it may be cut off.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn nar(&self, hash: &NarHash, compression: Compression) -> Result<Option<(Source, u64)>, ShelfError> {
        let name = narinfo::nar_file_name(hash, compression);
        if self.nars.age(&name)?.is_some_and(|age| age < REUSED) { self.nars.file(&name) } else { Ok(None) }
    }

    /// A file for the NAR with the hash `hash`, of `size` bytes, which is compressed so.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn new_nar(&self, hash: &NarHash, compression: Compression, size: u64) -> Result<Draft<'_>, ShelfError> {
        self.nars.create(&narinfo::nar_file_name(hash, compression), size)
    }

    /// The narinfo about the path of `info`, signed, and not written yet.
    ///
    /// # Errors
    /// When the registration has something that no narinfo can say.
    pub fn narinfo(&self, info: &PathInfo, file: &NarFile, keys: &Keys) -> Result<Vec<u8>, nix_narinfo::BuildError> {
        narinfo::render(&self.store_dir, info, file, keys.sign(&self.store_dir, info, &file.nar))
    }

    /// Writes the narinfo about the path of `info`, signed by `keys`, in place of `version`: from
    /// then on it is in the cache, so its NAR and all that it refers to must be there already.
    /// Where somebody else was faster, his stays, and gets the signatures that it lacks.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn publish(&self, info: &PathInfo, narinfo: &[u8], version: &Version, keys: &Keys) -> Result<(), ShelfError> {
        let name = narinfo::file_name(&info.path);
        let (mut text, mut version) = (Cow::Borrowed(narinfo), version.clone());
        for _ in 0..ATTEMPTS {
            if self.root.replace(&name, &text, &version)? == Written::Done {
                return Ok(());
            }
            (text, version) = match self.look_for(info, keys)? {
                Presence::Present { .. } => return Ok(()),
                Presence::Unsigned(signed, found) => (Cow::Owned(signed), found),
                Presence::Absent(found) => (Cow::Borrowed(narinfo), found),
            };
        }
        self.root.write(&name, &text)
    }

    /// Whether there is a listing of the files of `path`.
    ///
    /// # Errors
    /// When that can't be found out.
    pub fn has_listing(&self, path: &StorePath) -> Result<bool, ShelfError> {
        Ok(self.root.size(&listing::file_name(path))?.is_some_and(|size| size > 0))
    }

    /// Writes the listing of the files of `path`.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_listing(&self, path: &StorePath, listing: &[u8]) -> Result<(), ShelfError> {
        self.root.write(&listing::file_name(path), listing)
    }

    /// Whether there is a log of the build of `drv`.
    ///
    /// # Errors
    /// When that can't be found out.
    pub fn has_log(&self, drv: &StorePath) -> Result<bool, ShelfError> {
        Ok(self.logs.size(&drv.to_basename())?.is_some())
    }

    /// Makes of the realisation in the file `name`, which is empty if there is none, what
    /// `merge` says, unless that is the same.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub fn merge_realisation(&self, name: &str, merge: impl Fn(&[u8]) -> Vec<u8>) -> Result<(), ShelfError> {
        for _ in 0..ATTEMPTS {
            let (present, version) = self.realisations.look(name, narinfo::SIZE_LIMIT)?;
            let present = present.unwrap_or_default();
            let merged = merge(&present);
            if merged == present || self.realisations.replace(name, &merged, &version)? == Written::Done {
                return Ok(());
            }
        }
        self.realisations.write(name, &merge(&[]))
    }

    /// A file for the log of the build of `drv`.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn new_log(&self, drv: &StorePath) -> Result<Draft<'_>, ShelfError> {
        self.logs.create(&drv.to_basename(), 0)
    }
}

/// The store dir that a `nix-cache-info` names.
fn parse_cache_info(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("StoreDir:")).map(str::trim)
}

/// What Nix writes to a cache that has none. With no more than that, Nix asks
/// for each path on its own, and cache.nixos.org first.
fn cache_info_of_nix(store_dir: &StoreDir) -> String {
    format!("StoreDir: {store_dir}\n")
}

/// `info` with that priority, and all else as it is.
fn with_priority(info: &str, priority: u32) -> String {
    let others = info.lines().filter(|line| !line.starts_with("Priority:"));
    let line = format!("Priority: {priority}");
    others.chain([line.as_str()]).map(|line| format!("{line}\n")).collect()
}

/// 30 comes before cache.nixos.org, which has 40: what is in the folder needs
/// no network.
fn render_cache_info(store_dir: &StoreDir) -> String {
    format!("StoreDir: {store_dir}\nWantMassQuery: 1\nPriority: 30\n")
}

#[cfg(test)]
mod tests;
