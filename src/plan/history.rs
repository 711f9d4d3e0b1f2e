//! How packages have changed from revision to revision, as far as plans have
//! carried it on.
//!
//! A plan of a new revision is made knowing the plan of the one before, which
//! tells for each path in which of the last 64 revisions it was another one than
//! in the revision before that. So nothing is remembered but what is given.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::{Closure, NodeId, StorePath};

/// The number of revisions that are remembered.
pub const REVISIONS: u32 = 64;

/// What is known of the changes of one path's package. Bit 0 is the last
/// revision, bit 1 the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Track {
    /// In which revisions the store path was another.
    pub changed: u64,
    /// In which of them that was the package's own doing: its version is another,
    /// or nothing that it refers to has changed.
    pub own: u64,
    /// For how many revisions the package is known.
    pub age: u32,
}

/// What is known of the changes of all paths of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// How many changes of revision are known, at most [`REVISIONS`].
    pub revisions: u32,
    /// The tracks by base names of store paths, one for each path of the revision.
    pub tracks: BTreeMap<String, Track>,
    /// Layers of earlier revisions with paths that are not there any more, the newest
    /// first: a change that is taken back brings them back. Together they have no more
    /// paths than the revision has.
    pub gone: Vec<Vec<String>>,
}

/// The plan of an earlier revision, as its layers tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Previous {
    /// The base names of the store paths of each layer, the lowest first.
    pub layers: Vec<Vec<String>>,
    /// What it knew. Without tracks, the layers tell what paths there were.
    pub history: History,
}

impl Previous {
    /// The store paths of the revision, with what is known of each. Names that are
    /// none are passed over.
    fn tracks(&self) -> Vec<(StorePath, Track)> {
        let parse = |name: &String| StorePath::from_basename(name.as_bytes()).ok();
        if self.history.tracks.is_empty() {
            let names: BTreeSet<&String> = self.layers.iter().flatten().collect();
            return names.into_iter().filter_map(|name| Some((parse(name)?, Track::default()))).collect();
        }
        let tracks = self.history.tracks.iter();
        tracks.filter_map(|(name, track)| Some((parse(name)?, *track))).collect()
    }
}

impl History {
    /// What is known of `closure`, which comes after all of `previous`.
    #[must_use]
    pub fn of(closure: &Closure, previous: &[Previous]) -> Self {
        let mut known: Option<(Vec<(StorePath, Track)>, u32)> = None;
        for revision in previous {
            let tracks = revision.tracks();
            known = Some(match known {
                // It knows of itself what came before it.
                Some(_) if revision.history.revisions > 0 => (tracks, revision.history.revisions),
                Some((older, revisions)) => follow(&older, revisions, &Revision::of_names(&tracks)),
                None => (tracks, revision.history.revisions),
            });
        }
        let (tracks, revisions) = match known {
            None => (closure.infos().iter().map(|info| (info.path.clone(), Track::default())).collect(), 0),
            Some((older, revisions)) => follow(&older, revisions, &Revision::of_closure(closure)),
        };
        let tracks: BTreeMap<String, Track> =
            tracks.into_iter().map(|(path, track)| (path.to_basename(), track)).collect();
        let gone = previous.last().map(|last| gone(last, &tracks)).unwrap_or_default();
        Self { revisions, tracks, gone }
    }

    /// The track of a path.
    #[must_use]
    pub fn track(&self, path: &StorePath) -> Track {
        self.tracks.get(&path.to_basename()).copied().unwrap_or_default()
    }
}

/// The layers that `last` has or remembers, and that are not whole among `paths`, as
/// many as may be remembered.
fn gone(last: &Previous, paths: &BTreeMap<String, Track>) -> Vec<Vec<String>> {
    let mut left = paths.len();
    let is_gone = |layer: &&Vec<String>| layer.iter().any(|path| !paths.contains_key(path));
    let fits = |layer: &&Vec<String>| {
        let fits = layer.len() <= left;
        left = if fits { left - layer.len() } else { 0 };
        fits
    };
    last.layers.iter().chain(&last.history.gone).filter(is_gone).take_while(fits).cloned().collect()
}

/// The paths of a revision, and their references where they are known.
struct Revision<'a> {
    paths: Vec<&'a StorePath>,
    references: Option<&'a Closure>,
}

impl<'a> Revision<'a> {
    fn of_closure(closure: &'a Closure) -> Self {
        Self { paths: closure.infos().iter().map(|info| &info.path).collect(), references: Some(closure) }
    }

    fn of_names(tracks: &'a [(StorePath, Track)]) -> Self {
        Self { paths: tracks.iter().map(|(path, _)| path).collect(), references: None }
    }

    /// Whether something else that the path with that number refers to `is_new`.
    fn has_new_reference(&self, id: NodeId, is_new: &[bool]) -> bool {
        self.references.is_some_and(|closure| {
            closure.references(id).iter().any(|reference| *reference != id && is_new[*reference])
        })
    }
}

/// The tracks of the revision `new`, which comes after that of `old`. A revision
/// of the same paths is the same revision.
fn follow(old: &[(StorePath, Track)], revisions: u32, new: &Revision<'_>) -> (Vec<(StorePath, Track)>, u32) {
    let before = predecessors(&old.iter().map(|(path, _)| path).collect::<Vec<_>>(), &new.paths);
    let is_new = |index: usize| before[index].is_none_or(|old_index| old[old_index].0 != *new.paths[index]);
    let is_new: Vec<bool> = (0..new.paths.len()).map(is_new).collect();
    if old.len() == new.paths.len() && !is_new.contains(&true) {
        return (old.to_vec(), revisions);
    }
    let track = |index: usize| match before[index] {
        None => Track::default(),
        Some(old_index) => {
            let (path, track) = &old[old_index];
            let changed = is_new[index];
            let own = changed && (path.name() != new.paths[index].name() || !new.has_new_reference(index, &is_new));
            Track {
                changed: track.changed << 1 | u64::from(changed),
                own: track.own << 1 | u64::from(own),
                age: track.age.saturating_add(1).min(REVISIONS),
            }
        }
    };
    let tracks = (0..new.paths.len()).map(|index| (new.paths[index].clone(), track(index))).collect();
    (tracks, revisions.saturating_add(1).min(REVISIONS))
}

/// For each of `new` the place in `old` of the same path, or else of the one that
/// is most like it and not in `new`: of the same name; of the same name but for
/// digits; of the same package.
#[must_use]
pub fn predecessors(old: &[&StorePath], new: &[&StorePath]) -> Vec<Option<usize>> {
    let places: BTreeMap<&StorePath, usize> = old.iter().copied().zip(0..).collect();
    let mut before: Vec<Option<usize>> = new.iter().map(|path| places.get(*path).copied()).collect();
    let mut is_taken = vec![false; old.len()];
    for place in before.iter().flatten() {
        is_taken[*place] = true;
    }
    let likeness: [fn(&str) -> String; 3] =
        [str::to_owned, |name| name.chars().filter(|letter| !letter.is_ascii_digit()).collect(), package];
    for key in likeness {
        let mut left: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (place, path) in old.iter().enumerate().filter(|(place, _)| !is_taken[*place]) {
            left.entry(key(path.name())).or_default().push(place);
        }
        // Where there are several, the lowest follows the lowest.
        for places in left.values_mut() {
            places.sort_by_key(|place| (old[*place].name(), *place));
            places.reverse();
        }
        let mut without: Vec<usize> = (0..new.len()).filter(|index| before[*index].is_none()).collect();
        without.sort_by_key(|index| (new[*index].name(), *index));
        for index in without {
            before[index] = left.get_mut(&key(new[index].name())).and_then(Vec::pop);
            before[index].into_iter().for_each(|place| is_taken[place] = true);
        }
    }
    before
}

/// The names that nixpkgs gives to outputs beside `out`.
const OUTPUTS: [&str; 16] = [
    "bin", "data", "debug", "dev", "devdoc", "dist", "doc", "getent", "info", "lib", "libgcc", "man", "out", "py",
    "static", "terminfo",
];

/// What stays of a store path's name from version to version: `glibc-bin` of
/// `glibc-2.38-66-bin`.
///
/// As Nix's `builtins.parseDrvName` has it, the version begins at the first `-`
/// that no letter follows.
#[must_use]
pub fn package(name: &str) -> String {
    let begins_version = |at: &usize| name.as_bytes().get(at + 1).is_some_and(|byte| !byte.is_ascii_alphabetic());
    let Some(at) = name.match_indices('-').map(|(at, _)| at).find(begins_version) else {
        return name.to_owned();
    };
    match name.rsplit_once('-') {
        Some((before, output)) if before.len() >= at && OUTPUTS.contains(&output) => {
            format!("{}-{output}", &name[..at])
        }
        _ if name.ends_with(".drv") => format!("{}.drv", &name[..at]),
        _ => name[..at].to_owned(),
    }
}
