//! `stowage hook`: what Nix runs after each build.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::panic::UnwindSafe;
use std::path::PathBuf;

use anyhow::anyhow;

use crate::cache::Summary;
use crate::hook::{self, HookEvent};
use crate::store::StoreLocation;

use super::settings::{self, Settings};
use super::{complain, output};

/// Does what Nix calls the hook for, and says what goes wrong: a hook that fails
/// would stop the build, and never be called again for what was built. So it
/// returns whatever happens, even if it can't say so.
pub fn main() {
    if let Err(error) = survive(export) {
        complain(format_args!("what was built is not in the cache: {}", output::explain(&error)));
    }
    if let Err(error) = survive(precompute) {
        complain(format_args!("the layers of what was built are not known yet: {}", output::explain(&error)));
    }
}

/// Runs `body`; to Nix, a panic in it is an error like others.
fn survive(body: impl FnOnce() -> anyhow::Result<()> + UnwindSafe) -> anyhow::Result<()> {
    std::panic::catch_unwind(body)
        .unwrap_or_else(|_| Err(anyhow!("a mistake in stowage, which the lines before this one describe")))
}

fn export() -> anyhow::Result<()> {
    let settings = Settings::read(true, Vec::new())?;
    let summary =
        run(&settings::variables(), settings::current_folder, &settings.location(None), settings::processors())?;
    tracing::info!("{} paths exported, {} were there", summary.added, summary.skipped);
    Ok(())
}

/// Finds out the layers of the next image, where a spec asks for that.
fn precompute() -> anyhow::Result<()> {
    let settings = Settings::read(true, Vec::new())?;
    let Some(spec) = &settings.hook_spec else {
        return Ok(());
    };
    let location = settings.location(None);
    let event = HookEvent::from_environment(&settings::variables(), &location.store_dir, settings::current_folder)?;
    let made = super::precompute::run(&settings, spec, &location, &hook::outputs(&event, &location)?)?;
    tracing::info!("{made} layers of the next image computed");
    Ok(())
}

/// Exports what the build made that `environment` names. Where that is to go may
/// depend on `current_dir`.
///
/// # Errors
/// When it can't. Nix stops at a hook that fails, so the caller reports that
/// and succeeds.
pub fn run(
    environment: &BTreeMap<OsString, OsString>,
    current_dir: impl FnOnce() -> std::io::Result<PathBuf>,
    location: &StoreLocation,
    jobs: usize,
) -> anyhow::Result<Summary> {
    let event = HookEvent::from_environment(environment, &location.store_dir, current_dir)?;
    Ok(hook::run(&event, location, jobs)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_panic_does_not_end_the_hook() {
        super::survive(|| panic!("this is only a test")).expect_err("a panic");
        super::survive(|| Ok(())).expect("no panic");
    }
}
