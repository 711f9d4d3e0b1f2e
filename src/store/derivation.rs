//! Reads `.drv` files of a closure.

use std::collections::BTreeMap;

use anyhow::Context as _;
use nix_derivation::Derivation;

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
    let name = path.name().strip_suffix(".drv").unwrap_or(path.name());
    let derivation = Derivation::from_aterm_bytes_in(&bytes, name, closure.store_dir().clone())
        .with_context(|| format!("{printed} is no derivation that Nix would read"))?;
    let outputs = derivation.resolved_outputs().with_context(|| format!("the outputs of {printed}"))?;
    let printed = |(name, output): (String, nix_derivation::DerivationOutput)| {
        Some((name, closure.store_dir().render_path(&output.path?)))
    };
    Ok(outputs.into_iter().filter_map(printed).collect())
}
