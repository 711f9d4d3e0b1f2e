//! Docker archives: what `docker save` writes and `docker load` reads, streamed
//! in one pass.
//!
//! Source: moby's `image/tarexport` and `image/spec/v1.2.md`. A layer is named by
//! its key, which is known before its digest, and `manifest.json` comes last;
//! docker, podman and skopeo take that from a pipe, too.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use super::archive_file::ArchiveFile;
use super::{Delivery, Destination, DestinationError};
use crate::digest::Digest;
use crate::image::manifest::{self, DockerArchiveEntry};
use crate::image::{Image, ImageName};
use crate::layer::deliver::{self, ArchiveSink, LayerJob};
use crate::layer::{BlobRecord, Delivered, LayerKey, LayerRecord};

/// The file that lists an archive's images.
const MANIFEST: &str = "manifest.json";

/// An archive that is being written.
pub struct DockerArchive {
    out: ArchiveFile,
    name: Option<ImageName>,
    /// The images that are complete.
    images: Vec<DockerArchiveEntry>,
    /// What is in it already, for the images that come later, and under whose key.
    written: BTreeMap<LayerKey, (LayerKey, Delivered)>,
}

impl DockerArchive {
    /// Begins an archive at `path`, where it appears once it is complete; `-` is
    /// standard output.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub fn create(path: &Path, name: Option<ImageName>) -> Result<Self, DestinationError> {
        Ok(Self::new(ArchiveFile::create(path)?, name))
    }

    /// Writes the archive of an image that is called `name` to `file`, which is called `path`
    /// in messages.
    #[must_use]
    pub fn of_file(file: File, path: &Path, name: ImageName) -> Self {
        Self::new(ArchiveFile::of_file(file, path), Some(name))
    }

    fn new(out: ArchiveFile, name: Option<ImageName>) -> Self {
        Self { out, name, images: Vec::new(), written: BTreeMap::new() }
    }

    /// Finds layers of earlier images that are those of `jobs`, too, under other keys.
    fn find_again(&mut self, jobs: &[LayerJob<'_>]) {
        let there: BTreeMap<Digest, (LayerKey, Delivered)> =
            self.written.values().map(|(key, made)| (made.record.diff_id, (*key, made.clone()))).collect();
        for job in jobs {
            if let Some(found) = job.known.as_ref().and_then(|known| there.get(&known.diff_id)) {
                self.written.entry(job.key).or_insert_with(|| found.clone());
            }
        }
    }

    /// Ends an archive of several images.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn end(&mut self) -> Result<(), DestinationError> {
        let list = manifest::to_json(&self.images);
        self.out.add(MANIFEST, &list)?;
        self.out.finish()
    }
}

impl Destination for DockerArchive {
    fn put_layers(&mut self, delivery: &Delivery<'_>) -> anyhow::Result<Vec<Delivered>> {
        let path = self.out.path().to_owned();
        let Delivery { source, jobs, compression, threads, progress } = delivery;
        self.find_again(jobs);
        let new: Vec<&LayerJob<'_>> = jobs.iter().filter(|job| !self.written.contains_key(&job.key)).collect();
        let made = deliver::in_turn(*source, &new, self, *compression, *threads, *progress)
            .map_err(|error| super::as_write_error(error, &path))?;
        self.written.extend(new.iter().zip(made).map(|(job, made)| (job.key, (job.key, made))));
        Ok(jobs.iter().filter_map(|job| self.written.get(&job.key)).map(|(_, delivered)| delivered.clone()).collect())
    }

    fn add(&mut self, image: &Image, delivery: &Delivery<'_>) -> anyhow::Result<()> {
        let config = format!("{}.json", image.config_digest().to_hex());
        if !self.images.iter().any(|other| other.config == config) {
            self.out.add(&config, &image.config)?;
        }
        let file = |key: &LayerKey| layer_file(self.written.get(key).map_or(key, |(file, _)| file));
        let layers = delivery.jobs.iter().map(|job| file(&job.key)).collect();
        self.images.push(DockerArchiveEntry {
            config,
            repo_tags: Some(vec![self.name.as_ref().unwrap_or(&image.name).to_string()]),
            layers,
        });
        Ok(())
    }

    fn finish(&mut self, image: &Image, delivery: &Delivery<'_>) -> anyhow::Result<()> {
        self.add(image, delivery)?;
        Ok(self.end()?)
    }
}

impl Write for DockerArchive {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl ArchiveSink for DockerArchive {
    fn names_by_digest(&self) -> bool {
        false
    }

    fn begin(&mut self, job: &LayerJob<'_>, _: Option<&BlobRecord>, size: u64) -> io::Result<()> {
        self.out.begin(&layer_file(&job.key), size)
    }

    fn end(&mut self, _: &LayerJob<'_>, size: u64, _: Option<&LayerRecord>) -> anyhow::Result<()> {
        Ok(self.out.end(size)?)
    }
}

/// What an archive says of its image.
#[derive(Debug)]
pub struct Listing {
    /// The config's bytes.
    pub config: Vec<u8>,
    /// The image's names.
    pub names: Vec<String>,
    /// The sizes of the layers, in bytes, as they are in the archive, and their first bytes.
    pub layers: Vec<(u64, Vec<u8>)>,
}

/// Reads what the archive at `path` says of its first image.
///
/// # Errors
/// When it is no docker archive.
pub fn read(path: &Path) -> Result<Listing, DestinationError> {
    let foreign = |problem: String| {
        // A file that is something else may be quoted in the problem.
        let problem: String = problem.lines().next().unwrap_or_default().escape_debug().take(100).collect();
        let hint = "one that is compressed has to be unpacked first";
        DestinationError::Foreign {
            path: path.to_owned(),
            problem: format!("is no docker archive ({problem}); {hint}"),
        }
    };
    let file = crate::fs::open_regular(path).map_err(DestinationError::read(path))?;
    let mut sizes = std::collections::BTreeMap::new();
    let mut small_files = std::collections::BTreeMap::new();
    let mut archive = ::tar::Archive::new(file);
    for entry in archive.entries_with_seek().map_err(|error| foreign(error.to_string()))? {
        let mut entry = entry.map_err(|error| foreign(error.to_string()))?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut first = Vec::new();
        let is_json = name.ends_with(".json");
        if !is_json {
            entry.by_ref().take(8).read_to_end(&mut first).map_err(|error| foreign(error.to_string()))?;
        }
        sizes.insert(name.clone(), (entry.size(), first));
        if is_json {
            let mut bytes = Vec::new();
            entry.by_ref().take(64 << 20).read_to_end(&mut bytes).map_err(|error| foreign(error.to_string()))?;
            small_files.insert(name, bytes);
        }
    }
    let list = small_files.get(MANIFEST).ok_or_else(|| foreign(format!("it has no {MANIFEST}")))?;
    let list: Vec<DockerArchiveEntry> = serde_json::from_slice(list).map_err(|error| foreign(error.to_string()))?;
    let entry = list.into_iter().next().ok_or_else(|| foreign("it has no image".to_owned()))?;
    let config = small_files.remove(&entry.config).ok_or_else(|| foreign(format!("it has no {}", entry.config)))?;
    let layer = |name: &String| sizes.get(name).cloned().ok_or_else(|| foreign(format!("it has no {name}")));
    Ok(Listing {
        config,
        names: entry.repo_tags.unwrap_or_default(),
        layers: entry.layers.iter().map(layer).collect::<Result<_, _>>()?,
    })
}

fn layer_file(key: &LayerKey) -> String {
    format!("{}/layer.tar", key.to_hex())
}
