//! `stowage cache` and `stowage env`: checked values in, results out.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::args::{CacheCommand, EnvArguments};
use super::output;
use super::settings::{self, Settings};
use crate::cache::setup::{self, Format, StoreUrl};
use crate::cache::{self, CacheError, CacheFolder, Options, Summary, realisation};
use crate::store::db::StoreDb;
use crate::store::{Closure, StoreLocation, StorePath};
use crate::tree::StoreFiles;

/// Does what was asked for with a cache.
///
/// # Errors
/// See [`super::exit::Exit`].
pub fn run(settings: &Settings, command: CacheCommand) -> anyhow::Result<()> {
    match command {
        CacheCommand::Add(arguments) => {
            let location = settings.location(arguments.store.root.as_deref());
            let paths = arguments.paths.iter().map(|path| settings::resolve(&location, path));
            let paths = paths.collect::<Result<Vec<_>, _>>()?;
            let logs = settings.log_dir(arguments.store.root.as_deref());
            let options = arguments.export.options(settings, arguments.jobs.threads(), logs)?;
            let summary = add(&location, &paths, &arguments.dir, &options)?;
            report(&summary, arguments.json, settings.quiet)
        }
        CacheCommand::Wait { dir } => {
            let message = wait(&dir)?;
            if !settings.quiet {
                output::print(&format!("{message}\n"))?;
            }
            Ok(())
        }
    }
}

fn report(summary: &Summary, json: bool, quiet: bool) -> anyhow::Result<()> {
    let Summary { added, skipped, signed, bytes } = summary;
    if json {
        output::print(&format!(
            "{}\n",
            json!({ "added": added, "skipped": skipped, "signed": signed, "bytes": bytes })
        ))?;
    } else if !quiet {
        let signed = if *signed > 0 { format!(", and {signed} of these are signed now") } else { String::new() };
        output::print(&format!("{added} paths added ({}), {skipped} were there{signed}\n", output::size(*bytes)))?;
    }
    Ok(())
}

/// Prints what a job sets.
///
/// # Errors
/// As [`env`].
pub fn print_env(arguments: &EnvArguments) -> anyhow::Result<()> {
    Ok(output::print(&env(&arguments.dir, arguments.format, &settings::nix_config()?)?)?)
}

/// Puts `paths`, and all that they refer to, in the cache at `dir`.
///
/// # Errors
/// When a path is not valid or not fit for a cache, or the cache can't be used.
pub fn add(location: &StoreLocation, paths: &[StorePath], dir: &Path, options: &Options) -> anyhow::Result<Summary> {
    let database = StoreDb::open(location)?;
    let closure = Closure::new(&location.store_dir, database.closure(paths)?, Some(paths))?;
    let files = StoreFiles::open(&location.real_dir).context("opening the store")?;
    let summary = cache::export(&files, &closure, dir, options)?;
    let outputs: Vec<&StorePath> = closure.infos().iter().map(|info| &info.path).collect();
    let realisations = database.realisations(&outputs)?;
    if !realisations.is_empty() {
        let cache = CacheFolder::open(dir, &location.store_dir)?;
        realisation::add(&cache, &realisations, &options.keys)?;
    }
    Ok(summary)
}

/// Waits until nothing is pending for the cache at `dir`, and says what it
/// waited for. The hook exports before it returns, so that is nothing.
///
/// # Errors
/// When there is something else than a folder.
pub fn wait(dir: &Path) -> Result<String, CacheError> {
    if !dir.exists() {
        // A job that built nothing has none. One whose hook fills another should know.
        tracing::warn!(
            "there is no cache at {}: nothing was exported to it; if something was built, see where STOWAGE_CACHE leads",
            dir.display()
        );
    } else if !dir.is_dir() {
        return Err(CacheError::Missing(dir.to_owned()));
    }
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
        tracing::warn!(
            "not every version of Nix finds {}; only letters, digits and /.-_~ are safe in a cache's path",
            dir.display()
        );
    }
    Ok(setup::render(&url, format, nix_config)?)
}
