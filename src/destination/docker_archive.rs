//! Docker archives: what `docker save` writes and `docker load` reads, streamed
//! in one pass.
//!
//! Source: moby's `image/tarexport` and `image/spec/v1.2.md`. A layer is named by
//! its key, which is known before its digest, and `manifest.json` comes last;
//! docker, podman and skopeo take that from a pipe, too.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write};
use std::path::{Path, PathBuf};

use super::{Delivery, Destination, DestinationError};
use crate::fs::PartialFile;
use crate::image::manifest::{self, DockerArchiveEntry};
use crate::image::{Image, ImageName};
use crate::layer::deliver::{self, ArchiveSink};
use crate::layer::tar::{self, BLOCK, Header, Kind};
use crate::layer::{LayerKey, LayerRecord, Owner};

/// The file that lists an archive's images.
const MANIFEST: &str = "manifest.json";

/// An archive that is being written.
pub struct DockerArchive {
    path: PathBuf,
    out: Output,
    name: Option<ImageName>,
}

enum Output {
    Standard(File),
    File(PartialFile),
}

impl DockerArchive {
    /// Begins an archive at `path`, where it appears once it is complete; `-` is
    /// standard output.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub fn create(path: &Path, name: Option<ImageName>) -> Result<Self, DestinationError> {
        let out = if path == Path::new("-") {
            if io::stdout().is_terminal() {
                return Err(DestinationError::Terminal);
            }
            // Not through std's buffer, which looks for line feeds in it all.
            let stdout = rustix::io::dup(rustix::stdio::stdout())
                .map_err(|errno| DestinationError::write(path)(errno.into()))?;
            Output::Standard(File::from(stdout))
        } else {
            if path.is_dir() {
                return Err(DestinationError::Foreign {
                    path: path.to_owned(),
                    problem: "is a folder; name a file for the archive".to_owned(),
                });
            }
            let folder = crate::fs::folder_of(path);
            Output::File(PartialFile::create(folder).map_err(DestinationError::write(path))?)
        };
        Ok(Self { path: path.to_owned(), out, name })
    }

    fn add_file(&mut self, name: &str, bytes: &[u8]) -> Result<(), DestinationError> {
        let mut entry = header(name, bytes.len() as u64);
        entry.extend(bytes);
        tar::pad(&mut entry);
        self.out.write_all(&entry).map_err(DestinationError::write(&self.path))
    }
}

impl Destination for DockerArchive {
    fn put_layers(&mut self, delivery: &Delivery<'_>) -> anyhow::Result<Vec<LayerRecord>> {
        let path = self.path.clone();
        deliver::in_turn(delivery.source, &delivery.jobs, self, delivery.threads, delivery.progress)
            .map_err(|error| super::as_write_error(error, &path))
    }

    fn finish(&mut self, image: &Image, delivery: &Delivery<'_>) -> anyhow::Result<()> {
        let config = format!("{}.json", image.config_digest().to_hex());
        let layers = delivery.jobs.iter().map(|job| layer_file(&job.key)).collect();
        self.add_file(&config, &image.config)?;
        self.add_file(MANIFEST, &manifest::docker_archive(self.name.as_ref().unwrap_or(&image.name), &config, layers))?;
        self.out.write_all(&tar::END).and_then(|()| self.out.flush()).map_err(DestinationError::write(&self.path))?;
        if let Output::File(file) = std::mem::replace(&mut self.out, Output::Standard(File::open("/dev/null")?)) {
            file.persist(&self.path).map_err(DestinationError::write(&self.path))?;
        }
        Ok(())
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
    fn begin(&mut self, key: &LayerKey, size: u64) -> io::Result<()> {
        self.out.write_all(&header(&layer_file(key), size))
    }

    fn end(&mut self, size: u64) -> io::Result<()> {
        self.out.write_all(&tar::END[..tar::padding(size) as usize])
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Standard(file) => file.write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Standard(file) => file.flush(),
            Self::File(file) => file.flush(),
        }
    }
}

/// What an archive says of its image.
#[derive(Debug)]
pub struct Listing {
    /// The config's bytes.
    pub config: Vec<u8>,
    /// The image's names.
    pub names: Vec<String>,
    /// The sizes of the layers, in bytes, as they are in the archive.
    pub layer_sizes: Vec<u64>,
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
        sizes.insert(name.clone(), entry.size());
        if name.ends_with(".json") {
            let mut bytes = Vec::new();
            entry.by_ref().take(64 << 20).read_to_end(&mut bytes).map_err(|error| foreign(error.to_string()))?;
            small_files.insert(name, bytes);
        }
    }
    let list = small_files.get(MANIFEST).ok_or_else(|| foreign(format!("it has no {MANIFEST}")))?;
    let list: Vec<DockerArchiveEntry> = serde_json::from_slice(list).map_err(|error| foreign(error.to_string()))?;
    let entry = list.into_iter().next().ok_or_else(|| foreign("it has no image".to_owned()))?;
    let config = small_files.remove(&entry.config).ok_or_else(|| foreign(format!("it has no {}", entry.config)))?;
    let size = |name: &String| sizes.get(name).copied().ok_or_else(|| foreign(format!("it has no {name}")));
    Ok(Listing {
        config,
        names: entry.repo_tags.unwrap_or_default(),
        layer_sizes: entry.layers.iter().map(size).collect::<Result<_, _>>()?,
    })
}

fn layer_file(key: &LayerKey) -> String {
    format!("{}/layer.tar", key.to_hex())
}

fn header(name: &str, size: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BLOCK);
    Header { path: name.as_bytes(), kind: Kind::Regular(size), mode: 0o444, owner: &Owner::default(), mtime: 1 }
        .write(&mut bytes);
    bytes
}
