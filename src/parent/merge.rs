//! The registrations of an image with a parent: its own and all of the parent's.

use std::collections::BTreeSet;

use super::Parent;
use crate::store::{Closure, ClosureError, PathInfo, StorePath};

/// Why an image and its parent can't share a database.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// One path, two contents: whichever of them the image had, the other's rows
    /// would be wrong.
    #[error(
        "{path} has the NAR hash {ours} here, and {theirs} in the parent {parent}: one of them was changed, or it was built twice with different results; build the parent again from this store"
    )]
    Differs {
        /// The store path.
        path: String,
        /// Its hash in this store.
        ours: String,
        /// Its hash in the parent.
        theirs: String,
        /// The parent.
        parent: String,
    },
    /// The parent's own rows, together with ours, refer to nothing.
    #[error("the store paths of the parent {parent} are no closure: {source}")]
    Open {
        /// The parent.
        parent: String,
        /// What is missing.
        source: ClosureError,
    },
}

impl Parent {
    /// The store paths that it has.
    #[must_use]
    pub fn paths(&self) -> BTreeSet<&StorePath> {
        self.registrations.iter().map(|info| &info.path).collect()
    }

    /// `ours`, and all that this parent has.
    ///
    /// # Errors
    /// When they do not agree.
    pub fn merged_with(&self, ours: &Closure) -> Result<Closure, MergeError> {
        let mut infos = ours.infos().to_vec();
        for theirs in &self.registrations {
            let Some(id) = ours.find(&theirs.path) else {
                infos.push(theirs.clone());
                continue;
            };
            if infos[id].nar_hash != theirs.nar_hash {
                return Err(MergeError::Differs {
                    path: ours.print(id),
                    ours: format!("sha256:{}", infos[id].nar_hash.to_hex()),
                    theirs: format!("sha256:{}", theirs.nar_hash.to_hex()),
                    parent: self.name.clone(),
                });
            }
            complete(&mut infos[id], theirs);
        }
        let open = |source| MergeError::Open { parent: self.name.clone(), source };
        Closure::new(ours.store_dir(), infos, None).map_err(open)
    }
}

/// Adds what only the parent's row says.
fn complete(ours: &mut PathInfo, theirs: &PathInfo) {
    if ours.nar_size == 0 {
        ours.nar_size = theirs.nar_size;
    }
    if ours.deriver.is_none() {
        ours.deriver.clone_from(&theirs.deriver);
    }
    if ours.ca.is_none() {
        ours.ca.clone_from(&theirs.ca);
    }
    for (name, depends_on) in &theirs.realisations {
        ours.realisations.entry(name.clone()).or_insert_with(|| depends_on.clone());
    }
    if ours.signatures.is_empty() {
        ours.signatures.clone_from(&theirs.signatures);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parent::Root;
    use crate::store::closure::tests::{info, path};
    use crate::store::{NarHash, StoreDir};

    fn parent(registrations: Vec<PathInfo>) -> Parent {
        let config = serde_json::json!({});
        Parent { name: "oci:tools".to_owned(), config, layers: Vec::new(), root: Root::default(), registrations }
    }

    fn closure(infos: Vec<PathInfo>) -> Closure {
        Closure::new(&StoreDir::default(), infos, None).expect("closed")
    }

    #[test]
    fn rows_of_both_are_there_and_ours_are_preferred() {
        let (a, b, c) = (path('a', "a"), path('b', "b"), path('c', "c"));
        let mut ours = info(&b, &[]);
        ours.deriver = Some(path('d', "ours.drv"));
        let mut theirs = info(&b, &[]);
        theirs.deriver = Some(path('d', "theirs.drv"));
        theirs.ca = Some("fixed:x".to_owned());
        theirs.signatures = vec!["key:signature".to_owned()];
        theirs.realisations = [("sha256:0!out".to_owned(), BTreeSet::new())].into();
        let merged = parent(vec![info(&c, &[&b]), theirs]).merged_with(&closure(vec![info(&a, &[&b]), ours]));
        let merged = merged.expect("they agree");
        assert_eq!(merged.infos().iter().map(|info| &info.path).collect::<Vec<_>>(), [&a, &b, &c]);
        let both = merged.info(1);
        assert_eq!(both.deriver, Some(path('d', "ours.drv")));
        assert_eq!((both.ca.as_deref(), both.signatures.len()), (Some("fixed:x"), 1));
        assert_eq!(both.realisations.len(), 1);
        assert_eq!(merged.unreferenced(), [0, 2]);
    }

    #[test]
    fn a_path_with_another_hash_is_named_with_both_and_the_image() {
        let a = path('a', "a");
        let mut other = info(&a, &[]);
        other.nar_hash = NarHash::new([9; 32]);
        let error =
            parent(vec![other]).merged_with(&closure(vec![info(&a, &[])])).expect_err("they differ").to_string();
        for part in [&a.to_basename(), &"07".repeat(32), &"09".repeat(32), &"oci:tools".to_owned()] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn a_parent_that_lacks_a_path_is_named() {
        let (a, b) = (path('a', "a"), path('b', "b"));
        let merged = parent(vec![info(&a, &[&b])]).merged_with(&closure(Vec::new()));
        let error = format!("{:#}", anyhow::Error::from(merged.expect_err("b is missing")));
        assert!(error.contains("oci:tools") && error.contains("-b"), "{error}");
        // What the parent lacks, the image may bring.
        assert!(parent(vec![info(&a, &[&b])]).merged_with(&closure(vec![info(&b, &[])])).is_ok());
    }
}
