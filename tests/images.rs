//! Images of a small store, without Nix: their bytes, and what of them depends on
//! what.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use stowage::cli::exit::Exit;
use stowage::layer::Stamp;
use stowage::layer::pack::StoreLayer;
use stowage::layer::stream;
use stowage::store::{StoreDir, StorePath};
use stowage::tree::StoreFiles;
use support::{ENVIRONMENT, HELLO, LIBRARY, Scratch, printed, registration, tar_names};

/// The digest of the image of the small store: it may change only together with
/// the version of the tar's, the database's or the system layer's form, or what the config says by default.
const GOLDEN: &str = "sha256:7cd6b1d1406f0416d7436fc7ce2baaad05d3bfd009b29c185ae138309beaacae";

/// Likewise, of its store layers alone: layer tar v1.
const GOLDEN_LAYERS: [&str; 3] = [
    "sha256:2cb35a95a7c08a93187a5be5c7f78ccd3705a242ddc481c3973a061a8e2c5785",
    "sha256:b6d0c8618f21f222645aa357c7fa21f9ec2615b72fa76cfa13b9cbe13e7c1e35",
    "sha256:c34821f3ef4b2f7cc808099bf3e4f3f7c4d10b2df34d62a318432dfe495ca7ec",
];

#[test]
fn the_image_of_the_small_store_has_these_digests() {
    let scratch = Scratch::new();
    let built = scratch.built(&[&printed(ENVIRONMENT), "--name", "golden", "--strategy", "popularity"]);
    let layers: Vec<&str> = built["layers"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|layer| layer["diffId"].as_str().expect("a digest"))
        .collect();
    assert_eq!(layers[..3], GOLDEN_LAYERS);
    assert_eq!(built["digest"], GOLDEN);
}

#[test]
fn the_digest_depends_on_arguments_only() {
    let path = printed(ENVIRONMENT);
    let digest = |prepare: &dyn Fn(&Scratch), arguments: &[&str], environment: &[(&str, &str)]| {
        let scratch = Scratch::new();
        prepare(&scratch);
        let mut command = scratch.build(&[&path, "--name", "golden", "--strategy", "popularity", "--json"]);
        command.args(arguments).envs(environment.iter().copied());
        let output = command.assert().success().get_output().stdout.clone();
        let built: Value = serde_json::from_slice(&output).expect("JSON");
        assert_eq!(built["digest"], GOLDEN, "{arguments:?} {environment:?}");
    };
    let nothing = |_: &Scratch| {};
    for jobs in ["1", "2", "7"] {
        digest(&nothing, &["--jobs", jobs], &[]);
    }
    digest(&nothing, &[], &[("TZ", "Asia/Kathmandu"), ("LC_ALL", "tr_TR.UTF-8"), ("SOURCE_DATE_EPOCH", "7")]);
    for destination in ["oci:layout", "docker-archive:archive.tar", "stowage:other"] {
        digest(&nothing, &["--to", destination], &[]);
    }
    digest(&|scratch| drop(scratch.write("registration", &registration())), &["--registration", "registration"], &[]);
    let touched = |scratch: &Scratch| {
        let file = scratch.store_file(HELLO).join("bin/hello");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o777)).expect("writable");
        std::fs::hard_link(file, scratch.path("link")).expect("writable");
    };
    digest(&touched, &[], &[]);
}

#[test]
fn json_of_the_closure_gives_the_same_image() {
    let scratch = Scratch::new();
    let infos = stowage::store::dump::parse(&registration(), &StoreDir::default()).expect("valid");
    let entries: Vec<Value> = infos
        .iter()
        .rev()
        .map(|info| {
            let references: Vec<String> = info.references.iter().map(ToString::to_string).collect();
            serde_json::json!({ "path": info.path.to_string(), "narHash": info.nar_hash.to_hex(), "narSize": info.nar_size, "references": references })
        })
        .collect();
    scratch.write("closure.json", &Value::from(entries).to_string());
    let built = scratch.built(&[
        &printed(ENVIRONMENT),
        "--name",
        "golden",
        "--strategy",
        "popularity",
        "--closure",
        "closure.json",
    ]);
    assert_eq!(built["digest"], GOLDEN);
}

#[test]
fn another_store_dir_works_and_gives_another_image() {
    let scratch = Scratch::new();
    std::fs::rename(scratch.root().join("nix/store"), scratch.root().join("gnu-store")).expect("writable");
    let store_dir = scratch.root().join("gnu-store").to_str().expect("ASCII").to_owned();
    scratch.write("registration", &registration().replace("/nix/store", &store_dir));
    let path = format!("{store_dir}/{HELLO}");
    let output = scratch
        .stowage(&["build", "--registration", "registration", &path, "--to", "oci:layout", "--json"])
        .env("NIX_STORE_DIR", &store_dir)
        .assert()
        .success();
    let built: Value = serde_json::from_slice(&output.get_output().stdout).expect("JSON");
    let layer = built["layers"][0]["diffId"].as_str().expect("a digest").trim_start_matches("sha256:").to_owned();
    let names = tar_names(&std::fs::read(scratch.path("layout/blobs/sha256").join(layer)).expect("a blob"));
    assert!(
        names.iter().any(|name| name.starts_with(store_dir.trim_start_matches('/')) && name.ends_with("liblibrary.so")),
        "{names:?}"
    );
}

#[test]
fn the_image_has_the_closure_of_its_config_unasked() {
    let scratch = Scratch::new();
    scratch.write("registration", &registration());
    let shell = format!("{}/bin/hello", printed(HELLO));
    for spec in [
        serde_json::json!({ "config": { "Cmd": [shell] } }),
        serde_json::json!({ "config": { "Env": [format!("CACHE=file://{}?trusted=1", printed(HELLO))] } }),
        serde_json::json!({ "config": { "Labels": { "see": format!("{}.", printed(HELLO)) } } }),
        serde_json::json!({ "user": { "shell": shell } }),
        serde_json::json!({ "nixConf": { "post-build-hook": shell } }),
    ] {
        scratch.write("spec.json", &spec.to_string());
        for source in [&[][..], &["--registration", "registration", &printed(LIBRARY)]] {
            scratch.built(&[&["--spec", "spec.json"], source].concat());
            let image = std::fs::read_to_string(scratch.path("image/stowage.json")).expect("an image");
            assert!(image.contains(HELLO) && image.contains(LIBRARY) && !image.contains(ENVIRONMENT), "{spec}");
        }
        // A file without a PATH is there for all that it has.
        scratch.built(&["--spec", "spec.json", "--registration", "registration"]);
        assert!(std::fs::read_to_string(scratch.path("image/stowage.json")).expect("an image").contains(ENVIRONMENT));
    }
}

#[test]
fn the_architecture_is_that_of_the_files_or_of_the_spec() {
    let scratch = Scratch::new();
    scratch.built(&[&printed(HELLO)]);
    let config = |scratch: &Scratch| -> Value {
        let output = scratch.stowage(&["inspect", "--json", "stowage:image"]).assert().success();
        serde_json::from_slice(&output.get_output().stdout).expect("JSON")
    };
    assert_eq!(config(&scratch)["config"]["architecture"], "arm64");
    scratch.write("spec.json", r#"{"architecture": "riscv64"}"#);
    scratch.built(&[&printed(HELLO), "--spec", "spec.json"]);
    assert_eq!(config(&scratch)["config"]["architecture"], "riscv64");
}

#[test]
fn rows_are_exactly_the_paths_on_disk() {
    let scratch = Scratch::new();
    let built = scratch.built(&[&printed(ENVIRONMENT), "--to", "oci:layout", "--max-layers", "3"]);
    let mut folders = BTreeSet::new();
    let mut rows = BTreeSet::new();
    for layer in built["layers"].as_array().expect("a list") {
        let digest = layer["diffId"].as_str().expect("a digest").trim_start_matches("sha256:");
        let bytes = std::fs::read(scratch.path("layout/blobs/sha256").join(digest)).expect("a blob");
        let below =
            |name: &String| name.strip_prefix("nix/store/").and_then(|name| name.split('/').next().map(str::to_owned));
        folders.extend(tar_names(&bytes).iter().filter_map(below).filter(|name| !name.is_empty()));
        rows.extend(database_rows(&bytes));
    }
    assert_eq!(folders, rows);
    assert_eq!(rows.len(), 3);
}

#[test]
fn a_layout_gets_layers_that_are_known_and_not_there_beside_unknown_ones() {
    // What is known of which layers, and what is there, must not mix them up.
    for known in [HELLO, LIBRARY] {
        let scratch = Scratch::new();
        scratch.built(&[&printed(known)]);
        let built = scratch.built(&[
            &printed(ENVIRONMENT),
            "--name",
            "golden",
            "--strategy",
            "popularity",
            "--to",
            "oci:layout",
        ]);
        assert_eq!(built["digest"], GOLDEN);
        let again = scratch.built(&[
            &printed(ENVIRONMENT),
            "--name",
            "golden",
            "--strategy",
            "popularity",
            "--to",
            "oci:other",
        ]);
        assert_eq!(again["digest"], GOLDEN);
        let there = support::names(&scratch.path("layout/blobs/sha256"));
        for layer in built["layers"].as_array().expect("a list") {
            let digest = layer["diffId"].as_str().expect("a digest").trim_start_matches("sha256:");
            let bytes = std::fs::read(scratch.path("layout/blobs/sha256").join(digest)).expect("a blob");
            assert_eq!(stowage::digest::Digest::of(&bytes).to_hex(), digest);
        }
        assert_eq!(there.len(), 6, "config, manifest, four layers: {there:?}");
    }
}

#[test]
fn a_file_that_changes_after_it_was_looked_at_is_an_error() {
    let scratch = Scratch::new();
    let files = StoreFiles::open(&scratch.root().join("nix/store")).expect("a folder");
    let path = StorePath::from_basename(HELLO.as_bytes()).expect("valid");
    let (store_dir, stamp) = (StoreDir::default(), Stamp::default());
    let readme = scratch.store_file(HELLO).join("share/doc/README");
    for text in ["", "do", "doc\nand more"] {
        std::fs::write(&readme, "doc\n").expect("writable");
        let layer = StoreLayer::walk(&files, &store_dir, &stamp, std::slice::from_ref(&path)).expect("readable");
        std::fs::write(&readme, text).expect("writable");
        for result in
            [stream::hash_here(&layer, &mut std::io::sink()), stream::hash_aside(&layer, &mut std::io::sink())]
        {
            let error = result.expect_err("changed");
            assert!(error.to_string().contains("README changed while it was read: it was 4 bytes long"), "{error}");
            assert_eq!(Exit::of(&error.into()), Exit::StorePath);
        }
    }
}

#[test]
fn both_ways_of_hashing_come_to_the_same() {
    let scratch = Scratch::new();
    let files = StoreFiles::open(&scratch.root().join("nix/store")).expect("a folder");
    let path = StorePath::from_basename(LIBRARY.as_bytes()).expect("valid");
    // More than one chunk, and an end that fills a chunk.
    for size in [0, 1, 511, 512, 262_144 - 512, 262_144, 3 * 262_144 + 77] {
        std::fs::write(scratch.store_file(LIBRARY).join("lib/zeros"), vec![0; size]).expect("writable");
        let (store_dir, stamp) = (StoreDir::default(), Stamp::default());
        let layer = StoreLayer::walk(&files, &store_dir, &stamp, std::slice::from_ref(&path)).expect("readable");
        let mut bytes = Vec::new();
        let here = stream::hash_here(&layer, &mut bytes).expect("readable");
        assert_eq!(here, stream::hash_aside(&layer, &mut std::io::sink()).expect("readable"));
        assert_eq!(here, stream::hash_ahead(&layer, &stream::Buffers::default()).expect("readable").0);
        assert_eq!(here.size, bytes.len() as u64);
        assert_eq!(here.diff_id, stowage::digest::Digest::of(&bytes));
    }
}

#[test]
fn an_image_with_the_hook_has_this_very_program() {
    let scratch = Scratch::new();
    scratch.write("spec.json", r#"{"hook": true}"#);
    for destination in ["oci:layout", "docker-archive:archive.tar", "stowage:image"] {
        scratch.built(&[&printed(HELLO), "--spec", "spec.json", "--to", destination, "--max-layers", "3"]);
    }
    let built = scratch.built(&[&printed(HELLO), "--spec", "spec.json", "--to", "oci:layout", "--max-layers", "3"]);
    let layer = |number: usize| {
        let digest = built["layers"][number]["diffId"].as_str().expect("a digest").trim_start_matches("sha256:");
        std::fs::read(scratch.path("layout/blobs/sha256").join(digest)).expect("a blob")
    };
    let program = std::fs::read(env!("CARGO_BIN_EXE_stowage")).expect("readable");
    assert!(file_in(&layer(1), "usr/bin/stowage") == Some(program), "another program");
    assert!(tar_names(&layer(1)).contains(&"usr/bin/stowage-hook".to_owned()));
    let settings = file_in(&layer(2), "etc/nix/nix.conf").expect("settings");
    assert!(String::from_utf8_lossy(&settings).contains("post-build-hook = /usr/bin/stowage-hook\n"));
}

#[test]
fn the_program_needs_no_libraries() {
    // It must run in images that have none.
    let program = std::fs::read(env!("CARGO_BIN_EXE_stowage")).expect("readable");
    assert!(!program.windows(10).any(|bytes| bytes == b"/ld-linux-"), "it names a loader");
}

#[test]
fn completions_and_manual_pages_are_there() {
    let scratch = Scratch::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = scratch.stowage(&["completions", shell]).assert().success();
        assert!(String::from_utf8_lossy(&output.get_output().stdout).contains("max-layers"));
    }
    let output = scratch.stowage(&["man"]).assert().success();
    assert!(String::from_utf8_lossy(&output.get_output().stdout).starts_with(".ie"));
    scratch.stowage(&["man", "--directory", "man"]).assert().success();
    assert!(support::names(&scratch.path("man")).contains(&"stowage-build.1".to_owned()));
}

#[test]
fn every_command_says_how_it_is_used() {
    let scratch = Scratch::new();
    for command in ["build", "plan", "copy", "inspect", "hook", "cache", "env"] {
        let output = scratch.stowage(&[command, "--help"]).assert().success();
        assert!(String::from_utf8_lossy(&output.get_output().stdout).contains("Usage: stowage"));
    }
    scratch.stowage(&["bild"]).assert().code(2);
}

/// The bytes of a file in a tar.
fn file_in(tar: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("valid");
        if entry.path().expect("a path").as_ref() == std::path::Path::new(name) {
            let mut bytes = Vec::new();
            std::io::copy(&mut entry, &mut bytes).expect("readable");
            return Some(bytes);
        }
    }
    None
}

/// The base names of the paths that the database in a layer knows.
fn database_rows(layer: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(layer);
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("valid");
        if entry.path().expect("a path").ends_with("db.sqlite") {
            let mut file = tempfile::NamedTempFile::new().expect("a file");
            std::io::copy(&mut entry, &mut file).expect("writable");
            let database = rusqlite::Connection::open(file.path()).expect("a database");
            let mut query = database.prepare("select path from ValidPaths").expect("the table");
            let rows = query.query_map([], |row| row.get::<_, String>(0)).expect("rows");
            return rows.map(|row| row.expect("text").trim_start_matches("/nix/store/").to_owned()).collect();
        }
    }
    Vec::new()
}
