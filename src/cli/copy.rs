//! `stowage copy`.

use super::args::CopyArguments;
use super::build::{is_stdout, report};
use super::exit::UsageError;
use super::index;
use super::output::Meter;
use super::settings::Settings;
use crate::build::Place;
use crate::build::copy::{Means, Original};
use crate::destination::ImageReference;

/// Copies an image.
///
/// # Errors
/// See [`super::exit::Exit`].
pub fn run(settings: &Settings, arguments: CopyArguments) -> anyhow::Result<()> {
    let CopyArguments { from, to, compress, index, store, jobs, json } = arguments;
    let is_folder = |reference: &ImageReference| matches!(reference, ImageReference::Folder { .. });
    if is_folder(&from) && is_folder(&to) {
        return Err(UsageError("copy an image folder to an image folder with `cp -a`".to_owned()).into());
    }
    if is_stdout(&to) && json {
        return Err(UsageError(
            "--json and an archive can't both go to standard output; name a file: docker-archive:FILE".to_owned(),
        )
        .into());
    }
    let location = settings.location(store.root.as_deref());
    let index = index::open(settings, &index)?;
    let threads = jobs.threads();
    let original = Original::read(&from, threads)?;
    let meter = Meter::new(original.size(), settings.quiet);
    let progress = |bytes| meter.add(bytes);
    let means = Means { location: &location, index: &index, threads, progress: &progress };
    let place = Place { reference: to, compression: compress };
    let image = original.copy(&place, &means);
    meter.finish();
    let quiet = settings.quiet || is_stdout(&place.reference);
    report(&image?, &[place.reference], json, quiet)
}
