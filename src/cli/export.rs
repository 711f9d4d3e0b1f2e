//! How to export to a binary cache, as the command line and the environment say.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::settings::Settings;
use crate::cache::sign::Keys;
use crate::cache::{Compression, Options, key_file};

/// How to export.
#[derive(Debug, Default, Args)]
pub struct ExportArguments {
    /// How to compress NARs: none, zstd or xz, or with a level as in zstd:9; by default zstd:3.
    /// What is in the cache already stays as it is
    #[arg(long, value_name = "CODEC[:LEVEL]")]
    pub compress: Option<Compression>,
    /// Sign with the key in this file, which `nix-store --generate-binary-cache-key` has made;
    /// can be repeated
    ///
    /// What is in the cache without a signature of the key gets one, too. Keys in
    /// $STOWAGE_SECRET_KEY, with white space between them, sign as well.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub secret_key_file: Vec<PathBuf>,
    /// Add a listing of the files of each path
    #[arg(long)]
    pub listing: bool,
    /// Add the logs of the builds, as far as this store has them
    #[arg(long)]
    pub logs: bool,
    /// Have Nix ask the cache before others whose number is higher, as 40 is for cache.nixos.org;
    /// by default 30 for a new cache
    #[arg(long, value_name = "N")]
    pub priority: Option<u32>,
}

impl ExportArguments {
    /// What they mean, for the store whose build logs are in `logs`.
    ///
    /// # Errors
    /// When a key can't be read.
    pub fn options(&self, settings: &Settings, jobs: usize, logs: PathBuf) -> anyhow::Result<Options> {
        Ok(Options {
            compression: self.compress.unwrap_or_default(),
            keys: self.keys(settings)?,
            listing: self.listing,
            logs: self.logs.then_some(logs),
            priority: self.priority,
            ..Options::new(jobs)
        })
    }

    fn keys(&self, settings: &Settings) -> anyhow::Result<Keys> {
        let given = settings.keys()?;
        let read = self.secret_key_file.iter().map(|file| key_file::read(file)).collect::<Result<Vec<_>, _>>()?;
        Ok(read.into_iter().chain(given.iter().cloned()).collect())
    }
}
