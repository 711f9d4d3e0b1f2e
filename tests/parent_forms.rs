//! Parents of every form are read, and bad ones refused with their reasons.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use stowage::digest::Digest;
use stowage::image::{Platform, nixdb};
use stowage::parent::find::Choice;
use stowage::parent::parts;
use stowage::parent::{LayerBytes, LayerProblem, Node, Parent, ParentError, ReadOptions, read};
use stowage::store::{Closure, NarHash, PathInfo, StoreDir, StorePath};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

type Files<'a> = &'a [(&'a str, &'a [u8])];

fn path(letter: &str) -> StorePath {
    StorePath::from_basename(format!("{}-{letter}", letter.repeat(32)).as_bytes()).expect("valid")
}

fn file(letter: &str) -> String {
    format!("nix/store/{}/file", path(letter).to_basename())
}

fn info(letter: &str, references: &[&str]) -> PathInfo {
    let references = references.iter().map(|letter| path(letter)).collect();
    PathInfo::new(path(letter), NarHash::new([letter.as_bytes()[0]; 32]), 1, references)
}

fn database(infos: Vec<PathInfo>) -> Vec<u8> {
    let closure = Closure::new(&StoreDir::default(), infos, None).expect("closed");
    nixdb::serialise(&closure, &[]).expect("memory")
}

/// A tar: names that end in `/` are folders, those with ` -> ` links.
fn tar_of(files: Files<'_>) -> Vec<u8> {
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

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn config(diff_ids: &[Digest]) -> Vec<u8> {
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
fn docker_archive(layers: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let config = config(&layers.iter().map(|(_, tar)| Digest::of(tar)).collect::<Vec<_>>());
    let names: Vec<String> = (0..layers.len()).map(|number| format!("{number}/layer.tar")).collect();
    let manifest = json!([{ "Config": "config.json", "RepoTags": ["ci:1"], "Layers": names }]).to_string();
    let mut files: Vec<(&str, &[u8])> = vec![("manifest.json", manifest.as_bytes()), ("config.json", &config)];
    files.extend(names.iter().map(String::as_str).zip(layers.iter().map(|(blob, _)| &blob[..])));
    tar_of(&files)
}

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        std::fs::write(&path, bytes).expect("writable");
        path
    }

    /// Reads the docker archive of these layers, not compressed.
    fn read(&self, layers: &[Files<'_>]) -> Result<Parent, ParentError> {
        let layers: Vec<_> = layers.iter().map(|files| tar_of(files)).map(|tar| (tar.clone(), tar)).collect();
        self.read_blobs(&layers)
    }

    fn read_blobs(&self, layers: &[(Vec<u8>, Vec<u8>)]) -> Result<Parent, ParentError> {
        read_with(&format!("docker-archive:{}", self.write("a.tar", &docker_archive(layers)).display()), None, &[])
    }

    fn blob(&self, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        self.write(&format!("layout/blobs/sha256/{}", digest.to_hex()), bytes);
        json!({ "digest": digest, "size": bytes.len(), "mediaType": MANIFEST })
    }

    /// An index within another, whose descriptor is given.
    fn nested(&self, index: &Value) -> Value {
        let mut descriptor = self.blob(index.to_string().as_bytes());
        descriptor["mediaType"] = INDEX.into();
        descriptor
    }

    /// An OCI layout with an image of one layer, whose manifest's descriptor is given.
    fn layout(&self, blob: &[u8], tar: &[u8], media_type: &str) -> Value {
        let mut layer = self.blob(blob);
        layer["mediaType"] = media_type.into();
        let config = self.blob(&config(&[Digest::of(tar)]));
        self.blob(json!({ "schemaVersion": 2, "config": config, "layers": [layer] }).to_string().as_bytes())
    }

    fn index(&self, manifests: &[Value]) -> String {
        self.write("layout/index.json", json!({ "schemaVersion": 2, "manifests": manifests }).to_string().as_bytes());
        format!("oci:{}", self.0.path().join("layout").display())
    }
}

fn read_with(reference: &str, architecture: Option<&str>, host: &[PathInfo]) -> Result<Parent, ParentError> {
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

fn message(result: Result<Parent, ParentError>) -> String {
    result.map(|_| ()).expect_err("bad").to_string()
}

fn platform(mut descriptor: Value, architecture: &str) -> Value {
    descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
    descriptor
}

#[test]
fn all_that_images_built_on_it_have_to_know_is_read() {
    let parent = Scratch::new()
        .read(&[
            &[("etc/passwd", b"root"), ("bin/", b""), ("lib -> usr/lib", b""), (&file("a"), b"a"), (&file("b"), b"b")],
            &[("nix/var/nix/db/db.sqlite", &database(vec![info("a", &["b"]), info("b", &["b"])]))],
            &[("etc/group", b"users"), (".wh.bin", b""), (&file("a"), b"a")],
        ])
        .expect("valid");
    assert_eq!(parent.config["config"]["Env"][0], "A=1");
    let comments: Vec<&str> = parent.layers.iter().map(|layer| &layer.comment[..]).collect();
    assert_eq!(comments, ["first", "", "third"]);
    assert_eq!(
        parent.root.texts,
        BTreeMap::from([("etc/passwd", "root".to_owned()), ("etc/group", "users".to_owned())])
    );
    let names: Vec<_> = parent.root.entries.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
    let db = ["nix/var", "nix/var/nix", "nix/var/nix/db", "nix/var/nix/db/db.sqlite"];
    assert_eq!(names, [&["etc", "etc/group", "etc/passwd", "lib", "nix", "nix/store"][..], &db].concat());
    assert_eq!(parent.root.entries[&b"lib"[..]].node, Node::Link(b"usr/lib".to_vec()));
    assert_eq!(parent.registrations, [info("a", &["b"]), info("b", &["b"])]);
    // Each path is in one layer: the topmost that has it.
    let paths: Vec<Vec<StorePath>> = parent.layers.iter().map(|layer| layer.paths.clone()).collect();
    assert_eq!(paths, [vec![path("b")], vec![], vec![path("a")]]);
}

#[test]
fn a_blob_is_what_was_hashed_however_it_is_compressed_and_wherever_it_lies() {
    let scratch = Scratch::new();
    let tar = tar_of(&[("etc/passwd", b"root")]);
    let blobs = [tar.clone(), gzip(&tar), zstd::encode_all(&tar[..], 3).expect("memory"), xz(&tar)];
    let archive = docker_archive(&blobs.iter().map(|blob| (blob.clone(), tar.clone())).collect::<Vec<_>>());
    for (name, bytes) in [("plain", archive.clone()), ("gz", gzip(&archive)), ("xz", xz(&archive))] {
        let file = scratch.write(name, &bytes);
        let parent = read_with(&format!("docker-archive:{}", file.display()), None, &[]).expect("valid");
        // Whatever the name means now, the open file is read.
        std::fs::remove_file(&file).expect("deleted");
        for (layer, blob) in parent.layers.iter().zip(&blobs) {
            assert_eq!((layer.record.diff_id, layer.record.size), (Digest::of(&tar), tar.len() as u64));
            assert_eq!((layer.blob.digest, layer.blob.size), (Digest::of(blob), blob.len() as u64));
            let LayerBytes::Blob { open, .. } = &layer.bytes else { panic!("a blob") };
            let mut bytes = Vec::new();
            open().expect("open").read_to_end(&mut bytes).expect("readable");
            assert!(bytes == *blob);
        }
        let kinds: Vec<&str> =
            parent.layers.iter().map(|layer| layer.blob.media_type.rsplit(".tar").next().expect("one")).collect();
        assert_eq!(kinds, ["", "+gzip", "+zstd", "+xz"]);
    }
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn of_several_images_one_is_named() {
    let scratch = Scratch::new();
    let tar = tar_of(&[("etc/passwd", b"root")]);
    let config = config(&[Digest::of(&tar)]);
    let entry = |names: &[&str]| json!({ "Config": "c.json", "RepoTags": names, "Layers": ["l"] });
    let list = json!([entry(&["one:1", "docker.io/library/two:2"]), entry(&["three:3"])]).to_string();
    let archive =
        tar_of(&[("l", &tar), ("c.json", &config), ("repositories", b"{}"), ("manifest.json", list.as_bytes())]);
    let file = scratch.write("a.tar", &archive).display().to_string();
    for name in ["one:1", "two:2", "three:3"] {
        read_with(&format!("docker-archive:{file}:{name}"), None, &[]).map(|_| ()).expect(name);
    }
    let error = message(read_with(&format!("docker-archive:{file}"), None, &[]));
    assert!(error.contains("has 2 images") && error.contains("three:3"), "{error}");
    let error = message(read_with(&format!("docker-archive:{file}:four"), None, &[]));
    assert!(error.contains("called four:latest") && error.contains("one:1"), "{error}");
}

#[test]
fn of_an_index_the_image_for_the_platform_is_read() {
    let scratch = Scratch::new();
    let images = ["amd64", "arm64"].map(|name| {
        let tar = tar_of(&[("etc/passwd", name.as_bytes())]);
        platform(scratch.layout(&gzip(&tar), &tar, "application/vnd.docker.image.rootfs.diff.tar.gzip"), name)
    });
    let mut attestation = images[0].clone();
    attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    let mut nested = scratch.nested(&json!({ "manifests": [images[0], images[1], attestation] }));
    nested["mediaType"] = "application/vnd.oci.image.index.v1+json".into();
    nested["annotations"] = json!({ "org.opencontainers.image.ref.name": "tag" });
    let layout = scratch.index(&[nested]);
    for name in ["amd64", "arm64"] {
        for reference in [&layout, &format!("{layout}:tag")] {
            let parent = read_with(reference, Some(name), &[]).expect("valid");
            assert_eq!(parent.root.texts["etc/passwd"], name);
        }
    }
    let error = message(read_with(&layout, Some("riscv64"), &[]));
    assert!(error.contains("no image for linux/riscv64; it has: linux/amd64, linux/arm64"), "{error}");
    let error = message(read_with(&layout, None, &[]));
    assert!(error.contains("for several platforms") && error.contains("linux/arm64"), "{error}");
    let error = message(read_with(&format!("{layout}:other"), None, &[]));
    assert!(error.contains("no image with the tag \"other\"; it has: tag"), "{error}");
    let registries = stowage::registry::Registries::default();
    let all = |reference: &str| {
        let found = parts::find(&reference.parse().expect("a reference"), &registries, Choice::All).expect("valid");
        found.into_iter().map(|found| found.platform.expect("told").to_string()).collect::<Vec<_>>()
    };
    assert_eq!(all(&layout), ["linux/amd64", "linux/arm64"]);
    // The image without its attestation is the only one.
    let layout = scratch.index(&[images[1].clone(), attestation]);
    assert_eq!(read_with(&layout, None, &[]).expect("valid").root.texts["etc/passwd"], "arm64");
}

#[test]
fn an_index_leads_to_so_many_images_at_most() {
    let scratch = Scratch::new();
    let tar = tar_of(&[("etc/passwd", b"root")]);
    let mut index = scratch.layout(&tar, &tar, "application/vnd.oci.image.layer.v1.tar");
    // Seven within each other would be ten million.
    for level in 0..7 {
        let entries = vec![index; 10];
        index = scratch.nested(&json!({ "level": level, "manifests": entries }));
    }
    let layout = scratch.index(&[index]).parse().expect("a reference");
    let registries = stowage::registry::Registries::default();
    let error = parts::find(&layout, &registries, Choice::All).map(|_| ()).expect_err("too many").to_string();
    assert!(error.contains("more than 1000 images"), "{error}");
    let empty = scratch.nested(&json!({ "manifests": [] }));
    let error = message(read_with(&scratch.index(&[empty]), None, &[]));
    assert!(error.contains("lists no image"), "{error}");
}

#[test]
fn of_variants_the_one_that_was_named_is_read_or_else_the_best() {
    let scratch = Scratch::new();
    let registries = stowage::registry::Registries::default();
    let image = |architecture: &str, variant: Option<&str>| {
        let tar = tar_of(&[("etc/passwd", format!("{architecture}{variant:?}").as_bytes())]);
        let mut image = platform(scratch.layout(&tar, &tar, "application/vnd.oci.image.layer.v1.tar"), architecture);
        if let Some(variant) = variant {
            image["platform"]["variant"] = variant.into();
        }
        image
    };
    let images = [
        image("amd64", Some("v3")),
        image("amd64", None),
        image("arm", Some("v7")),
        image("arm", Some("v6")),
        image("arm64", Some("v8")),
    ];
    let index = scratch.nested(&json!({ "manifests": images }));
    let layout = scratch.index(&[index]).parse().expect("a reference");
    for (wanted, expected) in [
        ("linux/amd64", Ok("linux/amd64")),
        ("linux/amd64/v3", Ok("linux/amd64/v3")),
        ("linux/amd64/v2", Err("no image for linux/amd64/v2; it has: linux/amd64/v3, linux/amd64, linux/arm/v7")),
        ("linux/arm", Ok("linux/arm/v7")),
        ("linux/arm/v6", Ok("linux/arm/v6")),
        ("linux/arm64", Ok("linux/arm64/v8")),
        ("windows/amd64", Err("no image for windows/amd64")),
    ] {
        let platform = wanted.parse().expect(wanted);
        match (parts::find_one(&layout, &registries, Some(&platform)), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.platform.expect("told").to_string(), expected, "{wanted}"),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (found, _) => panic!("{wanted}: {:?}", found.map(|found| found.platform)),
        }
    }
}

#[test]
fn an_oci_archive_is_read_as_its_layout() {
    let scratch = Scratch::new();
    let tar = tar_of(&[("etc/passwd", b"root")]);
    let image = scratch.layout(&tar, &tar, "application/vnd.oci.image.layer.v1.tar");
    scratch.index(&[image]);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all(".", scratch.0.path().join("layout")).expect("readable");
    let archive = builder.into_inner().expect("memory");
    for (name, bytes) in [("a.tar", archive.clone()), ("a.tar.gz", gzip(&archive))] {
        let file = scratch.write(name, &bytes);
        let parent = read_with(&format!("oci-archive:{}", file.display()), None, &[]).expect("valid");
        assert_eq!(parent.root.texts["etc/passwd"], "root");
    }
}

#[test]
fn what_the_visible_database_does_not_know_is_found_elsewhere() {
    let scratch = Scratch::new();
    let db = "nix/var/nix/db/db.sqlite";
    let lower = database(vec![info("a", &["d"]), info("b", &["b"]), info("c", &["x"]), info("d", &[]), info("x", &[])]);
    let upper = database(vec![info("d", &["x"]), info("x", &[])]);
    let mentions = format!("see {}", path("d").to_basename());
    let layers: [Files<'_>; 2] = [
        &[(&file("a"), b"a"), (&file("b"), b"b"), (&file("c"), mentions.as_bytes()), (db, &lower)],
        &[(&file("d"), b"d"), (&file("f"), b"f"), (db, &upper)],
    ];
    let archive = docker_archive(&layers.map(tar_of).map(|tar| (tar.clone(), tar)));
    let reference = format!("docker-archive:{}", scratch.write("a.tar", &archive).display());
    let host = [info("f", &["a", "f"]), info("c", &["y"])];
    let parent = read_with(&reference, None, &host).expect("valid");
    let by_path: BTreeMap<_, _> = parent.registrations.iter().map(|info| (info.path.clone(), info)).collect();
    assert_eq!(by_path.keys().cloned().collect::<Vec<_>>(), ["a", "b", "c", "d", "f"].map(path));
    assert_eq!(by_path[&path("a")], &info("a", &["d"]));
    assert_eq!(by_path[&path("f")], &info("f", &["a", "f"]));
    // The database that counts is believed, but for what is not there.
    assert_eq!(by_path[&path("d")], &info("d", &[]));
    // Both that know of c mean another one: it is looked into.
    assert_eq!(by_path[&path("c")].references, [path("d")]);
    assert_ne!(by_path[&path("c")].nar_hash, info("c", &[]).nar_hash);
}

#[test]
fn hidden_store_paths_and_databases_are_hidden() {
    let db = database(vec![info("a", &[]), info("b", &[])]);
    let whiteout = format!("nix/store/.wh.{}", path("a").to_basename());
    let files: Files<'_> = &[(&file("a"), b"a"), (&file("b"), b"b"), ("nix/var/nix/db/db.sqlite", &db)];
    let parent = Scratch::new().read(&[files, &[(&whiteout, b"")]]).expect("valid");
    assert_eq!(parent.registrations, [info("b", &[])]);
    let parent = Scratch::new().read(&[files, &[("nix/.wh..wh..opq", b"")]]).expect("valid");
    assert_eq!((parent.registrations.len(), parent.root.entries.len()), (0, 1));
    // A database that is gone still tells of what it was made for.
    let parent = Scratch::new().read(&[files, &[(".wh.nix", b""), (&file("b"), b"b")]]).expect("valid");
    assert_eq!(parent.registrations, [info("b", &[])]);
}

#[test]
fn texts_are_those_that_links_lead_to() {
    let store = format!("nix/store/{}", path("a").to_basename());
    let (link, inner, conf) =
        (format!("etc/nix -> /{store}/etc"), format!("{store}/etc/nix.conf -> ../conf"), format!("{store}/conf"));
    let files: Files<'_> = &[
        ("etc/passwd -> ../usr/../usr/passwd", b""),
        ("usr/passwd", b"root"),
        ("etc/group -> group", b""),
        (&link, b""),
        (&inner, b""),
        (&conf, b"sandbox = false"),
    ];
    let parent = Scratch::new().read(&[files]).expect("valid");
    let expected = [("etc/passwd", "root".to_owned()), ("etc/nix/nix.conf", "sandbox = false".to_owned())];
    assert_eq!(parent.root.texts, BTreeMap::from(expected));
}

#[test]
fn bad_layers_are_told_by_number_and_digest() {
    let scratch = Scratch::new();
    let good = tar_of(&[("etc/passwd", b"root")]);
    let zeros = gzip(&vec![0; 40 << 20]);
    let cut = |bytes: &[u8]| bytes[..bytes.len() - 20].to_vec();
    for (blob, tar, problem) in [
        (good.clone(), b"other".to_vec(), "uncompressed the digest"),
        (cut(&gzip(&good)), good.clone(), "is cut off"),
        (cut(&xz(&good)), good.clone(), "is cut off"),
        (good[..700].to_vec(), good.clone(), "is cut off"),
        (zeros, good.clone(), "follow its end"),
        (vec![b'x'; 2000], good.clone(), "no tar"),
        (tar_of(&[("nix/var/nix/db/db.sqlite", b"none")]), Vec::new(), "database"),
        (tar_of(&[("a -> /etc", b""), ("a/passwd", b"root")]), Vec::new(), "leads through \"a\""),
        (tar_of(&[("a/.wh...", b"")]), Vec::new(), "removes what has no name"),
    ] {
        let tar = if tar.is_empty() { blob.clone() } else { tar };
        let error = message(scratch.read_blobs(&[(good.clone(), good.clone()), (blob, tar.clone())]));
        assert!(error.contains("layer 2 of docker-archive:") && error.contains(problem), "{error}");
        assert!(error.contains(&Digest::of(&tar).to_string()), "{error}");
    }
}

#[test]
fn blobs_that_are_not_what_a_manifest_says_are_refused() {
    let scratch = Scratch::new();
    let tar = tar_of(&[("etc/passwd", b"root")]);
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let reference = scratch.index(&[scratch.layout(&tar, &tar, &format!("{kind}+encrypted"))]);
    assert!(message(read_with(&reference, None, &[])).contains("which stowage does not know"));
    let reference = scratch.index(&[scratch.layout(&tar, &tar, kind)]);
    let blob = scratch.0.path().join("layout/blobs/sha256").join(Digest::of(&tar).to_hex());
    let mut other = tar.clone();
    other[0] ^= 1;
    std::fs::write(&blob, &tar[..tar.len() - 512]).expect("writable");
    assert!(message(read_with(&reference, None, &[])).contains("bytes long, and should be"));
    std::fs::write(&blob, tar_of(&[("etc/passwd", b"toor")])).expect("writable");
    let error = read_with(&reference, None, &[]).map(|_| ()).expect_err("changed");
    assert!(
        matches!(&error, ParentError::Layer { number: 1, problem, .. } if matches!(**problem, LayerProblem::Digest { .. })),
        "{error}"
    );
    std::fs::remove_file(&blob).expect("deleted");
    assert!(message(read_with(&reference, None, &[])).contains("has no layer 1"));
    pipe(&blob);
    assert!(message(read_with(&reference, None, &[])).contains("no regular file"));
}

/// What can be read in two ways is refused, since others may have read it in the other.
#[test]
fn manifests_that_are_two_things_are_refused() {
    let scratch = Scratch::new();
    let tar = tar_of(&[("etc/passwd", b"root")]);
    let image = scratch.layout(&tar, &tar, "application/vnd.oci.image.layer.v1.tar");
    read_with(&scratch.index(std::slice::from_ref(&image)), None, &[]).map(|_| ()).expect("right");
    let file = scratch.0.path().join("layout/blobs/sha256").join(&image["digest"].as_str().expect("a digest")[7..]);
    let manifest: Value = serde_json::from_slice(&std::fs::read(file).expect("readable")).expect("JSON");
    let (digest, index) = (|value: &Value| scratch.blob(value.to_string().as_bytes()), json!([image]));
    let with = |key: &str, value: Value| {
        let mut changed = manifest.clone();
        changed[key] = value;
        digest(&changed)
    };
    let as_index = |mut descriptor: Value| {
        descriptor["mediaType"] = INDEX.into();
        descriptor
    };
    let sized = |mut descriptor: Value| {
        descriptor["size"] = 12.into();
        descriptor
    };
    for (descriptor, part) in [
        (with("manifests", index.clone()), "is an index as well"),
        (with("mediaType", INDEX.into()), "something else than"),
        (as_index(image.clone()), "something else than"),
        (as_index(with("mediaType", MANIFEST.into())), "something else than"),
        (digest(&json!({ "manifests": index })), "something else than"),
        (with("schemaVersion", 1.into()), "old schema 1"),
        (sized(image.clone()), "is said to have 12"),
        (with("config", sized(manifest["config"].clone())), "is said to have 12"),
    ] {
        let error = message(read_with(&scratch.index(&[descriptor]), None, &[]));
        assert!(error.contains(part), "{error}");
    }
}

fn pipe(path: &Path) {
    let status = std::process::Command::new("mkfifo").arg(path).status().expect("runs");
    assert!(status.success());
}

#[test]
fn archives_that_are_none_or_cut_off_are_told() {
    let scratch = Scratch::new();
    let tar = tar_of(&[("etc/passwd", b"root")]);
    let archive = docker_archive(&[(tar.clone(), tar)]);
    let compressed = gzip(&archive);
    for (bytes, problem) in [
        (&archive[..archive.len() / 2], "cut off"),
        (&compressed[..compressed.len() / 2], "cut off"),
        (&archive[..1024], "has no config.json"),
        (b"no archive at all", "no archive of an image"),
    ] {
        let file = scratch.write("bad", bytes);
        let error = message(read_with(&format!("docker-archive:{}", file.display()), None, &[]));
        assert!(error.contains(problem), "{error}");
    }
    assert!(message(read_with("docker-archive:/nowhere", None, &[])).contains("/nowhere"));
    assert!(message(read_with("stowage:/nowhere", None, &[])).contains("no image folder"));
}
