//! Manifests: the list of an image's blobs.
//!
//! Sources: OCI image-spec 1.1, `manifest.md` and `image-layout.md`; the
//! `manifest.json` of docker archives: moby's `image/tarexport`.

use serde::{Deserialize, Serialize};

use super::note::Listed;
use super::{Image, ImageLayer, Platform};
use crate::digest::Digest;
use crate::layer::compress;

/// The media type of an OCI manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an OCI config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The media type of an OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of Docker's manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// The media type of Docker's config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// The media type of Docker's own index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// The media type of an uncompressed layer.
pub const OCI_LAYER: &str = compress::TAR;

/// A blob's kind, digest and size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What kind of blob it is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// An OCI manifest, which lists layers as `L`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest<L = Descriptor> {
    /// Always 2.
    pub schema_version: u32,
    /// [`OCI_MANIFEST`], or Docker's.
    pub media_type: Option<String>,
    /// The config.
    pub config: Descriptor,
    /// The layers, the lowest first.
    pub layers: Vec<L>,
}

/// One image of a docker archive's `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DockerArchiveEntry {
    /// The name of the config's file.
    pub config: String,
    /// The image's names.
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    /// The names of the layers' files, the lowest first.
    pub layers: Vec<String>,
}

/// A kind of manifest: the same content by other names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ManifestFormat {
    /// OCI's
    #[default]
    Oci,
    /// Docker's, schema 2, which older tools want
    Docker,
}

impl ManifestFormat {
    /// The bytes of the manifest of an image with that config and those layers.
    #[must_use]
    pub fn manifest(self, config: &[u8], layers: &[ImageLayer]) -> Vec<u8> {
        let (manifest, of_config) = match self {
            Self::Oci => (OCI_MANIFEST, OCI_CONFIG),
            Self::Docker => (DOCKER_MANIFEST, DOCKER_CONFIG),
        };
        let layer = |layer: &ImageLayer| {
            let oci = oci_media_type(&layer.blob.media_type);
            let media_type = if self == Self::Docker { docker_media_type(oci) } else { oci };
            let note = layer.note.as_ref().filter(|_| self == Self::Oci);
            Listed::new(Descriptor { media_type: media_type.to_owned(), ..layer.blob.clone() }, note)
        };
        let (digest, size) = (Digest::of(config), config.len() as u64);
        to_json(&Manifest {
            schema_version: 2,
            media_type: Some(manifest.to_owned()),
            config: Descriptor { media_type: of_config.to_owned(), digest, size },
            layers: layers.iter().map(layer).collect(),
        })
    }
}

/// One of the images that an index lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// Its manifest.
    #[serde(flatten)]
    pub manifest: Descriptor,
    /// What it is for.
    pub platform: Platform,
}

/// An index of images for several platforms, which Docker calls a manifest list.
#[derive(Clone, Debug)]
pub struct ImageIndex {
    /// The images, in the order of their platforms.
    pub entries: Vec<IndexEntry>,
    /// The index, as bytes.
    pub bytes: Vec<u8>,
}

impl ImageIndex {
    /// The index of `images`, whose manifests are of the kind `format`. In which order they are
    /// given makes no difference.
    pub fn new<'a>(format: ManifestFormat, images: impl IntoIterator<Item = (&'a Image, Platform)>) -> Self {
        let entry = |(image, platform): (&Image, Platform)| IndexEntry {
            manifest: Descriptor {
                media_type: media_type(&image.manifest),
                digest: image.digest(),
                size: image.manifest.len() as u64,
            },
            platform,
        };
        let mut entries: Vec<IndexEntry> = images.into_iter().map(entry).collect();
        entries.sort_by(|one, other| one.platform.order().cmp(&other.platform.order()));
        let media_type = match format {
            ManifestFormat::Oci => OCI_INDEX,
            ManifestFormat::Docker => DOCKER_INDEX,
        };
        let bytes = to_json(&Index { schema_version: 2, media_type, manifests: &entries });
        Self { entries, bytes }
    }

    /// Its digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: &'a [IndexEntry],
}

/// The bytes of the OCI manifest of an image with that config and those layers.
#[must_use]
pub fn oci(config: &[u8], layers: &[ImageLayer]) -> Vec<u8> {
    ManifestFormat::Oci.manifest(config, layers)
}

/// Docker's name for a layer that OCI calls so, if it has one.
fn docker_media_type(media_type: &str) -> &str {
    match media_type {
        compress::TAR => "application/vnd.docker.image.rootfs.diff.tar",
        compress::TAR_GZIP => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        other => other,
    }
}

/// OCI's name for the media type of a layer; Docker's image manifest schema 2 has
/// other names for the same bytes.
#[must_use]
pub fn oci_media_type(media_type: &str) -> &str {
    match media_type {
        "application/vnd.docker.image.rootfs.diff.tar" => OCI_LAYER,
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => compress::TAR_GZIP,
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => compress::TAR_ZSTD,
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => {
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        }
        other => other,
    }
}

/// What a manifest or an index says that it is.
#[must_use]
pub fn media_type(manifest: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
    }
    let read = serde_json::from_slice::<Typed>(manifest).ok();
    read.and_then(|read| read.media_type).unwrap_or_else(|| OCI_MANIFEST.to_owned())
}

/// JSON as Go's `encoding/json` writes it: compact, and with `<`, `>` and `&`
/// escaped, so that tools written in Go come to the same bytes.
#[must_use]
pub fn to_json(value: &impl Serialize) -> Vec<u8> {
    // Serialising these plain structures can't fail: no map has other keys than
    // strings.
    let text = serde_json::to_string(value).unwrap_or_default();
    text.replace('<', r"\u003c").replace('>', r"\u003e").replace('&', r"\u0026").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ImageName;
    use crate::layer::LayerRecord;

    #[test]
    fn oci_spec_reads_what_is_written() {
        let record = LayerRecord { diff_id: Digest::of(b"layer"), size: 5, architectures: Default::default() };
        let bytes = oci(b"{}", &[ImageLayer::plain(record, String::new())]);
        let read: oci_spec::image::ImageManifest = serde_json::from_slice(&bytes).expect("valid");
        assert_eq!(read.layers()[0].size(), 5);
        assert_eq!(read.config().digest().to_string(), Digest::of(b"{}").to_string());
        let rendered = String::from_utf8(bytes).expect("JSON");
        assert!(
            rendered.starts_with(
                r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"#
            ),
            "{rendered}"
        );
    }

    #[test]
    fn an_index_lists_images_in_the_order_of_their_platforms() {
        let image = |config: &[u8]| Image {
            name: ImageName::parse("a").expect("a name"),
            config: config.to_vec(),
            manifest: oci(config, &[]),
            layers: Vec::new(),
        };
        let platform = |text: &str| text.parse::<Platform>().expect(text);
        let (one, two, three) = (image(b"1"), image(b"2"), image(b"3"));
        let listed = [(&one, "linux/arm64/v8"), (&two, "linux/arm/v7"), (&three, "linux/amd64")];
        let listed = listed.map(|(image, text)| (image, platform(text)));
        let index = ImageIndex::new(ManifestFormat::Oci, listed.clone());
        let read: oci_spec::image::ImageIndex = serde_json::from_slice(&index.bytes).expect("valid");
        let first = &read.manifests()[0];
        assert_eq!(first.platform().as_ref().expect("told").architecture().to_string(), "amd64");
        assert_eq!(first.digest().to_string(), three.digest().to_string());
        let platforms: Vec<String> = index.entries.iter().map(|entry| entry.platform.to_string()).collect();
        assert_eq!(platforms, ["linux/amd64", "linux/arm/v7", "linux/arm64/v8"]);
        let [a, b, c] = listed;
        assert_eq!(ImageIndex::new(ManifestFormat::Oci, [c, b, a.clone()]).digest(), index.digest());
        let docker = ImageIndex::new(ManifestFormat::Docker, [a]);
        let text = String::from_utf8(docker.bytes).expect("JSON");
        let digest = one.digest();
        assert_eq!(
            text,
            format!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{},"platform":{{"architecture":"arm64","os":"linux","variant":"v8"}}}}]}}"#,
                one.manifest.len()
            )
        );
    }

    #[test]
    fn a_compressed_layer_is_listed_by_what_it_is_as_a_blob() {
        let record = LayerRecord { diff_id: Digest::of(b"layer"), size: 5, architectures: Default::default() };
        let media_type = "application/vnd.docker.image.rootfs.diff.tar.gzip".to_owned();
        let blob = Descriptor { media_type, digest: Digest::of(b"gz"), size: 2 };
        let bytes = oci(b"{}", &[ImageLayer { record, comment: String::new(), blob, note: None }]);
        let read: Manifest = serde_json::from_slice(&bytes).expect("valid");
        assert_eq!((read.layers[0].digest, read.layers[0].size), (Digest::of(b"gz"), 2));
        assert_eq!(read.layers[0].media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
    }
}
