//! The keys of an image spec: which work, which will, and which are typing errors.

use serde_json::Value;

use super::config::ContainerConfig;
use super::spec::SpecError;

/// The keys that work.
const KEYS: [&str; 33] = [
    "name",
    "tag",
    "fromImage",
    "contents",
    "config",
    "architecture",
    "created",
    "mtime",
    "uid",
    "gid",
    "uname",
    "gname",
    "maxLayers",
    "includeNixDB",
    "user",
    "nixConf",
    "strategy",
    "pathsPerLayer",
    "popularity",
    "layers",
    "hook",
    "compression",
    "precompute",
    "cacheStore",
    "buildDepsOf",
    "nixpkgs",
    "root",
    "mutable",
    "perms",
    "includeStorePaths",
    "copyToRoot",
    "keepContentsDirlinks",
    "$schema",
];

/// The keys that are known, but not built yet.
const LATER: [&str; 3] = ["annotations", "storeOwner", "layeringPipeline"];

/// Those of dockerTools that run commands: so an image would depend on the machine that it is
/// built on, and on what is installed there. Nix builds have neither.
const COMMANDS: [&str; 4] = ["extraCommands", "fakeRootCommands", "enableFakechroot", "runAsRoot"];

const USER_KEYS: [&str; 5] = ["name", "uid", "gid", "home", "shell"];

/// Finds keys that are not known, or not built yet.
///
/// # Errors
/// The first such key.
pub fn check(spec: &Value) -> Result<(), SpecError> {
    check_keys(spec, "the spec", &KEYS)?;
    check_keys(&spec["config"], "the spec's config", &ContainerConfig::KEYS)?;
    check_keys(&spec["user"], "the spec's user", &USER_KEYS)
}

fn check_keys(value: &Value, place: &'static str, known: &'static [&'static str]) -> Result<(), SpecError> {
    let Some(object) = value.as_object() else {
        return Ok(());
    };
    let Some(key) = object.keys().find(|key| !known.contains(&key.as_str())) else {
        return Ok(());
    };
    if place == "the spec" && LATER.contains(&key.as_str()) {
        return Err(SpecError::NotBuilt(key.clone()));
    }
    if place == "the spec" && COMMANDS.contains(&key.as_str()) {
        return Err(SpecError::Commands(key.clone()));
    }
    let nearest = known.iter().copied().max_by(|one, other| similarity(key, one).total_cmp(&similarity(key, other)));
    let nearest = nearest.filter(|nearest| similarity(key, nearest) > 0.6);
    Err(SpecError::UnknownKey { key: key.clone(), place, nearest })
}

fn similarity(one: &str, other: &str) -> f64 {
    let (one, other) = (one.to_lowercase(), other.to_lowercase());
    strsim::jaro_winkler(&one, &other).max(strsim::normalized_levenshtein(&one, &other))
}

/// The words that name the key somebody may have meant.
pub fn suggest(nearest: &Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!("; did you mean {nearest:?}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_the_design_are_known() {
        let design = "name tag fromImage contents config architecture created mtime uid gid uname gname maxLayers includeNixDB \
            extraCommands fakeRootCommands user nixConf buildDepsOf nixpkgs strategy pathsPerLayer popularity layers perms compression \
            annotations hook storeOwner includeStorePaths copyToRoot keepContentsDirlinks enableFakechroot layeringPipeline precompute";
        for key in design.split_whitespace() {
            assert!([&KEYS[..], &LATER, &COMMANDS].iter().any(|keys| keys.contains(&key)), "{key}");
        }
    }

    #[test]
    fn the_readme_tells_of_every_key() {
        let readme = include_str!("../../README.md");
        let is_told = |key: &&&str| {
            readme.contains(&format!("`{key}`"))
                || readme.contains(&format!(" {key} "))
                || readme.contains(&format!(" {key}`"))
                || readme.contains(&format!("`{key} "))
        };
        let missing: Vec<_> = KEYS.iter().filter(|key| **key != "$schema" && !is_told(key)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
