//! Tests of layers that no strategy has a say in: those that were made ahead, and what is volatile.

use super::*;

/// The paths of `closure` that have this number among `numbers`.
fn numbered(closure: &Closure, numbers: &[usize], number: usize) -> BTreeSet<StorePath> {
    let numbered = closure.infos().iter().zip(numbers).filter(|(_, other)| **other == number);
    numbered.map(|(info, _)| info.path.clone()).collect()
}

proptest! {
    #[test]
    fn what_is_volatile_is_above_all_others_and_changes_nothing_of_them(
        edges in vec((0..20_usize, 0..20_usize), 0..60),
        sizes in vec(0..100_000_000_u64, 20),
        most in 1..25_usize,
        old in vec(0..3_usize, 20),
        new in vec(0..3_usize, 20),
        volatile in vec(0..3_usize, 20),
    ) {
        // What is numbered 0 is stable.
        let new: Vec<usize> = new.iter().enumerate().map(|(id, new)| if volatile[id] == 0 { old[id] } else { *new }).collect();
        let (before, closure) = (closure_of(&edges, &sizes, &old), closure_of(&edges, &sizes, &new));
        let group = |closure: &Closure, number: usize| {
            Volatile { what: number.to_string(), paths: numbered(closure, &volatile, number) }
        };
        for strategy in Strategy::ALL {
            let with = |closure: &Closure| {
                Policy { volatile: vec![group(closure, 1), group(closure, 2)], ..policy(strategy, most, &[]) }
            };
            let (first, second) = (plan(&before, &with(&before)), plan(&closure, &with(&closure)));
            prop_assert_eq!(second.check(&closure, limit(most)), Ok(()));
            let groups: usize = (1..3).filter(|number| volatile.contains(number)).count();
            let is_mixed = volatile.contains(&0);
            let above = groups.min(most - usize::from(is_mixed));
            let (stable, others) = second.layers.split_at(second.layers.len() - above);
            if above > 0 {
                let all = |layers: &[PlannedLayer], is: fn(usize) -> bool| {
                    layers.iter().flat_map(|layer| &layer.paths).all(|id| is(volatile[*id]))
                };
                prop_assert!(all(stable, |group| group == 0) && all(others, |group| group > 0));
                let stable = |plan: &LayerPlan, closure| layers(closure, plan)[..stable.len()].to_vec();
                prop_assert_eq!(stable(&first, &before), stable(&second, &closure));
            }
            prop_assert_eq!(&history(&closure, &with(&closure)), &second.history);
        }
    }

    #[test]
    fn layers_that_were_made_ahead_stay_as_they_are_and_change_nothing_of_the_others(
        edges in vec((0..20_usize, 0..20_usize), 0..60),
        sizes in vec(0..100_000_000_u64, 20),
        most in 4..25_usize,
        made in vec(0..4_usize, 20),
    ) {
        let closure = closure_of(&edges, &sizes, &[]);
        // What is numbered 0 is in none; 3 is above all others.
        let of = |number| numbered(&closure, &made, number);
        let fixed: Vec<Fixed> = (1..3).map(|number| Fixed { what: number.to_string(), paths: of(number) }).collect();
        // One that is in another, too, is in the first.
        let all = Fixed { what: "all".to_owned(), paths: of(1).union(&of(2)).cloned().collect() };
        for strategy in Strategy::ALL {
            let volatile = vec![Volatile { what: "3".to_owned(), paths: of(3) }];
            let layers_ahead = fixed.iter().cloned().chain([all.clone()]).collect();
            let with = Policy { fixed: layers_ahead, volatile, ..policy(strategy, most, &[]) };
            let found = plan(&closure, &with);
            prop_assert_eq!(found.check(&closure, limit(most)), Ok(()));
            let fixed: Vec<&Fixed> = fixed.iter().filter(|fixed| !fixed.paths.is_empty()).collect();
            for (layer, fixed) in found.layers.iter().zip(&fixed) {
                let paths: BTreeSet<_> = layer.paths.iter().map(|id| closure.info(*id).path.clone()).collect();
                prop_assert_eq!(&paths, &fixed.paths);
            }
            let rest = closure.without(&all.paths.iter().collect());
            if !rest.is_empty() {
                let alone = Policy { fixed: Vec::new(), limit: limit(most - fixed.len()), ..with.clone() };
                prop_assert_eq!(&layers(&closure, &found)[fixed.len()..], &layers(&rest, &plan(&rest, &alone))[..]);
            }
            prop_assert_eq!(&history(&closure, &with), &found.history);
        }
    }
}
