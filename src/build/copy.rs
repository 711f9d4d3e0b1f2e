//! From an image to another place for it: the same config and the same tars, and
//! where nothing has to be compressed otherwise, the same blobs and manifest.

use std::path::Path;

use super::layers::{KnownAs, Said};
use super::{finished, recall, remember};
use crate::destination::folder::{self, ReadFolder};
use crate::destination::{self, Delivery, Destination, DestinationError, ImageReference, Place};
use crate::digest::Digest;
use crate::image::manifest::{self, Manifest, ManifestFormat, OCI_MANIFEST};
use crate::image::{Image, ImageLayer, ImageName, Platform, note};
use crate::layer::Delivered;
use crate::layer::blob::{LayerBlob, OpenBlob};
use crate::layer::compress::Compression;
use crate::layer::deliver::{Content, LayerJob, Progress, Source};
use crate::layer::index::LayerIndex;
use crate::layer::key::KeyHasher;
use crate::parent::compression::{Compression as Packing, taken};
use crate::parent::find::Choice;
use crate::parent::parts::{self, Part, Parts, Reading};
use crate::registry::Registries;
use crate::store::{StoreDir, StoreLocation, restore};
use crate::tree::StoreFiles;

/// An image that is to be copied.
pub struct Original {
    image: Image,
    platform: Option<Platform>,
    store_dir: StoreDir,
    layers: Vec<Layer>,
}

struct Layer {
    job: LayerJob<'static>,
    /// Opens its bare tar, if it is a blob.
    unpack: Option<OpenBlob>,
}

/// What it takes to copy images.
pub struct Means<'a> {
    /// The store whose files an image folder names, if it is that of its store dir.
    pub location: &'a StoreLocation,
    /// What is known of layers made before.
    pub index: &'a LayerIndex,
    /// On how many threads to make layers.
    pub threads: usize,
    /// How to reach registries.
    pub registries: &'a Registries,
    /// Told how much is done.
    pub progress: Progress<'a>,
}

impl Original {
    /// Reads the images that `reference` names, those of them that `choice` wants, which are to
    /// be copied to `place`, on `threads` threads.
    ///
    /// # Errors
    /// When there is none, or one is damaged.
    pub fn read(
        reference: &ImageReference,
        choice: Choice<'_>,
        place: &Place,
        registries: &Registries,
        threads: usize,
    ) -> anyhow::Result<Vec<Self>> {
        let compression = place.compression()?;
        // An image folder says how large its layers are.
        let is_folder = matches!(place.reference, ImageReference::Folder { .. });
        let as_it_is = |media_type: &str| !is_folder && is_wanted(place, compression, media_type);
        let ImageReference::Folder { folder } = reference else {
            let reading = Reading { threads, as_it_is: &as_it_is };
            let read = |found| {
                let original = Self::of_parts(parts::parts(reference, found, &reading)?, reference);
                choice.check(&reference.to_string(), original.platform())?;
                Ok(original)
            };
            return parts::find(reference, registries, choice)?.into_iter().map(read).collect();
        };
        let ReadFolder { image, store_dir, jobs } = folder::read(folder)?;
        let layer = |(job, listed): (LayerJob<'static>, &ImageLayer)| {
            let unpack = match &job.content {
                Content::Blob(blob) => Some(Packing::of_media_type(&listed.blob.media_type).uncompressed(&blob.open)),
                _ => None,
            };
            Layer { job, unpack }
        };
        let layers = jobs.into_iter().zip(&image.layers).map(layer).collect();
        let platform = Platform::of(&serde_json::from_slice(&image.config).unwrap_or_default());
        choice.check(&reference.to_string(), platform.as_ref())?;
        Ok(vec![Self { image, platform, store_dir, layers }])
    }

    fn of_parts(parts: Parts, reference: &ImageReference) -> Self {
        let name = name(reference, parts.called.as_deref());
        let (mut layers, mut listed) = (Vec::new(), Vec::new());
        // What is told of other tars is told of nobody.
        let notes = note::notes(parts.manifest.as_deref().unwrap_or_default());
        let mut notes = notes.into_iter().chain(std::iter::repeat(None));
        for (number, Part { mut record, blob, comment, open, origin, is_measured }) in
            parts.layers.into_iter().enumerate()
        {
            let note = notes.next().flatten().filter(|note| note.size == record.size || !is_measured);
            record.architectures = note.as_ref().map(|note| note.architectures.clone()).unwrap_or_default();
            record.size = note.as_ref().map_or(record.size, |note| note.size);
            let content = Content::Blob(LayerBlob { origin, ..taken(&blob, &open) });
            let unpack = Packing::of_media_type(&blob.media_type).uncompressed(&open);
            let mut hasher = KeyHasher::new("stowage copied layer v1");
            // Some images have a layer twice.
            hasher.add(&number.to_be_bytes());
            hasher.add(record.diff_id.to_string().as_bytes());
            let (key, estimate) = (hasher.finish(), record.size);
            let job = LayerJob { key, content, estimate, known: Some(record.clone()), packed: None };
            layers.push(Layer { job, unpack: Some(unpack) });
            listed.push(ImageLayer { record, comment, blob, note });
        }
        let is_ours = |bytes: &Vec<u8>| {
            let read = serde_json::from_slice::<Manifest>(bytes);
            read.is_ok_and(|read| read.media_type.is_none_or(|kind| kind == OCI_MANIFEST))
        };
        let manifest = parts.manifest.filter(is_ours).unwrap_or_else(|| manifest::oci(&parts.config, &listed));
        let image = Image { name, config: parts.config, manifest, layers: listed };
        Self { image, platform: parts.platform, store_dir: StoreDir::default(), layers }
    }

    /// The same, called `name`, if that is given.
    #[must_use]
    pub fn called(mut self, name: Option<&ImageName>) -> Self {
        if let Some(name) = name {
            self.image.name = name.clone();
        }
        self
    }

    /// How many bytes its layers are, uncompressed.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.image.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.record.size))
    }

    /// What it is for, if it tells.
    #[must_use]
    pub fn platform(&self) -> Option<&Platform> {
        self.platform.as_ref()
    }

    /// Puts it at `place`.
    ///
    /// # Errors
    /// When a path that its layers are made of is gone, a layer is another than it was, or
    /// the destination can't be written.
    pub fn copy(self, place: &Place, means: &Means<'_>) -> anyhow::Result<Image> {
        let ready = self.ready(place, means)?;
        let mut destination = destination::open(&place.reference, means.registries)?;
        ready.put(&mut *destination, means, |destination, image, delivery| destination.finish(image, delivery))
    }

    /// Finds out what has to be done for `place`.
    ///
    /// # Errors
    /// When a path that its layers are made of is gone, or nobody could read them there.
    pub(super) fn ready(self, place: &Place, means: &Means<'_>) -> anyhow::Result<Ready> {
        let Self { image, store_dir, layers, .. } = self;
        let compression = place.compression()?;
        let names_stores = layers.iter().any(|layer| matches!(layer.job.content, Content::Store { .. }));
        let location = location_of(&store_dir, means.location);
        // Blobs alone need no store.
        let files = StoreFiles::open(if names_stores { &location.real_dir } else { Path::new("/") })?;
        let (mut jobs, mut said) = (Vec::new(), Vec::new());
        for (Layer { mut job, unpack }, layer) in layers.into_iter().zip(&image.layers) {
            if let Content::Store { paths, .. } = &job.content {
                paths.iter().try_for_each(|path| restore::check(&files, &location, path))?;
            }
            let mut blob = Some(layer.blob.clone()).filter(|_| matches!(job.content, Content::Blob(_)));
            if let (Some(open), false) = (unpack, is_wanted(place, compression, &layer.blob.media_type)) {
                let (digest, size) = (layer.record.diff_id, layer.record.size);
                job.content = Content::Tar(LayerBlob { digest, size, open, origin: None, plain: None });
                blob = None;
            }
            let known_as = layer.note.clone().map(|note| KnownAs { key: note.key, form: note.form });
            said.push(Said { comment: layer.comment.clone(), blob, known_as });
            jobs.push(job);
        }
        recall(means.index, &mut jobs, compression);
        Ok(Ready { image, store_dir, files, jobs, said, compression, format: place.format })
    }
}

/// An image whose layers are about to be put somewhere.
pub(super) struct Ready {
    image: Image,
    store_dir: StoreDir,
    files: StoreFiles,
    jobs: Vec<LayerJob<'static>>,
    said: Vec<Said>,
    compression: Compression,
    format: ManifestFormat,
}

impl Ready {
    /// What the image is called.
    pub(super) fn name(&self) -> String {
        self.image.name.to_string()
    }

    /// What tells it from others of that name.
    pub(super) fn config_digest(&self) -> Digest {
        self.image.config_digest()
    }

    /// The image as it will be, if that is known before anything is done.
    pub(super) fn foreseen(&self) -> Option<Image> {
        let expected: Option<Vec<Delivered>> = self.jobs.iter().map(|job| job.expected(self.compression)).collect();
        Some(self.with(expected?))
    }

    /// Puts its layers at `destination`, and then the rest by `end`.
    ///
    /// # Errors
    /// When a layer is another than it was, or the destination can't be written.
    pub(super) fn put(
        mut self,
        destination: &mut dyn Destination,
        means: &Means<'_>,
        end: impl FnOnce(&mut dyn Destination, &Image, &Delivery<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Image> {
        let (jobs, compression) = (std::mem::take(&mut self.jobs), self.compression);
        let source = Source { files: &self.files, store_dir: &self.store_dir };
        let mut delivery = Delivery { source, jobs, compression, threads: means.threads, progress: means.progress };
        let delivered = destination.put_layers(&delivery)?;
        for (delivered, layer) in delivered.iter().zip(&self.image.layers) {
            let (expected, found) = (&layer.record, &delivered.record);
            if (expected.diff_id, expected.size) != (found.diff_id, found.size) {
                return Err(DestinationError::Changed {
                    paths: layer.comment.clone(),
                    expected: format!("{} of {} bytes", expected.diff_id, expected.size),
                    found: format!("{} of {} bytes", found.diff_id, found.size),
                }
                .into());
            }
        }
        remember(means.index, &mut delivery, &delivered);
        let image = self.with(delivered);
        end(destination, &image, &delivery)?;
        Ok(image)
    }

    /// The image with these layers.
    fn with(&self, delivered: Vec<Delivered>) -> Image {
        let image = self.image.clone();
        let layers = finished(self.compression, delivered, &self.said);
        // What nobody had to change has its digest still.
        let is_same =
            layers.iter().map(|layer| layer.blob.digest).eq(image.layers.iter().map(|layer| layer.blob.digest));
        let is_same = is_same && self.format == ManifestFormat::Oci;
        let manifest = if is_same { image.manifest } else { self.format.manifest(&image.config, &layers) };
        Image { manifest, layers, ..image }
    }
}

/// Where the store paths are of an image with that store dir: in a root that was named, or
/// else where they say.
fn location_of(store_dir: &StoreDir, given: &StoreLocation) -> StoreLocation {
    let is_system = given.real_dir == Path::new(given.store_dir.as_str());
    let real_dir = if is_system { store_dir.as_str().into() } else { given.real_dir.clone() };
    StoreLocation { store_dir: store_dir.clone(), real_dir, state_dir: given.state_dir.clone() }
}

/// Whether a layer of that media type goes to `place` as it is. Of one that is compressed by
/// the codec that was asked for, nobody knows the level.
fn is_wanted(place: &Place, compression: Compression, media_type: &str) -> bool {
    match (&place.reference, place.compression) {
        (ImageReference::Folder { .. }, _) | (_, None) => place.takes(media_type),
        (_, Some(_)) => manifest::oci_media_type(media_type) == compression.media_type(),
    }
}

/// What an image is called that is called so at `reference`; a docker archive has to say.
fn name(reference: &ImageReference, called: Option<&str>) -> ImageName {
    let path = match reference {
        ImageReference::DockerArchive { file, .. } | ImageReference::OciArchive { file, .. } => file,
        ImageReference::Oci { folder, .. } | ImageReference::Folder { folder } => folder,
        ImageReference::Daemon(name) => return name.clone(),
        ImageReference::Registry(image) => {
            let whole = ImageName::new(&image.at.repository, image.tag.as_deref().unwrap_or("latest"));
            return whole.unwrap_or_else(|_| ImageName::from_store_name(&image.at.repository));
        }
    };
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let usual = ImageName::from_store_name(stem);
    match (reference, called) {
        (ImageReference::DockerArchive { .. }, Some(called)) => ImageName::parse(called).unwrap_or(usual),
        (_, Some(tag)) => ImageName::new(&usual.repository, tag).or_else(|_| ImageName::parse(tag)).unwrap_or(usual),
        (_, None) => usual,
    }
}
