//! What is made for an image's `/`: the files of a tar, copies of contents, and their owners and modes.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::path::Path;

use serde_json::json;
use stowage::cli::exit::Exit;
use support::image::{find, image, layers, refused, system};
use support::{ENVIRONMENT, HELLO, LIBRARY, Scratch, printed, tar_names};

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
    assert!(refused(&scratch, &spec, Exit::Usage).contains("is in the store, which a tar can't add to"));
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
    let spec = json!({ "contents": [printed(ENVIRONMENT)], "includeStorePaths": false, "maxLayers": 1 });
    image(&scratch, "image", &spec);
    assert_eq!(layers(&scratch, "image"), [Vec::<String>::new()]);
    scratch.stowage(&["copy", "stowage:image", "docker-archive:image.tar"]).assert().success();
    let entries = system(&scratch, "image");
    assert!(entries.iter().all(|(path, ..)| !path.starts_with("nix/")), "{:?}", entries[0].0);
    assert!(entries.iter().any(|(_, header, _)| header.link_name().expect("valid").is_some()));
    let archive = std::fs::read(scratch.path("image.tar")).expect("there");
    assert_eq!(tar_names(&archive).iter().filter(|name| name.ends_with("layer.tar")).count(), 1);
    let root = scratch.root();
    let plan = ["plan", "--store", root.to_str().expect("ASCII"), "--spec", "spec.json", "--json"];
    let plan = scratch.stowage(&plan).assert().success();
    let plan: serde_json::Value = serde_json::from_slice(&plan.get_output().stdout).expect("JSON");
    assert_eq!(plan["layers"], json!([]));
}

/// A tar of folders, with modes, and of links.
fn tar_of(scratch: &Scratch, folders: &[(&str, u32, u64)], links: &[(&str, &str)]) {
    let mut builder = tar::Builder::new(std::fs::File::create(scratch.path("root.tar")).expect("writable"));
    for (path, mode, uid) in folders {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(*mode);
        header.set_uid(*uid);
        header.set_gid(0);
        builder.append_data(&mut header, path, &b""[..]).expect("writable");
    }
    for (path, target) in links {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, path, target).expect("writable");
    }
    builder.finish().expect("writable");
}

#[test]
fn links_into_the_store_are_folders_where_the_image_has_its_own() {
    let scratch = Scratch::new();
    let etc = scratch.store_file(HELLO).join("etc");
    for (path, text) in [("ssl/certs/x.crt", "x"), ("passwd", "alice:x:7:7::/:\n"), ("nsswitch.conf", "hosts: dns\n")] {
        std::fs::create_dir_all(etc.join(path).parent().expect("a folder")).expect("writable");
        std::fs::write(etc.join(path), text).expect("writable");
    }
    let in_store = |path: &str| format!("{}/{path}", printed(HELLO));
    tar_of(&scratch, &[], &[("etc", &in_store("etc")), ("home/user", &in_store("share")), ("var", &in_store("share"))]);
    assert_eq!(image(&scratch, "image", &json!({ "root": "root.tar", "contents": [printed(HELLO)] })), "");
    let entries = system(&scratch, "image");
    let target = |path: &str| {
        let header = &find(&entries, path).expect(path).1;
        header.link_name().expect("a link").map(|target| target.to_string_lossy().into_owned())
    };
    // What they led to is there still, beside the image's own, however deep that is.
    assert_eq!([target("etc"), target("etc/ssl/certs"), target("home/user"), target("var")], [None, None, None, None]);
    assert_eq!(target("etc/ssl/certs/x.crt"), Some(in_store("etc/ssl/certs/x.crt")));
    assert_eq!(
        [target("home/user/doc"), target("var/doc")],
        [Some(in_store("share/doc")), Some(in_store("share/doc"))]
    );
    assert_eq!(target("etc/nsswitch.conf"), Some(in_store("etc/nsswitch.conf")));
    let passwd = String::from_utf8(find(&entries, "etc/passwd").expect("there").2.clone()).expect("UTF-8");
    assert!(passwd.contains("alice:x:7") && passwd.contains("user:x:1000"), "{passwd}");
    assert!(find(&entries, "etc/nix/nix.conf").is_some() && find(&entries, "var/tmp").is_some());
}

#[test]
fn what_the_image_puts_into_folders_is_where_links_lead() {
    let scratch = Scratch::new();
    let links = [
        ("usr/bin", "../bin"),
        ("etc", "config/etc"),
        ("config", "/settings"),
        ("var/tmp", "/scratch"),
        ("tmp", "var/tmp"),
        ("home", "data"),
    ];
    tar_of(&scratch, &[("settings", 0o755, 0), ("scratch", 0o700, 0)], &links);
    assert_eq!(image(&scratch, "image", &json!({ "root": "root.tar", "config": { "Cmd": [printed(HELLO)] } })), "");
    let entries = system(&scratch, "image");
    for (path, target) in links {
        let header = &find(&entries, path).expect(path).1;
        assert_eq!(header.link_name_bytes().expect(path), target.as_bytes(), "{path}");
        let below = format!("{path}/");
        assert!(!entries.iter().any(|(other, _, _)| other.starts_with(&below)), "{path}");
    }
    let folder = |path: &str| {
        let header = &find(&entries, path).expect(path).1;
        assert!(header.entry_type().is_dir(), "{path}");
        (header.mode().expect("a mode"), header.uid().expect("an owner"))
    };
    assert_eq!([folder("settings/etc/nix"), folder("bin")], [(0o755, 0), (0o755, 0)]);
    assert_eq!([folder("scratch"), folder("data/user")], [(0o700, 0), (0o755, 1000)]);
    for path in ["settings/etc/passwd", "settings/etc/nix/nix.conf"] {
        assert!(find(&entries, path).is_some(), "{path}");
    }
    // And in images that are built on it.
    image(&scratch, "child", &json!({ "fromImage": "./image", "user": { "name": "ci" } }));
    let entries = system(&scratch, "child");
    let passwd = String::from_utf8(find(&entries, "settings/etc/passwd").expect("there").2.clone()).expect("UTF-8");
    assert!(passwd.contains("ci:x:1000") && find(&entries, "data/ci").is_some(), "{passwd}");
    assert!(find(&entries, "etc").is_none() && find(&entries, "home").is_none());
}

#[test]
fn where_the_image_has_folders_there_are_no_files_and_no_links_that_lead_to_none() {
    let scratch = Scratch::new();
    for (path, target) in [
        ("etc", "nix/store/x/etc"),
        ("var", "/nix/store"),
        ("nix/var/nix", "../../srv"),
        ("usr", "/usr/local"),
        ("home/user", "user"),
    ] {
        tar_of(&scratch, &[], &[(path, target)]);
        let said = refused(&scratch, &json!({ "root": "root.tar" }), Exit::Contents);
        let expected = format!("/{path} comes from two places: from {target} and from a folder");
        assert!(said.contains(&expected), "{said}");
    }
    // stowage is in a layer below, which no link has.
    tar_of(&scratch, &[], &[("usr/bin", "../bin")]);
    let said = refused(&scratch, &json!({ "root": "root.tar", "hook": true }), Exit::Contents);
    assert!(said.contains("/usr/bin comes from two places"), "{said}");
    root_tar(&scratch, &[("usr/bin", "x", 0)]);
    let said = refused(&scratch, &json!({ "root": "root.tar" }), Exit::Contents);
    assert!(said.contains("/usr/bin comes from two places: from a file and from a folder"), "{said}");
}

#[test]
fn links_of_contents_stay_where_the_image_has_folders() {
    let scratch = Scratch::new();
    let usr = scratch.store_file(HELLO).join("usr");
    std::fs::create_dir(&usr).expect("writable");
    std::os::unix::fs::symlink("../opt/bin", usr.join("bin")).expect("writable");
    std::os::unix::fs::symlink("/var/tmp", scratch.store_file(HELLO).join("tmp")).expect("writable");
    std::fs::write(scratch.store_file(HELLO).join("bin/env"), "").expect("writable");
    assert_eq!(image(&scratch, "image", &json!({ "contents": [printed(HELLO)] })), "");
    let entries = system(&scratch, "image");
    let target =
        |path: &str| find(&entries, path).expect(path).1.link_name().expect("valid").expect("a link").into_owned();
    assert_eq!(target("usr/bin"), std::path::Path::new("../opt/bin"));
    assert_eq!(target("opt/bin/env"), std::path::Path::new("/bin/env"));
    assert_eq!(target("tmp"), std::path::Path::new("/var/tmp"));
    assert!(find(&entries, "var/tmp").is_some_and(|(_, header, _)| header.mode().expect("a mode") == 0o1777));
    let said = image(&scratch, "hook", &json!({ "contents": [printed(HELLO)], "hook": true }));
    assert!(said.contains("/usr/bin gives way to the image's own"), "{said}");
}

#[test]
fn commands_may_say_what_usr_is() {
    let scratch = Scratch::new();
    std::fs::write(scratch.store_file(HELLO).join("bin/env"), "").expect("writable");
    let lay_out = ["lay-out", "--store", scratch.root().to_str().expect("ASCII"), "--to", "root", &printed(HELLO)]
        .map(str::to_owned);
    scratch.stowage(&lay_out.each_ref().map(String::as_str)).assert().success();
    let there = |path: &str| scratch.path("root").join(path).symlink_metadata().is_ok();
    assert!(there("bin/env") && !there("usr"));
    assert_eq!(image(&scratch, "image", &json!({ "contents": [printed(HELLO)] })), "");
    assert!(find(&system(&scratch, "image"), "usr/bin/env").is_some());
    root_tar(&scratch, &[("bin/env", "x", 0)]);
    image(&scratch, "made", &json!({ "root": "root.tar" }));
    assert!(find(&system(&scratch, "made"), "usr/bin/env").is_some());
}

#[test]
fn modes_that_were_made_stay_and_others_are_the_usual() {
    let scratch = Scratch::new();
    let folders = [("tmp", 0o700, 0), ("home/user", 0o711, 0), ("var/tmp", 0o755, 0), ("var/empty", 0o755, 3)];
    tar_of(&scratch, &folders, &[]);
    let of = |name: &str, path: &str| {
        let entries = system(&scratch, name);
        let header = &find(&entries, path).expect(path).1;
        (header.mode().expect("a mode"), header.uid().expect("an owner"))
    };
    image(&scratch, "image", &json!({ "root": "root.tar" }));
    assert_eq!([of("image", "tmp"), of("image", "var/tmp")], [(0o700, 0), (0o1777, 0)]);
    assert_eq!([of("image", "home/user"), of("image", "var/empty")], [(0o711, 1000), (0o555, 3)]);
    // And in images that are built on it.
    image(&scratch, "child", &json!({ "fromImage": "./image" }));
    assert_eq!([of("child", "tmp"), of("child", "home/user")], [(0o700, 0), (0o711, 1000)]);
    image(&scratch, "roots", &json!({ "contents": [printed(HELLO)], "user": { "name": "root" } }));
    assert_eq!(of("roots", "root"), (0o700, 0));
}

#[test]
fn what_no_layer_can_have_is_refused() {
    let scratch = Scratch::new();
    let hiding = scratch.store_file(HELLO).join("share/.wh.doc");
    std::fs::write(&hiding, "").expect("writable");
    let said = refused(&scratch, &json!({ "contents": [printed(HELLO)] }), Exit::StorePath);
    assert!(said.contains("hello-2.0/share/.wh.doc has a name by which layers hide"), "{said}");
    let said = refused(&scratch, &json!({ "config": { "Cmd": [printed(HELLO)] } }), Exit::StorePath);
    assert!(said.contains("hello-2.0/share/.wh.doc has a name"), "{said}");
    std::fs::remove_file(&hiding).expect("there");
    // The image's database is its own; a journal beside it would be applied.
    root_tar(&scratch, &[("nix/var/nix/db/db.sqlite-wal", "x", 0), ("nix/var/nix/other", "x", 0)]);
    let said = image(&scratch, "image", &json!({ "root": "root.tar" }));
    assert!(said.contains("/nix/var/nix/db/db.sqlite-wal gives way"), "{said}");
    let entries = system(&scratch, "image");
    assert!(find(&entries, "nix/var/nix/db/db.sqlite-wal").is_none() && find(&entries, "nix/var/nix/other").is_some());
    scratch.write("root.tar", "");
    assert!(refused(&scratch, &json!({ "root": "root.tar" }), Exit::Usage).contains("nothing says that it ends"));
    assert!(refused(&scratch, &json!({ "root": "none.tar" }), Exit::Usage).contains("the spec's root, none.tar"));
}

#[test]
fn links_of_copies_lead_to_the_store_where_they_leave_what_is_copied() {
    let scratch = Scratch::new();
    let link = scratch.store_file(ENVIRONMENT).join("other");
    std::os::unix::fs::symlink(format!("../{HELLO}/share"), &link).expect("writable");
    let spec = json!({ "contents": [printed(ENVIRONMENT)], "mutable": printed(ENVIRONMENT) });
    image(&scratch, "image", &spec);
    let entries = system(&scratch, "image");
    let target = find(&entries, "other").expect("there").1.link_name().expect("a link").expect("a target").into_owned();
    assert_eq!(target, Path::new(&printed(HELLO)).join("share"));
}

#[test]
fn perms_that_are_for_nothing_are_told() {
    let scratch = Scratch::new();
    root_tar(&scratch, &[("srv/secret", "x", 0)]);
    let spec =
        |path: &str| json!({ "root": "root.tar", "architecture": "amd64", "perms": [{ "path": path, "mode": "600" }] });
    assert_eq!(image(&scratch, "right", &spec("./srv//secret")), "");
    let said = image(&scratch, "wrong", &spec("/srv/secert"));
    assert!(said.contains("/srv/secert in the spec's `perms` is nothing that this image puts at /"), "{said}");
    for (perm, problem) in
        [(json!({ "path": "/x" }), "nothing is said of"), (json!({ "path": "/x", "mode": "+7" }), "is no mode")]
    {
        assert!(refused(&scratch, &json!({ "root": "root.tar", "perms": [perm] }), Exit::Usage).contains(problem));
    }
}

#[test]
fn contents_are_laid_out_beside_what_is_there_and_never_through_it() {
    let scratch = Scratch::new();
    let lay_out = |to: &str, more: &[&str]| {
        let root = scratch.root();
        let arguments = ["lay-out", "--store", root.to_str().expect("ASCII"), "--to", to];
        scratch.stowage(&[&arguments, more].concat()).assert()
    };
    let hello = printed(HELLO);
    lay_out("empty", &[]).success();
    assert!(scratch.path("empty").is_dir());
    std::fs::create_dir_all(scratch.path("there/share")).expect("writable");
    std::fs::write(scratch.path("there/share/own"), "own").expect("writable");
    lay_out("there", &[&hello]).success();
    assert!(scratch.path("there/share/own").is_file() && scratch.path("there/bin").exists());
    // Once more, it would be written through links into the store.
    lay_out("there", &["--mutable", &hello]).code(Exit::Destination as i32);
    std::fs::create_dir(scratch.path("elsewhere")).expect("writable");
    std::fs::create_dir(scratch.path("linked")).expect("writable");
    std::os::unix::fs::symlink("../elsewhere", scratch.path("linked/bin")).expect("writable");
    lay_out("linked", &[&hello]).code(Exit::Destination as i32);
    assert_eq!(std::fs::read_dir(scratch.path("elsewhere")).expect("there").count(), 0);
}
