//! `stowage enter`: the entrypoint of images in which `/nix` is a link to a cache.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::cache_store::tell;
use super::settings::{self, Settings};
use crate::cache::setup;
use crate::fs::LockedFolder;
use crate::local_store::modes::State;
use crate::local_store::{self, LocalStore, namespaces, seed};

const REMOTE: &str = "NIX_REMOTE";

/// No such image.
#[derive(Debug, thiserror::Error)]
#[error("{}: `stowage enter` is the entrypoint of images with a `cacheStore`, and for nothing else", .0.display())]
pub struct NoSuchImage(PathBuf);

/// Puts the image's store where `/nix` leads, and becomes the program `command`.
///
/// # Errors
/// When the store can't be used, or there is no such program.
pub fn run(settings: &Settings, command: &[OsString]) -> anyhow::Result<()> {
    let (image, nix) = (Path::new(seed::SHIPPED), Path::new("/nix"));
    if !LocalStore::is_at(image) {
        return Err(NoSuchImage(image.join("nix")).into());
    }
    let target = std::fs::read_link(nix).map_err(|_| NoSuchImage(nix.to_owned()))?;
    let dir = target.parent().ok_or_else(|| NoSuchImage(target.clone()))?;
    prepare(settings, dir, image).with_context(|| format!("preparing the store {}", target.display()))?;
    let (program, arguments) = command.split_first().context("no program to run")?;
    let mut command = Command::new(program);
    if settings::variables().get(OsStr::new(REMOTE)).is_some_and(|remote| *remote == *setup::of_linked(dir))
        && takes_links()
    {
        command.env_remove(REMOTE);
    }
    let error = command.args(arguments).exec();
    Err(error).with_context(|| format!("starting {}", program.display()))
}

/// Whether Nix works without being told where `/nix` leads, and should. Where it may make
/// namespaces, and is told, it builds in a sandbox, which nobody has asked for: an image has
/// neither /bin/sh nor anything else there. From 2.20 on it has to be told.
fn takes_links() -> bool {
    let program = std::env::current_exe();
    if program.is_ok_and(|program| namespaces::try_them(&program).is_err()) {
        return false;
    }
    let output = Command::new("nix-store").arg("--version").output();
    output.is_ok_and(|output| version(&String::from_utf8_lossy(&output.stdout)).is_some_and(|number| number < (2, 20)))
}

/// The number in what `nix-store --version` says.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_whitespace().last()?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn prepare(settings: &Settings, dir: &Path, image: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| {
        format!("making {}; let a folder be mounted there, or above, in which this user may write", dir.display())
    })?;
    // SQLite takes no links on the way.
    let dir = &dir.canonicalize().with_context(|| format!("finding {}", dir.display()))?;
    // A job's containers may begin at the same time.
    let _lock = LockedFolder::lock(dir).with_context(|| format!("locking {}", dir.display()))?;
    let store_dir = &settings.location(None).store_dir;
    let store = LocalStore::open_or_make(dir, store_dir)?;
    let begun = local_store::begin(&store, settings::processors(), Some(State::Sealed))?;
    tell(&begun);
    let image = LocalStore::shipped(image, store_dir);
    let seeded = local_store::seed(&store, &image, settings::processors())?;
    tracing::info!("{} paths were in {}, and {seeded} more are the image's", begun.paths, dir.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_of_nix_are_read() {
        for (text, expected) in [
            ("nix-store (Nix) 2.8.0\n", Some((2, 8))),
            ("nix-store (Nix) 2.34.8", Some((2, 34))),
            ("nix-store (Nix) 2.36.0pre20260101_abc", Some((2, 36))),
            ("nix-store (Lix, like Nix) 2.93.3", Some((2, 93))),
            ("none", None),
            ("", None),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
    }
}
