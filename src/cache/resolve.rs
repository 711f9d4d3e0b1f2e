//! Finds a folder for root, who must not be led astray on the way.
//!
//! A path that root was given may go through a folder of an ordinary user, who
//! can put a symbolic link in it to any folder of root's. So the path is walked
//! one component at a time, and a link is followed only if it is root's own and
//! root put it there. Who made a link does not tell who put it there: a user may
//! give another name to a link of root's in his folder, such as the `result` that
//! root's `nix-build` has left. So in and below a folder where others may rename,
//! no link is followed.
//!
//! Folders need no such rule: nobody can move a folder of root's out of the
//! folder that it is in without the right to write in it.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::beneath::{FolderError, error};
use crate::fs::MAX_LINKS;

/// The bits that let others than the owner write.
pub const OTHERS_WRITE: u32 = 0o022;

/// The bit that keeps them from renaming what is not theirs.
const STICKY: u32 = 0o1000;

/// A descriptor that says where `path` is, and can't be read or written.
///
/// # Errors
/// When nothing is there, or a link that others than root may have put there is on
/// the way.
pub fn without_foreign_links(path: &Path) -> Result<OwnedFd, FolderError> {
    let failed = |errno| error(path, errno);
    let mut place = open(CWD, OsStr::new(".")).map_err(failed)?;
    let mut pending = Vec::new();
    push(&mut pending, path);
    let mut links = 0;
    // Whether only root decides what is at this place.
    let mut trusted = true;
    while let Some(name) = pending.pop() {
        let next = open(&place, &name).map_err(failed)?;
        let stat = rustix::fs::fstat(&next).map_err(failed)?;
        // The file system's root is where it is.
        trusted = is_root_dir(&name) || trusted && is_put_by_root(&stat, &rustix::fs::fstat(&place).map_err(failed)?);
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            place = next;
            continue;
        }
        links += 1;
        if !trusted || stat.st_uid != 0 {
            return Err(FolderError::ForeignLink(path.to_owned()));
        }
        if links > MAX_LINKS {
            return Err(failed(Errno::LOOP));
        }
        let target = rustix::fs::readlinkat(&next, "", Vec::new()).map_err(failed)?;
        push(&mut pending, &PathBuf::from(OsString::from_vec(target.into_bytes())));
    }
    Ok(place)
}

fn is_root_dir(name: &OsStr) -> bool {
    name == Component::RootDir.as_os_str()
}

/// Whether nobody but root can have given `entry` its name in `folder`. In a
/// folder such as `/tmp`, where each may rename only what is his, another's hard
/// link can still give a name to a link of root's, unless the system forbids it.
fn is_put_by_root(entry: &Stat, folder: &Stat) -> bool {
    let alone = folder.st_mode & OTHERS_WRITE == 0;
    let sticky = folder.st_mode & STICKY != 0 && entry.st_uid == 0;
    let is_folder = FileType::from_raw_mode(entry.st_mode) == FileType::Directory;
    let links_alone = is_folder || entry.st_nlink == 1;
    folder.st_uid == 0 && (alone || sticky && links_alone)
}

fn open(from: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(from, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Puts the components of `path` on the stack of what is still to be walked.
fn push(pending: &mut Vec<OsString>, path: &Path) {
    let walked = path.components().filter(|component| *component != Component::CurDir);
    pending.extend(walked.rev().map(|component| component.as_os_str().to_owned()));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};

    use super::*;

    fn inode(fd: OwnedFd) -> u64 {
        rustix::fs::fstat(fd).expect("open").st_ino
    }

    #[test]
    fn the_folder_found_is_the_one_that_the_kernel_finds() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("a/b")).expect("made");
        symlink("a", folder.path().join("relative")).expect("linked");
        symlink(folder.path().join("relative/../relative"), folder.path().join("absolute")).expect("linked");
        for path in ["a/b", "relative/b", "absolute/b", "./a//b/../b/", "absolute/../a/b"] {
            let path = folder.path().join(path);
            // Only root's own links are followed, and only root is here to make them.
            if rustix::process::geteuid().is_root() {
                let found = inode(without_foreign_links(&path).expect("found"));
                assert_eq!(found, path.metadata().expect("there").ino(), "{}", path.display());
            }
        }
    }

    #[test]
    fn links_that_somebody_else_may_have_put_there_are_refused() {
        if !rustix::process::geteuid().is_root() {
            return; // Only root can give folders away.
        }
        let folder = tempfile::tempdir().expect("a folder");
        let (target, home) = (folder.path().join("target"), folder.path().join("home"));
        for path in [&target, &home, &home.join("of-root")] {
            std::fs::create_dir(path).expect("made");
        }
        for path in ["link", "of-root/link"] {
            symlink(&target, home.join(path)).expect("linked");
        }
        let refused = |path: &Path| match without_foreign_links(path) {
            Err(FolderError::ForeignLink(_)) => true,
            found => inode(found.expect("found")) != target.metadata().expect("there").ino(),
        };
        let links = [home.join("link"), home.join("of-root/link")];
        assert!(links.iter().all(|link| !refused(link)));
        // Whoever may rename what is in it, and that is below it, too.
        for (owner, mode, expected) in
            [(1000, 0o755, true), (0, 0o777, true), (0, 0o775, true), (0, 0o1777, false), (1000, 0o1777, true)]
        {
            std::fs::set_permissions(&home, std::fs::Permissions::from_mode(mode)).expect("set");
            std::os::unix::fs::chown(&home, Some(owner), None).expect("given away");
            assert!(links.iter().all(|link| refused(link) == expected), "{owner} {mode:o}");
        }
        // What a link leads to is judged by itself.
        std::os::unix::fs::chown(&target, Some(1000), None).expect("given away");
        std::os::unix::fs::chown(&home, Some(0), None).expect("given back");
        assert!(!refused(&links[0]));
        // A hard link to a link of root's, where the system lets others make one.
        std::fs::hard_link(&links[0], home.join("hard")).expect("linked");
        assert!(refused(&home.join("hard")));
    }

    #[test]
    fn links_of_other_users_and_circles_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let link = folder.path().join("link");
        symlink("/etc", &link).expect("linked");
        if rustix::process::geteuid().is_root() {
            lchown(&link, Some(1000), Some(1000)).expect("given away");
        }
        let refused = without_foreign_links(&link.join("cache"));
        assert!(rustix::process::geteuid().as_raw() == 1000 || matches!(refused, Err(FolderError::ForeignLink(_))));
        symlink("circle", folder.path().join("circle")).expect("linked");
        assert!(without_foreign_links(&folder.path().join("circle")).is_err());
    }
}
