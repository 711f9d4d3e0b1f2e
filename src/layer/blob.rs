//! Layers that are there already, as blobs: they go on as they are, compressed
//! or not.

use std::io::{self, Read, Write};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::chunks::CHUNK;
use super::{BlobRecord, LayerRecord};
use crate::digest::Digest;
use crate::registry::RepositoryName;

/// Opens a blob, whenever it is wanted.
pub type OpenBlob = Arc<dyn Fn() -> io::Result<Box<dyn Read + Send>> + Send + Sync>;

/// A layer that is there already.
#[derive(Clone)]
pub struct LayerBlob {
    /// The digest of its bytes.
    pub digest: Digest,
    /// How many bytes there are.
    pub size: u64,
    /// Opens it.
    pub open: OpenBlob,
    /// The repository of a registry that has it, if one does.
    pub origin: Option<RepositoryName>,
    /// Opens it uncompressed, if it is of a compression that docker archives can't
    /// have.
    pub plain: Option<OpenBlob>,
}

/// Why a blob can't be taken as it is.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// It is gone, or can't be read.
    #[error("reading the layer {digest} of another image: {source}")]
    Read {
        /// The blob's digest.
        digest: Digest,
        /// What the system says.
        source: io::Error,
    },
    /// It has other bytes than when the image was read.
    #[error(
        "the layer {digest} of another image has other bytes than its digest says; was that image changed meanwhile?"
    )]
    Changed {
        /// What its digest should be.
        digest: Digest,
    },
}

impl LayerBlob {
    /// What its bytes are.
    #[must_use]
    pub fn record(&self) -> BlobRecord {
        BlobRecord { digest: self.digest, size: self.size }
    }

    /// Writes the blob to `out`, and compares it with its digest.
    ///
    /// # Errors
    /// [`BlobError`]; or, when `out` fails, what the system says.
    pub fn copy(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        copy(&self.open, self.digest, self.size, out)
    }

    /// How many bytes [`Self::copy_for_docker`] writes; `record` is of the layer.
    #[must_use]
    pub fn size_for_docker(&self, record: &LayerRecord) -> u64 {
        if self.plain.is_some() { record.size } else { self.size }
    }

    /// Likewise, for a docker archive.
    ///
    /// # Errors
    /// As [`Self::copy`].
    pub fn copy_for_docker(&self, record: &LayerRecord, out: &mut dyn Write) -> anyhow::Result<()> {
        match &self.plain {
            Some(plain) => copy(plain, record.diff_id, record.size, out),
            None => self.copy(out),
        }
    }
}

fn copy(open: &OpenBlob, digest: Digest, expected: u64, out: &mut dyn Write) -> anyhow::Result<()> {
    let unreadable = |source| BlobError::Read { digest, source };
    // One byte more than there should be is seen, and a million are not read.
    let mut blob = open().map_err(unreadable)?.take(expected.saturating_add(1));
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut size = 0;
    loop {
        let length = match blob.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(error).into()),
        };
        size += length as u64;
        if size > expected {
            break;
        }
        hasher.update(&chunk[..length]);
        out.write_all(&chunk[..length])?;
    }
    if size != expected || Digest::finish(hasher) != digest {
        return Err(BlobError::Changed { digest }.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(bytes: &'static [u8], digest: Digest, size: u64) -> anyhow::Result<Vec<u8>> {
        let mut out = Vec::new();
        LayerBlob { digest, size, open: Arc::new(move || Ok(Box::new(bytes))), origin: None, plain: None }
            .copy(&mut out)?;
        Ok(out)
    }

    #[test]
    fn only_the_bytes_of_the_digest_are_taken() {
        let digest = Digest::of(b"layer");
        assert_eq!(copied(b"layer", digest, 5).expect("the same"), b"layer");
        for (bytes, size) in [(&b"Layer"[..], 5), (b"layer", 4), (b"layer", 6), (b"laye", 5), (b"layers", 5)] {
            let error = copied(bytes, digest, size).expect_err("another");
            assert!(matches!(error.downcast_ref(), Some(BlobError::Changed { .. })), "{error}");
        }
    }

    #[test]
    fn docker_archives_get_what_they_can_have() {
        let open = |bytes: &'static [u8]| -> OpenBlob { Arc::new(move || Ok(Box::new(bytes))) };
        let record = LayerRecord::of_tar(b"layer");
        let mut blob = LayerBlob { digest: Digest::of(b"zip"), size: 3, open: open(b"zip"), origin: None, plain: None };
        for (plain, expected) in [(None, &b"zip"[..]), (Some(open(b"layer")), b"layer")] {
            blob.plain = plain;
            let mut out = Vec::new();
            blob.copy_for_docker(&record, &mut out).expect("as it is");
            assert_eq!((out.as_slice(), blob.size_for_docker(&record)), (expected, expected.len() as u64));
        }
        blob.plain = Some(open(b"Layer"));
        assert!(blob.copy_for_docker(&record, &mut Vec::new()).is_err());
    }

    #[test]
    fn a_blob_that_is_gone_is_named() {
        let digest = Digest::of(b"layer");
        let open: OpenBlob = Arc::new(|| Err(io::ErrorKind::NotFound.into()));
        let error = LayerBlob { digest, size: 5, open, origin: None, plain: None }
            .copy(&mut Vec::new())
            .expect_err("gone")
            .to_string();
        assert!(error.contains(&digest.to_string()), "{error}");
    }
}
