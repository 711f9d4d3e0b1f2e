//! The layer index that a command uses: this machine's, and what others know.

use std::path::Path;

use super::args::LayerIndexArguments;
use super::exit::UsageError;
use super::parent;
use super::settings::Settings;
use crate::destination::{ImageReference, folder};
use crate::image::note;
use crate::layer::index::LayerIndex;
use crate::layer::index::known::KnownLayers;
use crate::layer::index::shared::SharedFolder;
use crate::parent::find::{Choice, Found};
use crate::parent::parts;
use crate::registry::Registries;

/// The index that `arguments` ask for, or the environment.
///
/// # Errors
/// When an image is named that is none. A folder that can't be used is only warned of: an
/// index never decides whether something can be built.
pub fn open(settings: &Settings, arguments: &LayerIndexArguments) -> anyhow::Result<LayerIndex> {
    let mut index = settings.index.clone();
    let texts = if arguments.layer_index.is_empty() { settings.layer_index.as_slice() } else { &arguments.layer_index };
    for text in texts {
        add(&mut index, text, &settings.registries)?;
    }
    Ok(index)
}

fn add(index: &mut LayerIndex, text: &str, registries: &Registries) -> anyhow::Result<()> {
    if !is_image(text) {
        match SharedFolder::open(Path::new(text)) {
            Ok(folder) => index.add_shared(folder),
            Err(error) => tracing::warn!("the layer index {text} is not used: {error}"),
        }
        return Ok(());
    }
    let reference = parent::reference(text)?;
    let known = of_image(&reference, registries)?.ok_or_else(|| {
        let problem =
            "has no manifest that could tell of layers; name an image folder, an OCI layout, or an image in a registry";
        UsageError(format!("{reference}: a docker archive {problem}"))
    })?;
    if known.iter().all(KnownLayers::is_empty) {
        tracing::warn!("{reference} tells of no layers; only images that stowage has made do");
    }
    known.into_iter().for_each(|known| index.add_known(known));
    Ok(())
}

/// Adds what earlier images know, as `--previous` names them; plans know nothing of layers.
pub fn add_previous(index: &mut LayerIndex, texts: &[String], registries: &Registries) {
    for text in texts.iter().filter(|text| is_image(text)) {
        // Whether it can be read at all, others have found out.
        if let Ok(Some(known)) = parent::reference(text).and_then(|reference| of_image(&reference, registries)) {
            known.into_iter().for_each(|known| index.add_known(known));
        }
    }
}

/// What `text` means, for whoever runs in another folder.
#[must_use]
pub fn absolute(text: &str) -> String {
    let path = if is_image(text) && !Path::new(text).exists() { None } else { std::path::absolute(text).ok() };
    path.and_then(|path| path.into_os_string().into_string().ok()).unwrap_or_else(|| text.to_owned())
}

/// Whether `text` names an image: by its kind, or because there is one.
fn is_image(text: &str) -> bool {
    let path = Path::new(text);
    let is_path = text.starts_with(['.', '/']) || !text.contains(':');
    !is_path || path.is_file() || ["stowage.json", "oci-layout"].iter().any(|name| path.join(name).exists())
}

/// What the image's manifest tells of layers, or the manifests of each platform; in a docker
/// archive there is none.
fn of_image(reference: &ImageReference, registries: &Registries) -> anyhow::Result<Option<Vec<KnownLayers>>> {
    Ok(match reference {
        ImageReference::DockerArchive { .. } | ImageReference::Daemon(_) => None,
        ImageReference::Folder { folder } => {
            let image = folder::read(folder)?.image;
            Some(vec![note::known_layers(&image.manifest, &image.config)])
        }
        other => {
            let found = parts::find(other, registries, Choice::All)?.into_iter();
            let known = |image: Found| Some(note::known_layers(&image.manifest?, &image.config));
            Some(found.filter_map(known).collect())
        }
    })
}
