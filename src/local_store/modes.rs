//! The modes and times of a store path's files, between jobs and during one.
//!
//! Nix has all of a store path read-only, and every time 1. Archivers make a folder with the mode
//! that it has to have, and can't put a file into it then; or can't replace a file that is there.
//! So between jobs the owner may write. A NAR has neither modes nor times, so Nix finds all as it
//! should be in either state; but a builder that may write to its inputs does so now and then
//! (Python compiles what it imports), which is why that is over when a job begins.

use std::fs::{Metadata, Permissions};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use sha2::{Digest as _, Sha256};
use walkdir::WalkDir;

use crate::digest::Digest;
use crate::nar;
use crate::tree::{Entry, Node};

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

/// What a store path looks like, none of whose files was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looks {
    /// A hash of the files' names, kinds, sizes, executable bits and link targets. A path of which
    /// an archive has lost something looks otherwise.
    pub digest: Digest,
    /// The size of its NAR, in bytes.
    pub nar_size: u64,
}

/// Puts all files of the store path at `root` into `state`, if one is given, and tells what they
/// look like.
///
/// # Errors
/// When they can't be read, or belong to somebody else.
pub fn set(root: &Path, state: Option<State>) -> io::Result<Looks> {
    let user = rustix::process::geteuid().as_raw();
    let mut hasher = Sha256::new();
    let mut entries = Vec::new();
    for entry in walk(root).sort_by_file_name() {
        let entry = entry?;
        let data = entry.metadata()?;
        let path = entry.path();
        if data.uid() != user {
            let text = format!("{} is user {}'s", path.display(), data.uid());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let below = path.strip_prefix(root).unwrap_or(path).as_os_str().as_bytes();
        let node = node(path, &data)?;
        add(&mut hasher, below);
        describe(&mut hasher, &node);
        let path_of_entry = if below.is_empty() { b"path".to_vec() } else { [b"path/", below].concat() };
        entries.push(Entry { path: path_of_entry, node });
        if let Some(state) = state {
            set_mode(path, &data, state)?;
            set_time(path, &data, MTIME)?;
        }
    }
    Ok(Looks { digest: Digest::finish(hasher), nar_size: nar::size(&entries) })
}

/// All that is at `root` and below; where that is a link, only the link.
pub(super) fn walk(root: &Path) -> WalkDir {
    WalkDir::new(root).follow_root_links(false)
}

fn node(path: &Path, data: &Metadata) -> io::Result<Node> {
    if data.is_symlink() {
        return Ok(Node::Symlink { target: std::fs::read_link(path)?.into_os_string().into_vec() });
    }
    if data.is_dir() {
        return Ok(Node::Directory);
    }
    Ok(Node::Regular { executable: data.mode() & 0o100 != 0, size: data.len() })
}

fn describe(hasher: &mut Sha256, node: &Node) {
    match node {
        Node::Symlink { target } => {
            add(hasher, b"link");
            add(hasher, target);
        }
        Node::Directory => add(hasher, b"folder"),
        Node::Regular { executable, size } => {
            add(hasher, if *executable { b"program" } else { b"file" });
            hasher.update(size.to_be_bytes());
        }
    }
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
    for entry in walk(path) {
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
            for aside in (0..1000).map(|number| folder.join(format!("{ASIDE}{number}"))) {
                if aside.symlink_metadata().is_ok() {
                    continue;
                }
                match std::fs::rename(path, &aside) {
                    // Another thread was quicker.
                    Err(error)
                        if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory) => {}
                    Err(error) => return Err(error),
                    Ok(()) => {
                        tracing::warn!("{} was somebody else's; it is {} now", path.display(), aside.display());
                        return Ok(());
                    }
                }
            }
            Err(error)
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
        let sealed = set(&root, Some(State::Sealed)).expect("sealed");
        assert_eq!(["", "bin", "bin/tool", "text"].map(mode), [0o555, 0o555, 0o555, 0o444]);
        let open = set(&root, Some(State::Open)).expect("opened");
        assert_eq!(["", "bin", "bin/tool", "text"].map(mode), [0o755, 0o755, 0o755, 0o644]);
        assert_eq!(sealed, open);
        assert_eq!(set(&root, None).expect("looked at"), open);
        let files = crate::tree::StoreFiles::open(folder.path()).expect("a folder");
        let mut entries = vec![files.entry(b"path").expect("there")];
        let mut at = 0;
        while at < entries.len() {
            let children = match entries[at].node {
                Node::Directory => files.children(&entries[at].path).expect("readable").unwrap_or_default(),
                _ => Vec::new(),
            };
            at += 1;
            entries.splice(at..at, children);
        }
        assert_eq!(open.nar_size, nar::measure(&files, &entries).expect("a NAR").size);
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
            let before = set(&root, Some(State::Open)).expect("opened");
            change(&root);
            assert_ne!(set(&root, Some(State::Sealed)).expect("sealed"), before);
        }
    }

    #[test]
    fn a_path_that_is_a_link_is_not_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let outside = folder.path().join("outside");
        std::fs::create_dir(&outside).expect("made");
        std::fs::write(outside.join("file"), "").expect("written");
        std::fs::set_permissions(outside.join("file"), Permissions::from_mode(0o600)).expect("set");
        for target in ["outside", "nothing"] {
            let root = folder.path().join(format!("to-{target}"));
            symlink(target, &root).expect("linked");
            let looks = set(&root, Some(State::Sealed)).expect("looked at");
            assert_eq!(looks, set(&root, Some(State::Open)).expect("looked at"));
            let mode = outside.join("file").metadata().expect("there").permissions().mode();
            assert_eq!(mode & 0o7777, 0o600);
            delete(&root).expect("gone");
        }
        assert!(outside.join("file").exists());
    }

    #[test]
    fn what_is_read_only_can_be_deleted() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("path");
        tree(&root);
        set(&root, Some(State::Sealed)).expect("sealed");
        delete(&root).expect("gone");
        delete(&root).expect("nothing to do");
        assert!(!root.exists());
    }
}
