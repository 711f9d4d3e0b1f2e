//! The layer index: from layer keys to what is known of their layers, so that an
//! unchanged layer is not read again; and what else of a store's files is worth
//! remembering.
//!
//! One small JSON file a key, named by it, which appears by rename. It holds only
//! what can be found out again: whatever can't be read counts as unknown, and
//! what can't be written is forgotten.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::compress::Compression;
use super::{BlobRecord, LayerKey, LayerRecord};
use crate::digest::Digest;

/// The version of the files' form; files of another are passed over.
const VERSION: u32 = 1;

/// A folder of layer records.
#[derive(Clone, Debug)]
pub struct LayerIndex {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct File<T> {
    version: u32,
    #[serde(flatten)]
    known: T,
}

/// A layer in one form.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Packed {
    diff_id: Digest,
    #[serde(flatten)]
    blob: BlobRecord,
}

impl LayerIndex {
    /// The index in `folder`, which is made when there is something to remember.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// What is known of the layer with the key `key`.
    #[must_use]
    pub fn get(&self, key: &LayerKey) -> Option<LayerRecord> {
        self.recall("layer", key)
    }

    /// Remembers `record` for the layer with the key `key`.
    pub fn put(&self, key: &LayerKey, record: &LayerRecord) {
        self.remember("layer", key, record);
    }

    /// What the bytes of that layer are, whose tar has the digest `diff_id`, when it is
    /// compressed so.
    #[must_use]
    pub fn packed(&self, key: &LayerKey, diff_id: &Digest, compression: Compression) -> Option<BlobRecord> {
        let packed: Packed = self.recall(&compression.form(), key)?;
        (packed.diff_id == *diff_id).then_some(packed.blob)
    }

    /// Remembers it.
    pub fn put_packed(&self, key: &LayerKey, diff_id: &Digest, compression: Compression, blob: &BlobRecord) {
        self.remember(&compression.form(), key, &Packed { diff_id: *diff_id, blob: *blob });
    }

    /// Something else that is known by a key: what of it, `kind` says.
    #[must_use]
    pub fn recall<T: DeserializeOwned>(&self, kind: &str, key: &LayerKey) -> Option<T> {
        let text = std::fs::read(self.file(kind, key)).ok()?;
        let file: File<T> = serde_json::from_slice(&text).ok()?;
        (file.version == VERSION).then_some(file.known)
    }

    /// Remembers it.
    pub fn remember<T: Serialize>(&self, kind: &str, key: &LayerKey, known: &T) {
        let write = || -> anyhow::Result<()> {
            let text = serde_json::to_vec(&File { version: VERSION, known })?;
            std::fs::create_dir_all(&self.folder)?;
            Ok(crate::fs::write_atomically(&self.file(kind, key), &text)?)
        };
        if let Err(error) = write() {
            tracing::debug!("not remembering in {}: {error:#}", self.folder.display());
        }
    }

    fn file(&self, kind: &str, key: &LayerKey) -> PathBuf {
        self.folder.join(format!("{}.{kind}.json", key.to_hex()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::key::KeyHasher;

    fn record() -> LayerRecord {
        LayerRecord { diff_id: Digest::of(b"layer"), size: 5, architectures: [("amd64".to_owned(), 3)].into() }
    }

    #[test]
    fn what_is_put_is_got_by_everybody_who_opens_the_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = KeyHasher::new("test").finish();
        let index = LayerIndex::new(&folder.path().join("new/folder"));
        assert_eq!(index.get(&key), None);
        index.put(&key, &record());
        assert_eq!(LayerIndex::new(&folder.path().join("new/folder")).get(&key), Some(record()));
    }

    #[test]
    fn each_form_of_a_layer_is_remembered_for_itself_and_for_that_tar() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = KeyHasher::new("test").finish();
        let index = LayerIndex::new(folder.path());
        let (tar, other) = (Digest::of(b"layer"), Digest::of(b"other"));
        let blob = BlobRecord { digest: Digest::of(b"zstd"), size: 4 };
        index.put_packed(&key, &tar, Compression::Zstd(3), &blob);
        assert_eq!(index.packed(&key, &tar, Compression::Zstd(3)), Some(blob));
        assert_eq!(index.packed(&key, &tar, Compression::Zstd(4)), None);
        assert_eq!(index.packed(&key, &tar, Compression::Gzip(3)), None);
        assert_eq!(index.packed(&key, &other, Compression::Zstd(3)), None);
        assert_eq!(index.get(&key), None);
    }

    #[test]
    fn a_damaged_or_foreign_file_counts_as_unknown() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = KeyHasher::new("test").finish();
        let index = LayerIndex::new(folder.path());
        index.put(&key, &record());
        let text = std::fs::read_to_string(index.file("layer", &key)).expect("written");
        for damaged in [&text[..text.len() - 5], "", &text.replace("\"version\":1", "\"version\":2")] {
            std::fs::write(index.file("layer", &key), damaged).expect("writable");
            assert_eq!(index.get(&key), None, "{damaged}");
        }
    }

    #[test]
    fn an_index_that_cannot_be_written_is_no_error() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("file"), "").expect("writable");
        let index = LayerIndex::new(&folder.path().join("file"));
        let key = KeyHasher::new("test").finish();
        index.put(&key, &record());
        assert_eq!(index.get(&key), None);
    }
}
