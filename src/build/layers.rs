//! Which layers an image has, the lowest first: those of its parent, store paths,
//! the hook, the system layer.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use super::Build;
use super::base::Base;
use super::plans;
use crate::digest::Digest;
use crate::image::extras::Extras;
use crate::image::manifest::Descriptor;
use crate::image::spec::{MAX_LAYERS, SpecError};
use crate::image::system::{self, SystemLayer};
use crate::image::{ImageLayer, ImageSpec};
use crate::layer::blob::LayerBlob;
use crate::layer::deliver::{Content, LayerJob};
use crate::layer::index::LayerIndex;
use crate::layer::key::KeyHasher;
use crate::layer::{LayerKey, LayerRecord};
use crate::parent::compression::{Compression, taken};
use crate::parent::{LayerBytes, Parent, ParentLayer};
use crate::plan::saved;
use crate::store::{Closure, StorePath};

/// What the history says of the hook's layer.
const HOOK_COMMENT: &str = "stowage and its post-build hook";

/// What it says of the system layer.
const SYSTEM_COMMENT: &str = "Nix database, user, links to contents";

/// The layers of an image.
pub struct Layers<'a> {
    /// The layers, the lowest first.
    pub layers: Vec<Planned<'a>>,
    /// What the next plan should know of this one, if anything.
    pub history: Option<String>,
}

/// A layer to make, and what is said of it.
pub struct Planned<'a> {
    /// The layer.
    pub job: LayerJob<'a>,
    /// What is said of it.
    pub said: Said,
}

/// What config and manifest say of a layer.
pub struct Said {
    /// What the history says of it.
    pub comment: String,
    /// What the manifest says of it, if it is a blob that is kept as it is.
    pub blob: Option<Descriptor>,
    /// What others may know the layer by.
    pub known_as: Option<KnownAs>,
}

/// What a layer of store paths is known by.
#[derive(Clone)]
pub struct KnownAs {
    /// Its key.
    pub key: LayerKey,
    /// The form of a blob that is kept as it is.
    pub form: Option<String>,
}

/// How many layers an image may have at the most whose parent has `parent` ones, and
/// that needs `least`. Unset, that is half of what the parent has left, so that
/// others can be built on the image in turn.
#[must_use]
pub fn most(spec: &ImageSpec, parent: u64, least: u64) -> u64 {
    let half = parent + MAX_LAYERS.saturating_sub(parent) / 2;
    spec.max_layers.unwrap_or(half.max(least)).min(MAX_LAYERS)
}

fn left(most: u64, others: u64) -> NonZeroUsize {
    NonZeroUsize::new(usize::try_from(most.saturating_sub(others)).unwrap_or(1)).unwrap_or(NonZeroUsize::MIN)
}

impl<'a> Layers<'a> {
    /// The layers of the image.
    ///
    /// # Errors
    /// When there would be too many; or as [`SystemLayer::make`].
    pub fn plan(build: &Build<'a>, base: &'a Base<'a>) -> anyhow::Result<Self> {
        let hook = hook(build, base);
        let of_parent = base.parent.map_or(&[][..], |parent| &parent.layers[..]);
        let limit = limit(build.spec, base.parent, Needed::new(build.extras, &base.new), hook.is_some())?;
        let policy = build.spec.policy(limit, build.extras, build.previous.to_vec());
        let plan = plans::plan(&base.new, &policy, build.index);
        // A first plan knows nothing but what the layers' comments tell anyway; over a parent
        // it tells which of them are ours.
        let is_told = plan.history.revisions > 0 || base.parent.is_some();
        let history = is_told.then(|| saved::to_comment(&plan.history));
        let mut layers: Vec<Planned<'a>> =
            of_parent.iter().enumerate().map(|(number, layer)| kept(number, layer)).collect();
        for layer in &plan.layers {
            let infos = layer.paths.iter().map(|id| base.new.info(*id));
            let stamp = build.spec.stamp.clone();
            let key = LayerKey::of_store_paths(base.image_dir(), &stamp, infos.clone());
            let paths: Vec<StorePath> = infos.map(|info| info.path.clone()).collect();
            let elsewhere = paths.iter().any(|path| build.files.is_elsewhere(path));
            let content = Content::Store { paths, stamp, elsewhere };
            let job = LayerJob {
                key,
                content,
                estimate: layer.nar_size(&base.new),
                known: build.index.find(&key),
                packed: None,
            };
            let comment = saved::layer_comment(layer.paths.iter().map(|id| base.new.print(*id)));
            let known_as = Some(KnownAs { key, form: None });
            layers.push(Planned { job, said: Said { comment, blob: None, known_as } });
        }
        layers.extend(hook);
        let is_first = layers.len() == of_parent.len();
        let system = system(build, base);
        // All the same, if nothing lies between them.
        if let Some(top) = of_parent.last().filter(|_| is_first)
            && digest(&system.job, build.index)? == top.record.diff_id
        {
            return Ok(Self { layers, history });
        }
        layers.push(system);
        Ok(Self { layers, history })
    }
}

/// The layers that store paths need at the least.
#[derive(Clone, Copy)]
pub struct Needed {
    /// Those that were made ahead.
    fixed: u64,
    /// Whether there are other paths.
    has_others: bool,
}

impl Needed {
    /// Those of `new`, the paths that the parent has not.
    #[must_use]
    pub fn new(extras: &Extras, new: &Closure) -> Self {
        let is_new = |path: &&StorePath| new.find(path).is_some();
        let fixed = extras.fixed.iter().filter(|fixed| fixed.paths.iter().any(|path| is_new(&path))).count();
        let made: BTreeSet<&StorePath> = extras.fixed.iter().flat_map(|fixed| &fixed.paths).filter(is_new).collect();
        Self { fixed: fixed as u64, has_others: made.len() < new.len() }
    }
}

/// How many layers are left for store paths, over `parent` and below the system layer.
///
/// # Errors
/// When there are too few.
pub fn limit(
    spec: &ImageSpec,
    parent: Option<&Parent>,
    needed: Needed,
    has_hook: bool,
) -> Result<NonZeroUsize, SpecError> {
    // Where no number is given, groups that are too many share the last layer of theirs.
    let groups = spec.max_layers.map_or(0, |_| spec.groups.len() as u64) + needed.fixed;
    let of_parent = parent.map_or(0, |parent| parent.layers.len() as u64);
    // A plan wants a layer, if only an empty one, where there may be any.
    let is_empty = parent.is_none() && needed.fixed == 0 && spec.include_store_paths;
    let has_others = needed.has_others || is_empty;
    let others = of_parent + 1 + u64::from(has_hook);
    let least = others + u64::from(has_others) + groups;
    let of_parent_and_others = parent.map_or(String::new(), |parent| format!("{} has {of_parent}, and ", parent.name));
    spec.check_layers(least, &format!("{}{of_parent_and_others}", of_groups(groups)))?;
    Ok(left(most(spec, of_parent, least), others))
}

fn of_groups(groups: u64) -> String {
    if groups == 0 { String::new() } else { format!("`layers` asks for {groups}, and ") }
}

/// A layer of the parent's, as it is; but OCI knows no xz.
fn kept(number: usize, layer: &ParentLayer) -> Planned<'static> {
    let mut blob = layer.blob.clone();
    let compression = Compression::of_media_type(&blob.media_type);
    let (key, content) = match &layer.bytes {
        LayerBytes::Store { key, stamp, .. } => {
            (*key, Content::Store { paths: layer.paths.clone(), stamp: stamp.clone(), elsewhere: false })
        }
        LayerBytes::Blob { open, origin } => {
            let mut hasher = KeyHasher::new("stowage parent layer v1");
            // Some images have a layer twice.
            hasher.add(&number.to_be_bytes());
            hasher.add(blob.digest.to_string().as_bytes());
            let mut open = open.clone();
            if compression == Compression::Xz {
                open = compression.uncompressed(&open);
                blob = ImageLayer::plain(layer.record.clone(), String::new()).blob;
            }
            (hasher.finish(), Content::Blob(LayerBlob { origin: origin.clone(), ..taken(&blob, &open) }))
        }
    };
    let blob = matches!(content, Content::Blob(_)).then_some(blob);
    let job = LayerJob { key, content, estimate: layer.record.size, known: Some(layer.record.clone()), packed: None };
    Planned { job, said: Said { comment: layer.comment.clone(), blob, known_as: None } }
}

/// The layer with stowage itself, unless the parent has the same.
fn hook<'a>(build: &Build<'a>, base: &'a Base<'a>) -> Option<Planned<'a>> {
    let program = build.hook?;
    let ground = base.ground();
    let key = system::hook_layer_key(program, ground);
    let content = Content::Made(Box::new(move || Ok(system::hook_layer(program, ground))));
    let job = LayerJob { key, content, estimate: program.len() as u64, known: build.index.get(&key), packed: None };
    let layers = base.parent.map_or(&[][..], |parent| &parent.layers[..]);
    // The last of them is the one that is seen.
    let last = layers.iter().rev().find(|layer| layer.comment == HOOK_COMMENT);
    if let Some(last) = last
        && digest(&job, build.index).is_ok_and(|digest| digest == last.record.diff_id)
    {
        return None;
    }
    Some(Planned { job, said: Said { comment: HOOK_COMMENT.to_owned(), blob: None, known_as: None } })
}

fn system<'a>(build: &Build<'a>, base: &'a Base<'a>) -> Planned<'a> {
    let Build { spec, contents, extras, files, index, .. } = *build;
    let (user, closure, ground) = (&base.user, &base.all, base.ground());
    let system = SystemLayer { spec, user, closure, contents, extras, index, ground };
    let key = system.key();
    let content = Content::Made(Box::new(move || system.make(files)));
    let job = LayerJob { key, content, estimate: 0, known: index.get(&key), packed: None };
    Planned { job, said: Said { comment: SYSTEM_COMMENT.to_owned(), blob: None, known_as: None } }
}

/// The digest of a layer that is made in memory; whether it was made before must not
/// decide anything, so it is made if it has to be.
fn digest(job: &LayerJob<'_>, index: &LayerIndex) -> anyhow::Result<Digest> {
    if let Some(LayerRecord { diff_id, .. }) = job.known {
        return Ok(diff_id);
    }
    let Content::Made(make) = &job.content else {
        anyhow::bail!("a layer that is not made in memory; this is a defect of stowage");
    };
    let record = LayerRecord::of_tar(&make()?);
    index.put(&job.key, &record);
    Ok(record.diff_id)
}
