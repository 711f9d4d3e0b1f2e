//! A binary cache in a folder, as Nix reads and writes it at `file://`, or in a bucket, as at
//! `s3://`. What it is in is told apart in [`place`] and [`shelf`] alone.
//!
//! ```text
//! nix-cache-info        StoreDir, WantMassQuery, Priority
//! HASH.narinfo          about the store path whose base name begins with HASH
//! HASH.ls               on request: which files it has
//! nar/NARHASH.nar.zst   its NAR, named by the hash of its uncompressed bytes,
//!                       so that nothing compressed is ever hashed; also .nar
//!                       and .nar.xz
//! log/DRV               on request: what the build of that derivation has said
//! realisations/         what content-addressed derivations have made
//! build-trace-v2/       empty: without these folders, Nix drops a cache that
//!                       it can't write to (the last is for 2.35 and later)
//! quarantine/           what `stowage cache check` found damaged
//! stowage/used          when paths were last used; see [`usage`] (in a bucket there are more
//!                       such files, and `stowage/begun/`)
//! ```
//!
//! Invariant: at any moment, whoever is killed, each narinfo is whole, its NAR
//! is there and whole, and so are the narinfos of all that it refers to.
//!
//! Sources: Nix's `binary-cache-store.cc` and `nar-info.cc`; what readers of
//! it check was tried with Nix 2.8.

pub mod beneath;
mod beside;
pub mod bucket;
pub mod check;
mod compress;
pub mod compression;
pub mod export;
mod extras;
pub mod folder;
pub mod gc;
pub mod info;
pub mod key_file;
pub mod listing;
pub mod narinfo;
pub mod options;
mod order;
pub mod place;
pub mod realisation;
mod resolve;
pub mod scan;
pub mod setup;
pub mod shelf;
pub mod sign;
pub mod trust;
pub mod usage;

pub use compression::Compression;
pub use export::{Summary, export, export_selected};
pub use folder::CacheFolder;
pub use options::Options;
pub use place::Place;

use std::path::PathBuf;

use crate::nar::{Measured, NarError};

/// Why store paths can't be put in a cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The folder can't be used, or not be written to.
    #[error("using the cache: {0}")]
    Shelf(#[from] shelf::ShelfError),
    /// The address of a bucket that is none.
    #[error(transparent)]
    Address(#[from] crate::s3::S3Error),
    /// A typing error, or a hook that exported elsewhere or nothing.
    #[error("there is no cache at {0}: no such folder; name the one that the hook exports to")]
    Missing(PathBuf),
    /// Others have been adding to it for longer than one waits.
    #[error("somebody else is adding to the cache at {0}; try again when that has ended")]
    Busy(PathBuf),
    /// A cache for another store: its paths would mean nothing here.
    #[error("the cache {path} is for the store {found}, not for {wanted}; use another folder")]
    StoreDir {
        /// Where the cache is.
        path: String,
        /// The store dir that it is for.
        found: String,
        /// The store dir of the paths.
        wanted: String,
    },
    /// Some paths are not fit for a cache. All others are in it now, except
    /// those that refer to them.
    #[error("{}", describe(refusals, *left_out))]
    Refused {
        /// What is wrong with each.
        refusals: Vec<Refusal>,
        /// How many paths are not added, since they refer to those.
        left_out: usize,
    },
    /// Paths that refer to each other in a circle, which Nix never makes: there
    /// is no order to add them in.
    #[error("{0} refers to itself by way of other paths; the registrations are wrong")]
    Cycle(String),
}

/// Why one store path is not fit for a cache.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is not what was registered: a cache would spread the damage.
    #[error(
        "{path} is damaged: its NAR is sha256:{} ({} bytes) on disk, and sha256:{} ({} bytes) in the database; repair it with `nix-store --repair-path {path}`, or delete it and build it again",
        found.hash.to_nix32(), found.size, registered.hash.to_nix32(), registered.size
    )]
    Damaged {
        /// The path.
        path: String,
        /// What the database says.
        registered: Measured,
        /// What is on disk.
        found: Measured,
    },
    /// It can't be read.
    #[error("{path} can't be added: {source}")]
    Unreadable {
        /// The path.
        path: String,
        /// What is wrong.
        source: NarError,
    },
    /// Its registration can't be written as a narinfo.
    #[error("{path} can't be added: {source}")]
    Narinfo {
        /// The path.
        path: String,
        /// What is wrong.
        source: nix_narinfo::BuildError,
    },
}

/// All refusals, a line each.
fn describe(refusals: &[Refusal], left_out: usize) -> String {
    let mut lines: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    if left_out > 0 {
        lines.push(format!("not added, since they refer to what is named above: {left_out} more paths"));
    }
    lines.join("\n")
}
