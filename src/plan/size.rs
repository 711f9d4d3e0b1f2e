//! The largest paths apart, each with what only it needs.
//!
//! Source: nixpkgs' present default, `pkgs/build-support/docker/auto-layer.py`.
//! The largest path becomes a *primary*, then the next, and so on. A path belongs
//! to the layer of all the primaries that need it, except those that need it only
//! through another one. This goes on until there would be too many layers.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::rc::Rc;

use super::PlannedLayer;
use crate::store::{Closure, NodeId};

/// The primaries that need a path, by their numbers in the order in which they
/// became such.
type Users = BTreeSet<usize>;

/// `free` in at most `limit` layers.
pub fn plan(closure: &Closure, free: &[NodeId], limit: NonZeroUsize) -> Vec<PlannedLayer> {
    let mut split = Split::new(closure, free);
    let mut by_size = free.to_vec();
    // Python's sort is stable, and the largest is taken from the end.
    by_size.sort_by_key(|id| closure.info(*id).nar_size);
    // Each primary has a layer for itself, so there are never more primaries than layers,
    // unless paths refer to each other in a circle.
    for primary in by_size.into_iter().rev().take(limit.get()) {
        let next = split.with(primary);
        if next.sizes.len() > limit.get() {
            break;
        }
        split = next;
    }
    split.into_layers(free)
}

#[derive(Clone)]
struct Split<'a> {
    closure: &'a Closure,
    is_free: Vec<bool>,
    primaries: Vec<NodeId>,
    /// For each primary, what it reaches, itself aside.
    reach: Vec<Rc<Vec<bool>>>,
    /// The layer of each path, and how many paths each layer has.
    layer: Vec<Rc<Users>>,
    sizes: BTreeMap<Rc<Users>, usize>,
}

impl<'a> Split<'a> {
    /// All paths in one layer, which no primary needs.
    fn new(closure: &'a Closure, free: &[NodeId]) -> Self {
        let nobody = Rc::new(Users::new());
        let mut is_free = vec![false; closure.len()];
        for id in free {
            is_free[*id] = true;
        }
        Self {
            closure,
            is_free,
            primaries: Vec::new(),
            reach: Vec::new(),
            layer: vec![Rc::clone(&nobody); closure.len()],
            sizes: [(nobody, free.len())].into_iter().filter(|(_, size)| *size > 0).collect(),
        }
    }

    /// The same with one more primary.
    fn with(&self, primary: NodeId) -> Self {
        let mut next = self.clone();
        let number = self.primaries.len();
        let mut reach = vec![false; self.closure.len()];
        let mut queue: Vec<NodeId> = self.closure.references(primary).to_vec();
        while let Some(id) = queue.pop() {
            if !std::mem::replace(&mut reach[id], true) {
                queue.extend(self.closure.references(id));
            }
        }
        reach[primary] = false;
        // Paths of one layer go to one layer.
        let mut moved: BTreeMap<Rc<Users>, Rc<Users>> = BTreeMap::new();
        for id in (0..self.closure.len()).filter(|id| reach[*id]) {
            let new = moved.entry(Rc::clone(&self.layer[id])).or_insert_with_key(|old| {
                // Those that need the new primary need the path through it.
                let mut users: Users = old.iter().copied().filter(|user| !self.reach[*user][primary]).collect();
                if !users.iter().any(|user| reach[self.primaries[*user]]) {
                    users.insert(number);
                }
                Rc::new(users)
            });
            next.put(id, Rc::clone(new));
        }
        next.put(primary, Rc::new([number].into()));
        next.primaries.push(primary);
        next.reach.push(Rc::new(reach));
        next
    }

    fn put(&mut self, id: NodeId, layer: Rc<Users>) {
        let old = std::mem::replace(&mut self.layer[id], Rc::clone(&layer));
        if !self.is_free[id] {
            return;
        }
        if let Some(size) = self.sizes.get_mut(&old) {
            *size -= 1;
            if *size == 0 {
                self.sizes.remove(&old);
            }
        }
        *self.sizes.entry(layer).or_default() += 1;
    }

    /// The layers, each after those that it needs: those that reach more bytes later.
    fn into_layers(self, free: &[NodeId]) -> Vec<PlannedLayer> {
        let mut members: BTreeMap<Rc<Users>, Vec<NodeId>> = BTreeMap::new();
        for id in free {
            members.entry(Rc::clone(&self.layer[*id])).or_default().push(*id);
        }
        let mut layers: Vec<(u64, PlannedLayer)> = members
            .into_iter()
            .map(|(users, paths)| {
                let roots: Vec<_> = paths.iter().map(|id| self.closure.info(*id).path.clone()).collect();
                let reached = self.closure.reachable(&roots);
                let size = reached.iter().fold(0_u64, |sum, id| sum.saturating_add(self.closure.info(*id).nar_size));
                (size, PlannedLayer { why: self.why(&users, &paths), paths })
            })
            .collect();
        layers.sort_by_key(|(size, _)| *size);
        layers.into_iter().map(|(_, layer)| layer).collect()
    }

    fn why(&self, users: &Users, paths: &[NodeId]) -> String {
        let name = |user: &usize| self.closure.info(self.primaries[*user]).path.name();
        match users.iter().collect::<Vec<_>>()[..] {
            [] => "needed by none of the largest".to_owned(),
            [user] if paths == [self.primaries[*user]] => format!("number {} in size", user + 1),
            [user] => format!("number {} in size, {}, and what only it needs", user + 1, name(user)),
            [first, .., last] => {
                format!("needed by {} of the largest, from {} to {}", users.len(), name(first), name(last))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::sized;
    use proptest::collection::vec;
    use proptest::{prop_assert_eq, proptest};

    /// `auto-layer.py`, line by line; the layers as sets.
    fn auto_layer(closure: &Closure, limit: usize) -> BTreeSet<BTreeSet<NodeId>> {
        let dependencies = |of: NodeId| -> BTreeSet<NodeId> {
            let reached = closure.reachable(&[closure.info(of).path.clone()]);
            reached.into_iter().filter(|id| *id != of).collect()
        };
        let below: Vec<BTreeSet<NodeId>> = (0..closure.len()).map(dependencies).collect();
        let mut by_size: Vec<NodeId> = (0..closure.len()).collect();
        by_size.sort_by_key(|id| closure.info(*id).nar_size);
        let mut split: Vec<BTreeSet<NodeId>> = vec![BTreeSet::new(); closure.len()];
        while let Some(primary) = by_size.pop() {
            let mut new = split.clone();
            new[primary] = BTreeSet::from([primary]);
            for id in &below[primary] {
                new[*id].retain(|user| !below[*user].contains(&primary));
                if new[*id].is_disjoint(&below[primary]) {
                    new[*id].insert(primary);
                }
            }
            if new.iter().collect::<BTreeSet<_>>().len() > limit {
                break;
            }
            split = new;
        }
        let layer = |users: &BTreeSet<NodeId>| (0..closure.len()).filter(|id| split[*id] == *users).collect();
        split.iter().map(layer).collect()
    }

    proptest! {
        #[test]
        fn the_layers_are_those_of_auto_layer(
            edges in vec((0..20_usize, 0..20_usize), 0..60),
            sizes in vec(0..50_u64, 20),
            limit in 1..25_usize,
        ) {
            let edges: Vec<_> = edges.into_iter().filter(|(from, to)| from >= to).collect();
            let paths: Vec<_> = sizes.into_iter().map(|size| ("a", size)).collect();
            let closure = sized(&paths, &edges, &[]);
            let free: Vec<NodeId> = (0..closure.len()).collect();
            let layers = plan(&closure, &free, NonZeroUsize::new(limit).expect("not zero"));
            let layers: BTreeSet<BTreeSet<NodeId>> =
                layers.into_iter().map(|layer| layer.paths.into_iter().collect()).collect();
            prop_assert_eq!(layers, auto_layer(&closure, limit));
        }
    }

    #[test]
    fn in_a_circle_no_more_primaries_are_tried_than_there_may_be_layers() {
        let paths = vec![("a", 1); 200];
        let edges: Vec<_> = (0..paths.len()).map(|id| (id, (id + 1) % paths.len())).collect();
        let closure = sized(&paths, &edges, &[]);
        let free: Vec<NodeId> = (0..closure.len()).collect();
        let layers = plan(&closure, &free, NonZeroUsize::new(60).expect("not zero"));
        assert_eq!((layers.len(), &layers[0].why[..]), (1, "number 60 in size, a, and what only it needs"));
    }
}
