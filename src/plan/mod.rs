//! Layer plans: which store paths go together, before any byte is read.
//!
//! Planning is pure and total: it sees the closure and a number of layers, no
//! file, and it cannot fail.

mod popularity;

use std::num::NonZeroUsize;

use crate::store::{Closure, NodeId};

pub use popularity::scores as popularity_scores;

/// How store paths are put into layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Strategy {
    /// The paths that most others need, each in a layer of its own, and all the
    /// rest in one more.
    Popularity,
}

impl Strategy {
    /// Every strategy, for tests of what must hold for all of them.
    pub const ALL: [Self; 1] = [Self::Popularity];
}

/// Store paths that will be one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedLayer {
    /// The paths, in the closure's order.
    pub paths: Vec<NodeId>,
}

/// The store layers of an image, the lowest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerPlan {
    /// The layers; none is empty.
    pub layers: Vec<PlannedLayer>,
}

/// What is wrong with a plan; see [`LayerPlan::check`].
#[derive(Debug, PartialEq, Eq)]
pub enum PlanFault {
    /// More layers than were allowed.
    TooMany(usize),
    /// A layer without a path.
    Empty(usize),
    /// A path that is in no layer, or in several.
    Times(NodeId, usize),
    /// A layer whose paths are not in order, which its bytes would show.
    Unordered(usize),
}

/// Puts `closure` into at most `limit` layers.
#[must_use]
pub fn plan(closure: &Closure, strategy: Strategy, limit: NonZeroUsize) -> LayerPlan {
    let mut layers = match strategy {
        Strategy::Popularity => popularity::plan(closure, limit),
    };
    for layer in &mut layers {
        layer.sort_unstable();
    }
    layers.retain(|layer| !layer.is_empty());
    LayerPlan { layers: layers.into_iter().map(|paths| PlannedLayer { paths }).collect() }
}

impl PlannedLayer {
    /// The sum of the NAR sizes of the layer's paths, in bytes.
    #[must_use]
    pub fn nar_size(&self, closure: &Closure) -> u64 {
        self.paths.iter().fold(0, |sum, id| sum.saturating_add(closure.info(*id).nar_size))
    }
}

impl LayerPlan {
    /// Everything that must be true of a plan for `closure`.
    ///
    /// # Errors
    /// The first thing that is not.
    pub fn check(&self, closure: &Closure, limit: NonZeroUsize) -> Result<(), PlanFault> {
        if self.layers.len() > limit.get() {
            return Err(PlanFault::TooMany(self.layers.len()));
        }
        let mut times = vec![0; closure.len()];
        for (number, layer) in self.layers.iter().enumerate() {
            if layer.paths.is_empty() {
                return Err(PlanFault::Empty(number));
            }
            if !layer.paths.is_sorted() {
                return Err(PlanFault::Unordered(number));
            }
            for id in &layer.paths {
                times[*id] += 1;
            }
        }
        match times.iter().position(|times| *times != 1) {
            Some(id) => Err(PlanFault::Times(id, times[id])),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreDir;
    use crate::store::closure::tests::{info, path};
    use proptest::{prop_assert_eq, proptest};

    /// A closure of `size` paths, in which path i refers to some after it.
    fn closure_of(edges: &[(usize, usize)], size: usize) -> Closure {
        let letters: Vec<char> = "0123456789abcdfghijklmnpqrsvwxyz".chars().collect();
        let paths: Vec<_> = (0..size).map(|id| path(letters[id], "p")).collect();
        let infos = (0..size)
            .map(|id| {
                let references: Vec<_> = edges.iter().filter(|edge| edge.0 == id).map(|edge| &paths[edge.1]).collect();
                info(&paths[id], &references)
            })
            .collect();
        Closure::new(&StoreDir::default(), infos, None).expect("closed")
    }

    proptest! {
        #[test]
        fn every_strategy_makes_valid_plans_of_any_graph(
            edges in proptest::collection::vec((0..20_usize, 0..20_usize), 0..60),
            limit in 1..25_usize,
        ) {
            let closure = closure_of(&edges, 20);
            let limit = NonZeroUsize::new(limit).expect("not zero");
            for strategy in Strategy::ALL {
                let plan = plan(&closure, strategy, limit);
                prop_assert_eq!(plan.check(&closure, limit), Ok(()));
            }
        }
    }

    #[test]
    fn a_fault_of_each_kind_is_found() {
        let closure = closure_of(&[], 2);
        let of = |layers: &[&[usize]]| LayerPlan {
            layers: layers.iter().map(|paths| PlannedLayer { paths: paths.to_vec() }).collect(),
        };
        let limit = NonZeroUsize::new(2).expect("not zero");
        assert_eq!(of(&[&[0], &[1], &[]]).check(&closure, limit), Err(PlanFault::TooMany(3)));
        assert_eq!(of(&[&[0, 1], &[]]).check(&closure, limit), Err(PlanFault::Empty(1)));
        assert_eq!(of(&[&[1, 0]]).check(&closure, limit), Err(PlanFault::Unordered(0)));
        assert_eq!(of(&[&[0], &[0, 1]]).check(&closure, limit), Err(PlanFault::Times(0, 2)));
        assert_eq!(of(&[&[0]]).check(&closure, limit), Err(PlanFault::Times(1, 0)));
    }
}
