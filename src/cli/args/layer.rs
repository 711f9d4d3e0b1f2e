//! The arguments of `stowage layer` and `stowage lay-out`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::{JobsArguments, LayerIndexArguments, SourceArguments};

/// Arguments of `layer`.
#[derive(Debug, Args)]
pub struct LayerArguments {
    /// Store paths, or links to them, which go into the layer with all that they need; with
    /// --registration or --closure by default all
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
    /// Leave out what this layer has, which goes below this one in images; can be repeated
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub except: Vec<String>,
    /// The file to write; - is standard output
    #[arg(long, value_name = "FILE", default_value = "./layer.json", value_hint = ValueHint::FilePath)]
    pub to: PathBuf,
    /// Whom the store paths belong to, as in the spec of the images
    #[arg(long, default_value_t = 0)]
    pub uid: u32,
    /// Their group
    #[arg(long, default_value_t = 0)]
    pub gid: u32,
    /// The owner's name
    #[arg(long, default_value = "", hide_default_value = true)]
    pub uname: String,
    /// The group's name
    #[arg(long, default_value = "", hide_default_value = true)]
    pub gname: String,
    /// When the store paths' files were modified, a date of RFC 3339 in UTC
    #[arg(long, value_name = "DATE", default_value = "1970-01-01T00:00:01Z", value_parser = crate::image::spec::seconds)]
    pub mtime: u64,
    /// Who else knows layers
    #[command(flatten)]
    pub index: LayerIndexArguments,
    /// How much is done at once
    #[command(flatten)]
    pub jobs: JobsArguments,
    /// Print the layer as JSON
    #[arg(long)]
    pub json: bool,
    /// Where registrations come from
    #[command(flatten)]
    pub source: SourceArguments,
}

/// Arguments of `lay-out`.
#[derive(Debug, Args)]
pub struct LayOutArguments {
    /// Store paths, or links to them
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Copy the files of this one, and don't link them; can be repeated
    #[arg(long, value_name = "PATH")]
    pub mutable: Vec<PathBuf>,
    /// The folder; what is there stays
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Where the store is
    #[command(flatten)]
    pub store: super::StoreArguments,
}
