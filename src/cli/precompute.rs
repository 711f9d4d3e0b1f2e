//! What the hook does for a spec's `precompute`: finds out the layers of the image that is
//! built next.

use std::path::{Path, PathBuf};

use super::args::LayerIndexArguments;
use super::gather::{self, Gathered};
use super::settings::{self, Settings};
use super::{build, layer_index, parent};
use crate::build::Build;
use crate::build::precompute::precompute;
use crate::image::ImageSpec;
use crate::store::source::RegistrationSource;
use crate::store::{StoreLocation, StorePath};

/// Finds out the store layers of the image that the spec in `file` describes, with each of
/// `outputs` that it asks for; tells how many were not known.
///
/// # Errors
/// As for `stowage build`.
pub fn run(
    settings: &Settings,
    file: &Path,
    shared: Option<&str>,
    location: &StoreLocation,
    outputs: &[StorePath],
) -> anyhow::Result<usize> {
    let spec = read(file)?;
    let is_asked_for = |path: &&StorePath| spec.precompute.iter().any(|pattern| pattern.matches(path));
    let mut made = 0;
    for output in outputs.iter().filter(is_asked_for) {
        made += with_output(settings, &spec, shared, location, output)?;
    }
    Ok(made)
}

/// The spec in `file`.
///
/// # Errors
/// When it can't be read or understood.
pub fn read(file: &Path) -> anyhow::Result<ImageSpec> {
    // Whoever wants to hold up a daemon's hook puts a pipe there.
    crate::fs::open_regular(file).map_err(|error| anyhow::anyhow!("STOWAGE_SPEC, {}: {error}", file.display()))?;
    build::spec(Some(file), None, None, None)
}

fn with_output(
    settings: &Settings,
    spec: &ImageSpec,
    shared: Option<&str>,
    location: &StoreLocation,
    output: &StorePath,
) -> anyhow::Result<usize> {
    let mut index = layer_index::open(
        settings,
        &LayerIndexArguments { layer_index: shared.map(str::to_owned).into_iter().collect() },
    )?;
    let paths = [PathBuf::from(location.print(output))];
    let mut gathered = gather::gather(&RegistrationSource::Database, location, &paths, spec)?;
    let (files, name) = (gathered.files(location)?, build::name(spec, &gathered));
    let Gathered { contents, closure, extras, built, listed, .. } = gathered;
    index.add_known(built.known());
    let program = spec.has_program().then(build::own_program).transpose()?;
    let known = parent::Known { closure: &closure, listed: &listed };
    let parent = spec.from_image.as_ref();
    let parent =
        parent.map(|text| parent::parent(text, spec, &known, location, &settings.registries, true)).transpose()?;
    let build = Build {
        name,
        spec,
        parent: parent.as_ref(),
        closure: &closure,
        contents: &contents,
        extras: &extras,
        files: &files,
        location,
        index: &index,
        hook: program.as_deref(),
        previous: &[],
        registries: &settings.registries,
        threads: settings::processors(),
        hold: false,
        progress: &|_| (),
    };
    precompute(&build, spec.compression.unwrap_or_default())
}
