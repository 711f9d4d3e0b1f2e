//! A job's end: the store becomes what an archive can hold, and be unpacked from.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::database::{Database, Row};
use super::modes::{self, State};
use super::notes::{Note, Notes};
use super::{LocalStore, LocalStoreError, io_error, used};
use crate::cache::usage::seconds;
use crate::parallel::parallel;

/// How old a note of use may be: the next one costs an upload.
const REFRESH: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What Nix makes anew: locks, and room that it keeps for itself.
const PASSING: [&str; 8] =
    ["gc.lock", "gc-socket", "temproots", "userpool", "userpool2", "db/big-lock", "db/reserved", "builds"];

/// What a job ends with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// How many paths there are.
    pub paths: usize,
    /// How many of them are new.
    pub added: usize,
    /// How large their NARs are together, in bytes.
    pub size: u64,
    /// Whether an archive of it would be another than the last one.
    pub changed: bool,
}

/// Leaves `store` so that an archive holds all of it, on `jobs` threads. Nobody may be at work
/// there any more.
///
/// # Errors
/// When somebody is, it can't be changed, or is no cache.
pub fn end(store: &LocalStore, jobs: usize) -> Result<Ended, LocalStoreError> {
    store.is_cache()?;
    let Some(database) = Database::open(store)? else {
        return Ok(Ended::default());
    };
    let now = seconds(SystemTime::now());
    let rows = database.rows()?;
    let digest = database.digest()?;
    let old = Notes::read(store);
    let needed = used::needed(&database, &rows, &used::roots(store))?;
    database.settle()?;
    drop_passing(store, &rows)?;
    let looks = parallel(&rows, jobs, |row| open(store, row)).into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut paths: BTreeMap<String, Note> = looks.into_iter().flatten().collect();
    let added = paths.keys().filter(|base| !old.paths.contains_key(*base)).count();
    let before = |base: &str| old.paths.get(base).map_or(0, |note| note.used);
    let used: BTreeSet<&str> =
        rows.iter().filter(|row| needed.contains(&row.id)).filter_map(|row| store.base(&row.path)).collect();
    let is_due = used.iter().any(|base| before(base) + REFRESH.as_secs() < now);
    for (base, note) in &mut paths {
        note.used = if is_due && used.contains(&base[..]) { now } else { before(base) };
    }
    let looks_other = |(base, note): (&String, &Note)| old.paths.get(base).is_none_or(|old| old.looks != note.looks);
    let changed = old.rows != Some(digest) || is_due || paths.iter().any(looks_other);
    if changed {
        Notes::new(now, Some(digest), paths).write(store)?;
    } else {
        keep_times(store, old.changed)?;
    }
    Ok(Ended { paths: rows.len(), added, size: rows.iter().map(|row| row.nar_size).sum(), changed })
}

/// Opens a path for archivers, and tells what it looks like; nothing where it is gone.
fn open(store: &LocalStore, row: &Row) -> Result<Option<(String, Note)>, LocalStoreError> {
    let Some(base) = store.base(&row.path) else { return Ok(None) };
    let path = store.path(base);
    match modes::set(&path, Some(State::Open)) {
        Ok(looks) => Ok(Some((base.to_owned(), Note { looks: looks.digest, registered: row.registered, used: 0 }))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(&path, error)),
    }
}

fn drop_passing(store: &LocalStore, rows: &[Row]) -> Result<(), LocalStoreError> {
    let location = store.location();
    let links = location.real_dir.join(".links");
    let passing = PASSING.iter().map(|name| location.state_dir.join(name)).chain([links]);
    passing.into_iter().try_for_each(|path| modes::clear(&path).map_err(|error| io_error(&path, error)))?;
    // A path may be called flake.lock.
    let known: BTreeSet<&str> = rows.iter().filter_map(|row| store.base(&row.path)).collect();
    let entries = std::fs::read_dir(&location.real_dir).into_iter().flatten().flatten();
    for entry in entries {
        let is_lock = entry.file_name().to_str().is_some_and(|name| name.ends_with(".lock") && !known.contains(name));
        if is_lock {
            modes::clear(&entry.path()).map_err(|error| io_error(&entry.path(), error))?;
        }
    }
    Ok(())
}

/// Has nothing newer than the store's last change, `changed`: Nix has opened its database, and
/// made its locks and roots again. Times of store paths are all the same anyway.
fn keep_times(store: &LocalStore, changed: u64) -> Result<(), LocalStoreError> {
    let location = store.location();
    let nix = store.dir().join("nix");
    let is_store = |path: &Path| path == location.real_dir;
    let entries = modes::walk(&nix).into_iter().filter_entry(|entry| !is_store(entry.path()));
    let mut found = BTreeSet::from([location.real_dir.clone(), store.dir().to_owned()]);
    for entry in entries {
        let entry = entry.map_err(|error| io_error(&nix, error.into()))?;
        found.insert(entry.into_path());
    }
    let user = rustix::process::geteuid().as_raw();
    let changed = i64::try_from(changed).unwrap_or(i64::MAX);
    for path in found {
        let keep = || match path.symlink_metadata()? {
            // Where it is somebody else's, an archive is made once more than need be.
            data if (data.mtime(), data.mtime_nsec()) > (changed, 0) && data.uid() == user => {
                modes::set_time(&path, &data, changed)
            }
            _ => Ok(()),
        };
        keep().map_err(|error| io_error(&path, error))?;
    }
    Ok(())
}
