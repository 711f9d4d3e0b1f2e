//! A job's begin: what an archive has brought is looked at, and made read-only.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::io::Errno;

use super::database::{self, Database, Row};
use super::modes::{self, State};
use super::notes::{Note, Notes};
use super::{LocalStore, LocalStoreError, MARK, io_error};
use crate::nar;
use crate::parallel::parallel;
use crate::store::NarHash;
use crate::tree::StoreFiles;

/// What a job begins with.
#[derive(Debug, Default)]
pub struct Begun {
    /// How many paths there are.
    pub paths: usize,
    /// Those that are not as they were, with what is wrong, and those that refer to them. They
    /// are gone now, and will be built again.
    pub lost: Vec<(String, Fault)>,
    /// What was wrong with the database, if nothing could be kept.
    pub anew: Option<String>,
}

/// What is wrong with a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is registered, and not there.
    #[error("it is not there")]
    Missing,
    /// Some of its files are not there, or not whole.
    #[error("its files are not what they were")]
    Changed,
    /// Its bytes are not what was registered.
    #[error("it is not what was registered")]
    Contents,
    /// It can't be read, or its modes not be set.
    #[error("{0}")]
    Unreadable(String),
    /// What it refers to is gone.
    #[error("it refers to what is gone")]
    Refers,
}

/// Looks at all of `store`, on `jobs` threads, forgets what is not as it was, and puts the rest into
/// `state`, if one is given. No file of a store path is opened. Nobody may be at work there.
///
/// # Errors
/// When the store can't be changed, or is no cache.
pub fn begin(store: &LocalStore, jobs: usize, state: Option<State>) -> Result<Begun, LocalStoreError> {
    store.is_cache()?;
    clear_state(store)?;
    let mut database = match Database::open(store) {
        Ok(Some(database)) => database,
        Ok(None) => return Ok(Begun { anew: drop_leftovers(store)?, ..Begun::default() }),
        Err(error) if database::is_damaged(&error) => {
            drop_all(store)?;
            return Ok(Begun { anew: Some(error.to_string()), ..Begun::default() });
        }
        Err(error) => return Err(error),
    };
    let rows = database.rows()?;
    let notes = Notes::read(store);
    let faults = parallel(&rows, jobs, |row| look(store, &notes, row, state));
    let faults = faults.into_iter().collect::<Result<_, _>>()?;
    let lost = forget(store, &mut database, &rows, faults)?;
    Ok(Begun { paths: rows.len() - lost.len(), lost, anew: None })
}

/// Reads all of `store`, on `jobs` threads, and forgets what is not what was registered.
///
/// # Errors
/// When the store can't be read or changed, or is no cache.
pub fn deep(store: &LocalStore, jobs: usize) -> Result<Vec<(String, Fault)>, LocalStoreError> {
    store.is_cache()?;
    let Some(mut database) = Database::open(store)? else { return Ok(Vec::new()) };
    let real_dir = &store.location().real_dir;
    let files = StoreFiles::open(real_dir).map_err(|error| io_error(real_dir, io::Error::other(error)))?;
    let rows = database.rows()?;
    let faults = parallel(&rows, jobs, |row| read(store, &files, row));
    let faults = faults.into_iter().collect::<Result<_, _>>()?;
    forget(store, &mut database, &rows, faults)
}

/// What a path's bytes are not.
fn read(store: &LocalStore, files: &StoreFiles, row: &Row) -> Result<Option<Fault>, LocalStoreError> {
    let path = store.location().store_dir.parse_path(row.path.as_bytes());
    let found = match path.map(|path| nar::measure(files, &files.walk(&path)?)) {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            if let Some(errno) = errno_of(&error).filter(|errno| is_of_machine(*errno)) {
                return Err(io_error(Path::new(&row.path), errno.into()));
            }
            return Ok(Some(Fault::Unreadable(error.to_string())));
        }
        Err(error) => return Ok(Some(Fault::Unreadable(error.to_string()))),
    };
    Ok((NarHash::parse(&row.hash).ok() != Some(found.hash)).then_some(Fault::Contents))
}

/// What the system said.
pub(super) fn errno_of(error: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.find_map(|cause| cause.downcast_ref::<io::Error>().and_then(Errno::from_io_error))
}

/// Whether the machine could not do it now, whatever the path is.
pub(super) fn is_of_machine(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM)
}

/// Forgets what has a fault, and what refers to it, and deletes it.
fn forget(
    store: &LocalStore,
    database: &mut Database,
    rows: &[Row],
    faults: Vec<Option<Fault>>,
) -> Result<Vec<(String, Fault)>, LocalStoreError> {
    let faulty = rows.iter().zip(faults).filter_map(|(row, fault)| Some((row.id, fault?))).collect();
    let mut lost = with_referrers(faulty, &database.references()?);
    if lost.is_empty() {
        return Ok(Vec::new());
    }
    database.forget(&lost.keys().copied().collect())?;
    let mut told = Vec::new();
    for row in rows {
        if let Some(fault) = lost.remove(&row.id) {
            delete(store, row)?;
            told.push((row.path.clone(), fault));
        }
    }
    Ok(told)
}

/// What is wrong with a path, which is in `state` now.
fn look(store: &LocalStore, notes: &Notes, row: &Row, state: Option<State>) -> Result<Option<Fault>, LocalStoreError> {
    let Some(base) = store.base(&row.path) else {
        return Ok(Some(Fault::Unreadable("it is no store path".to_owned())));
    };
    let path = store.path(base);
    let looks = match modes::set(&path, state) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Fault::Missing)),
        Err(error) if errno_of(&error).is_some_and(is_of_machine) => return Err(io_error(&path, error)),
        Err(error) => return Ok(Some(Fault::Unreadable(error.to_string()))),
        Ok(looks) => looks,
    };
    let is_other = |note: &Note| note.registered == row.registered && note.looks != looks.digest;
    // Nix leaves out a size that it does not know.
    let is_right = row.nar_size == 0 || row.nar_size == looks.nar_size;
    Ok((!is_right || notes.paths.get(base).is_some_and(is_other)).then_some(Fault::Changed))
}

/// The paths with faults, and all that refer to them.
fn with_referrers(mut faulty: BTreeMap<i64, Fault>, references: &[(i64, i64)]) -> BTreeMap<i64, Fault> {
    let mut referrers: HashMap<i64, Vec<i64>> = HashMap::new();
    for (referrer, reference) in references {
        referrers.entry(*reference).or_default().push(*referrer);
    }
    let mut pending: Vec<i64> = faulty.keys().copied().collect();
    while let Some(id) = pending.pop() {
        for referrer in referrers.get(&id).into_iter().flatten() {
            if !faulty.contains_key(referrer) {
                faulty.insert(*referrer, Fault::Refers);
                pending.push(*referrer);
            }
        }
    }
    faulty
}

/// Deletes the files of a path that nobody knows any more.
fn delete(store: &LocalStore, row: &Row) -> Result<(), LocalStoreError> {
    let Some(base) = store.base(&row.path) else { return Ok(()) };
    let path = store.path(base);
    modes::clear(&path).map_err(|error| io_error(&path, error))
}

/// Clears what in Nix's state is somebody else's, where Nix could write nothing.
fn clear_state(store: &LocalStore) -> Result<(), LocalStoreError> {
    let state = store.dir().join("nix/var");
    let user = rustix::process::geteuid().as_raw();
    let mut entries = modes::walk(&state).into_iter();
    let database = store.location().database();
    let mut is_cut = false;
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|error| io_error(&state, error.into()))?;
        let path = entry.path();
        let is_ours = entry.metadata().is_ok_and(|data| data.uid() == user);
        if is_ours && !modes::is_aside(path) {
            continue;
        }
        if entry.file_type().is_dir() {
            entries.skip_current_dir();
        }
        if !modes::is_aside(path) {
            is_cut |= path.starts_with(crate::fs::folder_of(&database));
            modes::clear(path).map_err(|error| io_error(path, error))?;
        }
    }
    // SQLite's files are one database together.
    let folder = crate::fs::folder_of(&database);
    if is_cut { modes::clear(folder).map_err(|error| io_error(folder, error)) } else { Ok(()) }
}

/// Without a database, nobody knows what the files are.
fn drop_leftovers(store: &LocalStore) -> Result<Option<String>, LocalStoreError> {
    let entries = std::fs::read_dir(&store.location().real_dir);
    if entries.is_ok_and(|mut entries| entries.next().is_none()) {
        return Ok(None);
    }
    drop_all(store)?;
    Ok(Some(format!("there is no Nix database at {}", store.location().database().display())))
}

/// Empties the store. What is registered nowhere can't be told from what was lost.
fn drop_all(store: &LocalStore) -> Result<(), LocalStoreError> {
    let nix = store.dir().join("nix");
    // Whoever is killed here leaves a cache, too.
    store.make()?;
    for entry in std::fs::read_dir(&nix).map_err(|error| io_error(&nix, error))? {
        let entry = entry.map_err(|error| io_error(&nix, error))?;
        if entry.file_name() != MARK {
            modes::clear(&entry.path()).map_err(|error| io_error(&entry.path(), error))?;
        }
    }
    store.make()
}
