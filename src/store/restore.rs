//! How a store path that is gone comes back.

use super::db::StoreDb;
use super::{StoreLocation, StorePath};
use crate::tree::{StoreFiles, TreeError};

/// Finds out whether `path` is there, without opening it.
///
/// # Errors
/// When it is not; the error names the command that restores it. An image may name paths
/// that this store has forgotten, or never had.
pub fn check(files: &StoreFiles, location: &StoreLocation, path: &StorePath) -> Result<(), TreeError> {
    files.check(path).map_err(|error| match error {
        TreeError::Gone(at) => match command(location, path) {
            Some(command) => TreeError::Collected { path: at, command },
            None => TreeError::Gone(at),
        },
        other => other,
    })
}

/// The command that brings a path back that the database does not know: what its derivation
/// is, that may.
fn command(location: &StoreLocation, path: &StorePath) -> Option<String> {
    let realise = |path: &StorePath| format!("nix-store --realise {}", location.print(path));
    let Ok(database) = StoreDb::open(location) else {
        return Some(realise(path));
    };
    if database.valid(std::slice::from_ref(path)).is_ok_and(|valid| !valid.is_empty()) {
        return None;
    }
    let derivers = database.derivations(path).unwrap_or_default();
    Some(realise(derivers.first().unwrap_or(path)))
}
