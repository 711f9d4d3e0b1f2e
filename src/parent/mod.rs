//! Parent images: images that others are built on.
//!
//! A parent is read in one pass over its layers, which are never unpacked: what
//! an image built on it has to know of it is found in the tar headers, the
//! config and the Nix databases. Its layers go into the new image as they are.
//!
//! Everything in a parent comes from somebody else, and is checked before it is
//! believed.

pub mod blob;
pub mod compression;
pub mod database;
pub mod error;
pub mod files;
pub mod find;
pub mod layers;
pub mod look;
pub mod merge;
pub mod overlay;
pub mod parts;
pub mod read;
pub mod references;
pub mod registrations;
pub mod scan;
pub mod stream;
pub mod tar;
pub mod texts;
pub mod unregistered;

use std::collections::BTreeMap;

use serde_json::Value;

pub use error::{LayerProblem, ParentError};
pub use read::{ReadOptions, read};

use crate::digest::Digest;
use crate::image::manifest::Descriptor;
pub use crate::layer::blob::OpenBlob;
use crate::layer::{LayerKey, LayerRecord, Stamp};
use crate::registry::RepositoryName;
use crate::store::{PathInfo, StoreDir, StorePath};

/// An image that others are built on.
pub struct Parent {
    /// The reference that it was read from, for messages.
    pub name: String,
    /// Its config, whole.
    pub config: Value,
    /// Its layers, the lowest first.
    pub layers: Vec<ParentLayer>,
    /// Its file system, but for what is in the store dir; the folder `.links` there, which
    /// is no store path, is told of.
    pub root: Root,
    /// The store paths that a container of it has, each with its registration.
    pub registrations: Vec<PathInfo>,
}

/// A layer of a parent.
pub struct ParentLayer {
    /// The digest and size of the uncompressed tar.
    pub record: LayerRecord,
    /// The blob as it is: perhaps compressed. For a layer that is not there as a
    /// blob, what it would be uncompressed.
    pub blob: Descriptor,
    /// What the parent's history says of it.
    pub comment: String,
    /// The store paths in it, in order.
    pub paths: Vec<StorePath>,
    /// Where its bytes come from.
    pub bytes: LayerBytes,
}

/// Where the bytes of a parent's layer come from.
#[derive(Clone)]
pub enum LayerBytes {
    /// The blob, read whenever it is wanted.
    Blob {
        /// Opens it.
        open: OpenBlob,
        /// The repository of a registry that has it, if one does.
        origin: Option<RepositoryName>,
    },
    /// The files of a store: a layer that an image folder names.
    Store {
        /// The layer's key.
        key: LayerKey,
        /// What the store dir is called.
        store_dir: StoreDir,
        /// What the headers of its files say.
        stamp: Stamp,
    },
}

/// A file system as all layers together make it.
#[derive(Clone, Debug, Default)]
pub struct Root {
    /// Its entries, by their paths without a leading `/`.
    pub entries: BTreeMap<Vec<u8>, Entry>,
    /// The contents of those files that images built on it have to know, by the
    /// paths that have them once links are followed; see [`WANTED`].
    pub texts: BTreeMap<&'static str, String>,
}

/// The files whose contents images built on it have to know.
pub const WANTED: [&str; 4] = ["etc/passwd", "etc/group", "etc/nix/nix.conf", "etc/nix/registry.json"];

/// An entry of a [`Root`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub node: Node,
    /// Its permissions.
    pub mode: u32,
    /// Its owner's number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
}

/// What an entry of a [`Root`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A folder.
    Directory,
    /// A link with that target.
    Link(Vec<u8>),
    /// Anything else.
    Other,
}

impl Parent {
    /// The digest of each layer's uncompressed tar, the lowest first.
    pub fn diff_ids(&self) -> impl Iterator<Item = Digest> + '_ {
        self.layers.iter().map(|layer| layer.record.diff_id)
    }
}
