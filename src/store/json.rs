//! Reads registrations as JSON: what `exportReferencesGraph` writes with
//! structured attributes, and `nix path-info --json` of every generation.
//!
//! Sources: Nix's manual, "exportReferencesGraph" and "Store object info" (the
//! forms 1 and 2), and what Nix 2.8, 2.26 and 2.34 print. The generations:
//! an array of objects with `path` (up to 2.18; also exportReferencesGraph), an
//! object from path to object (2.19), and one with `info`, `storeDir` and
//! `version` around that, whose paths are base names (2.33). A build's `.attrs.json`
//! has such arrays by the names that its attribute `exportReferencesGraph` gives them.

use std::collections::BTreeMap;

use nix_derivation::{CAHash, ContentAddressMethod, NixHash};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{NarHash, PathInfo, StoreDir, StorePath};

/// The newest version of the form that names its version.
const NEWEST: u64 = 2;

/// A JSON text that is no list of registrations.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// No JSON, or JSON of another shape.
    #[error("neither exportReferencesGraph's JSON nor that of `nix path-info --json`: {0}")]
    Shape(#[from] serde_json::Error),
    /// A form that did not exist when this was written.
    #[error(
        "the form has version {0}, and only those up to {NEWEST} are known; `nix path-info --json-format 1` prints an older one"
    )]
    Version(u64),
    /// Paths of another store, which mean nothing here.
    #[error("the list is of the store {found}, not of {wanted}; NIX_STORE_DIR names another")]
    StoreDir {
        /// The store dir that the list names.
        found: String,
        /// The store dir that is looked at.
        wanted: String,
    },
    /// A path that is asked for, and that Nix said is not valid.
    #[error("{0} is not valid in the store that the list was made from")]
    Invalid(String),
    /// Anything else that is wrong with one path.
    #[error("{path}: {problem}")]
    Path {
        /// The path, as it is in the text.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
}

enum Text {
    List(Vec<Entry>),
    Versioned(Versioned),
    Map(BTreeMap<String, Option<Entry>>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Versioned {
    info: BTreeMap<String, Option<Entry>>,
    version: u64,
    store_dir: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "the registration of a path")]
struct Entry {
    path: Option<String>,
    nar_hash: Option<Hash>,
    #[serde(default)]
    nar_size: u64,
    #[serde(default)]
    references: Vec<String>,
    deriver: Option<String>,
    #[serde(default)]
    signatures: Vec<Signature>,
    ca: Option<ContentAddress>,
    valid: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Hash {
    Text(String),
    Parts { hash: String },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Signature {
    Text(String),
    #[serde(rename_all = "camelCase")]
    Parts {
        key_name: String,
        sig: String,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ContentAddress {
    Text(String),
    Parts { method: String, hash: ContentHash },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ContentHash {
    Text(String),
    Parts { algorithm: String, hash: String },
}

/// The registrations in `text`.
///
/// # Errors
/// When the text is no such JSON, or something about a path can't be read.
pub fn parse(text: &str, store_dir: &StoreDir) -> Result<Vec<PathInfo>, JsonError> {
    let keyed = |map: BTreeMap<String, Option<Entry>>| {
        map.into_iter()
            .map(|(path, entry)| match entry {
                Some(entry) => info(Some(path), entry, store_dir),
                None => Err(JsonError::Invalid(path)),
            })
            .collect()
    };
    match parse_text(text)? {
        Text::List(entries) => entries.into_iter().map(|entry| info(None, entry, store_dir)).collect(),
        Text::Versioned(Versioned { version, .. }) if version > NEWEST => Err(JsonError::Version(version)),
        Text::Versioned(Versioned { store_dir: Some(found), .. }) if found != store_dir.as_str() => {
            Err(JsonError::StoreDir { found, wanted: store_dir.to_string() })
        }
        Text::Versioned(versioned) => keyed(versioned.info),
        Text::Map(map) => keyed(map),
    }
}

/// Reads by the outermost form, so that an error names the place in it. What is not
/// wanted is never kept: a large closure has half a million references.
fn parse_text(text: &str) -> Result<Text, serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(expecting = "a list or an object")]
    #[serde(rename_all = "camelCase")]
    struct Form {
        version: Option<serde_json::Value>,
        export_references_graph: Option<BTreeMap<String, IgnoredAny>>,
    }
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).map(Text::List);
    }
    match serde_json::from_str(text)? {
        Form { export_references_graph: Some(graphs), .. } => attributes(text, graphs).map(Text::List),
        Form { version: Some(serde_json::Value::Number(_)), .. } => serde_json::from_str(text).map(Text::Versioned),
        Form { .. } => serde_json::from_str(text).map(Text::Map),
    }
}

/// The graphs of those names among a build's attributes.
fn attributes(text: &str, graphs: BTreeMap<String, IgnoredAny>) -> Result<Vec<Entry>, serde_json::Error> {
    let mut all: BTreeMap<String, serde_json::Value> = serde_json::from_str(text)?;
    let mut entries = Vec::new();
    for name in graphs.into_keys() {
        let graph = all.remove(&name).unwrap_or_default();
        let graph = serde_json::from_value::<Vec<Entry>>(graph).map_err(|error| {
            let problem = "is no list of store paths; a derivation that exports it has it only in its own build";
            <serde_json::Error as serde::de::Error>::custom(format!("the graph {name:?} {problem} ({error})"))
        })?;
        entries.extend(graph);
    }
    Ok(entries)
}

fn info(key: Option<String>, entry: Entry, store_dir: &StoreDir) -> Result<PathInfo, JsonError> {
    let text = entry.path.or(key).unwrap_or_default();
    let problem = |problem: String| JsonError::Path { path: text.clone(), problem };
    let path = |path: &str| parse_path(path, store_dir).map_err(|error| problem(format!("{path:?}: {error}")));
    if entry.valid == Some(false) {
        return Err(JsonError::Invalid(text));
    }
    let nar_hash = match &entry.nar_hash {
        Some(Hash::Text(hash) | Hash::Parts { hash }) => {
            NarHash::parse(hash).map_err(|error| problem(error.to_string()))?
        }
        None => return Err(problem("no narHash; was the list made from a binary cache without it?".to_owned())),
    };
    let references = entry.references.iter().map(|text| path(text)).collect::<Result<Vec<_>, _>>()?;
    let deriver = match entry.deriver.as_deref() {
        None | Some("" | "unknown-deriver") => None,
        Some(text) => Some(path(text)?),
    };
    let ca = match entry.ca {
        None => None,
        Some(ContentAddress::Text(text)) if text.is_empty() => None,
        Some(address) => {
            Some(content_address(&address).ok_or_else(|| problem("a content address in no known form".to_owned()))?)
        }
    };
    Ok(PathInfo {
        deriver,
        ca,
        signatures: entry.signatures.into_iter().map(signature).collect(),
        ..PathInfo::new(path(&text)?, nar_hash, entry.nar_size, references)
    })
}

/// A full path, or the base name that the newest form has.
fn parse_path(text: &str, store_dir: &StoreDir) -> Result<StorePath, nix_derivation::store_path::Error> {
    if text.contains('/') { store_dir.parse_path(text.as_bytes()) } else { StorePath::from_basename(text.as_bytes()) }
}

fn signature(signature: Signature) -> String {
    match signature {
        Signature::Text(text) => text,
        Signature::Parts { key_name, sig } => format!("{key_name}:{sig}"),
    }
}

/// The address as `ValidPaths.ca` has it.
fn content_address(address: &ContentAddress) -> Option<String> {
    let address = match address {
        ContentAddress::Text(text) => CAHash::parse(text).ok()?,
        ContentAddress::Parts { method, hash } => {
            let method = match method.as_str() {
                "text" => ContentAddressMethod::Text,
                "flat" => ContentAddressMethod::Flat,
                "nar" => ContentAddressMethod::Nar,
                "git" => ContentAddressMethod::Git,
                _ => return None,
            };
            let hash = match hash {
                ContentHash::Text(text) => NixHash::parse(text),
                ContentHash::Parts { hash, .. } if hash.contains('-') => NixHash::parse(hash),
                ContentHash::Parts { algorithm, hash } => NixHash::parse(&format!("{algorithm}:{hash}")),
            }
            .ok()?;
            CAHash::from_parts(method, hash.algorithm(), hash.digest_as_bytes()).ok()?
        }
    };
    Some(address.to_nix_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRAPH: &str = r#"[{"closureSize":216,"narHash":"sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
        "narSize":96,"path":"/nix/store/2cdphvmw5lnlvkc7wcphwqsnpl0gbqkf-a",
        "references":["/nix/store/0c7c96gikmzv87i7lv3vq5s1cmfjd6zf-b"]}]"#;
    const KEYED: &str = r#"{"/nix/store/2cdphvmw5lnlvkc7wcphwqsnpl0gbqkf-a":{"ca":null,"deriver":null,
        "narHash":"sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=","narSize":96,
        "references":["/nix/store/0c7c96gikmzv87i7lv3vq5s1cmfjd6zf-b"],"registrationTime":1,"signatures":[],"ultimate":true}}"#;
    const VERSIONED: &str = r#"{"info":{"2cdphvmw5lnlvkc7wcphwqsnpl0gbqkf-a":{"ca":null,"deriver":null,
        "narHash":"sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=","narSize":96,
        "references":["0c7c96gikmzv87i7lv3vq5s1cmfjd6zf-b"],"registrationTime":1,"signatures":[],"ultimate":true,"version":2}},
        "storeDir":"/nix/store","version":2}"#;

    #[test]
    fn every_generation_of_the_form_says_the_same() {
        let read = |text| parse(text, &StoreDir::default()).expect("valid");
        assert_eq!(read(GRAPH), read(KEYED));
        assert_eq!(read(GRAPH), read(VERSIONED));
        assert_eq!(read(GRAPH)[0].references.len(), 1);
    }

    #[test]
    fn the_attributes_of_a_build_have_graphs_by_name() {
        let text = |graphs: &str| {
            format!(r#"{{"builder":"/bin/sh","exportReferencesGraph":{graphs},"one":{GRAPH},"two":{GRAPH}}}"#)
        };
        let read = |text: &str| parse(text, &StoreDir::default());
        let one = read(GRAPH).expect("valid");
        assert_eq!(read(&text(r#"{"one":["/nix/store/x"]}"#)).expect("valid"), one);
        assert_eq!(read(&text(r#"{"one":"/nix/store/x","two":["x"]}"#)).expect("valid").len(), 2 * one.len());
        assert!(read(&text(r#"{"three":["x"]}"#)).is_err());
    }

    #[test]
    fn content_addresses_become_what_the_database_has() {
        let text = r#"[{"path":"/nix/store/2cdphvmw5lnlvkc7wcphwqsnpl0gbqkf-a","narHash":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "ca":{"method":"nar","hash":{"algorithm":"sha256","format":"base64","hash":"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}}}]"#;
        let infos = parse(text, &StoreDir::default()).expect("valid");
        let expected = "fixed:r:sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73";
        assert_eq!(infos[0].ca.as_deref(), Some(expected));
    }

    #[test]
    fn other_versions_and_stores_are_refused() {
        let newer = VERSIONED.replace(r#""version":2}"#, r#""version":3}"#);
        let gnu = VERSIONED.replace(r#""storeDir":"/nix/store""#, r#""storeDir":"/gnu/store""#);
        for (text, message) in [(newer, "version 3"), (gnu, "of the store /gnu/store, not of /nix/store")] {
            let error = parse(&text, &StoreDir::default()).map(drop).expect_err("refused").to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn json_of_another_shape_is_refused() {
        let no_hash = r#"[{"path":"/nix/store/2cdphvmw5lnlvkc7wcphwqsnpl0gbqkf-a"}]"#;
        let invalid = r#"{"/nix/store/2cdphvmw5lnlvkc7wcphwqsnpl0gbqkf-a":null}"#;
        for text in [
            "",
            "[",
            "7",
            "[7]",
            r#"{"a":1}"#,
            r#"[{"path":"/etc/passwd","narHash":"x"}]"#,
            no_hash,
            invalid,
            &GRAPH[..100],
        ] {
            assert!(parse(text, &StoreDir::default()).is_err(), "{text}");
        }
    }
}
