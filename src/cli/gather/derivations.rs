//! Derivations and sources that no list of registrations tells of. In a Nix build they are there, as
//! inputs, but `exportReferencesGraph` can't list them without all that they build.

use std::collections::BTreeSet;

use crate::cli::paths;
use crate::store::addressed::{self, text};
use crate::store::derivation::Recipe;
use crate::store::source::Registrations;
use crate::store::{PathInfo, StorePath};
use crate::tree::StoreFiles;

/// The registrations of `derivations`, and of all that they and their inputs refer to, as far as
/// `registrations` lack them, and they are in the store. What is missing, others tell of.
///
/// # Errors
/// When a file can't be read, or is no derivation.
pub fn unregistered(
    registrations: &Registrations<'_>,
    files: &StoreFiles,
    derivations: Vec<StorePath>,
) -> anyhow::Result<Vec<PathInfo>> {
    let store_dir = &registrations.location().store_dir;
    let mut found = Vec::new();
    let mut seen: BTreeSet<StorePath> = derivations.iter().cloned().collect();
    let mut queue = derivations;
    while let Some(path) = queue.pop() {
        let is_known = !registrations.valid(std::slice::from_ref(&path))?.is_empty();
        if is_known || files.check(&path).is_err() {
            continue;
        }
        let references = references(registrations, files, &path)?;
        queue.extend(references.iter().filter(|path| seen.insert((*path).clone())).cloned());
        found.extend(addressed::registration(files, store_dir, &path, references)?);
    }
    Ok(found)
}

/// What `path` refers to: of a derivation, its inputs; of a text, what it names.
fn references(
    registrations: &Registrations<'_>,
    files: &StoreFiles,
    path: &StorePath,
) -> anyhow::Result<Vec<StorePath>> {
    let store_dir = &registrations.location().store_dir;
    let Some(text) = text(files, path)? else { return Ok(Vec::new()) };
    if path.is_derivation() {
        let recipe = Recipe::parse(&text, path, store_dir)?;
        return Ok(recipe.inputs.into_keys().chain(recipe.sources).collect());
    }
    let mentions = paths::mentions(store_dir, &String::from_utf8_lossy(&text));
    let named = mentions.iter().filter_map(|mention| store_dir.parse_path(mention.text.as_bytes()).ok());
    Ok(named.filter(|path| files.check(path).is_ok()).collect())
}
