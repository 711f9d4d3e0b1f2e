//! `stowage index`.

use serde_json::json;

use super::args::IndexArguments;
use super::build::{check_format, write_digest};
use super::exit::UsageError;
use super::layer_index;
use super::output::{self, Meter};
use super::settings::Settings;
use crate::build::Place;
use crate::build::copy::Means;
use crate::build::index::{self, Member};
use crate::image::Image;
use crate::image::manifest::{ImageIndex, IndexEntry};

/// Puts one index of images for several platforms.
///
/// # Errors
/// See [`super::exit::Exit`].
pub fn run(settings: &Settings, arguments: IndexArguments) -> anyhow::Result<()> {
    let IndexArguments { images, to, compress, format, digest_file, index: others, store, jobs, json } = arguments;
    if !to.takes_index() {
        let problem = format!("{to} can't hold an index of several images");
        let hint = "name docker://HOST/REPOSITORY[:TAG], oci:DIR[:TAG] or oci-archive:FILE[:TAG]";
        return Err(UsageError(format!("{problem}; {hint}")).into());
    }
    if to.is_stdout() && json {
        let problem = "--json and an archive can't both go to standard output; name a file: oci-archive:FILE";
        return Err(UsageError(problem.to_owned()).into());
    }
    let location = settings.location(store.root.as_deref());
    let layers = layer_index::open(settings, &others)?;
    let threads = jobs.threads();
    check_format(format, std::slice::from_ref(&to))?;
    let place = Place { reference: to, compression: compress, format };
    let members = Member::read(&images, &place, &settings.registries, threads)?;
    let size = members.iter().fold(0, |sum, member| member.size().saturating_add(sum));
    let meter = Meter::new(size, settings.quiet);
    let means = Means {
        location: &location,
        index: &layers,
        registries: &settings.registries,
        threads,
        progress: &|bytes| meter.add(bytes),
    };
    let put = index::put(members, &place, &means);
    meter.finish();
    let (index, images) = put?;
    write_digest(digest_file.as_deref(), index.digest())?;
    let to = place.reference.to_string();
    let text = if json { as_json(&index, &images, &to) } else { as_text(&index, &images, &to) };
    if json || !(settings.quiet || place.reference.is_stdout()) {
        output::print(&text)?;
    }
    Ok(())
}

fn size(image: &Image) -> u64 {
    image.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.record.size))
}

fn as_json(index: &ImageIndex, images: &[Image], to: &str) -> String {
    let listed = index.entries.iter().zip(images).map(|(entry, image)| {
        json!({
            "platform": entry.platform, "digest": image.digest(), "config": image.config_digest(), "size": size(image),
        })
    });
    let images: Vec<_> = listed.collect();
    format!("{}\n", json!({ "digest": index.digest(), "images": images, "destinations": [to] }))
}

fn as_text(index: &ImageIndex, images: &[Image], to: &str) -> String {
    let line = |(entry, image): (&IndexEntry, &Image)| {
        let (layers, size) = (image.layers.len(), output::size(size(image)));
        format!("  {} {} ({layers} layers, {size})\n", entry.platform, entry.manifest.digest)
    };
    let lines: String = index.entries.iter().zip(images).map(line).collect();
    format!("index {} ({} images)\n{lines}  in {to}\n", index.digest(), images.len())
}
