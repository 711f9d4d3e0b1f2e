//! The command line as clap reads it: exactly what was typed.

mod cache;
mod copy;
mod layer;
mod look;
mod needs;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

use crate::destination::ImageReference;
use crate::image::Platform;
use crate::image::manifest::ManifestFormat;
use crate::layer::compress::Compression;
use crate::plan::Strategy;

pub use cache::{
    AddArguments, CacheCommand, CacheKind, CheckArguments, EnvArguments, GcArguments, InfoArguments, InitArguments,
    WaitArguments,
};
pub use copy::{CopyArguments, IndexArguments};
pub use layer::{LayOutArguments, LayerArguments};
pub use look::{DiffArguments, InspectArguments, WhyArguments};
pub use needs::{NeedsArguments, NixpkgsArgument};

const AFTER_HELP: &str = "\
Examples:
  stowage build ./result --name ci --to docker-archive:- | docker load
  stowage build --spec ci.json --to docker://registry.example/team/ci:latest
  stowage build ./result --from stowage:./tools --to stowage:./project
  stowage build ./tools --build-deps-of ./result --nixpkgs ./nixpkgs --to docker-daemon:ci
  stowage index stowage:./amd64 stowage:./arm64 --to docker://registry.example/team/ci:latest
  stowage plan ./result --previous oci:layout:latest
  stowage diff oci:layout:old oci:layout:new
  stowage why ./image openssl
  stowage cache add ./cache ./result

Exit codes: 0 done; 1 something failed; 2 the command line or the spec is wrong;
3 registrations can't be read; 4 the Nix database can't be read; 5 a store path
is not valid, gone or changed; 6 the destination can't be written, or an image
or a cache not be read, or a registry refuses; 7 contents conflict; 8 `cache check
--strict` found damage.";

/// Gets what Nix builds into container images and binary caches.
#[derive(Debug, Parser)]
#[command(name = "stowage", version, after_long_help = AFTER_HELP, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Arguments {
    /// Say nothing but errors and results
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Ask this registry without TLS; can be repeated. Those on this machine are asked so if
    /// they have none
    #[arg(long, value_name = "HOST[:PORT]", global = true)]
    pub plain_http: Vec<String>,
    /// Say more; twice: even more
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What stowage can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build an image in which Nix works, from store paths
    Build(BuildArguments),
    /// Show which store paths would go together into which layer
    Plan(PlanArguments),
    /// Make a layer ahead: a small file with its digest, for any number of images
    ///
    /// Name the file in the `layers` of an image's spec. The image has the layer then as it is, and
    /// building it reads none of the layer's store paths: what they are was found out when the
    /// layer was made. Several layers can be made side by side, on several machines. `nix/` has it
    /// as a function, `buildLayer`.
    Layer(LayerArguments),
    /// Show what is different between two images or plans, and what would be sent again
    Diff(DiffArguments),
    /// Show the chain of references that brought a store path into an image
    Why(WhyArguments),
    /// Lay contents out in a folder, as they are at / in an image: for what commands change there
    #[command(hide = true)]
    LayOut(LayOutArguments),
    /// Copy an image from any place to any other
    #[command(override_usage = "stowage copy [OPTIONS] <SOURCE>... <DEST>")]
    Copy(CopyArguments),
    /// Make one image for several platforms: an index of an image for each
    ///
    /// Each IMAGE is one that was built for one platform, as by the spec's `architecture`. All
    /// are copied to DEST, and then an index lists them, by os, architecture and variant, so that
    /// each machine takes its own. Of an IMAGE that is an index itself, all its images are taken.
    Index(IndexArguments),
    /// Show what an image is made of
    Inspect(InspectArguments),
    /// Export what Nix has just built: for nix.conf's `post-build-hook`
    ///
    /// Reads DRV_PATH and OUT_PATHS, records what was built, holds it with a GC root, and lets
    /// Nix go on; a worker exports it, to $STOWAGE_CACHE, else to `cache` of the configuration,
    /// else to `cache` in $CI_PROJECT_DIR, else to ./cache. `stowage cache wait` ends a job.
    /// Never fails, since Nix would stop the build, unless the configuration says `strict`.
    /// nix.conf can give no arguments: name the script that --install writes, or a link to
    /// stowage that is called `stowage-hook`. The configuration is $STOWAGE_CONFIG, else
    /// ~/.config/stowage/config.toml, else /etc/stowage/config.toml; the README has its keys.
    /// With $STOWAGE_SPEC, the file of an image spec, the worker also finds out the layers of
    /// what that spec's `precompute` names.
    Hook(HookArguments),
    /// Export what hooks have recorded, until nothing is left
    ///
    /// The hook starts one by itself. For a systemd unit, see hooks/.
    #[command(hide = true)]
    Worker(StoreArguments),
    /// Put store paths into a binary cache, and end a job that used one
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Print what a job sets to use a binary cache: eval "$(stowage env DIR)"
    Env(EnvArguments),
    /// Put an image's store where /nix leads, and run a program: the entrypoint of images with a
    /// `cacheStore`
    #[command(hide = true)]
    Enter {
        /// The program, and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// Try whether Nix may make the namespaces that it needs for a store in a folder
    #[command(hide = true)]
    TryNamespaces {
        /// Which part of it
        step: String,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write all manual pages into a folder
    Man {
        /// The folder to write a page for each command into
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: Option<PathBuf>,
    },
}

/// Where the store is.
#[derive(Debug, Args)]
pub struct StoreArguments {
    /// The store's root, as Nix's `--store ROOT`; by default this system's store
    ///
    /// Store paths keep their names; their files are at ROOT/nix/store, the database at
    /// ROOT/nix/var/nix. NIX_STORE_DIR and NIX_STATE_DIR are respected without it.
    #[arg(long = "store", value_name = "ROOT", value_hint = ValueHint::DirPath)]
    pub root: Option<PathBuf>,
}

/// Arguments of `hook`.
#[derive(Debug, Args)]
pub struct HookArguments {
    /// Write a script for nix.conf's `post-build-hook`, and show the line to add there
    #[arg(long)]
    pub install: bool,
    /// Where to write it; by default /etc/stowage, or ~/.local/bin for an ordinary user
    #[arg(long, value_name = "DIR", requires = "install", value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
    /// The configuration that the script names
    #[arg(long, value_name = "FILE", requires = "install", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// The cache that the script names
    #[arg(long, value_name = "DIR", requires = "install", value_hint = ValueHint::DirPath)]
    pub cache: Option<PathBuf>,
    /// Have Nix wait for each export, and stop when one fails
    #[arg(long, requires = "install")]
    pub strict: bool,
}

/// How much is done at once.
#[derive(Debug, Args)]
pub struct JobsArguments {
    /// How many threads make layers, or export paths; by default one for each processor
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
}

/// Who else knows layers.
#[derive(Debug, Args)]
pub struct LayerIndexArguments {
    /// Believe what this knows of layers, so that they are not read: a folder that other machines
    /// share, which is made if it is not there, and told of what is new; or an image of stowage's.
    /// Can be repeated; by default $STOWAGE_LAYER_INDEX
    ///
    /// Whoever can write it decides what is in the images: name only what you trust as the images
    /// themselves. A job for somebody else's merge request needs a folder of its own.
    #[arg(long, value_name = "DIR|IMAGE", value_hint = ValueHint::AnyPath)]
    pub layer_index: Vec<String>,
}

/// Which image.
#[derive(Debug, Args)]
pub struct PlatformArguments {
    /// Which of an image's platforms, as in linux/arm64 or linux/arm/v7, if it has several
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
}

/// Where registrations come from.
#[derive(Debug, Args)]
pub struct SourceArguments {
    /// Where the store is
    #[command(flatten)]
    pub store: StoreArguments,
    /// Take registrations from this file: closureInfo's `registration`, or the output of
    /// `nix-store --dump-db`; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "closure", value_hint = ValueHint::FilePath)]
    pub registration: Option<PathBuf>,
    /// Take registrations from this JSON: of exportReferencesGraph, or of
    /// `nix path-info --json --recursive`; `-` is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub closure: Option<PathBuf>,
}

/// Arguments of `build`.
#[derive(Debug, Args)]
pub struct BuildArguments {
    /// Store paths, or links to them such as ./result, to lay out at / in the image
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
    /// What the image is to be, in JSON or TOML; `-` is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub spec: Option<PathBuf>,
    /// The image to build on, whose layers go below those that are new:
    /// docker://HOST/REPOSITORY[:TAG], docker-daemon:NAME[:TAG], docker-archive:FILE[:NAME:TAG], oci:DIR[:TAG], oci-archive:FILE[:TAG], stowage:DIR, or
    /// the path of one of these
    ///
    /// Its config, its user and its files stay, but for what the spec says otherwise. Store
    /// paths that it has are not written again, and the image's database knows all of them.
    #[arg(long, value_name = "IMAGE", value_hint = ValueHint::AnyPath)]
    pub from: Option<String>,
    /// What else goes into the image
    #[command(flatten)]
    pub needs: NeedsArguments,
    /// What to call the image; by default like the first path
    #[arg(long, value_name = "NAME[:TAG]")]
    pub name: Option<String>,
    /// Where to put the image: docker://HOST/REPOSITORY[:TAG], docker-daemon:NAME[:TAG], docker-archive:FILE[:NAME:TAG]
    /// (`-`: standard output), oci:DIR[:TAG], oci-archive:FILE[:TAG], or stowage:DIR; can be
    /// repeated
    #[arg(long, value_name = "DEST", default_value = "stowage:./image")]
    pub to: Vec<ImageReference>,
    /// How to compress the layers: none, gzip or zstd, or with a level as in zstd:9; given as
    /// often as --to, it is one for each. By default zstd for registries, else none; a parent's layers stay as they are,
    /// and image folders have no compressed ones
    #[arg(long, value_name = "CODEC[:LEVEL]")]
    pub compress: Vec<Compression>,
    /// Which kind of manifest a registry gets
    #[arg(long, value_name = "KIND", default_value = "oci")]
    pub format: ManifestFormat,
    /// Write the digest of the image's manifest into this file. Where several --to have several,
    /// it is that of the first registry, else of the last place; as with --json
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub digest_file: Option<PathBuf>,
    /// How many layers the image may have, its parent's included, at most 125; by default 62,
    /// and with a parent half of what that has left
    #[arg(long, value_name = "N")]
    pub max_layers: Option<u64>,
    /// How store paths are put into layers; by default stable, or as the spec says
    #[arg(long)]
    pub strategy: Option<Strategy>,
    /// What an earlier image or plan was like, so that layers can stay: an image, or a file
    /// of `stowage plan --json`; can be repeated, the newest last. What an image of stowage's knows
    /// of its layers is believed, as with --layer-index
    #[arg(long, value_name = "IMAGE|FILE", value_hint = ValueHint::AnyPath)]
    pub previous: Vec<String>,
    /// Who else knows layers
    #[command(flatten)]
    pub index: LayerIndexArguments,
    /// How much is done at once
    #[command(flatten)]
    pub jobs: JobsArguments,
    /// Print what was built as JSON
    #[arg(long)]
    pub json: bool,
    /// Where registrations come from
    #[command(flatten)]
    pub source: SourceArguments,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct PlanArguments {
    /// Store paths, or links to them; with --registration or --closure by default all
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
    /// What the image is to be, as for `build`
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub spec: Option<PathBuf>,
    /// The image to build on, as for `build`: what it has is not planned again
    #[arg(long, value_name = "IMAGE", value_hint = ValueHint::AnyPath)]
    pub from: Option<String>,
    /// What else goes into the image
    #[command(flatten)]
    pub needs: NeedsArguments,
    /// Show only the layer of this path, all that is in it, and why
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub why: Option<PathBuf>,
    /// How many layers the image may have, at most 125; by default 62
    #[arg(long, value_name = "N")]
    pub max_layers: Option<u64>,
    /// How store paths are put into layers; by default stable, or as the spec says
    #[arg(long)]
    pub strategy: Option<Strategy>,
    /// What an earlier image or plan was like, so that layers can stay: an image, or a file
    /// of `stowage plan --json`; can be repeated, the newest last
    #[arg(long, value_name = "IMAGE|FILE", value_hint = ValueHint::AnyPath)]
    pub previous: Vec<String>,
    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
    /// Where registrations come from
    #[command(flatten)]
    pub source: SourceArguments,
}
