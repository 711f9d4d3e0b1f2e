//! Files that appear whole or not at all.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use tempfile::{Builder, NamedTempFile};

/// The beginning of the names of files that are not complete.
pub const PARTIAL: &str = ".stowage-partial-";

/// From what age on a partial file is nobody's.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

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

/// Deletes what killed runs have left in `folder`: partial files that nobody has
/// written to for a day. What can't be deleted stays.
pub fn sweep(folder: &Path) {
    let is_old = |entry: &std::fs::DirEntry| {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > ABANDONED))
    };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(PARTIAL.as_bytes()) && is_old(&entry) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
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

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn only_old_partial_files_are_swept_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let old = SystemTime::now() - 2 * ABANDONED;
        for (name, modified) in [("old", old), ("new", SystemTime::now())] {
            for prefix in [PARTIAL, "other-"] {
                let file = std::fs::File::create(folder.path().join(format!("{prefix}{name}"))).expect("writable");
                file.set_modified(modified).expect("writable");
            }
        }
        sweep(folder.path());
        let names = std::fs::read_dir(folder.path()).expect("readable").flatten().map(|entry| entry.file_name());
        let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        assert_eq!(names, [format!("{PARTIAL}new"), "other-new".to_owned(), "other-old".to_owned()]);
    }
}
