//! The arguments of `stowage copy` and `stowage index`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::{JobsArguments, LayerIndexArguments, PlatformArguments, StoreArguments};
use crate::destination::ImageReference;
use crate::image::manifest::ManifestFormat;
use crate::layer::compress::Compression;

/// Arguments of `copy`.
#[derive(Debug, Args)]
pub struct CopyArguments {
    /// The image, and then where to put it. SOURCE is stowage:DIR, docker://HOST/REPOSITORY[:TAG],
    /// docker-daemon:NAME[:TAG], docker-archive:FILE[:NAME:TAG], oci:DIR[:TAG], or
    /// oci-archive:FILE[:TAG], and so is DEST; `-` is standard input or output. To a docker archive,
    /// several images can go at once
    // In one list, so that options may stand between them.
    #[arg(value_name = "IMAGE", required = true)]
    pub places: Vec<ImageReference>,
    /// What to call the image where DEST does not say
    #[arg(long, value_name = "NAME[:TAG]")]
    pub name: Option<String>,
    /// Which image
    #[command(flatten)]
    pub platform: PlatformArguments,
    /// How to compress the layers: none, gzip or zstd, or with a level as in zstd:9; by default
    /// they stay as they are
    #[arg(long, value_name = "CODEC[:LEVEL]")]
    pub compress: Option<Compression>,
    /// Which kind of manifest a registry gets
    #[arg(long, value_name = "KIND", default_value = "oci")]
    pub format: ManifestFormat,
    /// Write the digest of the image's manifest into this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub digest_file: Option<PathBuf>,
    /// Where the store is
    #[command(flatten)]
    pub store: StoreArguments,
    /// Who else knows layers
    #[command(flatten)]
    pub index: LayerIndexArguments,
    /// How much is done at once
    #[command(flatten)]
    pub jobs: JobsArguments,
    /// Print what was copied as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `index`.
#[derive(Debug, Args)]
pub struct IndexArguments {
    /// The images, each for another platform: stowage:DIR, docker://HOST/REPOSITORY[:TAG],
    /// docker-archive:FILE[:NAME:TAG], oci:DIR[:TAG], or oci-archive:FILE[:TAG]
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<ImageReference>,
    /// Where to put the index and its images: docker://HOST/REPOSITORY[:TAG], oci:DIR[:TAG], or
    /// oci-archive:FILE[:TAG] (`-`: standard output)
    #[arg(long, value_name = "DEST")]
    pub to: ImageReference,
    /// How to compress the layers: none, gzip or zstd, or with a level as in zstd:9; by default
    /// they stay as they are
    #[arg(long, value_name = "CODEC[:LEVEL]")]
    pub compress: Option<Compression>,
    /// Which kind of manifests a registry gets; Docker's index is its manifest list
    #[arg(long, value_name = "KIND", default_value = "oci")]
    pub format: ManifestFormat,
    /// Write the digest of the index into this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub digest_file: Option<PathBuf>,
    /// Who else knows layers
    #[command(flatten)]
    pub index: LayerIndexArguments,
    /// Where the store is
    #[command(flatten)]
    pub store: StoreArguments,
    /// How much is done at once
    #[command(flatten)]
    pub jobs: JobsArguments,
    /// Print what was put there as JSON
    #[arg(long)]
    pub json: bool,
}
