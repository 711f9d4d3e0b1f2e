//! `stowage copy`.

use super::args::CopyArguments;
use super::build::{is_stdout, report};
use super::exit::UsageError;
use super::output::Meter;
use super::settings::Settings;
use crate::build;
use crate::destination::{ImageReference, folder};

/// Copies an image.
///
/// # Errors
/// See [`super::exit::Exit`].
pub fn run(settings: &Settings, arguments: CopyArguments) -> anyhow::Result<()> {
    let ImageReference::Folder { folder } = &arguments.from else {
        return Err(UsageError(format!(
            "{} can't be copied from in this version of stowage, only stowage:DIR; skopeo copies the others",
            arguments.from
        ))
        .into());
    };
    if matches!(arguments.to, ImageReference::Folder { .. }) {
        return Err(UsageError("an image folder is made by `stowage build`; copy one with `cp -a`".to_owned()).into());
    }
    if is_stdout(&arguments.to) && arguments.json {
        return Err(UsageError(
            "--json and an archive can't both go to standard output; name a file: docker-archive:FILE".to_owned(),
        )
        .into());
    }
    let real_dir = arguments.store.root.as_deref().map(|root| settings.location(Some(root)).real_dir);
    let read = folder::read(folder)?;
    let total = read.image.layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.record.size));
    let meter = Meter::new(total, settings.quiet);
    let image =
        build::copy(read, &arguments.to, real_dir.as_deref(), arguments.jobs.threads(), &|bytes| meter.add(bytes));
    meter.finish();
    let quiet = settings.quiet || is_stdout(&arguments.to);
    report(&image?, &[arguments.to], arguments.json, quiet)
}
