//! From a closure to an image at its destinations, in a straight line.

pub mod base;
pub mod layers;

use std::path::Path;

use anyhow::Context as _;
use base::Base;
use layers::{Layers, Said};

use crate::destination::folder::ReadFolder;
use crate::destination::{self, Delivery, DestinationError, ImageReference};
use crate::image::{Image, ImageLayer, ImageName, ImageSpec, config, manifest};
use crate::layer::LayerRecord;
use crate::layer::deliver::{Content, LayerJob, Progress, Source};
use crate::layer::index::LayerIndex;
use crate::parent::Parent;
use crate::plan::Previous;
use crate::store::{Closure, StoreLocation, StorePath, roots};
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
    /// Told how much is done.
    pub progress: Progress<'a>,
}

/// Builds the image and puts it at each of `references`.
///
/// # Errors
/// When it does not fit its parent, a path is gone, a layer can't be made, or a
/// destination not be written.
pub fn build(build: &Build<'_>, references: &[ImageReference]) -> anyhow::Result<Image> {
    let base = Base::new(build.parent, build.spec, build.closure)?;
    let files = StoreFiles::open(&build.location.real_dir)?;
    for path in base.wanted().into_iter().chain(build.contents) {
        files.check(path)?;
    }
    let Layers { layers, history } = Layers::plan(build, &base, &files)?;
    let (jobs, said): (Vec<LayerJob<'_>>, Vec<Said>) = layers.into_iter().map(|layer| (layer.job, layer.said)).unzip();
    let source = Source { files: &files, store_dir: base.store_dir() };
    let mut delivery = Delivery { source, jobs, threads: build.threads, progress: build.progress };
    let mut image = None;
    for reference in references {
        let mut destination = destination::open(reference)?;
        if let ImageReference::Folder { folder } = reference {
            hold(build, &base, folder);
        }
        let records = destination.put_layers(&delivery)?;
        remember(build.index, &mut delivery.jobs, &records);
        let built = assemble(build, &base, records, &said, history.as_deref())?;
        destination.finish(&built, &delivery)?;
        if let ImageReference::Folder { folder } = reference {
            release(build, &base, folder);
        }
        image = Some(built);
    }
    image.context("no destination was named")
}

/// Remembers what is new, for the next destination and the next build.
fn remember(index: &LayerIndex, jobs: &mut [LayerJob<'_>], records: &[LayerRecord]) {
    for (job, record) in jobs.iter_mut().zip(records) {
        if job.known.as_ref() != Some(record) {
            index.put(&job.key, record);
            job.known = Some(record.clone());
        }
    }
}

fn assemble(
    build: &Build<'_>,
    base: &Base<'_>,
    records: Vec<LayerRecord>,
    said: &[Said],
    history: Option<&str>,
) -> anyhow::Result<Image> {
    let spec = build.spec;
    let inherited = &base.inherited;
    let of_parent = base.parent.map_or(0, |parent| parent.layers.len());
    let own = spec.architecture.clone().or_else(|| config::architecture(records.iter().skip(of_parent)));
    let parent = base.parent.map_or("", |parent| &parent.name);
    let architecture = inherited.architecture(own, parent)?.unwrap_or_else(|| {
        tracing::warn!("no program in the image tells its architecture; it is taken to be amd64, unless the spec's `architecture` says otherwise");
        "amd64".to_owned()
    });
    let layer = |(record, said): (LayerRecord, &Said)| {
        let plain = ImageLayer::plain(record, said.comment.clone());
        ImageLayer { blob: said.blob.clone().unwrap_or(plain.blob), ..plain }
    };
    let layers: Vec<ImageLayer> = records.into_iter().zip(said).map(layer).collect();
    let container = inherited.container(&spec.config, &base.user, spec.user.is_some());
    let config = config::serialise(&spec.created, &architecture, &container, &layers, inherited, history);
    let manifest = manifest::oci(&config, &layers);
    Ok(Image { name: build.name.clone(), config, manifest, layers })
}

/// Before any file is read, so that no collector takes one away meanwhile.
fn hold(build: &Build<'_>, base: &Base<'_>, folder: &Path) {
    if build.hold
        && let Err(error) = roots::hold(build.location, &folder.join("roots"), &base.held())
    {
        tracing::warn!("the store paths of {} are not held against garbage collection: {error}", folder.display());
    }
}

fn release(build: &Build<'_>, base: &Base<'_>, folder: &Path) {
    if build.hold
        && let Err(error) = roots::release_others(&folder.join("roots"), &base.held())
    {
        tracing::warn!("store paths of an older image are still held by {}: {error}", folder.display());
    }
}

/// Puts an image that was read from a folder at `reference`.
///
/// # Errors
/// As for [`build`].
pub fn copy(
    read: ReadFolder,
    reference: &ImageReference,
    real_dir: Option<&Path>,
    threads: usize,
    progress: Progress<'_>,
) -> anyhow::Result<Image> {
    let files = StoreFiles::open(real_dir.unwrap_or(Path::new(read.store_dir.as_str())))?;
    for job in &read.jobs {
        if let Content::Store { paths, .. } = &job.content {
            paths.iter().try_for_each(|path| files.check(path))?;
        }
    }
    let source = Source { files: &files, store_dir: &read.store_dir };
    let delivery = Delivery { source, jobs: read.jobs, threads, progress };
    let mut destination = destination::open(reference)?;
    let records = destination.put_layers(&delivery)?;
    for (record, layer) in records.iter().zip(&read.image.layers) {
        if record.diff_id != layer.record.diff_id {
            return Err(DestinationError::Changed {
                paths: layer.comment.clone(),
                expected: layer.record.diff_id.to_string(),
                found: record.diff_id.to_string(),
            }
            .into());
        }
    }
    destination.finish(&read.image, &delivery)?;
    Ok(read.image)
}
