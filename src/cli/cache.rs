//! `stowage cache` and `stowage env`: checked values in, results out.

use std::path::Path;

use anyhow::Context as _;

use crate::cache::setup::{self, Format, StoreUrl};
use crate::cache::{self, CacheFolder, Options, Summary};
use crate::store::db::StoreDb;
use crate::store::{Closure, StoreDir, StoreLocation, StorePath};
use crate::tree::StoreFiles;

/// Makes the folder `dir` a cache for paths of `store_dir`.
///
/// # Errors
/// When it is one for another store dir, or can't be written.
pub fn init(store_dir: &StoreDir, dir: &Path) -> anyhow::Result<()> {
    CacheFolder::open(dir, store_dir)?;
    Ok(())
}

/// Puts `paths`, and all that they refer to, in the cache at `dir`.
///
/// # Errors
/// When a path is not valid or not fit for a cache, or the cache can't be used.
pub fn add(location: &StoreLocation, paths: &[StorePath], dir: &Path, jobs: usize) -> anyhow::Result<Summary> {
    let infos = StoreDb::open(location)?.closure(paths)?;
    let closure = Closure::new(&location.store_dir, infos, Some(paths))?;
    let files = StoreFiles::open(&location.real_dir).context("opening the store")?;
    Ok(cache::export(&files, &closure, dir, Options { jobs })?)
}

/// Waits until nothing is pending for the cache at `dir`, and says what it
/// waited for. The hook exports before it returns, so that is nothing.
///
/// # Errors
/// None yet.
pub fn wait(dir: &Path) -> anyhow::Result<String> {
    Ok(format!("nothing is pending for {}", dir.display()))
}

/// What a job sets to use the cache at `dir`; `nix_config` is what
/// `NIX_CONFIG` holds by now.
///
/// # Errors
/// When the form can't hold that, or the current folder is gone.
pub fn env(dir: &Path, format: Format, nix_config: &str) -> anyhow::Result<String> {
    let dir = std::path::absolute(dir).with_context(|| format!("finding {}", dir.display()))?;
    let url = StoreUrl::of_folder(&dir)?;
    if !url.is_portable() {
        tracing::warn!("not every version of Nix finds {}; only letters, digits and /.-_~ are safe in a cache's path", dir.display());
    }
    Ok(setup::render(&url, format, nix_config)?)
}
