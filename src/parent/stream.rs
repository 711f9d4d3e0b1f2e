//! The bytes of a layer, uncompressed, and their digests on the way.

use std::cell::RefCell;
use std::io::{self, BufReader, Read};
use std::rc::Rc;

use sha2::{Digest as _, Sha256};

use super::blob::Blob;
use super::compression::{Bounded, Compression};
use super::error::LayerProblem;
use super::tar::Input;
use crate::digest::Digest;

/// How many bytes may follow a tar's end. Some tools fill up to a unit of their
/// own, usually 10 KiB; more is only there to be hashed.
const MAX_TRAILING: u64 = 16 << 20;

/// How much is decompressed with one call, in bytes.
const BUFFER_SIZE: usize = 128 * 1024;

/// A layer that is being read.
pub struct LayerStream {
    blob: Blob,
    compression: Compression,
    reader: Box<dyn Read>,
    /// Of the blob, where it is not the uncompressed layer itself.
    compressed: Rc<RefCell<Tally>>,
    uncompressed: Tally,
}

/// What a layer turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sums {
    /// How it is compressed.
    pub compression: Compression,
    /// The blob's digest.
    pub blob: Digest,
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The size of the uncompressed tar, in bytes.
    pub size: u64,
}

/// A digest and size that grow.
#[derive(Clone, Default)]
struct Tally {
    hasher: Sha256,
    size: u64,
}

impl Tally {
    fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }
}

/// Tallies what goes through it.
struct Tallied<R> {
    inner: R,
    tally: Rc<RefCell<Tally>>,
}

impl<R: Read> Read for Tallied<R> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(space)?;
        self.tally.borrow_mut().add(&space[..length]);
        Ok(length)
    }
}

impl LayerStream {
    /// Reads the layer that is in `blob`.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn new(blob: &Blob) -> Result<Self, LayerProblem> {
        let compression = Compression::of(&blob.magic()?);
        let compressed = Rc::new(RefCell::new(Tally::default()));
        let reader: Box<dyn Read> = if compression == Compression::None {
            Box::new(blob.buffered())
        } else {
            let tallied = Tallied { inner: blob.reader(), tally: compressed.clone() };
            let decoder = compression.reader(BufReader::with_capacity(BUFFER_SIZE, tallied))?;
            // Headers are small, and decoders slow when asked for little.
            Box::new(BufReader::with_capacity(BUFFER_SIZE, Bounded::new(decoder, blob.size())))
        };
        Ok(Self { blob: blob.clone(), compression, reader, compressed, uncompressed: Tally::default() })
    }

    /// What the layer turned out to be, after its last entry was read.
    ///
    /// # Errors
    /// When the rest can't be read, or is too long.
    pub fn finish(mut self) -> Result<Sums, LayerProblem> {
        io::copy(&mut (&mut self).take(MAX_TRAILING), &mut io::sink())?;
        if self.read(&mut [0])? > 0 {
            return Err(LayerProblem::Bomb(format!("more than {MAX_TRAILING} bytes follow its end")));
        }
        let Tally { hasher, size } = self.uncompressed;
        let diff_id = Digest::finish(hasher);
        let blob = if self.compression == Compression::None {
            diff_id
        } else {
            drop(self.reader);
            let mut tally = self.compressed.take();
            // A decoder may stop before the blob ends.
            let rest = self.blob.part(tally.size, self.blob.size());
            let mut rest = Tallied { inner: rest.reader(), tally: Rc::new(RefCell::new(std::mem::take(&mut tally))) };
            io::copy(&mut rest, &mut io::sink())?;
            Digest::finish(rest.tally.take().hasher)
        };
        Ok(Sums { compression: self.compression, blob, diff_id, size })
    }
}

impl Read for LayerStream {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(space)?;
        self.uncompressed.add(&space[..length]);
        Ok(length)
    }
}

impl Input for LayerStream {
    fn skip(&mut self, mut length: u64) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        while length > 0 {
            let wanted = buffer.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            match self.read(&mut buffer[..wanted])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => length -= read as u64,
            }
        }
        Ok(())
    }
}
