//! What is in a store between jobs, in numbers.

use super::database::Database;
use super::notes::Notes;
use super::{LocalStore, LocalStoreError};

/// A store in numbers. Sizes are in bytes, times in seconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// How many paths there are.
    pub paths: usize,
    /// How large their NARs are together.
    pub size: u64,
    /// When the oldest path was registered, of those that were built or fetched in a job.
    pub oldest: Option<u64>,
    /// When the newest one was.
    pub newest: Option<u64>,
    /// When the path was used that was not used for longest.
    pub least_recently_used: Option<u64>,
}

/// Reads `store`.
///
/// # Errors
/// When it can't be read.
pub fn info(store: &LocalStore) -> Result<Info, LocalStoreError> {
    let Some(database) = Database::open(store)? else {
        return Ok(Info::default());
    };
    let rows = database.rows()?;
    let notes = Notes::read(store);
    // An image's own were registered in 1970.
    let times = || rows.iter().filter(|row| row.registered > 1).map(|row| row.registered);
    let used = rows.iter().filter(|row| row.registered > 1).map(|row| {
        let note = store.base(&row.path).and_then(|base| notes.paths.get(base));
        note.map_or(0, |note| note.used).max(row.registered)
    });
    Ok(Info {
        paths: rows.len(),
        size: rows.iter().map(|row| row.nar_size).sum(),
        oldest: times().min(),
        newest: times().max(),
        least_recently_used: used.min(),
    })
}
