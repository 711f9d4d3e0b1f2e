//! Collects a layer's bytes in chunks, into which files are read directly, and
//! hands each full chunk on to a [`Flow`].

use std::collections::BTreeMap;
use std::io;

use super::elf;
use crate::tree::{Sink, TreeError};

/// How many bytes go from hand to hand at once. It is a multiple of tar's block,
/// and small enough to be hashed while it is still in the processor's cache.
pub const CHUNK: usize = 256 * 1024;

/// What goes wrong while a layer is made.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The store is not as registered.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The bytes can't be put where they should go.
    #[error("writing the layer: {0}")]
    Write(#[from] io::Error),
}

/// Where full chunks go.
pub trait Flow {
    /// Takes the first `filled` bytes of `chunk`. The buffer may be exchanged for
    /// another of the same size.
    ///
    /// # Errors
    /// When they can't be taken.
    fn take(&mut self, chunk: &mut Vec<u8>, filled: usize) -> io::Result<()>;
}

/// A layer's bytes on their way.
pub struct Chunks<F> {
    flow: F,
    chunk: Vec<u8>,
    filled: usize,
    /// Where in the chunk the file starts that is read now, until its first
    /// bytes are there.
    file_start: Option<usize>,
    architectures: BTreeMap<String, u64>,
}

impl<F: Flow> Chunks<F> {
    /// Chunks for `flow`.
    pub fn new(flow: F) -> Self {
        Self { flow, chunk: vec![0; CHUNK], filled: 0, file_start: None, architectures: BTreeMap::new() }
    }

    /// Says that the next bytes read are the first of a file.
    ///
    /// # Errors
    /// When the flow fails.
    pub fn start_file(&mut self) -> Result<(), PackError> {
        self.space()?;
        self.file_start = Some(self.filled);
        Ok(())
    }

    /// Hands over what is left; tells what the flow has come to, and how many
    /// programs and libraries there were for each architecture.
    ///
    /// # Errors
    /// When the flow fails.
    pub fn finish(mut self) -> Result<(F, BTreeMap<String, u64>), PackError> {
        self.hand_on()?;
        Ok((self.flow, self.architectures))
    }

    fn hand_on(&mut self) -> io::Result<()> {
        if self.filled > 0 {
            self.flow.take(&mut self.chunk, self.filled)?;
            self.filled = 0;
        }
        Ok(())
    }
}

impl<F: Flow> Sink for Chunks<F> {
    type Error = PackError;

    fn space(&mut self) -> Result<&mut [u8], PackError> {
        if self.filled == self.chunk.len() {
            self.hand_on()?;
        }
        Ok(&mut self.chunk[self.filled..])
    }

    fn advance(&mut self, length: usize) {
        self.filled += length;
        if let Some(start) = self.file_start.take()
            && let Some(architecture) = elf::architecture(&self.chunk[start..self.filled])
        {
            *self.architectures.entry(architecture.to_owned()).or_default() += 1;
        }
    }
}
