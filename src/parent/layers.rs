//! The layers of a parent: each is checked, looked through, and laid upon those
//! below it.

use std::collections::BTreeMap;

use super::blob::{Blob, Spool};
use super::compression::Compression;
use super::error::LayerProblem;
use super::find::FoundLayer;
use super::overlay::{Changes, Inode, Overlay, Removed};
use super::scan::{DATABASE, ENTRY, SCHEMA, Scanned, Scanner, WAL};
use super::{Entry, LayerBytes, Node, ParentError};
use crate::digest::Digest;
use crate::image::manifest::{Descriptor, OCI_LAYER};
use crate::layer::{LayerKey, LayerRecord, Owner, Stamp};
use crate::store::{StoreDir, StorePath};

/// A layer before it was looked through.
pub enum Unread {
    /// A blob.
    Blob(FoundLayer),
    /// A blob whose store paths are told, so that it need not be looked into.
    Listed {
        /// The blob.
        found: FoundLayer,
        /// Its store paths.
        paths: Vec<StorePath>,
    },
    /// Store paths that are only named.
    Store {
        /// The layer's key.
        key: LayerKey,
        /// What is known of it.
        record: LayerRecord,
        /// Its store paths, in order.
        paths: Vec<StorePath>,
        /// What the headers of their files say.
        stamp: Stamp,
    },
}

/// A layer that was looked through.
pub struct Layer {
    /// The digest and size of the uncompressed tar.
    pub record: LayerRecord,
    /// The blob's kind, digest and size.
    pub descriptor: Descriptor,
    /// Where its bytes are.
    pub content: Content,
    /// What it removes of others.
    pub removed: Removed,
    /// The store paths of which it has something, and how much memory their entries
    /// would take, about, in bytes.
    pub store: BTreeMap<Vec<u8>, usize>,
    /// The contents of those of its files that are watched.
    pub watched: BTreeMap<Vec<u8>, Blob>,
}

/// Where a layer's bytes are.
pub enum Content {
    /// In a blob.
    Blob(Blob),
    /// In a store, from which they are made.
    Store {
        /// Its store paths, in order.
        paths: Vec<StorePath>,
        /// How it is made.
        bytes: LayerBytes,
    },
}

/// All layers, one upon the other.
#[derive(Default)]
pub struct Merged {
    /// What a container sees. Of the store, only the store paths themselves.
    pub overlay: Overlay<Placed>,
    /// The databases that were visible with some of the layers, the lowest first.
    pub databases: Vec<Database>,
    count: usize,
}

/// An entry, and the number of the layer that it is from, counted from 0.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The entry.
    pub entry: Entry,
    /// The layer.
    pub layer: usize,
}

/// The layers that the files of a database are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Database {
    /// Of `db.sqlite`.
    pub database: usize,
    /// Of `db.sqlite-wal`.
    pub wal: Option<usize>,
    /// Of `schema`.
    pub schema: Option<usize>,
}

impl Inode for Entry {
    fn is_directory(&self) -> bool {
        self.node == Node::Directory
    }

    fn implied() -> Self {
        Self { node: Node::Directory, mode: 0o755, uid: 0, gid: 0 }
    }
}

impl Inode for Placed {
    fn is_directory(&self) -> bool {
        self.entry.is_directory()
    }

    fn implied() -> Self {
        Self { entry: Entry::implied(), layer: 0 }
    }
}

/// Reads the layers of the image `name`, the lowest first, and keeps what is
/// watched in `spool`.
///
/// # Errors
/// When one is not what the image says, or is refused.
pub fn read(
    name: &str,
    unread: Vec<Unread>,
    diff_ids: &[Digest],
    store_dir: &StoreDir,
    spool: &mut Spool,
) -> Result<(Vec<Layer>, Merged), ParentError> {
    let store = store_dir.as_str().trim_start_matches('/').as_bytes();
    let mut scanner = Scanner::new(store, spool);
    let mut layers = Vec::new();
    let mut merged = Merged::default();
    for (index, (layer, diff_id)) in unread.into_iter().zip(diff_ids).enumerate() {
        let (layer, changes) = match layer {
            Unread::Store { key, record, paths, stamp } => named(key, record, paths, stamp, store_dir),
            Unread::Listed { found, paths } => listed(found, *diff_id, &paths, store_dir),
            Unread::Blob(found) => {
                // The digest that the image itself knows the layer by.
                let digest = found.descriptor.as_ref().map_or(*diff_id, |descriptor| descriptor.digest);
                scan(&mut scanner, found, *diff_id).map_err(|problem| ParentError::Layer {
                    name: name.to_owned(),
                    number: index + 1,
                    digest,
                    problem: Box::new(problem),
                })?
            }
        };
        layers.push(merged.lay(layer, changes, store));
    }
    Ok((layers, merged))
}

/// Looks through a blob, and compares it with what the image says.
fn scan(
    scanner: &mut Scanner<'_>,
    found: FoundLayer,
    diff_id: Digest,
) -> Result<(Layer, Changes<Entry>), LayerProblem> {
    let FoundLayer { blob, descriptor } = found;
    if let Some(descriptor) = &descriptor {
        let kind = &descriptor.media_type;
        if !kind.contains(".tar") || kind.ends_with("+encrypted") {
            return Err(LayerProblem::Kind(kind.clone()));
        }
        if blob.size() != descriptor.size {
            return Err(LayerProblem::Size { expected: descriptor.size, found: blob.size() });
        }
    }
    let Scanned { sums, changes, watched, store } = scanner.scan(&blob)?;
    if let Some(descriptor) = &descriptor {
        same("the digest", descriptor.digest, sums.blob)?;
    }
    same("uncompressed the digest", diff_id, sums.diff_id)?;
    let layer = Layer {
        record: LayerRecord { diff_id, size: sums.size, architectures: BTreeMap::new() },
        descriptor: Descriptor {
            media_type: sums.compression.media_type().to_owned(),
            digest: sums.blob,
            size: blob.size(),
        },
        content: Content::Blob(blob),
        removed: Removed::default(),
        store,
        watched,
    };
    Ok((layer, changes))
}

/// Compares digests.
///
/// # Errors
/// When they differ.
pub fn same(what: &'static str, expected: Digest, found: Digest) -> Result<(), LayerProblem> {
    if found == expected { Ok(()) } else { Err(LayerProblem::Digest { what, expected, found }) }
}

/// A layer whose store paths are only named: what a tar of them has.
fn named(
    key: LayerKey,
    record: LayerRecord,
    paths: Vec<StorePath>,
    stamp: Stamp,
    store_dir: &StoreDir,
) -> (Layer, Changes<Entry>) {
    let changes = store_entries(&paths, &stamp.owner, store_dir);
    let descriptor = Descriptor { media_type: OCI_LAYER.to_owned(), digest: record.diff_id, size: record.size };
    let bytes = LayerBytes::Store { key, store_dir: store_dir.clone(), stamp };
    let layer = Layer {
        record,
        descriptor,
        content: Content::Store { paths, bytes },
        removed: Removed::default(),
        store: BTreeMap::new(),
        watched: BTreeMap::new(),
    };
    (layer, changes)
}

/// A blob whose store paths are told. Its digest is compared when it is copied.
fn listed(found: FoundLayer, diff_id: Digest, paths: &[StorePath], store_dir: &StoreDir) -> (Layer, Changes<Entry>) {
    let size = found.blob.size();
    let media_type = found.descriptor.as_ref().map(|descriptor| Compression::of_media_type(&descriptor.media_type));
    let media_type = media_type.unwrap_or(Compression::None).media_type().to_owned();
    let digest = found.descriptor.map_or(diff_id, |descriptor| descriptor.digest);
    let layer = Layer {
        record: LayerRecord { diff_id, size, architectures: BTreeMap::new() },
        descriptor: Descriptor { media_type, digest, size },
        content: Content::Blob(found.blob),
        removed: Removed::default(),
        store: BTreeMap::new(),
        watched: BTreeMap::new(),
    };
    (layer, store_entries(paths, &Owner::default(), store_dir))
}

/// What a layer of these store paths has.
fn store_entries(paths: &[StorePath], owner: &Owner, store_dir: &StoreDir) -> Changes<Entry> {
    let mut changes = Changes::default();
    for path in paths {
        let entry = Entry { node: Node::Directory, mode: 0o555, uid: owner.uid, gid: owner.gid };
        changes.added.put(store_dir.render_path(path).trim_start_matches('/').as_bytes().to_vec(), entry);
    }
    changes
}

impl Merged {
    /// Lays a layer on top of those that are there.
    fn lay(&mut self, mut layer: Layer, changes: Changes<Entry>, store: &[u8]) -> Layer {
        let number = self.count;
        let in_store = |path: &&Vec<u8>| path.len() > store.len() && super::overlay::is_within(path, store);
        for path in changes.added.iter().map(|(path, _)| path).filter(in_store) {
            *layer.store.entry(path.clone()).or_default() += path.len() + ENTRY;
        }
        layer.removed = self.overlay.apply(changes, |entry| Placed { entry, layer: number });
        self.count += 1;
        if let Some(database) = self.visible_database()
            && self.databases.last() != Some(&database)
        {
            self.databases.push(database);
        }
        layer
    }

    /// The database that a container sees, if there is one.
    #[must_use]
    pub fn visible_database(&self) -> Option<Database> {
        let layer_of = |path| {
            let placed = self.overlay.get(path).filter(|placed| placed.entry.node == Node::Other);
            placed.map(|placed| placed.layer)
        };
        Some(Database { database: layer_of(DATABASE)?, wal: layer_of(WAL), schema: layer_of(SCHEMA) })
    }
}
