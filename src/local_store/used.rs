//! What a job's results needed.
//!
//! Nix notes nowhere that something was there already. But what it has built for somebody is a GC
//! root, such as `./result`. So what the roots of a job's end refer to was used, and so were the
//! derivations that made it, all that they refer to, and all of their outputs that are there.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use super::database::{Database, Row};
use super::{LocalStore, LocalStoreError, modes};

/// The store paths that roots of `store` name, in full.
pub fn roots(store: &LocalStore) -> BTreeSet<String> {
    let folders = ["gcroots", "profiles"].map(|folder| store.location().state_dir.join(folder));
    let links = folders.iter().flat_map(|folder| modes::walk(folder)).filter_map(Result::ok);
    links.filter(|link| link.path_is_symlink()).filter_map(|link| named_by(store, link.path())).collect()
}

/// The store path that a root leads to, by way of a link elsewhere where there is one.
fn named_by(store: &LocalStore, link: &Path) -> Option<String> {
    let mut link = link.to_owned();
    for _ in 0..crate::fs::MAX_LINKS {
        let target = std::fs::read_link(&link).ok()?;
        if let Some(path) = store_path(store, &target) {
            return Some(path);
        }
        link = crate::fs::folder_of(&link).join(target);
    }
    None
}

fn store_path(store: &LocalStore, target: &Path) -> Option<String> {
    let below = target.strip_prefix(store.location().store_dir.as_str()).ok()?;
    let base = below.components().next()?.as_os_str().to_str()?;
    Some(format!("{}/{base}", store.location().store_dir))
}

/// The numbers of `roots`, and of all that they refer to.
///
/// # Errors
/// When the database can't be read.
pub fn closure(database: &Database, rows: &[Row], roots: &BTreeSet<String>) -> Result<BTreeSet<i64>, LocalStoreError> {
    Ok(reached(rows, roots, database.references()?))
}

/// Likewise, and of all that they were made from.
///
/// # Errors
/// When the database can't be read.
pub fn needed(database: &Database, rows: &[Row], roots: &BTreeSet<String>) -> Result<BTreeSet<i64>, LocalStoreError> {
    let ids = ids(rows);
    let deriver = |row: &Row| Some((row.id, *ids.get(row.deriver.as_deref()?)?));
    let mut edges = database.references()?;
    edges.extend(database.outputs()?);
    edges.extend(rows.iter().filter_map(deriver));
    Ok(reached(rows, roots, edges))
}

fn ids(rows: &[Row]) -> HashMap<&str, i64> {
    rows.iter().map(|row| (&row.path[..], row.id)).collect()
}

/// The numbers of `roots`, and of whatever `edges` lead to from there.
fn reached(rows: &[Row], roots: &BTreeSet<String>, edges: Vec<(i64, i64)>) -> BTreeSet<i64> {
    let mut next: HashMap<i64, Vec<i64>> = HashMap::new();
    for (from, to) in edges {
        next.entry(from).or_default().push(to);
    }
    let ids = ids(rows);
    let mut pending: Vec<i64> = roots.iter().filter_map(|root| ids.get(&root[..]).copied()).collect();
    let mut found = BTreeSet::new();
    while let Some(id) = pending.pop() {
        if found.insert(id) {
            pending.extend(next.get(&id).into_iter().flatten());
        }
    }
    found
}
