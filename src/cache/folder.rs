//! The folder of a cache: what is in it, and how files get there.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::beneath::{Folder, FolderError, Temporary};
use super::narinfo::{self, NarFile};
use super::sign::Keys;
use super::{CacheError, Compression, listing};
use crate::nar::Measured;
use crate::store::{NarHash, PathInfo, StoreDir, StorePath};

/// The file that makes a folder a cache.
pub(super) const CACHE_INFO: &str = "nix-cache-info";

/// No `nix-cache-info` is longer.
pub(super) const CACHE_INFO_LIMIT: u64 = 64 * 1024;

/// Nix drops a cache that lacks one of them and can't be written to.
pub(super) const EMPTY_FOLDERS: [&str; 3] = ["log", "realisations", "build-trace-v2"];

/// A binary cache in a folder, open for adding to it.
#[derive(Debug)]
pub struct CacheFolder {
    path: PathBuf,
    store_dir: StoreDir,
    root: Folder,
    nars: Folder,
    logs: Folder,
    realisations: Folder,
}

/// Whether a path is in a cache.
#[derive(Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is not, or only in part, or not with the contents that we would sign.
    Absent,
    /// It is, with its NAR. So are the contents that are registered here, or those of another
    /// build.
    Present {
        /// Whether they are those that are registered here.
        same: bool,
    },
    /// It is, but lacks a signature of ours. This is its narinfo with that.
    Unsigned(Vec<u8>),
}

impl CacheFolder {
    /// Opens the cache at `path` for paths of `store_dir`, and makes of it what
    /// is missing. What is there is not touched, except a `nix-cache-info` that
    /// Nix wrote, which says too little, and what killed runs have left.
    ///
    /// # Errors
    /// When it is a cache for another store dir, or can't be used.
    pub fn open(path: &Path, store_dir: &StoreDir) -> Result<Self, CacheError> {
        let root = Folder::open_or_make(path)?;
        let info = root.read(CACHE_INFO, CACHE_INFO_LIMIT)?.unwrap_or_default();
        match parse_cache_info(&String::from_utf8_lossy(&info)) {
            Some(found) if found != store_dir.as_str() => {
                return Err(CacheError::StoreDir {
                    path: path.to_owned(),
                    found: found.to_owned(),
                    wanted: store_dir.to_string(),
                });
            }
            Some(_) if info != cache_info_of_nix(store_dir).as_bytes() => {}
            _ => root.write(CACHE_INFO, render_cache_info(store_dir).as_bytes())?,
        }
        for name in EMPTY_FOLDERS {
            root.folder(OsStr::new(name))?;
        }
        let nars = root.folder(OsStr::new("nar"))?;
        let logs = root.folder(OsStr::new("log"))?;
        root.sweep();
        nars.sweep();
        let realisations = root.folder(OsStr::new("realisations"))?;
        logs.sweep();
        realisations.sweep();
        Ok(Self { path: path.to_owned(), store_dir: store_dir.clone(), root, nars, logs, realisations })
    }

    /// Gives the cache that priority among substituters: lower ones are asked first.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn set_priority(&self, priority: u32) -> Result<(), FolderError> {
        let info = self.root.read(CACHE_INFO, CACHE_INFO_LIMIT)?.unwrap_or_default();
        let wanted = with_priority(&String::from_utf8_lossy(&info), priority);
        if wanted.as_bytes() == info {
            return Ok(());
        }
        self.root.write(CACHE_INFO, wanted.as_bytes())
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Folder {
        &self.root
    }

    /// Where the cache is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path of `info` is in the cache, with its NAR, and signed by `keys`.
    ///
    /// # Errors
    /// When that can't be found out.
    pub fn look_for(&self, info: &PathInfo, keys: &Keys) -> Result<Presence, FolderError> {
        let Some(contents) = self.root.read(&narinfo::file_name(&info.path), narinfo::SIZE_LIMIT)? else {
            return Ok(Presence::Absent);
        };
        let Some(named) = narinfo::check(&self.store_dir, info, &contents) else {
            return Ok(Presence::Absent);
        };
        let size = self.nars.size(&named.file_name)?;
        if !size.is_some_and(|size| size > 0 && named.file_size.is_none_or(|wanted| wanted == size)) {
            return Ok(Presence::Absent);
        }
        let is_ours = |nar: &Measured| nar.hash == info.nar_hash && (info.nar_size == 0 || nar.size == info.nar_size);
        let nar = named.nar.filter(is_ours);
        if keys.is_empty() {
            return Ok(Presence::Present { same: nar.is_some() });
        }
        // Whoever wrote the narinfo may want our name under what is not ours.
        let Some(nar) = nar else {
            return Ok(Presence::Absent);
        };
        let signed = narinfo::add_signatures(&contents, &keys.sign(&self.store_dir, info, &nar));
        Ok(signed.map_or(Presence::Present { same: true }, Presence::Unsigned))
    }

    /// The NAR with the hash `hash`, compressed so, and the size of its file, if there is one;
    /// it may be cut off.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn nar(&self, hash: &NarHash, compression: Compression) -> Result<Option<(File, u64)>, FolderError> {
        self.nars.file(&narinfo::nar_file_name(hash, compression))
    }

    /// A file for a NAR; [`Temporary::persist`] with
    /// [`narinfo::nar_file_name`] puts it in its place.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn new_nar(&self) -> Result<Temporary<'_>, FolderError> {
        self.nars.temporary()
    }

    /// The narinfo about the path of `info`, signed, and not written yet.
    ///
    /// # Errors
    /// When the registration has something that no narinfo can say.
    pub fn narinfo(&self, info: &PathInfo, file: &NarFile, keys: &Keys) -> Result<Vec<u8>, nix_narinfo::BuildError> {
        narinfo::render(&self.store_dir, info, file, keys.sign(&self.store_dir, info, &file.nar))
    }

    /// Writes the narinfo about the path of `info`: from then on it is in the
    /// cache, so its NAR and all that it refers to must be there already.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn publish(&self, info: &PathInfo, narinfo: &[u8]) -> Result<(), FolderError> {
        self.root.write(&narinfo::file_name(&info.path), narinfo)
    }

    /// Whether there is a listing of the files of `path`.
    ///
    /// # Errors
    /// When that can't be found out.
    pub fn has_listing(&self, path: &StorePath) -> Result<bool, FolderError> {
        Ok(self.root.size(&listing::file_name(path))?.is_some_and(|size| size > 0))
    }

    /// Writes the listing of the files of `path`.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_listing(&self, path: &StorePath, listing: &[u8]) -> Result<(), FolderError> {
        self.root.write(&listing::file_name(path), listing)
    }

    /// Whether there is a log of the build of `drv`.
    ///
    /// # Errors
    /// When that can't be found out.
    pub fn has_log(&self, drv: &StorePath) -> Result<bool, FolderError> {
        Ok(self.logs.size(&drv.to_basename())?.is_some())
    }

    /// The realisation in the file `name`, if there is one.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn realisation(&self, name: &str) -> Result<Option<Vec<u8>>, FolderError> {
        self.realisations.read(name, narinfo::SIZE_LIMIT)
    }

    /// Writes a realisation to the file `name`.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_realisation(&self, name: &str, text: &[u8]) -> Result<(), FolderError> {
        self.realisations.write(name, text)
    }

    /// A file for the log of a build; [`Temporary::persist`] with the base name of the
    /// derivation puts it in its place.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn new_log(&self) -> Result<Temporary<'_>, FolderError> {
        self.logs.temporary()
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
