//! What goes from a cache, and in which order.
//!
//! A path is used whenever something that refers to it is. So its time is the
//! newest of its own and those of all that need it, and is never older than
//! theirs. Paths go by that time, oldest first, and among those of one time what
//! is needed goes after what needs it: wherever one stops, no path that stays
//! needs one that is gone.
//!
//! Outputs of one derivation go together, since Nix 2.8 may fail where only some
//! are there; see [`siblings`](crate::cache::check).

use std::collections::{HashMap, HashSet};

/// One path of a cache.
#[derive(Clone, Debug, Default)]
pub struct Item {
    /// The hash part of its name.
    pub hash: String,
    /// The hash parts of what it refers to.
    pub references: Vec<String>,
    /// The derivation that it is an output of.
    pub deriver: Option<String>,
    /// When it was last used by itself, in seconds since the epoch.
    pub used: u64,
    /// How large its narinfo and its listing are, in bytes.
    pub size: u64,
    /// Its NAR's file, which others may share, and how large that is, in bytes.
    pub nar: Option<(String, u64)>,
}

/// How much may stay.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// How large all paths may be together, in bytes.
    pub size: Option<u64>,
    /// What was last used before that goes; in seconds since the epoch.
    pub oldest: Option<u64>,
    /// The hash parts of what stays in any case, with all that it needs.
    pub keep: Vec<String>,
}

/// The items that go, in the order in which they go.
#[must_use]
pub fn plan(items: &[Item], limits: &Limits) -> Vec<usize> {
    let siblings = siblings(items);
    let times = times(items, &limits.keep, &siblings);
    let (ranks, referrers) = ranks(items);
    let mut order: Vec<usize> = (0..items.len()).filter(|at| times[*at] != Time::Kept).collect();
    order.sort_by_key(|at| (times[*at], ranks[*at]));
    let mut users: HashMap<&str, u64> = HashMap::new();
    let mut size: u64 = 0;
    for item in items {
        size += item.size;
        if let Some((nar, bytes)) = &item.nar {
            let users = users.entry(nar).or_default();
            size += if *users == 0 { *bytes } else { 0 };
            *users += 1;
        }
    }
    let is_old = |at: usize| matches!((times[at], limits.oldest), (Time::Used(time), Some(oldest)) if time < oldest);
    let mut gone = HashSet::new();
    for at in &order {
        if !is_old(*at) && limits.size.is_none_or(|limit| size <= limit) {
            break;
        }
        // With it go its siblings, and what needs these.
        let mut pending = vec![*at];
        while let Some(at) = pending.pop() {
            if !gone.insert(at) {
                continue;
            }
            size -= items[at].size;
            if let Some((nar, bytes)) = &items[at].nar
                && let Some(users) = users.get_mut(&nar[..])
            {
                *users -= 1;
                size -= if *users == 0 { *bytes } else { 0 };
            }
            pending.extend(siblings.of(&items[at]).chain(&referrers[at]));
        }
    }
    order.retain(|at| gone.contains(at));
    order
}

/// Items by their derivations.
struct Siblings<'a>(HashMap<&'a str, Vec<usize>>);

impl Siblings<'_> {
    /// The outputs of the derivation that made `item`.
    fn of(&self, item: &Item) -> impl Iterator<Item = &usize> {
        item.deriver.as_ref().and_then(|deriver| self.0.get(&deriver[..])).into_iter().flatten()
    }
}

fn siblings(items: &[Item]) -> Siblings<'_> {
    let mut siblings: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, item) in items.iter().enumerate() {
        if let Some(deriver) = &item.deriver {
            siblings.entry(deriver).or_default().push(at);
        }
    }
    Siblings(siblings)
}

/// When something was last needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Time {
    Used(u64),
    /// It stays in any case.
    Kept,
}

/// When each item was last used, by itself or by what needs it.
fn times(items: &[Item], keep: &[String], siblings: &Siblings<'_>) -> Vec<Time> {
    let places: HashMap<&str, usize> = items.iter().enumerate().map(|(at, item)| (&item.hash[..], at)).collect();
    let mut times: Vec<Option<Time>> = vec![None; items.len()];
    let mut newest: Vec<usize> = (0..items.len()).collect();
    newest.sort_by_key(|at| std::cmp::Reverse(items[*at].used));
    let kept = keep.iter().filter_map(|hash| Some((*places.get(&hash[..])?, Time::Kept)));
    // The first to come to an item is the newest that needs it.
    for (start, time) in kept.chain(newest.into_iter().map(|at| (at, Time::Used(items[at].used)))) {
        let mut pending = vec![start];
        while let Some(at) = pending.pop() {
            if times[at].is_none() {
                times[at] = Some(time);
                pending.extend(items[at].references.iter().filter_map(|hash| places.get(&hash[..])));
                pending.extend(siblings.of(&items[at]));
            }
        }
    }
    times.into_iter().zip(items).map(|(time, item)| time.unwrap_or(Time::Used(item.used))).collect()
}

/// A rank for each item that is lower than those of all that it needs. Circles,
/// which Nix never makes, come last. And for each, what needs it.
fn ranks(items: &[Item]) -> (Vec<usize>, Vec<Vec<usize>>) {
    let places: HashMap<&str, usize> = items.iter().enumerate().map(|(at, item)| (&item.hash[..], at)).collect();
    let needs = |at: usize| {
        let needed: HashSet<usize> = items[at]
            .references
            .iter()
            .filter_map(|hash| places.get(&hash[..]).copied())
            .filter(|other| *other != at)
            .collect();
        needed
    };
    let mut referrers = vec![Vec::new(); items.len()];
    for at in 0..items.len() {
        needs(at).into_iter().for_each(|needed| referrers[needed].push(at));
    }
    let mut ranks = vec![usize::MAX; items.len()];
    let mut counts: Vec<usize> = referrers.iter().map(Vec::len).collect();
    let mut free: Vec<usize> = (0..items.len()).filter(|at| counts[*at] == 0).collect();
    let mut next = 0;
    while let Some(at) = free.pop() {
        ranks[at] = next;
        next += 1;
        for needed in needs(at) {
            counts[needed] -= 1;
            if counts[needed] == 0 {
                free.push(needed);
            }
        }
    }
    (ranks, referrers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item(hash: usize, references: &[usize], used: u64) -> Item {
        Item {
            hash: hash.to_string(),
            references: references.iter().map(ToString::to_string).collect(),
            deriver: None,
            used,
            size: 1,
            nar: Some((format!("nar{}", hash / 2), 10)),
        }
    }

    #[test]
    fn what_was_used_least_recently_goes_first() {
        let items = [item(0, &[0], 5), item(2, &[], 50), item(4, &[0], 10), item(6, &[2], 7)];
        let limits = |size, oldest| Limits { size, oldest, keep: Vec::new() };
        assert_eq!(plan(&items, &limits(None, None)), [0_usize; 0]);
        assert_eq!(plan(&items, &limits(Some(44), None)), [0_usize; 0]);
        assert_eq!(plan(&items, &limits(Some(43), None)), [3]);
        assert_eq!(plan(&items, &limits(None, Some(10))), [3]);
        assert_eq!(plan(&items, &limits(None, Some(11))), [3, 2, 0]);
        assert_eq!(plan(&items, &limits(Some(0), None)), [3, 2, 0, 1]);
        let keep = Limits { size: Some(0), oldest: None, keep: vec!["4".to_owned(), "none".to_owned()] };
        assert_eq!(plan(&items, &keep), [3, 1]);
    }

    proptest! {
        #[test]
        fn what_stays_has_all_it_needs_and_fits(
            paths in proptest::collection::vec((0_u64..9, proptest::collection::vec(0_usize..60, 0..4)), 1..60),
            size in proptest::option::of(0_u64..700),
            oldest in proptest::option::of(0_u64..10),
            kept in 0_usize..60,
        ) {
            let items: Vec<Item> = paths.iter().enumerate().map(|(at, (used, references))| {
                let deriver = (at % 3 > 0).then(|| (at / 3).to_string());
                // No circles but those to oneself.
                let references: Vec<usize> = references.iter().filter(|other| **other <= at).copied().collect();
                Item { deriver, ..item(at, &references, *used) }
            }).collect();
            let limits = Limits { size, oldest, keep: vec![kept.to_string()] };
            let gone: HashSet<usize> = plan(&items, &limits).into_iter().collect();
            prop_assert!(!gone.contains(&kept));
            let mut left: u64 = 0;
            let mut nars = HashSet::new();
            for (at, item) in items.iter().enumerate().filter(|(at, _)| !gone.contains(at)) {
                for reference in &item.references {
                    prop_assert!(!gone.contains(&reference.parse::<usize>().expect("a number")), "{at} needs {reference}");
                }
                for (other, sibling) in items.iter().enumerate().filter(|_| item.deriver.is_some()) {
                    prop_assert!(item.deriver != sibling.deriver || !gone.contains(&other), "{at} and {other}");
                }
                left += 1 + if nars.insert(item.nar.clone()) { 10 } else { 0 };
            }
            let keeps_nothing = kept >= items.len();
            if let Some(size) = size.filter(|_| keeps_nothing) {
                prop_assert!(left <= size);
            }
        }
    }
}
