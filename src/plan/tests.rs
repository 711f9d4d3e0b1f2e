//! What must hold for every strategy.

mod apart;

use std::collections::BTreeMap;

use super::*;
use crate::store::closure::tests::info;
use crate::store::{StoreDir, StorePath};
use proptest::collection::vec;
use proptest::{prop_assert, prop_assert_eq, proptest};

/// A closure of paths with the given names and sizes. The hash of each path tells
/// its number and `revision`.
pub fn sized(paths: &[(&str, u64)], edges: &[(usize, usize)], revision: &[usize]) -> Closure {
    let named: Vec<StorePath> = paths
        .iter()
        .enumerate()
        .map(|(id, (name, _))| {
            let revision = revision.get(id).copied().unwrap_or(0);
            StorePath::from_basename(format!("{id:016}{revision:016}-{name}").as_bytes()).expect("a store path")
        })
        .collect();
    let infos = paths.iter().enumerate().map(|(id, (_, size))| {
        let references: Vec<_> = edges.iter().filter(|edge| edge.0 == id).map(|edge| &named[edge.1]).collect();
        crate::store::PathInfo { nar_size: *size, ..info(&named[id], &references) }
    });
    Closure::new(&StoreDir::default(), infos.collect(), None).expect("closed")
}

/// The names of the paths of each layer.
pub fn names<'a>(closure: &'a Closure, plan: &LayerPlan) -> Vec<Vec<&'a str>> {
    let name = |id: &NodeId| closure.info(*id).path.name();
    plan.layers.iter().map(|layer| layer.paths.iter().map(name).collect()).collect()
}

pub fn limit(limit: usize) -> NonZeroUsize {
    NonZeroUsize::new(limit).expect("not zero")
}

const NAMES: [&str; 8] = ["a-1", "b-1", "c-1-bin", "d", "a-2", "e-f-3", "g-1.drv", "h-0"];

fn closure_of(edges: &[(usize, usize)], sizes: &[u64], revision: &[usize]) -> Closure {
    let paths: Vec<_> = sizes.iter().enumerate().map(|(id, size)| (NAMES[id % NAMES.len()], *size)).collect();
    sized(&paths, edges, revision)
}

fn policy(strategy: Strategy, most: usize, groups: &[&[&str]]) -> Policy {
    let pattern = |text: &&str| Pattern::new(text).expect("a pattern");
    Policy {
        paths_per_layer: vec![limit(3), limit(1)],
        hints: vec![Hint { pattern: pattern(&"a*"), weight: 10.0 }],
        groups: groups.iter().map(|group| group.iter().map(pattern).collect()).collect(),
        ..Policy::new(strategy, limit(most))
    }
}

/// The layers as sets of base names.
fn layers(closure: &Closure, plan: &LayerPlan) -> Vec<Vec<String>> {
    plan.to_previous(closure).layers
}

proptest! {
    #[test]
    fn every_strategy_makes_valid_plans_of_any_graph_and_history(
        edges in vec((0..20_usize, 0..20_usize), 0..60),
        sizes in vec(0..100_000_000_u64, 20),
        most in 1..25_usize,
        old in vec(0..3_usize, 20),
        new in vec(0..3_usize, 20),
        grouped in 0..3_usize,
    ) {
        let groups: [&[&str]; 3] = [&["a*", "d"], &["g"], &["*-0"]];
        let (before, closure) = (closure_of(&edges, &sizes, &old), closure_of(&edges, &sizes, &new));
        for strategy in Strategy::ALL {
            let mut policy = policy(strategy, most, &groups[..grouped]);
            let first = plan(&before, &policy);
            prop_assert_eq!(first.check(&before, policy.limit), Ok(()));
            policy.previous.push(first.to_previous(&before));
            let second = plan(&closure, &policy);
            prop_assert_eq!(second.check(&closure, policy.limit), Ok(()));
            prop_assert_eq!(second.history.tracks.len(), closure.len());
        }
    }

    #[test]
    fn plans_do_not_depend_on_the_order_of_the_input(
        edges in vec((0..20_usize, 0..20_usize), 0..60),
        sizes in vec(0..100_000_000_u64, 20),
        most in 1..25_usize,
        shuffled in proptest::sample::subsequence((0..20).collect::<Vec<usize>>(), 10),
    ) {
        let closure = closure_of(&edges, &sizes, &[]);
        let (first, second): (Vec<_>, Vec<_>) =
            closure.infos().iter().cloned().enumerate().partition(|(id, _)| shuffled.contains(id));
        let infos = second.into_iter().rev().chain(first).map(|(_, info)| info).collect();
        let other = Closure::new(&StoreDir::default(), infos, None).expect("closed");
        for strategy in Strategy::ALL {
            let policy = policy(strategy, most, &[]);
            prop_assert_eq!(plan(&closure, &policy), plan(&other, &policy));
        }
    }

    #[test]
    fn the_same_revision_again_has_the_same_stable_plan(
        edges in vec((0..20_usize, 0..20_usize), 0..60),
        sizes in vec(0..100_000_000_u64, 20),
        most in 1..25_usize,
        old in vec(0..3_usize, 20),
        new in vec(0..3_usize, 20),
    ) {
        let (before, closure) = (closure_of(&edges, &sizes, &old), closure_of(&edges, &sizes, &new));
        let mut policy = Policy::new(Strategy::Stable, limit(most));
        policy.previous.push(plan(&before, &policy).to_previous(&before));
        let first = plan(&closure, &policy);
        policy.previous = vec![first.to_previous(&closure)];
        let again = plan(&closure, &policy);
        prop_assert_eq!(layers(&closure, &again), layers(&closure, &first));
        prop_assert_eq!(&again.history, &first.history);
        // Both plans known, the older one changes nothing.
        policy.previous.insert(0, plan(&before, &Policy::new(Strategy::Stable, limit(most))).to_previous(&before));
        let again = plan(&closure, &policy);
        prop_assert_eq!(layers(&closure, &again), layers(&closure, &first));
        prop_assert_eq!(&again.history, &first.history);
    }

    #[test]
    fn layers_that_can_stay_do_where_there_are_layers_enough(
        sizes in vec(1_000_000..100_000_000_u64, 12),
        old in vec(0..2_usize, 12),
        new in vec(0..2_usize, 12),
    ) {
        let (before, closure) = (closure_of(&[], &sizes, &old), closure_of(&[], &sizes, &new));
        let mut policy = Policy::new(Strategy::Stable, limit(24));
        let first = plan(&before, &policy);
        policy.previous.push(first.to_previous(&before));
        let second = layers(&closure, &plan(&closure, &policy));
        for layer in layers(&before, &first) {
            let is_there = |name: &String| closure.infos().iter().any(|info| info.path.to_basename() == *name);
            prop_assert!(!layer.iter().all(is_there) || second.contains(&layer), "{:?}", layer);
        }
    }
}

/// The graphs of nixpkgs' own tests of popularity, with sizes.
fn golden_graphs() -> [Closure; 3] {
    let graph = |paths: &[(&str, u64)], edges: &str| {
        let place = |name: &str| paths.iter().position(|path| path.0 == name).expect("a path");
        let edges: Vec<_> = edges.split(' ').filter_map(|edge| edge.split_once('>')).collect();
        let edges: Vec<_> = edges.into_iter().map(|(from, to)| (place(from), place(to))).collect();
        sized(paths, &edges, &[])
    };
    [
        graph(
            &[("A", 100), ("B", 200), ("C", 300), ("D", 400), ("E", 500), ("F", 600), ("G", 700)],
            "A>B B>C C>D D>E B>F C>F D>F E>F A>G",
        ),
        graph(&[("bar", 40), ("baz", 20), ("foo", 10), ("tux", 30)], "foo>bar foo>baz bar>baz baz>tux"),
        graph(
            &[
                ("A", 70),
                ("B", 600),
                ("C", 50),
                ("D", 40),
                ("E", 30),
                ("F", 20),
                ("Root1", 100),
                ("Root2", 90),
                ("Root3", 80),
                ("X", 10),
            ],
            "Root1>A A>B A>D D>E B>D B>F Root2>B Root3>C",
        ),
    ]
}

fn golden(policy: &Policy) -> [String; 3] {
    golden_graphs().map(|closure| {
        let layers = names(&closure, &plan(&closure, policy));
        layers.iter().map(|layer| layer.join(" ")).collect::<Vec<_>>().join(" | ")
    })
}

#[test]
fn size_plans_as_nixpkgs_auto_layer_does() {
    // What auto-layer.py prints for these graphs.
    let golden = |most| golden(&Policy::new(Strategy::Size, limit(most)));
    assert_eq!(golden(1), ["A B C D E F G", "bar baz foo tux", "A B C D E F Root1 Root2 Root3 X"]);
    assert_eq!(golden(3), ["F | G | A B C D E", "tux | bar baz | foo", "B D E F | A Root1 | C Root2 Root3 X"]);
    assert_eq!(
        golden(5),
        ["F | G | E | D | A B C", "tux | baz | bar | foo", "X | C Root3 | B D E F | Root2 | A Root1"]
    );
    assert_eq!(golden(9)[2], "X | E | C | D | Root3 | B F | A | Root2 | Root1");
}

#[test]
fn popularity_plans_as_nixpkgs_once_did() {
    // By the scores A1 B2 C3 D4 E5 F9 G2, foo1 bar2 baz4 tux6, and nixpkgs' order
    // E D F B A C Root1 Root2 Root3 X.
    let golden = |most| golden(&Policy::new(Strategy::Popularity, limit(most)));
    assert_eq!(golden(3), ["F | E | A B C D G", "tux | baz | bar foo", "E | D | A B C F Root1 Root2 Root3 X"]);
    assert_eq!(golden(6)[0], "F | E | D | C | B | A G");
    let policy = Policy { paths_per_layer: vec![limit(2), limit(1)], ..Policy::new(Strategy::PathsPerLayer, limit(3)) };
    assert_eq!(
        self::golden(&policy),
        ["E F | D | A B C G", "baz tux | bar | foo", "D E | F | A B C Root1 Root2 Root3 X"]
    );
}

#[test]
fn stable_plans_are_written_down() {
    // Megabytes instead of bytes, lest all of it be dust.
    let [first, second, third] = golden_graphs().map(|closure| {
        let infos = closure.infos().iter().cloned();
        let infos = infos.map(|info| crate::store::PathInfo { nar_size: info.nar_size << 20, ..info }).collect();
        let closure = Closure::new(&StoreDir::default(), infos, None).expect("closed");
        let layers = names(&closure, &plan(&closure, &Policy::new(Strategy::Stable, limit(3))));
        layers.iter().map(|layer| layer.join(" ")).collect::<Vec<_>>().join(" | ")
    });
    assert_eq!(first, "G | D E F | A B C");
    assert_eq!(second, "tux | bar baz | foo");
    assert_eq!(third, "C Root3 X | B D E F | A Root1 Root2");
}

#[test]
fn groups_come_first_and_the_rest_is_planned_around_them() {
    let closure = sized(&[("a-1", 1 << 20), ("b-2", 1 << 20), ("c-3", 1 << 20), ("d-4", 1 << 20)], &[(0, 1)], &[]);
    let named = |most: usize, groups: &[&[&str]]| {
        let policy = Policy { hints: Vec::new(), ..policy(Strategy::Popularity, most, groups) };
        names(&closure, &plan(&closure, &policy)).into_iter().map(|layer| layer.join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(named(4, &[&["c", "a"]]), ["a-1 c-3", "b-2", "d-4"]);
    assert_eq!(named(2, &[&["?-3"], &["a-1"]]), ["a-1 c-3", "b-2 d-4"]);
    assert_eq!(named(3, &[&["none"], &["a-1", "b*"], &["b-2", "c"]]), ["a-1 b-2", "c-3", "d-4"]);
    assert_eq!(named(1, &[&["a"]]), ["a-1 b-2 c-3 d-4"]);
    assert_eq!(named(1, &[&["*"]]), ["a-1 b-2 c-3 d-4"]);
    let whole = format!("/nix/store/{}", closure.info(3).path.to_basename());
    assert_eq!(named(9, &[&[&whole]])[0], "d-4");
    let policy = policy(Strategy::Popularity, 9, &[&["a", "none"], &["?-9"], &["d-4"]]);
    assert_eq!(unmatched(&closure, &policy.groups, &policy.hints), ["none", "?-9"]);
    assert!(Pattern::new("a[").expect_err("open").to_string().contains("\"a[\" is no pattern"));
}

#[test]
fn a_package_is_its_name_without_version_and_with_its_output() {
    for (name, package) in [
        ("glibc-2.38-66", "glibc"),
        ("glibc-2.38-66-bin", "glibc-bin"),
        ("python3-3.11.9", "python3"),
        ("python3.11-requests-2.31.0", "python3.11-requests"),
        ("foo-unstable-2021-01-01", "foo-unstable"),
        ("bash", "bash"),
        ("openjdk-17-jre-headless_17.0.1", "openjdk"),
        ("hello-2.12.drv", "hello.drv"),
        ("source", "source"),
        ("a-", "a-"),
    ] {
        assert_eq!(history::package(name), package, "{name}");
    }
}

#[test]
fn history_tells_own_changes_from_those_of_what_is_needed() {
    let paths = [("lib-1", 1), ("tool-1", 1), ("data-1", 1)];
    let first = sized(&paths, &[(1, 0)], &[0, 0, 0]);
    let rebuilt = sized(&paths, &[(1, 0)], &[1, 1, 0]);
    let previous = plan(&first, &Policy::new(Strategy::Size, limit(3))).to_previous(&first);
    let history = History::of(&rebuilt, &[previous]);
    let track = |name: &str| {
        let info = rebuilt.infos().iter().find(|info| info.path.name() == name).expect("there");
        history.track(&info.path)
    };
    let of = |changed, own| history::Track { changed, own, age: 1 };
    assert_eq!((track("lib-1"), track("tool-1"), track("data-1")), (of(1, 1), of(1, 0), of(0, 0)));
    assert_eq!(history.revisions, 1);
    let upgraded = sized(&[("lib-1", 1), ("tool-2", 1), ("new-1", 1)], &[(1, 0)], &[1, 2, 0]);
    let next = plan(&rebuilt, &Policy { previous: Vec::new(), ..Policy::new(Strategy::Size, limit(3)) });
    let next = Previous { history, ..next.to_previous(&rebuilt) };
    let history = History::of(&upgraded, &[next]);
    let tracks: BTreeMap<_, _> =
        upgraded.infos().iter().map(|info| (info.path.name(), history.track(&info.path))).collect();
    assert_eq!(tracks["tool-2"], history::Track { changed: 1 << 1 | 1, own: 1, age: 2 });
    assert_eq!(tracks["lib-1"], history::Track { changed: 1 << 1, own: 1 << 1, age: 2 });
    assert_eq!(tracks["new-1"], history::Track::default());
}

#[test]
fn a_package_is_followed_by_the_one_that_is_most_like_it() {
    let before = sized(&[("jdk-17-headless-17.0.1", 1), ("jdk-17-lib-17.0.1", 1), ("jdk-17-doc", 1)], &[], &[]);
    let names = [("jdk-17-a-17.0.1", 1), ("jdk-17-headless-17.0.2", 1), ("jdk-17-lib-17.0.1", 1), ("jdk-17-doc", 1)];
    let after = sized(&names, &[], &[0, 1, 1, 2]);
    let previous = plan(&before, &Policy::new(Strategy::Size, limit(3))).to_previous(&before);
    let history = History::of(&after, &[previous]);
    let tracks: Vec<_> = after.infos().iter().map(|info| (info.path.name(), history.track(&info.path).age)).collect();
    assert_eq!(
        tracks,
        [("jdk-17-a-17.0.1", 0), ("jdk-17-headless-17.0.2", 1), ("jdk-17-lib-17.0.1", 1), ("jdk-17-doc", 1)]
    );
}

#[test]
fn two_versions_of_a_package_follow_two_versions() {
    let before = sized(&[("ssl-1.1", 1), ("ssl-3.0", 1)], &[], &[0, 0]);
    let after = sized(&[("ssl-1.1", 1), ("ssl-3.1", 1)], &[], &[0, 1]);
    let previous = plan(&before, &Policy::new(Strategy::Size, limit(2))).to_previous(&before);
    let history = History::of(&after, &[previous]);
    let changed: Vec<u64> = after.infos().iter().map(|info| history.track(&info.path).changed).collect();
    assert_eq!(changed, [0, 1]);
}

#[test]
fn a_fault_of_each_kind_is_found() {
    let closure = closure_of(&[], &[1, 1], &[]);
    let of = |layers: &[&[usize]]| LayerPlan {
        layers: layers.iter().map(|paths| PlannedLayer { paths: paths.to_vec(), why: String::new() }).collect(),
        history: History::default(),
    };
    assert_eq!(of(&[&[0], &[1], &[]]).check(&closure, limit(2)), Err(PlanFault::TooMany(3)));
    assert_eq!(of(&[&[0, 1], &[]]).check(&closure, limit(2)), Err(PlanFault::Empty(1)));
    assert_eq!(of(&[&[1, 0]]).check(&closure, limit(2)), Err(PlanFault::Unordered(0)));
    assert_eq!(of(&[&[0], &[0, 1]]).check(&closure, limit(2)), Err(PlanFault::Times(0, 2)));
    assert_eq!(of(&[&[0]]).check(&closure, limit(2)), Err(PlanFault::Times(1, 0)));
}

#[test]
fn no_plan_changes_without_its_version() {
    let sizes: Vec<u64> = (0..120_u64).map(|id| (id * id * 7919) % 90_001 + 1).collect();
    let edges: Vec<(usize, usize)> = (1..120)
        .flat_map(|id| [(id, id / 2), (id, (id * 31 + 7) % id), (id, id - 1)])
        .filter(|edge| edge.0 % 5 > 0)
        .collect();
    let (before, after) = (closure_of(&edges, &sizes, &[]), closure_of(&edges, &sizes, &[0, 0, 0, 1, 0, 1, 2]));
    let mut all = String::new();
    for strategy in Strategy::ALL {
        let mut policy = policy(strategy, 20, &[&["g-*"]]);
        let first = plan(&before, &policy);
        policy.previous = vec![first.to_previous(&before)];
        all += &format!("{first:?}{:?}", plan(&after, &policy));
    }
    let digest = crate::digest::Digest::of(all.as_bytes()).to_hex();
    let plans = (VERSION, &digest[..16]);
    assert_eq!(plans, ("1", "30f2253f9fb49ea8"), "give plan::VERSION another value: others' plans are remembered");
}
