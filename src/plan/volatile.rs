//! What changes so often that it goes into layers of its own, above all others: source trees and
//! derivations, which are new with every bump. No stable path is sent again for their sake, nor
//! planned otherwise.

use std::collections::BTreeSet;

use super::{PlannedLayer, Policy};
use crate::store::{Closure, StorePath};

/// Store paths that change together, and often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volatile {
    /// What they are, for people.
    pub what: String,
    /// The paths.
    pub paths: BTreeSet<StorePath>,
}

/// The layers of what is volatile in `closure`, in the policy's order; a path that is in two of
/// them is in the first; one that is in the policy's groups, or in a `fixed` layer, is in none.
/// Where something else is in the closure, a layer is left for that, and none is volatile if there
/// may be only one.
pub fn take(closure: &Closure, policy: &Policy, fixed: &[PlannedLayer]) -> Vec<PlannedLayer> {
    let mut taken = vec![false; closure.len()];
    for (id, taken) in taken.iter_mut().enumerate() {
        let path = &closure.info(id).path;
        *taken = policy.groups.iter().flatten().any(|pattern| pattern.matches(path));
    }
    let mut others = closure.len();
    for id in fixed.iter().flat_map(|layer| &layer.paths) {
        taken[*id] = true;
        others -= 1;
    }
    let mut layers: Vec<PlannedLayer> = Vec::new();
    for Volatile { what, paths } in &policy.volatile {
        let ids: Vec<_> = paths.iter().filter_map(|path| closure.find(path)).filter(|id| !taken[*id]).collect();
        ids.iter().for_each(|id| taken[*id] = true);
        if !ids.is_empty() {
            layers.push(PlannedLayer { paths: ids, why: what.clone() });
        }
    }
    let in_layers: usize = layers.iter().map(|layer| layer.paths.len()).sum();
    let most = policy.limit.get() - usize::from(in_layers < others);
    if most == 0 {
        return Vec::new();
    }
    while layers.len() > most {
        let Some(last) = layers.pop() else { break };
        let Some(before) = layers.last_mut() else { break };
        before.paths.extend(last.paths);
        before.paths.sort_unstable();
        before.why = format!("{}; {}", before.why, last.why);
    }
    layers
}
