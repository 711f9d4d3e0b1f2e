//! `stowage inspect`.

use serde_json::{Value, json};

use super::args::InspectArguments;
use super::output;
use crate::destination::{DestinationError, ImageReference, NotBuilt, docker_archive, folder, oci_layout};
use crate::digest::Digest;

/// What was found out of an image.
pub struct Inspected {
    names: Vec<String>,
    digest: Option<Digest>,
    /// Its config, whole.
    pub config: Value,
    config_digest: Digest,
    layer_sizes: Vec<u64>,
}

/// Shows what an image is made of.
///
/// # Errors
/// When it can't be read.
pub fn run(arguments: &InspectArguments) -> anyhow::Result<()> {
    let inspected = inspect(&arguments.image)?;
    let text = if arguments.json { as_json(&inspected) } else { as_text(&inspected) };
    Ok(output::print(&text)?)
}

/// Finds out what there is to know of an image without looking into its layers.
///
/// # Errors
/// When it can't be read.
pub fn inspect(image: &ImageReference) -> anyhow::Result<Inspected> {
    let parse = |config: &[u8]| {
        serde_json::from_slice(config).map_err(|error| DestinationError::Foreign {
            path: image.to_string().into(),
            problem: format!("has a config that can't be read: {error}"),
        })
    };
    Ok(match image {
        ImageReference::Folder { folder } => {
            let image = folder::read(folder)?.image;
            Inspected {
                names: vec![image.name.to_string()],
                digest: Some(image.digest()),
                config: parse(&image.config)?,
                config_digest: image.config_digest(),
                layer_sizes: image.layers.iter().map(|layer| layer.record.size).collect(),
            }
        }
        ImageReference::Oci { folder, tag } => {
            let found = oci_layout::read(folder, tag.as_deref())?;
            Inspected {
                names: found.tag.into_iter().collect(),
                digest: Some(found.digest),
                config: parse(&found.config)?,
                config_digest: Digest::of(&found.config),
                layer_sizes: found.manifest.layers.iter().map(|layer| layer.size).collect(),
            }
        }
        ImageReference::OciArchive { .. } => return Err(NotBuilt("oci-archive").into()),
        ImageReference::DockerArchive { file, .. } => {
            let listing = docker_archive::read(file)?;
            Inspected {
                names: listing.names,
                digest: None,
                config: parse(&listing.config)?,
                config_digest: Digest::of(&listing.config),
                layer_sizes: listing.layer_sizes,
            }
        }
    })
}

/// Each layer's diff ID, size and comment.
pub fn layers(inspected: &Inspected) -> impl Iterator<Item = (&str, u64, &str)> {
    let diff_ids = inspected.config["rootfs"]["diff_ids"].as_array().into_iter().flatten();
    let history = inspected.config["history"].as_array().into_iter().flatten();
    // Entries of empty layers have no diff ID.
    let history = history.filter(|entry| entry["empty_layer"] != true);
    let comments = history.map(|entry| entry["comment"].as_str().unwrap_or_default()).chain(std::iter::repeat(""));
    diff_ids
        .zip(&inspected.layer_sizes)
        .zip(comments)
        .map(|((diff_id, size), comment)| (diff_id.as_str().unwrap_or_default(), *size, comment))
}

fn as_json(inspected: &Inspected) -> String {
    let layers: Vec<_> = layers(inspected)
        .map(|(diff_id, size, comment)| json!({ "diffId": diff_id, "size": size, "comment": comment }))
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
    out += &format!("platform:      {}/{}\n", text(&config["os"]), text(&config["architecture"]));
    out += &format!("created:       {}\n", text(&config["created"]));
    out += &format!("user:          {}\n", text(&config["config"]["User"]));
    out += &format!(
        "command:       {:?}\n",
        [list(&config["config"]["Entrypoint"]), list(&config["config"]["Cmd"])].concat()
    );
    for entry in list(&config["config"]["Env"]) {
        out += &format!("env:           {entry}\n");
    }
    for (number, (diff_id, size, comment)) in layers(inspected).enumerate() {
        let short: String = comment.chars().take(100).collect();
        let dots = if short.len() < comment.len() { "…" } else { "" };
        out += &format!(
            "{:>4}  {}  {:>10}  {short}{dots}\n",
            number + 1,
            diff_id.get(..19).unwrap_or(diff_id),
            output::size(size)
        );
    }
    let total: u64 = inspected.layer_sizes.iter().sum();
    out + &format!("{} layers, {}\n", inspected.layer_sizes.len(), output::size(total))
}
