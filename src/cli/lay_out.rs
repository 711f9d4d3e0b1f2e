//! `stowage lay-out`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Write as _;
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
    std::fs::create_dir_all(&arguments.to).map_err(DestinationError::write(&arguments.to))?;
    for (path, placed) in &layout.placed {
        let at = arguments.to.join(OsStr::from_bytes(path));
        make_folders(&arguments.to, crate::fs::folder_of(&at))?;
        match placed {
            Placed::Copy { from, executable } => {
                let bytes = files.read_whole(from)?;
                write(&at, &bytes, *executable).map_err(DestinationError::write(&at))?;
            }
            Placed::Directory => make_folders(&arguments.to, &at)?,
            Placed::Link(target) => symlink(OsStr::from_bytes(target), &at).map_err(DestinationError::write(&at))?,
        }
    }
    Ok(())
}

/// Makes `folder` in `root`, and those around it; a link is none, since it may lead elsewhere.
fn make_folders(root: &Path, folder: &Path) -> Result<(), DestinationError> {
    let around: Vec<&Path> = folder.ancestors().take_while(|path| *path != root).collect();
    for path in around.into_iter().rev() {
        let made = match path.symlink_metadata() {
            Ok(data) if data.is_dir() => Ok(()),
            Ok(_) => Err(std::io::ErrorKind::AlreadyExists.into()),
            Err(_) => std::fs::create_dir(path),
        };
        made.map_err(DestinationError::write(path))?;
    }
    Ok(())
}

/// Writes a new file: what is there may be a link to another's.
fn write(path: &Path, bytes: &[u8], executable: bool) -> std::io::Result<()> {
    let mut file = std::fs::File::create_new(path)?;
    file.write_all(bytes)?;
    file.set_permissions(std::fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 }))
}
