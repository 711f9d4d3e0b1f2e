//! From a closure to an image at its destinations, in a straight line.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::Context as _;

use crate::destination::folder::ReadFolder;
use crate::destination::{self, Delivery, DestinationError, ImageReference};
use crate::image::system::{self, SystemLayer};
use crate::image::{Image, ImageLayer, ImageName, ImageSpec, config, manifest};
use crate::layer::deliver::{Content, LayerJob, Progress, Source};
use crate::layer::index::LayerIndex;
use crate::layer::{LayerKey, LayerRecord};
use crate::plan::{self, LayerPlan, Previous, saved};
use crate::store::{Closure, StoreLocation, StorePath, roots};
use crate::tree::StoreFiles;

/// What an image is made of, and with.
pub struct Build<'a> {
    /// What it is to be.
    pub spec: &'a ImageSpec,
    /// What it is called.
    pub name: ImageName,
    /// All its store paths.
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

/// How many layers are left for store paths.
#[must_use]
pub fn store_layers(spec: &ImageSpec) -> NonZeroUsize {
    let others = spec.least_layers() - 1;
    let left = spec.max_layers.min(crate::image::spec::MAX_LAYERS).saturating_sub(others);
    NonZeroUsize::new(usize::try_from(left).unwrap_or(1)).unwrap_or(NonZeroUsize::MIN)
}

/// Builds the image and puts it at each of `references`.
///
/// # Errors
/// When a path is gone, a layer can't be made, or a destination not be written.
pub fn build(build: &Build<'_>, references: &[ImageReference]) -> anyhow::Result<Image> {
    let plan = plan::plan(build.closure, &build.spec.policy(store_layers(build.spec), build.previous.to_vec()));
    let files = StoreFiles::open(&build.location.real_dir)?;
    for info in build.closure.infos() {
        files.check(&info.path)?;
    }
    let system = SystemLayer { spec: build.spec, closure: build.closure, contents: build.contents, index: build.index };
    let source = Source { files: &files, store_dir: build.closure.store_dir() };
    let mut delivery = Delivery {
        source,
        jobs: jobs(build, &plan, &system, &files),
        threads: build.threads,
        progress: build.progress,
    };
    let mut image = None;
    for reference in references {
        let mut destination = destination::open(reference)?;
        if let ImageReference::Folder { folder } = reference {
            hold(build, folder);
        }
        let records = destination.put_layers(&delivery)?;
        remember(build.index, &mut delivery.jobs, &records);
        let built = assemble(build, &plan, records);
        destination.finish(&built, &delivery)?;
        if let ImageReference::Folder { folder } = reference {
            release(build, folder);
        }
        image = Some(built);
    }
    image.context("no destination was named")
}

/// The layers in their order: store paths, the hook, the system layer.
fn jobs<'a>(build: &Build<'a>, plan: &LayerPlan, system: &SystemLayer<'a>, files: &'a StoreFiles) -> Vec<LayerJob<'a>> {
    let closure = build.closure;
    let store = plan.layers.iter().map(|layer| {
        let infos = layer.paths.iter().map(|id| closure.info(*id));
        LayerJob {
            key: LayerKey::of_store_paths(closure.store_dir(), &build.spec.owner, infos.clone()),
            content: Content::Store {
                paths: infos.map(|info| info.path.clone()).collect(),
                owner: build.spec.owner.clone(),
            },
            estimate: layer.nar_size(closure),
            known: None,
        }
    });
    let hook = build.hook.map(|program| LayerJob {
        key: system::hook_layer_key(program),
        content: Content::Made(Box::new(|| Ok(system::hook_layer(program)))),
        estimate: program.len() as u64,
        known: None,
    });
    let system = *system;
    let system = LayerJob {
        key: system.key(),
        content: Content::Made(Box::new(move || system.make(files))),
        estimate: 0,
        known: None,
    };
    let mut jobs: Vec<LayerJob<'a>> = store.chain(hook).chain([system]).collect();
    for job in &mut jobs {
        job.known = build.index.get(&job.key);
    }
    jobs
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

fn assemble(build: &Build<'_>, plan: &LayerPlan, records: Vec<LayerRecord>) -> Image {
    let spec = build.spec;
    let found = || {
        config::architecture(&records).unwrap_or_else(|| {
            tracing::warn!("no program in the image tells its architecture; it is taken to be amd64, unless the spec's `architecture` says otherwise");
            "amd64".to_owned()
        })
    };
    let architecture = spec.architecture.clone().unwrap_or_else(found);
    let store =
        plan.layers.iter().map(|layer| saved::layer_comment(layer.paths.iter().map(|id| build.closure.print(*id))));
    let hook = build.hook.map(|_| "stowage and its post-build hook".to_owned());
    let comments = store.chain(hook).chain(["Nix database, user, links to contents".to_owned()]);
    let layers: Vec<ImageLayer> =
        records.into_iter().zip(comments).map(|(record, comment)| ImageLayer::plain(record, comment)).collect();
    let container = config::with_defaults(spec.config.clone(), &spec.user);
    // A first plan knows nothing but what the layers' comments tell anyway.
    let history = (plan.history.revisions > 0).then(|| saved::to_comment(&plan.history));
    let config = config::serialise(&spec.created, &architecture, &container, history.as_deref(), &layers);
    let manifest = manifest::oci(&config, &layers);
    Image { name: build.name.clone(), config, manifest, layers }
}

/// The paths that hold all others.
fn top_level(closure: &Closure) -> Vec<StorePath> {
    closure.unreferenced().into_iter().map(|id| closure.info(id).path.clone()).collect()
}

/// Before any file is read, so that no collector takes one away meanwhile.
fn hold(build: &Build<'_>, folder: &Path) {
    if build.hold
        && let Err(error) = roots::hold(build.location, &folder.join("roots"), &top_level(build.closure))
    {
        tracing::warn!("the store paths of {} are not held against garbage collection: {error}", folder.display());
    }
}

fn release(build: &Build<'_>, folder: &Path) {
    if build.hold
        && let Err(error) = roots::release_others(&folder.join("roots"), &top_level(build.closure))
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
