//! One store path's NAR: compressed into the cache, or found there again.
//!
//! A file in `nar/` without a narinfo is what an export left that was killed,
//! or the NAR of another path with the same contents. It was whole when it got
//! its name, but what carries caches from job to job may have cut it off, so it
//! is read to its end and hashed, which takes a quarter of the time of
//! compressing it again.

use std::io::{self, Read as _};
use std::sync::OnceLock;

use super::compression::Encoder;
use super::narinfo::NarFile;
use super::shelf::{Draft, ShelfError, Source};
use super::{CacheFolder, Compression, Refusal, beside};
use crate::digest::HashWriter;
use crate::layer::compress::Press;
use crate::layer::deliver::memory::Memory;
use crate::nar::{self, Measured, NarError};
use crate::store::PathInfo;
use crate::tree::{Entry, StoreFiles};

/// How much of a file is read with one call.
const BUFFER_SIZE: usize = 256 * 1024;

/// From what size on, in bytes, a NAR is hashed by one thread and compressed by others.
const LARGE: u64 = 16 << 20;

/// A NAR in the cache.
pub struct StoredNar {
    /// Its file.
    pub file: NarFile,
    /// What the store path was walked to, if it was.
    pub entries: Option<Vec<Entry>>,
}

/// Why a NAR is not in the cache.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It is this path's own fault: others may go on.
    #[error(transparent)]
    Path(#[from] Refusal),
    /// It is the cache's: nothing can go on.
    #[error(transparent)]
    Cache(#[from] ShelfError),
}

/// How NARs are compressed, and by whom.
pub struct Codec {
    compression: Compression,
    threads: usize,
    /// How many NARs may be compressed at the same time: each takes a processor, and memory.
    turns: Memory,
    /// Made when the first large NAR comes.
    press: OnceLock<Option<Press>>,
}

impl Codec {
    /// `compression`, of one NAR on `threads` threads at most, and of as many at the same time.
    pub fn new(compression: Compression, threads: usize) -> Self {
        Self { compression, threads, turns: Memory::of(threads as u64), press: OnceLock::new() }
    }

    fn press(&self) -> Option<&Press> {
        self.press.get_or_init(|| self.compression.press(self.threads)).as_ref()
    }
}

/// Sees to it that the NAR of `info`, which is printed as `path`, is in the
/// cache: with `codec`, unless it is there in another.
///
/// # Errors
/// When the store path is not what was registered, or the cache can't be
/// written. Then there is no trace of it.
pub fn store_nar(
    cache: &CacheFolder,
    files: &StoreFiles,
    info: &PathInfo,
    path: &str,
    codec: &Codec,
) -> Result<StoredNar, Failure> {
    let compression = codec.compression;
    if let Some(file) = find(cache, info, compression)? {
        return Ok(StoredNar { file, entries: None });
    }
    let unreadable = |source| Refusal::Unreadable { path: path.to_owned(), source };
    let damaged = |found| Refusal::Damaged { path: path.to_owned(), registered: registered(info, found), found };
    let entries = files.walk(&info.path).map_err(|error| unreadable(error.into()))?;
    let size = nar::size(&entries);
    if info.nar_size != 0 && info.nar_size != size {
        return Err(damaged(nar::measure(files, &entries).map_err(unreadable)?).into());
    }

    let written = |source| cache.nar_failure(source);
    // It gets its name only if it has that hash.
    let draft = cache.new_nar(&info.nar_hash, compression, size)?;
    let turn = codec.turns.take(1);
    let (nar, encoder) = compress(files, &entries, codec, size, draft).map_err(|error| match error {
        NarError::Write(source) => Failure::Cache(written(source)),
        error => Failure::Path(unreadable(error)),
    })?;
    if nar != registered(info, nar) {
        return Err(damaged(nar).into());
    }
    let draft = encoder.finish().map_err(written)?;
    // A bucket takes its time.
    drop(turn);
    let bytes = draft.finish()?;
    Ok(StoredNar { file: NarFile { nar, compression, bytes }, entries: Some(entries) })
}

/// The NAR's file, if it is there and whole; the one with `compression` rather than others.
fn find(cache: &CacheFolder, info: &PathInfo, compression: Compression) -> Result<Option<NarFile>, ShelfError> {
    let nar = Measured { hash: info.nar_hash, size: info.nar_size };
    let others = Compression::CODECS.into_iter().filter(|codec| codec.extension() != compression.extension());
    for compression in std::iter::once(compression).chain(others) {
        if let Some((file, bytes)) = cache.nar(&info.nar_hash, compression)?
            && measure(file, compression, info.nar_size).is_ok_and(|found| found == nar)
        {
            return Ok(Some(NarFile { nar, compression, bytes }));
        }
    }
    Ok(None)
}

/// What a file has in it, up to one byte more than `limit`: a small file may
/// hold more than any disk.
fn measure(file: Source, compression: Compression, limit: u64) -> io::Result<Measured> {
    let reader = io::BufReader::with_capacity(BUFFER_SIZE, file);
    let mut nar = compression.reader(reader)?.take(limit.saturating_add(1));
    let mut writer = HashWriter::new(io::sink());
    io::copy(&mut nar, &mut writer)?;
    Ok(writer.finish().0)
}

/// Writes a NAR of `size` bytes to `draft`, all but its end, and tells what it
/// is.
fn compress<'a>(
    files: &StoreFiles,
    entries: &[Entry],
    codec: &'a Codec,
    size: u64,
    draft: Draft<'a>,
) -> Result<(Measured, Encoder<'a, Draft<'a>>), NarError> {
    let here = |encoder| Ok(nar::write(files, entries, HashWriter::new(encoder))?.finish());
    if size < LARGE {
        return here(codec.compression.writer(draft, size)?);
    }
    if let Some(press) = codec.press() {
        return here(Encoder::Blocks(press.encoder(draft)));
    }
    let encoder = codec.compression.writer(draft, size)?;
    beside::write(encoder, |writer| Ok(nar::write(files, entries, HashWriter::new(writer))?.finish().0))
}

/// What the database says; it does not always know the size.
fn registered(info: &PathInfo, found: Measured) -> Measured {
    let size = if info.nar_size == 0 { found.size } else { info.nar_size };
    Measured { hash: info.nar_hash, size }
}
