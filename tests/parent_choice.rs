//! Of what holds several images, the one that was asked for is the parent.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod forms;

use forms::{Scratch, config, gzip, message, platform, read_with, tar_of};
use serde_json::json;
use stowage::digest::Digest;
use stowage::parent::find::Choice;
use stowage::parent::parts;

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
