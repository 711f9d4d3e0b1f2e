//! Reads a parent, in a straight line: its parts, its layers one upon the other,
//! its texts, its registrations.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::blob::Spool;
use super::files::Files;
use super::find::{Found, FoundLayer};
use super::layers::{self, Content, Layer, Merged, Unread};
use super::unregistered::Image;
use super::{Entry, LayerBytes, Parent, ParentError, ParentLayer, Root, overlay, parts, registrations, texts};
use crate::destination::{ImageReference, folder};
use crate::digest::Digest;
use crate::image::Platform;
use crate::image::manifest::Manifest;
use crate::layer::deliver::Content as JobContent;
use crate::plan::saved;
use crate::registry::Registries;
use crate::store::{PathInfo, StoreDir, StorePath};

/// How many layers an image may have. Docker runs no image with more than 125.
const MAX_LAYERS: usize = 1000;

/// How to read a parent.
#[derive(Clone, Copy)]
pub struct ReadOptions<'a> {
    /// The store dir of its paths.
    pub store_dir: &'a StoreDir,
    /// The platform for which to choose an image from an index; without one, there has to be
    /// only one.
    pub platform: Option<&'a Platform>,
    /// Whether a layer of an image in a registry is what the image's history tells of it, so
    /// that layers of store paths need not be fetched. How large their tars are is not known
    /// then.
    pub believe_history: bool,
    /// How to reach registries.
    pub registries: &'a Registries,
    /// The registrations that this machine's store has for paths: those that it has
    /// any for.
    pub host: &'a dyn Fn(&[StorePath]) -> Vec<PathInfo>,
}

/// Reads the image that `reference` names.
///
/// # Errors
/// When it is none, is damaged, or could fool or harm whoever uses it.
pub fn read(reference: &ImageReference, options: &ReadOptions<'_>) -> Result<Parent, ParentError> {
    let name = reference.to_string();
    let (config, unread) = find(&name, reference, options)?;
    let config = parse_config(&name, &config)?;
    let diff_ids = diff_ids(&name, &config, unread.len())?;
    let mut spool = Spool::new().map_err(ParentError::Temporary)?;
    let (layers, merged) = layers::read(&name, unread, &diff_ids, options.store_dir, &mut spool)?;
    let store = options.store_dir.as_str().trim_start_matches('/').as_bytes();
    let places = places(&merged, store);
    let paths: BTreeSet<StorePath> = places.keys().cloned().collect();
    let image = Image { name: &name, layers: &layers, store_dir: options.store_dir, paths: &paths };
    let texts =
        texts::read(&layers, &merged, store, &mut spool).map_err(|(layer, problem)| image.error(layer, problem))?;
    let registrations = registrations::find(&image, &merged, options.host, &mut spool)?;
    let layers = assemble(layers, &config, &places);
    let entries = entries(merged, store);
    Ok(Parent { name, config, layers, root: Root { entries, texts }, registrations })
}

/// The image's config, and its layers before they are looked at.
fn find(
    name: &str,
    reference: &ImageReference,
    options: &ReadOptions<'_>,
) -> Result<(Vec<u8>, Vec<Unread>), ParentError> {
    if let ImageReference::Folder { folder } = reference {
        return find_in_folder(name, folder, options.store_dir);
    }
    let found = parts::find_one(reference, options.registries, options.platform)?;
    if matches!(reference, ImageReference::Registry(_)) {
        return Ok(unread(found, options));
    }
    let Found { config, layers, .. } = found;
    Ok((config, layers.into_iter().map(Unread::Blob).collect()))
}

/// The layers of an image in a registry, of which only those are fetched that have to be.
fn unread(found: Found, options: &ReadOptions<'_>) -> (Vec<u8>, Vec<Unread>) {
    let Found { config, layers, .. } = found;
    let listed = listed(&config, options);
    let unread = |(number, found): (usize, FoundLayer)| match listed.get(&number) {
        Some(paths) if found.descriptor.is_some() => Unread::Listed { found, paths: paths.clone() },
        _ => Unread::Blob(found),
    };
    (config, layers.into_iter().enumerate().map(unread).collect())
}

/// The store paths of the layers, by their numbers, whose history tells them; none where
/// that is not to be believed.
fn listed(config: &[u8], options: &ReadOptions<'_>) -> BTreeMap<usize, Vec<StorePath>> {
    let config: Value = serde_json::from_slice(config).unwrap_or_default();
    let history = config["history"].as_array().into_iter().flatten().filter(|_| options.believe_history);
    let layers = history.filter(|entry| entry["empty_layer"] != true).enumerate();
    let paths = |entry: &Value| {
        let names = saved::paths_of_comment(entry["comment"].as_str()?);
        let paths = names.iter().map(|name| StorePath::from_basename(name.as_bytes()).ok());
        paths.collect::<Option<Vec<_>>>().filter(|paths| !paths.is_empty())
    };
    layers.filter_map(|(number, entry)| Some((number, paths(entry)?))).collect()
}

/// The parts of an image folder.
fn find_in_folder(name: &str, path: &Path, store_dir: &StoreDir) -> Result<(Vec<u8>, Vec<Unread>), ParentError> {
    let problem = |problem: String| ParentError::NoImage { name: name.to_owned(), problem };
    let read = folder::read(path)?;
    if read.store_dir != *store_dir {
        return Err(problem(format!("has the store dir {}, and not {store_dir}", read.store_dir)));
    }
    let manifest: Manifest = serde_json::from_slice(&read.image.manifest)
        .map_err(|error| problem(format!("has a manifest that can't be read: {error}")))?;
    let files = Files::Folder(path.to_owned());
    let mut unread = Vec::new();
    for ((job, layer), descriptor) in read.jobs.into_iter().zip(&read.image.layers).zip(manifest.layers) {
        unread.push(match job.content {
            JobContent::Store { paths, stamp, .. } => {
                Unread::Store { key: job.key, record: layer.record.clone(), paths, stamp }
            }
            _ => {
                let file = format!("blobs/sha256/{}", descriptor.digest.to_hex());
                let blob = files.get(&file)?.ok_or_else(|| problem(format!("has no {file}")))?;
                Unread::Blob(FoundLayer { blob, descriptor: Some(descriptor) })
            }
        });
    }
    Ok((read.image.config, unread))
}

pub(super) fn parse_config(name: &str, bytes: &[u8]) -> Result<Value, ParentError> {
    let problem = |problem: String| ParentError::NoImage { name: name.to_owned(), problem };
    let config: Value =
        serde_json::from_slice(bytes).map_err(|error| problem(format!("has a config that can't be read: {error}")))?;
    match config["os"].as_str() {
        Some(os) if os != "linux" && !os.is_empty() => Err(problem(format!("is for {os}; only Linux has such images"))),
        _ => Ok(config),
    }
}

/// What the config says of the digests of the uncompressed layers.
pub(super) fn diff_ids(name: &str, config: &Value, layers: usize) -> Result<Vec<Digest>, ParentError> {
    let problem = |problem: String| ParentError::NoImage { name: name.to_owned(), problem };
    let listed = config["rootfs"]["diff_ids"].as_array().map(Vec::as_slice).unwrap_or_default();
    if listed.len() != layers {
        return Err(problem(format!("has {layers} layers, and a config of {}", listed.len())));
    }
    if layers > MAX_LAYERS {
        return Err(problem(format!("has {layers} layers, which nothing runs")));
    }
    let parse = |digest: &Value| {
        Digest::parse(digest.as_str().unwrap_or_default())
            .map_err(|error| problem(format!("has a config that can't be read: {error}")))
    };
    listed.iter().map(parse).collect()
}

/// The store paths, each with the topmost layer that has something of it.
fn places(merged: &Merged, store: &[u8]) -> BTreeMap<StorePath, usize> {
    let paths = merged.overlay.within(store).filter(|(path, _)| *path != store);
    // Locks and the hard links of an optimised store are no store paths.
    let parse = |path: &[u8]| StorePath::from_basename(overlay::split(path).1).ok();
    paths.filter_map(|(path, placed)| Some((parse(path)?, placed.layer))).collect()
}

/// What is outside of the store; and where an optimised one has its hard links, since
/// Nix writes there.
fn entries(merged: Merged, store: &[u8]) -> BTreeMap<Vec<u8>, Entry> {
    let all = merged.overlay.into_map().into_iter();
    let is_links = |path: &[u8]| overlay::split(path) == (store, b".links");
    let others = all.filter(|(path, _)| path == store || is_links(path) || !overlay::is_within(path, store));
    others.map(|(path, placed)| (path, placed.entry)).collect()
}

fn assemble(layers: Vec<Layer>, config: &Value, places: &BTreeMap<StorePath, usize>) -> Vec<ParentLayer> {
    let history = config["history"].as_array().into_iter().flatten();
    let history = history.filter(|entry| entry["empty_layer"] != true);
    let comments = history.map(|entry| entry["comment"].as_str().unwrap_or_default()).chain(std::iter::repeat(""));
    layers
        .into_iter()
        .zip(comments)
        .enumerate()
        .map(|(number, (layer, comment))| {
            let (paths, bytes) = match layer.content {
                // All that its bytes are made of, wherever else they are.
                Content::Store { paths, bytes } => (paths, bytes),
                Content::Blob(blob) => {
                    let own = places.iter().filter(|(_, layer)| **layer == number).map(|(path, _)| path.clone());
                    let origin = blob.origin().cloned();
                    (own.collect(), LayerBytes::Blob { open: blob.opener(), origin })
                }
            };
            ParentLayer { record: layer.record, blob: layer.descriptor, comment: comment.to_owned(), paths, bytes }
        })
        .collect()
}
