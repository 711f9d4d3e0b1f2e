//! Finds out an image's store layers without making the image, so that making it reads
//! none of their files.

use super::base::Base;
use super::layers::{Layers, Planned};
use super::{Build, recall, remember};
use crate::destination::Delivery;
use crate::destination::blobs::OnlyHash;
use crate::layer::Delivered;
use crate::layer::compress::Compression;
use crate::layer::deliver::{self, Content, LayerJob, Source};

/// Finds out what the store layers of the image are, compressed so; tells how many were
/// not known.
///
/// # Errors
/// When the image does not fit its parent, or a layer can't be made.
pub fn precompute(build: &Build<'_>, compression: Compression) -> anyhow::Result<usize> {
    let base = Base::new(build.parent, build.spec, build.closure)?;
    let Layers { layers, .. } = Layers::plan(build, &base)?;
    // What is not in the store may change while the job goes on.
    let is_stable = |layer: &Planned<'_>| !matches!(layer.job.content, Content::Store { elsewhere: true, .. });
    let own = layers.into_iter().filter(|layer| layer.said.known_as.is_some()).filter(is_stable);
    let jobs: Vec<LayerJob<'_>> = own.map(|layer| layer.job).collect();
    let source = Source { files: build.files, store_dir: base.image_dir() };
    let mut delivery = Delivery { source, jobs, compression, threads: build.threads, progress: build.progress };
    recall(build.index, &mut delivery.jobs, delivery.compression);
    let known: Vec<Option<Delivered>> = delivery.jobs.iter().map(|job| job.expected(compression)).collect();
    let missing = delivery.jobs.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(job, _)| job);
    let missing: Vec<&LayerJob<'_>> = missing.collect();
    let made = deliver::in_parallel(source, &missing, &OnlyHash, compression, build.threads, build.progress)?;
    let (count, mut made) = (made.len(), made.into_iter());
    let delivered: Vec<Delivered> = known.into_iter().filter_map(|known| known.or_else(|| made.next())).collect();
    // What was known before is told to others, too.
    remember(build.index, &mut delivery, &delivered);
    Ok(count)
}
