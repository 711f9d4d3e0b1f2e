use super::*;
use std::os::unix::fs::symlink;
use std::path::Path;

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-a";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-b";

/// A store with files, and links where a `>` is in the name.
fn store(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for file in files {
        let (path, target) = file.split_once('>').map_or((*file, None), |(path, target)| (path, Some(target)));
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("writable");
        match target {
            Some(target) => symlink(target, path).expect("writable"),
            None => std::fs::write(path, file).expect("writable"),
        }
    }
    folder
}

fn lay_out(store: &Path, folders: &[&str]) -> Result<Vec<String>, ContentsError> {
    let files = StoreFiles::open(store).expect("a folder");
    let contents = [A, B].map(|name| StorePath::from_basename(name.as_bytes()).expect("valid"));
    let here: Vec<StorePath> = contents.into_iter().filter(|path| store.join(path.to_basename()).exists()).collect();
    let folders = folders.iter().map(|folder| folder.as_bytes().to_vec()).collect();
    let store_dir = StoreDir::default();
    let wanted = Wanted { contents: &here, folders, ..Wanted::default() };
    let layout = Layout::new(&files, &store_dir, &wanted, Ground::default())?;
    let text = |(path, placed): (&Vec<u8>, &Placed)| {
        let path = String::from_utf8_lossy(path).into_owned();
        match placed {
            Placed::Directory => path + "/",
            Placed::Link(target) => format!("{path}>{}", String::from_utf8_lossy(target)),
            Placed::Copy { from, .. } => format!("{path}={}", String::from_utf8_lossy(from)),
        }
    };
    Ok(layout.placed.iter().map(text).collect())
}

fn from(store: &str, path: &str) -> String {
    format!("{path}>/nix/store/{store}/{path}")
}

#[test]
fn folders_are_made_and_files_are_links() {
    let store = store(&[&format!("{A}/bin/x"), &format!("{B}/bin/y"), &format!("{B}/share/doc/y")]);
    let expected = [
        "bin/".to_owned(),
        from(A, "bin/x"),
        from(B, "bin/y"),
        "share/".to_owned(),
        "share/doc/".to_owned(),
        from(B, "share/doc/y"),
    ];
    assert_eq!(lay_out(store.path(), &[]).expect("no conflict"), expected);
}

#[test]
fn a_package_and_an_environment_that_has_it_do_not_conflict() {
    let links = [format!("{A}/bin/x"), format!("{A}/bin/y>x"), format!("{B}/bin/x>/nix/store/{A}/bin/x")];
    let store = store(
        &[&links[..], &[format!("{B}/bin/y>/nix/store/{A}/bin/y")]]
            .concat()
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
    );
    let expected = ["bin/".to_owned(), from(A, "bin/x"), "bin/y>x".to_owned()];
    assert_eq!(lay_out(store.path(), &[]).expect("no conflict"), expected);
    std::fs::remove_file(store.path().join(B).join("bin/y")).expect("there");
    symlink("x", store.path().join(B).join("bin/y")).expect("writable");
    assert_eq!(lay_out(store.path(), &[]).expect("no conflict"), expected);
    std::fs::remove_file(store.path().join(B).join("bin/y")).expect("there");
    symlink("/etc/y", store.path().join(B).join("bin/y")).expect("writable");
    assert!(matches!(lay_out(store.path(), &[]), Err(ContentsError::Conflict { .. })));
}

#[test]
fn what_profiles_leave_out_is_in_nobodys_way() {
    let each = |name: &str| {
        ["nix-support/propagated-build-inputs", "share/info/dir", "manifest.nix", "var/log/x"]
            .map(|file| format!("{name}/{file}"))
    };
    let (a, b) = (each(A), each(B));
    let store = store(&a.iter().chain(&b[..3]).map(String::as_str).collect::<Vec<_>>());
    let expected = ["share/", "share/info/", "var/", "var/log/"].map(str::to_owned);
    assert_eq!(lay_out(store.path(), &[]).expect("no conflict"), [&expected[..], &[from(A, "var/log/x")]].concat());
}

#[test]
fn contents_that_are_copied_are_files_and_their_links_stay() {
    let store = store(&[
        &format!("{A}/bin/x"),
        &format!("{B}/home/.x"),
        &format!("{B}/home/link>.x"),
        &format!("{B}/home/tools>/nix/store/{A}/bin"),
    ]);
    let files = StoreFiles::open(store.path()).expect("a folder");
    let contents = [A, B].map(|name| StorePath::from_basename(name.as_bytes()).expect("valid"));
    let lay = |only_folders| {
        let wanted = Wanted { contents: &contents, mutable: &contents[1..], only_folders, ..Wanted::default() };
        Layout::new(&files, &StoreDir::default(), &wanted, Ground::default()).expect("no conflict").placed
    };
    let placed = lay(false);
    let at = |path: &str| placed.get(path.as_bytes()).cloned();
    assert_eq!(at("home/.x"), Some(Placed::Copy { from: format!("{B}/home/.x").into_bytes(), executable: false }));
    assert_eq!(at("home/link"), Some(Placed::Link(b".x".to_vec())));
    assert_eq!(at("home/tools"), Some(Placed::Link(format!("/nix/store/{A}/bin").into_bytes())));
    assert_eq!(at("bin/x"), Some(Placed::Link(format!("/nix/store/{A}/bin/x").into_bytes())));
    // Commands find folders that they can write to.
    assert_eq!(lay(true).get(&b"home/tools"[..]), Some(&Placed::Directory));
}

#[test]
fn a_link_to_a_folder_stays_unless_more_goes_into_it() {
    let store = store(&[&format!("{A}/lib/l"), &format!("{B}/lib>/nix/store/{A}/lib")]);
    std::fs::rename(store.path().join(A), store.path().join("cccccccccccccccccccccccccccccccc-c")).expect("writable");
    let c = "cccccccccccccccccccccccccccccccc-c";
    let link = store.path().join(B).join("lib");
    std::fs::remove_file(&link).expect("writable");
    symlink(format!("/nix/store/{c}/lib"), &link).expect("writable");
    assert_eq!(lay_out(store.path(), &[]).expect("no conflict"), [format!("lib>/nix/store/{c}/lib")]);
    assert_eq!(lay_out(store.path(), &["lib"]).expect("no conflict"), ["lib/".to_owned(), from(c, "lib/l")]);
}

#[test]
fn two_files_of_one_name_are_a_conflict_that_names_them() {
    let store = store(&[&format!("{A}/bin/x"), &format!("{B}/bin/x")]);
    let error = lay_out(store.path(), &[]).expect_err("a conflict").to_string();
    assert!(error.contains("/bin/x comes from two") && error.contains(A) && error.contains(B), "{error}");
}

#[test]
fn two_links_to_one_file_are_no_conflict() {
    let store = store(&[&format!("{A}/bin/x>/nix/store/z/x"), &format!("{B}/bin/x>/nix/store/z/x")]);
    assert_eq!(lay_out(store.path(), &[]).expect("no conflict"), ["bin/", "bin/x>/nix/store/z/x"]);
}

#[test]
fn usual_names_are_added() {
    let store = store(&[&format!("{A}/bin/bash"), &format!("{A}/bin/env"), &format!("{A}/{NIXPKGS_CERTIFICATES}")]);
    let placed = lay_out(store.path(), &["etc", "etc/ssl", "etc/ssl/certs", "usr", "usr/bin"]).expect("no conflict");
    for link in
        ["bin/sh>/bin/bash", "usr/bin/env>/bin/env", "etc/ssl/certs/ca-certificates.crt>/etc/ssl/certs/ca-bundle.crt"]
    {
        assert!(placed.contains(&link.to_owned()), "{link} in {placed:?}");
    }
}

#[test]
fn links_that_lead_out_or_in_circles_stay_links() {
    let store =
        store(&[&format!("{A}/a>b"), &format!("{A}/b>a"), &format!("{A}/c>../../etc"), &format!("{A}/d>/etc/d")]);
    let expected = ["a>b".to_owned(), "b>a".to_owned(), from(A, "c"), "d>/etc/d".to_owned()];
    assert_eq!(lay_out(store.path(), &["a", "c", "d"]).expect("no conflict"), expected);
}

#[test]
fn relative_links_keep_their_text_where_it_means_the_same() {
    let store = store(&[
        &format!("{A}/bin/x"),
        &format!("{A}/sbin>bin"),
        &format!("{A}/var/run>../run"),
        &format!("{B}/bin/y"),
        &format!("{B}/up>../{A}/bin"),
    ]);
    let placed = lay_out(store.path(), &[]).expect("no conflict");
    let expected = ["bin/".to_owned(), from(A, "bin/x"), from(B, "bin/y"), "sbin>bin".to_owned(), from(B, "up")];
    assert_eq!(placed[..5], expected);
    assert_eq!(placed[5..], ["var/", "var/run>../run"]);
}

#[test]
fn links_to_the_folders_that_they_are_in_have_an_end() {
    // Debian's packages have such, for old names of folders.
    let files =
        |name: &str| [format!("{name}/bin/{}", &name[..1]), format!("{name}/bin/X11>."), format!("{name}/usr>.")];
    let (a, b) = (files(A), files(B));
    let store = store(&a.iter().chain(&b).map(String::as_str).collect::<Vec<_>>());
    let bin = ["bin/".to_owned(), "bin/X11>.".to_owned(), from(A, "bin/a"), from(B, "bin/b")];
    assert_eq!(lay_out(store.path(), &[]).expect("no conflict"), [&bin[..], &["usr>.".to_owned()]].concat());
    let forced = lay_out(store.path(), &["usr", "usr/bin"]).expect("no conflict");
    assert!(forced.contains(&"usr>/".to_owned()) || forced.contains(&"usr/usr>/usr".to_owned()), "{forced:?}");
    for link in ["bin/X11", "usr"] {
        std::fs::remove_file(store.path().join(A).join(link)).expect("there");
        symlink(if link == "usr" { "./" } else { "../bin" }, store.path().join(A).join(link)).expect("writable");
    }
    let placed = lay_out(store.path(), &[]).expect("no conflict");
    assert!(placed.contains(&"bin/X11>/bin".to_owned()) && placed.contains(&"usr>/".to_owned()), "{placed:?}");
}

#[test]
fn a_layout_comes_back_as_it_was_remembered() {
    let mut layout = Layout { passwd: "root:x:0:0".to_owned(), ..Layout::default() };
    layout.placed.insert(b"bin".to_vec(), Placed::Directory);
    layout.placed.insert("bin/ü".into(), Placed::Link(b"/x".to_vec()));
    let text = serde_json::to_string(&StoredLayout::of(&layout)).expect("JSON");
    let stored: StoredLayout = serde_json::from_str(&text).expect("JSON");
    assert_eq!(Layout::from(stored), layout);
    layout.placed.insert(b"bin/\xff".to_vec(), Placed::Directory);
    assert!(StoredLayout::of(&layout).is_none());
}

#[test]
fn a_file_is_no_content() {
    let store = store(&[A]);
    assert!(lay_out(store.path(), &[]).expect_err("no folder").to_string().contains("is no folder"));
}
