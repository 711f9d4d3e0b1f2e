//! Registrations for all store paths of a parent: exactly one for each.
//!
//! dockerTools writes a new database into each image, which hides the parent's.
//! So what the visible one does not know is looked for in those that it hides,
//! then in this machine's store, and in the end in the files themselves.

use std::collections::{BTreeMap, BTreeSet};

use super::ParentError;
use super::blob::Spool;
use super::database::{self, DatabaseFiles};
use super::error::LayerProblem;
use super::layers::{Database, Merged};
use super::look::{self, LookError};
use super::unregistered::{Image, some};
use crate::store::{PathInfo, StorePath};

/// Finds the registration of each store path of `image`.
///
/// # Errors
/// When the visible database can't be read, or a path that nothing is known of.
pub fn find(
    image: &Image<'_>,
    merged: &Merged,
    host: &dyn Fn(&[StorePath]) -> Vec<PathInfo>,
    spool: &mut Spool,
) -> Result<Vec<PathInfo>, ParentError> {
    let mut known = BTreeMap::new();
    let visible = merged.visible_database();
    for database in merged.databases.iter().rev() {
        if known.len() == image.paths.len() && visible != Some(*database) {
            break;
        }
        match read(image, *database, spool) {
            Ok(rows) if visible == Some(*database) => take_visible(image, rows, &mut known),
            Ok(rows) => take_hidden(rows, &mut known),
            Err((layer, problem)) if visible == Some(*database) => return Err(image.error(layer, problem)),
            Err((layer, problem)) => {
                tracing::warn!("layer {} of {}, which other layers hide, {problem}", layer + 1, image.name);
            }
        }
    }
    take_from_host(image, host, &mut known);
    let unknown = unknown(image.paths, &known);
    if !unknown.is_empty() {
        tracing::warn!(
            "{} has store paths that neither its databases nor this machine's store know; they are registered as they are now: {}",
            image.name,
            some(&unknown.iter().collect::<Vec<_>>())
        );
    }
    known.extend(image.register(&unknown)?.into_iter().map(|info| (info.path.clone(), info)));
    Ok(known.into_values().collect())
}

/// Reads a database of the image.
fn read(image: &Image<'_>, from: Database, spool: &mut Spool) -> Result<database::Rows, LookError> {
    let mut contents = |layer, path| look::contents(image.layers, layer, path, spool);
    let missing = || (from.database, LayerProblem::Database("it is no file".to_owned()));
    let database = contents(from.database, super::scan::DATABASE)?.ok_or_else(missing)?;
    let wal = from.wal.map(|layer| contents(layer, super::scan::WAL)).transpose()?.flatten();
    let schema = from.schema.map(|layer| contents(layer, super::scan::SCHEMA)).transpose()?.flatten();
    let files = DatabaseFiles { database, wal, schema };
    database::read(&files, image.store_dir, |path| image.paths.contains(path))
        .map_err(|problem| (from.database, problem))
}

/// Takes what the database says that a container sees.
fn take_visible(image: &Image<'_>, rows: database::Rows, known: &mut BTreeMap<StorePath, PathInfo>) {
    if let Some(first) = rows.first_other {
        tracing::warn!(
            "the database of {} knows {} paths that are not in the image, which are left out: {first}…",
            image.name,
            rows.others
        );
    }
    for (path, row) in rows.known {
        if row.missing > 0 {
            tracing::warn!(
                "in {}, {} refers to {} paths that are not in the image; these references are left out",
                image.name,
                path.to_basename(),
                row.missing
            );
        }
        known.insert(path, row.info);
    }
}

/// Takes what a hidden database says of paths that are not known yet, unless they
/// refer to what the image does not have: then other files are meant.
fn take_hidden(rows: database::Rows, known: &mut BTreeMap<StorePath, PathInfo>) {
    for (path, row) in rows.known.into_iter().filter(|(_, row)| row.missing == 0) {
        known.entry(path).or_insert(row.info);
    }
}

fn take_from_host(
    image: &Image<'_>,
    host: &dyn Fn(&[StorePath]) -> Vec<PathInfo>,
    known: &mut BTreeMap<StorePath, PathInfo>,
) {
    let unknown = unknown(image.paths, known);
    if unknown.is_empty() {
        return;
    }
    for info in host(&unknown) {
        let is_closed = info.references.iter().all(|reference| image.paths.contains(reference));
        if is_closed && image.paths.contains(&info.path) {
            known.entry(info.path.clone()).or_insert(info);
        }
    }
}

fn unknown(paths: &BTreeSet<StorePath>, known: &BTreeMap<StorePath, PathInfo>) -> Vec<StorePath> {
    paths.iter().filter(|path| !known.contains_key(path)).cloned().collect()
}
