//! Finds a folder for root, who must not be led astray on the way.
//!
//! A path that root was given may go through a folder of an ordinary user, who
//! can put a symbolic link in it to any folder of root's. So the path is walked
//! one component at a time, and a link is followed only if it is root's own.
//! Folders need no such rule: nobody can move a folder of root's to another
//! place without the right to write in it.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::beneath::{FolderError, error};
use crate::fs::MAX_LINKS;

/// A descriptor that says where `path` is, and can't be read or written.
///
/// # Errors
/// When nothing is there, or a link of another user than root is on the way.
pub fn without_foreign_links(path: &Path) -> Result<OwnedFd, FolderError> {
    let failed = |errno| error(path, errno);
    let mut place = open(CWD, OsStr::new(".")).map_err(failed)?;
    let mut pending = Vec::new();
    push(&mut pending, path);
    let mut links = 0;
    while let Some(name) = pending.pop() {
        let next = open(&place, &name).map_err(failed)?;
        let stat = rustix::fs::fstat(&next).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            place = next;
            continue;
        }
        links += 1;
        if stat.st_uid != 0 {
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
    use std::os::unix::fs::{MetadataExt as _, lchown, symlink};

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
