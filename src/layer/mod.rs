//! Layers: from store paths to deterministic tar bytes and their digests.

pub mod blob;
pub mod built;
pub mod chunks;
pub mod compress;
pub mod deliver;
pub mod elf;
pub mod index;
pub mod key;
pub mod pack;
pub mod stream;
pub mod tar;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
pub use key::{LayerKey, Owner, STORE_TIME, Stamp};
pub use tar::LATEST;

/// What is known of a layer once its bytes were seen: enough to put it into a
/// manifest, and into a config, without seeing them again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerRecord {
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The size of the uncompressed tar, in bytes.
    pub size: u64,
    /// How many programs and libraries there are for each architecture, by
    /// Go's names.
    #[serde(default)]
    pub architectures: BTreeMap<String, u64>,
}

impl LayerRecord {
    /// What is known of a tar without programs of its own.
    #[must_use]
    pub fn of_tar(tar: &[u8]) -> Self {
        Self { diff_id: Digest::of(tar), size: tar.len() as u64, architectures: BTreeMap::new() }
    }
}

/// A layer's bytes as they are kept: perhaps compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlobRecord {
    /// Their digest.
    pub digest: Digest,
    /// How many there are.
    pub size: u64,
}

impl From<(Digest, u64)> for BlobRecord {
    fn from((digest, size): (Digest, u64)) -> Self {
        Self { digest, size }
    }
}

/// What has become of a layer at a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// What it is.
    pub record: LayerRecord,
    /// What its bytes are there.
    pub blob: BlobRecord,
}

impl Delivered {
    /// A layer that is not compressed.
    #[must_use]
    pub fn plain(record: LayerRecord) -> Self {
        let blob = BlobRecord { digest: record.diff_id, size: record.size };
        Self { record, blob }
    }
}
