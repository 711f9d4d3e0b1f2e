//! Files that appear whole or not at all, and reading what is a file indeed.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use tempfile::{Builder, NamedTempFile};

/// How many links are followed at most before they count as a loop, as in Linux.
pub const MAX_LINKS: usize = 40;

/// The beginning of the names of files that are not complete.
pub const PARTIAL: &str = ".stowage-partial-";

/// From what age on a partial file is nobody's.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// A new file that vanishes unless it is given its name; readable by all, whatever
/// the umask. Where the file system can, it has no name until then, so that a
/// killed run leaves nothing.
#[derive(Debug)]
pub struct PartialFile(Partial);

#[derive(Debug)]
enum Partial {
    Nameless(File),
    Named(NamedTempFile),
}

impl PartialFile {
    /// A file in `folder`.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn create(folder: &Path) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let partial = match rustix::fs::open(folder, flags, Mode::from_raw_mode(0o644)) {
            // It gets its name by way of /proc.
            Ok(file) if Path::new("/proc/self/fd").exists() => Partial::Nameless(File::from(file)),
            Ok(_) | Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
                Partial::Named(Builder::new().prefix(PARTIAL).tempfile_in(folder)?)
            }
            Err(errno) => return Err(errno.into()),
        };
        let partial = Self(partial);
        partial.file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        Ok(partial)
    }

    /// Gives the file its name; what had it before is replaced.
    ///
    /// # Errors
    /// When it can't be renamed.
    pub fn persist(self, path: &Path) -> io::Result<()> {
        match self.0 {
            Partial::Named(file) => file.persist(path).map(drop).map_err(|error| error.error),
            Partial::Nameless(file) => {
                let folder = folder_of(path);
                let this = format!("/proc/self/fd/{}", file.as_raw_fd());
                // Only a rename replaces a file, and only what has a name is renamed.
                let named = Builder::new()
                    .prefix(PARTIAL)
                    .make_in(folder, |name| Ok(rustix::fs::linkat(CWD, &this, CWD, name, AtFlags::SYMLINK_FOLLOW)?))?;
                named.persist(path).map(drop).map_err(|error| error.error)
            }
        }
    }

    fn file(&self) -> &File {
        match &self.0 {
            Partial::Nameless(file) => file,
            Partial::Named(file) => file.as_file(),
        }
    }
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

/// A folder that nobody else changes meanwhile: whoever else wants to waits.
#[derive(Debug)]
pub struct LockedFolder {
    _folder: File,
}

impl LockedFolder {
    /// Locks `path`, until the value is dropped or the process ends.
    ///
    /// # Errors
    /// When it is no folder, or can't be locked.
    pub fn lock(path: &Path) -> io::Result<Self> {
        let folder = File::open(path)?;
        if folder.try_lock().is_err() {
            tracing::info!("waiting for another process that writes {}", path.display());
            folder.lock()?;
        }
        Ok(Self { _folder: folder })
    }
}

/// Deletes what killed runs have left in `folder`: partial files that nobody has
/// written to for a day. What can't be deleted stays.
pub fn sweep(folder: &Path) {
    let is_old = |entry: &std::fs::DirEntry| {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > ABANDONED))
    };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(PARTIAL.as_bytes()) && is_old(&entry) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Writes `bytes` to `path`, by rename once they are complete.
///
/// # Errors
/// When they can't be written; then `path` is what it was.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = PartialFile::create(folder_of(path))?;
    file.write_all(bytes)?;
    file.persist(path)
}

/// The device or pipe that `path` is or leads to, for writing: as root, a rename would put a
/// file in the place of `/dev/null`. So is a file that a process has open already, by its name
/// in `/proc`, such as `/dev/stdout`.
///
/// # Errors
/// When there is one, and it can't be written.
pub fn open_special(path: &Path) -> io::Result<Option<File>> {
    let Ok(found) = std::fs::metadata(path) else { return Ok(None) };
    let in_proc = path.starts_with("/proc") || std::fs::read_link(path).is_ok_and(|link| link.starts_with("/proc"));
    let is_special = in_proc || !(found.is_file() || found.is_dir());
    if is_special { std::fs::OpenOptions::new().write(true).open(path).map(Some) } else { Ok(None) }
}

/// Opens the regular file `path` for reading. A pipe in its place, where somebody else
/// can write, would be waited for without end.
///
/// # Errors
/// When it can't be opened, or is something else.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok(file)
}

/// The bytes of the regular file `path`.
///
/// # Errors
/// As [`open_regular`], or when it can't be read.
pub fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The folder that `path` is in.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_partial_file_has_no_name_until_it_is_complete_and_then_replaces_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "old").expect("writable");
        let mut partial = PartialFile::create(folder.path()).expect("writable");
        partial.write_all(b"new").expect("writable");
        assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1);
        assert_eq!(std::fs::read(&path).expect("there"), b"old");
        partial.persist(&path).expect("writable");
        assert_eq!(std::fs::read(&path).expect("there"), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1);
        assert_eq!(path.metadata().expect("there").permissions().mode() & 0o7777, 0o644);
    }

    #[test]
    fn a_folder_is_locked_until_its_lock_is_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let lock = LockedFolder::lock(folder.path()).expect("not locked");
        let other = File::open(folder.path()).expect("readable");
        assert!(other.try_lock().is_err());
        drop(lock);
        other.try_lock().expect("free");
    }

    #[test]
    fn only_old_partial_files_are_swept_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let old = SystemTime::now() - 2 * ABANDONED;
        for (name, modified) in [("old", old), ("new", SystemTime::now())] {
            for prefix in [PARTIAL, "other-"] {
                let file = std::fs::File::create(folder.path().join(format!("{prefix}{name}"))).expect("writable");
                file.set_modified(modified).expect("writable");
            }
        }
        sweep(folder.path());
        let names = std::fs::read_dir(folder.path()).expect("readable").flatten().map(|entry| entry.file_name());
        let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        assert_eq!(names, [format!("{PARTIAL}new"), "other-new".to_owned(), "other-old".to_owned()]);
    }
}
