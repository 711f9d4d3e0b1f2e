//! The modes and times of a store path's files, between jobs and during one.
//!
//! Nix has all of a store path read-only, and every time 1. Archivers make a folder with the mode
//! that it has to have, and can't put a file into it then; or can't replace a file that is there.
//! So between jobs the owner may write. A NAR has neither modes nor times, so Nix finds all as it
//! should be in either state; but a builder that may write to its inputs does so now and then
//! (Python compiles what it imports), which is why that is over when a job begins.

use std::fs::{Metadata, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use sha2::{Digest as _, Sha256};
use walkdir::WalkDir;

use crate::digest::Digest;

/// What the owner may do with the files of a store path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// During a job: read.
    Sealed,
    /// Between jobs: write, so that archives can be unpacked.
    Open,
}

/// When all files of a store path were modified, in seconds since 1970.
const MTIME: i64 = 1;

/// Puts all files of the store path at `root` into `state`, and tells what they look like: a hash
/// of their names, kinds, sizes, executable bits and link targets, with none of them opened. A
/// path of which an archive has lost something looks otherwise.
///
/// # Errors
/// When they can't be read, or belong to somebody else.
pub fn set(root: &Path, state: State) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    // Folders are read as soon as they are met, which in either state their owner may.
    for entry in WalkDir::new(root).sort_by_file_name() {
        let entry = entry?;
        let data = entry.metadata()?;
        let path = entry.path();
        let below = path.strip_prefix(root).unwrap_or(path).as_os_str().as_bytes();
        add(&mut hasher, below);
        describe(&mut hasher, path, &data)?;
        set_mode(path, &data, state)?;
        set_time(path, &data, MTIME)?;
    }
    Ok(Digest::finish(hasher))
}

fn describe(hasher: &mut Sha256, path: &Path, data: &Metadata) -> io::Result<()> {
    if data.is_symlink() {
        add(hasher, b"link");
        add(hasher, std::fs::read_link(path)?.as_os_str().as_bytes());
    } else if data.is_dir() {
        add(hasher, b"folder");
    } else {
        add(hasher, if data.mode() & 0o100 != 0 { b"program" } else { b"file" });
        hasher.update(data.len().to_be_bytes());
    }
    Ok(())
}

fn set_mode(path: &Path, data: &Metadata, state: State) -> io::Result<()> {
    let executable = data.is_dir() || data.mode() & 0o100 != 0;
    let mode = match (executable, state) {
        (true, State::Sealed) => 0o555,
        (true, State::Open) => 0o755,
        (false, State::Sealed) => 0o444,
        (false, State::Open) => 0o644,
    };
    if data.is_symlink() || data.mode() & 0o7777 == mode {
        return Ok(());
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Sets when `path`, which may be a link, was modified, in seconds since 1970, where it is not so
/// already.
pub(super) fn set_time(path: &Path, data: &Metadata, seconds: i64) -> io::Result<()> {
    if (data.mtime(), data.mtime_nsec()) == (seconds, 0) {
        return Ok(());
    }
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Deletes a store path, or what is left of it, whatever its modes are.
///
/// # Errors
/// When it can't be deleted.
pub fn delete(path: &Path) -> io::Result<()> {
    let Ok(data) = path.symlink_metadata() else { return Ok(()) };
    if !data.is_dir() {
        return std::fs::remove_file(path);
    }
    for entry in WalkDir::new(path).into_iter() {
        let entry = entry?;
        if entry.file_type().is_dir() {
            set_mode(entry.path(), &entry.metadata()?, State::Open)?;
        }
    }
    std::fs::remove_dir_all(path)
}

/// What is out of the way, and can't be deleted, begins so.
pub const ASIDE: &str = ".stowage-aside-";

/// Deletes `path`, or where it is somebody else's, as what an archive has brought in part, gives
/// it another name.
///
/// # Errors
/// When neither can be done.
pub fn clear(path: &Path) -> io::Result<()> {
    match delete(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let folder = crate::fs::folder_of(path);
            let aside = (0..).map(|number| folder.join(format!("{ASIDE}{number}")));
            let mut free = aside.filter(|name| name.symlink_metadata().is_err());
            let aside = free.next().ok_or(error)?;
            tracing::warn!("{} is somebody else's; it is {} now", path.display(), aside.display());
            std::fs::rename(path, aside)
        }
        result => result,
    }
}

/// Whether the file at `path` is out of the way.
pub fn is_aside(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_bytes().starts_with(ASIDE.as_bytes()))
}

fn add(hasher: &mut Sha256, bytes: &[u8]) {
    hasher.update((bytes.len() as u64).to_be_bytes());
    hasher.update(bytes);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree(root: &Path) {
        std::fs::create_dir_all(root.join("bin")).expect("made");
        std::fs::write(root.join("bin/tool"), "#!/bin/sh").expect("written");
        std::fs::set_permissions(root.join("bin/tool"), Permissions::from_mode(0o555)).expect("set");
        std::fs::write(root.join("text"), "text").expect("written");
        symlink("bin/tool", root.join("link")).expect("linked");
        symlink("/etc", root.join("etc")).expect("linked");
    }

    #[test]
    fn a_path_is_sealed_and_opened_and_looks_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("path");
        tree(&root);
        let mode = |name: &str| root.join(name).metadata().expect(name).permissions().mode() & 0o7777;
        let etc = Path::new("/etc").metadata().expect("there").permissions();
        let sealed = set(&root, State::Sealed).expect("sealed");
        assert_eq!(["", "bin", "bin/tool", "text"].map(mode), [0o555, 0o555, 0o555, 0o444]);
        let open = set(&root, State::Open).expect("opened");
        assert_eq!(["", "bin", "bin/tool", "text"].map(mode), [0o755, 0o755, 0o755, 0o644]);
        assert_eq!(sealed, open);
        for name in ["", "bin", "bin/tool", "text", "link", "etc"] {
            assert_eq!(root.join(name).symlink_metadata().expect(name).mtime(), MTIME, "{name}");
        }
        assert_eq!(Path::new("/etc").metadata().expect("there").permissions(), etc);
    }

    #[test]
    fn whatever_is_lost_or_cut_off_shows() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("path");
        let changes: [fn(&Path); 5] = [
            |root| std::fs::remove_file(root.join("text")).expect("gone"),
            |root| std::fs::write(root.join("text"), "tex").expect("cut"),
            |root| std::fs::set_permissions(root.join("bin/tool"), Permissions::from_mode(0o644)).expect("set"),
            |root| std::fs::rename(root.join("link"), root.join("link2")).expect("renamed"),
            |root| {
                std::fs::remove_file(root.join("link")).expect("gone");
                symlink("bin/tools", root.join("link")).expect("linked");
            },
        ];
        for change in changes {
            delete(&root).expect("gone");
            tree(&root);
            let before = set(&root, State::Open).expect("opened");
            change(&root);
            assert_ne!(set(&root, State::Sealed).expect("sealed"), before);
        }
    }

    #[test]
    fn what_is_read_only_can_be_deleted() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("path");
        tree(&root);
        set(&root, State::Sealed).expect("sealed");
        delete(&root).expect("gone");
        delete(&root).expect("nothing to do");
        assert!(!root.exists());
    }
}
