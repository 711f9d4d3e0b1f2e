//! From a closure to an image at its destinations, in a straight line.

pub mod base;
pub mod copy;
pub mod index;
pub mod layer;
pub mod layers;
pub mod merge;
mod plans;
pub mod precompute;

use std::path::Path;

use base::Base;
use layers::{Layers, Said};

use crate::cache::setup;
pub use crate::destination::Place;
use crate::destination::{self, Delivery, DestinationError, ImageReference, UnreadableLayers};
use crate::image::extras::Extras;
use crate::image::manifest::{Descriptor, ManifestFormat};
use crate::image::note::Note;
use crate::image::spec::SpecError;
use crate::image::{Image, ImageLayer, ImageName, ImageSpec, config, system};
use crate::layer::Delivered;
use crate::layer::compress::Compression;
use crate::layer::deliver::{Content, LayerJob, Progress, Source};
use crate::layer::index::LayerIndex;
use crate::parent::Parent;
use crate::plan::Previous;
use crate::registry::Registries;
use crate::store::{Closure, StoreLocation, StorePath, restore, roots};
use crate::tree::StoreFiles;

/// What an image is made of, and with.
pub struct Build<'a> {
    /// What it is to be.
    pub spec: &'a ImageSpec,
    /// What it is called.
    pub name: ImageName,
    /// The image that it is built on.
    pub parent: Option<&'a Parent>,
    /// All its store paths, but those that only the parent needs.
    pub closure: &'a Closure,
    /// Those of them that are laid out at `/`.
    pub contents: &'a [StorePath],
    /// What is there beside contents, and why.
    pub extras: &'a Extras,
    /// Where the files of store paths are.
    pub files: &'a StoreFiles,
    /// The store that they come from.
    pub location: &'a StoreLocation,
    /// What is known of layers made before.
    pub index: &'a LayerIndex,
    /// The program for `hook: true`: a stowage that runs anywhere.
    pub hook: Option<&'a [u8]>,
    /// Plans of earlier revisions, the newest last.
    pub previous: &'a [Previous],
    /// On how many threads to make layers.
    pub threads: usize,
    /// Whether image folders hold their store paths by GC roots.
    pub hold: bool,
    /// How to reach registries.
    pub registries: &'a Registries,
    /// Told how much is done.
    pub progress: Progress<'a>,
}

/// A parent's layers stay as they are, and a registry has no other form of them.
fn check_parent(parent: Option<&Parent>, places: &[Place]) -> Result<(), UnreadableLayers> {
    let layers = parent.map_or(&[][..], |parent| &parent.layers[..]);
    let to_registries = places.iter().filter(|place| matches!(place.reference, ImageReference::Registry(_)));
    to_registries.flat_map(|place| layers.iter().map(move |layer| place.check(&layer.blob.media_type))).collect()
}

/// An image folder names store paths where they are, and readers put them into `/nix/store`.
fn check_cache_store(spec: &ImageSpec, places: &[Place]) -> Result<(), SpecError> {
    match places.iter().find(|place| matches!(place.reference, ImageReference::Folder { .. })) {
        Some(place) if spec.cache_store.is_some() => Err(SpecError::Nonsense {
            key: "cacheStore",
            problem: format!(
                "such an image can't be an image folder, as {} is; name another destination",
                place.reference
            ),
        }),
        _ => Ok(()),
    }
}

/// Builds the image and puts it at each of `places`; tells what it is at each. Where others' records turn out to be
/// wrong, all is done again without them.
///
/// # Errors
/// When it does not fit its parent, a path is gone, a layer can't be made, or a
/// destination not be written.
pub fn build(build: &Build<'_>, places: &[Place]) -> anyhow::Result<Vec<Image>> {
    let error = match put(build, places) {
        Err(error) if build.index.believes_others() && is_changed(&error) => error,
        result => return result,
    };
    // What has gone to standard output does not come back.
    if places.iter().any(|place| place.reference.is_stdout()) {
        return Err(error.context("the layer index of others may be wrong; build again without it"));
    }
    tracing::warn!("{error}; a record in the layer index of others may be wrong, so none of them is believed now");
    let index = build.index.disbelieving();
    put(&Build { index: &index, name: build.name.clone(), ..*build }, places)
}

fn is_changed(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(DestinationError::Changed { .. }))
}

fn put(build: &Build<'_>, places: &[Place]) -> anyhow::Result<Vec<Image>> {
    let compressions = places.iter().map(Place::compression).collect::<Result<Vec<_>, _>>()?;
    check_parent(build.parent, places)?;
    check_cache_store(build.spec, places)?;
    let base = Base::new(build.parent, build.spec, build.closure)?;
    for path in base.wanted().into_iter().chain(build.contents) {
        restore::check(build.files, build.location, path)?;
    }
    let Layers { layers, history } = Layers::plan(build, &base)?;
    let (jobs, said): (Vec<LayerJob<'_>>, Vec<Said>) = layers.into_iter().map(|layer| (layer.job, layer.said)).unzip();
    let source = Source { files: build.files, store_dir: base.image_dir() };
    let mut delivery =
        Delivery { source, jobs, compression: Compression::None, threads: build.threads, progress: build.progress };
    let mut images = Vec::new();
    for (Place { reference, format, .. }, compression) in places.iter().zip(compressions) {
        delivery.compression = compression;
        if reference.is_archive() {
            forget_others(build.index, &mut delivery, &said);
        }
        recall(build.index, &mut delivery.jobs, compression);
        let mut destination = destination::open(reference, build.registries)?;
        if let ImageReference::Folder { folder } = reference {
            hold(build, &base, folder);
        }
        let delivered = destination.put_layers(&delivery)?;
        remember(build.index, &mut delivery, &delivered);
        let layers = finished(compression, delivered, &said);
        let built = assemble(build, &base, *format, layers, history.as_deref())?;
        destination.finish(&built, &delivery)?;
        if let ImageReference::Folder { folder } = reference {
            release(build, &base, folder);
        }
        images.push(built);
    }
    Ok(images)
}

/// Finds what is known of the layers in the form that a destination wants.
fn recall(index: &LayerIndex, jobs: &mut [LayerJob<'_>], compression: Compression) {
    for job in jobs {
        let known = job.known.as_ref().filter(|_| !compression.is_none());
        job.packed = known.and_then(|known| index.packed(&job.key, &known.diff_id, compression));
    }
}

/// Forgets what only others know of layers: an archive has all bytes anyway, so their
/// digests are found out on the way.
fn forget_others(index: &LayerIndex, delivery: &mut Delivery<'_>, said: &[Said]) {
    if index.believes_others() {
        let own = delivery.jobs.iter_mut().zip(said).filter(|(_, said)| said.known_as.is_some());
        own.for_each(|(job, _)| job.known = index.get(&job.key));
    }
}

/// Remembers what is new, for the next destination and the next build, and tells others.
fn remember(index: &LayerIndex, delivery: &mut Delivery<'_>, delivered: &[Delivered]) {
    let compression = delivery.compression;
    for (job, Delivered { record, blob }) in delivery.jobs.iter_mut().zip(delivered) {
        let is_kept = matches!(job.content, Content::Blob(_));
        if !is_kept && !compression.is_none() {
            if job.packed.as_ref() == Some(blob) {
                index.share_packed(&job.key, &record.diff_id, compression, blob);
            } else {
                index.put_packed(&job.key, &record.diff_id, compression, blob);
            }
        }
        match (job.known.as_ref() == Some(record), &job.content) {
            (true, Content::Store { .. }) => index.share(&job.key, record),
            (true, _) => {}
            (false, Content::Store { .. }) => index.put_store_layer(&job.key, record),
            (false, _) => index.put(&job.key, record),
        }
        job.known = Some(record.clone());
    }
}

/// The layers as config and manifest list them.
fn finished(compression: Compression, delivered: Vec<Delivered>, said: &[Said]) -> Vec<ImageLayer> {
    let layer = |(Delivered { record, blob }, said): (Delivered, &Said)| {
        let own_form = (!compression.is_none()).then(|| compression.form());
        let note = said.known_as.clone().map(|known_as| Note {
            key: known_as.key,
            size: record.size,
            architectures: record.architectures.clone(),
            form: if said.blob.is_some() { known_as.form } else { own_form },
        });
        let media_type = compression.media_type().to_owned();
        let blob = Descriptor { media_type, digest: blob.digest, size: blob.size };
        let (comment, blob) = (said.comment.clone(), said.blob.clone().unwrap_or(blob));
        ImageLayer { record, comment, blob, note }
    };
    delivered.into_iter().zip(said).map(layer).collect()
}

fn assemble(
    build: &Build<'_>,
    base: &Base<'_>,
    format: ManifestFormat,
    layers: Vec<ImageLayer>,
    history: Option<&str>,
) -> anyhow::Result<Image> {
    let spec = build.spec;
    let inherited = &base.inherited;
    let of_parent = base.parent.map_or(0, |parent| parent.layers.len());
    let records = layers.iter().skip(of_parent).map(|layer| &layer.record);
    let own = spec.architecture.clone().or_else(|| config::architecture(records));
    let parent = base.parent.map_or("", |parent| &parent.name);
    let architecture = inherited.architecture(own, parent)?.unwrap_or_else(|| {
        tracing::warn!("no program in the image tells its architecture; it is taken to be amd64, unless the spec's `architecture` says otherwise");
        "amd64".to_owned()
    });
    let mut container = inherited.container(&spec.config, &base.user, spec.user.is_some());
    if !build.extras.trees.is_empty() {
        container.lead_to(&build.extras.trees, base.all.store_dir(), &spec.config);
    }
    if let Some(dir) = &spec.cache_store {
        container.set_default("NIX_REMOTE", &setup::of_linked(Path::new(dir)));
        container.enter_by(&[&format!("/{}", system::PROGRAM), "enter"]);
    }
    let config = config::serialise(&spec.created, &architecture, &container, &layers, inherited, history);
    let manifest = format.manifest(&config, &layers);
    Ok(Image { name: build.name.clone(), config, manifest, layers })
}

/// What holds all that is in the store.
fn held(build: &Build<'_>, base: &Base<'_>) -> Vec<StorePath> {
    base.held().into_iter().filter(|path| !build.files.is_elsewhere(path)).collect()
}

/// Before any file is read, so that no collector takes one away meanwhile.
fn hold(build: &Build<'_>, base: &Base<'_>, folder: &Path) {
    if build.hold
        && let Err(error) = roots::hold(build.location, &folder.join("roots"), &held(build, base))
    {
        tracing::warn!("the store paths of {} are not held against garbage collection: {error}", folder.display());
    }
}

fn release(build: &Build<'_>, base: &Base<'_>, folder: &Path) {
    if build.hold
        && let Err(error) = roots::release_others(&folder.join("roots"), &held(build, base))
    {
        tracing::warn!("store paths of an older image are still held by {}: {error}", folder.display());
    }
}
