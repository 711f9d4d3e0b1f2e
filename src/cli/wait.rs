//! `stowage cache init` and `stowage cache wait`: a job's begin and end.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::settings::Settings;
use super::worker;
use crate::cache::{CacheError, CacheFolder, Place, usage};
use crate::hook;
use crate::mark::{Mark, Marks};
use crate::queue::{Entry, Queue, Record};
use crate::s3::address::{self, Address};
use crate::store::db::{DatabaseError, StoreDb};
use crate::store::{StoreLocation, StorePath};

/// Why not all that was built is in the cache.
#[derive(Debug, thiserror::Error)]
#[error("not in the cache {}:\n{}", cache.display(), lines(failed))]
pub struct WaitError {
    cache: PathBuf,
    failed: Vec<(String, String)>,
}

/// What a job's end found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Waited {
    /// How many builds that hooks had recorded were still to be exported.
    pub builds: usize,
    /// How many paths no hook had told of.
    pub unhooked: usize,
}

/// Makes the cache at `dir`, a folder or a bucket, ready, and notes what the store has: `wait` exports what is
/// built from now on.
///
/// # Errors
/// When the cache can't be made, or the database not be read.
pub fn init(settings: &Settings, location: &StoreLocation, dir: &Path) -> anyhow::Result<()> {
    let dir = absolute(dir)?;
    let place = settings.place(&dir)?;
    let opened = CacheFolder::open(&place, &location.store_dir);
    match place.folder().and_then(unwritable) {
        // The job can take from it, and that is better than no job.
        Some(folder) => tracing::warn!("{}", cannot_add(&dir, &folder)),
        None => drop(opened?),
    }
    // Without a database, nothing was ever built.
    let last_id = database(location)?.map_or(Ok(0), |database| database.last_id())?;
    let mark = Mark { last_id };
    Marks::new(&Queue::new(location), settings.state_home.clone())
        .set(&dir, mark)
        .context("noting what the store has; set XDG_STATE_HOME to a folder that can be written")
}

/// The first folder of the cache in `dir` in which this user can make no file.
fn unwritable(dir: &Path) -> Option<PathBuf> {
    let folders = ["", "nar", "log", "realisations", usage::FOLDER].map(|name| dir.join(name));
    let is_closed = |folder: &PathBuf| {
        let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        folder.is_dir() && rustix::fs::access(folder, access).is_err()
    };
    folders.into_iter().find(is_closed)
}

fn cannot_add(dir: &Path, folder: &Path) -> String {
    use std::os::unix::fs::MetadataExt as _;
    let owner = folder.metadata().map_or_else(|_| "another user".to_owned(), |data| format!("user {}", data.uid()));
    format!(
        "what is built will not get into {}: {} is {owner}'s, and user {} may not write there; let all jobs of a cache run as one user, or delete it so that it is made anew",
        dir.display(),
        folder.display(),
        rustix::process::geteuid().as_raw()
    )
}

/// Sees to it that all that was built is in the cache in `dir`.
///
/// # Errors
/// When something is not, or that can't be found out.
pub fn wait(settings: &Settings, location: &StoreLocation, dir: &Path, patience: Duration) -> anyhow::Result<Waited> {
    let named = dir;
    let dir = absolute(named)?;
    let place = settings.place(&dir)?;
    if place.folder().is_some_and(|folder| folder.exists() && !folder.is_dir()) {
        return Err(CacheError::Missing(named.to_owned()).into());
    }
    let queue = Queue::new(location);
    let is_ours = |record: &Record| record.cache.as_os_str().is_empty() || same_place(&record.cache, &dir);
    let deliver = |records: &[&Record]| worker::deliver(settings, location, records);
    let report = crate::worker::drain(&queue, &is_ours, patience, &deliver)
        .with_context(|| format!("reading what hooks have recorded in {}", queue.folder().display()))?;
    start_worker(settings, &queue, &is_ours);
    if report.is_cut_off {
        // Nor would it answer anything else.
        return Err(WaitError { cache: dir, failed: report.failed }.into());
    }
    let unhooked = unhooked(settings, location, &queue, (&dir, &place))?;
    note_use(settings, location, &dir, &place);
    if !report.failed.is_empty() {
        return Err(WaitError { cache: dir, failed: report.failed }.into());
    }
    if place.folder().is_some_and(|folder| !folder.exists()) {
        // A job that built nothing has none. One whose hook fills another should know.
        tracing::warn!(
            "there is no cache at {}: nothing was exported to it; if something was built, see where STOWAGE_CACHE leads",
            named.display()
        );
    }
    Ok(Waited { builds: report.done, unhooked })
}

/// Exports what was built since the job's begin, whoever was told of it.
fn unhooked(
    settings: &Settings,
    location: &StoreLocation,
    queue: &Queue,
    (dir, place): (&Path, &Place),
) -> anyhow::Result<usize> {
    let Some(mark) = Marks::new(queue, settings.state_home.clone()).get(dir) else {
        tracing::info!("nobody noted when the job began (`stowage cache init`): only what hooks told of was exported");
        return Ok(0);
    };
    let Some(database) = database(location)? else {
        return Ok(0);
    };
    let mut built = database.built_since(mark.last_id)?;
    // So that neither configuration nor keys are needed where nothing is missing.
    if let Ok(shelf) = place.open() {
        let present: HashSet<StorePath> = usage::present(&shelf, &built)?.into_iter().cloned().collect();
        built.retain(|path| !present.contains(path));
    }
    if built.is_empty() {
        return Ok(0);
    }
    let config = worker::configuration(settings.hook_configuration().as_deref())?;
    let options = worker::options(settings, &config)?;
    let summary =
        hook::send(&built, place, &config, location, &database, &options).context("exporting what no hook told of")?;
    Ok(summary.added)
}

/// What the store got since the job's begin, built or from wherever; nothing where no job is
/// known to be under way.
///
/// # Errors
/// When the database can't be read.
pub fn new_since_begin(settings: &Settings, location: &StoreLocation, dir: &Path) -> anyhow::Result<Vec<StorePath>> {
    let mark = Marks::new(&Queue::new(location), settings.state_home.clone()).get_recent(&absolute(dir)?);
    let (Some(mark), Some(database)) = (mark, database(location)?) else {
        return Ok(Vec::new());
    };
    Ok(database.registered_since(mark.last_id)?)
}

/// Notes what the job took from the cache, for `gc`. It does not fail for that.
fn note_use(settings: &Settings, location: &StoreLocation, dir: &Path, place: &Place) {
    let note = || -> anyhow::Result<()> {
        let paths = new_since_begin(settings, location, dir)?;
        if !paths.is_empty() && place.folder().is_none_or(Path::exists) {
            usage::refresh(&place.open()?, &paths)?;
        }
        Ok(())
    };
    if let Err(error) = note() {
        tracing::warn!("what this job used is not noted: {error:#}");
    }
}

/// The store's database, if it has one yet.
fn database(location: &StoreLocation) -> Result<Option<StoreDb<'_>>, DatabaseError> {
    match StoreDb::open(location) {
        Err(DatabaseError::Missing(_)) => Ok(None),
        database => database.map(Some),
    }
}

/// Hooks that recorded builds meanwhile found the queue locked, and started nobody; and the
/// worker that waited for what failed has made room.
fn start_worker(settings: &Settings, queue: &Queue, is_ours: &dyn Fn(&Record) -> bool) {
    let is_due = |Entry { record, .. }: &Entry| {
        record.wait().is_zero() || !is_ours(record) && record.wait() <= crate::worker::LONGEST_WAIT
    };
    let is_left = queue.entries().is_ok_and(|entries| entries.iter().any(is_due));
    if is_left && worker::configuration(settings.hook_configuration().as_deref()).is_ok_and(|config| config.worker) {
        // A queue of somebody else's has a worker of his.
        let _ = super::hook::start_worker(queue);
    }
}

/// The one name of the cache in `dir`, which others may name by another link.
///
/// # Errors
/// When the current folder is gone.
pub(super) fn absolute(dir: &Path) -> anyhow::Result<PathBuf> {
    if let Some(bucket) = bucket(dir) {
        return Ok(bucket);
    }
    match dir.canonicalize() {
        Ok(dir) => Ok(dir),
        Err(_) => std::path::absolute(dir).with_context(|| format!("finding {}", dir.display())),
    }
}

/// The address of a bucket, in the one way in which it is printed.
fn bucket(dir: &Path) -> Option<PathBuf> {
    let text = dir.to_str().filter(|text| address::is_address(text))?;
    // What is none is said by whoever opens it.
    Some(text.parse::<Address>().map_or_else(|_| dir.to_owned(), |address| address.to_string().into()))
}

fn same_place(one: &Path, other: &Path) -> bool {
    match bucket(one) {
        Some(one) => one == other,
        None => one == other || one.canonicalize().is_ok_and(|one| one == other),
    }
}

fn lines(failed: &[(String, String)]) -> String {
    let line = |(name, problem): &(String, String)| format!("{name}: {problem}");
    failed.iter().map(line).collect::<Vec<_>>().join("\n")
}
