//! Makes an image's layers with all processors, each layer's files read once,
//! and hands them to a destination.
//!
//! A destination takes layers either side by side ([`in_parallel`]: each has a
//! file of its own) or one after the other ([`in_turn`]: an archive). On their way
//! they are compressed, if they are to be.

mod archive;
pub mod memory;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::blob::LayerBlob;
use super::compress::{Compression, Press};
use super::pack::StoreLayer;
use super::stream;
use super::{BlobRecord, Delivered, LayerKey, LayerRecord, Stamp};
use crate::digest::HashWriter;
use crate::store::{StoreDir, StorePath};
use crate::tree::{StoreFiles, TreeError};
pub use archive::{ArchiveSink, SpoolError, in_turn};

/// From this size on, in bytes, a layer is hashed by a thread of its own.
const BIG: u64 = 8 << 20;

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
    /// What it knows of its bytes, compressed as the destination wants them.
    pub packed: Option<BlobRecord>,
}

impl LayerJob<'_> {
    /// What its bytes will be at a destination that wants them so, if that is known.
    #[must_use]
    pub fn expected(&self, compression: Compression) -> Option<Delivered> {
        let record = self.known.clone()?;
        match &self.content {
            Content::Blob(blob) => Some(Delivered { record, blob: blob.record() }),
            _ if compression.is_none() => Some(Delivered::plain(record)),
            _ => Some(Delivered { record, blob: self.packed? }),
        }
    }

    /// Whether the layer has about `size` bytes, too many for memory; what is made there is not. A blob
    /// needs none, however small.
    fn is_at_least(&self, size: u64) -> bool {
        match self.content {
            Content::Store { .. } | Content::Tar(_) => self.estimate >= size,
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
        /// What the headers of their files say in the image.
        stamp: Stamp,
        /// Whether files of some are elsewhere than in the store, where they may change.
        elsewhere: bool,
    },
    /// A tar that is made in memory when it is needed.
    Made(Maker<'a>),
    /// What another image has already, compressed or not, to be kept as it is; it is
    /// known.
    Blob(LayerBlob),
    /// The bare tar of a layer of another image, to be compressed anew; it is known.
    Tar(LayerBlob),
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
    fn walk<'o>(&self, paths: &[StorePath], stamp: &'o Stamp) -> Result<StoreLayer<'o>, TreeError>
    where
        'a: 'o,
    {
        StoreLayer::walk(self.files, self.store_dir, stamp, paths)
    }
}

/// A destination that takes layers side by side.
pub trait BlobSink: Sync {
    /// A place for a layer's bytes.
    ///
    /// # Errors
    /// When there is none.
    fn open(&self, job: &LayerJob<'_>) -> anyhow::Result<Box<dyn BlobWriter + '_>>;

    /// How many layers may be made at once, if each has some memory there.
    fn most(&self) -> usize {
        usize::MAX
    }
}

/// A place for one layer's bytes.
pub trait BlobWriter: Write {
    /// Says that the bytes are complete, and what they are.
    ///
    /// # Errors
    /// When they can't be kept.
    fn finish(self: Box<Self>, delivered: &Delivered) -> anyhow::Result<()>;
}

/// Called with the number of bytes that have gone on since the last call.
pub type Progress<'a> = &'a (dyn Fn(u64) + Sync);

/// Makes the layers `jobs` on `threads` threads, the biggest first, compressed by
/// `compression`; tells what each was.
///
/// # Errors
/// The first error of any layer.
pub fn in_parallel(
    source: Source<'_>,
    jobs: &[&LayerJob<'_>],
    sink: &dyn BlobSink,
    compression: Compression,
    threads: usize,
    progress: Progress<'_>,
) -> anyhow::Result<Vec<Delivered>> {
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(jobs[*index].estimate));
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let press = Press::new(compression, threads);
    let work = || -> anyhow::Result<Vec<(usize, Delivered)>> {
        let mut made = Vec::new();
        while let Some(index) = order.get(next.fetch_add(1, Ordering::Relaxed))
            && !failed.load(Ordering::Relaxed)
        {
            let delivered = make_blob(source, jobs[*index], sink, &press, progress);
            let delivered = delivered.inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            made.push((*index, delivered));
        }
        Ok(made)
    };
    let made = std::thread::scope(|scope| {
        let readers = press.readers(threads).min(sink.most()).clamp(1, jobs.len().max(1));
        let workers: Vec<_> = (0..readers).map(|_| scope.spawn(work)).collect();
        let results = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err(panicked())));
        results.collect::<Vec<_>>().into_iter().collect::<anyhow::Result<Vec<_>>>()
    })?;
    let mut made: Vec<_> = made.into_iter().flatten().collect();
    made.sort_by_key(|(index, _)| *index);
    Ok(made.into_iter().map(|(_, delivered)| delivered).collect())
}

fn make_blob(
    source: Source<'_>,
    job: &LayerJob<'_>,
    sink: &dyn BlobSink,
    press: &Press,
    progress: Progress<'_>,
) -> anyhow::Result<Delivered> {
    let mut blob = sink.open(job)?;
    let delivered = if let Content::Blob(content) = &job.content {
        content.copy(&mut Counted { out: &mut *blob, progress })?;
        Delivered { record: job.known_blob()?, blob: content.record() }
    } else if press.compression().is_none() {
        Delivered::plain(make_tar(source, job, &mut Counted { out: &mut *blob, progress })?)
    } else {
        let mut encoder = press.encoder(HashWriter::new(&mut *blob));
        let record = make_tar(source, job, &mut Counted { out: &mut encoder, progress })?;
        Delivered { record, blob: encoder.finish()?.finish().0 }
    };
    blob.finish(&delivered)?;
    Ok(delivered)
}

/// Writes a layer's tar to `out`; what is kept as it is, is none.
fn make_tar(source: Source<'_>, job: &LayerJob<'_>, out: &mut dyn Write) -> anyhow::Result<LayerRecord> {
    match &job.content {
        Content::Made(make) => {
            let bytes = make()?;
            out.write_all(&bytes)?;
            Ok(LayerRecord::of_tar(&bytes))
        }
        Content::Store { paths, stamp, .. } => {
            let layer = source.walk(paths, stamp)?;
            let pack = if layer.size() < BIG { stream::hash_here } else { stream::hash_aside };
            Ok(pack(&layer, out)?)
        }
        Content::Blob(content) | Content::Tar(content) => {
            content.copy(out)?;
            job.known_blob()
        }
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

fn panicked() -> anyhow::Error {
    anyhow::anyhow!("a thread that made layers panicked; this is a defect of stowage")
}
