//! The arguments of what looks at images.

use clap::{Args, ValueHint};

use super::PlatformArguments;
use crate::destination::ImageReference;

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub struct DiffArguments {
    /// What was: an image, or a file of `stowage plan --json`
    #[arg(value_name = "OLD", value_hint = ValueHint::AnyPath)]
    pub old: String,
    /// What is
    #[arg(value_name = "NEW", value_hint = ValueHint::AnyPath)]
    pub new: String,
    /// Which image
    #[command(flatten)]
    pub platform: PlatformArguments,
    /// Print everything as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `why`.
#[derive(Debug, Args)]
pub struct WhyArguments {
    /// The image, or its folder: its Nix database tells what refers to what
    #[arg(value_name = "IMAGE", value_hint = ValueHint::AnyPath)]
    pub image: String,
    /// A store path, or the name of one, with or without version; `*` stands for anything
    #[arg(value_name = "PATH")]
    pub path: String,
    /// Which image
    #[command(flatten)]
    pub platform: PlatformArguments,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArguments {
    /// The image: stowage:DIR, docker://HOST/REPOSITORY[:TAG], oci:DIR[:TAG], or
    /// docker-archive:FILE
    #[arg(value_name = "IMAGE")]
    pub image: ImageReference,
    /// Which image
    #[command(flatten)]
    pub platform: PlatformArguments,
    /// Print everything as JSON
    #[arg(long)]
    pub json: bool,
}
