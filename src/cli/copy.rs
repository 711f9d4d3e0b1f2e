//! `stowage copy`.

use anyhow::Context as _;

use super::args::CopyArguments;
use super::build::{check_format, report, write_digest};
use super::exit::UsageError;
use super::layer_index;
use super::output::Meter;
use super::settings::Settings;
use crate::build::Place;
use crate::build::copy::{Means, Original};
use crate::destination::ImageReference;
use crate::parent::find::Choice;

/// Copies an image.
///
/// # Errors
/// See [`super::exit::Exit`].
pub fn run(settings: &Settings, arguments: CopyArguments) -> anyhow::Result<()> {
    let CopyArguments { from, to, platform, compress, format, digest_file, index, store, jobs, json } = arguments;
    let is_folder = |reference: &ImageReference| matches!(reference, ImageReference::Folder { .. });
    if is_folder(&from) && is_folder(&to) {
        return Err(UsageError("copy an image folder to an image folder with `cp -a`".to_owned()).into());
    }
    if to.is_stdout() && json {
        return Err(UsageError(
            "--json and an archive can't both go to standard output; name a file: docker-archive:FILE".to_owned(),
        )
        .into());
    }
    let location = settings.location(store.root.as_deref());
    let index = layer_index::open(settings, &index)?;
    let threads = jobs.threads();
    check_format(format, std::slice::from_ref(&to))?;
    let place = Place { reference: to, compression: compress, format };
    let choice = Choice::of(platform.platform.as_ref());
    let original = Original::read(&from, choice, &place, &settings.registries, threads)?.into_iter().next();
    let original = original.with_context(|| format!("{from} lists no image"))?;
    let meter = Meter::new(original.size(), settings.quiet);
    let progress = |bytes| meter.add(bytes);
    let means =
        Means { location: &location, index: &index, registries: &settings.registries, threads, progress: &progress };
    let image = original.copy(&place, &means);
    meter.finish();
    let image = image?;
    write_digest(digest_file.as_deref(), image.digest())?;
    let quiet = settings.quiet || place.reference.is_stdout();
    report(&image, &[place.reference], json, quiet)
}
