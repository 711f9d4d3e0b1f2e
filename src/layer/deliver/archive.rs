//! Layers for archives, which take one after the other, each behind its size.
//!
//! The small layers are packed ahead into bounded memory, while the big ones pass
//! one by one through a pipeline: one thread reads and writes, another hashes. So
//! layers go out in whatever order they are ready. A big one whose size (when it is
//! compressed) or digest (which names it in OCI archives) is known only in the end
//! waits for that in a temporary file.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::memory::{MEMORY, Memory, Share};
use super::{Content, Counted, LayerJob, Progress, Source, make_tar, panicked};
use crate::digest::HashWriter;
use crate::layer::blob::LayerBlob;
use crate::layer::chunks::{CHUNK, PackError};
use crate::layer::compress::{Compression, Press};
use crate::layer::pack::StoreLayer;
use crate::layer::stream::{self, Buffers, HashLater, InMemory, Later};
use crate::layer::{BlobRecord, Delivered, LayerRecord};

/// From this size on, in bytes, layers are not packed ahead into memory; nor are those that turn
/// out to be twice as big.
const AHEAD: u64 = 16 << 20;

/// A destination that takes one layer after the other.
pub trait ArchiveSink: Write {
    /// Whether layers are named by their digests, which must be known before their
    /// bytes then.
    fn names_by_digest(&self) -> bool;
    /// Announces the layer of `job`, `size` bytes, which are written next; `blob` is what
    /// they will be, if that is known.
    ///
    /// # Errors
    /// When it can't be begun.
    fn begin(&mut self, job: &LayerJob<'_>, blob: Option<&BlobRecord>, size: u64) -> io::Result<()>;
    /// Says that the layer of `size` bytes is complete, and what it was, if it has been hashed;
    /// where layers are named by their digests, it has.
    ///
    /// # Errors
    /// When it can't be ended, or was another than announced.
    fn end(&mut self, job: &LayerJob<'_>, size: u64, record: Option<&LayerRecord>) -> anyhow::Result<()>;
}

/// A temporary file that can't be written or read.
#[derive(Debug, thiserror::Error)]
#[error("keeping a layer in a temporary file: {0}; TMPDIR names another folder for such files")]
pub struct SpoolError(#[source] io::Error);

/// Makes the layers `jobs` on `threads` threads and writes them into the archive
/// `sink`, compressed by `compression`; tells what each was.
///
/// # Errors
/// The first error of any layer.
pub fn in_turn(
    source: Source<'_>,
    jobs: &[&LayerJob<'_>],
    sink: &mut dyn ArchiveSink,
    compression: Compression,
    threads: usize,
    progress: Progress<'_>,
) -> anyhow::Result<Vec<Delivered>> {
    let (big, small): (Vec<usize>, Vec<usize>) = (0..jobs.len()).partition(|index| jobs[*index].is_at_least(AHEAD));
    let press = Press::new(compression, threads);
    let ahead = PackAhead {
        source,
        jobs,
        small,
        next: AtomicUsize::new(0),
        memory: Memory::of(MEMORY),
        buffers: Buffers::default(),
        press: &press,
    };
    let mut archive = Archive {
        source,
        jobs,
        sink,
        press: &press,
        progress,
        hashing: HashLater::new(),
        later: Vec::new(),
        delivered: vec![None; jobs.len()],
    };
    std::thread::scope(|scope| {
        let (ready, packed) = channel();
        for _ in 0..press.readers_ahead(threads).clamp(1, ahead.small.len().max(1)) {
            let ready = ready.clone();
            let ahead = &ahead;
            scope.spawn(move || ahead.run(&ready));
        }
        drop(ready);
        let result = archive.write(big, &packed);
        // With it go the layers that nobody will write, so that those who wait for
        // their memory find it, and then that nobody listens.
        drop(packed);
        result
    })?;
    archive.delivered.into_iter().collect::<Option<Vec<_>>>().ok_or_else(panicked)
}

/// What the threads that pack ahead say of a layer.
enum Packed {
    Ready(Delivered, InMemory, Share),
    TooBig,
}

/// The threads that pack small layers ahead.
struct PackAhead<'a> {
    source: Source<'a>,
    jobs: &'a [&'a LayerJob<'a>],
    small: Vec<usize>,
    next: AtomicUsize,
    memory: Memory,
    buffers: Buffers,
    press: &'a Press,
}

impl PackAhead<'_> {
    fn run(&self, ready: &Sender<(usize, anyhow::Result<Packed>)>) {
        while let Some(index) = self.small.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if ready.send((*index, self.pack(self.jobs[*index]))).is_err() {
                return;
            }
        }
    }

    fn pack(&self, job: &LayerJob<'_>) -> anyhow::Result<Packed> {
        let is_plain = self.press.compression().is_none();
        let layer = match &job.content {
            Content::Made(make) if is_plain => {
                let bytes = make()?;
                let share = self.memory.take(bytes.len() as u64);
                let delivered = Delivered::plain(LayerRecord::of_tar(&bytes));
                return Ok(Packed::Ready(delivered, InMemory::of(bytes), share));
            }
            Content::Made(_) => return self.press(job, job.estimate),
            Content::Tar(tar) => return self.press(job, tar.size),
            Content::Store { paths, stamp, .. } => self.source.walk(paths, stamp)?,
            Content::Blob(_) => return Ok(Packed::TooBig),
        };
        if layer.size() >= 2 * AHEAD {
            return Ok(Packed::TooBig);
        }
        if !is_plain {
            return self.press(job, layer.size());
        }
        let share = self.memory.take(layer.size().next_multiple_of(CHUNK as u64));
        let (record, bytes) = stream::hash_ahead(&layer, &self.buffers)?;
        Ok(Packed::Ready(Delivered::plain(record), bytes, share))
    }

    /// A layer of `size` bytes, compressed into memory.
    fn press(&self, job: &LayerJob<'_>, size: u64) -> anyhow::Result<Packed> {
        let share = self.memory.take(size);
        let mut encoder = self.press.encoder(HashWriter::new(Vec::new()));
        let record = make_tar(self.source, job, &mut encoder)?;
        let (blob, bytes) = encoder.finish()?.finish();
        Ok(Packed::Ready(Delivered { record, blob }, InMemory::of(bytes), share))
    }
}

/// The thread that writes the archive.
struct Archive<'a> {
    source: Source<'a>,
    jobs: &'a [&'a LayerJob<'a>],
    sink: &'a mut dyn ArchiveSink,
    press: &'a Press,
    progress: Progress<'a>,
    hashing: HashLater,
    /// The layers that are written, and hashed still.
    later: Vec<(usize, Later)>,
    delivered: Vec<Option<Delivered>>,
}

impl Archive<'_> {
    fn write(&mut self, mut big: Vec<usize>, packed: &Receiver<(usize, anyhow::Result<Packed>)>) -> anyhow::Result<()> {
        while let Some(index) = big.pop() {
            // What is in memory goes first, so that others can use it.
            while let Ok((index, layer)) = packed.try_recv() {
                self.write_packed(index, layer?, &mut big)?;
            }
            self.write_big(index)?;
        }
        while let Ok((index, layer)) = packed.recv() {
            self.write_packed(index, layer?, &mut big)?;
            while let Some(index) = big.pop() {
                self.write_big(index)?;
            }
        }
        for (index, later) in self.later.drain(..) {
            self.delivered[index] = Some(Delivered::plain(later.finish()?));
        }
        Ok(())
    }

    fn write_packed(&mut self, index: usize, layer: Packed, big: &mut Vec<usize>) -> anyhow::Result<()> {
        let Packed::Ready(delivered, bytes, share) = layer else {
            big.push(index);
            return Ok(());
        };
        let BlobRecord { size, .. } = delivered.blob;
        self.sink.begin(self.jobs[index], Some(&delivered.blob), size)?;
        bytes.write_to(self.sink)?;
        drop((bytes, share));
        (self.progress)(delivered.record.size);
        self.end(index, delivered)
    }

    fn write_big(&mut self, index: usize) -> anyhow::Result<()> {
        let job = self.jobs[index];
        if let Content::Blob(blob) = &job.content {
            return self.write_blob(index, blob);
        }
        if !self.press.compression().is_none() {
            return self.write_spooled(index);
        }
        match &job.content {
            Content::Tar(tar) => self.write_blob(index, tar),
            Content::Store { paths, stamp, .. } => {
                let layer = self.source.walk(paths, stamp)?;
                let known = job.known.clone().filter(|known| known.size == layer.size());
                match known {
                    None if self.sink.names_by_digest() => self.write_spooled(index),
                    // Whoever reads a docker archive compares its layers with their digests.
                    known => self.write_store(index, &layer, known),
                }
            }
            Content::Made(_) | Content::Blob(_) => Err(panicked()),
        }
    }

    /// Streams a layer of store paths, of which is `known` what it was before.
    fn write_store(&mut self, index: usize, layer: &StoreLayer<'_>, known: Option<LayerRecord>) -> anyhow::Result<()> {
        let job = self.jobs[index];
        let blob = known.clone().map(|known| Delivered::plain(known).blob);
        self.sink.begin(job, blob.as_ref(), layer.size())?;
        let by_digest = self.sink.names_by_digest();
        let mut out = Counted { out: self.sink, progress: self.progress };
        let record = match known {
            Some(known) if !by_digest => {
                stream::only_write(layer, &mut out)?;
                known
            }
            None if !by_digest => {
                let later = self.hashing.pack(layer, &mut out)?;
                self.later.push((index, later));
                return self.sink.end(job, layer.size(), None);
            }
            _ => stream::hash_aside(layer, &mut out)?,
        };
        self.end(index, Delivered::plain(record))
    }

    /// Makes a layer in a temporary file, since what is said before its bytes is known
    /// only after them.
    fn write_spooled(&mut self, index: usize) -> anyhow::Result<()> {
        let job = self.jobs[index];
        let mut file = tempfile::tempfile().map_err(SpoolError)?;
        let delivered = self.spool(job, &file).map_err(as_spool_error)?;
        file.rewind().map_err(SpoolError)?;
        self.sink.begin(job, Some(&delivered.blob), delivered.blob.size)?;
        let mut chunk = vec![0; CHUNK];
        loop {
            match file.read(&mut chunk).map_err(SpoolError)? {
                0 => break,
                length => self.sink.write_all(&chunk[..length])?,
            }
        }
        self.end(index, delivered)
    }

    fn spool(&self, job: &LayerJob<'_>, file: &File) -> anyhow::Result<Delivered> {
        if self.press.compression().is_none() {
            let mut out = Counted { out: &mut &*file, progress: self.progress };
            return Ok(Delivered::plain(make_tar(self.source, job, &mut out)?));
        }
        let mut encoder = self.press.encoder(HashWriter::new(file));
        let record = make_tar(self.source, job, &mut Counted { out: &mut encoder, progress: self.progress })?;
        Ok(Delivered { record, blob: encoder.finish()?.finish().0 })
    }

    /// An OCI archive names a blob as it is; a docker archive may need it otherwise.
    fn write_blob(&mut self, index: usize, blob: &LayerBlob) -> anyhow::Result<()> {
        let job = self.jobs[index];
        let record = job.known_blob()?;
        let by_digest = self.sink.names_by_digest();
        let is_plain = !by_digest && blob.plain.is_some();
        let delivered = if is_plain {
            Delivered::plain(record.clone())
        } else {
            Delivered { record: record.clone(), blob: blob.record() }
        };
        self.sink.begin(job, Some(&delivered.blob), delivered.blob.size)?;
        let mut out = Counted { out: self.sink, progress: self.progress };
        if by_digest {
            blob.copy(&mut out)?
        } else {
            blob.copy_for_docker(&record, &mut out)?
        };
        self.end(index, delivered)
    }

    fn end(&mut self, index: usize, delivered: Delivered) -> anyhow::Result<()> {
        self.sink.end(self.jobs[index], delivered.blob.size, Some(&delivered.record))?;
        self.delivered[index] = Some(delivered);
        Ok(())
    }
}

/// An error of writing is of the temporary file, not of the archive.
fn as_spool_error(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<PackError>() {
        Ok(PackError::Write(source)) => SpoolError(source).into(),
        Ok(other) => other.into(),
        Err(error) => match error.downcast::<io::Error>() {
            Ok(source) => SpoolError(source).into(),
            Err(error) => error,
        },
    }
}
