//! `stowage layer`.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;

use super::args::LayerArguments;
use super::built_layers::BuiltLayers;
use super::exit::UsageError;
use super::layer_index;
use super::output::{self, Meter};
use super::paths;
use super::settings::Settings;
use crate::build::layer::{self, Ahead};
use crate::destination::DestinationError;
use crate::layer::built::BuiltLayer;
use crate::layer::{Owner, Stamp};
use crate::store::source::RegistrationSource;
use crate::store::{Closure, StoreLocation, StorePath, content_address};
use crate::tree::StoreFiles;

/// Makes a layer ahead.
///
/// # Errors
/// See [`super::exit::Exit`].
pub fn run(settings: &Settings, arguments: &LayerArguments) -> anyhow::Result<()> {
    let location = settings.location(arguments.source.store.root.as_deref());
    let index = layer_index::open(settings, &arguments.index)?;
    let except = BuiltLayers::read(&arguments.except, &location.store_dir)?;
    let source = arguments.source.registrations();
    let (mut closure, roots) = closure(&source, &location, &arguments.paths)?;
    let files = StoreFiles::open(&location.real_dir)?;
    content_address::restore_recursive(&mut closure);
    if source != RegistrationSource::Database {
        content_address::restore_files(&mut closure, &files, &settings.index, &except.paths())?;
    }
    let below = except.paths();
    let closure = closure.without(&below.iter().collect());
    if closure.is_empty() {
        let problem = "nothing is left for the layer: all of it is in those that --except names";
        return Err(UsageError(problem.to_owned()).into());
    }
    let owner = Owner {
        uid: arguments.uid,
        gid: arguments.gid,
        uname: arguments.uname.clone(),
        gname: arguments.gname.clone(),
    };
    let mtime = arguments.mtime;
    let meter = Meter::new(closure.nar_size(), settings.quiet);
    let ahead = Ahead {
        closure: &closure,
        roots: asked_for(&closure, roots),
        stamp: Stamp { owner, mtime },
        files: &files,
        location: &location,
        index: &index,
        threads: arguments.jobs.threads(),
        progress: &|bytes| meter.add(bytes),
    };
    let layer = layer::make(ahead);
    meter.finish();
    let layer = layer?;
    let text = layer.to_json(&location.store_dir)?;
    if arguments.to == Path::new("-") {
        return Ok(output::print(std::str::from_utf8(&text).context("the layer's own file")?)?);
    }
    crate::fs::write_atomically(&arguments.to, &text).map_err(DestinationError::write(&arguments.to))?;
    report(&layer, &arguments.to, &text, arguments.json, settings.quiet)
}

/// What goes into the layer, and what was asked for.
fn closure(
    source: &RegistrationSource,
    location: &StoreLocation,
    paths: &[impl AsRef<Path>],
) -> anyhow::Result<(Closure, BTreeSet<StorePath>)> {
    if paths.is_empty() && *source == RegistrationSource::Database {
        return Err(UsageError("nothing to make a layer of: name a PATH".to_owned()).into());
    }
    let roots = paths.iter().map(|path| paths::resolve(location, path.as_ref())).collect::<Result<Vec<_>, _>>()?;
    let registrations = source.open(location)?;
    let closure = registrations.closure((!roots.is_empty()).then_some(&roots), Vec::new())?;
    let unreferenced = || closure.unreferenced().into_iter().map(|id| closure.info(id).path.clone()).collect();
    let roots = if roots.is_empty() { unreferenced() } else { roots.into_iter().collect() };
    Ok((closure, roots))
}

/// Those of `roots` that are left in `closure`, and what nothing in it refers to, so that all of it is reached.
fn asked_for(closure: &Closure, roots: BTreeSet<StorePath>) -> BTreeSet<StorePath> {
    let left = roots.into_iter().filter(|path| closure.find(path).is_some()).collect::<Vec<_>>();
    let mut is_reached = vec![false; closure.len()];
    closure.reachable(&left).into_iter().for_each(|id| is_reached[id] = true);
    let others = closure.unreferenced().into_iter().filter(|id| !is_reached[*id]);
    let others: Vec<StorePath> = others.map(|id| closure.info(id).path.clone()).collect();
    left.into_iter().chain(others).collect()
}

fn report(layer: &BuiltLayer, file: &Path, text: &[u8], json: bool, quiet: bool) -> anyhow::Result<()> {
    if json {
        return Ok(output::print(std::str::from_utf8(text).context("the layer's own file")?)?);
    }
    if !quiet {
        let (count, size) = (layer.paths.len(), output::size(layer.record.size));
        output::print(&format!("{} ({count} store paths, {size})\n  in {}\n", layer.record.diff_id, file.display()))?;
    }
    Ok(())
}
