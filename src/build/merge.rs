//! From several images to one docker archive of them, in which each layer is once.

use std::path::Path;

use super::copy::{Means, Original};
use crate::destination::Place;
use crate::destination::docker_archive::DockerArchive;
use crate::image::Image;

/// Puts `originals` into the archive `file`, as `place` says, in their order; tells what they are.
///
/// # Errors
/// See [`Original::copy`].
pub fn put(originals: Vec<Original>, place: &Place, file: &Path, means: &Means<'_>) -> anyhow::Result<Vec<Image>> {
    let ready = originals.into_iter().map(|original| original.ready(place, means)).collect::<Result<Vec<_>, _>>()?;
    let mut archive = DockerArchive::create(file, None)?;
    let mut images = Vec::new();
    for ready in ready {
        images.push(ready.put(&mut archive, means, |archive, image, delivery| archive.add(image, delivery))?);
    }
    archive.end()?;
    Ok(images)
}
