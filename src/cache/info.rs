//! What is in a cache, in numbers.

use super::scan::{scan, sum};
use super::{CacheError, Place, usage};
use crate::store::StoreDir;

/// A cache in numbers. Sizes are in bytes, times in seconds since the epoch.
#[derive(Debug)]
pub struct Info {
    /// The store that it is for.
    pub store_dir: StoreDir,
    /// How many paths there are.
    pub paths: usize,
    /// How many narinfos can't be read.
    pub damaged: usize,
    /// How many paths have no NAR.
    pub without_nar: usize,
    /// How large all files are.
    pub size: u64,
    /// How large the NARs are.
    pub compressed: u64,
    /// How large they are uncompressed.
    pub uncompressed: u64,
    /// How many files are in quarantine.
    pub quarantined: usize,
    /// How large they are.
    pub quarantined_size: u64,
    /// When the oldest path was written.
    pub oldest: Option<u64>,
    /// When the newest one was.
    pub newest: Option<u64>,
    /// When the path was used that was not used for longest.
    pub least_recently_used: Option<u64>,
}

/// Reads the cache at `place`; `store_dir` is whose paths they are, where the cache
/// does not tell.
///
/// # Errors
/// When it can't be read.
pub fn info(place: impl Into<Place>, store_dir: &StoreDir) -> Result<Info, CacheError> {
    let root = place.into().open()?;
    let scan = scan(&root, store_dir)?;
    let used = usage::read(&root)?;
    let written = || scan.paths.iter().map(|path| usage::seconds(path.written));
    let last =
        |path: &super::scan::Path| used.get(&path.hash).map_or(0, |one| one.time).max(usage::seconds(path.written));
    Ok(Info {
        paths: scan.paths.len(),
        damaged: scan.damaged,
        without_nar: scan.paths.iter().filter(|path| path.nar_size.is_none()).count(),
        size: scan.size,
        compressed: sum(&scan.nars),
        uncompressed: scan.paths.iter().map(|path| path.metadata.narinfo.nar_size()).fold(0, u64::saturating_add),
        quarantined: scan.quarantine.len(),
        quarantined_size: sum(&scan.quarantine),
        oldest: written().min(),
        newest: written().max(),
        least_recently_used: scan.paths.iter().map(last).min(),
        store_dir: scan.store_dir,
    })
}
