//! `stowage inspect`.

use serde_json::{Value, json};

use super::args::InspectArguments;
use super::output;
use super::settings::Settings;
use crate::destination::{DestinationError, ImageReference, docker_archive, folder};
use crate::digest::Digest;
use crate::image::Platform;
use crate::image::manifest::Descriptor;
use crate::parent::compression::Compression;
use crate::parent::find::Choice;
use crate::parent::parts;
use crate::registry::Registries;

/// A layer as it is kept.
struct Blob {
    /// Perhaps compressed.
    size: u64,
    media_type: String,
}

impl From<&Descriptor> for Blob {
    fn from(blob: &Descriptor) -> Self {
        Self { size: blob.size, media_type: blob.media_type.clone() }
    }
}

/// What was found out of an image.
pub struct Inspected {
    names: Vec<String>,
    digest: Option<Digest>,
    /// What it is for.
    platform: Option<Platform>,
    /// Its config, whole.
    pub config: Value,
    config_digest: Digest,
    blobs: Vec<Blob>,
}

/// Shows what an image is made of.
///
/// # Errors
/// When it can't be read.
pub fn run(settings: &Settings, arguments: &InspectArguments) -> anyhow::Result<()> {
    let platform = arguments.platform.platform.as_ref();
    let inspected = inspect(&arguments.image, &settings.registries, platform)?;
    Choice::of(platform).check(&arguments.image.to_string(), inspected.platform.as_ref())?;
    let text = if arguments.json { as_json(&inspected) } else { as_text(&inspected) };
    Ok(output::print(&text)?)
}

/// Finds out what there is to know of an image without looking into its layers. Of images
/// for several platforms, it is the one for `platform`.
///
/// # Errors
/// When it can't be read.
pub fn inspect(
    image: &ImageReference,
    registries: &Registries,
    platform: Option<&Platform>,
) -> anyhow::Result<Inspected> {
    let parse = |config: &[u8]| {
        serde_json::from_slice(config).map_err(|error| DestinationError::Foreign {
            path: image.to_string().into(),
            problem: format!("has a config that can't be read: {error}"),
        })
    };
    let inspected = match image {
        ImageReference::Folder { folder } => {
            let image = folder::read(folder)?.image;
            Inspected {
                names: vec![image.name.to_string()],
                platform: None,
                digest: Some(image.digest()),
                config: parse(&image.config)?,
                config_digest: image.config_digest(),
                blobs: image.layers.iter().map(|layer| (&layer.blob).into()).collect(),
            }
        }
        ImageReference::Oci { .. }
        | ImageReference::OciArchive { .. }
        | ImageReference::Registry(_)
        | ImageReference::Daemon(_) => {
            let found = parts::find_one(image, registries, platform)?;
            let blobs = found.layers.iter().filter_map(|layer| layer.descriptor.as_ref());
            Inspected {
                names: found.called.into_iter().collect(),
                platform: found.platform,
                digest: found.manifest.as_deref().map(Digest::of),
                config: parse(&found.config)?,
                config_digest: Digest::of(&found.config),
                blobs: blobs.map(Blob::from).collect(),
            }
        }
        ImageReference::DockerArchive { file, .. } => {
            let listing = docker_archive::read(file)?;
            Inspected {
                names: listing.names,
                platform: None,
                digest: None,
                config: parse(&listing.config)?,
                config_digest: Digest::of(&listing.config),
                blobs: listing
                    .layers
                    .into_iter()
                    .map(|(size, first)| Blob { size, media_type: Compression::of(&first).media_type().to_owned() })
                    .collect(),
            }
        }
    };
    let platform = inspected.platform.or_else(|| Platform::of(&inspected.config));
    Ok(Inspected { platform, ..inspected })
}

/// Each layer's diff ID, its size as it is kept, and its comment.
pub fn layers(inspected: &Inspected) -> impl Iterator<Item = (&str, u64, &str)> {
    let diff_ids = inspected.config["rootfs"]["diff_ids"].as_array().into_iter().flatten();
    let history = inspected.config["history"].as_array().into_iter().flatten();
    // Entries of empty layers have no diff ID.
    let history = history.filter(|entry| entry["empty_layer"] != true);
    let comments = history.map(|entry| entry["comment"].as_str().unwrap_or_default()).chain(std::iter::repeat(""));
    diff_ids
        .zip(&inspected.blobs)
        .zip(comments)
        .map(|((diff_id, blob), comment)| (diff_id.as_str().unwrap_or_default(), blob.size, comment))
}

fn as_json(inspected: &Inspected) -> String {
    let layers: Vec<_> = layers(inspected)
        .zip(&inspected.blobs)
        .map(|((diff_id, size, comment), Blob { media_type, .. })| {
            json!({ "diffId": diff_id, "size": size, "mediaType": media_type, "comment": comment })
        })
        .collect();
    let text = json!({
        "names": inspected.names, "digest": inspected.digest, "configDigest": inspected.config_digest, "config": inspected.config, "layers": layers,
    });
    format!("{text:#}\n")
}

fn as_text(inspected: &Inspected) -> String {
    let config = &inspected.config;
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let list = |value: &Value| -> Vec<String> { value.as_array().into_iter().flatten().map(&text).collect() };
    let mut out = format!("names:         {}\n", inspected.names.join(", "));
    if let Some(digest) = inspected.digest {
        out += &format!("digest:        {digest}\n");
    }
    out += &format!("config digest: {}\n", inspected.config_digest);
    let platform = inspected.platform.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    out += &format!("platform:      {platform}\n");
    out += &format!("created:       {}\n", text(&config["created"]));
    out += &format!("user:          {}\n", text(&config["config"]["User"]));
    out += &format!(
        "command:       {:?}\n",
        [list(&config["config"]["Entrypoint"]), list(&config["config"]["Cmd"])].concat()
    );
    for entry in list(&config["config"]["Env"]) {
        out += &format!("env:           {entry}\n");
    }
    for ((number, (diff_id, size, comment)), blob) in layers(inspected).enumerate().zip(&inspected.blobs) {
        let short: String = comment.chars().take(100).collect();
        let dots = if short.len() < comment.len() { "…" } else { "" };
        out += &format!(
            "{:>4}  {}  {:>10}  {:<8}  {short}{dots}\n",
            number + 1,
            diff_id.get(..19).unwrap_or(diff_id),
            output::size(size),
            // All of it is in the JSON: `tar`, `tar+zstd`.
            blob.media_type.rsplit('.').next().unwrap_or_default(),
        );
    }
    let total = inspected.blobs.iter().fold(0_u64, |sum, blob| sum.saturating_add(blob.size));
    out + &format!("{} layers, {}\n", inspected.blobs.len(), output::size(total))
}
