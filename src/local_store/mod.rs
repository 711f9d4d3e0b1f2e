//! A cache that is a store: a folder in which Nix builds, and which GitLab keeps from job to job.
//!
//! ```text
//! DIR/nix/store/…           the store paths
//! DIR/nix/var/nix/…         Nix's database and roots
//! DIR/nix/var/nix/stowage/  what stowage notes of it, see [`notes`]
//! DIR/nix/.stowage-store    says that stowage may delete what is in DIR/nix; it comes first in
//!                           archives, so one that was cut off has it
//! ```
//!
//! Nix builds in it as `--store DIR` where it may make user namespaces, or where `/nix` is a link
//! to `DIR/nix`. Nothing is copied from it or to it. What makes that hard is how the folder gets
//! from one job to the next, in an archive:
//!
//! - Folders that nobody may write to, files of that kind, and hard links are what archivers
//!   stumble over. So between jobs all may be written by their owner, and there are no hard links
//!   of Nix's; see [`modes`]. During a job store paths are read-only, as always.
//! - Archives may be cut off, and a runner only warns of that. So a job begins with a look at all
//!   paths, none of whose files is opened; what is not as it was is forgotten; see [`begin()`].
//! - An archive is only made where some time is newer than the last one's. So a job that has built
//!   nothing leaves no newer time; see [`end()`].
//!
//! Rows of the database are believed, as Nix does: whoever can change the folder decides what
//! later jobs get of it. So stowage has nothing to do with such a folder but as its owner.

pub mod begin;
pub mod collect;
mod database;
pub mod end;
pub mod info;
pub mod modes;
pub mod namespaces;
pub mod notes;
pub mod seed;
mod used;

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

pub use begin::begin;
pub use collect::collect;
pub use end::end;
pub use info::info;
pub use seed::seed;

use crate::cache::folder::CACHE_INFO;
use crate::store::{StoreDir, StoreLocation};

/// Why a folder can't be used as a store between jobs.
#[derive(Debug, thiserror::Error)]
pub enum LocalStoreError {
    /// It is the other kind.
    #[error("{0} is a binary cache, and not a store; name another folder, or delete it first")]
    BinaryCache(PathBuf),
    /// Its database has rows that anybody could have written.
    #[error("{} is user {owner}'s, and only that user can use it; this is user {user}", path.display())]
    Owner {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// It has a store that may be somebody's own.
    #[error("{dir} has a Nix store that stowage did not make, and would delete from; name another folder, or say that this one is a cache: touch {dir}/nix/.stowage-store", dir = .0.display())]
    Unmarked(PathBuf),
    /// It is this machine.
    #[error("{} is this machine's own root, and no cache; name another folder", .0.display())]
    Root(PathBuf),
    /// Anything that the system says.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it says.
        source: std::io::Error,
    },
    /// What SQLite says.
    #[error("the Nix database {}: {source}", path.display())]
    Database {
        /// Its file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Some Nix is at work there.
    #[error("a Nix is at work in {}; try again when it is done", .0.display())]
    Busy(PathBuf),
}

/// The file, in the store's folder `nix`, that tells it from others.
const MARK: &str = ".stowage-store";

/// A folder with a store in it.
#[derive(Clone, Debug)]
pub struct LocalStore {
    dir: PathBuf,
    location: StoreLocation,
}

impl LocalStore {
    /// Whether there is a store in the folder `dir`.
    #[must_use]
    pub fn is_at(dir: &Path) -> bool {
        let is_folder = |path: PathBuf| path.symlink_metadata().is_ok_and(|data| data.is_dir());
        let is_binary = dir.join(CACHE_INFO).symlink_metadata().is_ok();
        !is_binary && (is_folder(dir.join("nix/var/nix")) || is_folder(dir.join("nix/store")))
    }

    /// The store in `dir`, whose paths are printed with `store_dir`.
    ///
    /// # Errors
    /// When it is somebody else's.
    pub fn open(dir: &Path, store_dir: &StoreDir) -> Result<Self, LocalStoreError> {
        let store = Self::shipped(dir, store_dir);
        let user = rustix::process::geteuid().as_raw();
        let (nix, var) = (dir.join("nix"), dir.join("nix/var"));
        let folders = [nix, var, store.location.real_dir.clone(), store.location.state_dir.clone()];
        // Root's folders in somebody else's could become others while root is at work there.
        let around = (user == 0).then(|| dir.to_owned());
        for path in around.into_iter().chain(folders) {
            match path.symlink_metadata() {
                Ok(data) if data.uid() != user => {
                    return Err(LocalStoreError::Owner { path, owner: data.uid(), user });
                }
                Ok(data) if !data.is_dir() => {
                    return Err(io_error(&path, ErrorKind::NotADirectory.into()));
                }
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(io_error(&path, error)),
                _ => {}
            }
        }
        Ok(store)
    }

    /// The store that an image has in `dir`, whosever it is: it is only read.
    #[must_use]
    pub fn shipped(dir: &Path, store_dir: &StoreDir) -> Self {
        let location = StoreLocation::new(Some(dir), store_dir.clone(), Path::new("/nix/var/nix"));
        Self { dir: dir.to_owned(), location }
    }

    /// The store in `dir`, made where there is none.
    ///
    /// # Errors
    /// When it can't be made, is somebody else's, or `dir` is a binary cache.
    pub fn open_or_make(dir: &Path, store_dir: &StoreDir) -> Result<Self, LocalStoreError> {
        if dir.join(CACHE_INFO).symlink_metadata().is_ok() {
            return Err(LocalStoreError::BinaryCache(dir.to_owned()));
        }
        let store = Self::open(dir, store_dir)?;
        store.is_cache()?;
        store.make()?;
        Ok(store)
    }

    /// Makes its folders, where they are not there, and says that it is a cache.
    fn make(&self) -> Result<(), LocalStoreError> {
        for folder in [&self.location.real_dir, &self.location.state_dir] {
            std::fs::create_dir_all(folder).map_err(|error| io_error(folder, error))?;
        }
        let mark = self.mark();
        if mark.symlink_metadata().is_ok() {
            return Ok(());
        }
        std::fs::write(&mark, "").map_err(|error| io_error(&mark, error))
    }

    fn mark(&self) -> PathBuf {
        self.dir.join("nix").join(MARK)
    }

    /// Whether there is anything in the store that could be somebody's.
    fn has_files(&self) -> bool {
        let folders = [&self.location.real_dir, &self.location.state_dir];
        folders.into_iter().any(|folder| std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()))
    }

    /// Whether stowage may delete what is in it, as it does where things are damaged or old: only
    /// what was made as a cache.
    ///
    /// # Errors
    /// When it may not.
    fn is_cache(&self) -> Result<(), LocalStoreError> {
        let is_root = self.dir.canonicalize().is_ok_and(|dir| dir == Path::new("/"));
        if is_root {
            return Err(LocalStoreError::Root(self.dir.clone()));
        }
        let is_there = |file: PathBuf| file.symlink_metadata().is_ok();
        match is_there(self.mark()) || is_there(notes::Notes::file(self)) || !self.has_files() {
            true => Ok(()),
            false => Err(LocalStoreError::Unmarked(self.dir.clone())),
        }
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where Nix's parts of it are.
    #[must_use]
    pub fn location(&self) -> &StoreLocation {
        &self.location
    }

    /// Where the files of the path with this base name are.
    fn path(&self, base: &str) -> PathBuf {
        self.location.real_dir.join(base)
    }

    /// The base name of a path that the database has.
    fn base<'a>(&self, path: &'a str) -> Option<&'a str> {
        let base = path.strip_prefix(self.location.store_dir.as_str())?.strip_prefix('/')?;
        (!base.is_empty() && !base.contains('/') && !base.starts_with('.')).then_some(base)
    }
}

fn io_error(path: &Path, source: std::io::Error) -> LocalStoreError {
    LocalStoreError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
