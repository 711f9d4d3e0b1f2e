//! Reads `.drv` files.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use nix_derivation::Derivation;
pub use nix_derivation::InputDerivation;

use super::{Closure, NodeId, StoreDir, StorePath};
use crate::tree::StoreFiles;

/// An output that a derivation of the closure declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredOutput {
    /// The derivation.
    pub derivation: NodeId,
    /// The output's name, e.g. `out`.
    pub name: String,
    /// Its store path, printed; it need not be in the closure.
    pub path: String,
}

/// What a derivation is built from, and what comes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    /// The derivations that it takes outputs of, and which outputs; where an output is a
    /// derivation in turn, which of that one's.
    pub inputs: BTreeMap<StorePath, InputDerivation>,
    /// Store paths that it takes as they are.
    pub sources: BTreeSet<StorePath>,
    /// Its outputs by name; those of content-addressed derivations have no path before they
    /// are built.
    pub outputs: BTreeMap<String, Option<StorePath>>,
}

impl Recipe {
    /// Reads the derivation `path`, of this text: an ATerm in any of Nix's forms.
    ///
    /// # Errors
    /// When it is no derivation that Nix would read.
    pub fn parse(text: &[u8], path: &StorePath, store_dir: &StoreDir) -> anyhow::Result<Self> {
        let derivation = parse(text, path, store_dir)?;
        let outputs = derivation.resolved_outputs().context("its outputs")?;
        Ok(Self {
            inputs: derivation.input_derivations().clone(),
            sources: derivation.input_sources().clone(),
            outputs: outputs.into_iter().map(|(name, output)| (name, output.path)).collect(),
        })
    }
}

/// The derivation `path`, of this text.
fn parse(text: &[u8], path: &StorePath, store_dir: &StoreDir) -> anyhow::Result<Derivation> {
    let name = path.name().strip_suffix(".drv").unwrap_or(path.name());
    Derivation::from_aterm_bytes_in(text, name, store_dir.clone())
        .with_context(|| format!("{} is no derivation that Nix would read", store_dir.render_path(path)))
}

/// The outputs that the derivation `path`, of this text, declares; `None` where it is no
/// derivation, or some of its outputs are known only once they are built.
#[must_use]
pub fn declared_outputs(text: &[u8], path: &StorePath, store_dir: &StoreDir) -> Option<Vec<StorePath>> {
    let name = path.name().strip_suffix(".drv")?;
    let derivation = Derivation::from_aterm_bytes_in(text, name, store_dir.clone()).ok()?;
    derivation.resolved_outputs().ok()?.into_values().map(|output| output.path).collect()
}

/// The outputs, by name and printed path, whose paths the derivation with the number `id` declares; those
/// of content-addressed derivations are known only once they are built.
///
/// # Errors
/// When its file is gone, or is no derivation.
pub fn outputs(files: &StoreFiles, closure: &Closure, id: NodeId) -> anyhow::Result<BTreeMap<String, String>> {
    let path = &closure.info(id).path;
    let printed = closure.print(id);
    let bytes = files.read_whole(path.to_basename().as_bytes())?;
    let derivation = parse(&bytes, path, closure.store_dir())?;
    let outputs = derivation.resolved_outputs().with_context(|| format!("the outputs of {printed}"))?;
    let printed = |(name, output): (String, nix_derivation::DerivationOutput)| {
        Some((name, closure.store_dir().render_path(&output.path?)))
    };
    Ok(outputs.into_iter().filter_map(printed).collect())
}
