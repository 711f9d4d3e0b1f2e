//! A registration: what a Nix database knows about one store path.

use std::collections::{BTreeMap, BTreeSet};

use super::{NarHash, StorePath};

/// One row of `ValidPaths` with its references.
///
/// Source: Nix's `src/libstore/path-info.hh` and `schema.sql`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathInfo {
    /// The store path itself.
    pub path: StorePath,
    /// The hash of its NAR.
    pub nar_hash: NarHash,
    /// The size of its NAR, in bytes; 0 where it is not known.
    pub nar_size: u64,
    /// What it refers to, itself perhaps included, sorted, each once.
    pub references: Vec<StorePath>,
    /// The derivation that made it, if known; it need not be valid.
    pub deriver: Option<StorePath>,
    /// The content address, as in `ValidPaths.ca`, where the path has one.
    pub ca: Option<String>,
    /// `NAME:BASE64` each.
    pub signatures: Vec<String>,
    /// Of a derivation whose file is not at hand: the outputs that it declares, by their
    /// names and printed paths.
    pub outputs: BTreeMap<String, String>,
    /// As what content-addressed derivations' output Nix knows it: realisations by their names, each
    /// with the names of those that it depends on. They come from elsewhere than registrations.
    pub realisations: BTreeMap<String, BTreeSet<String>>,
}

impl PathInfo {
    /// A registration with nothing but what every source knows.
    #[must_use]
    pub fn new(path: StorePath, nar_hash: NarHash, nar_size: u64, mut references: Vec<StorePath>) -> Self {
        references.sort();
        references.dedup();
        Self {
            path,
            nar_hash,
            nar_size,
            references,
            deriver: None,
            ca: None,
            signatures: Vec::new(),
            outputs: BTreeMap::new(),
            realisations: BTreeMap::new(),
        }
    }
}
