//! Walks a store path into sorted entries, and reads its files, exactly as
//! long as the walk found them.
//!
//! Only what a NAR keeps is looked at: names, kinds, the owner's executable
//! bit, contents and link targets. So whatever is made of these entries depends
//! on the NAR hash alone, not on owners, other modes, times or hard links.

pub mod elsewhere;
mod error;
pub mod exclude;
mod sink;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::{Errno, ReadWriteFlags};

use crate::store::StorePath;
use elsewhere::Elsewhere;
pub use error::TreeError;
use sink::WholeFile;
pub use sink::{Files, Sink};

/// How much of a file is announced, in bytes; the system itself reads ahead in larger ones.
const ANNOUNCED: u64 = 16 << 20;

/// A file, folder or link of a store path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path below the store dir: the store path's base name, and what is
    /// below that.
    pub path: Vec<u8>,
    /// What it is.
    pub node: Node,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A folder; its entries follow.
    Directory,
    /// A file.
    Regular {
        /// Whether its owner may execute it.
        executable: bool,
        /// Its size in bytes.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
    },
}

impl Files for StoreFiles {
    fn read<S: Sink>(&self, path: &[u8], size: u64, sink: &mut S) -> Result<(), S::Error> {
        self.read(path, size, sink)
    }
}

/// The folder with the files of a store.
#[derive(Debug)]
pub struct StoreFiles {
    folder: OwnedFd,
    path: PathBuf,
    /// Those that are not there, by their base names.
    elsewhere: BTreeMap<Vec<u8>, Elsewhere>,
}

impl StoreFiles {
    /// Opens the folder at `path`.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Path) -> Result<Self, TreeError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| TreeError::Io { path: path.to_owned(), source: errno.into() })?;
        Ok(Self { folder, path: path.to_owned(), elsewhere: BTreeMap::new() })
    }

    /// Takes the files of the store path `path` from elsewhere.
    pub fn put_elsewhere(&mut self, path: &StorePath, elsewhere: Elsewhere) {
        self.elsewhere.insert(path.to_basename().into_bytes(), elsewhere);
    }

    /// Whether the files of `path` are elsewhere than in the store.
    #[must_use]
    pub fn is_elsewhere(&self, path: &StorePath) -> bool {
        self.elsewhere.contains_key(path.to_basename().as_bytes())
    }

    /// Finds out whether `path` is there, without opening it.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self, path: &StorePath) -> Result<(), TreeError> {
        if self.is_elsewhere(path) {
            return Ok(());
        }
        self.stat(path.to_basename().as_bytes()).map(drop).map_err(|error| missing_root(error, self, path))
    }

    /// All entries of `path`, depth first, names in the order of their bytes.
    ///
    /// # Errors
    /// When it is gone, can't be read, or has a file of a kind that no NAR has.
    pub fn walk(&self, path: &StorePath) -> Result<Vec<Entry>, TreeError> {
        let base = path.to_basename().into_bytes();
        if let Some(elsewhere) = self.elsewhere.get(&base) {
            return Ok(elsewhere.entries(&base));
        }
        let mut walk = Walk { files: self, entries: Vec::new(), buffer: vec![MaybeUninit::uninit(); 32 * 1024] };
        walk.add(base, FileType::Unknown).map_err(|error| missing_root(error, self, path))?;
        Ok(walk.entries)
    }

    /// The names in the folder `path`, below the store dir, in order; `None`
    /// where it is no folder. Links at the end of `path` are not followed.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn children(&self, path: &[u8]) -> Result<Option<Vec<Entry>>, TreeError> {
        let mut buffer = vec![MaybeUninit::uninit(); 32 * 1024];
        if let Some((elsewhere, rest)) = self.elsewhere_of(path) {
            if elsewhere.node(rest)? != Node::Directory {
                return Ok(None);
            }
            let names = elsewhere.names(rest).into_iter();
            return names.map(|name| self.entry(&join(path, &name))).collect::<Result<_, _>>().map(Some);
        }
        if FileType::from_raw_mode(self.stat(path)?.st_mode) != FileType::Directory {
            return Ok(None);
        }
        let names = self.names(path, &mut buffer)?;
        let entry = |(name, kind): (Vec<u8>, FileType)| {
            let path = join(path, &name);
            let node = self.node(&path, kind)?;
            Ok(Entry { path, node })
        };
        names.into_iter().map(entry).collect::<Result<_, _>>().map(Some)
    }

    /// What is at `path`, below the store dir.
    ///
    /// # Errors
    /// When nothing is, or it can't be read.
    pub fn entry(&self, path: &[u8]) -> Result<Entry, TreeError> {
        let node = self.node(path, FileType::Unknown)?;
        Ok(Entry { path: path.to_owned(), node })
    }

    /// Reads the file `path`, below the store dir, which the walk found to be
    /// `size` bytes long, into `sink`.
    ///
    /// # Errors
    /// When it is of another size by now, or can't be read.
    pub fn read<S: Sink>(&self, path: &[u8], size: u64, sink: &mut S) -> Result<(), S::Error> {
        self.read_noting(path, size, sink, &mut true)
    }

    /// Likewise; and notes in `cold`, if that is not noted yet, that the file was not in the
    /// page cache.
    ///
    /// # Errors
    /// See there.
    pub fn read_noting<S: Sink>(&self, path: &[u8], size: u64, sink: &mut S, cold: &mut bool) -> Result<(), S::Error> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Some((elsewhere, rest)) = self.elsewhere_of(path) {
            return elsewhere.read(rest, sink);
        }
        let file =
            rustix::fs::openat(&self.folder, path, flags, Mode::empty()).map_err(|errno| self.error(path, errno))?;
        let mut is_first = true;
        let mut read = |space: &mut [u8]| {
            if std::mem::take(&mut is_first) && !*cold {
                let mut spaces = [IoSliceMut::new(space)];
                // What is cached, from where the file is read anyway.
                match rustix::io::preadv2(&file, &mut spaces, u64::MAX, ReadWriteFlags::NOWAIT) {
                    Ok(length) => return Ok(length),
                    Err(Errno::AGAIN) => *cold = true,
                    // File systems may not know.
                    Err(_) => {}
                }
            }
            rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut *space)).map_err(|errno| self.error(path, errno))
        };
        let changed = |found: String| TreeError::Changed { path: self.full(path), expected: size, found };
        let mut remaining = size;
        // Asking for one byte more than there should be finds the end of the
        // file, or that it has grown, with the same call that reads the rest.
        let mut at_end = false;
        while remaining > 0 {
            let space = sink.space()?;
            let limit = usize::try_from(remaining).unwrap_or(usize::MAX).saturating_add(1);
            let wanted = space.len().min(limit);
            let length = read(&mut space[..wanted])?;
            let received = length as u64;
            if length == 0 {
                return Err(changed((size - remaining).to_string()).into());
            }
            if received > remaining {
                return Err(changed("longer".to_owned()).into());
            }
            remaining -= received;
            at_end = remaining == 0 && wanted > length;
            sink.advance(length);
        }
        if !at_end && read(&mut [0])? != 0 {
            return Err(changed("longer".to_owned()).into());
        }
        Ok(())
    }

    /// Has the system read the beginning of the file `path`, since it is wanted soon. Where it
    /// can't, that is found out when the file is read.
    pub fn announce(&self, path: &[u8]) {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if let Some((elsewhere, rest)) = self.elsewhere_of(path) {
            elsewhere.announce(rest, ANNOUNCED);
        } else if let Ok(file) = rustix::fs::openat(&self.folder, path, flags, Mode::empty()) {
            let _ = rustix::fs::fadvise(&file, 0, NonZeroU64::new(ANNOUNCED), Advice::WillNeed);
        }
    }

    /// The bytes of the small file `path`, below the store dir.
    ///
    /// # Errors
    /// When it is no file, or can't be read.
    pub fn read_whole(&self, path: &[u8]) -> Result<Vec<u8>, TreeError> {
        let Node::Regular { size, .. } = self.node(path, FileType::Unknown)? else {
            return Err(TreeError::Special(self.full(path)));
        };
        let mut file = WholeFile { bytes: vec![0; size as usize + 1], filled: 0 };
        self.read(path, size, &mut file)?;
        file.bytes.truncate(file.filled);
        Ok(file.bytes)
    }

    fn node(&self, path: &[u8], kind: FileType) -> Result<Node, TreeError> {
        if let Some((elsewhere, rest)) = self.elsewhere_of(path) {
            return elsewhere.node(rest);
        }
        match kind {
            FileType::Directory => Ok(Node::Directory),
            FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(&self.folder, path, Vec::new()).map_err(|errno| self.error(path, errno))?;
                Ok(Node::Symlink { target: target.into_bytes() })
            }
            FileType::RegularFile => {
                let stat = self.stat(path)?;
                Ok(Node::Regular {
                    executable: stat.st_mode & 0o100 != 0,
                    size: u64::try_from(stat.st_size).unwrap_or(0),
                })
            }
            FileType::Unknown => {
                let kind = FileType::from_raw_mode(self.stat(path)?.st_mode);
                if kind == FileType::Unknown {
                    return Err(TreeError::Special(self.full(path)));
                }
                self.node(path, kind)
            }
            _ => Err(TreeError::Special(self.full(path))),
        }
    }

    /// The names in a folder, sorted, with what the file system says they are.
    fn names(&self, path: &[u8], buffer: &mut [MaybeUninit<u8>]) -> Result<Vec<(Vec<u8>, FileType)>, TreeError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder =
            rustix::fs::openat(&self.folder, path, flags, Mode::empty()).map_err(|errno| self.error(path, errno))?;
        let mut names = Vec::new();
        let mut reader = RawDir::new(folder, buffer);
        while let Some(entry) = reader.next() {
            let entry = entry.map_err(|errno| self.error(path, errno))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push((name.to_owned(), entry.file_type()));
            }
        }
        names.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        Ok(names)
    }

    fn stat(&self, path: &[u8]) -> Result<Stat, TreeError> {
        rustix::fs::statat(&self.folder, path, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| self.error(path, errno))
    }

    /// The store path elsewhere that `path` is in, and what is left of it.
    fn elsewhere_of<'s>(&'s self, path: &'s [u8]) -> Option<(&'s Elsewhere, &'s [u8])> {
        if self.elsewhere.is_empty() {
            return None;
        }
        let end = path.iter().position(|byte| *byte == b'/').unwrap_or(path.len());
        Some((self.elsewhere.get(&path[..end])?, &path[end..]))
    }

    fn full(&self, path: &[u8]) -> PathBuf {
        match self.elsewhere_of(path) {
            None => self.path.join(OsStr::from_bytes(path)),
            Some((elsewhere, rest)) => elsewhere.full(rest),
        }
    }

    fn error(&self, path: &[u8], errno: Errno) -> TreeError {
        TreeError::Io { path: self.full(path), source: errno.into() }
    }
}

/// A walk under way.
struct Walk<'a> {
    files: &'a StoreFiles,
    entries: Vec<Entry>,
    buffer: Vec<MaybeUninit<u8>>,
}

impl Walk<'_> {
    fn add(&mut self, path: Vec<u8>, kind: FileType) -> Result<(), TreeError> {
        let node = self.files.node(&path, kind)?;
        let names = match node {
            Node::Directory => self.files.names(&path, &mut self.buffer)?,
            _ => Vec::new(),
        };
        let children: Vec<_> = names.into_iter().map(|(name, kind)| (join(&path, &name), kind)).collect();
        self.entries.push(Entry { path, node });
        for (child, kind) in children {
            self.add(child, kind)?;
        }
        Ok(())
    }
}

/// The path of `name` in the folder `path`.
fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    [path, b"/", name].concat()
}

/// Tells that a whole store path is gone from other errors.
fn missing_root(error: TreeError, files: &StoreFiles, path: &StorePath) -> TreeError {
    match error {
        TreeError::Io { path: at, source }
            if source.kind() == std::io::ErrorKind::NotFound && at == files.full(path.to_basename().as_bytes()) =>
        {
            TreeError::Gone(at)
        }
        other => other,
    }
}
