//! Images of all forms, made by hand.

#![allow(dead_code, reason = "each test binary uses some")]

use std::io::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};
use stowage::digest::Digest;
use stowage::image::{Platform, nixdb};
use stowage::parent::{Parent, ParentError, ReadOptions, read};
use stowage::store::{Closure, NarHash, PathInfo, StoreDir, StorePath};

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

pub type Files<'a> = &'a [(&'a str, &'a [u8])];

pub fn path(letter: &str) -> StorePath {
    StorePath::from_basename(format!("{}-{letter}", letter.repeat(32)).as_bytes()).expect("valid")
}

pub fn file(letter: &str) -> String {
    format!("nix/store/{}/file", path(letter).to_basename())
}

pub fn info(letter: &str, references: &[&str]) -> PathInfo {
    let references = references.iter().map(|letter| path(letter)).collect();
    PathInfo::new(path(letter), NarHash::new([letter.as_bytes()[0]; 32]), 1, references)
}

pub fn database(infos: Vec<PathInfo>) -> Vec<u8> {
    let closure = Closure::new(&StoreDir::default(), infos, None).expect("closed");
    nixdb::serialise(&closure, &[]).expect("memory")
}

/// A tar: names that end in `/` are folders, those with ` -> ` links.
pub fn tar_of(files: Files<'_>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, contents) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(if name.ends_with('/') { 0o755 } else { 0o644 });
        header.set_size(contents.len() as u64);
        if let Some((name, target)) = name.split_once(" -> ") {
            header.set_entry_type(tar::EntryType::Symlink);
            builder.append_link(&mut header, name, target).expect("memory");
            continue;
        }
        if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        builder.append_data(&mut header, name, *contents).expect("memory");
    }
    builder.into_inner().expect("memory")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

pub fn config(diff_ids: &[Digest]) -> Vec<u8> {
    let history = [json!({ "comment": "first" }), json!({ "empty_layer": true, "comment": "none" })];
    let history: Vec<Value> =
        history.into_iter().chain([json!({ "created_by": "x" }), json!({ "comment": "third" })]).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": { "Env": ["A=1"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids }, "history": history,
    });
    config.to_string().into_bytes()
}

/// A docker archive of layers, each as it is and uncompressed.
pub fn docker_archive(layers: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let config = config(&layers.iter().map(|(_, tar)| Digest::of(tar)).collect::<Vec<_>>());
    let names: Vec<String> = (0..layers.len()).map(|number| format!("{number}/layer.tar")).collect();
    let manifest = json!([{ "Config": "config.json", "RepoTags": ["ci:1"], "Layers": names }]).to_string();
    let mut files: Vec<(&str, &[u8])> = vec![("manifest.json", manifest.as_bytes()), ("config.json", &config)];
    files.extend(names.iter().map(String::as_str).zip(layers.iter().map(|(blob, _)| &blob[..])));
    tar_of(&files)
}

pub struct Scratch(pub tempfile::TempDir);

impl Scratch {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        std::fs::write(&path, bytes).expect("writable");
        path
    }

    /// Reads the docker archive of these layers, not compressed.
    pub fn read(&self, layers: &[Files<'_>]) -> Result<Parent, ParentError> {
        let layers: Vec<_> = layers.iter().map(|files| tar_of(files)).map(|tar| (tar.clone(), tar)).collect();
        self.read_blobs(&layers)
    }

    pub fn read_blobs(&self, layers: &[(Vec<u8>, Vec<u8>)]) -> Result<Parent, ParentError> {
        read_with(&format!("docker-archive:{}", self.write("a.tar", &docker_archive(layers)).display()), None, &[])
    }

    pub fn blob(&self, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        self.write(&format!("layout/blobs/sha256/{}", digest.to_hex()), bytes);
        json!({ "digest": digest, "size": bytes.len(), "mediaType": MANIFEST })
    }

    /// An index within another, whose descriptor is given.
    pub fn nested(&self, index: &Value) -> Value {
        let mut descriptor = self.blob(index.to_string().as_bytes());
        descriptor["mediaType"] = INDEX.into();
        descriptor
    }

    /// An OCI layout with an image of one layer, whose manifest's descriptor is given.
    pub fn layout(&self, blob: &[u8], tar: &[u8], media_type: &str) -> Value {
        let mut layer = self.blob(blob);
        layer["mediaType"] = media_type.into();
        let config = self.blob(&config(&[Digest::of(tar)]));
        self.blob(json!({ "schemaVersion": 2, "config": config, "layers": [layer] }).to_string().as_bytes())
    }

    pub fn index(&self, manifests: &[Value]) -> String {
        self.write("layout/index.json", json!({ "schemaVersion": 2, "manifests": manifests }).to_string().as_bytes());
        format!("oci:{}", self.0.path().join("layout").display())
    }
}

pub fn read_with(reference: &str, architecture: Option<&str>, host: &[PathInfo]) -> Result<Parent, ParentError> {
    let host = |paths: &[StorePath]| host.iter().filter(|info| paths.contains(&info.path)).cloned().collect();
    let registries = stowage::registry::Registries::default();
    let platform = architecture.map(Platform::linux);
    let options = ReadOptions {
        store_dir: &StoreDir::default(),
        platform: platform.as_ref(),
        believe_history: false,
        registries: &registries,
        host: &host,
    };
    read(&reference.parse().expect("a reference"), &options)
}

pub fn message(result: Result<Parent, ParentError>) -> String {
    result.map(|_| ()).expect_err("bad").to_string()
}

pub fn platform(mut descriptor: Value, architecture: &str) -> Value {
    descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
    descriptor
}
