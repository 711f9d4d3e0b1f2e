//! Holds store paths by indirect GC roots, as `nix-build -o` does.
//!
//! Source: Nix's `LocalStore::addIndirectRoot`, `src/libstore/gc.cc`: a link in
//! `gcroots/auto`, named by the hash of its target, leads to a link of the user's,
//! which leads to the store path. When the user's link goes, so does the root.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha1::{Digest as _, Sha1};

use super::{StoreLocation, StorePath};

/// Holds `paths` by links in `folder`, which is made when it is not there.
///
/// # Errors
/// When a link can't be made, or Nix not be told of it.
pub fn hold(location: &StoreLocation, folder: &Path, paths: &[StorePath]) -> io::Result<()> {
    if !location.state_dir.join("db").is_dir() {
        // There is no Nix that could collect anything.
        return Ok(());
    }
    std::fs::create_dir_all(folder)?;
    let folder = folder.canonicalize()?;
    for path in paths {
        let link = folder.join(path.to_basename());
        let target = location.print(path);
        if std::fs::read_link(&link).ok().as_deref() != Some(Path::new(&target)) {
            replace_link(&target, &link)?;
        }
        register(location, &link, &target)?;
    }
    Ok(())
}

/// Lets go of all paths that links in `folder` hold, but `paths`.
///
/// # Errors
/// When the folder can't be read, or a link not be deleted.
pub fn release_others(folder: &Path, paths: &[StorePath]) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_held = paths.iter().any(|path| path.to_basename().as_bytes() == name.as_encoded_bytes());
        if !is_held && entry.file_type()?.is_symlink() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Tells Nix of the root `link`; where its folder may not be written, through
/// nix-store, which asks the daemon to.
fn register(location: &StoreLocation, link: &Path, target: &str) -> io::Result<()> {
    let auto = location.state_dir.join("gcroots/auto");
    let name = nix_derivation::nixbase32::encode(&Sha1::digest(link.as_os_str().as_encoded_bytes()));
    let registered = auto.join(name);
    if std::fs::read_link(&registered).ok().as_deref() == Some(link) {
        return Ok(());
    }
    let direct = std::fs::create_dir_all(&auto).and_then(|()| replace_link(link, &registered));
    // Only of this system's store is there a daemon to ask.
    let has_daemon = location.real_dir == Path::new(location.store_dir.as_str());
    match direct.as_ref().map_err(io::Error::kind) {
        Err(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) if has_daemon => {
            add_root(link, target)
        }
        _ => direct,
    }
}

fn add_root(link: &Path, target: &str) -> io::Result<()> {
    let output = Command::new("nix-store")
        .arg("--add-root")
        .arg(link)
        .args(["--indirect", "--realise", target])
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("nix-store --add-root: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

/// Makes a link, by rename, so that there is never none.
fn replace_link(target: impl AsRef<Path>, link: &Path) -> io::Result<()> {
    let mut partial = PathBuf::from(link).into_os_string();
    partial.push(format!(".tmp-{}", std::process::id()));
    match std::fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(target, &partial)?;
    std::fs::rename(&partial, link)
}
