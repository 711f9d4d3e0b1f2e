//! How to export.

use std::path::PathBuf;

use super::Compression;
use super::sign::Keys;

/// How to export. All but the first may stay as [`Options::new`] has them.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many NARs are compressed at the same time; at least one.
    pub jobs: usize,
    /// How NARs are compressed. What is there stays as it is.
    pub compression: Compression,
    /// Who signs narinfos, new ones and those that are there.
    pub keys: Keys,
    /// Whether each path gets a listing of its files, for those who want one file only.
    pub listing: bool,
    /// Nix's folder of build logs, if these are to be in the cache, too.
    pub logs: Option<PathBuf>,
    /// The priority that the cache is to have among substituters, lower ones first; `None`
    /// leaves it as it is.
    pub priority: Option<u32>,
}

impl Options {
    /// The usual ones: zstd, and nothing that was not asked for.
    #[must_use]
    pub fn new(jobs: usize) -> Self {
        Self {
            jobs,
            compression: Compression::default(),
            keys: Keys::default(),
            listing: false,
            logs: None,
            priority: None,
        }
    }
}
