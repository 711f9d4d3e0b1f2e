//! Tests of the items.

use super::*;
use crate::image::ground::tests::root;
use crate::parent::Root;

fn link(target: &str) -> Placed {
    Placed::Link(target.into())
}

/// What comes of contents on a ground, as texts.
fn put(root: &Root, contents: &[(&str, Placed)]) -> Result<Vec<String>, ContentsError> {
    let store_dir = StoreDir::default();
    let mut items = Items::new(Ground::new(root, &store_dir), &store_dir);
    for (path, placed) in contents {
        items.put_content(path.as_bytes(), placed)?;
    }
    Ok(texts(&items))
}

fn texts(items: &Items<'_>) -> Vec<String> {
    let text = |(path, item): (&Vec<u8>, &Item)| {
        let path = String::from_utf8_lossy(path).into_owned();
        match &item.node {
            Node::Directory => format!("{path}/ {:o}", item.mode),
            Node::File(_) => path,
            Node::Link(target) => format!("{path}>{}", String::from_utf8_lossy(target)),
        }
    };
    items.entries.iter().map(text).collect()
}

/// A Debian whose /usr is merged.
fn debian() -> Root {
    let mut root = root(&[
        "bin>usr/bin",
        "lib>usr/lib",
        "usr/",
        "usr/bin/",
        "usr/bin/sh",
        "usr/lib/",
        "usr/lib/ssl/",
        "var/",
        "var/mail/",
        "var/run>/run",
        "run/",
        "opt",
    ]);
    root.entries.get_mut(&b"var/mail"[..]).expect("there").mode = 0o2775;
    root
}

#[test]
fn contents_land_where_the_parents_links_lead() {
    let contents = [
        ("bin", Placed::Directory),
        ("bin/foo", link("/nix/store/x/bin/foo")),
        ("bin/sh", link("/nix/store/x/bin/sh")),
        ("var/mail/new", Placed::Directory),
        ("var/run", link("../run")),
        ("opt/tool", link("/nix/store/x/tool")),
    ];
    let expected = [
        "opt/ 755",
        "opt/tool>/nix/store/x/tool",
        "usr/ 755",
        "usr/bin/ 755",
        "usr/bin/foo>/nix/store/x/bin/foo",
        "usr/bin/sh>/nix/store/x/bin/sh",
        "var/ 755",
        "var/mail/ 2775",
        "var/mail/new/ 755",
    ];
    assert_eq!(put(&debian(), &contents).expect("no conflict"), expected);
}

#[test]
fn relative_links_lead_to_the_same_from_wherever_they_land() {
    let root = root(&["bin>usr/bin", "usr/", "usr/bin/"]);
    let contents = [("bin/foo", link("../lib/foo")), ("usr/bin/bar", link("foo"))];
    let put = put(&root, &contents).expect("no conflict");
    assert!(put.contains(&"usr/bin/foo>/lib/foo".to_owned()) && put.contains(&"usr/bin/bar>foo".to_owned()), "{put:?}");
}

#[test]
fn a_file_where_the_parent_has_a_folder_is_an_error_that_names_both() {
    let error = put(&debian(), &[("lib/ssl", link("/nix/store/x/lib/ssl"))]).expect_err("a folder").to_string();
    assert!(error.contains("/lib/ssl is a folder") && error.contains("/nix/store/x/lib/ssl"), "{error}");
    assert!(put(&debian(), &[("lib", link("/nix/store/x/lib"))]).is_err());
}

#[test]
fn two_files_that_land_in_one_place_are_a_conflict() {
    let contents = |other| [("bin/foo", link("/nix/store/x/foo")), ("usr/bin/foo", link(other))];
    assert_eq!(put(&debian(), &contents("/nix/store/x/foo")).expect("the same").len(), 3);
    let error = put(&debian(), &contents("/nix/store/y/foo")).expect_err("two").to_string();
    assert!(error.contains("/nix/store/x/foo") && error.contains("/nix/store/y/foo"), "{error}");
    assert_eq!(put(&Root::default(), &contents("/nix/store/y/foo")).expect("two places").len(), 5);
}

#[test]
fn the_images_own_follow_links_too_and_hide_what_is_below() {
    let root = root(&["etc>/system/etc", "system/", "system/etc/", "system/etc/lock", "db/", "db/wal"]);
    let store_dir = StoreDir::default();
    let mut items = Items::new(Ground::new(&root, &store_dir), &store_dir);
    items.put(b"etc/passwd", Item::of_root(Node::File(Vec::new())));
    items.hide(b"etc/lock");
    items.hide(b"etc/other");
    items.hide_all_in(b"db");
    let expected =
        ["db/ 755", "db/.wh..wh..opq", "system/ 755", "system/etc/ 755", "system/etc/.wh.lock", "system/etc/passwd"];
    assert_eq!(texts(&items), expected);
}

#[test]
fn folders_take_the_place_of_links_into_the_store_and_show_what_they_led_to() {
    const STORE_PATH: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-a";
    let store = tempfile::tempdir().expect("a folder");
    for file in ["etc/issue", "etc/passwd", "etc/nix/registry"] {
        let file = store.path().join(STORE_PATH).join(file);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("writable");
        std::fs::write(file, "").expect("writable");
    }
    let target = format!("etc>/nix/store/{STORE_PATH}/etc");
    let root = root(&[&target]);
    let store_dir = StoreDir::default();
    let files = StoreFiles::open(store.path()).expect("a store");
    let mut items = Items::new(Ground::new(&root, &store_dir), &store_dir);
    items.put(b"etc/passwd", Item::of_root(Node::File(Vec::new())));
    items.put(b"etc/nix/nix.conf", Item::of_root(Node::File(Vec::new())));
    // The store path has no such folder.
    items.put(b"etc/ssl/certs/ca", Item::of_root(Node::File(Vec::new())));
    items.link_dissolved(&files, &store_dir).expect("in the store");
    let expected = [
        "etc/ 755".to_owned(),
        format!("etc/issue>/nix/store/{STORE_PATH}/etc/issue"),
        "etc/nix/ 755".to_owned(),
        "etc/nix/nix.conf".to_owned(),
        format!("etc/nix/registry>/nix/store/{STORE_PATH}/etc/nix/registry"),
        "etc/passwd".to_owned(),
        "etc/ssl/ 755".to_owned(),
        "etc/ssl/certs/ 755".to_owned(),
        "etc/ssl/certs/ca".to_owned(),
    ];
    assert_eq!(texts(&items), expected);
    let root = super::tests::root(&["etc>/nix/store/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-b/etc"]);
    let mut items = Items::new(Ground::new(&root, &store_dir), &store_dir);
    items.put(b"etc/passwd", Item::of_root(Node::File(Vec::new())));
    let error = items.link_dissolved(&files, &store_dir).expect_err("not in the store").to_string();
    assert!(error.contains("/etc") && error.contains("-b/etc"), "{error}");
}
