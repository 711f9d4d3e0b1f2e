//! The ways that a layer's chunks can go: straight on, hashed by another thread
//! meanwhile, or into memory.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};

use super::LayerRecord;
use super::chunks::{CHUNK, Flow, PackError};
use super::pack::StoreLayer;
use crate::digest::Digest;

/// How many chunks may wait for the hashing thread.
const QUEUE: usize = 16;

/// How many chunks may wait for those that hash later, in all: 20 MiB, as much as most layers
/// have.
const BEHIND: usize = 80;

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

/// Hashes layers on threads of their own, which may be behind: while one is still hashed, the
/// next is written already, and hashed by another. So all processors hash, though an archive
/// takes one layer after the other.
pub struct HashLater {
    used: Sender<Vec<u8>>,
    free: Receiver<Vec<u8>>,
    spare: usize,
}

/// A layer that is written, and hashed still.
pub struct Later {
    hashing: JoinHandle<Digest>,
    size: u64,
    architectures: BTreeMap<String, u64>,
}

impl HashLater {
    /// Nothing to hash yet.
    #[must_use]
    pub fn new() -> Self {
        let (used, free) = channel();
        Self { used, free, spare: BEHIND }
    }

    /// Packs `layer` into `out`.
    ///
    /// # Errors
    /// As [`StoreLayer::write`].
    pub fn pack(&mut self, layer: &StoreLayer<'_>, out: &mut dyn Write) -> Result<Later, PackError> {
        let (full, chunks) = channel::<(Vec<u8>, usize)>();
        let used = self.used.clone();
        let hashing = std::thread::spawn(move || {
            let mut hasher = Sha256::new();
            for (chunk, filled) in chunks {
                hasher.update(&chunk[..filled]);
                // Nobody waits for it any more after an error.
                let _ = used.send(chunk);
            }
            Digest::finish(hasher)
        });
        let (_, architectures) = layer.write(Behind { later: self, full, out })?;
        Ok(Later { hashing, size: layer.size(), architectures })
    }

    /// A buffer: one that was hashed, or a new one, or else the first that will have been.
    fn buffer(&mut self) -> io::Result<Vec<u8>> {
        if let Ok(buffer) = self.free.try_recv() {
            return Ok(buffer);
        }
        if self.spare > 0 {
            self.spare -= 1;
            return Ok(vec![0; CHUNK]);
        }
        self.free.recv().map_err(|_| io::Error::other("the hashing threads are gone"))
    }
}

impl Default for HashLater {
    fn default() -> Self {
        Self::new()
    }
}

impl Later {
    /// Waits for what the layer is.
    ///
    /// # Errors
    /// When its thread is gone.
    pub fn finish(self) -> io::Result<LayerRecord> {
        let diff_id = self.hashing.join().map_err(|_| io::Error::other("the hashing thread panicked"))?;
        Ok(LayerRecord { diff_id, size: self.size, architectures: self.architectures })
    }
}

struct Behind<'a> {
    later: &'a mut HashLater,
    full: Sender<(Vec<u8>, usize)>,
    out: &'a mut dyn Write,
}

impl Flow for Behind<'_> {
    fn take(&mut self, chunk: &mut Vec<u8>, filled: usize) -> io::Result<()> {
        self.out.write_all(&chunk[..filled])?;
        let chunk = std::mem::replace(chunk, self.later.buffer()?);
        self.full.send((chunk, filled)).map_err(|_| io::Error::other("the hashing thread is gone"))
    }
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
pub fn hash_ahead(layer: &StoreLayer<'_>, buffers: &Buffers) -> Result<(LayerRecord, InMemory), PackError> {
    let (flow, architectures) = layer.write(Ahead { hasher: Sha256::new(), chunks: Vec::new(), buffers })?;
    let record = LayerRecord { diff_id: Digest::finish(flow.hasher), size: layer.size(), architectures };
    Ok((record, InMemory { chunks: flow.chunks, buffers: Some(buffers.clone()) }))
}

/// Buffers for chunks, which are used again: new ones cost the system more than to fill them.
#[derive(Clone, Default)]
pub struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_else(|| vec![0; CHUNK])
    }

    fn give_back(&self, buffers: impl Iterator<Item = Vec<u8>>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(buffers);
    }
}

/// A layer's bytes.
pub struct InMemory {
    /// Buffers, and how much of each is filled.
    chunks: Vec<(Vec<u8>, usize)>,
    buffers: Option<Buffers>,
}

impl Drop for InMemory {
    fn drop(&mut self) {
        if let Some(buffers) = &self.buffers {
            buffers.give_back(self.chunks.drain(..).map(|(chunk, _)| chunk));
        }
    }
}

impl InMemory {
    /// A layer that is in memory already.
    #[must_use]
    pub fn of(bytes: Vec<u8>) -> Self {
        let filled = bytes.len();
        Self { chunks: vec![(bytes, filled)], buffers: None }
    }

    /// Writes the bytes to `out`.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        self.chunks.iter().try_for_each(|(chunk, filled)| out.write_all(&chunk[..*filled]))
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

struct Ahead<'a> {
    hasher: Sha256,
    chunks: Vec<(Vec<u8>, usize)>,
    buffers: &'a Buffers,
}

impl Flow for Ahead<'_> {
    fn take(&mut self, chunk: &mut Vec<u8>, filled: usize) -> io::Result<()> {
        self.hasher.update(&chunk[..filled]);
        self.chunks.push((std::mem::replace(chunk, self.buffers.take()), filled));
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
