//! Reads a NAR as Nix would, and compares it with what its narinfo says.
//!
//! No more is unpacked than the narinfo says there is, so a bomb costs as much
//! as what it claims to be, and nothing is kept.
//!
//! A reference that the NAR does not hold is one that nobody found in it: Nix
//! looks for references in these very bytes. Whether one was left out can't be
//! told, since builds may drop references on purpose; signatures tell.

use std::io::{self, BufReader, Read, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use nix_derivation::{CAHash, NixHash};
use nix_narinfo::Compression as Named;
use sha2::{Digest as _, Sha256};

use super::fault::Fault;
use super::metadata::Metadata;
use crate::cache::shelf::{Shelf, ShelfError, Source};
use crate::nar::Measured;
use crate::nar::read::{self, Event, ReadError};
use crate::parent::compression::Compression;
use crate::parent::references::{Candidates, ReferenceScanner};
use crate::store::StorePath;

const BUFFER_SIZE: usize = 256 * 1024;

/// How bzip2 begins; then comes a digit.
const BZIP2: &[u8] = b"BZh";

/// What became of a NAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what its narinfo says.
    Whole,
    /// It is compressed in a way that only Nix can read.
    Unknown,
}

/// [`verify`] of the NAR that `metadata` names, in `nars`. That a bucket can't be read is no fault
/// of what is in it.
///
/// # Errors
/// When it can't be.
pub fn verify_file(nars: &Shelf, metadata: &Metadata) -> Result<Result<Verdict, Fault>, ShelfError> {
    let (file, failure) = match nars.file(&metadata.nar_file) {
        Ok(Some((file, _))) => Watched::new(file),
        Ok(None) => return Ok(Err(Fault::NarNotAFile(metadata.nar_file.clone()))),
        Err(ShelfError::Folder(error)) => return Ok(Err(Fault::NarUnreadable(error.to_string()))),
        Err(error) => return Err(error),
    };
    let verdict = verify(file, metadata);
    let failure = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    match failure.map(|error| nars.failure(&metadata.nar_file, error)) {
        Some(error @ ShelfError::Bucket(_)) => Err(error),
        _ => Ok(verdict),
    }
}

/// Compares the NAR in `file` with what `metadata` says of it.
///
/// # Errors
/// When Nix would refuse it.
pub fn verify(file: impl Read, metadata: &Metadata) -> Result<Verdict, Fault> {
    let unreadable = |error: io::Error| Fault::NarUnreadable(error.to_string());
    let mut reader = BufReader::with_capacity(BUFFER_SIZE, file);
    let first = io::BufRead::fill_buf(&mut reader).map_err(unreadable)?;
    let nar: Box<dyn io::Read> = match metadata.narinfo.compression() {
        Named::None => Box::new(reader),
        Named::Other(_) => return Ok(Verdict::Unknown),
        // Nix looks at the first bytes, too.
        _ if first.starts_with(BZIP2) => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
        named => match Compression::of(first) {
            // Nix finds no compression, and gives up.
            Compression::None => {
                return Err(Fault::NarUnreadable(format!("it is not compressed as {}", named.as_str())));
            }
            found => found.reader(reader).map_err(unreadable)?,
        },
    };
    let candidates = Candidates::new(metadata.references());
    match Contents::read(nar, metadata.narinfo.nar_size(), &candidates) {
        Ok(contents) => contents.compare(metadata),
        // Nix up to 2.33 unpacks it.
        Err(ReadError::TooDeep) => Ok(Verdict::Unknown),
        Err(ReadError::TooLong(size)) => Err(Fault::NarSize(size)),
        Err(error) => Err(Fault::NarUnreadable(error.to_string())),
    }
}

/// What was found in a NAR.
struct Contents {
    nar: Measured,
    references: Vec<StorePath>,
    /// The hash of a NAR's only file; `None` where there are more, or a link.
    flat: Option<[u8; 32]>,
}

impl Contents {
    fn read(nar: impl Read, limit: u64, candidates: &Candidates<'_>) -> Result<Self, ReadError> {
        let mut scanned = Scanned { source: nar, scanner: ReferenceScanner::new(candidates) };
        let mut flat = None;
        let nar = read::read(&mut scanned, limit, |path, event| match event {
            Event::Regular { contents, .. } if path.is_empty() => {
                let mut hasher = Sha256::new();
                io::copy(contents, &mut hasher)?;
                flat = Some(hasher.finalize().into());
                Ok(())
            }
            _ => Ok(()),
        })?;
        Ok(Self { nar, references: scanned.scanner.finish(), flat })
    }

    fn compare(&self, metadata: &Metadata) -> Result<Verdict, Fault> {
        let narinfo = &metadata.narinfo;
        if self.nar.size != narinfo.nar_size() {
            return Err(Fault::NarSize(narinfo.nar_size()));
        }
        if self.nar.hash != metadata.nar_hash {
            return Err(Fault::NarHash { expected: metadata.nar_hash.to_nix32(), found: self.nar.hash.to_nix32() });
        }
        if let Some(missing) = metadata.references().find(|path| self.references.binary_search(path).is_err()) {
            return Err(Fault::Reference(missing.to_basename()));
        }
        let is_right = match narinfo.content_address() {
            Some(CAHash::Nar(NixHash::Sha256(hash))) if !narinfo.references().contains(narinfo.store_path()) => {
                hash == self.nar.hash.as_bytes()
            }
            Some(CAHash::Flat(NixHash::Sha256(hash)) | CAHash::Text(hash)) => self.flat.as_ref() == Some(hash),
            // Nix alone knows the others.
            _ => true,
        };
        if is_right { Ok(Verdict::Whole) } else { Err(Fault::ContentAddress) }
    }
}

/// A source in which references are looked for while it is read.
struct Scanned<'a, R> {
    source: R,
    scanner: ReferenceScanner<'a>,
}

impl<R: Read> Read for Scanned<'_, R> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(space)?;
        self.scanner.write_all(&space[..length])?;
        Ok(length)
    }
}

/// What was said when a NAR could not be read on.
type Failure = Arc<Mutex<Option<io::Error>>>;

/// A NAR that is read; that it can't be is told apart from its being damaged.
struct Watched {
    source: Source,
    failure: Failure,
}

impl Watched {
    fn new(source: Source) -> (Self, Failure) {
        let failure = Failure::default();
        (Self { source, failure: Arc::clone(&failure) }, failure)
    }
}

impl Read for Watched {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        self.source.read(space).map_err(|error| {
            let (kind, text) = (error.kind(), error.to_string());
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            io::Error::new(kind, text)
        })
    }
}
