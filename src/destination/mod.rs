//! Where images go, and where they are read from: one file for each kind.
//!
//! A destination knows blobs and layers, and no store path but those that an
//! image folder names.

pub mod archive_file;
pub mod blobs;
pub mod docker_archive;
pub mod docker_daemon;
pub mod folder;
pub mod oci_archive;
pub mod oci_layout;
pub mod reference;
pub mod registry;

use std::path::{Path, PathBuf};

use crate::daemon::Daemon;
use crate::image::Image;
use crate::image::manifest::{ImageIndex, ManifestFormat};
use crate::layer::Delivered;
use crate::layer::chunks::PackError;
use crate::layer::compress::Compression;
use crate::layer::deliver::{self, LayerJob, Progress, Source};
use crate::registry::Registries;
pub use reference::{ImageReference, ReferenceError};

/// What an index is called in a layout or archive, if not otherwise.
const DEFAULT_TAG: &str = "latest";

/// Why an image can't be put where it should go, or be read from there.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// A file or folder that can't be written: permissions, or a full disk.
    #[error("writing {path}: {source}{}", hint(source))]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file or folder that can't be read.
    #[error("reading {path}: {source}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Something is there that would be lost, or is not what it is taken for.
    #[error("{path} {problem}")]
    Foreign {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A layer that is not what its digest says: its store path was changed.
    #[error(
        "the layer with {paths} has the digest {found} now, and had {expected}: its store paths were changed; check them with `nix-store --verify-path`, and delete the layer index if they are right"
    )]
    Changed {
        /// Some of the layer's paths.
        paths: String,
        /// The digest that was known.
        expected: String,
        /// The digest of the bytes now.
        found: String,
    },
    /// A place that has one image, and was given several.
    #[error("such a place has one image only; this is a defect of stowage")]
    OneImage,
    /// An archive for a terminal would only spoil it.
    #[error("an archive can't be written to a terminal; redirect standard output, or name a file: docker-archive:FILE")]
    Terminal,
}

/// Layers that those who read such places can't decompress.
#[derive(Debug, thiserror::Error)]
#[error("{reference}: {reason}; give it `--compress gzip` or `--compress none`")]
pub struct UnreadableLayers {
    /// The place.
    pub reference: Box<ImageReference>,
    /// Who can't.
    pub reason: &'static str,
}

impl DestinationError {
    /// An error of writing `path`.
    pub fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Write { path: path.to_owned(), source }
    }

    /// An error of reading `path`.
    pub fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Read { path: path.to_owned(), source }
    }
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            "; make room, or name another place with --to"
        }
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            "; name another place with --to"
        }
        std::io::ErrorKind::NotFound => "; make the folder first, or name another place with --to",
        std::io::ErrorKind::BrokenPipe => "; whoever was to read the archive has gone",
        _ => "",
    }
}

/// The layers of an image, on their way to a destination.
pub struct Delivery<'a> {
    /// Where the files of store layers are.
    pub source: Source<'a>,
    /// The layers, the lowest first.
    pub jobs: Vec<LayerJob<'a>>,
    /// How to compress those that are not blobs already.
    pub compression: Compression,
    /// On how many threads to make them.
    pub threads: usize,
    /// Told how much is done.
    pub progress: Progress<'a>,
}

/// A place for an image.
pub trait Destination {
    /// Makes the layers that are not there, and tells what all of them are.
    ///
    /// # Errors
    /// When a layer can't be made or kept.
    fn put_layers(&mut self, delivery: &Delivery<'_>) -> anyhow::Result<Vec<Delivered>>;

    /// Puts what describes the image beside its layers. Only this makes the image
    /// visible.
    ///
    /// # Errors
    /// When it can't be kept.
    fn finish(&mut self, image: &Image, delivery: &Delivery<'_>) -> anyhow::Result<()>;

    /// Puts what describes the image beside its layers, as one of an index: nobody sees it
    /// there yet.
    ///
    /// # Errors
    /// When it can't be kept, or the place is none for indexes.
    fn add(&mut self, _: &Image, _: &Delivery<'_>) -> anyhow::Result<()> {
        Err(DestinationError::OneImage.into())
    }

    /// Whether that index is what is there, so that nothing has to be made or sent.
    ///
    /// # Errors
    /// When that can't be found out.
    fn has_index(&mut self, _: &ImageIndex) -> anyhow::Result<bool> {
        Ok(false)
    }

    /// Puts the index of the images that were added there. Only this makes them visible.
    ///
    /// # Errors
    /// When it can't be kept, or the place is none for indexes.
    fn finish_index(&mut self, _: &ImageIndex) -> anyhow::Result<()> {
        Err(DestinationError::OneImage.into())
    }
}

/// Where an image is to go, and how.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where.
    pub reference: ImageReference,
    /// How its layers are to be compressed, unless as they usually are there.
    pub compression: Option<Compression>,
    /// What kind of manifest lists them.
    pub format: ManifestFormat,
}

impl Place {
    /// How layers are compressed there.
    ///
    /// # Errors
    /// When nobody could read them so.
    pub fn compression(&self) -> Result<Compression, UnreadableLayers> {
        if let Some(asked) = self.compression {
            self.check(asked.media_type())?;
        }
        Ok(match (&self.reference, self.compression, self.format) {
            // Its layers are named, not written.
            (ImageReference::Folder { .. }, ..) => Compression::None,
            (_, Some(asked), _) => asked,
            (ImageReference::Registry(_), None, ManifestFormat::Oci) => Compression::ZSTD,
            (ImageReference::Registry(_), None, ManifestFormat::Docker) => Compression::GZIP,
            (_, None, _) => Compression::None,
        })
    }

    /// Whether a parent's blobs stay there as they are, so that nobody asks what is in them.
    #[must_use]
    pub fn keeps_blobs(&self) -> bool {
        use ImageReference::{Oci, OciArchive, Registry};
        matches!(self.reference, Registry(_) | Oci { .. } | OciArchive { .. })
    }

    /// Whether layers of that media type can be there.
    #[must_use]
    pub fn takes(&self, media_type: &str) -> bool {
        // OCI knows no xz.
        self.check(media_type).is_ok() && !media_type.ends_with("xz")
    }

    /// Refuses zstd where nobody reads it. Tried: `docker load` of Docker 20.10 takes none,
    /// though podman and skopeo do.
    ///
    /// # Errors
    /// See there.
    pub fn check(&self, media_type: &str) -> Result<(), UnreadableLayers> {
        let reason = match (&self.reference, self.format) {
            (ImageReference::DockerArchive { .. } | ImageReference::Daemon(_), _) => "`docker load` reads no zstd",
            (_, ManifestFormat::Docker) => "Docker's manifests, schema 2, know no zstd",
            _ => return Ok(()),
        };
        if media_type.ends_with("zstd") {
            return Err(UnreadableLayers { reference: Box::new(self.reference.clone()), reason });
        }
        Ok(())
    }
}

/// Opens the place that `reference` names.
///
/// # Errors
/// When it can't be written.
pub fn open(reference: &ImageReference, registries: &Registries) -> anyhow::Result<Box<dyn Destination>> {
    Ok(match reference {
        ImageReference::DockerArchive { file, name } => {
            Box::new(docker_archive::DockerArchive::create(file, name.clone())?)
        }
        ImageReference::Oci { folder, tag } => Box::new(oci_layout::OciLayout::create(folder, tag.clone())?),
        ImageReference::OciArchive { file, tag } => Box::new(oci_archive::OciArchive::create(file, tag.clone())?),
        ImageReference::Daemon(name) => {
            Box::new(docker_daemon::DaemonPlace::new(Daemon::new(&registries.daemon)?, name))
        }
        ImageReference::Registry(image) => Box::new(registry::RegistryPlace::open(image, registries)?),
        ImageReference::Folder { folder } => Box::new(folder::ImageFolder::create(folder)?),
    })
}

/// Delivers side by side, to somewhere below `path`, the layers of which `is_there` does not hold; the
/// others must be known.
fn put_missing(
    delivery: &Delivery<'_>,
    path: &Path,
    sink: &dyn deliver::BlobSink,
    is_there: impl Fn(&LayerJob<'_>, &Delivered) -> bool,
) -> anyhow::Result<Vec<Delivered>> {
    let Delivery { source, jobs, compression, threads, progress } = delivery;
    // Asked once, since what is made is there afterwards.
    let found = |job: &LayerJob<'_>| job.expected(*compression).filter(|expected| is_there(job, expected));
    let found: Vec<Option<Delivered>> = jobs.iter().map(found).collect();
    let missing = jobs.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(job, _)| job);
    let missing: Vec<&LayerJob<'_>> = missing.collect();
    let made = deliver::in_parallel(*source, &missing, sink, *compression, *threads, *progress);
    let mut made = made.map_err(|error| as_write_error(error, path))?.into_iter();
    Ok(found
        .into_iter()
        .filter_map(|found| found.inspect(|known| progress(known.record.size)).or_else(|| made.next()))
        .collect())
}

/// Gives an error of writing a layer the path that it was to be written to.
fn as_write_error(error: anyhow::Error, path: &Path) -> anyhow::Error {
    match error.downcast::<PackError>() {
        Ok(PackError::Write(source)) => DestinationError::write(path)(source).into(),
        Ok(other) => other.into(),
        Err(error) => match error.downcast::<std::io::Error>() {
            Ok(source) => DestinationError::write(path)(source).into(),
            Err(error) => error,
        },
    }
}
