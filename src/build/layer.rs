//! Makes a layer ahead, of a closure: reads and hashes it, unless the layer index knows what comes
//! of it.

use std::collections::BTreeSet;

use anyhow::Context as _;

use crate::destination::blobs::OnlyHash;
use crate::layer::built::BuiltLayer;
use crate::layer::compress::Compression;
use crate::layer::deliver::{self, Content, LayerJob, Progress, Source};
use crate::layer::index::LayerIndex;
use crate::layer::{LayerKey, LayerRecord, Stamp};
use crate::store::{Closure, StoreLocation, StorePath, restore};
use crate::tree::StoreFiles;

/// What a layer is made of, and with.
pub struct Ahead<'a> {
    /// Its store paths.
    pub closure: &'a Closure,
    /// Those of them that were asked for.
    pub roots: BTreeSet<StorePath>,
    /// What the headers of their files say.
    pub stamp: Stamp,
    /// Where their files are.
    pub files: &'a StoreFiles,
    /// The store that they are in.
    pub location: &'a StoreLocation,
    /// What is known of layers made before.
    pub index: &'a LayerIndex,
    /// On how many threads to make it.
    pub threads: usize,
    /// Told how much is done.
    pub progress: Progress<'a>,
}

/// Makes the layer.
///
/// # Errors
/// When a path is gone, or can't be read.
pub fn make(ahead: Ahead<'_>) -> anyhow::Result<BuiltLayer> {
    let Ahead { closure, roots, stamp, files, location, index, threads, progress } = ahead;
    let (store_dir, infos) = (closure.store_dir(), closure.infos());
    for info in infos {
        restore::check(files, location, &info.path)?;
    }
    let key = LayerKey::of_store_paths(store_dir, &stamp, infos);
    let record = match index.find(&key) {
        Some(record) => record,
        None => {
            let paths = infos.iter().map(|info| info.path.clone()).collect();
            let content = Content::Store { paths, stamp: stamp.clone(), elsewhere: false };
            let job = LayerJob { key, content, estimate: closure.nar_size(), known: None, packed: None };
            let source = Source { files, store_dir };
            let made = deliver::in_parallel(source, &[&job], &OnlyHash, Compression::None, threads, progress)?;
            let made: LayerRecord = made.into_iter().next().context("no layer was made; this is a defect")?.record;
            index.put_store_layer(&key, &made);
            made
        }
    };
    Ok(BuiltLayer::new(store_dir, infos, roots, stamp, record))
}
