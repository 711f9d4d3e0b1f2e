//! Registrations closed under references, as a graph of small numbers.

use std::collections::{BTreeSet, HashMap};

use super::{PathInfo, StoreDir, StorePath};

/// A path's place in its closure: paths are numbered in the order of their
/// base names.
pub type NodeId = usize;

/// Registrations closed under references, with the roots that asked for them.
#[derive(Debug)]
pub struct Closure {
    store_dir: StoreDir,
    infos: Vec<PathInfo>,
    references: Vec<Vec<NodeId>>,
    roots: Vec<NodeId>,
}

/// Why registrations are not closed under references.
#[derive(Debug, thiserror::Error)]
pub enum ClosureError {
    /// A root that no registration is about: its closure would be empty.
    #[error("{0} is not among the registrations given; add it to what made them, e.g. to closureInfo's rootPaths")]
    UnknownRoot(String),
    /// A reference that no registration is about: the image would be broken.
    #[error(
        "{path} refers to {reference}, which is not among the registrations; the list is cut off, or was not made of a whole closure"
    )]
    UnknownReference {
        /// The path that refers.
        path: String,
        /// The path that is missing.
        reference: String,
    },
    /// Two registrations of one path that do not agree.
    #[error("{0} is registered twice, with different hashes, sizes or references")]
    Contradiction(String),
}

impl Closure {
    /// What `roots` reach among `infos`; all of `infos` where `roots` is `None`.
    ///
    /// # Errors
    /// When a root or a reference is unknown, or two registrations disagree.
    pub fn new(store_dir: &StoreDir, infos: Vec<PathInfo>, roots: Option<&[StorePath]>) -> Result<Self, ClosureError> {
        let infos = unique(store_dir, infos)?;
        let all = Self::link(store_dir.clone(), infos)?;
        let Some(roots) = roots else {
            return Ok(all);
        };
        let mut wanted = roots
            .iter()
            .map(|root| all.find(root).ok_or_else(|| ClosureError::UnknownRoot(store_dir.render_path(root))))
            .collect::<Result<Vec<_>, _>>()?;
        wanted.sort_unstable();
        wanted.dedup();
        Ok(all.restrict(&wanted))
    }

    /// Gives numbers to sorted registrations and their references.
    fn link(store_dir: StoreDir, infos: Vec<PathInfo>) -> Result<Self, ClosureError> {
        let ids: HashMap<&StorePath, NodeId> = infos.iter().map(|info| &info.path).zip(0..).collect();
        let references = infos
            .iter()
            .map(|info| {
                let known = |reference| {
                    ids.get(reference).copied().ok_or_else(|| ClosureError::UnknownReference {
                        path: store_dir.render_path(&info.path),
                        reference: store_dir.render_path(reference),
                    })
                };
                info.references.iter().map(known).collect()
            })
            .collect::<Result<Vec<Vec<NodeId>>, _>>()?;
        let roots = (0..infos.len()).collect();
        Ok(Self { store_dir, infos, references, roots })
    }

    /// Which paths `roots` reach.
    fn reached_by(&self, roots: &[NodeId]) -> Vec<bool> {
        let mut reached = vec![false; self.infos.len()];
        let mut queue = roots.to_vec();
        while let Some(id) = queue.pop() {
            if !std::mem::replace(&mut reached[id], true) {
                queue.extend(&self.references[id]);
            }
        }
        reached
    }

    /// The paths that those of `roots` reach which are in the closure, in order.
    #[must_use]
    pub fn reachable(&self, roots: &[StorePath]) -> Vec<NodeId> {
        let roots: Vec<NodeId> = roots.iter().filter_map(|root| self.find(root)).collect();
        let reached = self.reached_by(&roots);
        (0..self.len()).filter(|id| reached[*id]).collect()
    }

    /// The part of this closure that `roots` reach.
    fn restrict(self, roots: &[NodeId]) -> Self {
        let reached = self.reached_by(roots);
        let mut renumbered = vec![0; self.infos.len()];
        for (new, old) in (0..self.infos.len()).filter(|id| reached[*id]).enumerate() {
            renumbered[old] = new;
        }

        Self {
            store_dir: self.store_dir,
            roots: roots.iter().map(|id| renumbered[*id]).collect(),
            references: self
                .references
                .into_iter()
                .enumerate()
                .filter(|(id, _)| reached[*id])
                .map(|(_, references)| references.into_iter().map(|id| renumbered[id]).collect())
                .collect(),
            infos: self.infos.into_iter().enumerate().filter(|(id, _)| reached[*id]).map(|(_, info)| info).collect(),
        }
    }

    /// The part of this closure that is none of `paths`, which may then refer to
    /// paths that are not in it: as a graph it is closed, since it has no edges to
    /// `paths`, but its registrations name them as before.
    #[must_use]
    pub fn without(&self, paths: &BTreeSet<&StorePath>) -> Self {
        let kept: Vec<NodeId> = (0..self.len()).filter(|id| !paths.contains(&self.infos[*id].path)).collect();
        let renumbered: HashMap<NodeId, NodeId> = kept.iter().copied().zip(0..).collect();
        let renumber = |ids: &[NodeId]| ids.iter().filter_map(|id| renumbered.get(id).copied()).collect::<Vec<_>>();
        Self {
            store_dir: self.store_dir.clone(),
            infos: kept.iter().map(|id| self.infos[*id].clone()).collect(),
            references: kept.iter().map(|id| renumber(&self.references[*id])).collect(),
            roots: renumber(&self.roots),
        }
    }

    /// The store dir that the paths are printed with.
    #[must_use]
    pub fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    /// The path with the number `id`, as Nix prints it.
    #[must_use]
    pub fn print(&self, id: NodeId) -> String {
        self.store_dir.render_path(&self.infos[id].path)
    }

    /// Gives the path with the number `id` its content address.
    pub fn set_content_address(&mut self, id: NodeId, ca: String) {
        self.infos[id].ca = Some(ca);
    }

    /// Has Nix know the path with the number `id` as the realisation `name`, which depends on others.
    pub fn add_realisation(&mut self, id: NodeId, name: String, depends_on: BTreeSet<String>) {
        self.infos[id].realisations.insert(name, depends_on);
    }

    /// How many paths there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.infos.len()
    }

    /// Whether there is no path at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.infos.is_empty()
    }

    /// The registrations, in the order of their base names.
    #[must_use]
    pub fn infos(&self) -> &[PathInfo] {
        &self.infos
    }

    /// The registration with the number `id`.
    #[must_use]
    pub fn info(&self, id: NodeId) -> &PathInfo {
        &self.infos[id]
    }

    /// What the path with the number `id` refers to, itself perhaps included.
    #[must_use]
    pub fn references(&self, id: NodeId) -> &[NodeId] {
        &self.references[id]
    }

    /// The paths that were asked for.
    #[must_use]
    pub fn roots(&self) -> &[NodeId] {
        &self.roots
    }

    /// The number of `path`, if it is in the closure.
    #[must_use]
    pub fn find(&self, path: &StorePath) -> Option<NodeId> {
        self.infos.binary_search_by(|info| info.path.cmp(path)).ok()
    }

    /// The paths that no other path refers to; self references do not count.
    #[must_use]
    pub fn unreferenced(&self) -> Vec<NodeId> {
        let mut referenced = vec![false; self.len()];
        for (id, references) in self.references.iter().enumerate() {
            for reference in references.iter().filter(|reference| **reference != id) {
                referenced[*reference] = true;
            }
        }
        (0..self.len()).filter(|id| !referenced[*id]).collect()
    }

    /// What `starts` reach, each path after all that it refers to; a reference that closes
    /// a cycle is passed over.
    #[must_use]
    pub fn references_first(&self, starts: impl IntoIterator<Item = NodeId>) -> Vec<NodeId> {
        let mut order = Vec::with_capacity(self.len());
        let mut seen = vec![false; self.len()];
        let mut stack: Vec<(NodeId, usize)> = Vec::new();
        for start in starts {
            if !std::mem::replace(&mut seen[start], true) {
                stack.push((start, 0));
            }
            while let Some((id, next)) = stack.pop() {
                let Some(reference) = self.references[id].get(next) else {
                    order.push(id);
                    continue;
                };
                stack.push((id, next + 1));
                if !std::mem::replace(&mut seen[*reference], true) {
                    stack.push((*reference, 0));
                }
            }
        }
        order
    }

    /// The sum of the NAR sizes, in bytes.
    #[must_use]
    pub fn nar_size(&self) -> u64 {
        self.infos.iter().fold(0, |sum, info| sum.saturating_add(info.nar_size))
    }
}

/// The registrations sorted, each path once.
fn unique(store_dir: &StoreDir, mut infos: Vec<PathInfo>) -> Result<Vec<PathInfo>, ClosureError> {
    infos.sort_by(|one, other| one.path.cmp(&other.path));
    for pair in infos.windows(2) {
        let same = |one: &PathInfo, other: &PathInfo| {
            one.nar_hash == other.nar_hash && one.nar_size == other.nar_size && one.references == other.references
        };
        if pair[0].path == pair[1].path && !same(&pair[0], &pair[1]) {
            return Err(ClosureError::Contradiction(store_dir.render_path(&pair[0].path)));
        }
    }
    infos.dedup_by(|one, other| one.path == other.path);
    Ok(infos)
}

#[cfg(test)]
#[allow(missing_docs, reason = "only tests see it")]
pub mod tests {
    use super::*;
    use crate::store::NarHash;

    /// A store path whose hash part is `letter` thirty-two times.
    pub fn path(letter: char, name: &str) -> StorePath {
        let digits: String = std::iter::repeat_n(letter, 32).collect();
        StorePath::from_basename(format!("{digits}-{name}").as_bytes()).expect("a valid store path")
    }

    /// A registration of 100 bytes.
    pub fn info(path: &StorePath, references: &[&StorePath]) -> PathInfo {
        let references = references.iter().map(|path| (*path).clone()).collect();
        PathInfo::new(path.clone(), NarHash::new([7; 32]), 100, references)
    }

    #[test]
    fn only_what_the_roots_reach_is_kept() {
        let (a, b, c) = (path('a', "a"), path('b', "b"), path('c', "c"));
        let infos = vec![info(&c, &[&c]), info(&a, &[&b]), info(&b, &[])];
        let closure = Closure::new(&StoreDir::default(), infos, Some(std::slice::from_ref(&a))).expect("closed");
        assert_eq!(closure.infos().iter().map(|info| &info.path).collect::<Vec<_>>(), [&a, &b]);
        assert_eq!(closure.references(0), [1]);
        assert_eq!(closure.unreferenced(), [0]);
    }

    #[test]
    fn references_come_first_but_in_a_cycle() {
        let (a, b, c, d) = (path('a', "a"), path('b', "b"), path('c', "c"), path('d', "d"));
        let infos = vec![info(&a, &[&a, &b, &c]), info(&b, &[&d]), info(&c, &[&d]), info(&d, &[&b])];
        let closure = Closure::new(&StoreDir::default(), infos, None).expect("closed");
        assert_eq!(closure.references_first(0..4), [3, 1, 2, 0]);
        assert_eq!(closure.references_first([2]), [1, 3, 2]);
        assert_eq!(closure.references_first([]), [0; 0]);
    }

    #[test]
    fn what_is_left_without_some_paths_keeps_its_own_references() {
        let (a, b, c, d) = (path('a', "a"), path('b', "b"), path('c', "c"), path('d', "d"));
        let infos = vec![info(&a, &[&a, &b, &c]), info(&b, &[&d]), info(&c, &[&d]), info(&d, &[])];
        let closure = Closure::new(&StoreDir::default(), infos, Some(&[a.clone(), b.clone()])).expect("closed");
        let left = closure.without(&[&b].into());
        assert_eq!(left.infos().iter().map(|info| &info.path).collect::<Vec<_>>(), [&a, &c, &d]);
        assert_eq!((left.references(0), left.references(1), left.roots()), (&[0, 1][..], &[2][..], &[0][..]));
        assert_eq!(left.info(0).references, [a.clone(), b.clone(), c.clone()]);
        assert_eq!(left.unreferenced(), [0]);
        assert!(closure.without(&[&a, &b, &c, &d].into()).is_empty());
        assert_eq!(closure.without(&BTreeSet::new()).len(), 4);
    }

    #[test]
    fn an_unknown_reference_is_named() {
        let (a, b) = (path('a', "a"), path('b', "b"));
        let error = Closure::new(&StoreDir::default(), vec![info(&a, &[&b])], None).expect_err("not closed");
        assert!(error.to_string().contains("-b, which is not among"), "{error}");
    }

    #[test]
    fn a_self_reference_does_not_make_a_path_referenced() {
        let a = path('a', "a");
        let closure = Closure::new(&StoreDir::default(), vec![info(&a, &[&a])], None).expect("closed");
        assert_eq!(closure.unreferenced(), [0]);
    }

    #[test]
    fn registrations_that_contradict_each_other_are_refused() {
        let a = path('a', "a");
        let mut other = info(&a, &[]);
        other.nar_size = 5;
        let error = Closure::new(&StoreDir::default(), vec![info(&a, &[]), other], None).expect_err("contradiction");
        assert!(error.to_string().contains("registered twice"), "{error}");
    }
}
