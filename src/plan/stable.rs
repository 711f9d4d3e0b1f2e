//! As few bytes as can be are sent again when the closure changes.
//!
//! A layer is sent again when one of its paths changes, and then its other paths
//! are sent for nothing. How often that will happen is estimated by a [`Model`]
//! of what changes together: what has been seen, and what follows from the graph,
//! since in Nix a path changes with everything that it needs. From single paths
//! on, those groups are put together that cost least ([`cluster`]), until the
//! layers are few enough.
//!
//! Layers of the previous plan whose paths are all still there cost nothing as
//! they are, and are taken apart or put together only where that pays. The paths
//! of a layer that has changed are sent anyway, so they can go anywhere.
//!
//! The idea of weighing a layer's bytes by the revisions in which any of it
//! changes is rechunk's; `bench/layer-plans` measures it. No
//! function but `+`, `-`, `*` and `/` is used on numbers with a point, so that
//! every machine comes to the same plan.

mod cluster;
mod model;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use super::{History, PlannedLayer, Previous};
use crate::store::{Closure, NodeId, StorePath};
use cluster::{Group, Item};
use model::Model;

/// `free` in at most `limit` layers.
pub fn plan(
    closure: &Closure,
    free: &[NodeId],
    previous: &[Previous],
    history: &History,
    limit: NonZeroUsize,
) -> Vec<PlannedLayer> {
    let model = Model::new(closure, history);
    let kept = kept_layers(closure, free, previous);
    let in_kept: BTreeSet<NodeId> = kept.iter().flatten().copied().collect();
    let single = free.iter().filter(|id| !in_kept.contains(id)).map(|id| (vec![*id], None));
    let items = kept.into_iter().enumerate().map(|(place, paths)| (paths, Some(place))).chain(single);
    let items = items.map(|(paths, kept)| Item::new(&model, closure, paths, kept)).collect();
    let mut groups = cluster::cluster(&model, items, limit.get());
    // What stays is at the bottom, in the order in which it was: Docker takes a layer
    // for the same only above the same layers. Above it, what will stay longest.
    groups.sort_by(|one, other| {
        let place = |group: &Group| group.kept.unwrap_or(usize::MAX);
        place(one)
            .cmp(&place(other))
            .then_with(|| one.weight.total_cmp(&other.weight))
            .then_with(|| one.paths.first().cmp(&other.paths.first()))
    });
    let why = |group: &Group| why(group, history.revisions);
    groups.into_iter().map(|group| PlannedLayer { why: why(&group), paths: group.paths }).collect()
}

/// The layers of earlier plans that can stay, or come back: all of their paths are
/// there, and free. Those of the last plan are in their order; where it is to be
/// chosen, the larger ones stay.
fn kept_layers(closure: &Closure, free: &[NodeId], previous: &[Previous]) -> Vec<Vec<NodeId>> {
    let Some((last, older)) = previous.split_last() else {
        return Vec::new();
    };
    let find = |name: &String| closure.find(&StorePath::from_basename(name.as_bytes()).ok()?);
    let ids = |names: &Vec<String>| names.iter().map(find).collect::<Option<BTreeSet<NodeId>>>();
    let mut candidates: Vec<BTreeSet<NodeId>> = last.layers.iter().filter_map(ids).collect();
    let known: usize = candidates.iter().map(BTreeSet::len).sum();
    if known < closure.len() {
        candidates.extend(last.history.gone.iter().filter_map(ids));
        candidates.extend(older.iter().rev().flat_map(|plan| plan.layers.iter().filter_map(ids)));
    }
    let size =
        |ids: &BTreeSet<NodeId>| ids.iter().fold(0_u64, |sum, id| sum.saturating_add(closure.info(*id).nar_size));
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|place| std::cmp::Reverse(size(&candidates[*place])));
    let mut is_left = vec![false; closure.len()];
    for id in free {
        is_left[*id] = true;
    }
    let mut kept = vec![false; candidates.len()];
    for place in order {
        let ids = &candidates[place];
        kept[place] = !ids.is_empty() && ids.iter().all(|id| is_left[*id]);
        if kept[place] {
            ids.iter().for_each(|id| is_left[*id] = false);
        }
    }
    candidates.into_iter().zip(kept).filter(|(_, kept)| *kept).map(|(ids, _)| ids.into_iter().collect()).collect()
}

fn why(group: &Group, revisions: u32) -> String {
    let changes = group.events[0].count_ones();
    let often = match revisions {
        0 => String::new(),
        _ => format!("; changed in {changes} of {revisions} revisions"),
    };
    match (group.kept, group.paths.len()) {
        (Some(_), _) => format!("as it was before{often}"),
        (None, 1) => format!("alone{often}"),
        (None, _) => format!("likely to change together{often}"),
    }
}

#[cfg(test)]
mod tests;
