//! In which order to begin with the paths of a closure.
//!
//! Two wishes: references before referrers, so that each path is in the cache
//! as soon as it is compressed and a killed export is of use; and the biggest
//! first, so that no thread is left alone with a big one at the end. So: first
//! the biggest path, after what it needs; then the biggest that is left, after
//! what it needs; and so on. E.g. with glibc (30) ← git (50), glibc ← bash (9):
//! glibc, git, bash.
//!
//! A path's reach is the biggest size among itself and all that refers to it,
//! near or far. No path has less reach than what refers to it, so sorting by
//! reach, then references first, does both.

use crate::store::{Closure, NodeId};

/// All paths of `closure`, references before referrers.
///
/// # Errors
/// When paths refer to each other in a circle: one of these.
pub fn queue(closure: &Closure) -> Result<Vec<NodeId>, NodeId> {
    let referrers = referrers(closure);
    let mut order = topological(closure, &referrers)?;
    let mut reach: Vec<u64> = closure.infos().iter().map(|info| info.nar_size).collect();
    for id in order.iter().rev() {
        let above = referrers[*id].iter().map(|referrer| reach[*referrer]).max();
        reach[*id] = reach[*id].max(above.unwrap_or(0));
    }
    // Stable: what has the same reach stays in topological order.
    order.sort_by_key(|id| std::cmp::Reverse(reach[*id]));
    Ok(order)
}

/// What refers to each path, not counting itself.
#[must_use]
pub fn referrers(closure: &Closure) -> Vec<Vec<NodeId>> {
    let mut referrers = vec![Vec::new(); closure.len()];
    for id in 0..closure.len() {
        for reference in closure.references(id).iter().filter(|reference| **reference != id) {
            referrers[*reference].push(id);
        }
    }
    referrers
}

/// How many other paths each path refers to.
#[must_use]
pub fn reference_counts(closure: &Closure) -> Vec<usize> {
    let others = |id| closure.references(id).iter().filter(|reference| **reference != id).count();
    (0..closure.len()).map(others).collect()
}

/// References before referrers, by Kahn's algorithm.
fn topological(closure: &Closure, referrers: &[Vec<NodeId>]) -> Result<Vec<NodeId>, NodeId> {
    let mut missing = reference_counts(closure);
    let mut order: Vec<NodeId> = (0..closure.len()).filter(|id| missing[*id] == 0).collect();
    let mut next = 0;
    while let Some(id) = order.get(next).copied() {
        next += 1;
        for referrer in &referrers[id] {
            missing[*referrer] -= 1;
            if missing[*referrer] == 0 {
                order.push(*referrer);
            }
        }
    }
    match missing.iter().position(|count| *count > 0) {
        Some(id) => Err(id),
        None => Ok(order),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::closure::tests::{info, path};
    use crate::store::{PathInfo, StoreDir};

    /// A closure of the paths a, b, c, …, of the sizes given, with the
    /// references given by their places.
    fn closure(paths: &[(u64, &[usize])]) -> Closure {
        let paths_of = |places: &[usize]| {
            places.iter().map(|place| path(char::from(b"abcdfghijk"[*place]), "x")).collect::<Vec<_>>()
        };
        let infos = paths.iter().enumerate().map(|(place, (size, references))| {
            let references = paths_of(references);
            let info = info(&paths_of(&[place])[0], &references.iter().collect::<Vec<_>>());
            PathInfo { nar_size: *size, ..info }
        });
        Closure::new(&StoreDir::default(), infos.collect(), None).expect("closed")
    }

    #[test]
    fn the_biggest_comes_first_after_what_it_needs() {
        // glibc, bash, git
        assert_eq!(queue(&closure(&[(30, &[]), (9, &[0]), (50, &[0, 2])])), Ok(vec![0, 2, 1]));
        // A small library of a big program goes before a middling one of a small.
        assert_eq!(queue(&closure(&[(1, &[]), (20, &[]), (90, &[0]), (5, &[1])])), Ok(vec![0, 2, 1, 3]));
    }

    #[test]
    fn a_circle_is_found() {
        assert!(queue(&closure(&[(1, &[1]), (1, &[0]), (1, &[])])).is_err_and(|id| id < 2));
    }

    proptest! {
        #[test]
        fn references_always_come_first(paths in prop::collection::vec((0_u64..5, prop::collection::vec(0_usize..10, 0..4)), 1..10)) {
            // Only references to earlier paths: no circle.
            let paths: Vec<(u64, Vec<usize>)> = paths
                .into_iter()
                .enumerate()
                .map(|(place, (size, references))| (size, references.into_iter().filter(|reference| *reference <= place).collect()))
                .collect();
            let paths: Vec<(u64, &[usize])> = paths.iter().map(|(size, references)| (*size, &references[..])).collect();
            let closure = closure(&paths);
            let order = queue(&closure).expect("no circle");
            prop_assert_eq!(order.len(), closure.len());
            let place = |id: NodeId| order.iter().position(|other| *other == id).expect("each is there");
            for id in 0..closure.len() {
                prop_assert!(closure.references(id).iter().all(|reference| place(*reference) <= place(id)));
            }
        }
    }
}
