//! Image folders: an image whose store layers are not written out, but named:
//! their store paths, keys and digests tell how to make them, and what comes of
//! it.
//!
//! `stowage.json` is the one file that makes the folder an image, and appears by
//! rename. It names the blobs beside it: config, manifest, and the layers that
//! are no store paths. As `nix-build -o` does, the folder holds its store paths
//! with GC roots: Nix follows the links in `gcroots/auto` to those in `roots`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::blobs::{Blobs, OnlyHash};
use super::{Delivery, Destination, DestinationError};
use crate::digest::Digest;
use crate::fs::LockedFolder;
use crate::image::manifest::{Descriptor, Manifest};
use crate::image::{Image, ImageLayer, ImageName, note};
use crate::layer::deliver::{BlobSink, BlobWriter, Content, LayerJob};
use crate::layer::{Delivered, LayerKey, LayerRecord, Stamp};
use crate::parent::compression::taken;
use crate::store::{StoreDir, StorePath};

/// The version of the folder's form.
const VERSION: u32 = 1;

/// The file that makes a folder an image.
const INDEX: &str = "stowage.json";

/// The file that says that a folder is for an image, before there is one.
const MARKER: &str = "image-folder";

/// The whole image, but its blobs' bytes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    version: u32,
    name: String,
    tag: String,
    store_dir: String,
    #[serde(flatten)]
    stamp: Stamp,
    config: Digest,
    manifest: Digest,
    layers: Vec<Layer>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    key: LayerKey,
    #[serde(flatten)]
    record: LayerRecord,
    comment: String,
    /// The store paths; a layer without is a blob in the folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    paths: Vec<String>,
    /// Whom they belong to, and of when they are, if not as the image's own: a parent may have
    /// had others.
    #[serde(flatten)]
    stamp: Option<Stamp>,
    /// Whether the blob is the bare tar of a layer that was made for this image.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    made: bool,
    /// The blob, where it is not the layer's bare tar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blob: Option<Descriptor>,
}

/// Whether a layer is only named: all of its store paths are in the store, and never change.
fn is_named(job: &LayerJob<'_>) -> bool {
    matches!(job.content, Content::Store { elsewhere: false, .. })
}

/// What the headers of the files in a layer of store paths say.
fn stamp<'a>(job: &'a LayerJob<'_>) -> Option<&'a Stamp> {
    match &job.content {
        Content::Store { stamp, .. } => Some(stamp),
        Content::Made(_) | Content::Blob(_) | Content::Tar(_) => None,
    }
}

/// A folder that an image is put into.
pub struct ImageFolder {
    folder: PathBuf,
    blobs: Blobs,
    _lock: LockedFolder,
}

impl ImageFolder {
    /// The image folder `folder`, which is made when it is not there.
    ///
    /// # Errors
    /// When it can't be written, or is something else.
    pub fn create(folder: &Path) -> Result<Self, DestinationError> {
        std::fs::create_dir_all(folder).map_err(DestinationError::write(folder))?;
        let lock = LockedFolder::lock(folder).map_err(DestinationError::write(folder))?;
        let marker = folder.join(MARKER);
        if !marker.exists() {
            if !super::oci_layout::is_empty(folder)? {
                return Err(DestinationError::Foreign {
                    path: folder.to_owned(),
                    problem: "is neither an image folder nor empty; name another folder".to_owned(),
                });
            }
            let text = b"An image folder of stowage.\n";
            crate::fs::write_atomically(&marker, text).map_err(DestinationError::write(&marker))?;
        }
        Ok(Self { folder: folder.to_owned(), blobs: Blobs::create(folder)?, _lock: lock })
    }
}

impl Destination for ImageFolder {
    fn put_layers(&mut self, delivery: &Delivery<'_>) -> anyhow::Result<Vec<Delivered>> {
        let is_there = |job: &LayerJob<'_>, expected: &Delivered| {
            is_named(job) || self.blobs.has(&expected.blob.digest, expected.blob.size)
        };
        super::put_missing(delivery, &self.folder, &NoStorePaths(&self.blobs), is_there)
    }

    fn finish(&mut self, image: &Image, delivery: &Delivery<'_>) -> anyhow::Result<()> {
        self.blobs.put(&image.config)?;
        self.blobs.put(&image.manifest)?;
        let stamp = delivery.jobs.iter().rev().find_map(stamp).cloned().unwrap_or_default();
        let index = Index {
            version: VERSION,
            name: image.name.repository.clone(),
            tag: image.name.tag.clone(),
            store_dir: delivery.source.store_dir.to_string(),
            config: image.config_digest(),
            manifest: image.digest(),
            layers: delivery
                .jobs
                .iter()
                .zip(&image.layers)
                .map(|(job, layer)| Layer::new(job, layer, delivery.source.store_dir, &stamp))
                .collect(),
            stamp,
        };
        let path = self.folder.join(INDEX);
        let mut text = serde_json::to_vec_pretty(&index)?;
        text.push(b'\n');
        let before = crate::fs::read_regular(&path).ok();
        if before.as_ref() != Some(&text) {
            crate::fs::write_atomically(&path, &text).map_err(DestinationError::write(&path))?;
        }
        // Blobs that only the image before this one had.
        let before = before.and_then(|text| serde_json::from_slice::<Index>(&text).ok());
        let wanted = index.blobs();
        for digest in before.iter().flat_map(Index::blobs).filter(|digest| !wanted.contains(digest)) {
            self.blobs.remove(&digest)?;
        }
        Ok(())
    }
}

impl Index {
    /// The blobs that are in the folder.
    fn blobs(&self) -> BTreeSet<Digest> {
        let blobs = self.layers.iter().filter(|layer| layer.paths.is_empty()).map(|layer| layer.blob().digest);
        blobs.chain([self.config, self.manifest]).collect()
    }

    /// What manifest and config say otherwise than the folder, if anything: they may
    /// come from anywhere.
    fn contradiction(&self, manifest: &[u8], config: &[u8]) -> Option<&'static str> {
        let Ok(manifest) = serde_json::from_slice::<Manifest>(manifest) else {
            return Some("has a manifest that can't be read");
        };
        let Ok(config) = serde_json::from_slice::<serde_json::Value>(config) else {
            return Some("has a config that can't be read");
        };
        let own = self.layers.iter().map(|layer| (layer.blob().digest, layer.blob().size));
        let listed = manifest.layers.iter().map(|layer| (layer.digest, layer.size));
        if manifest.config.digest != self.config || !listed.eq(own) {
            return Some("has a manifest of another image");
        }
        let diff_ids = config["rootfs"]["diff_ids"].as_array().into_iter().flatten();
        let same = diff_ids
            .map(|id| id.as_str().map(str::to_owned))
            .eq(self.layers.iter().map(|layer| Some(layer.record.diff_id.to_string())));
        (!same).then_some("has a config of another image")
    }
}

impl Layer {
    fn new(job: &LayerJob<'_>, layer: &ImageLayer, store_dir: &StoreDir, of_image: &Stamp) -> Self {
        let paths = match &job.content {
            Content::Store { paths, .. } if is_named(job) => {
                paths.iter().map(|path| store_dir.render_path(path)).collect()
            }
            _ => Vec::new(),
        };
        Self {
            key: job.key,
            record: layer.record.clone(),
            comment: layer.comment.clone(),
            paths,
            made: matches!(job.content, Content::Made(_) | Content::Store { elsewhere: true, .. }),
            stamp: stamp(job).filter(|stamp| *stamp != of_image).cloned(),
            blob: Some(layer.blob.clone()).filter(|blob| blob.digest != layer.record.diff_id),
        }
    }

    /// What the manifest says of it.
    fn blob(&self) -> Descriptor {
        self.blob.clone().unwrap_or_else(|| ImageLayer::plain(self.record.clone(), String::new()).blob)
    }
}

/// Keeps the bytes of layers that are no store paths, and none of the others.
struct NoStorePaths<'a>(&'a Blobs);

impl BlobSink for NoStorePaths<'_> {
    fn open(&self, job: &LayerJob<'_>) -> anyhow::Result<Box<dyn BlobWriter + '_>> {
        if is_named(job) { OnlyHash.open(job) } else { self.0.open(job) }
    }
}

/// An image that was read from a folder, with what it takes to make its layers.
pub struct ReadFolder {
    /// The image.
    pub image: Image,
    /// The store dir of its paths.
    pub store_dir: StoreDir,
    /// Its layers, all of them known.
    pub jobs: Vec<LayerJob<'static>>,
}

/// Reads the image folder `folder`.
///
/// # Errors
/// When it is none, or incomplete.
pub fn read(folder: &Path) -> Result<ReadFolder, DestinationError> {
    let path = folder.join(INDEX);
    let foreign = |problem: String| DestinationError::Foreign { path: path.clone(), problem };
    let text = crate::fs::read_regular(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => DestinationError::Foreign {
            path: folder.to_owned(),
            problem: format!("is no image folder: it has no {INDEX}"),
        },
        _ => DestinationError::read(&path)(error),
    })?;
    let index: Index =
        serde_json::from_slice(&text).map_err(|error| foreign(format!("is not of an image folder: {error}")))?;
    if index.version != VERSION {
        return Err(foreign(format!("has version {}, and this version of stowage knows {VERSION}", index.version)));
    }
    let name = ImageName::new(&index.name, &index.tag).map_err(|error| foreign(error.to_string()))?;
    let store_dir = StoreDir::new(index.store_dir.as_str()).map_err(|error| foreign(error.to_string()))?;
    let blobs = Blobs::of(folder);
    let (config, manifest) = (blobs.get(&index.config)?, blobs.get(&index.manifest)?);
    if let Some(problem) = index.contradiction(&manifest, &config) {
        return Err(foreign(problem.to_owned()));
    }
    // As many as layers, since the manifest lists these.
    let notes = note::notes(&manifest);
    let image = Image {
        name,
        config,
        manifest,
        layers: index
            .layers
            .iter()
            .zip(notes)
            .map(|(layer, note)| ImageLayer {
                record: layer.record.clone(),
                comment: layer.comment.clone(),
                blob: layer.blob(),
                note,
            })
            .collect(),
    };
    let jobs = index
        .layers
        .into_iter()
        .map(|layer| job(layer, &blobs, &store_dir, &index.stamp))
        .collect::<Result<_, _>>()
        .map_err(foreign)?;
    Ok(ReadFolder { image, store_dir, jobs })
}

fn job(layer: Layer, blobs: &Blobs, store_dir: &StoreDir, of_image: &Stamp) -> Result<LayerJob<'static>, String> {
    let content = if layer.paths.is_empty() {
        let blob = layer.blob();
        let taken = taken(&blob, &blobs.opener(&blob.digest));
        // Elsewhere it is compressed as if it was made there.
        if layer.made && layer.blob.is_none() { Content::Tar(taken) } else { Content::Blob(taken) }
    } else {
        let parse = |path: &String| store_dir.parse_path(path.as_bytes()).map_err(|error| format!("{path}: {error}"));
        let paths = layer.paths.iter().map(parse).collect::<Result<Vec<StorePath>, _>>()?;
        Content::Store { paths, stamp: layer.stamp.unwrap_or_else(|| of_image.clone()), elsewhere: false }
    };
    Ok(LayerJob { key: layer.key, content, estimate: layer.record.size, known: Some(layer.record), packed: None })
}
