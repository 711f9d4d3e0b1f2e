//! A folder of blobs, each under its digest, and there only once it is complete.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::DestinationError;
use crate::digest::Digest;
use crate::fs::PartialFile;
use crate::layer::blob::OpenBlob;
use crate::layer::deliver::{BlobSink, BlobWriter, Content, LayerJob};
use crate::layer::{Delivered, LayerRecord};

/// `blobs/sha256` of an OCI layout, or of an image folder.
#[derive(Debug)]
pub struct Blobs {
    folder: PathBuf,
}

impl Blobs {
    /// The blobs of the layout in `folder`; makes the folders.
    ///
    /// # Errors
    /// When it can't, or one of them is a link: the layout may be somebody else's,
    /// and nothing is written outside of it.
    pub fn create(folder: &Path) -> Result<Self, DestinationError> {
        let mut path = folder.to_owned();
        for name in ["blobs", "sha256"] {
            path.push(name);
            match std::fs::create_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(DestinationError::write(&path)(error));
                }
                _ => {}
            }
            if !std::fs::symlink_metadata(&path).map_err(DestinationError::read(&path))?.is_dir() {
                let problem = "is no folder, and links are not followed there".to_owned();
                return Err(DestinationError::Foreign { path, problem });
            }
        }
        crate::fs::sweep(&path);
        Ok(Self { folder: path })
    }

    /// The blobs of the layout in `folder`, for reading.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        Self { folder: folder.join("blobs/sha256") }
    }

    /// Whether the blob is there. It is complete, since it has its name; its size
    /// shows whether something else has spoiled it.
    #[must_use]
    pub fn has(&self, digest: &Digest, size: u64) -> bool {
        std::fs::symlink_metadata(self.path(digest)).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
    }

    /// What opens the blob.
    #[must_use]
    pub fn opener(&self, digest: &Digest) -> OpenBlob {
        let path = self.path(digest);
        std::sync::Arc::new(move || Ok(Box::new(crate::fs::open_regular(&path)?)))
    }

    /// Puts `bytes` there.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, DestinationError> {
        let digest = Digest::of(bytes);
        if !self.has(&digest, bytes.len() as u64) {
            let path = self.path(&digest);
            crate::fs::write_atomically(&path, bytes).map_err(DestinationError::write(&path))?;
        }
        Ok(digest)
    }

    /// The bytes of the blob, which are compared with its digest.
    ///
    /// # Errors
    /// When it is not there, or is not what its name says.
    pub fn get(&self, digest: &Digest) -> Result<Vec<u8>, DestinationError> {
        let path = self.path(digest);
        let bytes = crate::fs::read_regular(&path).map_err(DestinationError::read(&path))?;
        if Digest::of(&bytes) != *digest {
            return Err(DestinationError::Foreign { path, problem: "is not what its digest says".to_owned() });
        }
        Ok(bytes)
    }

    /// Deletes a blob, if it is there.
    ///
    /// # Errors
    /// When it can't be deleted.
    pub fn remove(&self, digest: &Digest) -> Result<(), DestinationError> {
        let path = self.path(digest);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DestinationError::write(&path)(error)),
            _ => Ok(()),
        }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.to_hex())
    }
}

impl BlobSink for Blobs {
    fn open(&self, job: &LayerJob<'_>) -> anyhow::Result<Box<dyn BlobWriter + '_>> {
        let file = PartialFile::create(&self.folder).map_err(DestinationError::write(&self.folder))?;
        Ok(Box::new(NewBlob { blobs: self, file, expected: job.known.clone(), paths: some_paths(job) }))
    }
}

struct NewBlob<'a> {
    blobs: &'a Blobs,
    file: PartialFile,
    expected: Option<LayerRecord>,
    paths: String,
}

impl Write for NewBlob<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl BlobWriter for NewBlob<'_> {
    fn finish(self: Box<Self>, delivered: &Delivered) -> anyhow::Result<()> {
        expect(self.expected.as_ref(), &delivered.record, &self.paths)?;
        let path = self.blobs.path(&delivered.blob.digest);
        self.file.persist(&path).map_err(DestinationError::write(&path))?;
        Ok(())
    }
}

/// Compares what a layer is with what was known of it.
pub(super) fn expect(known: Option<&LayerRecord>, record: &LayerRecord, paths: &str) -> Result<(), DestinationError> {
    match known {
        Some(known) if known.diff_id != record.diff_id => Err(DestinationError::Changed {
            paths: paths.to_owned(),
            expected: known.diff_id.to_string(),
            found: record.diff_id.to_string(),
        }),
        _ => Ok(()),
    }
}

/// The first paths of a layer, for messages.
pub(super) fn some_paths(job: &LayerJob<'_>) -> String {
    match &job.content {
        Content::Made(_) => "the image's own files".to_owned(),
        Content::Blob(blob) | Content::Tar(blob) => format!("the blob {}", blob.digest),
        Content::Store { paths, .. } => {
            let first: Vec<String> = paths.iter().take(3).map(|path| path.to_basename()).collect();
            let more = paths.len().saturating_sub(first.len());
            if more > 0 { format!("{} and {more} more", first.join(", ")) } else { first.join(", ") }
        }
    }
}

/// Takes bytes and keeps none, for those who only want their digest.
pub struct OnlyHash;

impl BlobSink for OnlyHash {
    fn open(&self, _: &LayerJob<'_>) -> anyhow::Result<Box<dyn BlobWriter + '_>> {
        Ok(Box::new(Nowhere))
    }
}

struct Nowhere;

impl Write for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobWriter for Nowhere {
    fn finish(self: Box<Self>, _: &Delivered) -> anyhow::Result<()> {
        Ok(())
    }
}
