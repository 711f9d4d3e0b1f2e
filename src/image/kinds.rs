//! Which kind of value each key of a spec has, in words: serde's own would speak of
//! Rust's types, and not say which key they are for.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::config::{ContainerConfig, Healthcheck};
use super::spec::SpecError;
use super::user::User;

const OBJECT: &str = "an object, with keys and their values";
const TEXT: &str = "a text";
const TEXTS: &str = "a list of texts";
const SWITCH: &str = "true or false";
const NUMBER: &str = "a whole number, 0 or more";
const ID: &str = "a whole number from 0 to 4294967295";
const SET: &str = "an object whose values are {}, e.g. {\"8080/tcp\": {}}";

/// What the value of a key of the spec, of its config, its user, or its health check
/// has to be.
fn kind(key: &str) -> &'static str {
    match key {
        "contents" | "copyToRoot" | "mutable" => "a path, or a list of paths, all as texts",
        "uid" | "gid" => ID,
        "maxLayers" | "Interval" | "Timeout" | "StartPeriod" | "Retries" | "StopTimeout" => NUMBER,
        "includeNixDB" | "includeStorePaths" | "keepContentsDirlinks" => SWITCH,
        "hook" => "true or false, or the path of a stowage in the store",
        "config" | "user" | "nixConf" | "Healthcheck" => OBJECT,
        "pathsPerLayer" => "a list of whole numbers, 1 or more each",
        "perms" => {
            "a list of objects {\"path\": pattern, \"mode\": octal digits, \"uid\": number, \"gid\": number, \"uname\": text, \"gname\": text}"
        }
        "precompute" => "a list of patterns, e.g. [\"ci-*\"]",
        "buildDepsOf" => {
            "a path, a list of paths, or an object {\"of\": paths, \"drvs\": true or false, \"depth\": \"direct\" or \"all\"}"
        }
        "nixpkgs" => {
            "the path of a source tree, or an object of names with a path each, or with {\"path\": …, \"exclude\": patterns}"
        }
        "popularity" => "an object of patterns with a number each, e.g. {\"glibc\": 2.5}",
        "layers" => {
            "a list of lists of patterns, e.g. [[\"glibc\", \"gcc-*\"]], and of files that `stowage layer` has made"
        }
        "Env" | "Entrypoint" | "Cmd" | "OnBuild" | "Shell" | "Test" => TEXTS,
        "ExposedPorts" | "Volumes" => SET,
        "Labels" => "an object whose values are texts",
        _ => TEXT,
    }
}

/// Finds lists where objects belong: serde would take their values one by one for
/// those of the object's keys.
///
/// # Errors
/// The first such list.
pub fn check_objects(spec: &Value) -> Result<(), SpecError> {
    let config = &spec["config"];
    let objects =
        [("", spec), ("config", config), ("config.Healthcheck", &config["Healthcheck"]), ("user", &spec["user"])];
    match objects.iter().find(|(_, value)| value.is_array()) {
        Some((key, _)) => Err(SpecError::Kind { key: (*key).to_owned(), expected: OBJECT }),
        None => Ok(()),
    }
}

/// Why `spec` can't be read as `T`: the first of its values that is of another kind
/// than its key asks for.
pub fn problem<T: DeserializeOwned>(spec: &Value) -> SpecError {
    let (place, expected) = find::<T>(spec, "").unwrap_or((String::new(), OBJECT));
    SpecError::Kind { key: place, expected }
}

fn find<T: DeserializeOwned>(value: &Value, place: &str) -> Option<(String, &'static str)> {
    let Some(object) = value.as_object() else {
        return Some((place.to_owned(), OBJECT));
    };
    // All keys can be left out, so each can be tried alone.
    let is_wrong = |(key, value): &(&String, &Value)| {
        let alone = Map::from_iter([((*key).clone(), (*value).clone())]);
        serde_json::from_value::<T>(Value::Object(alone)).is_err()
    };
    let (key, value) = object.iter().find(is_wrong)?;
    let place = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
    let within = match key.as_str() {
        "config" => find::<ContainerConfig>(value, &place),
        "user" if place == "user" => find::<User>(value, &place),
        "Healthcheck" => find::<Healthcheck>(value, &place),
        _ => None,
    };
    Some(within.unwrap_or_else(|| (place, kind(key))))
}
