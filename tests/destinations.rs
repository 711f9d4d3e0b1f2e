//! What images leave at their destinations, without Nix: copies, layouts, folders.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use serde_json::Value;
use support::{ENVIRONMENT, HELLO, LIBRARY, Scratch, printed};

#[test]
fn a_copy_has_the_digests_of_the_image_folder() {
    let scratch = Scratch::new();
    let built = scratch.built(&[&printed(ENVIRONMENT), "--name", "golden", "--strategy", "popularity"]);
    for destination in ["oci:layout", "docker-archive:archive.tar", "oci-archive:archive.oci"] {
        let root = scratch.root();
        let output =
            scratch.stowage(&["copy", "stowage:image", destination, "--json", "--store"]).arg(root).assert().success();
        let copied: Value = serde_json::from_slice(&output.get_output().stdout).expect("JSON");
        assert_eq!((&copied["digest"], &copied["config"]), (&built["digest"], &built["config"]));
    }
    for image in ["oci:layout", "oci:layout:latest", "docker-archive:archive.tar"] {
        let output = scratch.stowage(&["inspect", "--json", image]).assert().success();
        let inspected: Value = serde_json::from_slice(&output.get_output().stdout).expect("JSON");
        assert_eq!(inspected["configDigest"], built["config"], "{image}");
    }
}

#[test]
fn a_layer_whose_paths_changed_is_not_copied_under_its_old_digest() {
    let scratch = Scratch::new();
    scratch.built(&[&printed(ENVIRONMENT)]);
    std::fs::write(scratch.store_file(HELLO).join("share/doc/README"), "cod\n").expect("writable");
    let root = scratch.root();
    for destination in ["oci:layout", "docker-archive:archive.tar", "oci-archive:archive.oci"] {
        let output = scratch.stowage(&["copy", "stowage:image", destination, "--store"]).arg(&root).assert().code(5);
        assert!(String::from_utf8_lossy(&output.get_output().stderr).contains("its store paths were changed"));
    }
    assert!(!scratch.path("archive.tar").exists());
}

#[test]
fn an_archive_on_standard_output_has_what_one_in_a_file_has() {
    let scratch = Scratch::new();
    scratch.built(&[&printed(ENVIRONMENT), "--to", "docker-archive:archive.tar"]);
    let output = scratch.build(&[&printed(ENVIRONMENT), "--to", "docker-archive:-"]).assert().success();
    let file = std::fs::read(scratch.path("archive.tar")).expect("an archive");
    assert_eq!(support::tar_names(&file).last().map(String::as_str), Some("manifest.json"));
    // Layers come in the order in which they are ready.
    assert_eq!(contents(&file), contents(&output.get_output().stdout));
}

#[test]
fn builds_to_one_place_at_once_leave_whole_images() {
    let scratch = Scratch::new();
    let paths = [printed(HELLO), printed(LIBRARY)];
    for _ in 0..5 {
        std::thread::scope(|scope| {
            for path in &paths {
                scope.spawn(|| scratch.built(&[path, "--to", "stowage:image"]));
                scope.spawn(|| scratch.built(&[path, "--to", &format!("oci:layout:{}", &path[11..15])]));
            }
        });
        scratch.stowage(&["inspect", "stowage:image"]).assert().success();
        for path in &paths {
            scratch.stowage(&["inspect", &format!("oci:layout:{}", &path[11..15])]).assert().success();
        }
    }
    // The image's own three, and nothing of the other image.
    assert_eq!(support::names(&scratch.path("image/blobs/sha256")).len(), 3);
}

#[test]
fn a_folder_of_somebody_elses_blobs_is_left_alone() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.path("image/blobs/sha256")).expect("writable");
    std::fs::write(scratch.path("image/blobs/sha256").join("ab".repeat(32)), "precious").expect("writable");
    scratch.build(&[&printed(HELLO)]).assert().code(6);
    assert_eq!(support::names(&scratch.path("image/blobs/sha256")).len(), 1);
}

#[test]
fn nothing_is_written_through_a_link_in_a_layout() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.path("elsewhere")).expect("writable");
    scratch.built(&[&printed(HELLO), "--to", "oci:layout"]);
    scratch.built(&[&printed(HELLO)]);
    for folder in ["layout", "image"] {
        let blobs = scratch.path(folder).join("blobs/sha256");
        std::fs::remove_dir_all(&blobs).expect("there");
        std::os::unix::fs::symlink(scratch.path("elsewhere"), blobs).expect("writable");
    }
    for destination in ["oci:layout", "stowage:image"] {
        scratch.build(&[&printed(ENVIRONMENT), "--to", destination]).assert().code(6);
    }
    assert!(support::names(&scratch.path("elsewhere")).is_empty());
}

#[test]
fn a_folder_whose_manifest_or_config_is_of_another_image_is_refused() {
    let scratch = Scratch::new();
    let index = scratch.path("image/stowage.json");
    let read = || -> Value { serde_json::from_slice(&std::fs::read(&index).expect("there")).expect("JSON") };
    scratch.built(&[&printed(LIBRARY)]);
    let other = read();
    let blobs = support::names(&scratch.path("image/blobs/sha256"));
    for name in &blobs {
        std::fs::copy(scratch.path("image/blobs/sha256").join(name), scratch.path(name)).expect("writable");
    }
    scratch.built(&[&printed(ENVIRONMENT)]);
    for name in &blobs {
        std::fs::copy(scratch.path(name), scratch.path("image/blobs/sha256").join(name)).expect("writable");
    }
    let right = read();
    for key in ["manifest", "config"] {
        let mut wrong = right.clone();
        wrong[key] = other[key].clone();
        std::fs::write(&index, wrong.to_string()).expect("writable");
        let output = scratch.stowage(&["copy", "stowage:image", "oci:layout"]).assert().code(6);
        assert!(String::from_utf8_lossy(&output.get_output().stderr).contains("of another image"));
    }
}

#[test]
fn other_images_of_a_layout_stay() {
    let scratch = Scratch::new();
    scratch.built(&[&printed(HELLO), "--to", "oci:layout:one"]);
    let other = scratch.built(&[&printed(LIBRARY), "--to", "oci:layout:other"]);
    scratch.built(&[&printed(ENVIRONMENT), "--to", "oci:layout:one"]);
    let output = scratch.stowage(&["inspect", "--json", "oci:layout:other"]).assert().success();
    let inspected: Value = serde_json::from_slice(&output.get_output().stdout).expect("JSON");
    assert_eq!(inspected["digest"], other["digest"]);
    scratch.stowage(&["inspect", "oci:layout"]).assert().code(6);
}

#[test]
fn an_image_folder_holds_its_paths_and_lets_go_of_older_ones() {
    let scratch = Scratch::new();
    let auto = scratch.root().join("nix/var/nix/gcroots/auto");
    let held = || -> BTreeSet<String> {
        // As Nix finds them: through a link in auto to a link to a store path.
        let links = std::fs::read_dir(&auto)
            .expect("made")
            .map(|entry| entry.expect("readable").path().read_link().expect("a link"));
        links.filter_map(|link| link.read_link().ok()).map(|path| path.to_string_lossy().into_owned()).collect()
    };
    scratch.built(&[&printed(ENVIRONMENT)]);
    assert_eq!(held(), [printed(ENVIRONMENT)].into());
    scratch.built(&[&printed(LIBRARY)]);
    assert_eq!(held(), [printed(LIBRARY)].into());
}

/// The files of a tar, by their names.
fn contents(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().expect("a tar").map(|entry| {
        let mut entry = entry.expect("valid");
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("readable");
        (entry.path().expect("a path").to_string_lossy().into_owned(), bytes)
    });
    entries.collect()
}
