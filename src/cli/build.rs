//! `stowage build`.

use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::args::BuildArguments;
use super::earlier;
use super::exit::UsageError;
use super::gather::{self, Gathered};
use super::layer_index;
use super::output::{self, Meter};
use super::parent;
use super::settings::Settings;
use crate::build::{self, Build, Place};
use crate::destination::{DestinationError, ImageReference};
use crate::digest::Digest;
use crate::image::extras::{Extras, Reason};
use crate::image::manifest::ManifestFormat;
use crate::image::spec::MAX_LAYERS;
use crate::image::{Image, ImageName, ImageSpec};
use crate::layer::compress::Compression;
use crate::parent::Parent;
use crate::plan::Strategy;
use crate::store::source::RegistrationSource;
use crate::store::{Closure, PathInfo, content_address};

/// Builds an image.
///
/// # Errors
/// See [`super::exit::Exit`].
pub fn run(settings: &Settings, arguments: BuildArguments) -> anyhow::Result<()> {
    let to_stdout = arguments.to.iter().any(ImageReference::is_stdout);
    if arguments.to.iter().filter(|reference| reference.is_stdout()).count() > 1 {
        return Err(UsageError("only one archive can go to standard output".to_owned()).into());
    }
    if to_stdout && arguments.json {
        return Err(UsageError(
            "--json and an archive can't both go to standard output; name a file: docker-archive:FILE".to_owned(),
        )
        .into());
    }
    let location = settings.location(arguments.source.store.root.as_deref());
    let mut spec =
        spec(arguments.spec.as_deref(), arguments.name.as_deref(), arguments.strategy, arguments.max_layers)?;
    if arguments.from.is_some() {
        spec.from_image = arguments.from;
    }
    let places = places(arguments.to, &arguments.compress, spec.compression, arguments.format)?;
    let digest_file = arguments.digest_file;
    let mut index = layer_index::open(settings, &arguments.index)?;
    let previous = earlier::previous(&arguments.previous, &settings.registries, spec.platform().as_ref())?;
    layer_index::add_previous(&mut index, &arguments.previous, &settings.registries);
    gather::add_arguments(&mut spec, arguments.needs)?;
    let source = arguments.source.registrations();
    let mut gathered = gather::gather(&source, &location, &arguments.paths, &spec)?;
    check_places(&gathered, &places, digest_file.as_deref())?;
    let files = gathered.files(&location)?;
    let name = name(&spec, &gathered);
    let Gathered { contents, mut closure, extras, built, listed, .. } = gathered;
    index.add_known(built.known());
    warn_of_outputs(&closure, &extras);
    content_address::restore_recursive(&mut closure);
    if source != RegistrationSource::Database {
        content_address::restore_files(&mut closure, &files, &settings.index, &built.paths())?;
    }
    let program = spec.has_program().then(own_program).transpose()?;
    let parent = spec.from_image.as_ref();
    let known = parent::Known { closure: &closure, listed: &listed };
    let believe = places.iter().all(|place| place.keeps_blobs());
    let parent =
        parent.map(|text| parent::parent(text, &spec, &known, &location, &settings.registries, believe)).transpose()?;
    built.warn(&spec, &closure, &parent.as_ref().map(Parent::paths).unwrap_or_default());
    let meter = Meter::new(total(&closure, parent.as_ref()), settings.quiet);
    let images = build::build(
        &Build {
            name,
            spec: &spec,
            parent: parent.as_ref(),
            closure: &closure,
            contents: &contents,
            extras: &extras,
            files: &files,
            location: &location,
            index: &index,
            hook: program.as_deref(),
            previous: &previous,
            registries: &settings.registries,
            threads: arguments.jobs.threads(),
            hold: !settings.in_nix_build,
            progress: &|bytes| meter.add(bytes),
        },
        &places,
    );
    meter.finish();
    let to: Vec<ImageReference> = places.into_iter().map(|place| place.reference).collect();
    let images = images?;
    let image = told_of(&images, &to).context("no destination was named")?;
    write_digest(digest_file.as_deref(), image.digest())?;
    report(image, &to, arguments.json, settings.quiet || to_stdout)
}

/// The image that is told of, of those at several places: where their layers have several forms,
/// so have their digests, and whoever wants to know one wants to ask a registry for it.
fn told_of<'a>(images: &'a [Image], to: &[ImageReference]) -> Option<&'a Image> {
    let mut in_registries = images.iter().zip(to).filter(|(_, to)| matches!(to, ImageReference::Registry(_)));
    in_registries.next().map(|(image, _)| image).or(images.last())
}

/// Each destination with its compression: those that were asked for, or the spec's.
fn places(
    references: Vec<ImageReference>,
    asked: &[Compression],
    spec: Option<Compression>,
    format: ManifestFormat,
) -> Result<Vec<Place>, UsageError> {
    if asked.len() > 1 && asked.len() != references.len() {
        let problem = format!("--compress is given {} times, and --to {}", asked.len(), references.len());
        return Err(UsageError(format!("{problem}; give it once, or once for each --to")));
    }
    let compression = |number| if asked.len() > 1 { asked.get(number) } else { asked.first() };
    check_format(format, &references)?;
    let place = |(number, reference)| {
        let is_registry = matches!(reference, ImageReference::Registry(_));
        let format = if is_registry { format } else { ManifestFormat::Oci };
        Place { reference, compression: compression(number).copied().or(spec), format }
    };
    Ok(references.into_iter().enumerate().map(place).collect())
}

/// Docker's manifests are for registries; everywhere else there is one kind.
///
/// # Errors
/// When they were asked for elsewhere.
pub fn check_format(format: ManifestFormat, references: &[ImageReference]) -> Result<(), UsageError> {
    let is_registry = |reference: &ImageReference| matches!(reference, ImageReference::Registry(_));
    if format == ManifestFormat::Docker && !references.iter().any(is_registry) {
        return Err(UsageError("--format docker is for registries: give it a destination docker://…".to_owned()));
    }
    Ok(())
}

/// Writes the digest of an image or index into a file, for scripts.
///
/// # Errors
/// When it can't be written.
pub fn write_digest(file: Option<&Path>, digest: Digest) -> anyhow::Result<()> {
    if let Some(file) = file {
        let text = digest.to_string();
        let special = crate::fs::open_special(file).map_err(DestinationError::write(file))?;
        let written = match special {
            Some(mut special) => special.write_all(text.as_bytes()),
            None => crate::fs::write_atomically(file, text.as_bytes()),
        };
        written.map_err(DestinationError::write(file))?;
    }
    Ok(())
}

/// About how many bytes go to a destination.
fn total(closure: &Closure, parent: Option<&Parent>) -> u64 {
    let Some(parent) = parent else {
        return closure.nar_size();
    };
    let new = closure.without(&parent.paths()).nar_size();
    parent.layers.iter().fold(new, |sum, layer| sum.saturating_add(layer.blob.size))
}

/// Says what is where now.
///
/// # Errors
/// When standard output can't be written.
pub fn report(image: &Image, destinations: &[ImageReference], json: bool, quiet: bool) -> anyhow::Result<()> {
    let size: u64 = image.layers.iter().map(|layer| layer.record.size).sum();
    let destinations: Vec<String> = destinations.iter().map(ToString::to_string).collect();
    if json {
        let layers: Vec<_> = image
            .layers
            .iter()
            .map(|layer| json!({ "diffId": layer.record.diff_id, "size": layer.record.size, "blob": layer.blob }))
            .collect();
        let report = json!({
            "name": image.name.repository, "tag": image.name.tag, "digest": image.digest(), "config": image.config_digest(),
            "size": size, "layers": layers, "destinations": destinations,
        });
        output::print(&format!("{report}\n"))?;
    } else if !quiet {
        let summary =
            format!("{} {} ({} layers, {})", image.name, image.digest(), image.layers.len(), output::size(size));
        output::print(&format!(
            "{summary}\n{}\n",
            destinations.iter().map(|place| format!("  in {place}")).collect::<Vec<_>>().join("\n")
        ))?;
    }
    Ok(())
}

/// The spec in a file, with what the command line says in its place.
///
/// # Errors
/// When it can't be read, or says something that can't be.
pub fn spec(
    file: Option<&Path>,
    name: Option<&str>,
    strategy: Option<Strategy>,
    max_layers: Option<u64>,
) -> anyhow::Result<ImageSpec> {
    let mut spec = match file {
        None => ImageSpec::default(),
        Some(path) => read_spec(path).with_context(|| format!("the spec {}", path.display()))?,
    };
    if let Some(name) = name {
        spec.name = Some(ImageName::parse(name)?);
    }
    if let Some(strategy) = strategy {
        spec.strategy = strategy;
    }
    spec.max_layers = max_layers.or(spec.max_layers).map(limit);
    spec.check()?;
    Ok(spec)
}

/// At most as many layers as Docker runs.
#[must_use]
pub fn limit(max_layers: u64) -> u64 {
    if max_layers > MAX_LAYERS {
        tracing::warn!("{max_layers} layers are more than Docker runs; {MAX_LAYERS} are made at the most");
    }
    max_layers.min(MAX_LAYERS)
}

fn read_spec(path: &Path) -> anyhow::Result<ImageSpec> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)?;
    } else {
        text = std::fs::read_to_string(path).map_err(|error| UsageError(error.to_string()))?;
    }
    Ok(match path.extension() {
        Some(extension) if extension == "toml" => ImageSpec::from_toml(&text)?,
        _ => ImageSpec::from_json(&text)?,
    })
}

/// What the image is called.
#[must_use]
pub fn name(spec: &ImageSpec, gathered: &Gathered) -> ImageName {
    let Gathered { closure, .. } = gathered;
    let first = || closure.unreferenced().first().map(|id| closure.info(*id).path.name());
    let name = || gathered.name().or_else(first).unwrap_or("image");
    spec.name.clone().unwrap_or_else(|| ImageName::from_store_name(name()))
}

/// What goes into a source tree would be in the next image.
fn check_places(gathered: &Gathered, places: &[Place], digest_file: Option<&Path>) -> Result<(), UsageError> {
    let refused = |path: &Path| {
        let tree = gathered.tree_around(path)?;
        let (path, tree) = (path.display(), tree.display());
        Some(UsageError(format!(
            "{path} is in the source tree {tree}, and would go into the next image; name another place, or leave it out with --exclude"
        )))
    };
    for place in places.iter().filter(|place| !place.reference.is_stdout()) {
        if let ImageReference::DockerArchive { file: path, .. }
        | ImageReference::OciArchive { file: path, .. }
        | ImageReference::Oci { folder: path, .. }
        | ImageReference::Folder { folder: path } = &place.reference
            && let Some(error) = refused(path)
        {
            return Err(error);
        }
    }
    digest_file.and_then(refused).map_or(Ok(()), Err)
}

/// Where what is to be built is there already, nothing is built.
fn warn_of_outputs(closure: &Closure, extras: &Extras) {
    let derivations = extras.roots.get(&Reason::Derivation).into_iter().flatten();
    for derivation in derivations {
        let is_own = |info: &&PathInfo| info.deriver.as_ref() == Some(derivation);
        let is_input = |info: &&PathInfo| {
            let inputs = extras.roots.iter().filter(|(reason, _)| matches!(reason, Reason::InputOf(_)));
            !inputs.flat_map(|(_, paths)| paths).any(|path| *path == info.path)
        };
        if let Some(own) = closure.infos().iter().filter(is_own).find(is_input) {
            let (own, derivation) =
                (closure.store_dir().render_path(&own.path), closure.store_dir().render_path(derivation));
            tracing::warn!("{own} is in the image, so building {derivation} there builds nothing");
        }
    }
}

/// This very program, if it runs anywhere.
///
/// # Errors
/// When it does not, or can't be read.
pub fn own_program() -> anyhow::Result<Vec<u8>> {
    if !cfg!(target_feature = "crt-static") {
        let hint = "this stowage needs libraries of the machine, so it can't be put into an image (hook: true); build it as the README says";
        return Err(UsageError(hint.to_owned()).into());
    }
    std::fs::read("/proc/self/exe").context("reading this program, to put it into the image")
}
