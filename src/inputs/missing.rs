//! What a derivation needs and a store has not, by name, with the command that brings it.

use std::fmt;
use std::path::PathBuf;

use crate::store::{StoreDir, StorePath};

/// Something that is needed, and not there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    /// Its store path, if that is known.
    pub path: Option<StorePath>,
    /// What it is.
    pub what: What,
}

/// What is needed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A derivation.
    Derivation,
    /// An output of one.
    Output {
        /// The derivation.
        derivation: StorePath,
        /// The output's name, e.g. `out`.
        name: String,
    },
    /// A source: a file or folder that was copied into the store.
    Source,
}

/// A path of which nobody knows how it came to be.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} is of no derivation that is registered; name the derivation itself, which `nix-instantiate` of its expression prints"
)]
pub struct NoDerivation(pub String);

/// Where something is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this system's store, or in that below some root.
    Store(Option<PathBuf>),
    /// Among registrations from a file.
    List,
}

/// What is not in a store that has to be in an image.
#[derive(Debug, thiserror::Error)]
pub struct MissingError {
    /// What needs it, printed.
    pub of: String,
    /// The store's name for itself.
    pub store_dir: StoreDir,
    /// Where it was looked for.
    pub place: Place,
    /// What is missing, at least one.
    pub missing: Vec<Missing>,
}

impl fmt::Display for MissingError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let print = |path: &StorePath| self.store_dir.render_path(path);
        let are = if self.missing.len() == 1 { "1 path is" } else { &format!("{} paths are", self.missing.len()) };
        let problem = match self.place {
            Place::Store(_) => "not valid in this store",
            Place::List => "not among the registrations",
        };
        write!(formatter, "{are} needed to build {}, and {problem}:", self.of)?;
        for Missing { path, what } in &self.missing {
            let path = path.as_ref().map_or("a path that is known once it is built".to_owned(), &print);
            match what {
                What::Derivation => write!(formatter, "\n  {path} (a derivation)")?,
                What::Output { derivation, name } => {
                    write!(formatter, "\n  {path} (output {name} of {})", print(derivation))?;
                }
                What::Source => write!(formatter, "\n  {path} (a source)")?,
            }
        }
        write!(formatter, "\n{}", self.advice())
    }
}

impl MissingError {
    /// What brings all of it.
    fn advice(&self) -> String {
        let Place::Store(root) = &self.place else {
            return "have the list made of these, too: for Nix's exportReferencesGraph, or with `nix-store --query --requisites`".to_owned();
        };
        let print = |path: &StorePath| self.store_dir.render_path(path);
        let outputs = self.missing.iter().filter_map(|missing| match &missing.what {
            What::Output { derivation, name } => Some(format!("'{}!{name}'", print(derivation))),
            What::Derivation | What::Source => None,
        });
        let outputs: Vec<String> = outputs.collect();
        let mut advice = Vec::new();
        if outputs.len() < self.missing.len() {
            // A derivation comes with its sources, as these are what it refers to.
            advice.push(
                "evaluate the expression again, as with nix-instantiate, or fetch derivations from where they are: nix copy --derivation --from".to_owned(),
            );
        }
        if !outputs.is_empty() {
            let store = root.as_ref().map_or_else(String::new, |root| format!(" --store {}", root.display()));
            advice.push(format!("build or fetch with: nix-store{store} --realise {}", outputs.join(" ")));
        }
        advice.join("\n")
    }
}
