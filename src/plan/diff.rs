//! What is different between two plans or images.

use std::collections::{BTreeMap, BTreeSet};

use super::history;
use super::saved::{SavedLayer, SavedPlan};
use crate::digest::Digest;
use crate::store::StorePath;

/// The layers of a plan or image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The layers, the lowest first.
    pub layers: Vec<LayoutLayer>,
}

/// A layer of a plan or image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutLayer {
    /// The base names of its store paths.
    pub paths: Vec<String>,
    /// What it is known by, where it has been made.
    pub digest: Option<Digest>,
    /// Its size in bytes: of the blob, or of the NARs.
    pub size: u64,
}

/// What is different.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Paths of packages that were not there, by base names.
    pub came: Vec<String>,
    /// Paths of packages that are no longer there.
    pub went: Vec<String>,
    /// Paths whose package has another name or version now: the old one, and the new.
    pub changed: Vec<(String, String)>,
    /// Paths of the same name that were built anew: the old one, and the new.
    pub rebuilt: Vec<(String, String)>,
    /// How many paths are the same.
    pub unchanged: usize,
    /// How many layers of the new one the old one has, too.
    pub layers_kept: usize,
    /// How many layers it has.
    pub layers: usize,
    /// The bytes of the layers that the old one has, too.
    pub bytes_kept: u64,
    /// The bytes of all others.
    pub bytes_to_send: u64,
}

impl From<&SavedPlan> for Layout {
    fn from(plan: &SavedPlan) -> Self {
        let layer = |layer: &SavedLayer| LayoutLayer { paths: layer.base_names(), digest: None, size: layer.size };
        Self { layers: plan.layers.iter().map(layer).collect() }
    }
}

impl Layout {
    /// Which of the layers `old` has, too: the same blob, or, where one of both is but
    /// planned, the same store paths.
    #[must_use]
    pub fn kept(&self, old: &Self) -> Vec<bool> {
        let digests: BTreeSet<Digest> = old.layers.iter().filter_map(|layer| layer.digest).collect();
        let planned: BTreeMap<BTreeSet<&String>, bool> =
            old.layers.iter().map(|layer| (layer.paths.iter().collect(), layer.digest.is_none())).collect();
        let is_kept = |layer: &LayoutLayer| match layer.digest {
            Some(digest) if digests.contains(&digest) => true,
            digest => {
                let known = planned.get(&layer.paths.iter().collect());
                !layer.paths.is_empty() && known.is_some_and(|is_planned| *is_planned || digest.is_none())
            }
        };
        self.layers.iter().map(is_kept).collect()
    }

    fn paths(&self) -> BTreeSet<StorePath> {
        let parse = |name: &String| StorePath::from_basename(name.as_bytes()).ok();
        self.layers.iter().flat_map(|layer| &layer.paths).filter_map(parse).collect()
    }
}

impl Difference {
    /// What is different between `old` and `new`.
    #[must_use]
    pub fn between(old: &Layout, new: &Layout) -> Self {
        let (old_paths, new_paths) = (old.paths(), new.paths());
        let old_paths: Vec<&StorePath> = old_paths.iter().collect();
        let new_paths: Vec<&StorePath> = new_paths.iter().collect();
        let before = history::predecessors(&old_paths, &new_paths);
        let mut difference = Self { layers: new.layers.len(), ..Self::default() };
        for (path, before) in new_paths.iter().zip(&before) {
            let pair = |old: &StorePath| (old.to_basename(), path.to_basename());
            match before.map(|place| old_paths[place]) {
                None => difference.came.push(path.to_basename()),
                Some(old) if old == *path => difference.unchanged += 1,
                Some(old) if old.name() == path.name() => difference.rebuilt.push(pair(old)),
                Some(old) => difference.changed.push(pair(old)),
            }
        }
        let followed: BTreeSet<usize> = before.into_iter().flatten().collect();
        let gone = (0..old_paths.len()).filter(|place| !followed.contains(place));
        difference.went = gone.map(|place| old_paths[place].to_basename()).collect();
        for (layer, is_kept) in new.layers.iter().zip(new.kept(old)) {
            if is_kept {
                difference.layers_kept += 1;
                difference.bytes_kept = difference.bytes_kept.saturating_add(layer.size);
            } else {
                difference.bytes_to_send = difference.bytes_to_send.saturating_add(layer.size);
            }
        }
        let by_name = |base: &String| base.get(33..).map(str::to_owned);
        difference.came.sort_by_key(by_name);
        difference.went.sort_by_key(by_name);
        difference.changed.sort_by_key(|(_, new)| by_name(new));
        difference.rebuilt.sort_by_key(|(_, new)| by_name(new));
        difference
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(letter: char, name: &str) -> String {
        crate::store::closure::tests::path(letter, name).to_basename()
    }

    fn layer(paths: &[&String], digest: Option<&[u8]>, size: u64) -> LayoutLayer {
        let paths = paths.iter().map(|path| (*path).clone()).collect();
        LayoutLayer { paths, digest: digest.map(Digest::of), size }
    }

    #[test]
    fn each_path_is_told_of_once() {
        let (a, b, c, d) = (base('a', "a-1"), base('b', "b-1"), base('c', "c-1"), base('d', "d-1"));
        let (b2, c2, e) = (base('f', "b-1"), base('c', "c-2"), base('g', "e-1"));
        let old = Layout { layers: vec![layer(&[&a], None, 1), layer(&[&b, &c, &d], None, 2)] };
        let new = Layout { layers: vec![layer(&[&a], None, 1), layer(&[&b2, &c2], None, 4), layer(&[&e], None, 8)] };
        let difference = Difference::between(&old, &new);
        let expected = Difference {
            came: vec![e],
            went: vec![d],
            changed: vec![(c, c2)],
            rebuilt: vec![(b, b2)],
            unchanged: 1,
            layers_kept: 1,
            layers: 3,
            bytes_kept: 1,
            bytes_to_send: 12,
        };
        assert_eq!(difference, expected);
    }

    #[test]
    fn a_made_layer_is_kept_by_its_digest_and_a_planned_one_by_its_paths() {
        let (a, b) = (base('a', "a"), base('b', "b"));
        let made = |bytes| Layout { layers: vec![layer(&[&a, &b], Some(bytes), 1), layer(&[], Some(b"system"), 1)] };
        let planned = Layout { layers: vec![layer(&[&b, &a], None, 1), layer(&[], None, 1)] };
        assert_eq!(made(b"x").kept(&made(b"x")), [true, true]);
        assert_eq!(made(b"x").kept(&made(b"y")), [false, true]);
        assert_eq!(made(b"x").kept(&planned), [true, false]);
        assert_eq!(planned.kept(&made(b"x")), [true, false]);
    }
}
