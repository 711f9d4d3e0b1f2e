//! Makes a cache smaller, and keeps it whole.
//!
//! What was used least recently goes first; see [`usage`] for what that means,
//! and [`plan`] for why no path that stays misses another. A narinfo goes before
//! its NAR, so whoever kills this leaves a valid cache with NARs that nobody
//! names, which the next run takes.
//!
//! A folder is locked meanwhile. A bucket can't be, and others may be adding to it. So there:
//!
//! - One deletes at a time ([`lease`]).
//! - What was used or written in the last day stays, whatever the limits are, and so do NARs of
//!   that age.
//! - Whoever adds has said so before he looked what is there ([`usage::hold`]). So after the
//!   narinfos are deleted, and before the NARs are, what was said meanwhile is read: what is
//!   in it is put back, with all that it needs.
//! - Whoever comes later finds no narinfo, and takes no old NAR for one that stays; he writes
//!   it anew.

pub mod lease;
pub mod plan;
mod removal;

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::time::{Duration, SystemTime};

use super::beneath::manage::{Entry, Kind};
use super::check::QUARANTINE;
use super::check::metadata::hash_part;
use super::scan::{Scan, scan};
use super::shelf::Shelf;
use super::{CacheError, Place, usage};
use crate::store::{StoreDir, StorePath};
use lease::Lease;
use plan::{Item, Limits};
use removal::Removal;

/// How long to wait for exports to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// From what age on a NAR or a listing that nobody names is nobody's. Exports of stowage keep
/// gc away; `nix copy` does not, and writes a narinfo soon after its NAR.
const UNNAMED: Duration = Duration::from_secs(60 * 60);

/// From what age on a temporary file of Nix's is nobody's; and in a bucket whatever nobody
/// names, is used by nobody, or was begun and not ended.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// What to delete.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How large the cache may be, in bytes.
    pub max_size: Option<u64>,
    /// What was not used for so long goes.
    pub max_age: Option<Duration>,
    /// What stays in any case, with all that it refers to.
    pub keep: Vec<StorePath>,
    /// What is used now, whatever was recorded: what this machine has taken from the cache.
    pub used: Vec<StorePath>,
    /// Whether to delete nothing, and only tell.
    pub dry_run: bool,
}

/// What was deleted.
#[derive(Debug, Default)]
pub struct Report {
    /// How many paths were there.
    pub before: usize,
    /// Those that are gone, in the order in which they went: none before what needs it.
    pub removed: Vec<StorePath>,
    /// How many other files are gone: NARs that nobody named, temporary files, and
    /// what was in quarantine.
    pub other_files: usize,
    /// How large the cache was, in bytes.
    pub size_before: u64,
    /// How large it is.
    pub size: u64,
}

/// Deletes from the cache at `place` what need not stay. `store_dir` is whose paths
/// they are, where the cache does not tell.
///
/// # Errors
/// When somebody is at work there for long, or it can't be read or written.
pub fn collect(place: impl Into<Place>, store_dir: &StoreDir, options: &Options) -> Result<Report, CacheError> {
    let place = place.into();
    let root = place.open()?;
    let busy = || CacheError::Busy(place.name());
    let lease = if options.dry_run { None } else { Some(Lease::take(&root, PATIENCE)?.ok_or_else(busy)?) };
    let now = SystemTime::now();
    let records = usage::read_all(&root)?;
    let scan = scan(&root, store_dir)?;
    let in_use = options.used.iter().map(hash_part).collect();
    let items = items(&scan, &records.used, &in_use, usage::seconds(now));
    let unnamed = if root.is_shared() { ABANDONED } else { UNNAMED };
    let rubbish = Rubbish::find(&scan, options, now, unnamed);
    // The paths have what all else leaves of the size.
    let paths_size = paths_size(&items);
    let others = scan.size.saturating_sub(paths_size + rubbish.size());
    let limits = Limits {
        size: options.max_size.map(|size| size.saturating_sub(others)),
        oldest: options.max_age.map(|age| usage::seconds(now).saturating_sub(age.as_secs())),
        keep: options.keep.iter().map(hash_part).chain(recent(&root, &items, now)).collect(),
    };
    let mut gone = plan::plan(&items, &limits);
    let mut removal = Removal::new(&root, &scan, lease);
    let result = removal.paths(&records, &mut gone).and_then(|()| removal.rubbish(&rubbish));
    let mended = removal.drop_bereft(&records, &scan.store_dir);
    result.and(mended)?;
    let mut report = Report { before: items.len(), size_before: scan.size, ..Report::default() };
    report.size = scan.size.saturating_sub(removal.size);
    report.other_files = removal.others;
    if !options.dry_run && !gone.is_empty() {
        removal.realisations()?;
    }
    if !options.dry_run && (!gone.is_empty() || root.is_shared()) {
        let hashes: HashSet<&str> = gone.iter().map(|at| &items[*at].hash[..]).collect();
        usage::retain(&root, &|hash, _| !hashes.contains(hash))?;
        usage::drop_begun(&root, ABANDONED)?;
        root.abandon(ABANDONED);
    }
    report.removed = gone.into_iter().map(|at| scan.paths[at].metadata.narinfo.store_path().clone()).collect();
    Ok(report)
}

/// What was used in the last day, where others may be about to use it.
fn recent(root: &Shelf, items: &[Item], now: SystemTime) -> Vec<String> {
    let oldest = usage::seconds(now).saturating_sub(ABANDONED.as_secs());
    items.iter().filter(|item| root.is_shared() && item.used >= oldest).map(|item| item.hash.clone()).collect()
}

fn items(scan: &Scan, used: &usage::Used, in_use: &HashSet<String>, now: u64) -> Vec<Item> {
    let last_use = |path: &super::scan::Path| {
        if in_use.contains(&path.hash) {
            return now;
        }
        // A clock may have been ahead.
        used.get(&path.hash).map_or(0, |one| one.time).max(usage::seconds(path.written)).min(now)
    };
    let item = |path: &super::scan::Path| Item {
        hash: path.hash.clone(),
        references: path.metadata.references().map(hash_part).collect(),
        deriver: path.metadata.narinfo.deriver().map(StorePath::to_basename),
        used: last_use(path),
        size: path.size,
        nar: path.nar_size.map(|size| (path.metadata.nar_file.clone(), size)),
    };
    scan.paths.iter().map(item).collect()
}

fn paths_size(items: &[Item]) -> u64 {
    let nars: HashSet<&(String, u64)> = items.iter().filter_map(|item| item.nar.as_ref()).collect();
    items.iter().map(|item| item.size).sum::<u64>() + nars.into_iter().map(|(_, size)| size).sum::<u64>()
}

/// What no path needs, by folder: the name and the size of each file.
struct Rubbish(BTreeMap<&'static str, Vec<(OsString, u64)>>);

impl Rubbish {
    /// `unnamed` is the age from which on a NAR or a listing that nobody names is nobody's.
    fn find(scan: &Scan, options: &Options, now: SystemTime, unnamed: Duration) -> Self {
        let age = |entry: &Entry| now.duration_since(entry.modified).unwrap_or_default();
        let named: HashSet<&OsStr> = scan.paths.iter().map(|path| OsStr::new(&path.metadata.nar_file)).collect();
        let mut found: BTreeMap<&'static str, Vec<(OsString, u64)>> = BTreeMap::new();
        let mut add = |folder: &'static str, entry: &Entry| {
            if let Kind::File(size) = entry.kind {
                found.entry(folder).or_default().push((entry.name.clone(), size));
            }
        };
        let abandoned = |entry: &&Entry| is_temporary(&entry.name) && age(entry) > ABANDONED;
        scan.entries.iter().filter(abandoned).for_each(|entry| add("", entry));
        let known: HashSet<String> = scan.paths.iter().map(|path| format!("{}.ls", path.hash)).collect();
        // Listings are written before narinfos.
        let is_orphan = |entry: &&Entry| {
            let name = entry.name.to_string_lossy();
            name.ends_with(".ls") && !known.contains(&*name) && age(entry) > unnamed
        };
        scan.entries.iter().filter(is_orphan).for_each(|entry| add("", entry));
        for nar in scan.nars.iter().filter(|nar| !named.contains(&*nar.name)) {
            let limit = if is_temporary(&nar.name) { ABANDONED } else { unnamed };
            if age(nar) > limit {
                add("nar", nar);
            }
        }
        let is_full = options.max_size.is_some_and(|size| scan.size > size);
        for entry in &scan.quarantine {
            if is_full || options.max_age.is_some_and(|limit| age(entry) > limit) {
                add(QUARANTINE, entry);
            }
        }
        Self(found)
    }

    fn size(&self) -> u64 {
        self.0.values().flatten().map(|(_, size)| size).sum()
    }
}

/// Whether stowage or Nix gives unfinished files such names.
fn is_temporary(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with(super::beneath::TEMPORARY_PREFIX) || name.contains(".tmp.")
}
