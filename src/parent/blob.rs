//! Files and parts of files that are read again and again, whatever happens to
//! their names meanwhile.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};

use super::{OpenBlob, ParentError};
use crate::digest::Digest;
use crate::registry::RepositoryName;

/// How much is read with one call.
const BUFFER_SIZE: usize = 256 * 1024;

/// A part of an open file, or a blob that becomes one when somebody looks into it.
#[derive(Clone)]
pub struct Blob {
    bytes: Bytes,
    offset: u64,
    size: u64,
}

#[derive(Clone)]
enum Bytes {
    File(Arc<File>),
    Remote(Arc<Remote>),
}

/// A blob somewhere else.
struct Remote {
    open: OpenBlob,
    origin: RepositoryName,
    digest: Digest,
    /// The unlinked temporary file with its bytes, once they were needed.
    fetched: Mutex<Option<Arc<File>>>,
}

/// Reads something, and hashes it.
struct Hashing<R> {
    reader: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(space)?;
        self.hasher.update(&space[..length]);
        Ok(length)
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Blob({} bytes from {})", self.size, self.offset)
    }
}

impl Remote {
    /// Fetches the blob, the first time.
    fn file(&self, size: u64) -> io::Result<Arc<File>> {
        let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*fetched {
            return Ok(file.clone());
        }
        // One byte more than there should be is seen, and a million are not fetched.
        let mut bytes = Hashing { reader: (self.open)()?.take(size.saturating_add(1)), hasher: Sha256::new() };
        let kept = Spool::new()?.keep(&mut bytes).map_err(|error| match error {
            SpoolError::Read(error) => error,
            SpoolError::Write(error) => io::Error::new(
                error.kind(),
                format!("keeping it in a temporary file: {error}; TMPDIR names another folder for such files"),
            ),
        })?;
        if kept.size != size || Digest::finish(bytes.hasher) != self.digest {
            return Err(io::Error::other(format!("{} has other bytes for it than its digest says", self.origin)));
        }
        match kept.bytes {
            Bytes::File(file) => Ok(fetched.insert(file).clone()),
            Bytes::Remote(_) => {
                Err(io::Error::other("a temporary file is somewhere else; this is a defect of stowage"))
            }
        }
    }
}

impl Blob {
    /// The whole file at `path`.
    ///
    /// # Errors
    /// When it can't be read, or is no regular file.
    pub fn open(path: &Path) -> Result<Self, ParentError> {
        let error = |source| ParentError::Read { path: path.to_owned(), source };
        // Opening a pipe would wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| error(errno.into()))?;
        let file = File::from(file);
        let metadata = file.metadata().map_err(error)?;
        if !metadata.is_file() {
            return Err(ParentError::NotRegular(path.to_owned()));
        }
        Ok(Self { bytes: Bytes::File(Arc::new(file)), offset: 0, size: metadata.len() })
    }

    /// The blob `digest` of `size` bytes in the repository `origin`, which `open` fetches.
    #[must_use]
    pub fn remote(open: OpenBlob, origin: RepositoryName, digest: Digest, size: u64) -> Self {
        let remote = Remote { open, origin, digest, fetched: Mutex::default() };
        Self { bytes: Bytes::Remote(Arc::new(remote)), offset: 0, size }
    }

    /// The repository that it is in, if it is in one.
    #[must_use]
    pub fn origin(&self) -> Option<&RepositoryName> {
        match &self.bytes {
            Bytes::File(_) => None,
            Bytes::Remote(remote) => Some(&remote.origin),
        }
    }

    fn file(&self) -> io::Result<Arc<File>> {
        match &self.bytes {
            Bytes::File(file) => Ok(file.clone()),
            Bytes::Remote(remote) => remote.file(self.size),
        }
    }

    /// The part of `size` bytes that begins at `offset`, as far as it is there.
    #[must_use]
    pub fn part(&self, offset: u64, size: u64) -> Self {
        let offset = offset.min(self.size);
        Self { bytes: self.bytes.clone(), offset: self.offset + offset, size: size.min(self.size - offset) }
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads it from its beginning.
    #[must_use]
    pub fn reader(&self) -> BlobReader {
        BlobReader { blob: self.clone(), file: None, position: 0 }
    }

    /// Reads it from its beginning, in large pieces.
    #[must_use]
    pub fn buffered(&self) -> io::BufReader<BlobReader> {
        io::BufReader::with_capacity(BUFFER_SIZE, self.reader())
    }

    /// All its bytes.
    ///
    /// # Errors
    /// When it can't be read, or is larger than `limit`, in bytes.
    pub fn bytes(&self, limit: u64) -> io::Result<Vec<u8>> {
        if self.size > limit {
            return Err(io::Error::other(format!("it is {} bytes long, and {limit} would be many", self.size)));
        }
        let mut bytes = Vec::new();
        self.reader().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Its first bytes, up to 8.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn magic(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader().take(8).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Opens it for whoever copies the layer: straight from where it is.
    #[must_use]
    pub fn opener(self) -> OpenBlob {
        Arc::new(move || {
            if let Bytes::Remote(remote) = &self.bytes
                && remote.fetched.lock().unwrap_or_else(PoisonError::into_inner).is_none()
            {
                return (remote.open)();
            }
            Ok(Box::new(self.reader()))
        })
    }
}

/// Reads a [`Blob`], without moving the position of its file, which others read
/// too.
pub struct BlobReader {
    blob: Blob,
    file: Option<Arc<File>>,
    position: u64,
}

impl BlobReader {
    /// Goes on `length` bytes later.
    ///
    /// # Errors
    /// When the blob ends before that.
    pub fn skip(&mut self, length: u64) -> io::Result<()> {
        match self.position.checked_add(length) {
            Some(position) if position <= self.blob.size => {
                self.position = position;
                Ok(())
            }
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.blob.size - self.position).unwrap_or(usize::MAX);
        let wanted = space.len().min(left);
        if wanted == 0 {
            return Ok(0);
        }
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(self.blob.file()?),
        };
        let length = file.read_at(&mut space[..wanted], self.blob.offset + self.position)?;
        if length == 0 {
            // The file was cut meanwhile.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += length as u64;
        Ok(length)
    }
}

/// An unlinked temporary file: gone once nobody has it open.
#[derive(Debug)]
pub struct Spool {
    file: Arc<File>,
    size: u64,
}

/// Why something was not spooled.
#[derive(Debug)]
pub enum SpoolError {
    /// It can't be read.
    Read(io::Error),
    /// The temporary file can't be written.
    Write(io::Error),
}

impl Spool {
    /// An empty one.
    ///
    /// # Errors
    /// When the folder for temporary files can't be written.
    pub fn new() -> io::Result<Self> {
        Ok(Self { file: Arc::new(tempfile::tempfile()?), size: 0 })
    }

    /// Keeps all that `reader` gives.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub fn keep(&mut self, mut reader: impl Read) -> Result<Blob, SpoolError> {
        let offset = self.size;
        let mut buffer = vec![0; BUFFER_SIZE];
        loop {
            let length = match reader.read(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(SpoolError::Read(error)),
            };
            if length == 0 {
                break;
            }
            // Zeros become holes, which take no space however many there are.
            if buffer[..length].iter().any(|byte| *byte != 0) {
                self.file.write_all_at(&buffer[..length], self.size).map_err(SpoolError::Write)?;
            }
            self.size += length as u64;
        }
        self.file.set_len(self.size).map_err(SpoolError::Write)?;
        Ok(Blob { bytes: Bytes::File(self.file.clone()), offset, size: self.size - offset })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A blob of these bytes.
    pub fn blob(bytes: &[u8]) -> Blob {
        match Spool::new().expect("a file").keep(bytes) {
            Ok(blob) => blob,
            Err(SpoolError::Read(error) | SpoolError::Write(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn a_blob_is_what_it_was_when_its_name_means_another_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "0123456789").expect("writable");
        let part = Blob::open(&path).expect("a file").part(2, 3);
        std::fs::write(folder.path().join("other"), "abcdefghij").expect("writable");
        std::fs::rename(folder.path().join("other"), &path).expect("renamed");
        let opener = part.opener();
        for _ in 0..2 {
            let mut text = String::new();
            opener().expect("open").read_to_string(&mut text).expect("readable");
            assert_eq!(text, "234");
        }
    }

    #[test]
    fn what_is_spooled_comes_back_zeros_and_all() {
        let zeros = vec![0; 3 * BUFFER_SIZE];
        let mut spool = Spool::new().expect("a file");
        let mut keep = |bytes: &[u8]| match spool.keep(bytes) {
            Ok(blob) => blob,
            Err(SpoolError::Read(error) | SpoolError::Write(error)) => panic!("{error}"),
        };
        let (first, second, third) = (keep(&zeros), keep(b"abc"), keep(&zeros[..10]));
        assert!(first.bytes(u64::MAX).expect("readable") == zeros);
        assert_eq!(second.bytes(3).expect("readable"), b"abc");
        assert_eq!(third.bytes(10).expect("readable"), [0; 10]);
        second.bytes(2).expect_err("too large");
    }

    #[test]
    fn the_end_of_a_blob_is_not_left_by_skipping() {
        let mut reader = blob(b"0123456789").part(2, 3).reader();
        reader.skip(2).expect("within");
        reader.skip(2).expect_err("behind the end");
        reader.skip(u64::MAX).expect_err("behind the end");
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).expect("readable");
        assert_eq!(rest, b"4");
        assert_eq!(blob(b"0123").part(10, 10).size(), 0);
    }
}
