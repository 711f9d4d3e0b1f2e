//! Layer plans: which store paths go together, before any byte is read.
//!
//! Planning is pure and total: it sees the closure and a policy, no file, and it
//! cannot fail. One file for each strategy.

pub mod diff;
mod fixed;
mod groups;
pub mod history;
mod popularity;
pub mod saved;
mod size;
mod stable;
mod volatile;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use crate::store::{Closure, NodeId};

pub use fixed::Fixed;
pub use groups::{Hint, Pattern, PatternError, unmatched};
pub use history::{History, Previous};
pub use popularity::scores as popularity_scores;
pub use volatile::Volatile;

/// The version of what the strategies do. It changes whenever any of them gives
/// another plan for the same.
pub const VERSION: &str = "1";

/// How store paths are put into layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Strategy {
    /// So that few bytes are sent again when the closure changes: what changes
    /// together stays together, and layers of --previous stay as they are.
    #[default]
    Stable,
    /// The paths that most others need, each in a layer of its own, and all the
    /// rest in one more.
    Popularity,
    /// The largest paths apart, each with what only it needs: nixpkgs' default.
    Size,
    /// In order of popularity, as many paths in each layer as pathsPerLayer says.
    #[value(alias = "pathsPerLayer")]
    PathsPerLayer,
}

impl Strategy {
    /// Every strategy, for tests of what must hold for all of them.
    pub const ALL: [Self; 4] = [Self::Stable, Self::Popularity, Self::Size, Self::PathsPerLayer];
}

/// All that a plan depends on besides the closure.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// How paths are put into layers.
    pub strategy: Strategy,
    /// The most layers that there may be.
    pub limit: NonZeroUsize,
    /// For [`Strategy::PathsPerLayer`]: how many paths each layer has; the last
    /// number is that of all layers from there on.
    pub paths_per_layer: Vec<NonZeroUsize>,
    /// What makes paths more or less popular than they are.
    pub hints: Vec<Hint>,
    /// Layers of their own: the paths that match one of the patterns of each.
    pub groups: Vec<Vec<Pattern>>,
    /// Layers that were made ahead.
    pub fixed: Vec<Fixed>,
    /// What goes into layers of its own, above all others.
    pub volatile: Vec<Volatile>,
    /// Plans of earlier revisions, the newest last.
    pub previous: Vec<Previous>,
}

impl Policy {
    /// A policy of nothing but a strategy and a limit.
    #[must_use]
    pub fn new(strategy: Strategy, limit: NonZeroUsize) -> Self {
        Self {
            strategy,
            limit,
            paths_per_layer: Vec::new(),
            hints: Vec::new(),
            groups: Vec::new(),
            fixed: Vec::new(),
            volatile: Vec::new(),
            previous: Vec::new(),
        }
    }
}

/// Store paths that will be one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedLayer {
    /// The paths, in the closure's order.
    pub paths: Vec<NodeId>,
    /// Why they are together, for people.
    pub why: String,
}

/// The store layers of an image, the lowest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerPlan {
    /// The layers; none is empty.
    pub layers: Vec<PlannedLayer>,
    /// What the next plan may know of how these paths have changed.
    pub history: History,
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

/// Puts `closure` into layers.
#[must_use]
pub fn plan(closure: &Closure, policy: &Policy) -> LayerPlan {
    let Apart { fixed, volatile, rest, policy } = Apart::new(closure, policy);
    let Some(rest) = rest else {
        return plan_all(closure, &policy);
    };
    // What is left is planned as if nothing else were there.
    let mut plan = plan_all(&rest, &policy);
    for id in plan.layers.iter_mut().flat_map(|layer| &mut layer.paths) {
        *id = closure.find(&rest.info(*id).path).unwrap_or_default();
    }
    plan.layers = fixed.into_iter().chain(plan.layers).chain(volatile).collect();
    plan
}

/// The history that a plan of `closure` knows.
#[must_use]
pub fn history(closure: &Closure, policy: &Policy) -> History {
    History::of(Apart::new(closure, policy).rest.as_ref().unwrap_or(closure), &policy.previous)
}

/// Layers that no strategy has a say in, and what is left.
struct Apart {
    fixed: Vec<PlannedLayer>,
    volatile: Vec<PlannedLayer>,
    /// The rest of the closure; `None` where that is all of it.
    rest: Option<Closure>,
    /// The policy for the rest.
    policy: Policy,
}

impl Apart {
    fn new(closure: &Closure, policy: &Policy) -> Self {
        let mut policy = policy.clone();
        let fixed = fixed::take(closure, &policy);
        policy.limit = left(policy.limit, fixed.len());
        let volatile = volatile::take(closure, &policy, &fixed);
        policy.limit = left(policy.limit, volatile.len());
        let taken = fixed.iter().chain(&volatile).flat_map(|layer| &layer.paths);
        let taken: BTreeSet<_> = taken.map(|id| &closure.info(*id).path).collect();
        let rest = (!taken.is_empty()).then(|| closure.without(&taken));
        Self { fixed, volatile, rest, policy }
    }
}

fn left(limit: NonZeroUsize, taken: usize) -> NonZeroUsize {
    NonZeroUsize::new(limit.get().saturating_sub(taken)).unwrap_or(NonZeroUsize::MIN)
}

fn plan_all(closure: &Closure, policy: &Policy) -> LayerPlan {
    let history = History::of(closure, &policy.previous);
    let (mut layers, free) = groups::take(closure, policy);
    let left = left(policy.limit, layers.len());
    layers.extend(match policy.strategy {
        Strategy::Popularity => popularity::per_layer(closure, &free, &policy.hints, &[], left),
        Strategy::PathsPerLayer => popularity::per_layer(closure, &free, &policy.hints, &policy.paths_per_layer, left),
        Strategy::Size => size::plan(closure, &free, left),
        Strategy::Stable => stable::plan(closure, &free, &policy.previous, &history, left),
    });
    for layer in &mut layers {
        layer.paths.sort_unstable();
    }
    layers.retain(|layer| !layer.paths.is_empty());
    LayerPlan { layers, history }
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

    /// The layers as the next plan may know them.
    #[must_use]
    pub fn to_previous(&self, closure: &Closure) -> Previous {
        let name = |id: &NodeId| closure.info(*id).path.to_basename();
        Previous {
            layers: self.layers.iter().map(|layer| layer.paths.iter().map(name).collect()).collect(),
            history: self.history.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
