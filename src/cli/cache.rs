//! `stowage cache` and `stowage env`: checked values in, results out.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use super::args::{CacheCommand, WaitArguments};
use super::settings::{self, Settings};
use super::wait::{self, Waited};
use super::{cache_check, output};
use crate::cache::{self, CacheFolder, Options, Place, Summary, realisation};
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
            let summary = add(&location, &paths, &settings.place(&arguments.dir)?, &options)?;
            report(&summary, arguments.json, settings.quiet)
        }
        CacheCommand::Init(arguments) => {
            let location = settings.location(arguments.store.root.as_deref());
            wait::init(settings, &location, &arguments.dir)
        }
        CacheCommand::Check(arguments) => cache_check::check(settings, &arguments),
        CacheCommand::Gc(arguments) => cache_check::collect(settings, &arguments),
        CacheCommand::Info(arguments) => cache_check::print_info(settings, &arguments),
        CacheCommand::Wait(arguments) => {
            let location = settings.location(arguments.store.root.as_deref());
            let patience = Duration::from_secs(arguments.timeout);
            let waited = wait::wait(settings, &location, &arguments.dir, patience)?;
            report_wait(waited, &arguments, settings.quiet)
        }
    }
}

fn report_wait(waited: Waited, arguments: &WaitArguments, quiet: bool) -> anyhow::Result<()> {
    if arguments.json {
        output::print(&format!("{}\n", json!(waited)))?;
    } else if !quiet {
        let Waited { builds, unhooked } = waited;
        let more = if unhooked > 0 { format!(", and {unhooked} paths that no hook told of") } else { String::new() };
        let dir = arguments.dir.display();
        output::print(&format!("all that was built is in {dir}: {builds} builds were still to be exported{more}\n"))?;
    }
    Ok(())
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

/// Puts `paths`, and all that they refer to, in the cache at `place`.
///
/// # Errors
/// When a path is not valid or not fit for a cache, or the cache can't be used.
pub fn add(location: &StoreLocation, paths: &[StorePath], place: &Place, options: &Options) -> anyhow::Result<Summary> {
    let database = StoreDb::open(location)?;
    let closure = Closure::new(&location.store_dir, database.closure(paths)?, Some(paths))?;
    let files = StoreFiles::open(&location.real_dir).context("opening the store")?;
    let summary = cache::export(&files, &closure, place, options)?;
    let outputs: Vec<&StorePath> = closure.infos().iter().map(|info| &info.path).collect();
    let realisations = database.realisations(&outputs)?;
    if !realisations.is_empty() {
        let cache = CacheFolder::open(place, &location.store_dir)?;
        realisation::add(&cache, &realisations, &options.keys)?;
    }
    Ok(summary)
}
