//! What a job's results needed.
//!
//! Nix notes nowhere that something was there already. But what it has built for somebody is a GC
//! root, such as `./result`. So what the roots of a job's end refer to was used, and so were the
//! derivations that made it, all that they refer to, and all of their outputs that are there.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::database::{Database, Row};
use super::{LocalStore, LocalStoreError, modes};

/// The folder, among Nix's roots, of those that an image has brought.
pub const OF_IMAGE: &str = "stowage";

/// The store paths that roots of `store` name, in full; those of an image only if `with_image`.
pub fn roots(store: &LocalStore, with_image: bool) -> BTreeSet<String> {
    let state = &store.location().state_dir;
    let is_wanted = |path: &Path| with_image || !path.starts_with(state.join("gcroots").join(OF_IMAGE));
    let links = ["gcroots", "profiles"].into_iter().flat_map(|folder| modes::walk(&state.join(folder)));
    let links = links.filter_map(Result::ok).filter(|entry| entry.path_is_symlink() && is_wanted(entry.path()));
    links.filter_map(|link| named_by(store, link.path())).collect()
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
    let base = PathBuf::from(below.components().next()?.as_os_str());
    Some(format!("{}/{}", store.location().store_dir, base.to_str()?))
}

/// The numbers of what was needed for `roots`, themselves among them; with what they were made
/// from if `with_builds`.
///
/// # Errors
/// When the database can't be read.
pub fn needed(
    database: &Database,
    rows: &[Row],
    roots: &BTreeSet<String>,
    with_builds: bool,
) -> Result<BTreeSet<i64>, LocalStoreError> {
    let ids: HashMap<&str, i64> = rows.iter().map(|row| (&row.path[..], row.id)).collect();
    let mut next: HashMap<i64, Vec<i64>> = HashMap::new();
    let mut edges = database.references()?;
    if with_builds {
        edges.extend(database.outputs()?);
        let deriver = |row: &Row| Some((row.id, *ids.get(row.deriver.as_deref()?)?));
        edges.extend(rows.iter().filter_map(deriver));
    }
    for (from, to) in edges {
        next.entry(from).or_default().push(to);
    }
    let mut pending: Vec<i64> = roots.iter().filter_map(|root| ids.get(&root[..]).copied()).collect();
    let mut found = BTreeSet::new();
    while let Some(id) = pending.pop() {
        if found.insert(id) {
            pending.extend(next.get(&id).into_iter().flatten());
        }
    }
    Ok(found)
}
