//! Images in registries: layers by HTTP, each made, compressed, hashed and sent in
//! one pass; the manifest last, so that nobody sees half an image.

mod uploads;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use uploads::Uploads;

use super::{Delivery, Destination, DestinationError};
use crate::digest::Digest;
use crate::image::Image;
use crate::image::manifest::{self, ImageIndex};
use crate::layer::Delivered;
use crate::layer::deliver::{self, Content, LayerJob};
use crate::registry::upload::Mount;
use crate::registry::{Registries, RegistryError, RegistryImage, Repository};

/// How many blobs are asked for at a time.
const ASKERS: usize = 8;

/// How often layers are made whose uploads the registry loses. distribution 2 loses each one
/// that breaks off within a chunk.
const ROUNDS: usize = 6;

/// A place in a registry.
pub struct RegistryPlace {
    image: RegistryImage,
    repository: Repository,
    /// The layers as they will be, if all of them were known: whether they are there is asked
    /// only if the manifest is not.
    deferred: Option<Vec<Delivered>>,
}

impl RegistryPlace {
    /// The place `image`; nothing is asked yet.
    ///
    /// # Errors
    /// When the credentials for it can't be read.
    pub fn open(image: &RegistryImage, registries: &Registries) -> Result<Self, RegistryError> {
        Ok(Self { image: image.clone(), repository: registries.repository(&image.at)?, deferred: None })
    }

    /// Puts what is not there.
    fn put(&self, delivery: &Delivery<'_>) -> anyhow::Result<Vec<Delivered>> {
        let uploads = Uploads::new(&self.repository);
        let mut delivered = self.look(delivery, &uploads)?;
        delivered.iter().flatten().for_each(|known| (delivery.progress)(known.record.size));
        let mut lost = BTreeMap::new();
        for _ in 0..ROUNDS {
            let missing = (0..delivered.len()).filter(|number| delivered[*number].is_none()).collect::<Vec<_>>();
            let jobs: Vec<&LayerJob<'_>> = missing.iter().map(|number| &delivery.jobs[*number]).collect();
            let Delivery { source, compression, threads, progress, .. } = *delivery;
            let made = uploads.run(|| deliver::in_parallel(source, &jobs, &uploads, compression, threads, progress))?;
            lost = uploads.take_lost();
            for (number, made) in missing.into_iter().zip(made) {
                if !lost.contains_key(&delivery.jobs[number].key) {
                    delivered[number] = Some(made);
                }
            }
            if lost.is_empty() {
                break;
            }
        }
        if let Some((_, error)) = lost.pop_first() {
            return Err(error.into());
        }
        Ok(delivered.into_iter().flatten().collect())
    }

    /// The layers that are there, or that the registry takes from another repository.
    fn look(&self, delivery: &Delivery<'_>, uploads: &Uploads) -> Result<Vec<Option<Delivered>>, RegistryError> {
        let expected: Vec<_> = delivery.jobs.iter().map(|job| job.expected(delivery.compression)).collect();
        let found = Mutex::new(BTreeSet::new());
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let work = || -> Result<(), RegistryError> {
            while let Some(number) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|next| *next < expected.len())
                && !failed.load(Ordering::Relaxed)
            {
                let Some(known) = &expected[number] else { continue };
                let has = self.has(&delivery.jobs[number], known, uploads);
                if has.inspect_err(|_| failed.store(true, Ordering::Relaxed))? {
                    found.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let askers: Vec<_> = (0..ASKERS.min(expected.len())).map(|_| scope.spawn(work)).collect();
            askers.into_iter().try_for_each(|asker| asker.join().unwrap_or_else(|_| Err(self.panicked())))
        })?;
        let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(expected.into_iter().enumerate().map(|(number, known)| known.filter(|_| found.contains(&number))).collect())
    }

    fn panicked(&self) -> RegistryError {
        let (host, action) = (self.image.at.registry.clone(), "look for blobs".to_owned());
        RegistryError::Failed { host, action, problem: "a thread panicked; this is a defect of stowage".to_owned() }
    }

    fn has(&self, job: &LayerJob<'_>, known: &Delivered, uploads: &Uploads) -> Result<bool, RegistryError> {
        let (digest, size) = (&known.blob.digest, known.blob.size);
        if self.repository.has_blob(digest, size)? {
            return Ok(true);
        }
        uploads.is_missing(digest);
        let origin = match &job.content {
            Content::Blob(blob) => blob.origin.as_ref(),
            _ => None,
        };
        match origin.filter(|origin| origin.registry == self.image.at.registry && **origin != self.image.at) {
            None => Ok(false),
            Some(origin) => match self.repository.mount(digest, origin)? {
                Mount::Mounted => Ok(true),
                Mount::Refused(upload) => {
                    uploads.begun(&job.key, upload);
                    Ok(false)
                }
            },
        }
    }
}

impl Destination for RegistryPlace {
    fn put_layers(&mut self, delivery: &Delivery<'_>) -> anyhow::Result<Vec<Delivered>> {
        let expected: Option<Vec<Delivered>> =
            delivery.jobs.iter().map(|job| job.expected(delivery.compression)).collect();
        if expected.is_some() {
            self.deferred.clone_from(&expected);
        }
        expected.map_or_else(|| self.put(delivery), Ok)
    }

    fn finish(&mut self, image: &Image, delivery: &Delivery<'_>) -> anyhow::Result<()> {
        self.check(image.digest())?;
        self.put_image(image, delivery, &self.image.target())
    }

    fn add(&mut self, image: &Image, delivery: &Delivery<'_>) -> anyhow::Result<()> {
        self.put_image(image, delivery, &image.digest().to_string())
    }

    fn has_index(&mut self, index: &ImageIndex) -> anyhow::Result<bool> {
        self.check(index.digest())?;
        Ok(self.repository.manifest_digest(&self.image.target())? == Some(index.digest()))
    }

    fn finish_index(&mut self, index: &ImageIndex) -> anyhow::Result<()> {
        self.check(index.digest())?;
        let media_type = manifest::media_type(&index.bytes);
        Ok(self.repository.put_manifest(&self.image.target(), &media_type, &index.bytes)?)
    }
}

impl RegistryPlace {
    /// Compares the digest of what goes there with the one that the place names.
    fn check(&self, digest: Digest) -> Result<(), DestinationError> {
        if self.image.digest.is_none_or(|wanted| wanted == digest) {
            return Ok(());
        }
        let problem = format!("names another image than this one, {digest}; leave the digest out");
        Err(DestinationError::Foreign { path: format!("docker://{}", self.image).into(), problem })
    }

    /// Puts an image there whose manifest `reference` names, a tag or its digest.
    fn put_image(&mut self, image: &Image, delivery: &Delivery<'_>, reference: &str) -> anyhow::Result<()> {
        if let Some(expected) = self.deferred.take() {
            if self.repository.manifest_digest(reference)? == Some(image.digest()) {
                expected.iter().for_each(|known| (delivery.progress)(known.record.size));
                return Ok(());
            }
            let delivered = self.put(delivery)?;
            for ((job, expected), found) in delivery.jobs.iter().zip(&expected).zip(&delivered) {
                if expected.blob.digest != found.blob.digest {
                    let paths = super::blobs::some_paths(job);
                    let (expected, found) = (expected.blob.digest.to_string(), found.blob.digest.to_string());
                    return Err(DestinationError::Changed { paths, expected, found }.into());
                }
            }
        }
        let config = image.config_digest();
        if !self.repository.has_blob(&config, image.config.len() as u64)? {
            self.repository.put_blob(&config, &image.config)?;
        }
        Ok(self.repository.put_manifest(reference, &manifest::media_type(&image.manifest), &image.manifest)?)
    }
}
