//! Where a cache's files are: a folder, or the objects of a bucket that have a prefix. All that
//! is done with a cache is done by these verbs, whatever it is in.
//!
//! They differ in this. A folder is locked while somebody deletes; a bucket can't be, so its
//! files are written under conditions, and whoever deletes there leaves alone what is new. A
//! bucket has no folders that could be missing, or be links.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::time::{Duration, SystemTime};

use super::beneath::manage::{Entry, Kind, Lock};
use super::beneath::{Folder, FolderError, Temporary};
use super::bucket::Bucket;
use crate::s3::upload::Upload;
use crate::s3::{Condition, S3Error, Written};

/// How much is written to a file with one call, in bytes. From 128 KiB on, ext4 takes large
/// folios from Linux 6.18's page cache, and virtual machines have to get the memory for them
/// from their host: 256 MiB took 0.9 s of CPU so, and 0.1 s in pieces of 64 KiB.
const PIECE: usize = 64 * 1024;

/// How much is asked of a bucket at the same time, whatever the number of processors: one waits
/// for most of it.
const ASKED_AT_ONCE: usize = 16;

/// How many paths are exported to a bucket at the same time.
const SENT_AT_ONCE: usize = 8;

/// Why a cache's files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// Those in a folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Those in a bucket.
    #[error(transparent)]
    Bucket(#[from] S3Error),
}

impl ShelfError {
    /// What reading or writing `file` said.
    fn of_io(path: std::path::PathBuf, source: io::Error) -> Self {
        match source.downcast::<S3Error>() {
            Ok(error) => Self::Bucket(error),
            Err(source) => Self::Folder(FolderError::Io { path, source }),
        }
    }
}

/// Files of a cache, open.
#[derive(Debug)]
pub enum Shelf {
    /// Those in a folder.
    Folder(Folder),
    /// Those in a bucket.
    Bucket(Bucket),
}

/// What was seen of a file that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(Condition);

impl Version {
    /// That there was nothing.
    pub const NONE: Self = Self(Condition::New);
}

/// A file while it is read.
pub type Source = Box<dyn Read + Send>;

/// A file while it is written; it appears when it is whole.
pub enum Draft<'a> {
    /// In a folder, under another name until then.
    File {
        /// The file.
        file: Temporary<'a>,
        /// The name that it gets.
        name: String,
    },
    /// In a bucket, where nobody sees it until then.
    Object(Upload),
}

impl Shelf {
    /// What is in `name`, which is made if need be.
    ///
    /// # Errors
    /// When it is a link, or no folder.
    pub fn folder(&self, name: &str) -> Result<Self, ShelfError> {
        Ok(match self {
            Self::Folder(folder) => Self::Folder(folder.folder(OsStr::new(name))?),
            Self::Bucket(bucket) => Self::Bucket(bucket.below(name)?),
        })
    }

    /// What is in `name`; `None` where there is no such folder.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn existing(&self, name: &str) -> Result<Option<Self>, ShelfError> {
        Ok(match self {
            Self::Folder(folder) => folder.existing(name)?.map(Self::Folder),
            Self::Bucket(bucket) => Some(Self::Bucket(bucket.below(name)?)),
        })
    }

    /// What the file `name` holds; `None` where there is none of at most `limit` bytes.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, ShelfError> {
        Ok(self.look(name, limit)?.0)
    }

    /// What the file `name` holds, as [`Self::read`] has it, and which version of it that is.
    ///
    /// # Errors
    /// As there.
    pub fn look(&self, name: &str, limit: u64) -> Result<(Option<Vec<u8>>, Version), ShelfError> {
        match self {
            Self::Folder(folder) => Ok((folder.read(name, limit)?, Version(Condition::Always))),
            Self::Bucket(bucket) => {
                let (bytes, condition) = bucket.look(name, limit)?;
                Ok((bytes, Version(condition)))
            }
        }
    }

    /// Opens the file `name`, and tells its size; `None` where there is none.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn file(&self, name: &str) -> Result<Option<(Source, u64)>, ShelfError> {
        match self {
            Self::Folder(folder) => Ok(folder.file(name)?.map(|(file, size)| (Box::new(file) as Source, size))),
            Self::Bucket(bucket) => Ok(bucket.file(name)?.map(|file| {
                let size = file.size();
                (Box::new(file) as Source, size)
            })),
        }
    }

    /// The size of the file `name`; `None` where there is no ordinary file.
    ///
    /// # Errors
    /// When that can't be found out.
    pub fn size(&self, name: &str) -> Result<Option<u64>, ShelfError> {
        match self {
            Self::Folder(folder) => Ok(folder.size(name)?),
            Self::Bucket(bucket) => Ok(bucket.head(name)?.and_then(|object| object.size)),
        }
    }

    /// How long ago the file `name` was written; `None` where there is none. In a folder, where
    /// nobody deletes while others add, nobody needs to know: there, all is new.
    ///
    /// # Errors
    /// When that can't be found out.
    pub fn age(&self, name: &str) -> Result<Option<Duration>, ShelfError> {
        match self {
            Self::Folder(_) => Ok(Some(Duration::ZERO)),
            Self::Bucket(bucket) => Ok(bucket
                .head(name)?
                .map(|object| SystemTime::now().duration_since(object.modified).unwrap_or_default())),
        }
    }

    /// Whether the file `name` is still what was `listed`, or still not there. In a folder nobody
    /// changes it meanwhile.
    ///
    /// # Errors
    /// When that can't be found out.
    pub fn is_as_listed(&self, name: &OsStr, listed: Option<&Entry>) -> Result<bool, ShelfError> {
        let Self::Bucket(bucket) = self else { return Ok(true) };
        let found = bucket.head(&name.to_string_lossy())?;
        // Lists may be more precise.
        let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let now = found.map(|object| (seconds(object.modified), object.size.map(Kind::File)));
        Ok(now == listed.map(|entry| (seconds(entry.modified), Some(entry.kind))))
    }

    /// Writes the file `name`, which appears when it is whole.
    ///
    /// # Errors
    /// When it can't be written; then there is no trace of it.
    pub fn write(&self, name: &str, contents: &[u8]) -> Result<(), ShelfError> {
        self.replace(name, contents, &Version(Condition::Always)).map(drop)
    }

    /// Writes the file `name`, unless somebody has written it since it was seen as `version`,
    /// as far as the place can tell.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn replace(&self, name: &str, contents: &[u8], version: &Version) -> Result<Written, ShelfError> {
        match self {
            Self::Folder(folder) => Ok(folder.write(name, contents).map(|()| Written::Done)?),
            Self::Bucket(bucket) => Ok(bucket.write(name, contents, &version.0)?),
        }
    }

    /// A file that gets the name `name` when it is whole, of `expected` bytes at the most, or
    /// little more.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn create(&self, name: &str, expected: u64) -> Result<Draft<'_>, ShelfError> {
        Ok(match self {
            Self::Folder(folder) => Draft::File { file: folder.temporary()?, name: name.to_owned() },
            Self::Bucket(bucket) => Draft::Object(bucket.upload(name, expected)?),
        })
    }

    /// The error that reading or writing the file `name` failed with.
    #[must_use]
    pub fn failure(&self, name: &str, source: io::Error) -> ShelfError {
        let path = match self {
            Self::Folder(folder) => folder.path().join(name),
            Self::Bucket(bucket) => bucket.shown(name).into(),
        };
        ShelfError::of_io(path, source)
    }

    /// All that is there, ordered by name.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn entries(&self) -> Result<Vec<Entry>, ShelfError> {
        match self {
            Self::Folder(folder) => Ok(folder.entries()?),
            Self::Bucket(bucket) => Ok(bucket.entries()?),
        }
    }

    /// Moves `name` to `to`, under a name of its own that begins so, and tells that; `None`
    /// where there is nothing to move. Nothing is replaced.
    ///
    /// # Errors
    /// When it can't be moved.
    pub fn move_into(&self, name: &OsStr, to: &Self) -> Result<Option<OsString>, ShelfError> {
        match (self, to) {
            (Self::Folder(from), Self::Folder(to)) => Ok(from.move_into(name, to)?),
            (Self::Bucket(from), Self::Bucket(to)) => Ok(from.move_into(name, to)?),
            // One cache is in one place.
            _ => Ok(None),
        }
    }

    /// Deletes the file `name`; one that is gone is no error.
    ///
    /// # Errors
    /// When it can't be deleted.
    pub fn remove(&self, name: &OsStr) -> Result<(), ShelfError> {
        match self {
            Self::Folder(folder) => Ok(folder.remove(name)?),
            Self::Bucket(bucket) => Ok(bucket.remove(name)?),
        }
    }

    /// Deletes the file `name` if it was not written for `age`, and tells whether that was so.
    /// In a folder nobody writes meanwhile, and age does not matter.
    ///
    /// # Errors
    /// When it can't be deleted.
    pub fn remove_older(&self, name: &OsStr, age: Duration) -> Result<bool, ShelfError> {
        match self {
            Self::Folder(folder) => Ok(folder.remove(name).map(|()| true)?),
            Self::Bucket(bucket) => Ok(bucket.remove_older(name, age)?),
        }
    }

    /// Locks the cache for as long as this is open, waiting for at most `patience`; `false` when
    /// others did not let go of it. There is no lock on a bucket.
    #[must_use]
    pub fn lock(&self, lock: Lock, patience: Duration) -> bool {
        match self {
            Self::Folder(folder) => folder.lock(lock, patience),
            Self::Bucket(_) => true,
        }
    }

    /// Deletes what killed runs have left, and nobody has written to for a day. In a bucket that
    /// is left to whoever deletes there: see [`Self::abandon`].
    pub fn sweep(&self) {
        if let Self::Folder(folder) = self {
            folder.sweep();
        }
    }

    /// Takes back what was begun `age` ago, and not ended, and takes room though nobody sees it.
    pub fn abandon(&self, age: Duration) {
        if let Self::Bucket(bucket) = self {
            bucket.abandon(age);
        }
    }

    /// Whether others write here at the same time, whom no lock keeps away.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Bucket(_))
    }

    /// How many things are looked at at the same time where `jobs` are wanted.
    #[must_use]
    pub fn threads(&self, jobs: usize) -> usize {
        if self.is_shared() { jobs.max(ASKED_AT_ONCE) } else { jobs }
    }

    /// How many paths are exported at the same time where `jobs` are wanted.
    #[must_use]
    pub fn writers(&self, jobs: usize) -> usize {
        if self.is_shared() { jobs.max(SENT_AT_ONCE) } else { jobs }
    }
}

impl Draft<'_> {
    /// Gives it its name, in place of whatever has that by now, and tells its size.
    ///
    /// # Errors
    /// When that is impossible; then there is no trace of it.
    pub fn finish(self) -> Result<u64, ShelfError> {
        match self {
            Self::File { mut file, name } => {
                let size = file.file().metadata();
                let size = size.map_err(|source| FolderError::Io { path: name.clone().into(), source })?.len();
                file.persist(&name)?;
                Ok(size)
            }
            Self::Object(upload) => Ok(upload.finish()?),
        }
    }
}

impl Write for Draft<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File { file, .. } => file.file().write(&bytes[..bytes.len().min(PIECE)]),
            Self::Object(upload) => upload.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File { file, .. } => file.file().flush(),
            Self::Object(upload) => upload.flush(),
        }
    }
}
