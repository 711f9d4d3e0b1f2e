//! What is made for an image before it is built, or for it alone: layers, the files of a tar, copies
//! of contents, and images without their store paths.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use stowage::cli::exit::Exit;
use support::{ENVIRONMENT, HELLO, LIBRARY, Scratch, printed, registration, tar_names};

/// The paths of the layers of the image folder `name`.
fn layers(scratch: &Scratch, name: &str) -> Vec<Vec<String>> {
    let text = std::fs::read(scratch.path(name).join("stowage.json")).expect("an image folder");
    let index: Value = serde_json::from_slice(&text).expect("JSON");
    let layers = index["layers"].as_array().expect("a list").iter();
    let names = |layer: &Value| {
        let paths = layer["paths"].as_array().into_iter().flatten();
        paths.map(|path| path.as_str().expect("a path").trim_start_matches("/nix/store/").to_owned()).collect()
    };
    layers.map(names).collect()
}

/// The entries of a layer of the layout `NAME-layout` of the image folder `name`, and when they were
/// modified.
fn times(scratch: &Scratch, name: &str, number: usize) -> Vec<(String, u64)> {
    let text = std::fs::read(scratch.path(name).join("stowage.json")).expect("an image folder");
    let index: Value = serde_json::from_slice(&text).expect("JSON");
    let hex = index["layers"][number]["diffId"].as_str().expect("a digest").trim_start_matches("sha256:").to_owned();
    let blob = std::fs::File::open(scratch.path(&format!("{name}-layout/blobs/sha256")).join(hex)).expect("a blob");
    let mut archive = tar::Archive::new(blob);
    let entries = archive.entries().expect("a tar").map(|entry| {
        let entry = entry.expect("valid");
        let path = entry.path().expect("a path").to_string_lossy().trim_end_matches('/').to_owned();
        (path, entry.header().mtime().expect("a time"))
    });
    entries.collect()
}

/// The entries of the system layer of the image folder `name`, with their headers.
fn system(scratch: &Scratch, name: &str) -> Vec<(String, tar::Header, Vec<u8>)> {
    let text = std::fs::read(scratch.path(name).join("stowage.json")).expect("an image folder");
    let index: Value = serde_json::from_slice(&text).expect("JSON");
    let digest = index["layers"].as_array().and_then(|layers| layers.last()).expect("a layer")["diffId"].clone();
    let hex = digest.as_str().expect("a digest").trim_start_matches("sha256:").to_owned();
    let bytes = std::fs::read(scratch.path(name).join("blobs/sha256").join(hex)).expect("a blob");
    let mut archive = tar::Archive::new(&bytes[..]);
    let entries = archive.entries().expect("a tar").map(|entry| {
        let mut entry = entry.expect("valid");
        let mut contents = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut contents).expect("readable");
        let path = entry.path().expect("a path").to_string_lossy().trim_end_matches('/').to_owned();
        (path, entry.header().clone(), contents)
    });
    entries.collect()
}

fn find<'a>(entries: &'a [(String, tar::Header, Vec<u8>)], path: &str) -> Option<&'a (String, tar::Header, Vec<u8>)> {
    entries.iter().find(|(name, ..)| name == path)
}

/// `stowage layer` of `path`, into `file`.
fn layer(scratch: &Scratch, path: &str, file: &str, more: &[&str]) -> Value {
    let root = scratch.root();
    let store = root.to_str().expect("ASCII");
    let arguments = [&["layer", "--store", store, path, "--to", file, "--json"], more].concat();
    let output = scratch.stowage(&arguments).assert().success();
    serde_json::from_slice(&output.get_output().stdout).expect("JSON")
}

/// Builds the image folder `name` of `spec`; what was said of it.
fn image(scratch: &Scratch, name: &str, spec: &Value) -> String {
    scratch.write("spec.json", &spec.to_string());
    let to = format!("stowage:{name}");
    let output = scratch.build(&["--spec", "spec.json", "--to", &to]).assert().success();
    String::from_utf8(output.get_output().stderr.clone()).expect("UTF-8")
}

/// What is said of a spec that can't be built.
fn refused(scratch: &Scratch, spec: &Value, exit: Exit) -> String {
    scratch.write("spec.json", &spec.to_string());
    let output = scratch.build(&["--spec", "spec.json", "--to", "stowage:refused"]).assert().code(exit as i32);
    assert!(!scratch.path("refused/stowage.json").exists());
    String::from_utf8(output.get_output().stderr.clone()).expect("UTF-8")
}

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
    assert!(said.contains("belong to 7:0 (:), of the second 1, and the image's to 0:0 (:)"), "{said}");
    assert_eq!(image(&scratch, "fits", &json!({ "layers": ["./other.json"], "uid": 7 })), "");
    // What is no layer is named, and nothing is left.
    for (file, problem) in [("./none.json", "No such file"), ("./spec.json", "is none"), (".", "")] {
        let said = refused(&scratch, &json!({ "layers": [format!("./{file}")] }), Exit::Destination);
        assert!(said.contains(file) && said.contains(problem), "{said}");
    }
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

/// A tar with a folder, a file that names a store path, and a user's file.
fn root_tar(scratch: &Scratch, files: &[(&str, &str, u64)]) {
    let mut builder = tar::Builder::new(std::fs::File::create(scratch.path("root.tar")).expect("writable"));
    for (path, text, uid) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_uid(*uid);
        header.set_gid(0);
        header.set_mode(0o4750);
        builder.append_data(&mut header, path, text.as_bytes()).expect("writable");
    }
    builder.finish().expect("writable");
}

#[test]
fn files_of_a_tar_are_at_the_root_and_what_they_name_is_in_the_store() {
    let scratch = Scratch::new();
    let text = format!("exec {}/bin/hello", printed(HELLO));
    let passwd = "daemon:x:5:5::/:/bin/false\n";
    let conf = "sandbox = relaxed\ncores = 3\n";
    root_tar(
        &scratch,
        &[("srv/run", &text, 9), ("home/user/x", "", 0), ("etc/passwd", passwd, 0), ("etc/nix/nix.conf", conf, 0)],
    );
    let spec = json!({ "root": "root.tar", "nixConf": { "cores": 4 } });
    image(&scratch, "image", &spec);
    let entries = system(&scratch, "image");
    let (_, header, contents) = find(&entries, "srv/run").expect("there");
    let (mode, uid) = (header.mode().expect("a mode"), header.uid().expect("an owner"));
    assert_eq!((mode, uid, &contents[..]), (0o4750, 9, text.as_bytes()));
    let home = |path: &str| find(&entries, path).expect("there").1.uid().expect("an owner");
    assert_eq!((home("home/user/x"), home("home")), (1000, 0));
    let text = |path: &str| String::from_utf8(find(&entries, path).expect("there").2.clone()).expect("UTF-8");
    assert!(text("etc/passwd").contains("daemon:x:5") && text("etc/passwd").contains("user:x:1000"));
    let conf = text("etc/nix/nix.conf");
    assert!(
        conf.contains("sandbox = relaxed") && conf.contains("cores = 4") && conf.contains("build-users-group"),
        "{conf}"
    );
    assert!(!conf.contains("sandbox = false") && !conf.contains("cores = 3"), "{conf}");
    let paths: Vec<String> = layers(&scratch, "image").concat();
    assert!(
        paths.contains(&HELLO.to_owned())
            && paths.contains(&LIBRARY.to_owned())
            && !paths.contains(&ENVIRONMENT.to_owned())
    );
    root_tar(&scratch, &[("nix/store/x", "", 0)]);
    assert!(refused(&scratch, &spec, Exit::Usage).contains("is in the store, which commands can't add to"));
    scratch.write("root.tar", "no tar");
    assert!(refused(&scratch, &spec, Exit::Usage).contains("the spec's root, root.tar"));
}

#[test]
fn contents_that_are_copied_are_not_in_the_store() {
    let scratch = Scratch::new();
    let spec = json!({
        "contents": [printed(ENVIRONMENT), printed(HELLO)], "mutable": printed(ENVIRONMENT),
        "perms": [{ "path": "/etc/set*", "mode": "0600", "uid": 5 }, { "path": "/share/**", "mode": "0750", "uid": 6 }],
    });
    image(&scratch, "image", &spec);
    let paths: Vec<String> = layers(&scratch, "image").concat();
    assert!(!paths.contains(&ENVIRONMENT.to_owned()) && paths.contains(&HELLO.to_owned()), "{paths:?}");
    let entries = system(&scratch, "image");
    let of = |path: &str| {
        let header = &find(&entries, path).expect("there").1;
        (header.mode().expect("a mode"), header.uid().expect("an owner"))
    };
    assert_eq!((of("etc/setting"), of("etc/passwd")), ((0o600, 5), (0o644, 0)));
    // Links have no mode.
    assert_eq!((of("share/doc"), of("share/doc/README")), ((0o750, 6), (0o777, 6)));
    let names: Vec<String> = entries.into_iter().map(|(path, ..)| path).collect();
    let mut of_contents = Vec::new();
    walk(&scratch.store_file(ENVIRONMENT), Path::new(""), &mut of_contents);
    for path in of_contents {
        assert!(names.contains(&path), "{path}");
    }
    // What another needs is in the store, and would be there twice.
    let twice = json!({ "contents": [printed(HELLO), printed(LIBRARY)], "mutable": printed(LIBRARY) });
    assert!(refused(&scratch, &twice, Exit::Usage).contains("its files would be in the image twice"));
    let stray = json!({ "contents": [printed(HELLO)], "mutable": printed(ENVIRONMENT) });
    assert!(refused(&scratch, &stray, Exit::Usage).contains("is not among its `contents`"));
}

fn walk(folder: &Path, path: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder.join(path)).expect("a folder") {
        let path = path.join(entry.expect("readable").file_name());
        found.push(path.to_str().expect("UTF-8").to_owned());
        if folder.join(&path).symlink_metadata().expect("there").is_dir() {
            walk(folder, &path, found);
        }
    }
}

#[test]
fn an_image_without_store_paths_has_nothing_of_the_store() {
    let scratch = Scratch::new();
    let spec = json!({ "contents": [printed(ENVIRONMENT)], "includeStorePaths": false });
    image(&scratch, "image", &spec);
    assert_eq!(layers(&scratch, "image"), [Vec::<String>::new()]);
    scratch.stowage(&["copy", "stowage:image", "docker-archive:image.tar"]).assert().success();
    let entries = system(&scratch, "image");
    assert!(entries.iter().all(|(path, ..)| !path.starts_with("nix/")), "{:?}", entries[0].0);
    assert!(entries.iter().any(|(_, header, _)| header.link_name().expect("valid").is_some()));
    let archive = std::fs::read(scratch.path("image.tar")).expect("there");
    assert_eq!(tar_names(&archive).iter().filter(|name| name.ends_with("layer.tar")).count(), 1);
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

fn copy(scratch: &Scratch, arguments: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = scratch.stowage(&["copy", "--store"]);
    command.arg(scratch.root()).args(arguments).assert()
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
    for (arguments, problem) in [
        (&["stowage:one", "stowage:two", "oci:layout"][..], "several images can't go to oci:layout"),
        (&["stowage:one", "stowage:two", "docker-archive:x.tar", "--name", "x"], "are for one image"),
    ] {
        let output = copy(&scratch, arguments).code(Exit::Usage as i32);
        assert!(String::from_utf8_lossy(&output.get_output().stderr).contains(problem));
    }
}
