//! One store path's NAR: compressed into the cache, or found there again.
//!
//! A file in `nar/` without a narinfo is what an export left that was killed,
//! or the NAR of another path with the same contents. It was whole when it got
//! its name, but what carries caches from job to job may have cut it off, so it
//! is read to its end and hashed, which takes a quarter of the time of
//! compressing it again.

use std::fs::File;
use std::io::{self, Read as _};

use zstd::stream::write::Encoder;

use super::beneath::FolderError;
use super::{CacheFolder, Refusal, narinfo};
use crate::nar::{self, HashWriter, Measured, NarError};
use crate::store::PathInfo;
use crate::tree::{Entry, StoreFiles};

/// Within a few percent of the size that higher levels come to, at a speed that
/// a disk can follow.
const COMPRESSION_LEVEL: i32 = 3;

/// A NAR in the cache.
pub struct StoredNar {
    /// What it is, uncompressed.
    pub nar: Measured,
    /// The size of its file.
    pub bytes: u64,
}

/// Why a NAR is not in the cache.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It is this path's own fault: others may go on.
    #[error(transparent)]
    Path(#[from] Refusal),
    /// It is the cache's: nothing can go on.
    #[error(transparent)]
    Cache(#[from] FolderError),
}

/// Sees to it that the NAR of `info`, which is printed as `path`, is in the
/// cache.
///
/// # Errors
/// When the store path is not what was registered, or the cache can't be
/// written. Then there is no trace of it.
pub fn store_nar(cache: &CacheFolder, files: &StoreFiles, info: &PathInfo, path: &str) -> Result<StoredNar, Failure> {
    if let Some(bytes) = find(cache, info)? {
        let nar = Measured { hash: info.nar_hash, size: info.nar_size };
        return Ok(StoredNar { nar, bytes });
    }
    let unreadable = |source| Refusal::Unreadable { path: path.to_owned(), source };
    let damaged = |found| Refusal::Damaged { path: path.to_owned(), registered: registered(info, found), found };
    let entries = files.walk(&info.path).map_err(|error| unreadable(error.into()))?;
    let size = nar::size(&entries);
    if info.nar_size != 0 && info.nar_size != size {
        return Err(damaged(nar::measure(files, &entries).map_err(unreadable)?).into());
    }

    let written = |source| FolderError::Io { path: cache.path().join("nar"), source };
    let mut temporary = cache.new_nar()?;
    let (nar, encoder) = compress(files, &entries, size, temporary.file()).map_err(|error| match error {
        NarError::Write(source) => Failure::Cache(written(source)),
        error => Failure::Path(unreadable(error)),
    })?;
    if nar != registered(info, nar) {
        return Err(damaged(nar).into());
    }
    let bytes = encoder.finish().and_then(|file| file.metadata()).map_err(written)?.len();
    temporary.persist(&narinfo::nar_file_name(&nar.hash))?;
    Ok(StoredNar { nar, bytes })
}

/// The size of the NAR's file, if it is there and whole.
fn find(cache: &CacheFolder, info: &PathInfo) -> Result<Option<u64>, FolderError> {
    let Some((file, bytes)) = cache.nar(&info.nar_hash)? else {
        return Ok(None);
    };
    let whole =
        measure(file, info.nar_size).is_ok_and(|nar| nar == Measured { hash: info.nar_hash, size: info.nar_size });
    Ok(whole.then_some(bytes))
}

/// What a file has in it, up to one byte more than `limit`: a small file may
/// hold more than any disk.
fn measure(file: File, limit: u64) -> io::Result<Measured> {
    let mut nar = zstd::stream::read::Decoder::new(file)?.take(limit.saturating_add(1));
    let mut writer = HashWriter::new(io::sink());
    io::copy(&mut nar, &mut writer)?;
    Ok(writer.finish().0)
}

/// Writes a NAR of `size` bytes to `file`, all but its end, and tells what it
/// is.
fn compress<'a>(
    files: &StoreFiles,
    entries: &[Entry],
    size: u64,
    file: &'a mut File,
) -> Result<(Measured, Encoder<'static, &'a mut File>), NarError> {
    let mut encoder = Encoder::new(file, COMPRESSION_LEVEL)?;
    // With the size known, small NARs take little memory, and readers are told
    // in the frame's header.
    encoder.set_pledged_src_size(Some(size))?;
    Ok(nar::write(files, entries, HashWriter::new(encoder))?.finish())
}

/// What the database says; it does not always know the size.
fn registered(info: &PathInfo, found: Measured) -> Measured {
    let size = if info.nar_size == 0 { found.size } else { info.nar_size };
    Measured { hash: info.nar_hash, size }
}
