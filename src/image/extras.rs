//! What an image has beside its contents so that something can be built in it, and why.
//!
//! Garbage collectors' roots in the image say why each path is there: one folder for each reason,
//! below [`FOLDER`], with a link to each path. `stowage why` reads them again.

use std::collections::{BTreeMap, BTreeSet};

use super::made::Made;
use super::trees::Tree;
use crate::plan::{Fixed, Volatile};
use crate::store::{NarHash, StorePath};

/// The folder of those roots.
pub const FOLDER: &str = "nix/var/nix/gcroots/stowage";

/// What an image has beside its contents.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// Source trees, by the names that expressions find them by.
    pub trees: BTreeMap<String, Tree>,
    /// What was asked for, by the reason.
    pub roots: BTreeMap<Reason, BTreeSet<StorePath>>,
    /// The contents whose files are copied to `/`, with the hashes of their NARs: they are no store
    /// paths of the image.
    pub mutable: BTreeMap<StorePath, NarHash>,
    /// What was made for `/`.
    pub made: Made,
    /// The store path with stowage and its hook.
    pub program: Option<StorePath>,
    /// Layers that were made ahead, which come first.
    pub fixed: Vec<Fixed>,
    /// What is put into layers of its own, above all other store paths.
    pub volatile: Vec<Volatile>,
}

/// Why a store path is in an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It is among the contents.
    Contents,
    /// This derivation, by its base name, takes it from another.
    InputOf(String),
    /// What this one takes was built from it, or from what was.
    BeforeInput(String),
    /// This derivation takes it as it is.
    SourceOf(String),
    /// It is the derivation that can be built.
    Derivation,
    /// It is the source tree of that name.
    Tree(String),
    /// A layer that was made ahead was asked to have it.
    Layer,
    /// Files that were made or copied for `/` refer to it.
    Root,
}

impl Extras {
    /// The roots as links: their paths, and the store paths that they lead to.
    pub fn links(&self) -> impl Iterator<Item = (String, &StorePath)> {
        let roots = self.roots.iter().flat_map(|(reason, paths)| paths.iter().map(move |path| (reason, path)));
        let roots = roots.map(|(reason, path)| (format!("{}/{}", reason.folder(), path.to_basename()), path));
        let trees = self.trees.iter().map(|(name, tree)| (Reason::Tree(name.clone()).folder(), &tree.path));
        roots.chain(trees)
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.trees.is_empty() && self.roots.is_empty()
    }

    /// The paths that these are, each once.
    #[must_use]
    pub fn paths(&self) -> BTreeSet<StorePath> {
        self.links().map(|(_, path)| path.clone()).collect()
    }
}

impl Reason {
    /// The folder of its roots; of a tree, the link itself.
    fn folder(&self) -> String {
        match self {
            Self::Contents => format!("{FOLDER}/contents"),
            Self::InputOf(derivation) => format!("{FOLDER}/inputs-of/{derivation}"),
            Self::BeforeInput(derivation) => format!("{FOLDER}/before-inputs-of/{derivation}"),
            Self::SourceOf(derivation) => format!("{FOLDER}/sources-of/{derivation}"),
            Self::Derivation => format!("{FOLDER}/derivations"),
            Self::Layer => format!("{FOLDER}/layers"),
            Self::Root => format!("{FOLDER}/root"),
            Self::Tree(name) => format!("{FOLDER}/trees/{name}"),
        }
    }

    /// The reason that the root with this path in the image stands for.
    #[must_use]
    pub fn of_link(path: &str) -> Option<Self> {
        let mut parts = path.strip_prefix(FOLDER)?.strip_prefix('/')?.split('/');
        let (kind, name, rest) = (parts.next()?, parts.next()?, parts.next());
        match (kind, rest, parts.next()) {
            ("contents", None, None) => Some(Self::Contents),
            ("before-inputs-of", Some(_), None) => Some(Self::BeforeInput(name.to_owned())),
            ("inputs-of", Some(_), None) => Some(Self::InputOf(name.to_owned())),
            ("sources-of", Some(_), None) => Some(Self::SourceOf(name.to_owned())),
            ("derivations", None, None) => Some(Self::Derivation),
            ("layers", None, None) => Some(Self::Layer),
            ("root", None, None) => Some(Self::Root),
            ("trees", None, None) => Some(Self::Tree(name.to_owned())),
            _ => None,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Contents => formatter.write_str("it is among the contents"),
            Self::InputOf(derivation) => write!(formatter, "an input of {derivation}"),
            Self::BeforeInput(derivation) => {
                write!(formatter, "takes part in building the inputs of {derivation}")
            }
            Self::SourceOf(derivation) => write!(formatter, "a source of {derivation}"),
            Self::Derivation => formatter.write_str("a derivation to build"),
            Self::Tree(name) => write!(formatter, "the source tree <{name}>"),
            Self::Layer => formatter.write_str("a layer of its own has it"),
            Self::Root => formatter.write_str("files at / refer to it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::closure::tests::path;

    #[test]
    fn roots_tell_their_reasons() {
        let (a, b) = (path('a', "a"), path('b', "b.drv"));
        let of = b.to_basename();
        let reasons = [
            Reason::Contents,
            Reason::InputOf(of.clone()),
            Reason::BeforeInput(of.clone()),
            Reason::SourceOf(of),
            Reason::Derivation,
            Reason::Layer,
            Reason::Root,
        ];
        let tree = Tree { path: a.clone(), nar_hash: crate::store::NarHash::new([7; 32]), is_flake: true };
        let extras = Extras {
            roots: reasons.iter().map(|reason| (reason.clone(), [a.clone()].into())).collect(),
            trees: [("nixpkgs".to_owned(), tree)].into(),
            ..Extras::default()
        };
        let read: Vec<Reason> = extras.links().filter_map(|(link, _)| Reason::of_link(&link)).collect();
        assert_eq!(read, reasons.into_iter().chain([Reason::Tree("nixpkgs".to_owned())]).collect::<Vec<_>>());
        assert_eq!(extras.paths(), [a.clone()].into());
        for other in [&*format!("{FOLDER}/{}", a.to_basename()), "nix/var/nix/gcroots/profiles", FOLDER] {
            assert_eq!(Reason::of_link(other), None, "{other}");
        }
    }
}
