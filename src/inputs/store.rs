//! Looks at derivations in a store: their files, or, when these are gone, what the database says
//! of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use super::missing::{Missing, MissingError, NoDerivation, Place, What};
use super::modulo::Text;
use super::{Built, Depth, Needs, Recipes, needs};
use crate::digest::Digest;
use crate::store::derivation::{InputDerivation, Recipe};
use crate::store::source::{Registered, Registrations};
use crate::store::{StoreLocation, StorePath};
use crate::tree::{StoreFiles, TreeError};

/// The derivations of a store.
pub struct StoreRecipes<'a> {
    files: &'a StoreFiles,
    registrations: &'a Registrations<'a>,
    /// Hashes modulo inputs, as far as they were needed; see [`Self::hash`].
    hashes: RefCell<BTreeMap<(StorePath, bool), Option<Digest>>>,
}

impl<'a> StoreRecipes<'a> {
    /// The derivations among `registrations`, whose files are among `files`.
    #[must_use]
    pub fn new(files: &'a StoreFiles, registrations: &'a Registrations<'a>) -> Self {
        Self { files, registrations, hashes: RefCell::default() }
    }

    fn location(&self) -> &StoreLocation {
        self.registrations.location()
    }

    /// The derivation that `path` is or was built from.
    ///
    /// # Errors
    /// When none is in the store.
    pub fn derivation_of(&self, path: &StorePath) -> anyhow::Result<StorePath> {
        if path.is_derivation() {
            return Ok(path.clone());
        }
        let derivers = self.registrations.derivers(path)?;
        let valid = self.registrations.valid(&derivers)?;
        let there: BTreeSet<&StorePath> = derivers.iter().filter(|derivation| valid.contains(derivation)).collect();
        if let Some(derivation) = derivers.iter().find(|derivation| valid.contains(derivation)) {
            self.warn_of_others(path, derivation, &there);
            return Ok(self.unresolved(path, derivation)?.unwrap_or_else(|| derivation.clone()));
        }
        let Some(gone) = derivers.into_iter().next() else {
            return Err(NoDerivation(self.location().print(path)).into());
        };
        Err(self.error(path, vec![Missing { path: Some(gone), what: What::Derivation }]).into())
    }

    fn warn_of_others(&self, path: &StorePath, taken: &StorePath, all: &BTreeSet<&StorePath>) {
        if all.len() > 1 {
            let names: Vec<String> = all.iter().map(|path| self.location().print(path)).collect();
            let (path, taken, names) = (self.location().print(path), self.location().print(taken), names.join(" "));
            tracing::warn!(
                "{path} is of several derivations: {names}; {taken} is taken, so name the one that your expression gives now"
            );
        }
    }

    /// The derivation that Nix made `resolved` of in order to build `path`, if it did: it replaces
    /// inputs that are content-addressed by what they turned out to be. An expression is
    /// evaluated to the former.
    fn unresolved(&self, path: &StorePath, resolved: &StorePath) -> anyhow::Result<Option<StorePath>> {
        if self.recipe(resolved)?.is_none_or(|recipe| !recipe.inputs.is_empty()) {
            return Ok(None);
        }
        let name = resolved.name().strip_suffix(".drv").unwrap_or_default();
        let mut found = Vec::new();
        for other in self.registrations.derivations_named(name)? {
            let Some(recipe) = self.recipe(&other)?.filter(|recipe| !recipe.inputs.is_empty()) else { continue };
            for (output, declared) in recipe.outputs {
                if declared.is_none() && self.built(&other, &output)?.is_some_and(|built| built.path == *path) {
                    found.push(other);
                    break;
                }
            }
        }
        // They are in the order in which they were registered.
        let taken = found.last().cloned();
        if let Some(taken) = &taken {
            self.warn_of_others(path, taken, &found.iter().collect());
        }
        Ok(taken)
    }

    /// What it takes to build `derivation`, all of it in the store.
    ///
    /// # Errors
    /// When something is not, or can't be read.
    pub fn needs(&self, derivation: &StorePath, depth: Depth) -> anyhow::Result<Needs> {
        let needs = needs(self, derivation, depth)?;
        if needs.missing.is_empty() {
            return Ok(needs);
        }
        Err(self.error(derivation, needs.missing.into_iter().collect()).into())
    }

    /// What comes of a derivation, whose own inputs do not matter.
    fn outputs(&self, derivation: &StorePath) -> anyhow::Result<BTreeMap<String, Option<StorePath>>> {
        if let Some(recipe) = self.read(derivation)? {
            return Ok(recipe.outputs);
        }
        let registered = self.registrations.derivation(derivation)?;
        let outputs = registered.map(|registered| registered.outputs).unwrap_or_default();
        Ok(outputs.into_iter().map(|(name, path)| (name, Some(path))).collect())
    }

    /// The hash of a derivation modulo its inputs, by which Nix knows what it has made: its own, or
    /// as an input of others. `None` where files of derivations are gone, or have a newer form.
    fn hash(&self, derivation: &StorePath, is_own: bool) -> anyhow::Result<Option<Digest>> {
        if let Some(known) = self.hashes.borrow().get(&(derivation.clone(), is_own)) {
            return Ok(*known);
        }
        let hash = self.compute_hash(derivation, is_own)?;
        self.hashes.borrow_mut().insert((derivation.clone(), is_own), hash);
        Ok(hash)
    }

    fn compute_hash(&self, derivation: &StorePath, is_own: bool) -> anyhow::Result<Option<Digest>> {
        let Some(bytes) = self.text(derivation)? else { return Ok(None) };
        let Some(text) = Text::parse(&bytes) else { return Ok(None) };
        if let Some(hash) = text.fixed() {
            return Ok(Some(hash));
        }
        let recipe = Recipe::parse(&bytes, derivation, &self.location().store_dir)?;
        let mut inputs: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
        for (input, wanted) in &recipe.inputs {
            let Some(hash) = self.hash(input, false)? else { return Ok(None) };
            inputs.entry(hash).or_default().extend(wanted.outputs().iter().cloned());
        }
        Ok(Some(text.hash(&inputs, is_own)))
    }

    /// What the file of a derivation says, if it is there.
    fn read(&self, derivation: &StorePath) -> anyhow::Result<Option<Recipe>> {
        let text = self.text(derivation)?;
        text.map(|text| Recipe::parse(&text, derivation, &self.location().store_dir)).transpose()
    }

    fn text(&self, derivation: &StorePath) -> anyhow::Result<Option<Vec<u8>>> {
        match self.files.read_whole(derivation.to_basename().as_bytes()) {
            Ok(text) => Ok(Some(text)),
            Err(TreeError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn error(&self, of: &StorePath, missing: Vec<Missing>) -> MissingError {
        let location = self.location();
        let place = match self.registrations.is_database() {
            true => Place::Store(location.root()),
            false => Place::List,
        };
        MissingError { of: location.print(of), store_dir: location.store_dir.clone(), place, missing }
    }

    /// What a derivation is built from whose file is gone. Which outputs it names of others,
    /// only the file told, so it is taken to be all that are there.
    fn guess(&self, derivation: &StorePath, registered: Registered) -> anyhow::Result<Recipe> {
        let mut recipe = Recipe {
            outputs: registered.outputs.into_iter().map(|(name, path)| (name, Some(path))).collect(),
            ..Recipe::default()
        };
        for reference in registered.references {
            if !reference.is_derivation() {
                recipe.sources.insert(reference);
                continue;
            }
            let outputs = self.outputs(&reference)?;
            let paths: Vec<StorePath> = outputs.values().flatten().cloned().collect();
            let valid = self.valid(&paths)?;
            let is_there = |path: &Option<StorePath>| path.as_ref().is_some_and(|path| valid.contains(path));
            let all = outputs.keys().cloned();
            let there: Vec<String> =
                outputs.iter().filter(|(_, path)| is_there(path)).map(|(name, _)| name.clone()).collect();
            let named = if there.is_empty() { all.collect() } else { there };
            recipe.inputs.insert(reference, InputDerivation::new(named));
        }
        tracing::warn!(
            "the file of {} is gone; by the database alone, all outputs of its inputs are taken for needed",
            self.location().print(derivation)
        );
        Ok(recipe)
    }
}

impl Recipes for StoreRecipes<'_> {
    type Error = anyhow::Error;

    fn recipe(&self, derivation: &StorePath) -> anyhow::Result<Option<Recipe>> {
        if let Some(recipe) = self.read(derivation)? {
            return Ok(Some(recipe));
        }
        let registered = self.registrations.derivation(derivation)?;
        registered.map(|registered| self.guess(derivation, registered)).transpose()
    }

    fn built(&self, derivation: &StorePath, output: &str) -> anyhow::Result<Option<Built>> {
        let Some(hash) = self.hash(derivation, true)? else { return Ok(None) };
        let id = format!("{hash}!{output}");
        Ok(self.registrations.realised(&id)?.map(|path| Built { path, id }))
    }

    fn valid(&self, paths: &[StorePath]) -> anyhow::Result<BTreeSet<StorePath>> {
        Ok(self.registrations.valid(paths)?)
    }
}
