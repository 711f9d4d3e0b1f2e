//! `stowage hook`: what Nix runs after each build.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use crate::cache::Summary;
use crate::hook::{self, HookEvent};
use crate::store::StoreLocation;

/// Exports what the build made that `environment` names.
///
/// # Errors
/// When it can't. Nix stops at a hook that fails, so the caller reports that
/// and succeeds.
pub fn run(
    environment: &BTreeMap<OsString, OsString>,
    current_dir: &Path,
    location: &StoreLocation,
    jobs: usize,
) -> anyhow::Result<Summary> {
    let event = HookEvent::from_environment(environment, &location.store_dir, current_dir)?;
    Ok(hook::run(&event, location, jobs)?)
}
