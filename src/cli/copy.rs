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
use crate::build::merge;
use crate::destination::ImageReference;
use crate::image::ImageName;
use crate::parent::find::Choice;

/// Copies an image, or several into one archive.
///
/// # Errors
/// See [`super::exit::Exit`].
pub fn run(settings: &Settings, arguments: CopyArguments) -> anyhow::Result<()> {
    let CopyArguments { places, name, platform, compress, format, digest_file, index, store, jobs, json } = arguments;
    let (to, from) = match places.split_last() {
        Some((to, from)) if !from.is_empty() => (to.clone(), from),
        _ => {
            return Err(
                UsageError("name the image, and then where to put it: `stowage copy SOURCE DEST`".to_owned()).into()
            );
        }
    };
    check(from, &to, json)?;
    if from.len() > 1 && (name.is_some() || digest_file.is_some() || json) {
        let problem = "--name, --digest-file and --json are for one image";
        return Err(UsageError(problem.to_owned()).into());
    }
    let location = settings.location(store.root.as_deref());
    let index = layer_index::open(settings, &index)?;
    let threads = jobs.threads();
    check_format(format, std::slice::from_ref(&to))?;
    let name = name.map(|name| ImageName::parse(&name)).transpose()?;
    let place = Place { reference: to, compression: compress, format };
    let choice = Choice::of(platform.platform.as_ref());
    let mut originals = Vec::new();
    for from in from {
        let original = Original::read(from, choice, &place, &settings.registries, threads)?.into_iter().next();
        originals.push(original.with_context(|| format!("{from} lists no image"))?.called(name.as_ref()));
    }
    let meter = Meter::new(originals.iter().map(Original::size).sum(), settings.quiet);
    let progress = |bytes| meter.add(bytes);
    let means =
        Means { location: &location, index: &index, registries: &settings.registries, threads, progress: &progress };
    let quiet = settings.quiet || place.reference.is_stdout();
    if let ImageReference::DockerArchive { file, .. } = &place.reference
        && originals.len() > 1
    {
        let images = merge::put(originals, &place, file, &means);
        meter.finish();
        return images?.iter().try_for_each(|image| report(image, std::slice::from_ref(&place.reference), json, quiet));
    }
    let original = originals.into_iter().next().context("no image was named")?;
    let image = original.copy(&place, &means);
    meter.finish();
    let image = image?;
    write_digest(digest_file.as_deref(), image.digest())?;
    report(&image, &[place.reference], json, quiet)
}

fn check(from: &[ImageReference], to: &ImageReference, json: bool) -> Result<(), UsageError> {
    let is_folder = |reference: &ImageReference| matches!(reference, ImageReference::Folder { .. });
    if from.iter().any(is_folder) && is_folder(to) {
        return Err(UsageError("copy an image folder to an image folder with `cp -a`".to_owned()));
    }
    if to.is_stdout() && json {
        return Err(UsageError(
            "--json and an archive can't both go to standard output; name a file: docker-archive:FILE".to_owned(),
        ));
    }
    if from.len() > 1 && !matches!(to, ImageReference::DockerArchive { name: None, .. }) {
        let problem = format!("several images can't go to {to}");
        return Err(UsageError(format!(
            "{problem}; name docker-archive:FILE, without a name, or copy them one by one"
        )));
    }
    Ok(())
}
