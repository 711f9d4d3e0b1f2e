//! The store paths of an image in which `/nix` is a link to a cache.
//!
//! Such an image has its store, database and roots included, at [`SHIPPED`], since where the link
//! leads there may be nothing yet, or what an archive has brought. So before anything else runs
//! in a container, its entrypoint, `stowage enter`, puts there what is not there yet. That is all
//! of the image in a first job, and from then on what is new in the image.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::database::{Database, Row};
use super::modes::{self, State};
use super::{LocalStore, LocalStoreError, io_error};
use crate::parallel::parallel;

/// Where an image has the store that it brings, in place of `/`.
pub const SHIPPED: &str = "/stowage";

/// The folder, among Nix's roots, of those that an image brings.
const OF_IMAGE: &str = "stowage";

/// The beginning of the names of paths that are not copied yet.
const PARTIAL: &str = ".stowage-partial-";

/// How long the hash part of a base name is.
const HASH: usize = 32;

/// Puts all that `image` has into `store`, on `jobs` threads; tells how many paths were new.
///
/// # Errors
/// When the image can't be read, or the store not be written.
pub fn seed(store: &LocalStore, image: &LocalStore, jobs: usize) -> Result<usize, LocalStoreError> {
    let shipped = Database::open_unchanging(image)?;
    let known: BTreeSet<String> = match Database::open(store)? {
        Some(database) => database.rows()?.into_iter().map(|row| row.path).collect(),
        None => BTreeSet::new(),
    };
    let rows = shipped.rows()?;
    let missing: Vec<&Row> = rows.iter().filter(|row| !known.contains(&row.path)).collect();
    let copied = parallel(&missing, jobs, |row| match image.base(&row.path) {
        Some(base) => copy_path(&image.path(base), &store.path(base)),
        None => Ok(()),
    });
    copied.into_iter().collect::<Result<Vec<()>, _>>()?;
    if known.is_empty() {
        copy_state(store, image)?;
    }
    if !missing.is_empty()
        && let Some(mut database) = Database::open(store)?
    {
        database.adopt(&image.location().database())?;
    }
    take_roots(store, image)?;
    Ok(missing.len())
}

/// Copies a store path. It has its name only once it is complete.
fn copy_path(from: &Path, to: &Path) -> Result<(), LocalStoreError> {
    // The hash part: with the name, it might be too long.
    let name: String = to.file_name().unwrap_or_default().to_string_lossy().chars().take(HASH).collect();
    let partial = crate::fs::folder_of(to).join(format!("{PARTIAL}{name}"));
    let copy = || -> io::Result<()> {
        modes::delete(&partial)?;
        for entry in modes::walk(from) {
            let entry = entry?;
            let below = entry.path().strip_prefix(from).map_err(io::Error::other)?;
            let target = if below.as_os_str().is_empty() { partial.clone() } else { partial.join(below) };
            if entry.file_type().is_dir() {
                std::fs::create_dir(&target)?;
            } else if entry.file_type().is_symlink() {
                symlink(std::fs::read_link(entry.path())?, &target)?;
            } else {
                std::fs::copy(entry.path(), &target)?;
            }
        }
        modes::set(&partial, Some(State::Sealed))?;
        modes::clear(to)?;
        std::fs::rename(&partial, to)
    };
    copy().map_err(|error| io_error(to, error))
}

/// Copies Nix's state as the image has it, where there is none yet: the database last, since with
/// that it counts as there.
fn copy_state(store: &LocalStore, image: &LocalStore) -> Result<(), LocalStoreError> {
    let (from, to) = (&image.location().state_dir, &store.location().state_dir);
    let database = image.location().database();
    let mut entries = Vec::new();
    for entry in modes::walk(from) {
        entries.push(entry.map_err(|error| io_error(from, error.into()))?);
    }
    entries.sort_by_key(|entry| entry.path() == database);
    for entry in entries {
        let target = to.join(entry.path().strip_prefix(from).unwrap_or(entry.path()));
        let copy = || -> io::Result<()> {
            if entry.file_type().is_dir() {
                std::fs::create_dir_all(&target)
            } else if entry.file_type().is_symlink() {
                replace_link(&target, &std::fs::read_link(entry.path())?)
            } else {
                let bytes = std::fs::read(entry.path())?;
                crate::fs::write_atomically(&target, &bytes)?;
                std::fs::set_permissions(&target, Permissions::from_mode(0o644))
            }
        };
        copy().map_err(|error| io_error(&target, error))?;
    }
    Ok(())
}

/// Has the roots of this image, and none of another, so that what only that had can go.
fn take_roots(store: &LocalStore, image: &LocalStore) -> Result<(), LocalStoreError> {
    let folder = |of: &LocalStore| of.location().state_dir.join("gcroots").join(OF_IMAGE);
    let (from, to) = (folder(image), folder(store));
    // By their paths below the folder: some are in folders that say why they are there.
    let links = |folder: &Path| -> BTreeSet<PathBuf> {
        let entries = WalkDir::new(folder).into_iter().flatten().filter(|entry| entry.path_is_symlink());
        entries.filter_map(|entry| Some(entry.path().strip_prefix(folder).ok()?.to_owned())).collect()
    };
    let take = || -> io::Result<()> {
        std::fs::create_dir_all(&to)?;
        let wanted = links(&from);
        for link in &wanted {
            let place = to.join(link);
            std::fs::create_dir_all(crate::fs::folder_of(&place))?;
            replace_link(&place, &std::fs::read_link(from.join(link))?)?;
        }
        links(&to).difference(&wanted).try_for_each(|link| std::fs::remove_file(to.join(link)))
    };
    take().map_err(|error| io_error(&to, error))
}

fn replace_link(link: &Path, target: &Path) -> io::Result<()> {
    if std::fs::read_link(link).is_ok_and(|old| old.as_os_str().as_bytes() == target.as_os_str().as_bytes()) {
        return Ok(());
    }
    modes::delete(link)?;
    symlink(target, link)
}
