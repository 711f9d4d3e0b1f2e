//! Makes a store smaller: what was used least recently goes first.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::database::{Database, Row};
use super::notes::Notes;
use super::{LocalStore, LocalStoreError, io_error, modes, used};
use crate::cache::gc::plan::{self, Item, Limits};
use crate::cache::gc::{Options, Report};
use crate::cache::usage::seconds;
use crate::store::StorePath;

/// Deletes from `store` what need not stay. What GC roots name stays, with all that it refers to.
///
/// # Errors
/// When somebody is at work there, it can't be changed, or is no cache.
pub fn collect(store: &LocalStore, options: &Options) -> Result<Report, LocalStoreError> {
    store.is_cache()?;
    let Some(database) = Database::open(store)? else {
        return Ok(Report::default());
    };
    let rows = database.rows()?;
    let gone = plan(store, &database, &rows, options)?;
    let is_gone: BTreeSet<i64> = gone.iter().map(|at| rows[*at].id).collect();
    let unknown = unknown(store, rows.iter().filter(|row| !is_gone.contains(&row.id)))?;
    let of_gone: BTreeSet<PathBuf> =
        gone.iter().filter_map(|at| store.base(&rows[*at].path)).map(|base| store.path(base)).collect();
    let size_before = rows.iter().map(|row| row.nar_size).sum();
    let freed: u64 = gone.iter().map(|at| rows[*at].nar_size).sum();
    let store_path = |at: &usize| store.location().store_dir.parse_path(rows[*at].path.as_bytes()).ok();
    let removed = gone.iter().filter_map(store_path).collect();
    let report = Report {
        before: rows.len(),
        removed,
        other_files: unknown.iter().filter(|path| !of_gone.contains(*path)).count(),
        size_before,
        size: size_before - freed,
    };
    // Where nothing goes, nothing is written: an archive would be made for that.
    let is_work = !gone.is_empty() || !unknown.is_empty();
    if is_work && !options.dry_run {
        delete(store, database, &rows, &is_gone, &unknown)?;
    }
    Ok(report)
}

/// Which rows go.
fn plan(
    store: &LocalStore,
    database: &Database,
    rows: &[Row],
    options: &Options,
) -> Result<Vec<usize>, LocalStoreError> {
    let now = seconds(SystemTime::now());
    let limits = Limits {
        size: options.max_size,
        oldest: options.max_age.map(|age| now.saturating_sub(age.as_secs())),
        keep: kept(store, database, rows, options)?.iter().map(ToString::to_string).collect(),
    };
    Ok(plan::plan(&items(store, database, rows)?, &limits))
}

/// Deletes the `unknown` files, after the rows `gone`.
fn delete(
    store: &LocalStore,
    mut database: Database,
    rows: &[Row],
    gone: &BTreeSet<i64>,
    unknown: &[PathBuf],
) -> Result<(), LocalStoreError> {
    let before = database.digest()?;
    let _lock = lock(store)?;
    if database.rows()? != rows {
        return Err(LocalStoreError::Busy(store.dir().to_owned()));
    }
    database.forget(gone)?;
    for path in unknown {
        modes::clear(path).map_err(|error| io_error(path, error))?;
    }
    let mut notes = Notes::read(store);
    let left: BTreeSet<&str> =
        rows.iter().filter(|row| !gone.contains(&row.id)).filter_map(|row| store.base(&row.path)).collect();
    notes.paths.retain(|base, _| left.contains(&base[..]));
    // What was registered since the last end is still to be noted.
    let rows = if notes.rows == Some(before) { Some(database.digest()?) } else { notes.rows };
    Notes::new(seconds(SystemTime::now()), rows, notes.paths).write(store)
}

/// Keeps collectors and builders from beginning meanwhile: they take the same lock. Each that is
/// at work holds the file of its temporary roots. Source: `gc.cc`.
fn lock(store: &LocalStore) -> Result<File, LocalStoreError> {
    let state = &store.location().state_dir;
    let lock = take(store, &state.join("gc.lock"), File::options().create(true).truncate(false).write(true))?;
    for entry in std::fs::read_dir(state.join("temproots")).into_iter().flatten().flatten() {
        take(store, &entry.path(), File::options().read(true))?;
    }
    Ok(lock)
}

fn take(store: &LocalStore, path: &Path, how: &OpenOptions) -> Result<File, LocalStoreError> {
    let file = how.open(path).map_err(|error| io_error(path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LocalStoreError::Busy(store.dir().to_owned())),
        Err(TryLockError::Error(error)) => Err(io_error(path, error)),
    }
}

/// The numbers of what stays: what roots name, and what the options name.
fn kept(
    store: &LocalStore,
    database: &Database,
    rows: &[Row],
    options: &Options,
) -> Result<BTreeSet<i64>, LocalStoreError> {
    let print = |path: &StorePath| store.location().print(path);
    let mut roots = used::roots(store);
    roots.extend(options.keep.iter().map(print));
    used::closure(database, rows, &roots)
}

fn items(store: &LocalStore, database: &Database, rows: &[Row]) -> Result<Vec<Item>, LocalStoreError> {
    let notes = Notes::read(store);
    let item = |row: &Row| Item {
        hash: row.id.to_string(),
        references: Vec::new(),
        deriver: None,
        used: store
            .base(&row.path)
            .and_then(|base| notes.paths.get(base))
            .map_or(0, |note| note.used)
            .max(row.registered),
        size: row.nar_size,
        nar: None,
    };
    let mut items: Vec<Item> = rows.iter().map(item).collect();
    let at: std::collections::HashMap<i64, usize> = rows.iter().enumerate().map(|(at, row)| (row.id, at)).collect();
    for (referrer, reference) in database.references()? {
        if let Some(at) = at.get(&referrer) {
            items[*at].references.push(reference.to_string());
        }
    }
    Ok(items)
}

/// What is in the store beside the paths of `rows`.
fn unknown<'a>(store: &LocalStore, rows: impl Iterator<Item = &'a Row>) -> Result<Vec<PathBuf>, LocalStoreError> {
    let known: BTreeSet<&str> = rows.filter_map(|row| store.base(&row.path)).collect();
    let folder = &store.location().real_dir;
    let entries = std::fs::read_dir(folder).map_err(|error| io_error(folder, error))?;
    let is_unknown = |entry: &std::fs::DirEntry| {
        let is_known = entry.file_name().to_str().is_some_and(|name| known.contains(name) || name == ".links");
        !is_known && !modes::is_aside(&entry.path())
    };
    Ok(entries.flatten().filter(is_unknown).map(|entry| entry.path()).collect())
}
