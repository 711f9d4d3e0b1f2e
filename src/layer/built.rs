//! Layers that were made ahead, as values: a small file that says what a layer of store paths is,
//! so that images are put together from such layers without reading their paths again.
//!
//! It is JSON, with a version. It names its store paths in full, so that Nix finds them as its
//! references and keeps them, and what is found out by reading them: digest, size, which machines
//! their programs are for, and content addresses that lists of registrations have lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::elf::ARCHITECTURES;
use super::{LayerKey, LayerRecord, Stamp};
use crate::store::{NarHash, PathInfo, StoreDir, StorePath};

/// The version of the file's form.
const VERSION: u32 = 1;

/// A layer that was made ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltLayer {
    /// Its key.
    pub key: LayerKey,
    /// What its bytes are.
    pub record: LayerRecord,
    /// What the headers of its files say.
    pub stamp: Stamp,
    /// Its store paths.
    pub paths: BTreeMap<StorePath, Known>,
    /// Those of them that were asked for.
    pub roots: BTreeSet<StorePath>,
}

/// What is known of a store path in such a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The hash of its NAR.
    pub nar_hash: NarHash,
    /// Its content address, if it has one.
    pub ca: Option<String>,
}

/// Why a file is no such layer.
#[derive(Debug, thiserror::Error)]
pub enum BuiltLayerError {
    /// It can't be read.
    #[error("the layer {path}: {source}; name a file that `stowage layer` has made")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It says something else, or contradicts itself.
    #[error("the layer {path} {problem}; make it again with `stowage layer`")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    version: u32,
    store_dir: String,
    key: LayerKey,
    #[serde(flatten)]
    record: LayerRecord,
    #[serde(flatten)]
    stamp: Stamp,
    roots: BTreeSet<String>,
    paths: BTreeMap<String, Registered>,
}

/// What is known of a store path.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registered {
    nar_hash: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
}

impl BuiltLayer {
    /// The layer with the paths that `infos` are about, in order, whose bytes are `record`.
    #[must_use]
    pub fn new(
        store_dir: &StoreDir,
        infos: &[PathInfo],
        roots: BTreeSet<StorePath>,
        stamp: Stamp,
        record: LayerRecord,
    ) -> Self {
        let known = |info: &PathInfo| (info.path.clone(), Known { nar_hash: info.nar_hash, ca: info.ca.clone() });
        let key = LayerKey::of_store_paths(store_dir, &stamp, infos);
        Self { key, record, stamp, roots, paths: infos.iter().map(known).collect() }
    }

    /// The file that says so.
    ///
    /// # Errors
    /// When it can't be written as JSON, which does not happen.
    pub fn to_json(&self, store_dir: &StoreDir) -> serde_json::Result<Vec<u8>> {
        let registered = |(path, known): (&StorePath, &Known)| {
            let registered = Registered { nar_hash: known.nar_hash.to_nix32(), ca: known.ca.clone() };
            (store_dir.render_path(path), registered)
        };
        let file = File {
            version: VERSION,
            store_dir: store_dir.to_string(),
            key: self.key,
            record: self.record.clone(),
            stamp: self.stamp.clone(),
            roots: self.roots.iter().map(|path| store_dir.render_path(path)).collect(),
            paths: self.paths.iter().map(registered).collect(),
        };
        let mut text = serde_json::to_vec_pretty(&file)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Reads the file at `path`, of the store `store_dir`.
    ///
    /// # Errors
    /// When it is none, or what it says can't be.
    pub fn read(path: &Path, store_dir: &StoreDir) -> Result<Self, BuiltLayerError> {
        let text = crate::fs::read_regular(path);
        let text = text.map_err(|source| BuiltLayerError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, store_dir).map_err(|problem| BuiltLayerError::Foreign { path: path.to_owned(), problem })
    }

    fn parse(text: &[u8], store_dir: &StoreDir) -> Result<Self, String> {
        let file: File = serde_json::from_slice(text).map_err(|error| format!("is none: {error}"))?;
        if file.version != VERSION {
            return Err(format!("has version {}, and this version of stowage knows {VERSION}", file.version));
        }
        if file.store_dir != store_dir.as_str() {
            return Err(format!("is of the store {}, not of {store_dir}", file.store_dir));
        }
        let parse =
            |text: &String| store_dir.parse_path(text.as_bytes()).map_err(|error| format!("names {text:?}: {error}"));
        let roots = file.roots.iter().map(parse).collect::<Result<BTreeSet<_>, _>>()?;
        let mut paths = BTreeMap::new();
        for (text, Registered { nar_hash, ca }) in &file.paths {
            let hash = NarHash::parse(nar_hash).map_err(|error| format!("names {text} with the hash {error}"))?;
            paths.insert(parse(text)?, Known { nar_hash: hash, ca: ca.clone() });
        }
        // In the order that a closure has.
        let info = |(path, known): (&StorePath, &Known)| PathInfo::new(path.clone(), known.nar_hash, 0, Vec::new());
        let infos: Vec<PathInfo> = paths.iter().map(info).collect();
        if LayerKey::of_store_paths(store_dir, &file.stamp, &infos) != file.key {
            return Err("has another key than its store paths".to_owned());
        }
        if let Some(name) = file.record.architectures.keys().find(|name| !ARCHITECTURES.contains(&&***name)) {
            return Err(format!("names the architecture {name:?}, which nobody knows"));
        }
        if roots.is_empty() {
            return Err("names nothing that was asked for".to_owned());
        }
        if let Some(root) = roots.iter().find(|root| !paths.contains_key(root)) {
            return Err(format!("lacks its own {}", store_dir.render_path(root)));
        }
        Ok(Self { key: file.key, record: file.record, stamp: file.stamp, roots, paths })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::closure::tests::{info, path};

    fn layer() -> BuiltLayer {
        let (a, b) = (path('a', "a"), path('b', "b"));
        let mut infos = vec![info(&a, &[&b]), info(&b, &[])];
        infos[1].ca = Some("text:sha256:094qif9n4cq4fdg459qzbhg1c6wywawwaaivx0k0x8xhbyx4vwic".to_owned());
        let record = LayerRecord { architectures: [("amd64".to_owned(), 7)].into(), ..LayerRecord::of_tar(b"tar") };
        BuiltLayer::new(&StoreDir::default(), &infos, [a].into(), Stamp::default(), record)
    }

    #[test]
    fn what_is_written_is_read() {
        let layer = layer();
        let text = layer.to_json(&StoreDir::default()).expect("JSON");
        assert_eq!(BuiltLayer::parse(&text, &StoreDir::default()), Ok(layer));
    }

    #[test]
    fn the_form_does_not_move() {
        let layer = layer();
        let text = String::from_utf8(layer.to_json(&StoreDir::default()).expect("JSON")).expect("UTF-8");
        assert_eq!(text, include_str!("../../tests/data/layer.json"));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let layer = layer();
        let text = String::from_utf8(layer.to_json(&StoreDir::default()).expect("JSON")).expect("UTF-8");
        let gnu = StoreDir::new("/gnu/store").expect("valid");
        assert!(BuiltLayer::parse(text.as_bytes(), &gnu).expect_err("another store").contains("of the store"));
        for (from, to, problem) in [
            ("\"version\": 1", "\"version\": 2", "has version 2"),
            ("-a\"", "-c\"", "another key"),
            ("\"uid\": 0", "\"uid\": 1", "another key"),
            ("\"roots\"", "\"mtime\": 2, \"roots\"", "another key"),
            ("/nix/store/", "/etc/", "names"),
            ("\"key\"", "\"keys\"", "is none"),
        ] {
            let error = BuiltLayer::parse(text.replace(from, to).as_bytes(), &StoreDir::default());
            assert!(error.as_ref().is_err_and(|error| error.contains(problem)), "{error:?}");
        }
    }
}
