//! Parents of every form are read, and bad ones refused with their reasons.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod forms;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use forms::{
    Files, INDEX, MANIFEST, Scratch, database, docker_archive, file, gzip, info, message, path, read_with, tar_of,
};
use serde_json::{Value, json};
use stowage::digest::Digest;
use stowage::parent::{LayerBytes, LayerProblem, Node, ParentError};
use stowage::store::StorePath;

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
