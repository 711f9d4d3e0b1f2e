//! Compresses layers, and the NARs of large paths, in blocks on some threads, in bounded memory.
//!
//! A [`Press`] is the threads; each layer has an [`Encoder`] of its own, and
//! several may be at work at once, so that many small layers keep the threads as
//! busy as one big one does.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::{Compression, block};

/// How many blocks may be in memory, beside one for each layer, on however many threads.
const MOST_BLOCKS: usize = 32;

/// How much memory all compressors may take, in bytes: fewer threads compress at levels that
/// take much.
const MOST_MEMORY: usize = 100 << 20;

/// How many layers are read at once at the most.
const MOST_READERS: usize = 8;

/// How many blocks a layer keeps to use them again.
const SPARE: usize = 2;

/// Threads that compress blocks.
pub struct Press {
    compression: Compression,
    queue: Option<Sender<Task>>,
    workers: Vec<JoinHandle<()>>,
    /// How many more blocks may be in memory beside one for each layer.
    places: Arc<AtomicUsize>,
}

/// A block to compress, and where it goes then.
struct Task {
    block: Vec<u8>,
    done: SyncSender<Done>,
}

/// A block, and what it is compressed.
type Done = (Vec<u8>, io::Result<Vec<u8>>);

/// A block's place in memory.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Press {
    /// `threads` threads that compress, or as many as memory allows; none where there is nothing
    /// to do.
    #[must_use]
    pub fn new(compression: Compression, threads: usize) -> Self {
        let most = MOST_MEMORY / block::memory(compression);
        let threads = if compression.is_none() { 0 } else { threads.clamp(1, most) };
        let (queue, tasks) = channel();
        let tasks = Arc::new(Mutex::new(tasks));
        let work = |tasks: Arc<Mutex<Receiver<Task>>>| move || run(compression, &tasks);
        let workers = (0..threads).map(|_| std::thread::spawn(work(Arc::clone(&tasks)))).collect();
        Self {
            compression,
            queue: Some(queue),
            workers,
            places: Arc::new(AtomicUsize::new(MOST_BLOCKS.min(threads + 2))),
        }
    }

    /// How many layers are to be read at once on `threads` threads: one reads and hashes what
    /// several compress, and each has blocks in memory.
    #[must_use]
    pub fn readers(&self, threads: usize) -> usize {
        if self.compression.is_none() { threads } else { threads.min((self.workers.len() / 2).clamp(2, MOST_READERS)) }
    }

    /// How many of them are to be packed ahead into memory, while one more is written. Where
    /// memory is all that keeps compressors from being more, the one that is written has enough for them.
    #[must_use]
    pub fn readers_ahead(&self, threads: usize) -> usize {
        let is_short = !self.compression.is_none() && self.workers.len() < threads;
        if is_short { 1 } else { self.readers(threads) }
    }

    /// How it compresses.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Compresses one layer's tar into `out`.
    pub fn encoder<W: Write>(&self, out: W) -> Encoder<'_, W> {
        Encoder { press: self, out, block: Vec::new(), waiting: VecDeque::new(), spare: Vec::new(), is_begun: false }
    }

    fn place(&self) -> Option<Place> {
        let one_less = |free: usize| free.checked_sub(1);
        let taken = self.places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        taken.ok().map(|_| Place(Arc::clone(&self.places)))
    }
}

impl Drop for Press {
    fn drop(&mut self) {
        self.queue = None;
        for worker in self.workers.drain(..) {
            // Who waits for its block has seen that it panicked.
            let _ = worker.join();
        }
    }
}

fn run(compression: Compression, tasks: &Mutex<Receiver<Task>>) {
    loop {
        let task = tasks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Task { block, done }) = task else {
            return;
        };
        let compressed = block::compress(compression, &block);
        // A layer that has failed waits for nothing.
        let _ = done.send((block, compressed));
    }
}

/// Takes a layer's tar, and writes it compressed.
pub struct Encoder<'a, W> {
    press: &'a Press,
    out: W,
    /// What has come since the last block.
    block: Vec<u8>,
    /// Blocks that are being compressed, in order.
    waiting: VecDeque<(Receiver<Done>, Option<Place>)>,
    /// Blocks that are free again.
    spare: Vec<Vec<u8>>,
    is_begun: bool,
}

impl<W: Write> Encoder<'_, W> {
    /// Writes what is left.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn finish(mut self) -> io::Result<W> {
        let is_empty = self.block.is_empty() && self.is_begun;
        if !is_empty && !self.press.compression.is_none() {
            self.press_block()?;
        }
        while !self.waiting.is_empty() {
            self.write_oldest()?;
        }
        Ok(self.out)
    }

    /// Hands the block to the threads.
    fn press_block(&mut self) -> io::Result<()> {
        self.write_ready()?;
        // A layer that has no block in memory needs no place, or layers could wait for
        // each other's.
        let place = loop {
            match self.press.place() {
                None if !self.waiting.is_empty() => self.write_oldest()?,
                place => break place,
            }
        };
        let (done, result) = sync_channel(1);
        let block = std::mem::replace(&mut self.block, self.spare.pop().unwrap_or_default());
        let sent = self.press.queue.as_ref().map(|queue| queue.send(Task { block, done }));
        if !matches!(sent, Some(Ok(()))) {
            return Err(gone());
        }
        self.waiting.push_back((result, place));
        self.is_begun = true;
        Ok(())
    }

    /// Writes the oldest blocks as far as they are compressed.
    fn write_ready(&mut self) -> io::Result<()> {
        while let Some((result, _)) = self.waiting.front() {
            match result.try_recv() {
                Ok(done) => {
                    self.waiting.pop_front();
                    self.write_done(done)?;
                }
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(gone()),
            }
        }
        Ok(())
    }

    /// Writes the oldest block, once it is compressed.
    fn write_oldest(&mut self) -> io::Result<()> {
        match self.waiting.pop_front() {
            Some((result, _place)) => self.write_done(result.recv().map_err(|_| gone())?),
            None => Ok(()),
        }
    }

    fn write_done(&mut self, (mut block, compressed): Done) -> io::Result<()> {
        if self.spare.len() < SPARE {
            block.clear();
            self.spare.push(block);
        }
        self.out.write_all(&compressed?)
    }
}

impl<W: Write> Write for Encoder<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.press.compression.is_none() {
            return self.out.write(bytes);
        }
        let size = block::size(self.press.compression);
        if self.block.len() == size {
            self.press_block()?;
        }
        self.block.reserve_exact(size - self.block.len());
        let length = bytes.len().min(size - self.block.len());
        self.block.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    /// Blocks that are not full stay, or the bytes would depend on it.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn gone() -> io::Error {
    io::Error::other("a thread that compressed layers is gone; this is a defect of stowage")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::digest::{Digest, HashWriter};
    use crate::layer::BlobRecord;

    /// Bytes that compress about as well as programs do.
    fn sample(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut bytes = Vec::with_capacity(length + 64);
        while bytes.len() < length {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (kind, number) = (state >> 62, (state >> 33) as u32);
            if kind == 0 && bytes.len() > 70_000 {
                let from = bytes.len() - 1 - (number as usize % 65_536);
                let end = (from + 40).min(bytes.len());
                bytes.extend_from_within(from..end);
            } else {
                bytes.extend(format!("{:x}", number % 50_021).bytes());
            }
        }
        bytes.truncate(length);
        bytes
    }

    fn encode(compression: Compression, threads: usize, bytes: &[u8], piece: usize) -> (BlobRecord, Vec<u8>) {
        let press = Press::new(compression, threads);
        let mut encoder = press.encoder(HashWriter::new(Vec::new()));
        bytes.chunks(piece).for_each(|piece| encoder.write_all(piece).expect("memory"));
        encoder.finish().expect("memory").finish()
    }

    fn decode(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match compression {
            Compression::None => out.extend(bytes),
            Compression::Gzip(_) => {
                flate2::bufread::MultiGzDecoder::new(bytes).read_to_end(&mut out).map(drop).expect("gzip");
            }
            Compression::Zstd(_) => out = zstd::decode_all(bytes).expect("zstd"),
        }
        out
    }

    /// When these change, so must the version of the form.
    #[test]
    fn the_bytes_are_these() {
        let bytes = sample(5_000_000);
        for (text, size, digest) in [
            ("gzip:6", 1_364_706, "a8060f066136ea07768379a8875733396604e3ab395d3a9c56fbb644e364b3ee"),
            ("gzip:1", 1_545_771, "b47ef08aacdf870e62ef77b43ed392e25c9199f63f940bda1b327759ecd24cd2"),
            ("gzip", 1_377_841, "5f457ee0fb94f4dc08364f865fddc85e21eb22d92d6e3db843a84d97a6cdb70f"),
            ("gzip:9", 1_360_875, "08477dfdeca3ece31d80bacb27d26338c314b930614da99ac2af5ed6f4b6dabd"),
            ("gzip:12", 1_346_017, "557f6c6a4ca14d3c731ccaf611ff6f13bf4103389fd77a81be45065a928e6e77"),
            ("zstd:2", 1_115_467, "30e75682f872e7f27be270bb271dfae6ad76d366fca05607c699480d9f642569"),
            ("zstd:3", 1_160_444, "e748caaac06e4cc24ebaa28a1bc6ef44ea4240e24000b223fb30d01492403af7"),
            ("zstd", 1_097_692, "c98698bff33a61f34c098394e7774482b4e9782325ca58a0428d7075cc3148e6"),
            ("zstd:9", 962_613, "f3afb91f3c3d0a74efbb106ba5152e9dc87fb58c0ffd55ade174c8daaff8b7ee"),
            ("zstd:19", 862_029, "e8fb051b7614b944b19e2b47284666bcf7c23fb438ab116d190eee5b6f497843"),
        ] {
            let compression = text.parse().expect(text);
            let (blob, out) = encode(compression, 2, &bytes, 300_000);
            assert!(decode(compression, &out) == bytes, "{text}");
            assert_eq!(blob, BlobRecord { digest: Digest::of(&out), size: out.len() as u64 }, "{text}");
            assert_eq!((blob.size, blob.digest.to_hex().as_str()), (size, digest), "{text}");
        }
    }

    #[test]
    fn neither_threads_nor_pieces_nor_other_layers_change_the_bytes() {
        let bytes = sample(9_000_000);
        for text in ["none", "gzip:1", "zstd:1", "zstd:2", "zstd:3", "zstd:6", "zstd:9"] {
            let compression = text.parse().expect(text);
            let first = encode(compression, 1, &bytes, 1 << 20);
            for (threads, piece) in [(1, 7_777), (2, bytes.len()), (8, 65_536)] {
                assert!(encode(compression, threads, &bytes, piece) == first, "{text}, {threads} threads");
            }
            let press = Press::new(compression, 2);
            std::thread::scope(|scope| {
                let other = || {
                    let mut encoder = press.encoder(HashWriter::new(Vec::new()));
                    encoder.write_all(&bytes).expect("memory");
                    encoder.finish().expect("memory").finish()
                };
                let all: Vec<_> = (0..8).map(|_| scope.spawn(other)).collect();
                assert!(all.into_iter().all(|one| one.join().expect("no panic") == first), "{text}");
            });
        }
    }

    #[test]
    fn what_ends_with_a_block_has_no_empty_one_and_nothing_has() {
        for text in ["gzip", "zstd"] {
            let compression = text.parse().expect(text);
            let whole = sample(2 * block::size(compression));
            let (_, out) = encode(compression, 2, &whole, 100_000);
            let halves = whole.chunks(block::size(compression));
            let expected: Vec<u8> =
                halves.flat_map(|half| block::compress(compression, half).expect("memory")).collect();
            assert!(out == expected, "{text}");
            let (_, out) = encode(compression, 2, b"", 1);
            assert!(!out.is_empty() && decode(compression, &out).is_empty(), "{text}");
        }
    }

    #[test]
    fn a_place_that_takes_nothing_is_an_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let press = Press::new(Compression::GZIP, 2);
        let mut encoder = press.encoder(Full);
        let written = encoder.write_all(&sample(20 << 20)).and_then(|()| encoder.finish().map(drop));
        assert_eq!(written.expect_err("full").kind(), io::ErrorKind::StorageFull);
    }
}
