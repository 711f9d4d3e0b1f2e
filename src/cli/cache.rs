//! `stowage cache` and `stowage env`: checked values in, results out.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use super::args::{CacheCommand, CacheKind, StoreArguments, WaitArguments};
use super::exit::UsageError;
use super::settings::Settings;
use super::wait::{self, Waited};
use super::{cache_check, cache_store, output, paths};
use crate::cache::{self, CacheFolder, Options, Place, Summary, realisation};
use crate::store::db::StoreDb;
use crate::store::{Closure, StoreLocation, StorePath};
use crate::tree::StoreFiles;

/// Does what was asked for with a cache.
///
/// # Errors
/// See [`super::exit::Exit`].
pub fn run(settings: &Settings, command: CacheCommand) -> anyhow::Result<()> {
    let location = |store: &StoreArguments| settings.location(store.root.as_deref());
    match command {
        CacheCommand::Add(arguments) => {
            if cache_store::at(settings, &arguments.dir)?.is_some() {
                let dir = arguments.dir.display();
                let text = format!("{dir} is a store, and no binary cache; `nix copy --to {dir} PATH` adds to it");
                return Err(UsageError(text).into());
            }
            let location = location(&arguments.store);
            let paths = arguments.paths.iter().map(|path| paths::resolve(&location, path));
            let paths = paths.collect::<Result<Vec<_>, _>>()?;
            let logs = settings.log_dir(arguments.store.root.as_deref());
            let options = arguments.export.options(settings, arguments.jobs.threads(), logs)?;
            let summary = add(&location, &paths, &settings.place(&arguments.dir)?, &options)?;
            report(&summary, arguments.json, settings.quiet)
        }
        CacheCommand::Init(arguments) => {
            let advice = cache_store::recommendation(settings, &arguments.dir, arguments.kind)?;
            let is_store = cache_store::at(settings, &arguments.dir)?.is_some();
            match arguments.kind {
                Some(CacheKind::BinaryCache) if is_store => Err(UsageError(format!(
                    "{} is a store, and no binary cache; name another folder, or delete it first",
                    arguments.dir.display()
                ))
                .into()),
                Some(CacheKind::BinaryCache) => wait::init(settings, &location(&arguments.store), &arguments.dir),
                Some(CacheKind::Store) => cache_store::init(settings, &arguments.dir),
                None if is_store => cache_store::init(settings, &arguments.dir),
                None => wait::init(settings, &location(&arguments.store), &arguments.dir),
            }?;
            match advice.filter(|_| !settings.quiet) {
                Some(advice) => Ok(output::print(&format!("{} is {advice}\n", arguments.dir.display()))?),
                None => Ok(()),
            }
        }
        CacheCommand::Check(arguments) => match cache_store::at(settings, &arguments.dir)? {
            Some(store) => cache_store::check(settings, &store, &arguments),
            None => cache_check::check(settings, &arguments),
        },
        CacheCommand::Gc(arguments) => match cache_store::at(settings, &arguments.dir)? {
            Some(store) => cache_store::collect(settings, &store, &arguments),
            None => cache_check::collect(settings, &arguments),
        },
        CacheCommand::Info(arguments) => match cache_store::at(settings, &arguments.dir)? {
            Some(store) => cache_store::print_info(&store, &arguments),
            None => cache_check::print_info(settings, &arguments),
        },
        CacheCommand::Wait(arguments) => {
            if let Some(store) = cache_store::at(settings, &arguments.dir)? {
                return cache_store::wait(settings, &store, &arguments);
            }
            let location = location(&arguments.store);
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
