//! Layers that somebody else tells of, e.g. an image of its own.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::layer::{BlobRecord, LayerKey, LayerRecord};

/// What is known of layers, by their keys.
#[derive(Clone, Debug, Default)]
pub struct KnownLayers(BTreeMap<LayerKey, (LayerRecord, Option<(String, BlobRecord)>)>);

impl KnownLayers {
    /// Adds a layer; `packed` is what its bytes are in a compressed form, which
    /// [`Compression::form`](crate::layer::compress::Compression::form) names.
    pub fn insert(&mut self, key: LayerKey, record: LayerRecord, packed: Option<(String, BlobRecord)>) {
        self.0.insert(key, (record, packed));
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is known of the layer with the key `key`.
    #[must_use]
    pub fn get(&self, key: &LayerKey) -> Option<LayerRecord> {
        self.0.get(key).map(|(record, _)| record.clone())
    }

    /// What its bytes are in the form `form`, if its tar has the digest `diff_id`.
    #[must_use]
    pub fn packed(&self, key: &LayerKey, diff_id: &Digest, form: &str) -> Option<BlobRecord> {
        let (record, packed) = self.0.get(key)?;
        let (known, blob) = packed.as_ref()?;
        (record.diff_id == *diff_id && known == form).then_some(*blob)
    }
}
