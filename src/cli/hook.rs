//! `stowage hook`: what Nix runs after each build.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use crate::cache::Summary;
use crate::hook::{self, HookEvent};
use crate::store::StoreLocation;

use super::output;
use super::settings::{self, Settings};

/// Does what Nix calls the hook for, and says what goes wrong: a hook that fails
/// would stop the build, and never be called again for what was built.
pub fn main() {
    if let Err(error) = export() {
        eprintln!("stowage: what was built is not in the cache: {}", output::explain(&error));
    }
}

fn export() -> anyhow::Result<()> {
    let settings = Settings::read(true)?;
    let summary =
        run(&settings::variables(), &settings::current_folder()?, &settings.location(None), settings::threads(None))?;
    tracing::info!("{} paths exported, {} were there", summary.added, summary.skipped);
    Ok(())
}

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
