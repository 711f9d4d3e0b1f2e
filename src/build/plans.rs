//! Remembers plans: planning by `stable` takes longer than all else that is to be done
//! for an image that is there already.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use crate::layer::LayerKey;
use crate::layer::index::LayerIndex;
use crate::layer::key::KeyHasher;
use crate::plan::{self, LayerPlan, PlannedLayer, Policy};
use crate::store::{Closure, NodeId};

/// Fewer paths are planned as quickly as a file is read.
const WORTH_IT: usize = 64;

/// A plan's layers, as they are remembered.
#[derive(Serialize, Deserialize)]
struct Remembered {
    layers: Vec<(Vec<NodeId>, String)>,
}

/// [`plan::plan`], or what it gave for the same.
#[must_use]
pub fn plan(closure: &Closure, policy: &Policy, index: &LayerIndex) -> LayerPlan {
    if closure.len() < WORTH_IT {
        return plan::plan(closure, policy);
    }
    let key = key(closure, policy);
    let recalled = index.recall::<Remembered>("plan", &key);
    if let Some(plan) = recalled.and_then(|remembered| remembered.plan(closure, policy)) {
        return plan;
    }
    let plan = plan::plan(closure, policy);
    let layers = plan.layers.iter().map(|layer| (layer.paths.clone(), layer.why.clone())).collect();
    index.remember("plan", &key, &Remembered { layers });
    plan
}

impl Remembered {
    /// The plan, if it is one for `closure`.
    fn plan(self, closure: &Closure, policy: &Policy) -> Option<LayerPlan> {
        let layers = self.layers.into_iter().map(|(paths, why)| PlannedLayer { paths, why }).collect();
        let plan = LayerPlan { layers, history: plan::history(closure, policy) };
        let is_whole = plan.layers.iter().flat_map(|layer| &layer.paths).all(|id| *id < closure.len());
        // Groups may make more layers than the limit; planning is what says so.
        let limit = NonZeroUsize::new(closure.len()).unwrap_or(NonZeroUsize::MIN);
        (is_whole && plan.check(closure, limit).is_ok()).then_some(plan)
    }
}

/// Names all that a plan depends on.
fn key(closure: &Closure, policy: &Policy) -> LayerKey {
    let mut hasher = KeyHasher::new("stowage plan");
    hasher.add(plan::VERSION.as_bytes());
    // What is derived tells every field.
    hasher.add(format!("{policy:?}").as_bytes());
    for (id, info) in closure.infos().iter().enumerate() {
        hasher.add(info.path.to_basename().as_bytes());
        hasher.add(&info.nar_size.to_be_bytes());
        hasher.add_all(closure.references(id).iter().map(|reference| (*reference as u64).to_be_bytes()));
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Strategy;
    use crate::store::StoreDir;
    use crate::store::closure::tests::{info, path};

    fn closure(paths: usize, largest: u64) -> Closure {
        let names: Vec<_> = (0..paths).map(|id| path('a', &format!("package-{id}"))).collect();
        let infos = names.iter().zip(1..).map(|(name, size)| crate::store::PathInfo {
            nar_size: if size == paths as u64 { largest } else { size },
            ..info(name, &[&names[0]])
        });
        Closure::new(&StoreDir::default(), infos.collect(), None).expect("closed")
    }

    fn policy(limit: usize) -> Policy {
        Policy::new(Strategy::Stable, NonZeroUsize::new(limit).expect("not zero"))
    }

    #[test]
    fn what_a_plan_depends_on_is_in_its_key() {
        let one = closure(100, 7);
        let mut other = policy(5);
        other.previous = vec![plan::plan(&one, &policy(5)).to_previous(&one)];
        let keys = [
            key(&one, &policy(5)),
            key(&one, &policy(6)),
            key(&closure(101, 7), &policy(5)),
            key(&closure(100, 8), &policy(5)),
            key(&one, &other),
        ];
        assert_eq!(std::collections::BTreeSet::from(keys).len(), keys.len());
        assert_eq!(keys[0], key(&closure(100, 7), &policy(5)));
    }

    #[test]
    fn a_plan_that_was_remembered_is_the_same_and_a_wrong_one_is_not_believed() {
        let folder = tempfile::tempdir().expect("a folder");
        let index = LayerIndex::new(folder.path());
        let (closure, policy) = (closure(100, 7), policy(5));
        let expected = plan::plan(&closure, &policy);
        assert_eq!(plan(&closure, &policy, &index), expected);
        assert!(index.recall::<Remembered>("plan", &key(&closure, &policy)).is_some());
        assert_eq!(plan(&closure, &policy, &index), expected);
        for wrong in [vec![(vec![0, 1], String::new())], vec![((0..101).collect(), String::new())]] {
            index.remember("plan", &key(&closure, &policy), &Remembered { layers: wrong });
            assert_eq!(plan(&closure, &policy, &index), expected);
        }
    }
}
