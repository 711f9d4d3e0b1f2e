//! What is made for an image ahead of it: layers; and several images in one archive.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use serde_json::{Value, json};
use stowage::cli::exit::Exit;
use support::image::{copy, find, image, layer, layers, refused, system, times};
use support::{ENVIRONMENT, HELLO, LIBRARY, Scratch, printed, registration, tar_names};

#[test]
fn an_image_has_layers_that_were_made_ahead_and_reads_nothing_of_them() {
    let scratch = Scratch::new();
    let low = layer(&scratch, &printed(LIBRARY), "low.json", &[]);
    let high = layer(&scratch, &printed(ENVIRONMENT), "high.json", &["--except", "low.json"]);
    assert_eq!(low["paths"].as_object().expect("paths").len(), 1);
    assert!(high["paths"].get(printed(LIBRARY)).is_none() && high["paths"].get(printed(HELLO)).is_some());
    // What nobody can read is not read: neither here, nor by another machine.
    for name in [HELLO, LIBRARY] {
        let path = scratch.store_file(name);
        std::fs::rename(&path, scratch.path(name)).expect("writable");
        std::fs::write(&path, "another").expect("writable");
    }
    std::fs::remove_dir_all(scratch.path("cache")).expect("there");
    let spec = json!({ "contents": [], "layers": ["./low.json", "./high.json"], "maxLayers": 3 });
    assert_eq!(image(&scratch, "image", &spec), "");
    let mut expected = [LIBRARY, HELLO, ENVIRONMENT].map(str::to_owned).to_vec();
    let found = layers(&scratch, "image");
    assert_eq!(found[0], expected[..1]);
    expected.remove(0);
    assert_eq!(found[1], expected);
    let index = std::fs::read_to_string(scratch.path("image/stowage.json")).expect("there");
    for layer in [&low, &high] {
        assert!(index.contains(layer["diffId"].as_str().expect("a digest")));
    }
    let too_few = json!({ "contents": [], "layers": ["./low.json", "./high.json"], "maxLayers": 2 });
    assert!(refused(&scratch, &too_few, Exit::Usage).contains("needs 3 at the least"));
}

#[test]
fn a_layer_that_does_not_fit_is_made_anew_and_that_is_said() {
    let scratch = Scratch::new();
    layer(&scratch, &printed(LIBRARY), "low.json", &[]);
    layer(&scratch, &printed(HELLO), "both.json", &[]);
    layer(&scratch, &printed(HELLO), "other.json", &["--uid", "7", "--except", "low.json"]);
    let said = image(&scratch, "image", &json!({ "layers": ["./low.json", "./both.json"] }));
    assert!(said.contains("./both.json is made anew: 1 of its 2 paths") && said.contains("./low.json"), "{said}");
    assert_eq!(layers(&scratch, "image")[..2], [vec![LIBRARY.to_owned()], vec![HELLO.to_owned()]]);
    let said = image(&scratch, "owned", &json!({ "layers": ["./low.json", "./other.json"] }));
    assert!(said.contains("belong to 7:0, and the image's to 0:0"), "{said}");
    assert_eq!(image(&scratch, "fits", &json!({ "layers": ["./other.json"], "uid": 7 })), "");
    // What is no layer is named, and nothing is left.
    for (file, problem) in [("./none.json", "No such file"), ("./spec.json", "is none"), (".", "")] {
        let said = refused(&scratch, &json!({ "layers": [format!("./{file}")] }), Exit::Destination);
        assert!(said.contains(file) && said.contains(problem), "{said}");
    }
}

#[test]
fn a_layer_of_what_is_left_brings_that_into_images() {
    let scratch = Scratch::new();
    layer(&scratch, &printed(LIBRARY), "low.json", &[]);
    layer(&scratch, &printed(HELLO), "middle.json", &["--except", "low.json"]);
    // What was asked for is in the middle one, and what is left of it is not what was asked for.
    let rest = layer(&scratch, &printed(HELLO), "rest.json", &["--except", "middle.json"]);
    assert_eq!(rest["roots"], json!([printed(LIBRARY)]));
    image(&scratch, "image", &json!({ "contents": [], "layers": ["./rest.json"] }));
    assert_eq!(layers(&scratch, "image").concat(), [LIBRARY]);
    let mut without = rest;
    without["roots"] = json!([]);
    scratch.write("without.json", &without.to_string());
    let spec = json!({ "contents": [], "layers": ["./without.json"] });
    assert!(refused(&scratch, &spec, Exit::Destination).contains("names nothing that was asked for"));
}

#[test]
fn a_layer_that_lies_is_not_copied() {
    let scratch = Scratch::new();
    let mut lying = layer(&scratch, &printed(HELLO), "layer.json", &[]);
    std::fs::remove_dir_all(scratch.path("cache")).expect("there");
    lying["size"] = json!(512);
    scratch.write("layer.json", &lying.to_string());
    image(&scratch, "image", &json!({ "contents": [], "layers": ["./layer.json"] }));
    copy(&scratch, &["stowage:image", "oci:layout"]).code(Exit::StorePath as i32);
    lying["architectures"] = json!({ "../../x": 1 });
    scratch.write("layer.json", &lying.to_string());
    let spec = json!({ "contents": [], "layers": ["./layer.json"] });
    assert!(refused(&scratch, &spec, Exit::Destination).contains("which nobody knows"));
}

#[test]
fn layers_of_lists_know_the_addresses_that_lists_have_lost() {
    let scratch = Scratch::new();
    scratch.write("registration", &registration());
    let made = layer(&scratch, &printed(HELLO), "layer.json", &["--registration", "registration"]);
    assert_eq!(made["roots"], json!([printed(HELLO)]));
    assert_eq!(made, layer(&scratch, &printed(HELLO), "again.json", &[]));
    let root = scratch.root();
    let arguments = ["layer", "--store", root.to_str().expect("ASCII"), &printed(HELLO), "--except", "layer.json"];
    let output = scratch.stowage(&arguments).assert().code(Exit::Usage as i32);
    assert!(String::from_utf8_lossy(&output.get_output().stderr).contains("nothing is left for the layer"));
}

#[test]
fn files_of_the_store_are_of_the_time_that_is_asked_for() {
    let scratch = Scratch::new();
    let low = layer(&scratch, &printed(LIBRARY), "low.json", &["--mtime", "1980-01-01T00:00:00Z"]);
    assert_eq!(low["mtime"], 315_532_800);
    let spec = json!({ "contents": [printed(HELLO)], "layers": ["./low.json"], "mtime": "1980-01-01T01:00:00+01:00" });
    assert_eq!(image(&scratch, "image", &spec), "");
    // As they are in an image, and in one that is built on it without saying so.
    let child = json!({ "fromImage": "./image", "contents": [printed(ENVIRONMENT)] });
    assert_eq!(image(&scratch, "child", &child), "");
    let time_of = |name: &str| u64::from(name != ENVIRONMENT) * 315_532_799 + 1;
    for (name, count) in [("image", 2), ("child", 3)] {
        copy(&scratch, &[&format!("stowage:{name}"), &format!("oci:{name}-layout")]).success();
        let mut found = 0;
        for (number, paths) in layers(&scratch, name).iter().enumerate().filter(|(_, paths)| !paths.is_empty()) {
            let times = times(&scratch, name, number);
            let (folders, files): (Vec<_>, Vec<_>) =
                times.into_iter().partition(|(path, _)| ["nix", "nix/store"].contains(&path.as_str()));
            assert!(folders.iter().all(|(_, time)| *time == 1), "{folders:?}");
            assert!(
                files.iter().all(|(path, time)| *time == time_of(path.split('/').nth(2).expect("a name"))),
                "{files:?}"
            );
            found += paths.len();
        }
        assert_eq!(found, count);
    }
}

#[test]
fn of_a_list_an_image_has_what_its_spec_names_or_all() {
    let scratch = Scratch::new();
    scratch.write("registration", &registration());
    std::fs::remove_file(scratch.database()).expect("there");
    let listed = |name: &str, spec: Value| {
        scratch.write("spec.json", &spec.to_string());
        let to = format!("stowage:{name}");
        scratch.build(&["--registration", "registration", "--spec", "spec.json", "--to", &to]).assert().success();
        layers(&scratch, name).concat()
    };
    let command = json!({ "Cmd": [printed(LIBRARY)] });
    assert_eq!(listed("all", json!({ "config": command })).len(), 3);
    assert_eq!(listed("named", json!({ "config": command, "contents": [] })), [LIBRARY]);
    // Nor is the list only of what is new: it tells what a parent's paths refer to.
    listed("parent", json!({ "contents": [printed(HELLO)], "includeNixDB": false }));
    let child = json!({ "contents": [], "fromImage": "./parent", "config": { "Env": ["A=b"] } });
    assert_eq!(listed("child", child).len(), 2);
    let (_, _, database) = find(&system(&scratch, "child"), "nix/var/nix/db/db.sqlite").cloned().expect("a database");
    let has = |name: &str| database.windows(name.len()).any(|bytes| bytes == name.as_bytes());
    assert!(has(HELLO) && has(LIBRARY) && !has(ENVIRONMENT));
}

#[test]
fn a_nix_build_remembers_nothing_for_others() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path("build")).expect("writable");
    let in_build = |shell: &str| {
        let mut command = scratch.build(&[&printed(HELLO), "--to", "stowage:image"]);
        command.env("NIX_BUILD_TOP", scratch.path("build")).env("TMPDIR", scratch.path("build"));
        if !shell.is_empty() {
            command.env("IN_NIX_SHELL", shell);
        }
        command.assert().success();
    };
    in_build("");
    assert!(!scratch.path("cache").exists() && scratch.path("build/stowage").exists());
    in_build("pure");
    assert!(scratch.path("cache").exists());
}

#[test]
fn a_stowage_of_the_store_is_the_images() {
    let scratch = Scratch::new();
    let spec = json!({ "contents": [printed(LIBRARY)], "hook": printed(HELLO) });
    image(&scratch, "image", &spec);
    let entries = system(&scratch, "image");
    let target = |path: &str| {
        let link = find(&entries, path).expect("there").1.link_name().expect("valid").expect("a link");
        link.to_string_lossy().into_owned()
    };
    assert_eq!(target("usr/bin/stowage"), format!("{}/bin/stowage", printed(HELLO)));
    assert_eq!(target("usr/bin/stowage-hook"), "stowage");
    assert!(layers(&scratch, "image").concat().contains(&HELLO.to_owned()));
    let conf = String::from_utf8(find(&entries, "etc/nix/nix.conf").expect("there").2.clone()).expect("UTF-8");
    assert!(conf.contains("post-build-hook = /usr/bin/stowage-hook"), "{conf}");
}

#[test]
fn keys_of_dockers_own_are_handed_on_and_a_childs_win() {
    let scratch = Scratch::new();
    let config = |name: &str| {
        let text = std::fs::read(scratch.path(name).join("stowage.json")).expect("an image folder");
        let index: Value = serde_json::from_slice(&text).expect("JSON");
        let hex = index["config"].as_str().expect("a digest").trim_start_matches("sha256:").to_owned();
        let text = std::fs::read(scratch.path(name).join("blobs/sha256").join(hex)).expect("a blob");
        serde_json::from_slice::<Value>(&text).expect("JSON")["config"].clone()
    };
    let spec = json!({ "contents": [printed(HELLO)], "config": { "Hostname": "box", "Tty": true, "Image": null } });
    image(&scratch, "parent", &spec);
    assert_eq!((&config("parent")["Hostname"], &config("parent")["Tty"]), (&json!("box"), &json!(true)));
    assert!(config("parent").get("Image").is_none());
    image(&scratch, "child", &json!({ "fromImage": "./parent", "config": { "Hostname": "other" } }));
    assert_eq!((&config("child")["Hostname"], &config("child")["Tty"]), (&json!("other"), &json!(true)));
}

#[test]
fn several_images_are_in_one_archive_each_layer_once() {
    let scratch = Scratch::new();
    image(&scratch, "one", &json!({ "name": "one:1", "contents": [printed(HELLO)], "strategy": "popularity" }));
    image(&scratch, "two", &json!({ "name": "two:2", "contents": [printed(ENVIRONMENT)], "strategy": "popularity" }));
    copy(&scratch, &["stowage:one", "stowage:two", "docker-archive:both.tar"]).success();
    let archive = std::fs::read(scratch.path("both.tar")).expect("there");
    let names = tar_names(&archive);
    let mut once = names.clone();
    once.sort();
    once.dedup();
    assert_eq!(names.len(), once.len(), "{names:?}");
    let mut tar = tar::Archive::new(&archive[..]);
    let manifest = tar
        .entries()
        .expect("a tar")
        .map(|entry| entry.expect("valid"))
        .find(|entry| entry.path().expect("a path").ends_with("manifest.json"));
    let listed: Value = serde_json::from_reader(manifest.expect("there")).expect("JSON");
    let tags: Vec<&Value> = listed.as_array().expect("a list").iter().map(|image| &image["RepoTags"][0]).collect();
    assert_eq!(tags, ["one:1", "two:2"]);
    for image in listed.as_array().expect("a list") {
        let layers = image["Layers"].as_array().expect("a list").iter().chain([&image["Config"]]);
        layers.for_each(|file| assert!(names.contains(&file.as_str().expect("a name").to_owned())));
    }
    copy(&scratch, &["stowage:one", "--name", "three:3", "docker-archive:three.tar"]).success();
    let inspected = scratch.stowage(&["inspect", "docker-archive:three.tar"]).assert().success();
    assert!(String::from_utf8_lossy(&inspected.get_output().stdout).contains("three:3"));
    // Under other keys, layers are there once all the same; and so is an image that is named twice.
    for layout in ["first", "second"] {
        copy(&scratch, &["stowage:one", &format!("oci:{layout}")]).success();
    }
    let sources = ["stowage:one", "oci:first", "oci:second", "stowage:two", "stowage:one"];
    copy(&scratch, &[&sources[..], &["docker-archive:again.tar"]].concat()).success();
    let mut again = tar_names(&std::fs::read(scratch.path("again.tar")).expect("there"));
    again.sort();
    let mut before = names.clone();
    before.sort();
    assert_eq!(again.len(), before.len(), "{again:?} {before:?}");
    image(&scratch, "other", &json!({ "name": "one:1", "contents": [printed(LIBRARY)] }));
    let said = copy(&scratch, &["stowage:one", "stowage:other", "docker-archive:same.tar"]).code(Exit::Usage as i32);
    assert!(String::from_utf8_lossy(&said.get_output().stderr).contains("two different images are called one:1"));
    assert!(!scratch.path("same.tar").exists());
    for (arguments, problem) in [
        (&["stowage:one", "stowage:two", "oci:layout"][..], "several images can't go to oci:layout"),
        (&["stowage:one", "stowage:two", "docker-archive:x.tar", "--name", "x"], "are for one image"),
    ] {
        let output = copy(&scratch, arguments).code(Exit::Usage as i32);
        assert!(String::from_utf8_lossy(&output.get_output().stderr).contains(problem));
    }
}
