//! Compressed layers, and copies from any place to any other.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::io::Read as _;

use serde_json::Value;
use stowage::digest::Digest;
use support::{ENVIRONMENT, Scratch, names, printed};

/// What a command prints as JSON.
fn json(scratch: &Scratch, arguments: &[&str]) -> Value {
    let output = scratch.stowage(arguments).assert().success();
    serde_json::from_slice(&output.get_output().stdout).expect("JSON")
}

/// What `stowage copy FROM TO … --json` says.
fn copied(scratch: &Scratch, from: &str, to: &str, more: &[&str]) -> Value {
    let root = scratch.root();
    let root = root.to_str().expect("ASCII");
    json(scratch, &[&["copy", from, to, "--json", "--store", root], more].concat())
}

fn field(layer: &Value, of: &str, key: &str) -> String {
    layer[of][key].as_str().expect(key).to_owned()
}

fn diff_ids(image: &Value) -> Vec<&str> {
    image["layers"].as_array().expect("a list").iter().map(|layer| layer["diffId"].as_str().expect("a text")).collect()
}

fn decompress(media_type: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match media_type.rsplit('.').next() {
        Some("tar+gzip") => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut out).map(drop).expect("gzip"),
        Some("tar+zstd") => out = zstd::decode_all(bytes).expect("zstd"),
        _ => out = bytes.to_vec(),
    }
    out
}

const BUILD: [&str; 4] = ["--name", "test", "--max-layers", "3"];

fn built(scratch: &Scratch, more: &[&str]) -> Value {
    scratch.built(&[&BUILD[..], &[printed(ENVIRONMENT).as_str()], more].concat())
}

#[test]
fn blobs_are_the_tars_compressed_whatever_the_threads() {
    let scratch = Scratch::new();
    let plain = built(&scratch, &["--to", "oci:plain"]);
    for text in ["gzip", "gzip:9", "zstd", "zstd:19"] {
        let images: Vec<Value> = ["1", "2", "8"]
            .iter()
            .map(|jobs| {
                std::fs::remove_dir_all(scratch.path("cache")).expect("remembered");
                let to = format!("oci:{}-{jobs}", text.replace(':', "-"));
                built(&scratch, &["--to", &to, "--compress", text, "--jobs", jobs])
            })
            .collect();
        assert!(images.iter().all(|image| image["digest"] == images[0]["digest"]), "{text}");
        assert_ne!(images[0]["digest"], plain["digest"]);
        assert_eq!((&images[0]["config"], diff_ids(&images[0])), (&plain["config"], diff_ids(&plain)));
        for layer in images[0]["layers"].as_array().expect("a list") {
            let (digest, media_type) = (field(layer, "blob", "digest"), field(layer, "blob", "mediaType"));
            let folder = scratch.path(&format!("{}-1/blobs/sha256", text.replace(':', "-")));
            let bytes = std::fs::read(folder.join(digest.trim_start_matches("sha256:"))).expect("a blob");
            assert_eq!(Digest::of(&bytes).to_string(), digest);
            assert!(media_type.ends_with(&format!("+{}", &text[..4])), "{media_type}");
            let tar = decompress(&media_type, &bytes);
            assert_eq!(Digest::of(&tar).to_string(), layer["diffId"].as_str().expect("a digest"));
        }
    }
}

#[test]
fn a_form_that_is_remembered_is_not_made_again() {
    let scratch = Scratch::new();
    let first = built(&scratch, &["--to", "oci:layout", "--compress", "zstd"]);
    let forms = names(&scratch.path("cache/stowage/layers"));
    assert_eq!(forms.iter().filter(|name| name.ends_with(".zstd-1-v1.json")).count(), 3, "{forms:?}");
    let blobs = scratch.path("layout/blobs/sha256");
    let before = names(&blobs);
    let again = built(&scratch, &["--to", "oci:layout", "--compress", "zstd:1"]);
    assert_eq!((&again["digest"], names(&blobs)), (&first["digest"], before));
    // What is remembered falsely is not believed for long.
    for form in forms.iter().filter(|name| name.contains(".zstd-1-")) {
        std::fs::write(scratch.path("cache/stowage/layers").join(form), "{").expect("writable");
    }
    assert_eq!(built(&scratch, &["--to", "oci:other", "--compress", "zstd"])["digest"], first["digest"]);
}

#[test]
fn every_copy_has_the_same_config_and_tars() {
    let scratch = Scratch::new();
    let original = built(&scratch, &["--to", "stowage:image"]);
    let places = ["docker-archive:a.tar", "oci:layout", "oci-archive:o.tar", "stowage:folder"];
    for compress in [&[][..], &["--compress", "gzip"], &["--compress", "zstd:1"]] {
        for (number, from) in ["stowage:image"].iter().chain(&places).enumerate() {
            for to in places {
                let is_refused = to.starts_with("docker-archive") && compress.contains(&"zstd:1");
                if is_refused || (from.starts_with("stowage") && to.starts_with("stowage")) {
                    continue;
                }
                // What was copied last is copied on: all pairs, and chains of them.
                let place = if from == &to { format!("{to}-again") } else { to.to_owned() };
                let copy = copied(&scratch, from, &place, compress);
                assert_eq!(copy["config"], original["config"], "{from} {place} {compress:?}");
                assert_eq!(diff_ids(&copy), diff_ids(&original), "{from} {place} {compress:?}");
                let inspected = json(&scratch, &["inspect", "--json", &place]);
                assert_eq!(inspected["configDigest"], original["config"], "{from} {place} {compress:?}");
                if number == 0 && !to.starts_with("docker") {
                    assert_eq!(inspected["digest"], copy["digest"], "{from} {place} {compress:?}");
                }
            }
        }
    }
}

#[test]
fn what_nobody_asked_to_change_stays_blob_for_blob() {
    let scratch = Scratch::new();
    let direct = built(&scratch, &["--to", "oci:direct", "--compress", "zstd"]);
    built(&scratch, &["--to", "stowage:image"]);
    assert_eq!(copied(&scratch, "stowage:image", "oci:copied", &["--compress", "zstd"])["digest"], direct["digest"]);
    assert_eq!(copied(&scratch, "oci:direct", "oci-archive:o.tar", &[])["digest"], direct["digest"]);
    assert_eq!(copied(&scratch, "oci-archive:o.tar", "oci:back", &[])["digest"], direct["digest"]);
    let plain = copied(&scratch, "oci:direct", "oci:plain", &["--compress", "none"]);
    assert_eq!(plain["digest"], built(&scratch, &["--to", "oci:other"])["digest"]);
    // Docker loads no zstd, so that is not kept.
    copied(&scratch, "oci:direct", "docker-archive:a.tar", &[]);
    let inspected = json(&scratch, &["inspect", "--json", "docker-archive:a.tar"]);
    assert_eq!(inspected["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar");
    let inspected = json(&scratch, &["inspect", "--json", "oci-archive:o.tar"]);
    assert_eq!(inspected["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
    assert_eq!(inspected["layers"][0]["size"], direct["layers"][0]["blob"]["size"]);
}

#[test]
fn each_destination_may_have_its_own_and_the_spec_one_for_all() {
    let scratch = Scratch::new();
    let last_type = |image: &str| {
        let inspected = json(&scratch, &["inspect", "--json", image]);
        inspected["layers"][0]["mediaType"].as_str().expect("a type").rsplit('.').next().expect("a word").to_owned()
    };
    built(
        &scratch,
        &[
            "--to",
            "oci:a",
            "--compress",
            "none",
            "--to",
            "docker-archive:b.tar",
            "--compress",
            "gzip",
            "--to",
            "oci-archive:c",
            "--compress",
            "zstd",
        ],
    );
    assert_eq!(["oci:a", "docker-archive:b.tar", "oci-archive:c"].map(last_type), ["tar", "tar+gzip", "tar+zstd"]);
    scratch.write("spec.json", r#"{"compression": "gzip:1"}"#);
    built(&scratch, &["--spec", "spec.json", "--to", "oci:d", "--to", "stowage:e"]);
    assert_eq!(["oci:d", "stowage:e"].map(last_type), ["tar+gzip", "tar"]);
}

#[test]
fn what_cannot_be_is_refused_and_says_why() {
    let scratch = Scratch::new();
    scratch.write("spec.json", r#"{"compression": "xz"}"#);
    for (arguments, message) in [
        (&["--to", "docker-archive:a.tar", "--compress", "zstd"][..], "reads no zstd"),
        (&["--compress", "zstd:20"], "is no compression"),
        (&["--to", "oci:a", "--compress", "gzip", "--compress", "zstd"], "once for each --to"),
        (&["--spec", "spec.json"], "codec is not known"),
    ] {
        let output =
            scratch.build(&[&BUILD[..], &[printed(ENVIRONMENT).as_str()], arguments].concat()).assert().code(2);
        let error = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(error.contains(message), "{arguments:?}: {error}");
    }
}

#[test]
fn a_damaged_blob_is_not_copied() {
    let scratch = Scratch::new();
    let image = built(&scratch, &["--to", "oci:layout", "--compress", "gzip"]);
    let digest = field(&image["layers"][0], "blob", "digest");
    let path = scratch.path("layout/blobs/sha256").join(digest.trim_start_matches("sha256:"));
    let mut bytes = std::fs::read(&path).expect("a blob");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).expect("writable");
    for to in ["oci:copy", "oci-archive:copy.tar", "docker-archive:copy.docker"] {
        for compress in [&[][..], &["--compress", "none"]] {
            let command = [&["copy", "oci:layout", to], compress].concat();
            let output = scratch.stowage(&command).assert().code(6);
            let error = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
            assert!(error.contains("layer 1 of oci:layout"), "{error}");
        }
    }
    assert!(!scratch.path("copy.tar").exists() && !scratch.path("copy.docker").exists());
}
