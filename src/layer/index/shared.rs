//! A folder of records that others write, too: other machines, by way of a folder that
//! CI keeps, or users of less rights.
//!
//! It may be anything by the time it is looked at, also while a build runs: gone,
//! replaced, full of links, pipes and files that never end. So everything in it is
//! reached as [`beneath`](crate::cache::beneath) does, a record of more than
//! [`MAX_RECORD`] bytes is none, and no error ends a build.

use std::path::{Path, PathBuf};

use crate::cache::beneath::{Folder, FolderError};

/// How large a record may be, in bytes; they have some hundred.
pub const MAX_RECORD: u64 = 16 << 10;

/// A folder of somebody else's records.
#[derive(Debug)]
pub struct SharedFolder {
    path: PathBuf,
    folder: Folder,
}

impl SharedFolder {
    /// The folder at `path`, which is made if it is not there.
    ///
    /// # Errors
    /// When it can't be, or as root, when a link of somebody else leads there.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let folder = Folder::open_or_make(path)?;
        folder.sweep();
        Ok(Self { path: path.to_owned(), folder })
    }

    /// The record that is called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        let read = self.folder.read(name, MAX_RECORD);
        read.unwrap_or_else(|error| {
            tracing::debug!("passing over a record: {error}");
            None
        })
    }

    /// Writes the record `name`, unless it is there. Who deletes the folder meanwhile
    /// gets a new one.
    pub fn put(&self, name: &str, text: &[u8]) {
        if self.get(name).as_deref() == Some(text) && self.path.exists() {
            return;
        }
        let anew = || Folder::open_or_make(&self.path)?.write(name, text);
        if let Err(error) = self.folder.write(name, text).or_else(|_| anew()) {
            tracing::debug!("not telling {} of a layer: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_no_record_is_unknown_and_nothing_is_written_through_it() {
        let scratch = tempfile::tempdir().expect("a folder");
        let path = scratch.path().join("shared");
        let shared = SharedFolder::open(&path).expect("writable");
        std::fs::write(scratch.path().join("outside"), "precious").expect("writable");
        symlink(scratch.path().join("outside"), path.join("link")).expect("linked");
        rustix::fs::mkfifoat(rustix::fs::CWD, path.join("pipe"), 0o666.into()).expect("made");
        std::fs::create_dir(path.join("folder")).expect("made");
        std::fs::File::create(path.join("huge")).and_then(|file| file.set_len(1 << 30)).expect("made");
        for name in ["link", "pipe", "folder", "huge", "none"] {
            assert_eq!(shared.get(name), None, "{name}");
            shared.put(name, b"{}");
            assert_eq!(shared.get(name).is_some(), name != "folder", "{name}");
        }
        assert_eq!(std::fs::read(scratch.path().join("outside")).expect("there"), b"precious");
    }

    #[test]
    fn a_folder_that_is_deleted_is_made_again() {
        let scratch = tempfile::tempdir().expect("a folder");
        let path = scratch.path().join("shared");
        let shared = SharedFolder::open(&path).expect("writable");
        shared.put("one", b"1");
        std::fs::remove_dir_all(&path).expect("deleted");
        assert_eq!(shared.get("one"), None);
        shared.put("two", b"2");
        assert_eq!(std::fs::read(path.join("two")).expect("there"), b"2");
        std::fs::remove_dir_all(&path).expect("deleted");
        std::fs::write(&path, "").expect("writable");
        shared.put("three", b"3");
    }
}
