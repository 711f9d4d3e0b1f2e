//! Earlier images and plans, as `--previous` and `stowage diff` name them.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;

use super::exit::UsageError;
use super::inspect::{self, Inspected};
use super::parent;
use crate::destination::ImageReference;
use crate::digest::Digest;
use crate::image::Platform;
use crate::plan::Previous;
use crate::plan::diff::{Layout, LayoutLayer};
use crate::plan::saved::{self, SavedPlan};
use crate::registry::Registries;

/// What is known of an earlier image or plan.
pub struct Earlier {
    /// Its layers.
    pub layout: Layout,
    /// What the next plan may know of it.
    pub previous: Previous,
}

/// Reads the image or plan that `text` names: an image by its reference or path, or a
/// file of `stowage plan --json`. Of images for several platforms, it is the one for `platform`.
///
/// # Errors
/// When it is neither.
pub fn read(text: &str, registries: &Registries, platform: Option<&Platform>) -> anyhow::Result<Earlier> {
    let path = Path::new(text);
    if text == "-" || may_be_plan(path) {
        return of_plan(text).with_context(|| format!("the plan {text}"));
    }
    if !path.exists() && !text.contains(':') {
        let hint = "give an image, or a file of `stowage plan --json`";
        return Err(UsageError(format!("{text} is not there; {hint}")).into());
    }
    of_image(&parent::reference(text)?, registries, platform)
}

/// Whether what is there begins as JSON does, and no archive; an empty file is none. A pipe is not looked
/// into, since what was read of it would be gone.
fn may_be_plan(path: &Path) -> bool {
    if !path.is_file() {
        return path.exists() && !path.is_dir();
    }
    let bytes = std::fs::File::open(path).into_iter().flat_map(|file| std::io::BufReader::new(file).bytes());
    let first = bytes.map_while(Result::ok).find(|byte| !byte.is_ascii_whitespace());
    matches!(first, None | Some(b'{' | b'['))
}

/// What the next plan may know of `texts`, the newest last.
///
/// # Errors
/// As for [`read`].
pub fn previous(
    texts: &[String],
    registries: &Registries,
    platform: Option<&Platform>,
) -> anyhow::Result<Vec<Previous>> {
    texts.iter().map(|text| Ok(read(text, registries, platform)?.previous)).collect()
}

fn of_plan(text: &str) -> anyhow::Result<Earlier> {
    let mut json = String::new();
    if text == "-" {
        std::io::stdin().read_to_string(&mut json)?;
    } else {
        json = std::fs::read_to_string(text).map_err(|error| UsageError(error.to_string()))?;
    }
    let hint = "give an image, or what `stowage plan --json` prints";
    let plan: SavedPlan =
        serde_json::from_str(&json).map_err(|error| UsageError(format!("is no plan: {error}; {hint}")))?;
    let previous = plan.to_previous().map_err(UsageError)?;
    Ok(Earlier { layout: (&plan).into(), previous })
}

fn of_image(
    reference: &ImageReference,
    registries: &Registries,
    platform: Option<&Platform>,
) -> anyhow::Result<Earlier> {
    let inspected = inspect::inspect(reference, registries, platform)?;
    let history = inspected.config["history"].as_array().into_iter().flatten();
    let comment = |entry: &'_ serde_json::Value| entry["comment"].as_str().unwrap_or_default().to_owned();
    let comments: Vec<(String, bool)> = history.map(|entry| (comment(entry), entry["empty_layer"] != true)).collect();
    let previous = saved::previous_of_comments(comments.iter().map(|(text, is_layer)| (text.as_str(), *is_layer)));
    Ok(Earlier { layout: layout(&inspected), previous })
}

fn layout(inspected: &Inspected) -> Layout {
    let layer = |(digest, size, comment): (&str, u64, &str)| LayoutLayer {
        paths: saved::paths_of_comment(comment),
        digest: Digest::parse(digest).ok(),
        size,
    };
    Layout { layers: inspect::layers(inspected).map(layer).collect() }
}
