//! Layers that were made ahead: their paths stay together, below all others.

use std::collections::BTreeSet;

use super::{PlannedLayer, Policy};
use crate::store::{Closure, StorePath};

/// Store paths that are one layer already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// What they are, for people.
    pub what: String,
    /// The paths.
    pub paths: BTreeSet<StorePath>,
}

/// The policy's fixed layers, as far as they are in `closure`, in their order; a path that is in
/// two of them is in the first.
pub fn take(closure: &Closure, policy: &Policy) -> Vec<PlannedLayer> {
    let mut taken = vec![false; closure.len()];
    let mut layers = Vec::new();
    for Fixed { what, paths } in &policy.fixed {
        let ids = paths.iter().filter_map(|path| closure.find(path));
        let ids: Vec<_> = ids.filter(|id| !std::mem::replace(&mut taken[*id], true)).collect();
        if !ids.is_empty() {
            layers.push(PlannedLayer { paths: ids, why: what.clone() });
        }
    }
    layers
}
