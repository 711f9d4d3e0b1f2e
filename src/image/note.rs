//! What our OCI manifests say of layers, so that an image is a layer index for others.
//!
//! A layer of store paths has the annotation [`ANNOTATION`] in its descriptor: its key,
//! and what of a record neither descriptor nor config have. Layers of a parent have none,
//! whatever the parent was read from: the image's digest must not depend on that.
//!
//! Source: OCI image-spec 1.1, `descriptor.md` and `annotations.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::manifest::{Descriptor, Manifest};
use crate::digest::Digest;
use crate::layer::index::known::KnownLayers;
use crate::layer::{BlobRecord, LayerKey, LayerRecord};

/// The annotation. Its name has the version of what is in it.
pub const ANNOTATION: &str = "stowage.layer.v1";

/// What is said of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Its key.
    pub key: LayerKey,
    /// The size of its tar, in bytes.
    pub size: u64,
    /// As in [`LayerRecord`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub architectures: BTreeMap<String, u64>,
    /// How the blob is made of the tar, if it is another; see
    /// [`Compression::form`](crate::layer::compress::Compression::form).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<String>,
}

/// A note as it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(flatten)]
    note: Note,
    /// The blob that has the form: other tools compress layers anew, and keep annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blob: Option<Digest>,
}

/// A descriptor as a manifest lists it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listed {
    /// The descriptor itself.
    #[serde(flatten)]
    pub descriptor: Descriptor,
    /// Its annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, Value>,
}

impl Listed {
    /// A descriptor with `note`.
    #[must_use]
    pub fn new(descriptor: Descriptor, note: Option<&Note>) -> Self {
        let write = |note: &Note| Written { note: note.clone(), blob: note.form.as_ref().map(|_| descriptor.digest) };
        let text = note.and_then(|note| serde_json::to_string(&write(note)).ok());
        let annotations = text.map(|text| (ANNOTATION.to_owned(), text.into())).into_iter().collect();
        Self { descriptor, annotations }
    }

    fn note(&self) -> Option<Note> {
        let text = self.annotations.get(ANNOTATION)?.as_str()?;
        let Written { mut note, blob } = serde_json::from_str(text).ok()?;
        note.form = note.form.filter(|_| blob == Some(self.descriptor.digest));
        Some(note)
    }
}

/// What the manifest `manifest` says of each of its layers; what can't be read says
/// nothing.
#[must_use]
pub fn notes(manifest: &[u8]) -> Vec<Option<Note>> {
    listed(manifest).iter().map(Listed::note).collect()
}

fn listed(manifest: &[u8]) -> Vec<Listed> {
    serde_json::from_slice::<Manifest<Listed>>(manifest).map(|manifest| manifest.layers).unwrap_or_default()
}

/// The layers that an image with that manifest and config knows.
#[must_use]
pub fn known_layers(manifest: &[u8], config: &[u8]) -> KnownLayers {
    let mut known = KnownLayers::default();
    let config: Value = serde_json::from_slice(config).unwrap_or_default();
    let diff_ids = config["rootfs"]["diff_ids"].as_array().map(Vec::as_slice).unwrap_or_default();
    let layers = listed(manifest);
    if layers.len() != diff_ids.len() {
        return known;
    }
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        if let (Some(note), Ok(diff_id)) = (layer.note(), Digest::parse(diff_id.as_str().unwrap_or_default())) {
            let Descriptor { digest, size, .. } = layer.descriptor;
            let packed = note.form.map(|form| (form, BlobRecord { digest, size }));
            let Note { key, size, architectures, .. } = note;
            known.insert(key, LayerRecord { diff_id, size, architectures }, packed);
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{ImageLayer, manifest};
    use crate::layer::compress::{Compression, TAR_ZSTD};
    use crate::layer::key::KeyHasher;

    fn layer(form: Option<Compression>) -> ImageLayer {
        let mut layer = ImageLayer::plain(LayerRecord::of_tar(b"layer"), String::new());
        layer.record.architectures.insert("amd64".to_owned(), 3);
        if form.is_some() {
            layer.blob = Descriptor { media_type: TAR_ZSTD.to_owned(), digest: Digest::of(b"zstd"), size: 4 };
        }
        let LayerRecord { size, architectures, .. } = layer.record.clone();
        layer.note =
            Some(Note { key: KeyHasher::new("test").finish(), size, architectures, form: form.map(Compression::form) });
        layer
    }

    #[test]
    fn an_image_tells_what_its_layers_are() {
        let key = KeyHasher::new("test").finish();
        let config = serde_json::json!({ "rootfs": { "diff_ids": [Digest::of(b"layer")] } }).to_string();
        for form in [None, Some(Compression::ZSTD)] {
            let layer = layer(form);
            let bytes = manifest::oci(config.as_bytes(), std::slice::from_ref(&layer));
            assert_eq!(notes(&bytes), std::slice::from_ref(&layer.note));
            let known = known_layers(&bytes, config.as_bytes());
            assert_eq!(known.get(&key), Some(layer.record.clone()));
            let packed = known.packed(&key, &layer.record.diff_id, &Compression::ZSTD.form());
            assert_eq!(packed, form.map(|_| BlobRecord { digest: Digest::of(b"zstd"), size: 4 }));
            // A config of another image says nothing.
            assert!(known_layers(&bytes, b"{}").is_empty());
        }
    }

    #[test]
    fn the_form_of_the_annotation_stays() {
        let bytes = manifest::oci(b"{}", &[layer(Some(Compression::ZSTD))]);
        let text = String::from_utf8(bytes).expect("JSON");
        let key = KeyHasher::new("test").finish().to_hex();
        let expected = format!(
            r#""annotations":{{"stowage.layer.v1":"{{\"key\":\"sha256:{key}\",\"size\":5,\"architectures\":{{\"amd64\":3}},\"form\":\"zstd-1-v1\",\"blob\":\"{}\"}}"}}"#,
            Digest::of(b"zstd")
        );
        assert!(text.contains(&expected), "{text}");
        let read: oci_spec::image::ImageManifest = serde_json::from_str(&text).expect("valid");
        assert!(read.layers()[0].annotations().as_ref().is_some_and(|all| all.contains_key(ANNOTATION)));
    }

    #[test]
    fn a_blob_that_others_made_of_a_layer_has_no_form_of_ours() {
        let bytes = manifest::oci(b"{}", &[layer(Some(Compression::ZSTD))]);
        let text = String::from_utf8(bytes).expect("JSON");
        let (ours, other) =
            (format!(r#""digest":"{}""#, Digest::of(b"zstd")), format!(r#""digest":"{}""#, Digest::of(b"other")));
        let read = notes(text.replace(&ours, &other).as_bytes());
        assert_eq!(read, [layer(None).note]);
    }

    #[test]
    fn what_can_not_be_read_says_nothing() {
        let bytes = manifest::oci(b"{}", &[layer(None)]);
        let text = String::from_utf8(bytes).expect("JSON");
        let long = format!(r#"sha256:{}"#, "g".repeat(64));
        let key = format!("sha256:{}", KeyHasher::new("test").finish().to_hex());
        for (from, to) in [(r#"\"size\":5"#, r#"\"size\":-5"#), (&*key, &*long), (ANNOTATION, "x")] {
            let other = text.replace(from, to);
            assert_ne!(other, text);
            assert_eq!(notes(other.as_bytes()), [None], "{other}");
        }
        assert!(notes(b"{").is_empty());
    }
}
