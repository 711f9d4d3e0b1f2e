use crate::plan::tests::{limit, names, sized};
use crate::plan::{Policy, Previous, Strategy};

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
    // Which of the first pair each path is in; lest it be by chance, in all ways.
    for (pair, layers) in [
        ([1, 1, 0, 0], [["a", "b"], ["c", "d"]]),
        ([1, 0, 1, 0], [["a", "c"], ["b", "d"]]),
        ([1, 0, 0, 1], [["a", "d"], ["b", "c"]]),
    ] {
        // All change in the end, so that no layer stays as it was.
        let revision = |week: usize| pair.map(|first| if week == 6 { 6 } else { (week + first) / 2 });
        let weeks: Vec<_> = (0..7).map(revision).collect();
        let mut found = year(&paths, &[], &weeks.iter().map(|week| &week[..]).collect::<Vec<_>>(), 2);
        found.sort();
        assert_eq!(found, layers);
    }
}

#[test]
fn what_was_lately_counts_more_than_what_was_long_ago() {
    let paths = [("a", MB), ("b", MB), ("c", MB)];
    let (with_b, with_c): (&[&[usize]], &[&[usize]]) =
        (&[&[0, 0, 0], &[1, 1, 0], &[2, 2, 0]], &[&[3, 2, 3], &[4, 2, 4], &[5, 5, 5]]);
    assert!(year(&paths, &[], &[with_b, with_c].concat(), 2).contains(&vec!["a".to_owned(), "c".to_owned()]));
    let (with_c, with_b): (&[&[usize]], &[&[usize]]) =
        (&[&[0, 0, 0], &[1, 0, 1], &[2, 0, 2]], &[&[3, 3, 2], &[4, 4, 2], &[5, 5, 5]]);
    assert!(year(&paths, &[], &[with_c, with_b].concat(), 2).contains(&vec!["a".to_owned(), "b".to_owned()]));
}

#[test]
fn what_needs_a_package_that_changes_often_is_above_what_does_not() {
    let before = [("often", 9 * MB), ("never", 9 * MB)];
    let after = [before[0], before[1], ("new-of-often", 9 * MB), ("new-of-never", 9 * MB)];
    let mut policy = Policy::new(Strategy::Stable, limit(9));
    for week in 0..5 {
        let closure = sized(&before, &[], &[week, 0]);
        policy.previous = vec![crate::plan::plan(&closure, &policy).to_previous(&closure)];
    }
    let closure = sized(&after, &[(2, 0), (3, 1)], &[4, 0]);
    let plan = crate::plan::plan(&closure, &policy);
    assert_eq!(names(&closure, &plan)[2..], [["new-of-never"], ["new-of-often"]]);
}

#[test]
fn a_layer_that_can_stay_is_not_sent_again_to_make_room() {
    // But for being sent at once, "small" would be best with "big", which changes with it.
    let paths = [("small", MB), ("mid", 50 * MB), ("big", 100 * MB)];
    let edges = [(2, 0)];
    let (before, after) = (sized(&paths, &edges, &[0, 0, 0]), sized(&paths, &edges, &[0, 1, 0]));
    let base = |id: usize| before.info(id).path.to_basename();
    let big = (0..3).find(|id| before.info(*id).path.name() == "big").expect("there");
    let others = (0..3).filter(|id| *id != big).map(base).collect();
    let mut policy = Policy::new(Strategy::Stable, limit(2));
    policy.previous = vec![Previous { layers: vec![others, vec![base(big)]], ..Previous::default() }];
    let plan = crate::plan::plan(&after, &policy);
    assert_eq!(names(&after, &plan), [vec!["big"], vec!["small", "mid"]]);
    policy.previous.clear();
    assert_eq!(names(&after, &crate::plan::plan(&after, &policy)), [vec!["mid"], vec!["small", "big"]]);
}

#[test]
fn of_several_plans_the_last_one_stays() {
    let closure = sized(&[("a", 9 * MB), ("b", 9 * MB)], &[], &[]);
    let one = |most| crate::plan::plan(&closure, &Policy::new(Strategy::Stable, limit(most))).to_previous(&closure);
    let policy = Policy { previous: vec![one(1), one(2)], ..Policy::new(Strategy::Stable, limit(2)) };
    assert_eq!(names(&closure, &crate::plan::plan(&closure, &policy)), [["a"], ["b"]]);
}

#[test]
fn a_path_of_unknown_size_is_no_dust() {
    assert_eq!(year(&[("a", 0), ("b", 0)], &[], &[&[]], 9).len(), 2);
}

#[test]
fn no_more_is_remembered_than_there_is() {
    let paths = [("a", 9 * MB), ("b", 9 * MB), ("c", 9 * MB)];
    let mut policy = Policy::new(Strategy::Stable, limit(3));
    for week in 0..20 {
        let closure = sized(&paths, &[], &[week, week / 2, week / 3]);
        let plan = crate::plan::plan(&closure, &policy);
        let remembered: usize = plan.history.gone.iter().map(Vec::len).sum();
        assert!(remembered <= 3 && (week < 3 || remembered == 3), "{week}: {remembered}");
        policy.previous = vec![plan.to_previous(&closure)];
    }
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
    // Likewise where an older plan tells of it.
    policy.previous[0].history.gone.clear();
    assert_eq!(names(&first, &crate::plan::plan(&first, &policy)), [["b"], ["a"]]);
    let older = crate::plan::plan(&first, &Policy::new(Strategy::Stable, limit(1))).to_previous(&first);
    policy.previous.insert(0, older);
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
