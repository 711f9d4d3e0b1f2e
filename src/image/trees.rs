//! Source trees in an image, such as nixpkgs, and how Nix finds them there.
//!
//! `NIX_PATH` names them for `<nixpkgs>`; the system's flake registry for `nixpkgs#hello`, with
//! their hashes, so that Nix need not read them again.
//!
//! Source: Nix's manual, `NIX_PATH` and "nix registry" (format 2); `path:` inputs that are store
//! paths called `source` are not copied, `libfetchers/path.cc`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::store::{NarHash, StoreDir, StorePath};

/// What a tree is called in the store when it was not there: Nix's own name for those that it
/// fetches.
pub const STORE_NAME: &str = "source";

/// A source tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Its store path.
    pub path: StorePath,
    /// The hash of its NAR.
    pub nar_hash: NarHash,
    /// Whether it is a flake.
    pub is_flake: bool,
}

/// What is wrong with the name of a tree, if anything: it stands in `NIX_PATH` and in expressions.
#[must_use]
pub fn name_problem(name: &str) -> Option<String> {
    let is_name = name.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    (!is_name)
        .then(|| format!("{name:?} is no name for a source tree: letters, digits, `-`, `_` and `.`, a letter first"))
}

/// `NIX_PATH` with the trees in front of what is in `before`, but for other trees of their names.
#[must_use]
pub fn nix_path(trees: &BTreeMap<String, Tree>, store_dir: &StoreDir, before: &str) -> String {
    let own = trees.iter().map(|(name, tree)| format!("{name}={}", store_dir.render_path(&tree.path)));
    let name = |entry: &str| entry.split_once('=').map(|(name, _)| name.to_owned());
    let others = entries(before).into_iter().filter(|entry| !name(entry).is_some_and(|name| trees.contains_key(&name)));
    let others = others.map(str::to_owned);
    own.chain(others).collect::<Vec<_>>().join(":")
}

/// The entries of a `NIX_PATH`, as Nix takes them apart: one colon belongs to what looks like a URL.
fn entries(path: &str) -> Vec<&str> {
    const SCHEMES: [&str; 7] = ["http", "https", "file", "channel", "git", "s3", "ssh"];
    let is_url = |text: &str| {
        text.starts_with("channel:")
            || text.starts_with("flake:")
            || text.split_once("://").is_some_and(|(scheme, _)| SCHEMES.contains(&scheme))
    };
    let (mut entries, mut rest) = (Vec::new(), path);
    while !rest.is_empty() {
        let first = rest.find(':').unwrap_or(rest.len());
        let value = rest[..first].rfind('=').map_or(0, |at| at + 1);
        let mut end = first;
        if end < rest.len() && is_url(&rest[value..]) {
            end = rest[first + 1..].find(':').map_or(rest.len(), |at| first + 1 + at);
        }
        entries.push(&rest[..end]);
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    entries.retain(|entry| !entry.is_empty());
    entries
}

/// The flake registry with those of the trees that are flakes, and what the registry in `before` says of others; `None`
/// where there is nothing to say.
#[must_use]
pub fn registry(trees: &BTreeMap<String, Tree>, store_dir: &StoreDir, before: &str) -> Option<String> {
    let is_id = |name: &str| !name.contains('.');
    let own = trees.iter().filter(|(name, tree)| tree.is_flake && is_id(name));
    let own: BTreeMap<&str, Value> = own.map(|(name, tree)| (&**name, entry(name, tree, store_dir))).collect();
    let read: Value = serde_json::from_str(before).unwrap_or_default();
    if read.is_null() && !before.trim().is_empty() && !trees.is_empty() {
        tracing::warn!("the parent's flake registry is no JSON, and left out");
    }
    let others: Vec<&Value> = read["flakes"].as_array().into_iter().flatten().collect();
    // The name means this image's tree, be it a flake or not.
    let is_other = |flake: &&&Value| !flake["from"]["id"].as_str().is_some_and(|id| trees.contains_key(id));
    let kept: Vec<&Value> = others.iter().filter(is_other).copied().collect();
    if own.is_empty() && kept.len() == others.len() {
        return None;
    }
    let flakes: Vec<&Value> = own.values().chain(kept).collect();
    Some(format!("{}\n", json!({ "flakes": flakes, "version": 2 })))
}

fn entry(name: &str, tree: &Tree, store_dir: &StoreDir) -> Value {
    let hash = format!("sha256-{}", STANDARD.encode(tree.nar_hash.as_bytes()));
    json!({
        "exact": true,
        "from": { "id": name, "type": "indirect" },
        "to": { "lastModified": 1, "narHash": hash, "path": store_dir.render_path(&tree.path), "type": "path" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::closure::tests::path;

    fn trees() -> BTreeMap<String, Tree> {
        let tree =
            |letter, is_flake| Tree { path: path(letter, STORE_NAME), nar_hash: NarHash::new([0; 32]), is_flake };
        [("nixpkgs".to_owned(), tree('a', true)), ("index".to_owned(), tree('b', false))].into()
    }

    #[test]
    fn trees_come_before_what_was_there() {
        let (a, b) = (format!("/nix/store/{}-source", "a".repeat(32)), format!("/nix/store/{}-source", "b".repeat(32)));
        let own = format!("index={b}:nixpkgs={a}");
        let path = |before| nix_path(&trees(), &StoreDir::default(), before);
        assert_eq!(path(""), own);
        let before = "/etc/nixos:nixpkgs=https://example.org/old.tar.gz:other=https://example.org/x";
        assert_eq!(path(before), format!("{own}:/etc/nixos:other=https://example.org/x"));
        let before = "nixpkgs=channel:nixos-22.05:other=flake:home-manager::a=b";
        assert_eq!(path(before), format!("{own}:other=flake:home-manager:a=b"));
    }

    #[test]
    fn only_flakes_are_in_the_registry() {
        let text = registry(&trees(), &StoreDir::default(), "").expect("a flake");
        let read: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((read["version"].as_u64(), read["flakes"].as_array().map(Vec::len)), (Some(2), Some(1)));
        assert_eq!(read["flakes"][0]["to"]["narHash"], "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        let mut trees = trees();
        trees.remove("nixpkgs");
        assert_eq!(registry(&trees, &StoreDir::default(), "{}"), None);
        // It would be another than NIX_PATH leads to.
        let before = json!({ "flakes": [{ "from": { "id": "index", "type": "indirect" }, "to": {} }] }).to_string();
        let text = registry(&trees, &StoreDir::default(), &before).expect("one less");
        assert_eq!(text, "{\"flakes\":[],\"version\":2}\n");
    }

    #[test]
    fn what_a_parents_registry_says_of_others_stays() {
        let flake = |id: &str| json!({ "from": { "id": id, "type": "indirect" }, "to": {} });
        let before = json!({ "flakes": [flake("nixpkgs"), flake("own")], "version": 2 }).to_string();
        let text = registry(&trees(), &StoreDir::default(), &before).expect("a flake");
        let read: Value = serde_json::from_str(&text).expect("JSON");
        let ids: Vec<_> = read["flakes"].as_array().expect("a list").iter().map(|flake| &flake["from"]["id"]).collect();
        assert_eq!(ids, ["nixpkgs", "own"]);
    }

    #[test]
    fn names_are_those_of_expressions() {
        for name in ["nixpkgs", "nixos-26.05", "a_b"] {
            assert_eq!(name_problem(name), None, "{name}");
        }
        for name in ["", "-a", "a b", "a=b", "../a", "1"] {
            assert!(name_problem(name).is_some(), "{name}");
        }
    }
}
