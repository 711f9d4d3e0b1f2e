//! Whether the realisations of a cache are such that Nix can read them.
//!
//! They say what came of content-addressed derivations. Nix 2.8 ends a build
//! that needs one it can't read, and one that depends on another that is not
//! there (tried with `nix-build` and `ca-derivations`). Logs (`log/`) and
//! listings (`*.ls`) are only ever shown, so they may be damaged.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::fault::Fault;
use crate::store::StorePath;

/// How the names of such files end.
pub const SUFFIX: &str = ".doi";

/// What a file of `realisations/` holds.
#[derive(Debug, Deserialize)]
pub struct Realisation {
    id: String,
    #[serde(rename = "outPath")]
    out_path: String,
    #[serde(default)]
    signatures: Vec<String>,
    #[serde(default, rename = "dependentRealisations")]
    dependencies: BTreeMap<String, String>,
}

impl Realisation {
    /// The path that came of it.
    #[must_use]
    pub fn out_path(&self) -> Option<StorePath> {
        StorePath::from_basename(self.out_path.as_bytes()).ok()
    }
}

/// Judges the file `name`.
///
/// # Errors
/// When Nix can't read it.
pub fn judge(name: &str, contents: &[u8]) -> Result<Realisation, Fault> {
    if contents.is_empty() {
        return Err(Fault::Empty);
    }
    let realisation: Realisation =
        serde_json::from_slice(contents).map_err(|error| Fault::malformed(error.to_string()))?;
    if name.strip_suffix(SUFFIX) != Some(&realisation.id[..]) {
        return Err(Fault::Misnamed { expected: format!("{}{SUFFIX}", realisation.id) });
    }
    let paths = std::iter::once(&realisation.out_path).chain(realisation.dependencies.values());
    if let Some(path) = paths.into_iter().find(|path| StorePath::from_basename(path.as_bytes()).is_err()) {
        return Err(Fault::malformed(format!("{path:?} is no store path")));
    }
    if realisation.signatures.iter().any(|signature| !signature.contains(':')) {
        return Err(Fault::malformed("it has a signature that is none"));
    }
    Ok(realisation)
}

/// The realisations that depend on others that are not among them, near or far.
#[must_use]
pub fn incomplete(realisations: &[Realisation]) -> Vec<(String, Fault)> {
    let mut sound: BTreeMap<&str, &Realisation> = realisations.iter().map(|one| (&one.id[..], one)).collect();
    let mut faults = Vec::new();
    loop {
        let missing = |(id, path): (&String, &String)| {
            let is_there = sound.get(&id[..]).is_some_and(|one| one.out_path == *path);
            (!is_there).then(|| id.clone())
        };
        let broken: Vec<(&str, String)> =
            sound.values().filter_map(|one| Some((&one.id[..], one.dependencies.iter().find_map(missing)?))).collect();
        if broken.is_empty() {
            return faults;
        }
        let gone: BTreeSet<&str> = broken.iter().map(|(id, _)| *id).collect();
        faults.extend(broken.into_iter().map(|(id, missing)| (format!("{id}{SUFFIX}"), Fault::Dependency(missing))));
        sound.retain(|id, _| !gone.contains(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: &str = "s51yw9l6ybmc8nqhahgs30w2cbblbhxv-n1";

    fn text(id: &str, dependency: &str) -> String {
        let dependencies = if dependency.is_empty() { String::new() } else { format!("\"{dependency}\":\"{OUT}\"") };
        format!(r#"{{"dependentRealisations":{{{dependencies}}},"id":"{id}","outPath":"{OUT}","signatures":[]}}"#)
    }

    #[test]
    fn a_realisation_cut_or_misnamed_does_not_do() {
        let whole = text("sha256:a!out", "");
        assert!(judge("sha256:a!out.doi", whole.as_bytes()).is_ok());
        assert!(matches!(judge("sha256:b!out.doi", whole.as_bytes()), Err(Fault::Misnamed { .. })));
        for length in 0..whole.len() {
            assert!(judge("sha256:a!out.doi", &whole.as_bytes()[..length]).is_err(), "cut at {length}");
        }
        for (old, new) in [("s51yw", "u51yw"), ("outPath", "outPbth"), ("[]", "[1]"), ("[]", "[\"x\"]")] {
            assert!(judge("sha256:a!out.doi", whole.replacen(old, new, 1).as_bytes()).is_err(), "{new}");
        }
    }

    #[test]
    fn what_depends_on_what_is_not_there_is_found_however_far() {
        let parse =
            |id: &str, dependency: &str| judge(&format!("{id}.doi"), text(id, dependency).as_bytes()).expect("valid");
        let all = [parse("a", ""), parse("b", "a"), parse("c", "x"), parse("d", "c")];
        let names: Vec<String> = incomplete(&all).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["c.doi", "d.doi"]);
    }
}
