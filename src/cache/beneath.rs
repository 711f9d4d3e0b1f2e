//! A folder in which somebody else may be at work, perhaps with ill intent.
//!
//! The daemon's hook is root, and writes to the folder of an ordinary user, who
//! may at any moment replace each part of it by a link to elsewhere. So the
//! folder is opened once, everything in it is reached from there by names of
//! one component, and no link is followed:
//!
//! - `openat2` with `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`; where the
//!   kernel or a container's filter has no `openat2`, `openat` with
//!   `O_NOFOLLOW`, which for one component says the same;
//! - files get random names, created with `O_EXCL`, and appear by rename, which
//!   replaces a link and does not follow it;
//! - what root makes is given to the folder's owner through its descriptor; a
//!   folder is made where only root can rename, and then moved to its place.
//!
//! Invariant: as root, nothing is opened for writing, changed or given away
//! that was there before, nothing is deleted but abandoned temporary files, and
//! no link of somebody else is followed even on the way to the folder. Only what
//! is in [`manage`] moves and deletes more, by name, and below the folder.

pub mod manage;
pub mod temporary;

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RawDir, RenameFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

use super::resolve::{self, OTHERS_WRITE};
pub use temporary::{TEMPORARY_PREFIX, Temporary};
use temporary::{is_abandoned, is_temporary, temporary_name};

/// What a folder is called until it is moved to its place.
const MADE: &str = "made";
/// With less room, the standard library probes for the end with small calls.
const READ_ROOM: usize = 64;

const FILE_MODE: Mode = Mode::from_raw_mode(0o644);
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o755);
/// Of a folder in one where everybody may write, delete and rename anyway, as GitLab's runner
/// makes that of a project: else the next job, which may be of another user, could not add to
/// what this one made.
const SHARED_FOLDER_MODE: Mode = Mode::from_raw_mode(0o777);

/// Why a folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Following it could write anywhere.
    #[error("{0} is a symbolic link or no folder; nothing is written through links, so put a real folder there")]
    NoFolder(PathBuf),
    /// A link that another user can point anywhere, or move, while root follows it.
    #[error(
        "{0} is a symbolic link, or behind one, that another user made or may have put there, and root does not follow it; name the folder that it points to"
    )]
    ForeignLink(PathBuf),
    /// A typing error: only a folder itself is made, not those around it.
    #[error("{path} can't be made, since there is no folder {parent}; make that first, or name another folder")]
    NoParent {
        /// What is to be made.
        path: PathBuf,
        /// What is missing.
        parent: PathBuf,
    },
    /// Anything else that the system says.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    /// To whom new files are given; `None` where they are theirs anyway.
    owner: Option<(Uid, Gid)>,
}

impl Folder {
    /// Where it is, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the folder at `path`, and makes it if it is not there; the folder
    /// around it must be.
    ///
    /// # Errors
    /// When it is no folder, or the system says no.
    pub fn open_or_make(path: &Path) -> Result<Self, FolderError> {
        match Self::open(path) {
            Err(error) if is_missing(&error) => {}
            result => return result,
        }
        let (Some(parent), Some(Component::Normal(name))) = (path.parent(), path.components().next_back()) else {
            return Self::open(path);
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let around = match Self::open(parent) {
            Err(error) if is_missing(&error) => {
                return Err(FolderError::NoParent { path: path.to_owned(), parent: parent.to_owned() });
            }
            result => result?,
        };
        let made = around.folder(name)?;
        Self::new(made.fd, path.to_owned())
    }

    /// Opens the folder at `path`.
    ///
    /// # Errors
    /// When there is none, or as root, when a link of somebody else leads there.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = if rustix::process::geteuid().is_root() {
            let place = resolve::without_foreign_links(path)?;
            rustix::fs::openat(place, ".", flags, Mode::empty())
        } else {
            rustix::fs::open(path, flags, Mode::empty())
        };
        Self::new(fd.map_err(|errno| error(path, errno))?, path.to_owned())
    }

    fn new(fd: OwnedFd, path: PathBuf) -> Result<Self, FolderError> {
        let stat = rustix::fs::fstat(&fd).map_err(|errno| error(&path, errno))?;
        let foreign = rustix::process::geteuid().is_root() && stat.st_uid != 0;
        let owner = foreign.then(|| (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid)));
        Ok(Self { fd, path, owner })
    }

    /// Opens the folder `name` in this one, and makes it if it is not there.
    ///
    /// # Errors
    /// When it is a link, or no folder.
    pub fn folder(&self, name: &OsStr) -> Result<Self, FolderError> {
        let path = self.path.join(name);
        match self.open_or_make_beneath(name) {
            Ok(fd) => Ok(Self { fd, path, owner: self.owner }),
            Err(Errno::LOOP | Errno::NOTDIR) => Err(FolderError::NoFolder(path)),
            Err(errno) => Err(error(&path, errno)),
        }
    }

    /// Opens the file `name`, and tells its size; `None` where there is none,
    /// something that is no ordinary file, or to root, a file that the folder's
    /// owner may not read himself.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn file(&self, name: &str) -> Result<Option<(File, u64)>, FolderError> {
        // Without O_NONBLOCK, a pipe put there would hold the reader for ever.
        let fd = match self.open_beneath(name, OFlags::RDONLY | OFlags::NONBLOCK) {
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
            fd => fd.map_err(|errno| self.error(name, errno))?,
        };
        let stat = rustix::fs::fstat(&fd).map_err(|errno| self.error(name, errno))?;
        Ok(file_size(&stat).filter(|_| self.may_be_read(&stat)).map(|size| (File::from(fd), size)))
    }

    /// Whether reading a file tells the folder's owner nothing new: he may have put
    /// a hard link there to a file of root's, or moved one.
    fn may_be_read(&self, stat: &Stat) -> bool {
        self.owner.is_none_or(|(uid, _)| stat.st_uid == uid.as_raw() || stat.st_mode & Mode::ROTH.as_raw_mode() != 0)
    }

    /// What the file `name` holds; `None` where there is none of at most
    /// `limit` bytes.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, FolderError> {
        let Some((file, size)) = self.file(name)?.filter(|(_, size)| *size <= limit) else {
            return Ok(None);
        };
        // With room for more than there should be, the end is found with two calls, not six: a
        // closure has thousands of narinfos.
        let mut contents = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + READ_ROOM);
        match file.take(limit).read_to_end(&mut contents) {
            Ok(_) => Ok(Some(contents)),
            Err(source) => Err(FolderError::Io { path: self.path.join(name), source }),
        }
    }

    /// The size of the file `name`; `None` where there is no ordinary file.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn size(&self, name: &str) -> Result<Option<u64>, FolderError> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(file_size(&stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.error(name, errno)),
        }
    }

    /// Writes the file `name`, which appears when it is whole.
    ///
    /// # Errors
    /// When it can't be written; then there is no trace of it.
    pub fn write(&self, name: &str, contents: &[u8]) -> Result<(), FolderError> {
        let mut temporary = self.temporary()?;
        std::io::Write::write_all(temporary.file(), contents)
            .map_err(|source| FolderError::Io { path: self.path.join(name), source })?;
        temporary.persist(name)
    }

    /// A new file.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn temporary(&self) -> Result<Temporary<'_>, FolderError> {
        let name = temporary_name().map_err(|errno| self.error("", errno))?;
        let fd = self
            .open_beneath(&name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)
            .map_err(|errno| self.error(&name, errno))?;
        let temporary = Temporary { folder: self, name, file: File::from(fd) };
        // The umask took its part of the mode that the file was made with.
        rustix::fs::fchmod(&temporary.file, FILE_MODE).map_err(|errno| self.error(&temporary.name, errno))?;
        self.give_away(temporary.file.as_fd());
        Ok(temporary)
    }

    /// Deletes what killed runs have left: unfinished files that nobody has
    /// written to for a day. What can't be deleted stays.
    pub fn sweep(&self) {
        let Ok(fd) = self.open_beneath(".", OFlags::RDONLY | OFlags::DIRECTORY) else {
            return;
        };
        let mut buffer = [MaybeUninit::uninit(); 8 * 1024];
        let mut reader = RawDir::new(fd, &mut buffer);
        while let Some(Ok(entry)) = reader.next() {
            let name = entry.file_name();
            if is_temporary(name.to_bytes())
                && rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| is_abandoned(&stat))
            {
                let _ = rustix::fs::unlinkat(&self.fd, name, AtFlags::empty());
            }
        }
    }

    fn open_or_make_beneath(&self, name: &OsStr) -> Result<OwnedFd, Errno> {
        let open = || self.open_beneath(name, OFlags::RDONLY | OFlags::DIRECTORY);
        match open() {
            Err(Errno::NOENT) => {}
            result => return result,
        }
        let workshop = temporary_name()?;
        rustix::fs::mkdirat(&self.fd, &workshop, FOLDER_MODE)?;
        let made = self.make_in(&workshop, name);
        let _ = rustix::fs::unlinkat(&self.fd, &workshop, AtFlags::REMOVEDIR);
        match made {
            // Or another process was faster.
            Ok(()) | Err(Errno::EXIST) => open(),
            Err(errno) => Err(errno),
        }
    }

    /// Makes the folder `name` in the new folder `workshop`, where nobody else can
    /// rename anything, and moves it out. Made in its place, it could be swapped
    /// before it is opened, for a folder that would then be given away.
    fn make_in(&self, workshop: &str, name: &OsStr) -> Result<(), Errno> {
        let place = self.open_beneath(workshop, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let stat = rustix::fs::fstat(&place)?;
        if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & OTHERS_WRITE != 0 {
            return Err(Errno::PERM);
        }
        let mode = folder_mode(&rustix::fs::fstat(&self.fd)?);
        rustix::fs::mkdirat(&place, MADE, FOLDER_MODE)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let moved = rustix::fs::openat(&place, MADE, flags, Mode::empty()).and_then(|fd| {
            // The umask took its part of the mode.
            rustix::fs::fchmod(&fd, mode)?;
            self.give_away(fd.as_fd());
            match rustix::fs::renameat_with(&place, MADE, &self.fd, name, RenameFlags::NOREPLACE) {
                // Not every file system can; then an empty folder is replaced.
                Err(Errno::INVAL) => rustix::fs::renameat(&place, MADE, &self.fd, name),
                result => result,
            }
        });
        if moved.is_err() {
            let _ = rustix::fs::unlinkat(&place, MADE, AtFlags::REMOVEDIR);
        }
        moved
    }

    /// Opens `name`, which has one component.
    fn open_beneath(&self, name: impl AsRef<OsStr>, flags: OFlags) -> Result<OwnedFd, Errno> {
        let name = name.as_ref();
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = if flags.contains(OFlags::CREATE) { FILE_MODE } else { Mode::empty() };
        match rustix::fs::openat2(&self.fd, name, flags, mode, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
            Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(&self.fd, name, flags, mode),
            result => result,
        }
    }

    /// Gives what root made to the folder's owner. A root without the right to
    /// do that, e.g. in a user namespace, keeps it: all can read it anyway.
    fn give_away(&self, fd: BorrowedFd<'_>) {
        if let Some((uid, gid)) = self.owner
            && let Err(errno) = rustix::fs::fchown(fd, Some(uid), Some(gid))
        {
            tracing::warn!("giving a file in {} to its owner: {errno}", self.path.display());
        }
    }

    fn error(&self, name: &str, errno: Errno) -> FolderError {
        error(&self.path.join(name), errno)
    }
}

/// The mode of a folder in the one of `around`.
fn folder_mode(around: &Stat) -> Mode {
    let mode = Mode::from_raw_mode(around.st_mode);
    let is_shared = mode.contains(Mode::WOTH) && !mode.contains(Mode::SVTX);
    if is_shared { SHARED_FOLDER_MODE } else { FOLDER_MODE }
}

/// The size of an ordinary file.
fn file_size(stat: &Stat) -> Option<u64> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => u64::try_from(stat.st_size).ok(),
        _ => None,
    }
}

fn is_missing(error: &FolderError) -> bool {
    matches!(error, FolderError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

pub(super) fn error(path: &Path, errno: Errno) -> FolderError {
    FolderError::Io { path: path.to_owned(), source: errno.into() }
}
