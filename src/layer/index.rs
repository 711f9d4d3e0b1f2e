//! The layer index: from layer keys to what is known of their layers, so that an
//! unchanged layer is not read again; and what else of a store's files is worth
//! remembering.
//!
//! One small JSON file a key, named by it, which appears by rename. It holds only
//! what can be found out again: whatever can't be read counts as unknown, and
//! what can't be written is forgotten.
//!
//! # Others' records
//!
//! Beside this machine's own folder there may be shared ones ([`shared`]), and images
//! that tell of their layers ([`known`]). Both are believed, but not as one's own:
//!
//! - they are asked for store layers only. What is made in memory is made, and what was
//!   found in store paths is looked for again: both are quick, and nothing compares them
//!   with a digest later;
//! - the own record wins, and replaces another one in a shared folder;
//! - they are never copied into the own index, where later runs would believe them that
//!   were not told to. What is new, and what the own index knows of layers that are used,
//!   goes to the shared folders.

pub mod known;
pub mod shared;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::compress::Compression;
use super::{BlobRecord, LayerKey, LayerRecord};
use crate::digest::Digest;
use known::KnownLayers;
use shared::SharedFolder;

/// The version of the files' form; files of another are passed over.
const VERSION: u32 = 1;

/// How large a file may be, in bytes: those that tell what contents have are the largest.
const MAX_FILE: u64 = 64 << 20;

/// What layers are remembered as.
const LAYER: &str = "layer";

/// A folder of layer records, and what others know.
#[derive(Clone, Debug)]
pub struct LayerIndex {
    folder: PathBuf,
    shared: Vec<Arc<SharedFolder>>,
    images: Vec<Arc<KnownLayers>>,
    believes: bool,
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
        Self { folder: folder.to_owned(), shared: Vec::new(), images: Vec::new(), believes: true }
    }

    /// Asks `folder`, too, and writes to it.
    pub fn add_shared(&mut self, folder: SharedFolder) {
        self.shared.push(Arc::new(folder));
    }

    /// Asks `layers`, too.
    pub fn add_known(&mut self, layers: KnownLayers) {
        self.images.push(Arc::new(layers));
    }

    /// Whether it believes anybody but itself.
    #[must_use]
    pub fn believes_others(&self) -> bool {
        self.believes && !(self.shared.is_empty() && self.images.is_empty())
    }

    /// The same, but that others are only told, and not believed.
    #[must_use]
    pub fn disbelieving(&self) -> Self {
        Self { believes: false, ..self.clone() }
    }

    /// What this machine knows of the layer with the key `key`.
    #[must_use]
    pub fn get(&self, key: &LayerKey) -> Option<LayerRecord> {
        self.recall(LAYER, key)
    }

    /// What anybody knows of the store layer with the key `key`.
    #[must_use]
    pub fn find(&self, key: &LayerKey) -> Option<LayerRecord> {
        self.get(key).or_else(|| {
            let shared = || self.others().find_map(|folder| folder.recall(LAYER, key));
            let images = || self.images().find_map(|layers| layers.get(key));
            shared().or_else(images)
        })
    }

    /// Remembers `record` for the layer with the key `key`, which is nothing for others.
    pub fn put(&self, key: &LayerKey, record: &LayerRecord) {
        self.remember(LAYER, key, record);
    }

    /// Remembers `record`, which this machine has found out, for the store layer with the
    /// key `key`, and tells others of it.
    pub fn put_store_layer(&self, key: &LayerKey, record: &LayerRecord) {
        self.put(key, record);
        self.tell(LAYER, key, record);
    }

    /// Tells others what this machine knows of the store layer with the key `key`, if that is
    /// `record`.
    pub fn share(&self, key: &LayerKey, record: &LayerRecord) {
        if !self.shared.is_empty() && self.get(key).as_ref() == Some(record) {
            self.tell(LAYER, key, record);
        }
    }

    /// What the bytes of that layer are, whose tar has the digest `diff_id`, when it is
    /// compressed so.
    #[must_use]
    pub fn packed(&self, key: &LayerKey, diff_id: &Digest, compression: Compression) -> Option<BlobRecord> {
        let form = compression.form();
        let of = |packed: Packed| (packed.diff_id == *diff_id).then_some(packed.blob);
        let own = || self.recall(&form, key).and_then(of);
        let shared = || self.others().find_map(|folder| folder.recall(&form, key).and_then(of));
        let images = || self.images().find_map(|layers| layers.packed(key, diff_id, &form));
        own().or_else(shared).or_else(images)
    }

    /// Remembers it, and tells others.
    pub fn put_packed(&self, key: &LayerKey, diff_id: &Digest, compression: Compression, blob: &BlobRecord) {
        let (form, packed) = (compression.form(), Packed { diff_id: *diff_id, blob: *blob });
        self.remember(&form, key, &packed);
        self.tell(&form, key, &packed);
    }

    /// Tells others what this machine knows of the layer's bytes, if that is `blob`.
    pub fn share_packed(&self, key: &LayerKey, diff_id: &Digest, compression: Compression, blob: &BlobRecord) {
        let own = || self.recall::<Packed>(&compression.form(), key);
        if !self.shared.is_empty() && own().is_some_and(|own| own.diff_id == *diff_id && own.blob == *blob) {
            self.tell(&compression.form(), key, &Packed { diff_id: *diff_id, blob: *blob });
        }
    }

    /// Something else that this machine knows by a key: what of it, `kind` says.
    #[must_use]
    pub fn recall<T: DeserializeOwned>(&self, kind: &str, key: &LayerKey) -> Option<T> {
        let file = crate::fs::open_regular(&self.folder.join(file_name(kind, key))).ok()?;
        let mut text = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut text).ok()?;
        parse(&text)
    }

    /// Remembers it.
    pub fn remember<T: Serialize>(&self, kind: &str, key: &LayerKey, known: &T) {
        let write = || -> anyhow::Result<()> {
            std::fs::create_dir_all(&self.folder)?;
            Ok(crate::fs::write_atomically(&self.folder.join(file_name(kind, key)), &render(known)?)?)
        };
        if let Err(error) = write() {
            tracing::debug!("not remembering in {}: {error:#}", self.folder.display());
        }
    }

    fn tell<T: Serialize>(&self, kind: &str, key: &LayerKey, known: &T) {
        if let Ok(text) = render(known) {
            self.shared.iter().for_each(|folder| folder.put(&file_name(kind, key), &text));
        }
    }

    fn others(&self) -> impl Iterator<Item = &SharedFolder> {
        self.shared.iter().map(Arc::as_ref).filter(|_| self.believes)
    }

    fn images(&self) -> impl Iterator<Item = &KnownLayers> {
        self.images.iter().map(Arc::as_ref).filter(|_| self.believes)
    }
}

impl SharedFolder {
    fn recall<T: DeserializeOwned>(&self, kind: &str, key: &LayerKey) -> Option<T> {
        parse(&self.get(&file_name(kind, key))?)
    }
}

fn file_name(kind: &str, key: &LayerKey) -> String {
    format!("{}.{kind}.json", key.to_hex())
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    let file: File<T> = serde_json::from_slice(text).ok()?;
    (file.version == VERSION).then_some(file.known)
}

fn render<T: Serialize>(known: &T) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&File { version: VERSION, known })
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
        let text = std::fs::read_to_string(folder.path().join(file_name(LAYER, &key))).expect("written");
        for damaged in [&text[..text.len() - 5], "", &text.replace("\"version\":1", "\"version\":2")] {
            std::fs::write(folder.path().join(file_name(LAYER, &key)), damaged).expect("writable");
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

    fn shared(folder: &Path) -> LayerIndex {
        let mut index = LayerIndex::new(&folder.join("own"));
        index.add_shared(SharedFolder::open(&folder.join("shared")).expect("writable"));
        index
    }

    #[test]
    fn a_shared_index_is_believed_but_not_copied_and_told_what_is_new() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = KeyHasher::new("test").finish();
        let blob = BlobRecord { digest: Digest::of(b"zstd"), size: 4 };
        let diff_id = record().diff_id;
        let first = shared(folder.path());
        first.put_store_layer(&key, &record());
        first.put_packed(&key, &diff_id, Compression::ZSTD, &blob);
        let mut second = shared(folder.path());
        second.folder = folder.path().join("other");
        assert_eq!((second.find(&key), second.get(&key)), (Some(record()), None));
        assert_eq!(second.packed(&key, &diff_id, Compression::ZSTD), Some(blob));
        second.share(&key, &record());
        assert_eq!(second.get(&key), None);
        let third = second.disbelieving();
        assert_eq!((third.find(&key), third.packed(&key, &diff_id, Compression::ZSTD)), (None, None));
        assert!(second.believes_others() && !third.believes_others());
    }

    #[test]
    fn the_own_record_wins_and_mends_a_shared_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = KeyHasher::new("test").finish();
        let index = shared(folder.path());
        let other = LayerRecord::of_tar(b"other");
        LayerIndex::new(&folder.path().join("own")).put(&key, &record());
        LayerIndex::new(&folder.path().join("shared")).put(&key, &other);
        assert_eq!(index.find(&key), Some(record()));
        // What was found elsewhere is nothing to tell.
        index.share(&key, &LayerRecord::of_tar(b"third"));
        assert_eq!(LayerIndex::new(&folder.path().join("shared")).get(&key), Some(other));
        index.share(&key, &record());
        assert_eq!(LayerIndex::new(&folder.path().join("shared")).get(&key), Some(record()));
    }

    #[test]
    fn images_are_asked_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = KeyHasher::new("test").finish();
        let mut index = shared(folder.path());
        let mut known = KnownLayers::default();
        let blob = BlobRecord { digest: Digest::of(b"zstd"), size: 4 };
        known.insert(key, record(), Some((Compression::ZSTD.form(), blob)));
        index.add_known(known);
        assert_eq!(index.find(&key), Some(record()));
        assert_eq!(index.packed(&key, &record().diff_id, Compression::ZSTD), Some(blob));
        assert_eq!(index.packed(&key, &Digest::of(b"x"), Compression::ZSTD), None);
        assert_eq!(index.packed(&key, &record().diff_id, Compression::GZIP), None);
        assert_eq!((index.get(&key), index.disbelieving().find(&key)), (None, None));
        LayerIndex::new(&folder.path().join("shared")).put(&key, &LayerRecord::of_tar(b"other"));
        assert_eq!(index.find(&key), Some(LayerRecord::of_tar(b"other")));
    }
}
