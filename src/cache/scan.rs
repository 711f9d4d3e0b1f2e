//! Reads what is in a cache, sound or not, and changes nothing.

use std::collections::HashMap;
use std::time::SystemTime;

use super::beneath::manage::{Entry, Kind};
use super::check::metadata::{self, Metadata};
use super::check::{QUARANTINE, cache_info};
use super::folder::{CACHE_INFO, CACHE_INFO_LIMIT};
use super::shelf::{Shelf, ShelfError};
use super::{narinfo, usage};
use crate::parallel::parallel;
use crate::store::StoreDir;

/// What is in a cache.
#[derive(Debug)]
pub struct Scan {
    /// The store that it is for.
    pub store_dir: StoreDir,
    /// Its paths, by the names of their narinfos.
    pub paths: Vec<Path>,
    /// How many narinfos can't be read.
    pub damaged: usize,
    /// What is in `nar/`.
    pub nars: Vec<Entry>,
    /// What is in `quarantine/`.
    pub quarantine: Vec<Entry>,
    /// How large all its files are, in bytes.
    pub size: u64,
    /// What is in its folder itself.
    pub entries: Vec<Entry>,
}

/// A path in a cache.
#[derive(Debug)]
pub struct Path {
    /// The hash part of its name.
    pub hash: String,
    /// What its narinfo says.
    pub metadata: Metadata,
    /// How large the narinfo and the listing are, in bytes.
    pub size: u64,
    /// How large its NAR is when compressed, in bytes; `None` where there is none.
    pub nar_size: Option<u64>,
    /// When its narinfo was written.
    pub written: SystemTime,
}

/// Reads the cache in `root`, which is for `store_dir` unless it says otherwise.
///
/// # Errors
/// When it can't be read.
pub fn scan(root: &Shelf, store_dir: &StoreDir) -> Result<Scan, ShelfError> {
    let entries = root.entries()?;
    let info = root.read(CACHE_INFO, CACHE_INFO_LIMIT)?.unwrap_or_default();
    let stated = cache_info::judge(&info).ok().and_then(|text| StoreDir::new(text).ok());
    let store_dir = stated.unwrap_or_else(|| store_dir.clone());
    let below = |name: &str| root.existing(name)?.map_or_else(|| Ok(Vec::new()), |folder| folder.entries());
    let nars = below("nar")?;
    let quarantine = below(QUARANTINE)?;
    let mut size = sum(&entries) + sum(&nars) + sum(&quarantine);
    for name in ["log", "realisations", "build-trace-v2"] {
        size += sum(&below(name)?);
    }
    size += usage::size(root)?;
    let nar_sizes: HashMap<&str, u64> = nars.iter().filter_map(|nar| Some((nar.name.to_str()?, bytes(nar)?))).collect();
    let sizes: HashMap<&str, u64> =
        entries.iter().filter_map(|entry| Some((entry.name.to_str()?, bytes(entry)?))).collect();
    let mut paths = Vec::new();
    let mut damaged = 0;
    let narinfos = entries.iter().filter_map(|entry| {
        let name = entry.name.to_str()?;
        Some((entry, name, name.strip_suffix(".narinfo")?))
    });
    let narinfos: Vec<(&Entry, &str, &str)> = narinfos.collect();
    let contents = parallel(&narinfos, root.threads(1), |(_, name, _)| root.read(name, narinfo::SIZE_LIMIT));
    for ((entry, name, hash), contents) in narinfos.iter().copied().zip(contents) {
        let contents = match contents? {
            // Somebody has deleted it meanwhile.
            None if root.is_shared() => continue,
            contents => contents.unwrap_or_default(),
        };
        let Ok(metadata) = metadata::judge(&store_dir, name, &contents) else {
            damaged += 1;
            continue;
        };
        let listing = sizes.get(&format!("{hash}.ls")[..]).copied().unwrap_or(0);
        paths.push(Path {
            hash: hash.to_owned(),
            size: bytes(entry).unwrap_or(0) + listing,
            nar_size: nar_sizes.get(&metadata.nar_file[..]).copied(),
            written: entry.modified,
            metadata,
        });
    }
    Ok(Scan { store_dir, paths, damaged, size, nars, quarantine, entries })
}

/// How large all files are.
#[must_use]
pub fn sum(entries: &[Entry]) -> u64 {
    entries.iter().filter_map(bytes).sum()
}

fn bytes(entry: &Entry) -> Option<u64> {
    match entry.kind {
        Kind::File(size) => Some(size),
        _ => None,
    }
}
