//! Outputs whose siblings are lost.
//!
//! Where a cache has one output of a derivation, and another has to be built,
//! Nix 2.8 may end the build: "requires non-existent output" (tried with
//! `nix-build`: `a.out` is lost, `a.lib` is there, and a build needs `a.lib`).
//! With neither there, it builds both. So with one, the others go.
//!
//! What is lost, and of which derivation it was, is told by what is left of its
//! narinfo, or by the record of use; else by its name, which those that refer to
//! it have, or had. A derivation NAME has the outputs NAME and NAME-OUTPUT. Where
//! nothing tells of something lost, all go that are called NAME-OUTPUT; and where
//! anything was damaged, those whose NAME is not there. A sound cache has all
//! references, and so nothing lost.

use std::collections::{BTreeMap, HashSet};

use crate::store::StorePath;

/// A path that is in the cache.
#[derive(Clone, Copy, Debug)]
pub struct Present<'a> {
    /// The path.
    pub path: &'a StorePath,
    /// The derivation that it is an output of.
    pub deriver: Option<&'a StorePath>,
}

/// What a cache has lost.
#[derive(Clone, Debug, Default)]
pub struct Lost<'a> {
    /// The derivations of lost paths, as far as known.
    pub derivers: HashSet<StorePath>,
    /// What others refer to, or did, and is not there.
    pub missing: HashSet<&'a StorePath>,
    /// Whether more is lost, of which nothing is known.
    pub unknown: bool,
    /// Whether anything was damaged.
    pub damaged: bool,
}

/// The present paths that can't stay, each with the name of a lost sibling.
#[must_use]
pub fn bereft<'a>(present: &[Present<'a>], lost: &Lost<'_>) -> BTreeMap<&'a StorePath, String> {
    let names: HashSet<&str> = lost.missing.iter().map(|path| path.name()).collect();
    let mains: HashSet<&StorePath> = present
        .iter()
        .filter_map(|one| one.deriver.filter(|deriver| deriver.name().strip_suffix(".drv") == Some(one.path.name())))
        .collect();
    let lost = |one: &Present<'a>| {
        let deriver = one.deriver?;
        if lost.derivers.contains(deriver) {
            return Some(deriver.name().to_owned());
        }
        let derivation = deriver.name().strip_suffix(".drv")?;
        if one.path.name() != derivation && is_output(derivation, one.path.name()) {
            if lost.unknown {
                return Some("an unknown path".to_owned());
            }
            if lost.damaged && !mains.contains(deriver) {
                return Some(derivation.to_owned());
            }
        }
        let is_lost = |name: &&&str| **name != one.path.name() && is_output(derivation, name);
        names.iter().filter(is_lost).min().map(|name| (*name).to_owned())
    };
    present.iter().filter_map(|one| Some((one.path, lost(one)?))).collect()
}

/// Whether an output of the derivation `name` may be called `output`.
fn is_output(name: &str, output: &str) -> bool {
    match output.strip_prefix(name) {
        Some("") => true,
        Some(rest) => rest.strip_prefix('-').is_some_and(|rest| {
            rest.starts_with(|first: char| first.is_ascii_alphabetic())
                && rest.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        }),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::closure::tests::path;

    #[test]
    fn siblings_are_told_by_derivation_or_by_name() {
        let (drv, other) = (path('d', "x-1.drv"), path('f', "x-1.drv"));
        let (lib, twin, plain) = (path('a', "x-1-lib"), path('b', "x-1"), path('c', "x-1"));
        let present = [
            Present { path: &lib, deriver: Some(&drv) },
            Present { path: &twin, deriver: Some(&other) },
            Present { path: &plain, deriver: None },
        ];
        let found = |derivers: &[&StorePath], missing: &[&StorePath]| {
            let derivers = derivers.iter().map(|path| (*path).clone()).collect();
            let lost = Lost { derivers, missing: missing.iter().copied().collect(), ..Lost::default() };
            bereft(&present, &lost).into_keys().cloned().collect::<Vec<_>>()
        };
        assert!(found(&[], &[]).is_empty());
        assert_eq!(found(&[&drv], &[]), std::slice::from_ref(&lib));
        assert_eq!(found(&[], &[&path('g', "x-1")]), std::slice::from_ref(&lib));
        assert_eq!(found(&[], &[&path('g', "x-1-dev")]), [lib.clone(), twin.clone()]);
        let unknown = bereft(&present, &Lost { unknown: true, ..Lost::default() });
        assert_eq!(unknown.into_keys().collect::<Vec<_>>(), [&lib]);
        let damaged = Lost { damaged: true, ..Lost::default() };
        assert_eq!(bereft(&present, &damaged).into_keys().collect::<Vec<_>>(), [&lib]);
        let whole = [present[0], Present { path: &plain, deriver: Some(&drv) }];
        assert!(bereft(&whole, &damaged).is_empty());
        for name in ["x-1.2", "x-1-2", "x-1-a-b", "x", "y-1-lib"] {
            assert!(found(&[], &[&path('g', name)]).is_empty(), "{name}");
        }
    }
}
