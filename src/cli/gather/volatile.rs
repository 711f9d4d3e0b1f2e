//! What of an image changes so often that it goes into layers of its own.

use std::collections::BTreeSet;

use crate::image::extras::{Extras, Reason};
use crate::plan::Volatile;
use crate::store::{Closure, NodeId, StorePath};

/// Each source tree, and then derivations with the sources that only these refer to, unless a
/// source refers to something in turn. Where nothing is known to be `stable`, derivations are like
/// all else.
pub fn volatile(closure: &Closure, stable: Option<&[StorePath]>, extras: &Extras) -> Vec<Volatile> {
    let of = |is_wanted: fn(&Reason) -> bool| {
        extras.roots.iter().filter(move |(reason, _)| is_wanted(reason)).flat_map(|(_, paths)| paths)
    };
    let inputs = of(|reason| matches!(reason, Reason::InputOf(_) | Reason::BeforeInput(_)));
    let inputs = inputs.filter(|path| !path.is_derivation());
    let roots: Vec<StorePath> = stable.unwrap_or_default().iter().chain(inputs).cloned().collect();
    let reached: BTreeSet<NodeId> = closure.reachable(&roots).into_iter().collect();
    let is_volatile = |id: &NodeId| !reached.contains(id);
    let mut volatile: Vec<Volatile> = Vec::new();
    let mut trees = BTreeSet::new();
    for (name, tree) in &extras.trees {
        if let Some(id) = closure.find(&tree.path).filter(is_volatile) {
            volatile.push(Volatile { what: format!("the source tree <{name}>"), paths: [tree.path.clone()].into() });
            trees.insert(id);
        }
    }
    if stable.is_some() {
        let derivations: BTreeSet<NodeId> =
            (0..closure.len()).filter(|id| closure.info(*id).path.is_derivation()).collect();
        // What a derivation refers to is its sources, and the derivations of its inputs.
        let sources = derivations.iter().flat_map(|id| closure.references(*id)).copied();
        let direct = of(|reason| matches!(reason, Reason::SourceOf(_))).filter_map(|path| closure.find(path));
        let sources = sources.chain(direct).filter(|id| closure.references(*id).is_empty());
        let all: BTreeSet<NodeId> = sources.chain(derivations.iter().copied()).collect();
        let all = all.into_iter().filter(is_volatile).filter(|id| !trees.contains(id));
        let paths = all.map(|id| closure.info(id).path.clone()).collect();
        volatile.push(Volatile { what: "derivations and their sources".to_owned(), paths });
    }
    volatile.retain(|volatile| !volatile.paths.is_empty());
    volatile
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::trees::Tree;
    use crate::store::closure::tests::{info, path};
    use crate::store::{NarHash, StoreDir};

    #[test]
    fn what_sources_refer_to_and_what_others_take_is_not_volatile() {
        let names = ["tool", "input", "source", "large", "below", "tree", "both"];
        let letters = ['a', 'b', 'c', 'd', 'f', 'g', 'h'];
        let [tool, input, source, large, below, tree, both] = std::array::from_fn(|at| path(letters[at], names[at]));
        let (drv, other) = (path('i', "x.drv"), path('j', "y.drv"));
        let infos = vec![
            info(&tool, &[]),
            info(&input, &[&both]),
            info(&source, &[]),
            info(&large, &[&below]),
            info(&below, &[]),
            info(&tree, &[]),
            info(&both, &[]),
            info(&drv, &[&other, &source, &large, &both]),
            info(&other, &[]),
        ];
        let closure = Closure::new(&StoreDir::default(), infos, None).expect("closed");
        let roots = [
            (Reason::InputOf(drv.to_basename()), [input].into()),
            (Reason::SourceOf(drv.to_basename()), [source.clone(), large, both].into()),
            (Reason::Derivation, [drv.clone()].into()),
        ];
        let a_tree = Tree { path: tree.clone(), nar_hash: NarHash::new([0; 32]), is_flake: false };
        let trees = [("nixpkgs".to_owned(), a_tree)].into();
        let extras = Extras { trees, roots: roots.into(), ..Extras::default() };
        let found = |stable: Option<&[StorePath]>| -> Vec<Vec<StorePath>> {
            volatile(&closure, stable, &extras).into_iter().map(|one| one.paths.into_iter().collect()).collect()
        };
        assert_eq!(found(Some(&[tool])), [vec![tree.clone()], vec![source.clone(), drv, other]]);
        assert_eq!(found(Some(&[tree.clone(), source])).len(), 1);
        assert_eq!(found(None), [vec![tree]]);
    }
}
