//! The parts of an image that is only copied: its config as it is, and its layers
//! as blobs. Nothing of the file system in them is looked at.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::compression::Compression;
use super::error::LayerProblem;
use super::files::Files;
use super::find::{Choice, Found, FoundLayer, Search};
use super::layers::same;
use super::stream::LayerStream;
use super::{OpenBlob, ParentError, read};
use crate::destination::ImageReference;
use crate::digest::Digest;
use crate::image::Platform;
use crate::image::manifest::{self, Descriptor};
use crate::layer::LayerRecord;
use crate::registry::{Registries, RepositoryName};

/// An image's parts.
pub struct Parts {
    /// The config's bytes.
    pub config: Vec<u8>,
    /// The manifest's bytes, if there is one.
    pub manifest: Option<Vec<u8>>,
    /// What the image is called, whole or only by a tag.
    pub called: Option<String>,
    /// What it is for, if anything tells.
    pub platform: Option<Platform>,
    /// The layers, the lowest first.
    pub layers: Vec<Part>,
}

/// A layer.
pub struct Part {
    /// The digest and size of its tar.
    pub record: LayerRecord,
    /// The blob as it is.
    pub blob: Descriptor,
    /// What the image's history says of it.
    pub comment: String,
    /// Opens the blob as it is.
    pub open: OpenBlob,
    /// The repository of a registry that has it, if one does.
    pub origin: Option<RepositoryName>,
    /// Whether the size of its tar is known; else it is that of the blob.
    pub is_measured: bool,
}

/// How to read parts.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    /// On how many threads.
    pub threads: usize,
    /// Whether a layer of that media type only goes on as it is. Such a layer of a registry is
    /// not looked at, and how large its tar is stays unknown.
    pub as_it_is: &'a (dyn Fn(&str) -> bool + Sync),
}

/// Finds the images that `reference` names, which is no image folder; those of them that `choice`
/// wants.
///
/// # Errors
/// When there is none, or not all of it.
pub fn find(
    reference: &ImageReference,
    registries: &Registries,
    choice: Choice<'_>,
) -> Result<Vec<Found>, ParentError> {
    let name = reference.to_string();
    let search = Search { name: &name, choice };
    match reference {
        ImageReference::DockerArchive { file, name: wanted } => {
            Ok(vec![search.docker(&Files::open_archive(file, &name)?, wanted.as_ref())?])
        }
        ImageReference::OciArchive { file, tag } => search.oci(&Files::open_archive(file, &name)?, tag.as_deref()),
        ImageReference::Oci { folder, tag } => search.oci(&Files::Folder(folder.clone()), tag.as_deref()),
        ImageReference::Registry(image) => search.registry(image, registries),
        ImageReference::Daemon(image) => Ok(vec![search.daemon(image, registries)?]),
        ImageReference::Folder { .. } => {
            let problem = "is an image folder, which is read otherwise; this is a defect of stowage".to_owned();
            Err(ParentError::NoImage { name, problem })
        }
    }
}

/// Finds the one image for `platform`, or the only one; see [`find`].
///
/// # Errors
/// When there is none, or not all of it.
pub fn find_one(
    reference: &ImageReference,
    registries: &Registries,
    platform: Option<&Platform>,
) -> Result<Found, ParentError> {
    let found = find(reference, registries, Choice::of(platform))?.into_iter().next();
    let problem = "lists no image".to_owned();
    found.ok_or_else(|| ParentError::NoImage { name: reference.to_string(), problem })
}

/// Reads the parts of an image that was found at `reference`. Layers that are compressed are
/// read once, and compared with their digests; the others whoever copies them compares.
///
/// # Errors
/// When it is damaged.
pub fn parts(reference: &ImageReference, found: Found, reading: &Reading<'_>) -> Result<Parts, ParentError> {
    let name = reference.to_string();
    let Found { config, layers, manifest, called, platform } = found;
    let parsed = read::parse_config(&name, &config)?;
    let diff_ids = read::diff_ids(&name, &parsed, layers.len())?;
    let history = parsed["history"].as_array().into_iter().flatten();
    let history = history.filter(|entry| entry["empty_layer"] != true);
    let comments = history.map(|entry| entry["comment"].as_str().unwrap_or_default()).chain(std::iter::repeat(""));
    let next = AtomicUsize::new(0);
    let work = || {
        let mut measured = BTreeMap::new();
        while let Some(index) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|index| *index < layers.len()) {
            measured.insert(index, measure(&layers[index], diff_ids[index], reading));
        }
        measured
    };
    let mut measured = BTreeMap::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..reading.threads.clamp(1, layers.len().max(1))).map(|_| scope.spawn(work)).collect();
        workers.into_iter().for_each(|worker| measured.extend(worker.join().unwrap_or_default()));
    });
    let mut parts = Vec::new();
    for ((index, layer), comment) in layers.iter().enumerate().zip(comments) {
        let failed = |problem| {
            let (name, number, digest) = (name.clone(), index + 1, diff_ids[index]);
            ParentError::Layer { name, number, digest, problem: Box::new(problem) }
        };
        let panicked = || Err(io::Error::other("a thread panicked; this is a defect of stowage").into());
        let (record, blob) = measured.remove(&index).unwrap_or_else(panicked).map_err(failed)?;
        let (open, origin) = (layer.blob.clone().opener(), layer.blob.origin().cloned());
        let is_measured = origin.is_none() || !(reading.as_it_is)(&blob.media_type);
        parts.push(Part { record, blob, comment: comment.to_owned(), open, origin, is_measured });
    }
    let platform = platform.or_else(|| Platform::of(&parsed));
    Ok(Parts { config, manifest, called, platform, layers: parts })
}

/// What a layer is, whose tar has the digest `diff_id`.
fn measure(
    layer: &FoundLayer,
    diff_id: Digest,
    reading: &Reading<'_>,
) -> Result<(LayerRecord, Descriptor), LayerProblem> {
    let FoundLayer { blob, descriptor } = layer;
    if let Some(descriptor) = descriptor {
        let kind = &descriptor.media_type;
        if !kind.contains(".tar") || kind.ends_with("+encrypted") {
            return Err(LayerProblem::Kind(kind.clone()));
        }
        if blob.size() != descriptor.size {
            return Err(LayerProblem::Size { expected: descriptor.size, found: blob.size() });
        }
    }
    if let (Some(_), Some(listed)) = (blob.origin(), descriptor)
        && (reading.as_it_is)(manifest::oci_media_type(&listed.media_type))
    {
        let media_type = manifest::oci_media_type(&listed.media_type).to_owned();
        let record = LayerRecord { diff_id, size: listed.size, architectures: BTreeMap::new() };
        return Ok((record, Descriptor { media_type, ..listed.clone() }));
    }
    let compression = Compression::of(&blob.magic()?);
    let (digest, size) = if compression == Compression::None {
        (diff_id, blob.size())
    } else {
        let mut stream = LayerStream::new(blob)?;
        io::copy(&mut stream, &mut io::sink())?;
        let sums = stream.finish()?;
        same("uncompressed the digest", diff_id, sums.diff_id)?;
        (sums.blob, sums.size)
    };
    if let Some(descriptor) = descriptor {
        same("the digest", descriptor.digest, digest)?;
    }
    let record = LayerRecord { diff_id, size, architectures: BTreeMap::new() };
    let media_type = compression.media_type().to_owned();
    Ok((record, Descriptor { media_type, digest, size: blob.size() }))
}
