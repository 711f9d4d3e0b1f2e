//! From images for several platforms to one index of them: each is copied as if it
//! were alone, but for its name; the index comes last.

use super::copy::{Means, Original};
use crate::destination::{self, ImageReference, Place};
use crate::image::manifest::ImageIndex;
use crate::image::{Image, Platform};
use crate::parent::find::Choice;
use crate::registry::Registries;

/// Images that can't be in one index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Nobody could tell which of them a machine should take.
    #[error("{one} and {other} are both for {platform}; an index has one image for each platform, so leave one out")]
    Twice {
        /// The first image.
        one: String,
        /// The other.
        other: String,
        /// What both are for.
        platform: Platform,
    },
    /// No machine would take it.
    #[error(
        "the config of {0} does not tell its `os` and `architecture`, so no machine would take it from an index; build it again with them"
    )]
    NoPlatform(String),
}

/// An image that an index is to list.
pub struct Member {
    original: Original,
    platform: Platform,
}

impl Member {
    /// Reads the images that `references` name, which are to be copied to `place`, on `threads`
    /// threads. Of an index, it is all that it lists.
    ///
    /// # Errors
    /// When one is damaged, or two are for one platform.
    pub fn read(
        references: &[ImageReference],
        place: &Place,
        registries: &Registries,
        threads: usize,
    ) -> anyhow::Result<Vec<Self>> {
        let mut members: Vec<(String, Self)> = Vec::new();
        for reference in references {
            let name = reference.to_string();
            for original in Original::read(reference, Choice::All, place, registries, threads)? {
                let platform = original.platform().cloned().ok_or_else(|| IndexError::NoPlatform(name.clone()))?;
                if let Some((one, _)) = members.iter().find(|(_, member)| member.platform.is_same(&platform)) {
                    return Err(IndexError::Twice { one: one.clone(), other: name, platform }.into());
                }
                members.push((name.clone(), Self { original, platform }));
            }
        }
        Ok(members.into_iter().map(|(_, member)| member).collect())
    }

    /// How many bytes its layers are, uncompressed.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.original.size()
    }
}

/// Puts an index of `members` at `place`, and before that the images themselves. Where that
/// index is already, nothing is done. Tells what the images are, in the order of the index.
///
/// # Errors
/// See [`Original::copy`].
pub fn put(mut members: Vec<Member>, place: &Place, means: &Means<'_>) -> anyhow::Result<(ImageIndex, Vec<Image>)> {
    members.sort_by(|one, other| one.platform.order().cmp(&other.platform.order()));
    let (mut platforms, mut ready) = (Vec::new(), Vec::new());
    for Member { original, platform } in members {
        platforms.push(platform);
        ready.push(original.ready(place, means)?);
    }
    let index_of = |images: &[Image]| ImageIndex::new(place.format, images.iter().zip(platforms.iter().cloned()));
    let mut destination = destination::open(&place.reference, means.registries)?;
    if let Some(images) = ready.iter().map(|ready| ready.foreseen()).collect::<Option<Vec<Image>>>() {
        let index = index_of(&images);
        if destination.has_index(&index)? {
            let layers = images.iter().flat_map(|image| &image.layers);
            layers.for_each(|layer| (means.progress)(layer.record.size));
            return Ok((index, images));
        }
    }
    let mut images = Vec::new();
    for ready in ready {
        images.push(
            ready.put(&mut *destination, means, |destination, image, delivery| destination.add(image, delivery))?,
        );
    }
    let index = index_of(&images);
    destination.finish_index(&index)?;
    Ok((index, images))
}
