use crate::plan::tests::{limit, names, sized};
use crate::plan::{Policy, Strategy};

const MB: u64 = 1_000_000;

/// The layers of a sequence of revisions of the same paths, planned one after the
/// other.
fn year(paths: &[(&str, u64)], edges: &[(usize, usize)], revisions: &[&[usize]], most: usize) -> Vec<Vec<String>> {
    let mut policy = Policy::new(Strategy::Stable, limit(most));
    let mut last = Vec::new();
    for revision in revisions {
        let closure = sized(paths, edges, revision);
        let plan = crate::plan::plan(&closure, &policy);
        last = names(&closure, &plan).into_iter().map(|layer| layer.into_iter().map(str::to_owned).collect()).collect();
        policy.previous = vec![plan.to_previous(&closure)];
    }
    last
}

#[test]
fn what_has_changed_together_goes_together() {
    let paths = [("a", MB), ("b", MB), ("c", MB), ("d", MB)];
    let together: &[&[usize]] = &[&[0, 0, 0, 0], &[1, 0, 1, 0], &[1, 2, 1, 2], &[3, 2, 3, 2], &[3, 4, 3, 4]];
    assert_eq!(year(&paths, &[], together, 2), [["a", "c"], ["b", "d"]]);
}

#[test]
fn without_history_what_is_needed_by_much_is_not_with_what_needs_much() {
    // A chain, whose end changes all of it.
    let paths = [("base", 10 * MB), ("lib", 10 * MB), ("tool", 10 * MB), ("app", 10 * MB)];
    let layers = year(&paths, &[(1, 0), (2, 1), (3, 2)], &[&[]], 2);
    assert!(layers.contains(&vec!["tool".to_owned(), "app".to_owned()]), "{layers:?}");
}

#[test]
fn dust_is_no_layer_of_its_own() {
    let paths = [("a", 100), ("b", 200), ("c", 300), ("big", 50 * MB)];
    let layers = year(&paths, &[], &[&[]], 100);
    assert_eq!(layers.len(), 2, "{layers:?}");
}

#[test]
fn a_catch_all_of_large_paths_is_avoided() {
    let paths: Vec<(&str, u64)> = ["a", "b", "c", "d", "e", "f"].into_iter().map(|name| (name, 20 * MB)).collect();
    let layers = year(&paths, &[], &[&[]], 3);
    assert!(layers.iter().all(|layer| layer.len() == 2), "{layers:?}");
}

#[test]
fn what_stays_is_at_the_bottom() {
    let paths = [("a", 9 * MB), ("b", 9 * MB), ("c", 9 * MB)];
    assert_eq!(year(&paths, &[], &[&[0, 0, 0], &[1, 0, 0]], 3), [["b"], ["c"], ["a"]]);
}

#[test]
fn what_is_taken_back_comes_back_as_it_was() {
    let paths = [("a", 9 * MB), ("b", 9 * MB)];
    let first = sized(&paths, &[], &[0, 0]);
    let changed = sized(&paths, &[], &[1, 0]);
    let mut policy = Policy::new(Strategy::Stable, limit(1));
    policy.previous = vec![crate::plan::plan(&first, &policy).to_previous(&first)];
    // The layer with both goes, and each has its own.
    policy.limit = limit(2);
    let second = crate::plan::plan(&changed, &policy);
    assert_eq!(names(&changed, &second), [["b"], ["a"]]);
    policy.previous = vec![second.to_previous(&changed)];
    assert_eq!(names(&first, &crate::plan::plan(&first, &policy)), [["a", "b"]]);
}

#[test]
fn more_packages_than_bits_are_planned_too() {
    let names: Vec<String> = (0..1500).map(|id| format!("p{id}-1")).collect();
    let paths: Vec<(&str, u64)> = names.iter().zip(0..).map(|(name, id)| (name.as_str(), (id * id) % 7919)).collect();
    let edges: Vec<(usize, usize)> = (0..4500).map(|edge| (edge % 1500, (edge * 7) % (edge % 1500 + 1))).collect();
    let closure = sized(&paths, &edges, &[]);
    let plan = crate::plan::plan(&closure, &Policy::new(Strategy::Stable, limit(60)));
    assert_eq!(plan.check(&closure, limit(60)), Ok(()));
}
