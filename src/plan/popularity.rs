//! Popularity, as nixpkgs' `referencesByPopularity` scores it.
//!
//! Source: nixpkgs, `pkgs/build-support/flatten-references-graph` and the older
//! `docker/closure-graph.py`. There the graph is unfolded into trees from the
//! paths that nothing refers to, and in each tree every node's contest adds, for
//! each path below a child, the child's own count of it and one more. Summed up,
//! a path's score is the number of tree nodes that are that path or have it
//! below them. Let T(u) be how often u occurs in the unfolded trees, that is, in
//! how many ways one comes from a root to u. Then
//!
//! ```text
//! score(x) = Σ T(u) over all u that are x or reach x
//! ```
//!
//! For example: foo → bar, baz; bar → baz; baz → tux. T is 1, 1, 2, 2, and the
//! scores are foo 1, bar 2, baz 1+1+2 = 4, tux 1+1+2+2 = 6, as in nixpkgs' test.

use std::cmp::Ordering;
use std::num::NonZeroUsize;

use super::{Hint, PlannedLayer};
use crate::store::{Closure, NodeId};

/// `free` in order of popularity, in layers of `sizes` paths, the last of which
/// is that of all further layers, too (without any: of one). The last layer has
/// the rest.
pub fn per_layer(
    closure: &Closure,
    free: &[NodeId],
    hints: &[Hint],
    sizes: &[NonZeroUsize],
    limit: NonZeroUsize,
) -> Vec<PlannedLayer> {
    let order = order(closure, free, hints);
    let sizes = sizes.iter().chain(std::iter::repeat(sizes.last().unwrap_or(&NonZeroUsize::MIN)));
    let mut layers = Vec::new();
    let mut begin = 0_usize;
    for size in sizes.take(limit.get()) {
        let is_last = layers.len() + 1 == limit.get();
        let end = if is_last { order.len() } else { order.len().min(begin.saturating_add(size.get())) };
        if begin == end {
            break;
        }
        let why = match end - begin {
            _ if is_last && end - begin > size.get() => format!("the rest, from number {} in popularity on", begin + 1),
            1 => format!("number {end} in popularity"),
            _ => format!("numbers {} to {end} in popularity", begin + 1),
        };
        layers.push(PlannedLayer { paths: order[begin..end].to_vec(), why });
        begin = end;
    }
    layers
}

/// Those of `free`, the most popular first, those of one score by name; last those
/// that no root reaches, which only happens in a cycle.
fn order(closure: &Closure, free: &[NodeId], hints: &[Hint]) -> Vec<NodeId> {
    let scores = scores(closure);
    let keys: Vec<String> = (0..closure.len()).map(|id| name_then_hash(closure, id)).collect();
    let weight = |id: &NodeId| {
        let path = &closure.info(*id).path;
        hints.iter().filter(|hint| hint.pattern.matches(path)).map(|hint| hint.weight).product::<f64>()
    };
    // Scores are compared as they are, unless there are hints: numbers with a
    // point hold but 16 digits of them.
    let weighted: Vec<f64> = if hints.is_empty() {
        Vec::new()
    } else {
        (0..closure.len()).map(|id| scores[id] as f64 * weight(&id)).collect()
    };
    let compare = |one: NodeId, other: NodeId| match weighted.is_empty() {
        true => scores[other].cmp(&scores[one]),
        false => weighted[other].total_cmp(&weighted[one]),
    };
    let mut order = free.to_vec();
    order.sort_by(|one, other| match (scores[*one], scores[*other]) {
        (0, 0) => one.cmp(other),
        (0, _) => Ordering::Greater,
        (_, 0) => Ordering::Less,
        _ => compare(*one, *other).then_with(|| keys[*one].cmp(&keys[*other])),
    });
    order
}

/// nixpkgs' `package_name`: the store path with its hash moved to the end.
fn name_then_hash(closure: &Closure, id: NodeId) -> String {
    let printed = closure.print(id);
    match printed.split_once('-') {
        Some((hash, name)) => format!("{name}-{hash}"),
        None => printed,
    }
}

/// The score of each path; 0 for one that no root reaches. Scores stop at the
/// largest number of 128 bits, from which on only names decide.
#[must_use]
pub fn scores(closure: &Closure) -> Vec<u128> {
    let topological = topological(closure);
    let occurrences = occurrences(closure, &topological);
    let mut scores = vec![0_u128; closure.len()];
    // Which of 64 paths reach a path fits one word, so each round takes 64.
    let mut reached_by = vec![0_u64; closure.len()];
    for group in topological.chunks(64) {
        reached_by.fill(0);
        for (bit, id) in group.iter().enumerate() {
            reached_by[*id] = 1 << bit;
        }
        for id in &topological {
            let mut word = reached_by[*id];
            if word == 0 {
                continue;
            }
            for reference in closure.references(*id) {
                reached_by[*reference] |= word;
            }
            while word != 0 {
                let origin = group[word.trailing_zeros() as usize];
                scores[*id] = scores[*id].saturating_add(occurrences[origin]);
                word &= word - 1;
            }
        }
    }
    scores
}

/// How often each path occurs in the unfolded trees.
fn occurrences(closure: &Closure, topological: &[NodeId]) -> Vec<u128> {
    let mut place = vec![usize::MAX; closure.len()];
    for (index, id) in topological.iter().enumerate() {
        place[*id] = index;
    }
    let mut occurrences = vec![0_u128; closure.len()];
    for root in closure.unreferenced() {
        occurrences[root] = 1;
    }
    for id in topological {
        for reference in closure.references(*id) {
            // Anything else is a self reference or closes a cycle.
            if place[*reference] > place[*id] {
                occurrences[*reference] = occurrences[*reference].saturating_add(occurrences[*id]);
            }
        }
    }
    occurrences
}

/// The paths that roots reach, each before all it refers to. Input that no Nix
/// wrote may have cycles; a reference that closes one is passed over.
fn topological(closure: &Closure) -> Vec<NodeId> {
    let mut order = closure.references_first(closure.unreferenced());
    order.reverse();
    order
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::store::closure::tests::{info, path};
    use crate::store::{StoreDir, StorePath};
    use proptest::{prop_assert_eq, proptest};

    /// A closure of paths with the given names, whose hashes follow the order
    /// of `names` backwards, so that no test passes for the order of hashes.
    fn closure(names: &[&str], edges: &[(&str, &str)]) -> Closure {
        let letters: Vec<char> = "zyxwvsrqpnmlkjihgfdcba9876543210".chars().collect();
        let paths: BTreeMap<&str, StorePath> =
            names.iter().zip(letters).map(|(name, letter)| (*name, path(letter, name))).collect();
        let infos = names
            .iter()
            .map(|name| {
                let references: Vec<_> =
                    edges.iter().filter(|edge| edge.0 == *name).map(|edge| &paths[edge.1]).collect();
                info(&paths[name], &references)
            })
            .collect();
        Closure::new(&StoreDir::default(), infos, None).expect("closed")
    }

    fn everything(closure: &Closure) -> Vec<NodeId> {
        order(closure, &(0..closure.len()).collect::<Vec<_>>(), &[])
    }

    fn named_scores(closure: &Closure) -> BTreeMap<String, u128> {
        let names = closure.infos().iter().map(|info| info.path.name().to_owned());
        names.zip(scores(closure)).collect()
    }

    #[test]
    fn scores_are_those_of_nixpkgs_own_tests() {
        let closure = closure(
            &["foo", "bar", "baz", "tux"],
            &[("foo", "foo"), ("foo", "bar"), ("foo", "baz"), ("bar", "baz"), ("baz", "tux")],
        );
        let expected = [("bar", 2), ("baz", 4), ("foo", 1), ("tux", 6)];
        assert_eq!(named_scores(&closure), expected.map(|(name, score)| (name.to_owned(), score)).into());
    }

    #[test]
    fn a_chain_with_a_popular_end_scores_as_in_nixpkgs() {
        // A1 B2 C3 D4 E5 F9 G2: a chain, whose end four of its links share.
        let edges = [
            ("A", "B"),
            ("B", "C"),
            ("C", "D"),
            ("D", "E"),
            ("B", "F"),
            ("C", "F"),
            ("D", "F"),
            ("E", "F"),
            ("A", "G"),
        ];
        let closure = closure(&["A", "B", "C", "D", "E", "F", "G"], &edges);
        let expected = [("A", 1), ("B", 2), ("C", 3), ("D", 4), ("E", 5), ("F", 9), ("G", 2)];
        assert_eq!(named_scores(&closure), expected.map(|(name, score)| (name.to_owned(), score)).into());
    }

    #[test]
    fn the_order_is_that_of_nixpkgs_own_test() {
        let edges = [
            ("Root1", "A"),
            ("A", "B"),
            ("A", "D"),
            ("D", "E"),
            ("B", "D"),
            ("B", "F"),
            ("Root2", "B"),
            ("Root3", "C"),
        ];
        let closure = closure(&["Root1", "Root2", "Root3", "A", "B", "C", "D", "E", "F", "X"], &edges);
        let names: Vec<&str> = everything(&closure).iter().map(|id| closure.info(*id).path.name()).collect();
        assert_eq!(names, ["E", "D", "F", "B", "A", "C", "Root1", "Root2", "Root3", "X"]);
    }

    #[test]
    fn layers_have_as_many_paths_as_is_said_and_the_last_has_the_rest() {
        let closure = closure(&["foo", "bar", "baz", "tux"], &[("foo", "bar"), ("bar", "baz"), ("baz", "tux")]);
        let names = |sizes: &[usize], hints: &[Hint], limit| -> Vec<Vec<&str>> {
            let sizes: Vec<_> = sizes.iter().map(|size| NonZeroUsize::new(*size).expect("not zero")).collect();
            let limit = NonZeroUsize::new(limit).expect("not zero");
            let layers = per_layer(&closure, &[0, 1, 2, 3], hints, &sizes, limit);
            layers.iter().map(|layer| layer.paths.iter().map(|id| closure.info(*id).path.name()).collect()).collect()
        };
        assert_eq!(names(&[], &[], 3), [vec!["tux"], vec!["baz"], vec!["bar", "foo"]]);
        assert_eq!(names(&[], &[], 1), [vec!["tux", "baz", "bar", "foo"]]);
        assert_eq!(names(&[], &[], 4), [vec!["tux"], vec!["baz"], vec!["bar"], vec!["foo"]]);
        assert_eq!(names(&[], &[], 9), names(&[], &[], 4));
        assert_eq!(names(&[2, 1], &[], 9), [vec!["tux", "baz"], vec!["bar"], vec!["foo"]]);
        assert_eq!(names(&[1, 2], &[], 2), [vec!["tux"], vec!["baz", "bar", "foo"]]);
        let hint = |text, weight| Hint { pattern: crate::plan::Pattern::new(text).expect("a pattern"), weight };
        assert_eq!(names(&[], &[hint("f?o", 100.0)], 2), [vec!["foo"], vec!["tux", "baz", "bar"]]);
        assert_eq!(names(&[], &[hint("tux", 0.5), hint("t*", 0.1)], 2), [vec!["baz"], vec!["bar", "foo", "tux"]]);
    }

    /// The definition, as nixpkgs computes it: a contest in each unfolded tree.
    fn contest(closure: &Closure, children: &[NodeId]) -> BTreeMap<NodeId, u128> {
        let mut counts = BTreeMap::new();
        for child in children {
            *counts.entry(*child).or_default() += 1;
            let below: Vec<NodeId> = closure.references(*child).iter().copied().filter(|id| id != child).collect();
            for (path, count) in contest(closure, &below) {
                *counts.entry(path).or_default() += count + 1;
            }
        }
        counts
    }

    proptest! {
        #[test]
        fn scores_equal_the_unfolded_contest(edges in proptest::collection::vec((0..9_usize, 0..9_usize), 0..25)) {
            let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
            let edges: Vec<_> = edges.iter().filter(|edge| edge.0 < edge.1).map(|edge| (names[edge.0], names[edge.1])).collect();
            let closure = closure(&names, &edges);
            let expected = contest(&closure, &closure.unreferenced());
            let scores = scores(&closure);
            for (id, score) in expected {
                prop_assert_eq!(scores[id], score, "{}", closure.print(id));
            }
        }
    }

    #[test]
    fn a_cycle_ends_the_plan_with_its_paths_and_no_endless_loop() {
        let closure = closure(&["a", "b", "c"], &[("a", "b"), ("b", "a")]);
        let names: Vec<&str> = everything(&closure).iter().map(|id| closure.info(*id).path.name()).collect();
        assert_eq!(names, ["c", "b", "a"]);
    }
}
