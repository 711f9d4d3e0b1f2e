//! OCI layouts: a folder of blobs with an index of images.
//!
//! Source: OCI image-spec 1.1, `image-layout.md`. Images of other tags stay.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::blobs::Blobs;
use super::{DEFAULT_TAG, Delivery, Destination, DestinationError};
use crate::digest::Digest;
use crate::fs::LockedFolder;
use crate::image::Image;
use crate::image::manifest::{self, ImageIndex, OCI_INDEX};
use crate::layer::Delivered;
use crate::layer::deliver::LayerJob;

/// The annotation with an image's tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// What says that something is a layout, in the file `oci-layout`.
pub(super) const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// A layout that an image is put into.
pub struct OciLayout {
    folder: PathBuf,
    blobs: Blobs,
    tag: Option<String>,
    _lock: LockedFolder,
}

impl OciLayout {
    /// The layout in `folder`, which is made when it is not there.
    ///
    /// # Errors
    /// When it can't be written, or is something else.
    pub fn create(folder: &Path, tag: Option<String>) -> Result<Self, DestinationError> {
        std::fs::create_dir_all(folder).map_err(DestinationError::write(folder))?;
        let lock = LockedFolder::lock(folder).map_err(DestinationError::write(folder))?;
        let marker = folder.join("oci-layout");
        if !marker.exists() && !is_empty(folder)? {
            return Err(DestinationError::Foreign {
                path: folder.to_owned(),
                problem: "is neither an OCI layout nor empty; name another folder".to_owned(),
            });
        }
        // First, so that a killed run leaves a layout, if one without an image.
        if !marker.exists() {
            crate::fs::write_atomically(&marker, MARKER).map_err(DestinationError::write(&marker))?;
        }
        let layout = Self { folder: folder.to_owned(), blobs: Blobs::create(folder)?, tag, _lock: lock };
        if !layout.index().exists() {
            layout.write_index(&json!([]))?;
        }
        Ok(layout)
    }

    fn index(&self) -> PathBuf {
        self.folder.join("index.json")
    }

    /// Gives what was put there its tag, in place of whatever had it.
    fn give_tag(&self, digest: &Digest, bytes: &[u8], tag: &str) -> Result<(), DestinationError> {
        let mut manifests = read_index(&self.folder)?;
        manifests.retain(|entry| entry["annotations"][REF_NAME] != tag);
        manifests.push(index_entry(digest, bytes, tag));
        self.write_index(&Value::Array(manifests))
    }

    fn write_index(&self, manifests: &Value) -> Result<(), DestinationError> {
        crate::fs::write_atomically(&self.index(), &index(manifests)).map_err(DestinationError::write(&self.index()))
    }
}

impl Destination for OciLayout {
    fn put_layers(&mut self, delivery: &Delivery<'_>) -> anyhow::Result<Vec<Delivered>> {
        let is_there =
            |_: &LayerJob<'_>, expected: &Delivered| self.blobs.has(&expected.blob.digest, expected.blob.size);
        super::put_missing(delivery, &self.folder, &self.blobs, is_there)
    }

    fn finish(&mut self, image: &Image, delivery: &Delivery<'_>) -> anyhow::Result<()> {
        self.add(image, delivery)?;
        let tag = self.tag.as_deref().unwrap_or(&image.name.tag);
        Ok(self.give_tag(&image.digest(), &image.manifest, tag)?)
    }

    fn add(&mut self, image: &Image, _: &Delivery<'_>) -> anyhow::Result<()> {
        self.blobs.put(&image.config)?;
        self.blobs.put(&image.manifest)?;
        Ok(())
    }

    fn finish_index(&mut self, index: &ImageIndex) -> anyhow::Result<()> {
        let digest = self.blobs.put(&index.bytes)?;
        Ok(self.give_tag(&digest, &index.bytes, self.tag.as_deref().unwrap_or(DEFAULT_TAG))?)
    }
}

/// The bytes of an index that lists `manifests`.
pub(super) fn index(manifests: &Value) -> Vec<u8> {
    manifest::to_json(&json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests }))
}

/// What an index says of a manifest, or an index, with these bytes.
pub(super) fn index_entry(digest: &Digest, bytes: &[u8], tag: &str) -> Value {
    json!({
        "mediaType": manifest::media_type(bytes),
        "digest": digest,
        "size": bytes.len(),
        "annotations": Value::Object(Map::from_iter([(REF_NAME.to_owned(), tag.into())])),
    })
}

/// The images that the index of the layout in `folder` lists.
fn read_index(folder: &Path) -> Result<Vec<Value>, DestinationError> {
    let path = folder.join("index.json");
    let text = crate::fs::read_regular(&path).map_err(DestinationError::read(&path))?;
    let foreign = |problem: String| DestinationError::Foreign { path: path.clone(), problem };
    let mut index: Value =
        serde_json::from_slice(&text).map_err(|error| foreign(format!("is no OCI index: {error}")))?;
    match index["manifests"].take() {
        Value::Array(manifests) => Ok(manifests),
        _ => Err(foreign("is no OCI index: it lists no manifests".to_owned())),
    }
}

/// Whether nothing is in `folder` but what killed runs may leave, or it is not
/// there.
pub(super) fn is_empty(folder: &Path) -> Result<bool, DestinationError> {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries
            .all(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with(crate::fs::PARTIAL)))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(DestinationError::read(folder)(error)),
    }
}
