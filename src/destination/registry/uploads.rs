//! Uploads side by side: small blobs wait in a short queue for some threads that
//! send them; each big one is sent in chunks, while it is still made.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::super::blobs::{expect, some_paths};
use crate::digest::Digest;
use crate::layer::deliver::memory::{Memory, Share};
use crate::layer::deliver::{BlobSink, BlobWriter, LayerJob};
use crate::layer::{Delivered, LayerKey, LayerRecord};
use crate::registry::upload::Upload;
use crate::registry::{RegistryError, Repository};

/// How much is sent at a time, in bytes: what has to be sent again when a connection breaks.
/// ghcr.io takes no more.
const CHUNK: usize = 4 << 20;

/// How much is sent at a time at the most, in bytes, if the registry wants more.
const MOST_CHUNK: u64 = 16 << 20;

/// How many blobs are sent at a time, and how many wait.
const SENDERS: usize = 6;
const QUEUE: usize = 2;

/// How many blobs are made at a time at the most.
const MAKERS: usize = 8;

/// How much memory the chunks of blobs may take, in bytes. A small blob has one, a big one three:
/// one is filled, one waits, one is sent.
///
/// A blob that turns out to be big holds one already while it waits for two more. So there have to
/// be more than all makers hold at first; what waits to be sent, or is sent, waits for nobody.
const MEMORY: u64 = 72 << 20;
const _: () = assert!(MEMORY > (MAKERS as u64 + 2) * CHUNK as u64 + MOST_CHUNK);

/// What is sent to one repository.
pub struct Uploads {
    repository: Repository,
    queue: Mutex<Option<SyncSender<Ready>>>,
    memory: Memory,
    /// How many bytes the registry wants in a chunk at the least, as far as it has said.
    least: Arc<AtomicU64>,
    has_failed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The first error that nothing helps against.
    error: Option<RegistryError>,
    /// The layers that have to be sent again.
    lost: BTreeMap<LayerKey, RegistryError>,
    /// Uploads that the registry has begun already.
    begun: BTreeMap<LayerKey, Upload>,
    /// Blobs that are not there, so that nobody asks twice.
    missing: BTreeSet<Digest>,
}

/// A blob whose last bytes are there.
struct Ready {
    key: LayerKey,
    digest: Digest,
    upload: Option<Upload>,
    rest: Vec<u8>,
    _shares: Vec<Share>,
}

impl Uploads {
    /// Nothing yet.
    pub fn new(repository: &Repository) -> Self {
        Self {
            repository: repository.clone(),
            queue: Mutex::default(),
            memory: Memory::of(MEMORY),
            least: Arc::default(),
            has_failed: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// Remembers that a blob is not there.
    pub fn is_missing(&self, digest: &Digest) {
        self.state().missing.insert(*digest);
    }

    /// Remembers an upload that a layer can use.
    pub fn begun(&self, key: &LayerKey, upload: Upload) {
        self.state().begun.insert(*key, upload);
    }

    /// The layers that have to be sent again, and why.
    pub fn take_lost(&self) -> BTreeMap<LayerKey, RegistryError> {
        std::mem::take(&mut self.state().lost)
    }

    /// Sends what `make` hands over, and waits until all of it is sent.
    ///
    /// # Errors
    /// Those of `make`, or of the registry.
    pub fn run<T>(&self, make: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let (queue, ready) = sync_channel(QUEUE);
        *self.queue() = Some(queue);
        let ready = Mutex::new(ready);
        let made = std::thread::scope(|scope| {
            for _ in 0..SENDERS {
                scope.spawn(|| self.send(&ready));
            }
            let made = make();
            *self.queue() = None;
            made
        });
        // What it was that kept others from going on.
        match self.state().error.take() {
            Some(error) => Err(error.into()),
            None => made,
        }
    }

    /// A thread that sends blobs.
    fn send(&self, ready: &Mutex<Receiver<Ready>>) {
        loop {
            let next = ready.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(blob) = next else { return };
            if !self.has_failed.load(Ordering::Relaxed) {
                let result = self.send_blob(&blob);
                self.settle(&blob.key, result);
            }
        }
    }

    fn send_blob(&self, blob: &Ready) -> Result<(), RegistryError> {
        let Ready { digest, upload, rest, .. } = blob;
        if let Some(upload) = upload {
            return self.repository.finish_upload(upload.clone(), digest, rest);
        }
        let is_missing = self.state().missing.contains(digest);
        if !is_missing && self.repository.has_blob(digest, rest.len() as u64)? {
            return Ok(());
        }
        self.repository.put_blob(digest, rest)
    }

    fn settle(&self, key: &LayerKey, result: Result<(), RegistryError>) {
        match result {
            Ok(()) => {}
            Err(error @ RegistryError::Lost { .. }) => {
                tracing::debug!("{error}; once more");
                self.state().lost.insert(*key, error);
            }
            Err(error) => {
                self.has_failed.store(true, Ordering::Relaxed);
                self.state().error.get_or_insert(error);
            }
        }
    }

    fn stopped(&self) -> io::Error {
        io::Error::other("the registry does not take any more")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Option<SyncSender<Ready>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlobSink for Uploads {
    fn open(&self, job: &LayerJob<'_>) -> anyhow::Result<Box<dyn BlobWriter + '_>> {
        if self.has_failed.load(Ordering::Relaxed) {
            return Err(self.stopped().into());
        }
        Ok(Box::new(NewBlob {
            uploads: self,
            key: job.key,
            known: job.known.clone(),
            paths: some_paths(job),
            begun: self.state().begun.remove(&job.key),
            chunk: Vec::new(),
            shares: Vec::new(),
            stream: None,
            is_lost: false,
        }))
    }

    fn most(&self) -> usize {
        MAKERS
    }
}

/// A blob that is made.
struct NewBlob<'a> {
    uploads: &'a Uploads,
    key: LayerKey,
    known: Option<LayerRecord>,
    paths: String,
    begun: Option<Upload>,
    chunk: Vec<u8>,
    shares: Vec<Share>,
    stream: Option<Stream>,
    is_lost: bool,
}

/// The thread that sends the chunks of a big blob.
struct Stream {
    chunks: SyncSender<Vec<u8>>,
    sending: JoinHandle<Result<(Upload, Vec<u8>), RegistryError>>,
}

impl Stream {
    fn start(uploads: &Uploads, begun: Option<Upload>) -> Self {
        let (chunks, wanted) = sync_channel::<Vec<u8>>(1);
        let (repository, least) = (uploads.repository.clone(), Arc::clone(&uploads.least));
        let sending = std::thread::spawn(move || {
            let mut upload = begun.map_or_else(|| repository.begin_upload(), Ok)?;
            let enough = upload.least().min(MOST_CHUNK);
            least.fetch_max(enough, Ordering::Relaxed);
            let mut waiting = Vec::new();
            for chunk in wanted {
                if waiting.is_empty() {
                    waiting = chunk
                } else {
                    waiting.extend(chunk)
                }
                if waiting.len() as u64 >= enough {
                    repository.send_chunk(&mut upload, &waiting)?;
                    waiting.clear();
                }
            }
            Ok((upload, waiting))
        });
        Self { chunks, sending }
    }

    /// Waits until all chunks are sent, but for what is too little for one.
    fn end(self, repository: &Repository) -> Result<(Upload, Vec<u8>), RegistryError> {
        drop(self.chunks);
        let panicked = |_| {
            let (host, action) = (repository.name().registry.clone(), "take a blob".to_owned());
            let problem = "the thread that sent it panicked; this is a defect of stowage".to_owned();
            Err(RegistryError::Failed { host, action, problem })
        };
        self.sending.join().unwrap_or_else(panicked)
    }
}

impl NewBlob<'_> {
    /// After an upload has failed the rest is made for its digest only; or not at all, if
    /// another would fail, too.
    fn give_up(&mut self) {
        self.is_lost = true;
        if let Some(stream) = self.stream.take() {
            self.uploads.settle(&self.key, stream.end(&self.uploads.repository).map(drop));
        }
        self.shares.clear();
    }

    /// Hands a full chunk over.
    fn send(&mut self) {
        let chunk = std::mem::take(&mut self.chunk);
        if self.stream.is_none() {
            let more = self.uploads.least.load(Ordering::Relaxed);
            self.shares.push(self.uploads.memory.take(2 * CHUNK as u64 + more));
        }
        let stream = self.stream.get_or_insert_with(|| Stream::start(self.uploads, self.begun.take()));
        if stream.chunks.send(chunk).is_err() {
            self.give_up();
        }
    }
}

impl Write for NewBlob<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.is_lost || self.chunk.len() >= CHUNK) && self.uploads.has_failed.load(Ordering::Relaxed) {
            return Err(self.uploads.stopped());
        }
        if self.chunk.len() >= CHUNK {
            self.send();
        }
        if self.is_lost {
            return Ok(bytes.len());
        }
        if self.shares.is_empty() && !bytes.is_empty() {
            self.shares.push(self.uploads.memory.take(CHUNK as u64));
        }
        let length = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobWriter for NewBlob<'_> {
    fn finish(self: Box<Self>, delivered: &Delivered) -> anyhow::Result<()> {
        expect(self.known.as_ref(), &delivered.record, &self.paths)?;
        let Self { uploads, key, chunk: mut rest, shares, stream, begun, is_lost, .. } = *self;
        if is_lost {
            return Ok(());
        }
        let upload = match stream.map(|stream| stream.end(&uploads.repository)) {
            None => begun,
            Some(Ok((upload, mut waiting))) => {
                if !waiting.is_empty() {
                    waiting.append(&mut rest);
                    rest = waiting;
                }
                Some(upload)
            }
            Some(Err(error)) => {
                uploads.settle(&key, Err(error));
                return Ok(());
            }
        };
        let ready = Ready { key, digest: delivered.blob.digest, upload, rest, _shares: shares };
        let queue = uploads.queue().clone();
        // Only after an error nobody takes it.
        queue.and_then(|queue| queue.send(ready).ok()).ok_or_else(|| uploads.stopped().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::deliver::Content;
    use crate::layer::key::KeyHasher;
    use crate::registry::tests::server::{Reply, Server};
    use crate::registry::tests::{registry, repository};

    /// Takes uploads; chunks get `status`.
    fn taking(status: u16) -> Server {
        registry(move |asked, _| match asked.line.split(' ').next() {
            Some("POST") => Reply::of(202).header("location", "/u").header("oci-chunk-min-length", "6291456"),
            Some("PATCH") => Reply::of(status),
            Some("PUT") => Reply::of(201),
            _ => Reply::of(404),
        })
    }

    fn job() -> LayerJob<'static> {
        let key = KeyHasher::new("a test").finish();
        let content = Content::Made(Box::new(|| Ok(Vec::new())));
        LayerJob { key, content, estimate: 0, known: None, packed: None }
    }

    #[test]
    fn chunks_are_as_large_as_the_registry_wants() {
        let front = taking(202);
        let uploads = Uploads::new(&repository(&front, None));
        let bytes: Vec<u8> = (0..15_u32 << 20).map(|number| (number >> 8) as u8).collect();
        let sent = uploads.run(|| {
            let job = job();
            let mut blob = uploads.open(&job)?;
            blob.write_all(&bytes)?;
            blob.finish(&Delivered::plain(LayerRecord::of_tar(&bytes)))
        });
        sent.expect("taken");
        assert!(uploads.take_lost().is_empty());
        let asked: Vec<_> = front.asked().into_iter().filter(|asked| !asked.body.is_empty()).collect();
        assert_eq!(asked.iter().map(|asked| asked.body.len() >> 20).collect::<Vec<_>>(), [8, 7]);
        assert!(asked.iter().flat_map(|asked| &asked.body).eq(&bytes));
    }

    #[test]
    fn of_what_was_lost_nothing_more_is_made_once_another_has_failed() {
        let front = taking(404);
        let uploads = Uploads::new(&repository(&front, None));
        let job = job();
        let mut blob = uploads.open(&job).expect("a place");
        let some = vec![0; CHUNK];
        // Only its digest is wanted still.
        (0..20).try_for_each(|_| blob.write_all(&some)).expect("lost, and made to its end");
        let (host, action, problem) = ("r".to_owned(), "x".to_owned(), "y".to_owned());
        uploads.settle(&job.key, Err(RegistryError::Failed { host, action, problem }));
        blob.write_all(&some).expect_err("in vain");
        drop(blob);
        assert_eq!(uploads.take_lost().len(), 1);
    }
}
