//! Images: what is asked for (the spec), what lies on top of the store layers
//! (the system layer), and what describes it all (config and manifest).

pub mod config;
pub mod contents;
pub mod extras;
pub mod ground;
pub mod inherit;
pub mod items;
pub mod keys;
mod kinds;
pub mod made;
pub mod manifest;
pub mod name;
pub mod nix_conf;
pub mod nixdb;
pub mod note;
pub mod perms;
pub mod platform;
pub mod spec;
pub mod system;
pub mod trees;
pub mod user;

use crate::digest::Digest;
use crate::layer::LayerRecord;
pub use config::ContainerConfig;
use manifest::Descriptor;
pub use name::ImageName;
use note::Note;
pub use platform::Platform;
pub use spec::ImageSpec;

/// One layer of a finished image.
#[derive(Clone, Debug)]
pub struct ImageLayer {
    /// Its digests and sizes.
    pub record: LayerRecord,
    /// What the image's history says of it.
    pub comment: String,
    /// What the manifest says of it: another digest than the record where the layer
    /// is compressed.
    pub blob: Descriptor,
    /// What the manifest tells others of it.
    pub note: Option<Note>,
}

impl ImageLayer {
    /// A layer that is not compressed.
    #[must_use]
    pub fn plain(record: LayerRecord, comment: String) -> Self {
        let media_type = manifest::OCI_LAYER.to_owned();
        let blob = Descriptor { media_type, digest: record.diff_id, size: record.size };
        Self { record, comment, blob, note: None }
    }
}

/// A finished image: all of it but the layers' bytes.
#[derive(Clone, Debug)]
pub struct Image {
    /// What it is called.
    pub name: ImageName,
    /// The config, as bytes.
    pub config: Vec<u8>,
    /// The OCI manifest, as bytes.
    pub manifest: Vec<u8>,
    /// The layers, the lowest first.
    pub layers: Vec<ImageLayer>,
}

impl Image {
    /// The config's digest, which Docker calls the image's ID.
    #[must_use]
    pub fn config_digest(&self) -> Digest {
        Digest::of(&self.config)
    }

    /// The manifest's digest, which is the image's.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}
