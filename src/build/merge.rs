//! From several images to one docker archive of them, in which each layer is once.

use std::collections::BTreeMap;
use std::path::Path;

use super::copy::{Means, Original};
use crate::destination::Place;
use crate::destination::docker_archive::DockerArchive;
use crate::image::Image;

/// Of two images with one name, nobody could say which is meant.
#[derive(Debug, thiserror::Error)]
#[error(
    "two different images are called {0}; copy one of them under another name before: `stowage copy --name NAME:TAG`"
)]
pub struct SameName(String);

/// Puts `originals` into the archive `file`, as `place` says, in their order; tells what they are.
///
/// # Errors
/// When two of them have one name; and see [`Original::copy`].
pub fn put(originals: Vec<Original>, place: &Place, file: &Path, means: &Means<'_>) -> anyhow::Result<Vec<Image>> {
    let ready = originals.into_iter().map(|original| original.ready(place, means)).collect::<Result<Vec<_>, _>>()?;
    let mut names = BTreeMap::new();
    let mut different = Vec::new();
    for ready in ready {
        let name = ready.name();
        match names.insert(name.clone(), ready.config_digest()) {
            None => different.push(ready),
            Some(other) if other == ready.config_digest() => tracing::info!("{name} is named twice"),
            Some(_) => return Err(SameName(name).into()),
        }
    }
    let mut archive = DockerArchive::create(file, None)?;
    let mut images = Vec::new();
    for ready in different {
        images.push(ready.put(&mut archive, means, |archive, image, delivery| archive.add(image, delivery))?);
    }
    archive.end()?;
    Ok(images)
}
