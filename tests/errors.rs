//! Bad input: each with its message and its exit code, and nothing half-made is
//! left under a final name.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use support::{ENVIRONMENT, HELLO, LIBRARY, Scratch, names, printed, registration};

/// Runs a build that must fail; it must say `message`, and leave no image.
fn fails(scratch: &Scratch, arguments: &[&str], code: i32, message: &str) {
    for destination in ["stowage:image", "oci:layout", "docker-archive:archive.tar"] {
        let output = scratch.build(arguments).args(["--to", destination]).assert().code(code);
        let text = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(text.contains(message), "{arguments:?} says:\n{text}\nand not:\n{message}");
        assert!(output.get_output().stdout.is_empty());
    }
    assert_eq!(names(&scratch.path("image")).iter().filter(|name| *name == "stowage.json").count(), 0);
    assert!(!scratch.path("archive.tar").exists());
    let partial =
        |folder: &str| names(&scratch.path(folder)).into_iter().any(|name| name.starts_with(stowage::fs::PARTIAL));
    assert!(
        !["", "image/blobs/sha256", "layout", "layout/blobs/sha256"].iter().any(|folder| partial(folder)),
        "temporary files are left"
    );
    if let Ok(index) = std::fs::read_to_string(scratch.path("layout/index.json")) {
        assert!(index.contains(r#""manifests":[]"#), "{index}");
    }
}

#[test]
fn a_path_that_is_not_in_the_database() {
    let path = printed("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-unknown");
    fails(&Scratch::new(), &[&path], 5, &format!("{path} is not valid in this store; build it"));
}

#[test]
fn a_path_that_is_gone_from_disk() {
    let scratch = Scratch::new();
    std::fs::remove_dir_all(scratch.store_file(HELLO)).expect("there");
    fails(
        &scratch,
        &[&printed(ENVIRONMENT)],
        5,
        &format!("{HELLO} is registered, but gone from disk; restore it with `nix-store --repair-path"),
    );
}

#[test]
fn a_path_that_is_no_store_path_or_is_not_there() {
    let scratch = Scratch::new();
    fails(&scratch, &["."], 5, "is neither in the store /nix/store nor a link");
    fails(&scratch, &["result"], 5, "such as nix-build's ./result");
}

#[test]
fn a_file_of_a_kind_that_no_store_path_has() {
    let scratch = Scratch::new();
    let _socket = std::os::unix::net::UnixListener::bind(scratch.store_file(HELLO).join("socket")).expect("writable");
    fails(&scratch, &[&printed(HELLO)], 5, "socket is neither a file, nor a folder, nor a symbolic link");
}

#[test]
fn no_database() {
    let scratch = Scratch::new();
    std::fs::remove_file(scratch.database()).expect("there");
    fails(&scratch, &[&printed(HELLO)], 4, "no Nix database at");
}

#[test]
fn a_database_of_another_schema() {
    let scratch = Scratch::new();
    std::fs::write(scratch.database().with_file_name("schema"), "11").expect("writable");
    fails(&scratch, &[&printed(HELLO)], 4, "has schema \"11\", but only schema 10 is known");
}

#[test]
fn a_database_that_is_locked() {
    let scratch = Scratch::new();
    let connection = rusqlite::Connection::open(scratch.database()).expect("a database");
    connection.execute_batch("begin exclusive").expect("not locked yet");
    let output = scratch.build(&[&printed(HELLO)]).assert().code(4);
    let text = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(text.contains("has been locked for 5 seconds"), "{text}");
}

#[test]
fn a_database_that_is_cut_off() {
    let scratch = Scratch::new();
    let whole = std::fs::read(scratch.database()).expect("readable");
    for length in [whole.len() / 2, 4096, 1000, 50] {
        std::fs::write(scratch.database(), &whole[..length]).expect("writable");
        fails(&scratch, &[&printed(ENVIRONMENT)], 4, "is damaged or none at all");
    }
}

#[test]
fn a_database_that_is_none() {
    let scratch = Scratch::new();
    for text in ["", "this is no database, and long enough to be looked at as one"] {
        std::fs::write(scratch.database(), text).expect("writable");
        fails(&scratch, &[&printed(HELLO)], 4, "is damaged or none at all");
    }
}

#[test]
fn a_registration_that_is_cut_anywhere() {
    let scratch = Scratch::new();
    let text = registration();
    for length in 0..text.len() {
        scratch.write("registration", &text[..length]);
        let path = printed(ENVIRONMENT);
        let output = scratch.stowage(&["plan", "--registration", "registration", &path]).assert().code(3);
        let stderr = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(stderr.contains("registration") && stderr.len() > 40, "{length}: {stderr}");
    }
    scratch.write("registration", &text[..text.len() - 1]);
    fails(
        &scratch,
        &["--registration", "registration", &printed(ENVIRONMENT)],
        3,
        "line 18: the registrations are cut off here, where a reference is expected",
    );
}

#[test]
fn registrations_of_nothing() {
    let scratch = Scratch::new();
    for (flag, text) in [("--registration", ""), ("--closure", "[]")] {
        scratch.write("empty", text);
        fails(&scratch, &[flag, "empty"], 3, "there are no registrations in empty");
    }
}

#[test]
fn json_of_the_wrong_shape() {
    let scratch = Scratch::new();
    for (json, message) in [
        ("{", "neither exportReferencesGraph's JSON nor that of `nix path-info --json`"),
        ("[1]", "neither exportReferencesGraph's JSON"),
        (r#"[{"path":"/nix/store/0c7c96gikmzv87i7lv3vq5s1cmfjd6zf-library-1.0"}]"#, "no narHash"),
        (
            r#"[{"path":"/etc/passwd","narHash":"sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"}]"#,
            "/etc/passwd",
        ),
    ] {
        scratch.write("closure.json", json);
        fails(&scratch, &["--closure", "closure.json"], 3, message);
    }
}

#[test]
fn references_to_unknown_paths() {
    let scratch = Scratch::new();
    let text = registration();
    let second = text.match_indices("/nix/store/2cdp").next().expect("there").0;
    scratch.write("registration", &text[second..]);
    let message = format!("{HELLO} refers to /nix/store/{LIBRARY}, which is not among the registrations");
    fails(&scratch, &["--registration", "registration", &printed(ENVIRONMENT)], 3, &message);
}

#[test]
fn a_path_that_the_registrations_do_not_have() {
    let scratch = Scratch::new();
    scratch.write("registration", &registration());
    let path = printed("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-unknown");
    fails(&scratch, &["--registration", "registration", &path], 3, &format!("{path} is not among the registrations"));
}

#[test]
fn a_spec_with_an_unknown_key() {
    let scratch = Scratch::new();
    scratch.write("spec.json", r#"{"contentz": []}"#);
    fails(
        &scratch,
        &["--spec", "spec.json", &printed(HELLO)],
        2,
        r#"unknown key "contentz" in the spec; did you mean "contents"?"#,
    );
    scratch.write("spec.json", r#"{"extraCommands": "x"}"#);
    fails(
        &scratch,
        &["--spec", "spec.json", &printed(HELLO)],
        2,
        r#"the spec's "extraCommands" runs commands, so that"#,
    );
    fails(&scratch, &["--spec", "none.json", &printed(HELLO)], 2, "none.json");
}

#[test]
fn two_contents_with_the_same_file() {
    let scratch = Scratch::new();
    for (path, text) in [(LIBRARY, "one"), (HELLO, "other")] {
        std::fs::write(scratch.store_file(path).join("share/same"), text).expect("writable");
    }
    let message = format!(
        "/share/same comes from two places: from {}/share/same and from {}/share/same",
        printed(LIBRARY),
        printed(HELLO)
    );
    fails(&scratch, &[&printed(LIBRARY), &printed(HELLO)], 7, &message);
}

#[test]
fn a_name_that_docker_refuses() {
    fails(
        &Scratch::new(),
        &[&printed(HELLO), "--name", "Hello World"],
        2,
        "\"Hello World\" is not an image name that Docker takes",
    );
}

#[test]
fn too_few_layers_and_too_many() {
    let scratch = Scratch::new();
    fails(&scratch, &[&printed(HELLO), "--max-layers", "1"], 2, "1 layers are too few");
    let output = scratch.build(&[&printed(HELLO), "--max-layers", "200"]).assert().success();
    assert!(String::from_utf8_lossy(&output.get_output().stderr).contains("200 layers are more than Docker runs"));
}

#[test]
fn nothing_to_build() {
    fails(&Scratch::new(), &[], 2, "nothing to put into the image");
}

#[test]
fn a_config_that_mentions_an_unknown_path() {
    let scratch = Scratch::new();
    let path = printed("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-unknown");
    scratch.write("spec.json", &format!(r#"{{"config": {{"Cmd": ["{path}/bin/x"]}}}}"#));
    fails(&scratch, &["--spec", "spec.json", &printed(HELLO)], 5, &format!("{path} is not valid"));
}

#[test]
fn destinations_that_cannot_be_written() {
    let scratch = Scratch::new();
    scratch.write("file", "");
    std::fs::create_dir(scratch.path("folder")).expect("writable");
    std::fs::write(scratch.path("folder/precious"), "data").expect("writable");
    for (destination, message) in [
        ("oci:file/layout", "file/layout"),
        ("oci:folder", "is neither an OCI layout nor empty"),
        ("stowage:folder", "is neither an image folder nor empty"),
        ("stowage:file", "file"),
        ("docker-archive:none/archive.tar", "writing none/archive.tar: No such file"),
        ("docker-archive:folder", "folder is a folder; name a file"),
    ] {
        let output = scratch.build(&[&printed(HELLO), "--to", destination]).assert().code(6);
        let text = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(text.contains(message), "{destination}: {text}");
    }
    assert_eq!(names(&scratch.path("folder")), ["precious"]);
    for destination in ["docker:host/name:tag", "tarball:x", "image"] {
        scratch.build(&[&printed(HELLO), "--to", destination]).assert().code(2);
    }
}

#[test]
fn an_archive_that_nobody_reads() {
    let scratch = Scratch::new();
    let output = std::process::Command::new("sh")
        .args(["-c", "\"$0\" build --store root \"$1\" --to docker-archive:- 2>error | true; cat error"])
        .arg(env!("CARGO_BIN_EXE_stowage"))
        .arg(printed(ENVIRONMENT))
        .env("XDG_CACHE_HOME", scratch.path("cache"))
        .current_dir(scratch.path(""))
        .output()
        .expect("a shell");
    // A small archive may fit the pipe before its reader goes.
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.is_empty() || text.contains("whoever was to read the archive has gone"), "{text}");
}

#[test]
fn images_that_cannot_be_read() {
    let scratch = Scratch::new();
    scratch.write("file", "this is no archive");
    for (image, message) in [
        ("stowage:none", "is no image folder"),
        ("oci:none", "oci:none has no index.json"),
        ("docker-archive:file", "is no docker archive"),
        ("docker-archive:none", "reading none"),
    ] {
        let output = scratch.stowage(&["inspect", image]).assert().code(6);
        let text = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(text.contains(message), "{image}: {text}");
    }
}

#[test]
fn a_cache_to_wait_for_that_is_not_there() {
    let scratch = Scratch::new();
    scratch.write("file", "");
    let output = scratch.stowage(&["cache", "wait", "file"]).assert().code(6);
    let text = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(text.contains("there is no cache at file: no such folder"), "{text}");
    // What a job without a cache has, which built nothing.
    let output = scratch.stowage(&["cache", "wait", "none"]).assert().success();
    let text = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(text.contains("there is no cache at none"), "{text}");
    std::fs::create_dir(scratch.path("there")).expect("writable");
    scratch.stowage(&["cache", "wait", "there"]).assert().success();
}

#[test]
fn a_pipe_where_an_image_has_a_file() {
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
    let scratch = Scratch::new();
    let pipe = |file: &std::path::Path| {
        std::fs::remove_file(file).expect("there");
        rustix::fs::mknodat(rustix::fs::CWD, file, rustix::fs::FileType::Fifo, 0o644.into(), 0).expect("made");
    };
    for (image, folder, index) in [("oci:layout", "layout", "index.json"), ("stowage:image", "image", "stowage.json")] {
        let blobs = format!("{folder}/blobs/sha256");
        scratch.build(&[&printed(HELLO), "--to", image]).assert().success();
        let manifest = |name: &String| {
            let text = std::fs::read_to_string(scratch.path(&blobs).join(name)).unwrap_or_default();
            text.starts_with(r#"{"schemaVersion""#)
        };
        let manifest = names(&scratch.path(&blobs)).into_iter().find(manifest).expect("a manifest");
        for file in [format!("{blobs}/{manifest}"), format!("{folder}/{index}")] {
            pipe(&scratch.path(&file));
            let output = scratch.stowage(&["inspect", image]).timeout(PATIENCE).assert().code(6);
            let text = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
            assert!(text.contains(&file) && text.contains("is no regular file"), "{text}");
            scratch.stowage(&["copy", image, "docker-archive:copy.tar"]).timeout(PATIENCE).assert().failure();
        }
        let again = scratch.build(&[&printed(HELLO), "--to", image]).timeout(PATIENCE).output().expect("starts");
        assert!(again.status.code().is_some(), "{image} waits for ever");
    }
    scratch.build(&[&printed(HELLO), "--to", "docker-archive:archive.tar"]).assert().success();
    pipe(&scratch.path("archive.tar"));
    scratch.stowage(&["inspect", "docker-archive:archive.tar"]).timeout(PATIENCE).assert().code(6);
    std::fs::remove_dir_all(scratch.path("layout")).expect("there");
    scratch.build(&[&printed(HELLO), "--to", "oci:layout"]).assert().success();
    pipe(&scratch.path("layout/oci-layout"));
    scratch.build(&[&printed(HELLO), "--to", "oci:layout"]).timeout(PATIENCE).output().expect("starts");
}

#[test]
fn a_damaged_image_folder() {
    let scratch = Scratch::new();
    scratch.built(&[&printed(HELLO)]);
    let index = scratch.path("image/stowage.json");
    let whole = std::fs::read_to_string(&index).expect("readable");
    for damaged in [
        &whole[..whole.len() / 2],
        &whole.replace("\"version\": 1", "\"version\": 2"),
        &whole.replace("/nix/store/", "/etc/"),
    ] {
        std::fs::write(&index, damaged).expect("writable");
        scratch.stowage(&["copy", "stowage:image", "oci:layout"]).assert().code(6);
    }
}
