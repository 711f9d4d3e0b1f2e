//! Looks around in a folder, and moves and deletes what is in it.
//!
//! All by names of one component below an open folder, as in [`super`]: a link
//! is seen as a link, moved as a link and deleted as a link. So whoever put it
//! there gains nothing, whoever runs this.

use std::ffi::{CStr, OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, FlockOperation, OFlags, RawDir, RenameFlags, Stat};
use rustix::io::Errno;

use super::{Folder, FolderError};

/// What something in a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An ordinary file of so many bytes.
    File(u64),
    /// A folder.
    Folder,
    /// A link, a pipe, or whatever else.
    Other,
}

/// Something in a folder.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: OsString,
    /// What it is.
    pub kind: Kind,
    /// When it was last changed; the epoch for times before that.
    pub modified: SystemTime,
}

/// How a cache is locked. The lock is on the folder itself: no file, and no
/// time of one, tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Many may add at the same time.
    Adding,
    /// One deletes, while nobody adds.
    Deleting,
}

impl Folder {
    /// All that is in the folder, ordered by name.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn entries(&self) -> Result<Vec<Entry>, FolderError> {
        let failed = |errno| self.error("", errno);
        let fd = self.open_beneath(".", OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
        let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
        let mut reader = RawDir::new(fd, &mut buffer);
        let mut entries = Vec::new();
        while let Some(item) = reader.next() {
            let item = item.map_err(failed)?;
            let name = item.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            // What is gone by now was not there.
            entries.extend(self.stat(name)?);
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    fn stat(&self, name: &CStr) -> Result<Option<Entry>, FolderError> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(entry(OsStr::from_bytes(name.to_bytes()), &stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.error(&name.to_string_lossy(), errno)),
        }
    }

    /// Opens the folder `name` in this one; `None` where there is none, or
    /// something else.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn existing(&self, name: &str) -> Result<Option<Self>, FolderError> {
        match self.open_beneath(name, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => Ok(Some(Self { fd, path: self.path.join(name), owner: self.owner })),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(self.error(name, errno)),
        }
    }

    /// Moves `name` into `to`, under a name of its own that begins so, and tells
    /// that; `None` where there is nothing to move. Nothing is replaced.
    ///
    /// # Errors
    /// When it can't be moved.
    pub fn move_into(&self, name: &OsStr, to: &Self) -> Result<Option<OsString>, FolderError> {
        let mut candidate = name.to_owned();
        for number in 1_u32.. {
            match rename_to_new(self, name, to, &candidate) {
                Ok(()) => return Ok(Some(candidate)),
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::EXIST | Errno::NOTEMPTY) => {
                    candidate = name.to_owned();
                    candidate.push(format!(".{number}"));
                }
                Err(errno) => return Err(self.error(&name.to_string_lossy(), errno)),
            }
        }
        Ok(None)
    }

    /// Deletes the file or link `name`; one that is gone is no error.
    ///
    /// # Errors
    /// When it can't be deleted.
    pub fn remove(&self, name: &OsStr) -> Result<(), FolderError> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.error(&name.to_string_lossy(), errno)),
        }
    }

    /// Locks the folder for as long as it is open, waiting for at most
    /// `patience`; `false` when others did not let go of it. Where the file
    /// system has no locks, there is nothing to wait for.
    #[must_use]
    pub fn lock(&self, lock: Lock, patience: Duration) -> bool {
        let operation = match lock {
            Lock::Adding => FlockOperation::NonBlockingLockShared,
            Lock::Deleting => FlockOperation::NonBlockingLockExclusive,
        };
        let step = Duration::from_millis(20);
        let mut waited = Duration::ZERO;
        loop {
            match rustix::fs::flock(&self.fd, operation) {
                Err(Errno::WOULDBLOCK | Errno::INTR) if waited < patience => {
                    std::thread::sleep(step);
                    waited += step;
                }
                Err(Errno::WOULDBLOCK) => return false,
                _ => return true,
            }
        }
    }
}

/// Renames, and fails where something has the new name.
fn rename_to_new(from: &Folder, name: &OsStr, to: &Folder, new: &OsStr) -> Result<(), Errno> {
    match rustix::fs::renameat_with(&from.fd, name, &to.fd, new, RenameFlags::NOREPLACE) {
        // Not every file system knows the flag.
        Err(Errno::INVAL | Errno::NOSYS) => match rustix::fs::statat(&to.fd, new, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(Errno::EXIST),
            Err(_) => rustix::fs::renameat(&from.fd, name, &to.fd, new),
        },
        result => result,
    }
}

fn entry(name: &OsStr, stat: &Stat) -> Entry {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File(u64::try_from(stat.st_size).unwrap_or(0)),
        FileType::Directory => Kind::Folder,
        _ => Kind::Other,
    };
    let seconds = Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
    let modified = SystemTime::UNIX_EPOCH.checked_add(seconds).unwrap_or(SystemTime::UNIX_EPOCH);
    Entry { name: name.to_owned(), kind, modified }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn open(path: &Path) -> Folder {
        Folder::open(path).expect("a folder")
    }

    #[test]
    fn nothing_is_replaced_or_followed_when_moved() {
        let scratch = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(scratch.path().join("to")).expect("made");
        let (from, to) = (open(scratch.path()), open(&scratch.path().join("to")));
        for number in ["", ".1", ".2"] {
            std::fs::write(scratch.path().join("x"), number).expect("written");
            let name = from.move_into(OsStr::new("x"), &to).expect("moved").expect("there");
            assert_eq!(name, OsString::from(format!("x{number}")));
            assert_eq!(std::fs::read_to_string(scratch.path().join("to").join(name)).expect("there"), number);
        }
        assert_eq!(from.move_into(OsStr::new("x"), &to).expect("no error"), None);
        symlink("/", scratch.path().join("x")).expect("linked");
        from.move_into(OsStr::new("x"), &to).expect("moved");
        let kinds: Vec<Kind> = to.entries().expect("readable").into_iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [Kind::File(0), Kind::File(2), Kind::File(2), Kind::Other]);
        assert!(to.existing("x.3").expect("no error").is_none());
        assert!(from.existing("to").expect("no error").is_some());
    }

    #[test]
    fn one_who_deletes_is_alone() {
        let scratch = tempfile::tempdir().expect("a folder");
        let (one, other) = (open(scratch.path()), open(scratch.path()));
        assert!(one.lock(Lock::Adding, Duration::ZERO) && other.lock(Lock::Adding, Duration::ZERO));
        assert!(!other.lock(Lock::Deleting, Duration::from_millis(30)));
        drop(one);
        assert!(other.lock(Lock::Deleting, Duration::ZERO));
        assert!(!open(scratch.path()).lock(Lock::Adding, Duration::ZERO));
    }
}
