//! Finds what is damaged in a cache, and puts it out of Nix's sight.
//!
//! A cache of a CI job has come through archives, full disks and killed jobs.
//! One cut narinfo ends every build that needs it, so a job begins with this.
//! Without NARs being read, it takes well below a second for thousands of paths;
//! with [`Options::deep`], each NAR is unpacked and hashed.
//!
//! What is bad is moved to `quarantine/`, by rename, so nothing is lost and no
//! room is taken. `stowage cache gc` empties that. A path whose references are
//! not all there stays: Nix 2.8 builds or substitutes a missing reference, and
//! then still takes that path (tried with `nix-build`), so to drop it would only
//! have more built. Circles of references go, since Nix crashes over them, and
//! outputs whose siblings are lost, since Nix may fail over them ([`siblings`]).
//!
//! A sound cache is only read: each time of a file and a folder stays, so that
//! GitLab has nothing to upload.

pub mod cache_info;
pub mod deep;
pub mod fault;
mod graph;
pub mod metadata;
mod quarantine;
pub mod realisations;
mod siblings;
mod traces;

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::time::Duration;

use super::beneath::manage::{Entry, Kind, Lock};
use super::folder::{CACHE_INFO, CACHE_INFO_LIMIT, EMPTY_FOLDERS};
use super::gc::lease;
use super::shelf::{Shelf, ShelfError};
use super::{CacheError, CacheFolder, Place, narinfo, usage};
use crate::parallel::parallel;
use crate::store::{StoreDir, StorePath};
use deep::Verdict;
pub use fault::Fault;
use metadata::{Metadata, hash_part};
pub use quarantine::QUARANTINE;
use quarantine::Quarantine;

/// How long one waits for somebody who deletes.
const PATIENCE: Duration = Duration::from_secs(10);

/// How to check.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether NARs are unpacked and hashed.
    pub deep: bool,
    /// How many threads do that; at least one.
    pub jobs: usize,
}

/// What a check has found.
#[derive(Debug, Default)]
pub struct Report {
    /// How many narinfos there were.
    pub narinfos: usize,
    /// How many of the sound ones refer to paths that are not in the cache, or no longer.
    pub incomplete: usize,
    /// How many NARs only Nix can read, so that they are not checked.
    pub unknown: usize,
    /// What is in quarantine now.
    pub quarantined: Vec<Quarantined>,
    /// What was missing, and is made again.
    pub repaired: Vec<String>,
}

/// A file that is in quarantine now.
#[derive(Debug)]
pub struct Quarantined {
    /// Where it was, below the cache's folder.
    pub file: String,
    /// Where it is, below the cache's folder.
    pub place: String,
    /// What is wrong.
    pub fault: Fault,
}

/// A narinfo, and what was found out about it.
struct Checked {
    name: String,
    result: Result<Metadata, Fault>,
    /// The NAR that it names, where it is not sound though it can be read.
    nar: Option<String>,
    /// The same, where the NAR is to blame.
    bad_nar: Option<String>,
}

/// Checks the cache at `place` for paths of `store_dir`.
///
/// # Errors
/// When it is a cache for another store dir, can't be read, or what is bad can't
/// be moved.
pub fn check(place: impl Into<Place>, store_dir: &StoreDir, options: Options) -> Result<Report, CacheError> {
    let place = place.into();
    let root = place.open()?;
    // Else NARs might go between two looks. Whoever does not let go only makes for
    // paths that are built again.
    let _ = root.lock(Lock::Adding, PATIENCE);
    // Before the narinfos, as a path's use is recorded after its narinfo was written.
    let used = usage::read(&root)?;
    // While somebody deletes from a bucket, what he has not finished looks like a loss.
    let was_quiet = lease::is_free(&root)?;
    let entries = root.entries()?;
    let names: Vec<String> = entries.iter().filter_map(narinfo_name).collect();
    let mut checked = read_narinfos(&root, store_dir, &names, options.jobs)?;
    read_newer(&root, store_dir, &mut checked, options.jobs)?;
    refuse_foreign(&root, &place, store_dir, &checked)?;
    // After the narinfos, as a NAR is there before its narinfo.
    let nar_folder = root.existing("nar")?;
    let nars = nar_folder.as_ref().map_or_else(|| Ok(Vec::new()), Shelf::entries)?;
    check_nars(&mut checked, &nars);
    let mut report = Report { narinfos: checked.len(), ..Report::default() };
    if let Some(nar_folder) = nar_folder.as_ref().filter(|_| options.deep) {
        report.unknown = check_deep(&mut checked, nar_folder, options.jobs)?;
    }
    check_names(&mut checked);
    check_circles(&mut checked);
    if was_quiet && lease::is_free(&root)? {
        traces::check_siblings(&mut checked, &root, &used);
    }
    report.incomplete = count_incomplete(&checked);

    let mut quarantine = Quarantine::new(&root, &mut report);
    quarantine.narinfos(&checked, &entries, nar_folder.as_ref().map(|folder| (folder, &nars[..])))?;
    if let Some(nar_folder) = &nar_folder {
        quarantine.nars(&checked, nar_folder, &nars)?;
    }
    quarantine.realisations()?;
    quarantine.frame(store_dir)?;
    forget(&root, &checked, &report)?;
    complete(&place, &root, store_dir, &mut report)?;
    Ok(report)
}

/// The name of a narinfo. Nix asks for no name that is no UTF-8.
fn narinfo_name(entry: &Entry) -> Option<String> {
    entry.name.to_str().filter(|name| name.ends_with(".narinfo")).map(str::to_owned)
}

/// Reads the narinfos `names`, all but those that somebody has deleted from a bucket meanwhile.
fn read_narinfos(
    root: &Shelf,
    store_dir: &StoreDir,
    names: &[String],
    jobs: usize,
) -> Result<Vec<Checked>, ShelfError> {
    let read_one = |name: &String| read(root, name, narinfo::SIZE_LIMIT);
    let mut checked = Vec::with_capacity(names.len());
    for (name, contents) in names.iter().zip(parallel(names, root.threads(jobs), read_one)) {
        let contents = contents?;
        if root.is_shared() && contents == Err(Fault::NotAFile) {
            continue;
        }
        let result = contents.and_then(|contents| metadata::judge(store_dir, name, &contents));
        checked.push(Checked { result, name: name.clone(), nar: None, bad_nar: None });
    }
    Ok(checked)
}

/// Reads what narinfos of a bucket refer to, and was not there when that was listed: a list comes
/// page by page, while others add to what is on earlier pages.
fn read_newer(root: &Shelf, store_dir: &StoreDir, checked: &mut Vec<Checked>, jobs: usize) -> Result<(), ShelfError> {
    let mut known: HashSet<String> = checked.iter().map(|one| one.name.clone()).collect();
    let mut new = 0;
    while root.is_shared() {
        let sound = checked[new..].iter().filter_map(|one| one.result.as_ref().ok());
        let named: HashSet<String> = sound.flat_map(Metadata::references).map(narinfo::file_name).collect();
        let missing: Vec<String> = named.into_iter().filter(|name| known.insert(name.clone())).collect();
        if missing.is_empty() {
            break;
        }
        new = checked.len();
        checked.extend(read_narinfos(root, store_dir, &missing, jobs)?);
    }
    Ok(())
}

/// What a file holds that was there a moment ago. That a bucket can't be reached is no fault of
/// what is in it.
fn read(folder: &Shelf, name: &str, limit: u64) -> Result<Result<Vec<u8>, Fault>, ShelfError> {
    let contents = match folder.read(name, limit) {
        Ok(Some(contents)) => return Ok(Ok(contents)),
        Ok(None) => folder.size(name),
        Err(error) => Err(error),
    };
    match contents {
        Ok(size) if size.is_some_and(|size| size > limit) => Ok(Err(Fault::TooLarge)),
        Ok(_) => Ok(Err(Fault::NotAFile)),
        Err(ShelfError::Folder(error)) => Ok(Err(Fault::Unreadable(error.to_string()))),
        Err(error) => Err(error),
    }
}

/// A cache for another store, or a wrong `NIX_STORE_DIR`, would have all its
/// narinfos quarantined. Where some are right, it is the info that is not.
fn refuse_foreign(root: &Shelf, place: &Place, store_dir: &StoreDir, checked: &[Checked]) -> Result<(), CacheError> {
    let info = root.read(CACHE_INFO, CACHE_INFO_LIMIT)?.unwrap_or_default();
    match cache_info::judge(&info) {
        Ok(found) if found != store_dir.as_str() && checked.iter().all(|one| one.result.is_err()) => {
            Err(CacheError::StoreDir {
                path: place.to_string(),
                found: found.to_owned(),
                wanted: store_dir.to_string(),
            })
        }
        _ => Ok(()),
    }
}

/// Whether each NAR is there, as far as can be told without reading it.
fn check_nars(checked: &mut [Checked], nars: &[Entry]) {
    let nars: HashMap<&OsStr, Kind> = nars.iter().map(|entry| (&*entry.name, entry.kind)).collect();
    for one in checked {
        one.doubt(|metadata| {
            let name = &metadata.nar_file;
            match nars.get(OsStr::new(name)) {
                None => Err(Fault::NarMissing(name.clone())),
                Some(Kind::File(0)) => Err(Fault::NarEmpty(name.clone())),
                Some(Kind::File(size)) => match metadata.narinfo.file_size() {
                    Some(expected) if expected != *size => Err(Fault::NarFileSize { expected, found: *size }),
                    _ => Ok(()),
                },
                Some(_) => Err(Fault::NarNotAFile(name.clone())),
            }
        });
    }
}

/// Reads all NARs, the largest first so that no thread is left alone with one at
/// the end, and tells how many can't be read here.
fn check_deep(checked: &mut [Checked], nars: &Shelf, jobs: usize) -> Result<usize, ShelfError> {
    let mut order: Vec<usize> = (0..checked.len()).filter(|at| checked[*at].result.is_ok()).collect();
    let size = |at: &usize| checked[*at].result.as_ref().map_or(0, |metadata| metadata.narinfo.nar_size());
    order.sort_by_key(|at| std::cmp::Reverse(size(at)));
    let verdicts = parallel(&order, jobs, |at| match &checked[*at].result {
        Ok(metadata) => deep::verify_file(nars, metadata),
        Err(fault) => Ok(Err(fault.clone())),
    });
    let mut unknown = 0;
    for (at, verdict) in order.into_iter().zip(verdicts) {
        let verdict = verdict?;
        unknown += usize::from(verdict == Ok(Verdict::Unknown));
        checked[at].doubt(|_| verdict.map(|_| ()));
    }
    Ok(unknown)
}

/// Whether references have the names of the paths that they mean. Nix finds a path by its hash
/// part; Nix 2.8 takes a content-addressed one for the one of the other name, and crashes.
fn check_names(checked: &mut [Checked]) {
    let sound = checked.iter().filter_map(|one| one.result.as_ref().ok());
    let paths: HashMap<[u8; 20], StorePath> =
        sound.map(|metadata| metadata.narinfo.store_path()).map(|path| (*path.digest(), path.clone())).collect();
    for one in checked {
        one.doubt(|metadata| {
            let is_other = |path: &&StorePath| paths.get(path.digest()).is_some_and(|there| there != *path);
            match metadata.references().find(is_other) {
                Some(path) => Err(Fault::OtherName(path.to_basename())),
                None => Ok(()),
            }
        });
    }
}

fn check_circles(checked: &mut [Checked]) {
    let graph = checked.iter().filter_map(|one| {
        let metadata = one.result.as_ref().ok()?;
        Some((hash_part(metadata.narinfo.store_path()), metadata.references().map(hash_part).collect()))
    });
    let circles: HashSet<String> = graph::circles(&graph.collect()).into_iter().collect();
    for one in checked {
        one.doubt(|metadata| match circles.contains(&hash_part(metadata.narinfo.store_path())) {
            true => Err(Fault::Cycle),
            false => Ok(()),
        });
    }
}

fn count_incomplete(checked: &[Checked]) -> usize {
    let sound = || checked.iter().filter_map(|one| one.result.as_ref().ok());
    let there: HashSet<[u8; 20]> = sound().map(|metadata| *metadata.narinfo.store_path().digest()).collect();
    sound().filter(|metadata| metadata.references().any(|path| !there.contains(path.digest()))).count()
}

impl Checked {
    /// Asks more of a narinfo that was sound so far.
    fn doubt(&mut self, ask: impl FnOnce(&Metadata) -> Result<(), Fault>) {
        if let Ok(metadata) = &self.result
            && let Err(fault) = ask(metadata)
        {
            // A NAR that bears its own hash is right, and the narinfo is not.
            let is_right = matches!(&fault, Fault::NarHash { found, .. } if metadata.nar_file.starts_with(&found[..]));
            self.nar = Some(metadata.nar_file.clone());
            self.bad_nar = (fault.is_of_nar() && !is_right).then(|| metadata.nar_file.clone());
            self.result = Err(fault);
        }
    }
}

/// Drops the record of what is lost, so that it is not lost again and again. Only
/// where something else has changed: see [`usage`].
fn forget(root: &Shelf, checked: &[Checked], report: &Report) -> Result<(), ShelfError> {
    // Records in a bucket are no traces, and only gc drops some.
    if report.quarantined.is_empty() || root.is_shared() {
        return Ok(());
    }
    let sound: HashSet<&str> =
        checked.iter().filter(|one| one.result.is_ok()).filter_map(|one| one.name.get(..32)).collect();
    usage::retain(root, &|hash, one| sound.contains(hash) || one.is_left_out())
}

/// Makes again what is missing. A cache that can't be written to serves without,
/// as far as it goes.
fn complete(place: &Place, root: &Shelf, store_dir: &StoreDir, report: &mut Report) -> Result<(), CacheError> {
    let there: HashSet<OsString> = root.entries()?.into_iter().map(|entry| entry.name).collect();
    let folders = ["nar"].into_iter().chain(EMPTY_FOLDERS).filter(|_| !root.is_shared());
    let needed = [CACHE_INFO].into_iter().chain(folders);
    let missing: Vec<String> = needed.filter(|name| !there.contains(OsStr::new(name))).map(str::to_owned).collect();
    if missing.is_empty() {
        return Ok(());
    }
    match CacheFolder::open(place, store_dir) {
        Ok(_) => report.repaired = missing,
        Err(error) => tracing::warn!("{} is missing, and can't be made: {error}", missing.join(", ")),
    }
    Ok(())
}
