//! What it takes to run a derivation's builder, and nothing else.
//!
//! Nix builds a derivation once the outputs that it names of its input derivations are valid, and
//! its sources. It does not look farther: what those were built from may be gone. So an image with
//! these, each with its closure, runs that one builder; with [`Depth::All`], the same is true of
//! all derivations that it was built from.
//!
//! Source: Nix's manual, "Store derivation", and `derivation-goal.cc` (`inputsRealised`). An output
//! that is itself a derivation is RFC 92's.

pub mod missing;
pub mod modulo;
pub mod store;

use std::collections::{BTreeMap, BTreeSet};

use crate::store::StorePath;
use crate::store::derivation::{InputDerivation, Recipe};
use missing::{Missing, What};

/// How far back an image can build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// The derivation itself
    #[default]
    Direct,
    /// And all that it is built from, down to the first sources
    All,
}

/// Derivations that can be looked at.
pub trait Recipes {
    /// What goes wrong beyond a derivation that is gone.
    type Error;

    /// What `derivation` is built from; `None` where nobody knows any more.
    ///
    /// # Errors
    /// When it can't be read.
    fn recipe(&self, derivation: &StorePath) -> Result<Option<Recipe>, Self::Error>;

    /// What an output of `derivation` has turned out to be which that does not tell before it is
    /// built.
    ///
    /// # Errors
    /// When that can't be found out.
    fn built(&self, derivation: &StorePath, output: &str) -> Result<Option<Built>, Self::Error>;

    /// Which of `paths` are there.
    ///
    /// # Errors
    /// When that can't be found out.
    fn valid(&self, paths: &[StorePath]) -> Result<BTreeSet<StorePath>, Self::Error>;
}

/// What an output has turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Its store path.
    pub path: StorePath,
    /// What Nix calls its realisation.
    pub id: String,
}

/// What it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The outputs of derivations that are asked for.
    pub outputs: BTreeSet<StorePath>,
    /// What Nix calls the realisations by which it knows some of them.
    pub realisations: BTreeSet<String>,
    /// The sources.
    pub sources: BTreeSet<StorePath>,
    /// Of it, what is not there.
    pub missing: BTreeSet<Missing>,
}

/// Finds out what it takes to build `derivation`.
///
/// # Errors
/// When derivations can't be looked at.
pub fn needs<R: Recipes>(recipes: &R, derivation: &StorePath, depth: Depth) -> Result<Needs, R::Error> {
    let mut search = Search { recipes, read: BTreeMap::new(), wanted: BTreeMap::new(), needs: Needs::default() };
    let mut queue = vec![derivation.clone()];
    let mut seen = BTreeSet::from([derivation.clone()]);
    while let Some(next) = queue.pop() {
        let Some(recipe) = search.recipe(&next)? else { continue };
        search.needs.sources.extend(recipe.sources.iter().cloned());
        for (input, wanted) in &recipe.inputs {
            for further in search.input(input, wanted)? {
                if depth == Depth::All && seen.insert(further.clone()) {
                    queue.push(further);
                }
            }
        }
    }
    search.finish()
}

struct Search<'a, R> {
    recipes: &'a R,
    read: BTreeMap<StorePath, Option<Recipe>>,
    /// Paths, and what they are.
    wanted: BTreeMap<StorePath, What>,
    needs: Needs,
}

impl<R: Recipes> Search<'_, R> {
    fn recipe(&mut self, derivation: &StorePath) -> Result<Option<Recipe>, R::Error> {
        if let Some(known) = self.read.get(derivation) {
            return Ok(known.clone());
        }
        let recipe = self.recipes.recipe(derivation)?;
        if recipe.is_none() {
            self.needs.missing.insert(Missing { path: Some(derivation.clone()), what: What::Derivation });
        }
        self.read.insert(derivation.clone(), recipe.clone());
        Ok(recipe)
    }

    /// Wants these outputs of `derivation`; tells which derivations they are of, those included
    /// that others made.
    fn input(&mut self, derivation: &StorePath, wanted: &InputDerivation) -> Result<Vec<StorePath>, R::Error> {
        let mut found = Vec::new();
        let mut queue = vec![(derivation.clone(), wanted)];
        while let Some((derivation, wanted)) = queue.pop() {
            let Some(recipe) = self.recipe(&derivation)? else { continue };
            for name in wanted.outputs() {
                self.output(&derivation, &recipe, name)?;
            }
            for (name, inner) in wanted.dynamic_outputs() {
                if let Some(made) = self.output(&derivation, &recipe, name)? {
                    queue.push((made, inner));
                }
            }
            found.push(derivation);
        }
        Ok(found)
    }

    fn output(&mut self, derivation: &StorePath, recipe: &Recipe, name: &str) -> Result<Option<StorePath>, R::Error> {
        let what = What::Output { derivation: derivation.clone(), name: name.to_owned() };
        let path = match recipe.outputs.get(name) {
            Some(Some(path)) => Some(path.clone()),
            Some(None) => self.recipes.built(derivation, name)?.map(|built| {
                self.needs.realisations.insert(built.id);
                built.path
            }),
            None => None,
        };
        match &path {
            Some(path) => drop(self.wanted.insert(path.clone(), what)),
            None => drop(self.needs.missing.insert(Missing { path: None, what })),
        }
        Ok(path)
    }

    /// Divides what is wanted into what is there and what is not.
    fn finish(mut self) -> Result<Needs, R::Error> {
        let paths: Vec<StorePath> = self.wanted.keys().chain(&self.needs.sources).cloned().collect();
        let valid = self.recipes.valid(&paths)?;
        for (path, what) in self.wanted {
            match valid.contains(&path) {
                true => drop(self.needs.outputs.insert(path)),
                false => drop(self.needs.missing.insert(Missing { path: Some(path), what })),
            }
        }
        let gone = self.needs.sources.iter().filter(|path| !valid.contains(path));
        self.needs.missing.extend(gone.map(|path| Missing { path: Some(path.clone()), what: What::Source }));
        self.needs.sources.retain(|path| valid.contains(path));
        Ok(self.needs)
    }
}

#[cfg(test)]
mod tests;
