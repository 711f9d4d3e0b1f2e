//! Makes an image's layers with all processors, each layer's files read once,
//! and hands them to a destination.
//!
//! A destination takes layers either side by side ([`in_parallel`]: each has a
//! file of its own) or one after the other ([`in_turn`]: an archive). In an
//! archive the small layers are packed ahead into bounded memory, while the big
//! ones pass one by one through a pipeline: one thread reads and writes, another
//! hashes. So layers go out in whatever order they are ready.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::blob::LayerBlob;
use super::pack::StoreLayer;
use super::stream::{self, InMemory};
use super::{LayerKey, LayerRecord, Owner};
use crate::store::{StoreDir, StorePath};
use crate::tree::{StoreFiles, TreeError};

/// From this size on, in bytes, a layer is hashed by a thread of its own. Layers that
/// are estimated to be as big are not packed ahead into memory, nor are those that
/// turn out to be twice as big.
const BIG: u64 = 8 << 20;

/// How many bytes of layers may be in memory.
const MEMORY: u64 = 32 << 20;

/// One layer to make.
pub struct LayerJob<'a> {
    /// Its key.
    pub key: LayerKey,
    /// What it consists of.
    pub content: Content<'a>,
    /// About how big it will be, in bytes, e.g. the size of its NARs.
    pub estimate: u64,
    /// What the layer index knows of it.
    pub known: Option<LayerRecord>,
}

impl LayerJob<'_> {
    /// Whether the layer is too big for memory; what is made there is not. A blob
    /// needs none, however small.
    fn is_big(&self) -> bool {
        match self.content {
            Content::Store { .. } => self.estimate >= BIG,
            Content::Made(_) => false,
            Content::Blob(_) => true,
        }
    }

    /// What is known of the layer, which for a blob has to be.
    fn known_blob(&self) -> anyhow::Result<LayerRecord> {
        self.known
            .clone()
            .ok_or_else(|| anyhow::anyhow!("a blob of which nothing is known; this is a defect of stowage"))
    }
}

/// What a layer consists of.
pub enum Content<'a> {
    /// Store paths.
    Store {
        /// The paths, in order.
        paths: Vec<StorePath>,
        /// Whom they belong to in the image.
        owner: Owner,
    },
    /// A tar that is made in memory when it is needed.
    Made(Maker<'a>),
    /// What another image has already, compressed or not; it is known.
    Blob(LayerBlob),
}

/// Makes the tar of a small layer.
pub type Maker<'a> = Box<dyn Fn() -> anyhow::Result<Vec<u8>> + Send + Sync + 'a>;

/// Where the files of store layers come from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The store's files.
    pub files: &'a StoreFiles,
    /// What the store dir is called in the image.
    pub store_dir: &'a StoreDir,
}

impl<'a> Source<'a> {
    fn walk<'o>(&self, paths: &[StorePath], owner: &'o Owner) -> Result<StoreLayer<'o>, TreeError>
    where
        'a: 'o,
    {
        StoreLayer::walk(self.files, self.store_dir, owner, paths)
    }
}

/// A destination that takes layers side by side.
pub trait BlobSink: Sync {
    /// A place for a layer's bytes.
    ///
    /// # Errors
    /// When there is none.
    fn open(&self, job: &LayerJob<'_>) -> anyhow::Result<Box<dyn BlobWriter + '_>>;
}

/// A place for one layer's bytes.
pub trait BlobWriter: Write {
    /// Says that the bytes are complete, and what they are.
    ///
    /// # Errors
    /// When they can't be kept.
    fn finish(self: Box<Self>, record: &LayerRecord) -> anyhow::Result<()>;
}

/// A destination that takes one layer after the other.
pub trait ArchiveSink: Write {
    /// Announces a layer of `size` bytes, which are written next.
    ///
    /// # Errors
    /// When it can't be begun.
    fn begin(&mut self, key: &LayerKey, size: u64) -> io::Result<()>;
    /// Says that the layer is complete.
    ///
    /// # Errors
    /// When it can't be ended.
    fn end(&mut self, size: u64) -> io::Result<()>;
}

/// Called with the number of bytes that have gone on since the last call.
pub type Progress<'a> = &'a (dyn Fn(u64) + Sync);

/// Makes the layers `jobs` on `threads` threads, the biggest first; tells what
/// each was.
///
/// # Errors
/// The first error of any layer.
pub fn in_parallel(
    source: Source<'_>,
    jobs: &[&LayerJob<'_>],
    sink: &dyn BlobSink,
    threads: usize,
    progress: Progress<'_>,
) -> anyhow::Result<Vec<LayerRecord>> {
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(jobs[*index].estimate));
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let work = || -> anyhow::Result<Vec<(usize, LayerRecord)>> {
        let mut made = Vec::new();
        while let Some(index) = order.get(next.fetch_add(1, Ordering::Relaxed))
            && !failed.load(Ordering::Relaxed)
        {
            let record = make_blob(source, jobs[*index], sink, progress);
            let record = record.inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            made.push((*index, record));
        }
        Ok(made)
    };
    let made = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.clamp(1, jobs.len().max(1))).map(|_| scope.spawn(work)).collect();
        let results = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err(panicked())));
        results.collect::<Vec<_>>().into_iter().collect::<anyhow::Result<Vec<_>>>()
    })?;
    let mut made: Vec<_> = made.into_iter().flatten().collect();
    made.sort_by_key(|(index, _)| *index);
    Ok(made.into_iter().map(|(_, record)| record).collect())
}

fn make_blob(
    source: Source<'_>,
    job: &LayerJob<'_>,
    sink: &dyn BlobSink,
    progress: Progress<'_>,
) -> anyhow::Result<LayerRecord> {
    let mut blob = sink.open(job)?;
    let mut out = Counted { out: &mut *blob, progress };
    let record = match &job.content {
        Content::Made(make) => {
            let bytes = make()?;
            out.write_all(&bytes)?;
            LayerRecord::of_tar(&bytes)
        }
        Content::Store { paths, owner } => {
            let layer = source.walk(paths, owner)?;
            if layer.size() < BIG {
                stream::hash_here(&layer, &mut out)?
            } else {
                stream::hash_aside(&layer, &mut out)?
            }
        }
        Content::Blob(content) => {
            content.copy(&mut out)?;
            job.known_blob()?
        }
    };
    blob.finish(&record)?;
    Ok(record)
}

/// Makes the layers `jobs` on `threads` threads and writes them into the archive
/// `sink`; tells what each was.
///
/// # Errors
/// The first error of any layer.
pub fn in_turn(
    source: Source<'_>,
    jobs: &[LayerJob<'_>],
    sink: &mut dyn ArchiveSink,
    threads: usize,
    progress: Progress<'_>,
) -> anyhow::Result<Vec<LayerRecord>> {
    let (big, small): (Vec<usize>, Vec<usize>) = (0..jobs.len()).partition(|index| jobs[*index].is_big());
    let ahead = PackAhead { source, jobs, small, next: AtomicUsize::new(0), memory: Memory::new() };
    let mut archive = Archive { source, jobs, sink, progress, records: vec![None; jobs.len()] };
    std::thread::scope(|scope| {
        let (ready, packed) = channel();
        for _ in 0..threads.clamp(1, ahead.small.len().max(1)) {
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
    archive.records.into_iter().collect::<Option<Vec<_>>>().ok_or_else(panicked)
}

/// What the threads that pack ahead say of a layer.
enum Packed {
    Ready(LayerRecord, InMemory, Share),
    TooBig,
}

/// The threads that pack small layers ahead.
struct PackAhead<'a> {
    source: Source<'a>,
    jobs: &'a [LayerJob<'a>],
    small: Vec<usize>,
    next: AtomicUsize,
    memory: Memory,
}

impl PackAhead<'_> {
    fn run(&self, ready: &Sender<(usize, anyhow::Result<Packed>)>) {
        while let Some(index) = self.small.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if ready.send((*index, self.pack(&self.jobs[*index]))).is_err() {
                return;
            }
        }
    }

    fn pack(&self, job: &LayerJob<'_>) -> anyhow::Result<Packed> {
        let layer = match &job.content {
            Content::Made(make) => {
                let bytes = make()?;
                let share = self.memory.take(bytes.len() as u64);
                return Ok(Packed::Ready(LayerRecord::of_tar(&bytes), InMemory::of(bytes), share));
            }
            Content::Store { paths, owner } => self.source.walk(paths, owner)?,
            Content::Blob(_) => return Ok(Packed::TooBig),
        };
        if layer.size() >= 2 * BIG {
            return Ok(Packed::TooBig);
        }
        let share = self.memory.take(layer.size());
        let (record, bytes) = stream::hash_ahead(&layer)?;
        Ok(Packed::Ready(record, bytes, share))
    }
}

/// The thread that writes the archive.
struct Archive<'a> {
    source: Source<'a>,
    jobs: &'a [LayerJob<'a>],
    sink: &'a mut dyn ArchiveSink,
    progress: Progress<'a>,
    records: Vec<Option<LayerRecord>>,
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
        Ok(())
    }

    fn write_packed(&mut self, index: usize, layer: Packed, big: &mut Vec<usize>) -> anyhow::Result<()> {
        let Packed::Ready(record, bytes, share) = layer else {
            big.push(index);
            return Ok(());
        };
        self.sink.begin(&self.jobs[index].key, record.size)?;
        bytes.write_to(&mut Counted { out: self.sink, progress: self.progress })?;
        drop((bytes, share));
        self.end(index, record.size, record)
    }

    fn write_big(&mut self, index: usize) -> anyhow::Result<()> {
        let layer = match &self.jobs[index].content {
            Content::Store { paths, owner } => self.source.walk(paths, owner)?,
            Content::Blob(blob) => return self.write_blob(index, blob),
            Content::Made(_) => return Err(panicked()),
        };
        self.sink.begin(&self.jobs[index].key, layer.size())?;
        // Whoever reads an archive compares its layers with their digests.
        let known = self.jobs[index].known.clone().filter(|known| known.size == layer.size());
        let mut out = Counted { out: self.sink, progress: self.progress };
        let record = match known {
            Some(known) => {
                stream::only_write(&layer, &mut out)?;
                known
            }
            None => stream::hash_aside(&layer, &mut out)?,
        };
        self.end(index, layer.size(), record)
    }

    fn write_blob(&mut self, index: usize, blob: &LayerBlob) -> anyhow::Result<()> {
        self.sink.begin(&self.jobs[index].key, blob.size)?;
        blob.copy(&mut Counted { out: self.sink, progress: self.progress })?;
        self.end(index, blob.size, self.jobs[index].known_blob()?)
    }

    /// `size` is what was written.
    fn end(&mut self, index: usize, size: u64, record: LayerRecord) -> anyhow::Result<()> {
        self.sink.end(size)?;
        self.records[index] = Some(record);
        Ok(())
    }
}

/// Tells how much is written.
struct Counted<'a, W: ?Sized> {
    out: &'a mut W,
    progress: Progress<'a>,
}

impl<W: Write + ?Sized> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.out.write(bytes)?;
        (self.progress)(length as u64);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Bounds what is in memory: how many bytes of it are free, and who waits for them.
struct Memory {
    free: Arc<(Mutex<u64>, Condvar)>,
}

/// A part of the memory, given back when it is dropped.
struct Share {
    bytes: u64,
    free: Arc<(Mutex<u64>, Condvar)>,
}

impl Memory {
    fn new() -> Self {
        Self { free: Arc::new((Mutex::new(MEMORY), Condvar::new())) }
    }

    /// Waits for memory; more than all of it counts as all.
    fn take(&self, bytes: u64) -> Share {
        let bytes = bytes.min(MEMORY);
        let (lock, changed) = &*self.free;
        let free = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = changed.wait_while(free, |free| *free < bytes).unwrap_or_else(PoisonError::into_inner);
        *free -= bytes;
        Share { bytes, free: Arc::clone(&self.free) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let (lock, changed) = &*self.free;
        *lock.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
        changed.notify_all();
    }
}

fn panicked() -> anyhow::Error {
    anyhow::anyhow!("a thread that made layers panicked; this is a defect of stowage")
}
