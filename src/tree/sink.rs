//! Where the bytes of files come from, and where they are read to.

use super::TreeError;

/// Where the bytes of files are read to.
pub trait Sink {
    /// What goes wrong beyond reading.
    type Error: From<TreeError>;
    /// Free space, at least one byte of it.
    ///
    /// # Errors
    /// When none can be made.
    fn space(&mut self) -> Result<&mut [u8], Self::Error>;
    /// Says that the first `length` bytes of the space are written.
    fn advance(&mut self, length: usize);
    /// Adds `bytes`, which are in memory.
    ///
    /// # Errors
    /// When no space can be made.
    fn add(&mut self, mut bytes: &[u8]) -> Result<(), Self::Error> {
        while !bytes.is_empty() {
            let space = self.space()?;
            let (now, later) = bytes.split_at(bytes.len().min(space.len()));
            space[..now.len()].copy_from_slice(now);
            self.advance(now.len());
            bytes = later;
        }
        Ok(())
    }
}

/// Where the contents of files come from.
pub trait Files {
    /// Reads the file `path`, below the store dir, which is `size` bytes long, into
    /// `sink`.
    ///
    /// # Errors
    /// When it is of another size, or can't be read.
    fn read<S: Sink>(&self, path: &[u8], size: u64, sink: &mut S) -> Result<(), S::Error>;
}

/// A file's bytes in memory, with room for one more.
pub(super) struct WholeFile {
    pub(super) bytes: Vec<u8>,
    pub(super) filled: usize,
}

impl Sink for WholeFile {
    type Error = TreeError;

    fn space(&mut self) -> Result<&mut [u8], TreeError> {
        Ok(&mut self.bytes[self.filled..])
    }

    fn advance(&mut self, length: usize) {
        self.filled += length;
    }
}
