//! `stowage lay-out`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::args::LayOutArguments;
use super::paths;
use super::settings::Settings;
use crate::destination::DestinationError;
use crate::image::contents::{Layout, Placed, Wanted};
use crate::image::ground::Ground;
use crate::store::StorePath;
use crate::tree::StoreFiles;

/// Lays contents out in a folder, in which all folders can be written.
///
/// # Errors
/// When they conflict, or the folder can't be written.
pub fn run(settings: &Settings, arguments: &LayOutArguments) -> anyhow::Result<()> {
    let location = settings.location(arguments.store.root.as_deref());
    let resolve = |paths: &[PathBuf]| -> Result<Vec<StorePath>, _> {
        paths.iter().map(|path| paths::resolve_whole(&location, path)).collect()
    };
    let (contents, mutable) = (resolve(&arguments.paths)?, resolve(&arguments.mutable)?);
    let others = mutable.iter().filter(|path| !contents.contains(path)).cloned();
    let contents: Vec<StorePath> = contents.iter().cloned().chain(others).collect();
    let files = StoreFiles::open(&location.real_dir)?;
    let wanted = Wanted { contents: &contents, mutable: &mutable, folders: BTreeSet::new(), only_folders: true };
    let layout = Layout::new(&files, &location.store_dir, &wanted, Ground::default())?;
    for (path, placed) in &layout.placed {
        let at = arguments.to.join(OsStr::from_bytes(path));
        let folder = crate::fs::folder_of(&at);
        std::fs::create_dir_all(folder).map_err(DestinationError::write(folder))?;
        match placed {
            Placed::Copy { from, executable } => {
                let bytes = files.read_whole(from)?;
                write(&at, &bytes, *executable).map_err(DestinationError::write(&at))?;
            }
            Placed::Directory => std::fs::create_dir_all(&at).map_err(DestinationError::write(&at))?,
            Placed::Link(target) => symlink(OsStr::from_bytes(target), &at).map_err(DestinationError::write(&at))?,
        }
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8], executable: bool) -> std::io::Result<()> {
    std::fs::write(path, bytes)?;
    let mode = if executable { 0o755 } else { 0o644 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}
