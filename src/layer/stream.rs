//! The ways that a layer's chunks can go: straight on, hashed by another thread
//! meanwhile, or into memory.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sha2::{Digest as _, Sha256};

use super::LayerRecord;
use super::chunks::{CHUNK, Flow, PackError};
use super::pack::StoreLayer;
use crate::digest::Digest;

/// How many chunks may wait for the hashing thread.
const QUEUE: usize = 16;

/// Packs `layer` into `out`, hashing on this thread.
///
/// # Errors
/// As [`StoreLayer::write`].
pub fn hash_here(layer: &StoreLayer<'_>, out: &mut dyn Write) -> Result<LayerRecord, PackError> {
    let (flow, architectures) = layer.write(Direct { hasher: Sha256::new(), out })?;
    Ok(LayerRecord { diff_id: Digest::finish(flow.hasher), size: layer.size(), architectures })
}

/// Packs `layer` into `out`, hashing on a thread of its own, so that a big layer
/// keeps two processors busy.
///
/// # Errors
/// As [`StoreLayer::write`].
pub fn hash_aside(layer: &StoreLayer<'_>, out: &mut dyn Write) -> Result<LayerRecord, PackError> {
    std::thread::scope(|scope| {
        let (full, chunks) = sync_channel::<(Vec<u8>, usize)>(QUEUE);
        let (used, free) = sync_channel(QUEUE + 2);
        let hashing = scope.spawn(move || {
            let mut hasher = Sha256::new();
            for (chunk, filled) in chunks {
                hasher.update(&chunk[..filled]);
                // Nobody waits for the buffers of a layer that is complete.
                let _ = used.try_send(chunk);
            }
            Digest::finish(hasher)
        });
        let written = layer.write(Aside { full, free, out });
        // The sender must be gone before the hashing thread can end.
        let written = written.map(|(_, architectures)| architectures);
        let diff_id = hashing.join().map_err(|_| io::Error::other("the hashing thread panicked"))?;
        Ok(LayerRecord { diff_id, size: layer.size(), architectures: written? })
    })
}

/// Packs `layer` into `out`, which knows its digest already.
///
/// # Errors
/// As [`StoreLayer::write`].
pub fn only_write(layer: &StoreLayer<'_>, out: &mut dyn Write) -> Result<(), PackError> {
    layer.write(Unhashed { out }).map(drop)
}

/// Packs `layer` into memory, hashing on this thread.
///
/// # Errors
/// As [`StoreLayer::write`].
pub fn hash_ahead(layer: &StoreLayer<'_>) -> Result<(LayerRecord, InMemory), PackError> {
    let (flow, architectures) = layer.write(Ahead { hasher: Sha256::new(), chunks: Vec::new() })?;
    let record = LayerRecord { diff_id: Digest::finish(flow.hasher), size: layer.size(), architectures };
    Ok((record, InMemory(flow.chunks)))
}

/// A small layer's bytes.
pub struct InMemory(Vec<Vec<u8>>);

impl InMemory {
    /// A layer that is in memory already.
    #[must_use]
    pub fn of(bytes: Vec<u8>) -> Self {
        Self(vec![bytes])
    }

    /// Writes the bytes to `out`.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        self.0.iter().try_for_each(|chunk| out.write_all(chunk))
    }
}

struct Direct<'a> {
    hasher: Sha256,
    out: &'a mut dyn Write,
}

impl Flow for Direct<'_> {
    fn take(&mut self, chunk: &mut Vec<u8>, filled: usize) -> io::Result<()> {
        self.hasher.update(&chunk[..filled]);
        self.out.write_all(&chunk[..filled])
    }
}

struct Unhashed<'a> {
    out: &'a mut dyn Write,
}

impl Flow for Unhashed<'_> {
    fn take(&mut self, chunk: &mut Vec<u8>, filled: usize) -> io::Result<()> {
        self.out.write_all(&chunk[..filled])
    }
}

struct Ahead {
    hasher: Sha256,
    chunks: Vec<Vec<u8>>,
}

impl Flow for Ahead {
    fn take(&mut self, chunk: &mut Vec<u8>, filled: usize) -> io::Result<()> {
        self.hasher.update(&chunk[..filled]);
        self.chunks.push(chunk[..filled].to_vec());
        Ok(())
    }
}

struct Aside<'a> {
    full: SyncSender<(Vec<u8>, usize)>,
    free: Receiver<Vec<u8>>,
    out: &'a mut dyn Write,
}

impl Flow for Aside<'_> {
    fn take(&mut self, chunk: &mut Vec<u8>, filled: usize) -> io::Result<()> {
        self.out.write_all(&chunk[..filled])?;
        let next = self.free.try_recv().unwrap_or_else(|_| vec![0; CHUNK]);
        let chunk = std::mem::replace(chunk, next);
        self.full.send((chunk, filled)).map_err(|_| io::Error::other("the hashing thread is gone"))
    }
}
