//! Finds out an image's store layers without making the image, so that making it reads
//! none of their files.

use super::base::Base;
use super::layers::Layers;
use super::{Build, recall, remember};
use crate::destination::Delivery;
use crate::destination::blobs::OnlyHash;
use crate::layer::compress::Compression;
use crate::layer::deliver::{self, LayerJob, Source};
use crate::tree::StoreFiles;

/// Finds out what the store layers of the image are, compressed so; tells how many were
/// not known.
///
/// # Errors
/// When the image does not fit its parent, or a layer can't be made.
pub fn precompute(build: &Build<'_>, compression: Compression) -> anyhow::Result<usize> {
    let base = Base::new(build.parent, build.spec, build.closure)?;
    let files = StoreFiles::open(&build.location.real_dir)?;
    let Layers { layers, .. } = Layers::plan(build, &base, &files)?;
    let own = layers.into_iter().filter(|layer| layer.said.known_as.is_some());
    let jobs: Vec<LayerJob<'_>> = own.map(|layer| layer.job).collect();
    let source = Source { files: &files, store_dir: base.store_dir() };
    let mut delivery = Delivery { source, jobs, compression, threads: build.threads, progress: build.progress };
    recall(build.index, &mut delivery);
    delivery.jobs.retain(|job| job.expected(compression).is_none());
    let missing: Vec<&LayerJob<'_>> = delivery.jobs.iter().collect();
    let made = deliver::in_parallel(source, &missing, &OnlyHash, compression, build.threads, build.progress)?;
    remember(build.index, &mut delivery, &made);
    Ok(made.len())
}
