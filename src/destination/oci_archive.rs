//! OCI archives: a tar of an OCI layout with one image, streamed.
//!
//! Source: OCI image-spec 1.1, `image-layout.md`. A layer is named by its digest,
//! which must be known before its bytes; so `index.json` comes last, and what is
//! cut off is no image.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use super::archive_file::ArchiveFile;
use super::{DEFAULT_TAG, Delivery, Destination, DestinationError, blobs, oci_layout};
use crate::digest::Digest;
use crate::image::Image;
use crate::image::manifest::ImageIndex;
use crate::layer::deliver::{self, ArchiveSink, LayerJob};
use crate::layer::{BlobRecord, Delivered, LayerRecord};

/// An archive that is being written.
pub struct OciArchive {
    out: ArchiveFile,
    tag: Option<String>,
    /// The files that it has.
    names: BTreeSet<String>,
}

impl OciArchive {
    /// Begins an archive at `path`, where it appears once it is complete; `-` is
    /// standard output.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub fn create(path: &Path, tag: Option<String>) -> Result<Self, DestinationError> {
        let mut out = ArchiveFile::create(path)?;
        out.add("oci-layout", oci_layout::MARKER)?;
        Ok(Self { out, tag, names: BTreeSet::new() })
    }

    fn add_blob(&mut self, bytes: &[u8]) -> Result<(), DestinationError> {
        let name = blob_file(&Digest::of(bytes));
        if self.names.insert(name.clone()) { self.out.add(&name, bytes) } else { Ok(()) }
    }

    /// Ends the archive of that manifest or index, by its own tag or else `tag`.
    fn end(&mut self, manifest: &[u8], tag: &str) -> Result<(), DestinationError> {
        let tag = self.tag.as_deref().unwrap_or(tag);
        let entry = oci_layout::index_entry(&Digest::of(manifest), manifest, tag);
        self.out.add("index.json", &oci_layout::index(&json!([entry])))?;
        self.out.finish()
    }
}

impl Destination for OciArchive {
    fn put_layers(&mut self, delivery: &Delivery<'_>) -> anyhow::Result<Vec<Delivered>> {
        let path = self.out.path().to_owned();
        let Delivery { source, jobs, compression, threads, progress } = delivery;
        deliver::in_turn(*source, &jobs.iter().collect::<Vec<_>>(), self, *compression, *threads, *progress)
            .map_err(|error| super::as_write_error(error, &path))
    }

    fn finish(&mut self, image: &Image, delivery: &Delivery<'_>) -> anyhow::Result<()> {
        self.add(image, delivery)?;
        Ok(self.end(&image.manifest, &image.name.tag)?)
    }

    fn add(&mut self, image: &Image, _: &Delivery<'_>) -> anyhow::Result<()> {
        self.add_blob(&image.config)?;
        Ok(self.add_blob(&image.manifest)?)
    }

    fn finish_index(&mut self, index: &ImageIndex) -> anyhow::Result<()> {
        self.add_blob(&index.bytes)?;
        Ok(self.end(&index.bytes, DEFAULT_TAG)?)
    }
}

impl Write for OciArchive {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl ArchiveSink for OciArchive {
    fn names_by_digest(&self) -> bool {
        true
    }

    fn begin(&mut self, _: &LayerJob<'_>, blob: Option<&BlobRecord>, size: u64) -> io::Result<()> {
        let blob = blob.ok_or_else(|| io::Error::other("a layer without a digest; this is a defect of stowage"))?;
        let name = blob_file(&blob.digest);
        // Some images have a layer twice. A second file of that name does no harm.
        self.names.insert(name.clone());
        self.out.begin(&name, size)
    }

    fn end(&mut self, job: &LayerJob<'_>, size: u64, record: Option<&LayerRecord>) -> anyhow::Result<()> {
        // It has been given the digest that was known.
        if let Some(record) = record {
            blobs::expect(job.known.as_ref(), record, &blobs::some_paths(job))?;
        }
        Ok(self.out.end(size)?)
    }
}

fn blob_file(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.to_hex())
}
