//! Unfinished files: they have names that nobody can guess, and vanish unless they get others.

use std::fs::File;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Stat};
use rustix::io::Errno;

use super::{Folder, FolderError, file_size};

/// How the names of unfinished files begin.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// How many random bytes follow, in hexadecimal.
const TEMPORARY_BYTES: usize = 16;

/// From what age on an unfinished file is nobody's.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// A file that has no name of its own yet, and vanishes unless it gets one.
#[derive(Debug)]
pub struct Temporary<'a> {
    pub(super) folder: &'a Folder,
    pub(super) name: String,
    pub(super) file: File,
}

impl Temporary<'_> {
    /// The file, open for writing.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Gives it the name `name`, in place of whatever has that by now.
    ///
    /// # Errors
    /// When that is impossible; then the file is gone.
    pub fn persist(self, name: &str) -> Result<(), FolderError> {
        let fd = &self.folder.fd;
        rustix::fs::renameat(fd, &self.name, fd, name).map_err(|errno| self.folder.error(name, errno))
    }
}

impl Drop for Temporary<'_> {
    /// Does nothing to a file that got its name: its random one is gone then.
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(&self.folder.fd, &self.name, AtFlags::empty());
    }
}

/// Whether [`Folder::temporary`] gives such names.
pub(super) fn is_temporary(name: &[u8]) -> bool {
    let random = name.strip_prefix(TEMPORARY_PREFIX.as_bytes());
    random.is_some_and(|random| random.len() == 2 * TEMPORARY_BYTES && random.iter().all(u8::is_ascii_hexdigit))
}

/// Whether an unfinished file is nobody's any more.
pub(super) fn is_abandoned(stat: &Stat) -> bool {
    let modified = u64::try_from(stat.st_mtime).ok();
    let modified = modified.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    file_size(stat).is_some() && modified.is_some_and(|modified| modified.elapsed().is_ok_and(|age| age > ABANDONED))
}

/// A name that nobody can guess.
pub(super) fn temporary_name() -> Result<String, Errno> {
    let mut bytes = [0; TEMPORARY_BYTES];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{TEMPORARY_PREFIX}{}", crate::digest::hex(&bytes)))
}
