//! Files that appear whole or not at all.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

/// The beginning of the names of files that are not complete.
pub const PARTIAL: &str = ".stowage-partial-";

/// A new file in `folder` that vanishes unless it is given its name; readable
/// by all, whatever the umask.
///
/// # Errors
/// When it can't be made.
pub fn partial_file(folder: &Path) -> std::io::Result<NamedTempFile> {
    let file = Builder::new().prefix(PARTIAL).tempfile_in(folder)?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    Ok(file)
}

/// Writes `bytes` to `path`, by rename once they are complete.
///
/// # Errors
/// When they can't be written; then `path` is what it was.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = partial_file(folder_of(path))?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The folder that `path` is in.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
