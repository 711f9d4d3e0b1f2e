//! Images of a small store on images of it, without Nix.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::collections::BTreeSet;

use serde_json::Value;
use support::{ENVIRONMENT, HELLO, LIBRARY, Scratch, printed};

/// A parent in every form that this version writes; their names.
fn parents(scratch: &Scratch, spec: &str) -> Vec<&'static str> {
    scratch.write("parent.json", spec);
    let to = ["--to", "stowage:parent", "--to", "oci:layout:x", "--to", "docker-archive:parent.tar"];
    scratch.built(&[&["--spec", "parent.json", &printed(LIBRARY), "--name", "parent"], &to[..]].concat());
    vec!["parent", "stowage:parent", "layout", "oci:layout:x", "parent.tar", "docker-archive:parent.tar"]
}

fn inspect(scratch: &Scratch, image: &str) -> Value {
    let output = scratch.stowage(&["inspect", "--json", image]).assert().success();
    serde_json::from_slice(&output.get_output().stdout).expect("JSON")
}

fn diff_ids(image: &Value) -> Vec<String> {
    let layers = image["layers"].as_array().expect("a list");
    layers.iter().map(|layer| layer["diffId"].as_str().expect("a digest").to_owned()).collect()
}

/// The base names of all store paths that the layers' comments name.
fn paths(image: &Value) -> Vec<String> {
    let comments = image["layers"].as_array().expect("a list").iter().filter_map(|layer| layer["comment"].as_str());
    let paths = comments.filter_map(|comment| comment.strip_prefix("store paths: ")).flat_map(str::split_whitespace);
    paths.map(|path| path.rsplit('/').next().expect("a name").to_owned()).collect()
}

fn fails(scratch: &Scratch, arguments: &[&str], code: i32, message: &str) {
    let output = scratch.build(arguments).assert().code(code).get_output().stderr.clone();
    let text = String::from_utf8_lossy(&output).into_owned();
    assert!(text.contains(message), "{text}");
}

#[test]
fn an_image_has_the_same_digest_whatever_form_its_parent_has() {
    let scratch = Scratch::new();
    let mut digests = BTreeSet::new();
    for parent in parents(&scratch, "{}") {
        for to in ["stowage:child", "oci:child-layout", "docker-archive:child.tar"] {
            let built = scratch.built(&[&printed(ENVIRONMENT), "--name", "child", "--from", parent, "--to", to]);
            digests.insert(built["digest"].as_str().expect("a digest").to_owned());
        }
    }
    assert_eq!(digests.len(), 1, "{digests:?}");
    let (parent, child) = (inspect(&scratch, "stowage:parent"), inspect(&scratch, "stowage:child"));
    assert_eq!(diff_ids(&child)[..diff_ids(&parent).len()], diff_ids(&parent));
    let paths = paths(&child);
    let once: BTreeSet<&String> = paths.iter().collect();
    assert_eq!(once.len(), paths.len(), "{paths:?}");
    assert!([LIBRARY, HELLO, ENVIRONMENT].iter().all(|path| paths.contains(&(*path).to_owned())), "{paths:?}");
    // And what is copied from the folder is what went there at once.
    scratch.stowage(&["copy", "stowage:child", "oci:copied", "--store", "root"]).assert().success();
    assert_eq!(inspect(&scratch, "oci:copied")["digest"], inspect(&scratch, "oci:child-layout")["digest"]);
    scratch.stowage(&["copy", "stowage:child", "docker-archive:copied.tar", "--store", "root"]).assert().success();
    assert_eq!(diff_ids(&inspect(&scratch, "docker-archive:copied.tar")), diff_ids(&child));
}

#[test]
fn with_nothing_new_only_the_config_is_another() {
    let scratch = Scratch::new();
    parents(&scratch, r#"{"config": {"Cmd": ["/bin/x"], "Env": ["A=1"]}}"#);
    scratch.write("spec.json", r#"{"fromImage": "parent", "config": {"Env": ["B=2"]}}"#);
    scratch.built(&["--spec", "spec.json", &printed(LIBRARY), "--name", "first", "--to", "stowage:first"]);
    let same = ["--spec", "spec.json", &printed(LIBRARY), "--name", "same", "--from", "first"];
    scratch.built(&[&same[..], &["--to", "stowage:same"]].concat());
    let [parent, first, child] = ["parent", "first", "same"].map(|name| inspect(&scratch, &format!("stowage:{name}")));
    assert_eq!(diff_ids(&first)[..2], diff_ids(&parent));
    // What lies on a parent's /etc is less than what lies on nothing, but no less again.
    assert_eq!(diff_ids(&child), diff_ids(&first));
    let container = &child["config"]["config"];
    assert_eq!(container["Cmd"], serde_json::json!(["/bin/x"]));
    let env = container["Env"].as_array().expect("a list");
    assert!(env.contains(&"A=1".into()) && env.contains(&"B=2".into()), "{env:?}");
    // Without contents, their links go; with no path, nothing else does.
    scratch.write("spec.json", r#"{"config": {"Env": ["B=2"]}}"#);
    scratch.built(&["--spec", "spec.json", "--from", "parent", "--name", "config"]);
    assert_eq!(paths(&inspect(&scratch, "stowage:image")), paths(&parent));
}

#[test]
fn a_chain_of_six_needs_no_number_of_layers() {
    let scratch = Scratch::new();
    parents(&scratch, "{}");
    let mut parent = "stowage:parent".to_owned();
    for number in 2..=6 {
        let to = format!("stowage:image{number}");
        let path = printed([HELLO, ENVIRONMENT][number % 2]);
        scratch.write("spec.json", &format!(r#"{{"user": {{"uid": {number}}}}}"#));
        scratch.built(&[&path, "--spec", "spec.json", "--from", &parent, "--name", "x", "--to", &to]);
        parent = to;
    }
    assert_eq!(inspect(&scratch, &parent)["config"]["config"]["User"], "6:6");
}

#[test]
fn what_does_not_fit_its_parent_is_refused_with_both_named() {
    let scratch = Scratch::new();
    parents(&scratch, "{}");
    let path = printed(HELLO);
    fails(
        &scratch,
        &[&path, "--from", "parent", "--max-layers", "3"],
        2,
        "stowage:parent has 2, and the image needs 4",
    );
    fails(&scratch, &[&path, "--from", "none"], 2, "none is not there");
    fails(&scratch, &[&path, "--from", "oci:none"], 6, "none");
    scratch.write("spec.json", r#"{"architecture": "riscv64", "fromImage": "parent"}"#);
    fails(&scratch, &[&path, "--spec", "spec.json"], 2, "for riscv64, and its parent stowage:parent for arm64");
    let connection = rusqlite::Connection::open(scratch.database()).expect("a database");
    let hash = format!("sha256:{}", "07".repeat(32));
    let changed = connection
        .execute("update ValidPaths set hash = ?1 where path = ?2", rusqlite::params![hash, printed(LIBRARY)]);
    assert_eq!(changed.expect("a row"), 1);
    fails(&scratch, &[&path, "--from", "layout"], 5, &format!("{} has the NAR hash {hash} here", printed(LIBRARY)));
}

#[test]
fn a_blob_that_was_damaged_is_not_taken() {
    let scratch = Scratch::new();
    parents(&scratch, "{}");
    scratch.built(&[&printed(HELLO), "--from", "layout", "--name", "child", "--to", "stowage:child"]);
    // The parent's layers are blobs of the folder; one of them is spoiled.
    let blobs = scratch.path("child/blobs/sha256");
    let digest = diff_ids(&inspect(&scratch, "stowage:child"))[0].trim_start_matches("sha256:").to_owned();
    let mut bytes = std::fs::read(blobs.join(&digest)).expect("a blob");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(blobs.join(&digest), bytes).expect("writable");
    let output = scratch.stowage(&["copy", "stowage:child", "oci:copied", "--store", "root"]).assert().code(6);
    let text = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(text.contains("other bytes than its digest says"), "{text}");
    assert!(!scratch.path("copied/blobs/sha256").join(digest).exists());
}

#[test]
fn the_hook_of_a_parent_is_not_added_again() {
    let scratch = Scratch::new();
    scratch.write("spec.json", r#"{"hook": true}"#);
    scratch.built(&["--spec", "spec.json", &printed(LIBRARY), "--name", "a", "--to", "stowage:parent"]);
    scratch.built(&[
        "--spec",
        "spec.json",
        &printed(HELLO),
        "--name",
        "b",
        "--from",
        "parent",
        "--to",
        "stowage:child",
    ]);
    let child = inspect(&scratch, "stowage:child");
    let comments = child["layers"].as_array().expect("a list").iter().map(|layer| layer["comment"].as_str());
    assert_eq!(comments.filter(|comment| *comment == Some("stowage and its post-build hook")).count(), 1);
}
