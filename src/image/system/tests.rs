use super::*;
use crate::digest::Digest;
use crate::image::extras::Reason;
use crate::image::ground::tests::root;
use crate::image::perms::{Perm, PermGlob};
use crate::image::trees::Tree;
use crate::parent;
use crate::store::closure::tests::{info, path};
use crate::store::{NarHash, PathInfo, StoreDir};

/// All that [`SystemLayer`] points to.
#[derive(Clone)]
struct Inputs {
    spec: ImageSpec,
    user: User,
    root: Option<parent::Root>,
    store_dir: StoreDir,
    infos: Vec<PathInfo>,
    contents: Vec<StorePath>,
    extras: Extras,
}

impl Inputs {
    fn key(&self) -> LayerKey {
        self.with_layer(|layer| layer.key())
    }

    fn with_layer<T>(&self, look: impl FnOnce(&SystemLayer<'_>) -> T) -> T {
        let closure = Closure::new(&self.store_dir, self.infos.clone(), None).expect("closed");
        let index = LayerIndex::new(std::path::Path::new("/dev/null/none"));
        let layer = SystemLayer {
            spec: &self.spec,
            user: &self.user,
            closure: &closure,
            contents: &self.contents,
            extras: &self.extras,
            index: &index,
            ground: self.root.as_ref().map_or_else(Ground::default, |root| Ground::new(root, &self.store_dir)),
        };
        look(&layer)
    }
}

/// Three paths, of which the first refers to the second, and the last is a
/// derivation. What nix.conf says of a hook, it says without one.
fn inputs() -> Inputs {
    let (a, b, drv) = (path('a', "a"), path('b', "b"), path('c', "c.drv"));
    let nix_conf = [("post-build-hook".to_owned(), format!("/{HOOK}"))].into();
    Inputs {
        spec: ImageSpec { nix_conf, ..ImageSpec::default() },
        user: User::default(),
        root: None,
        store_dir: StoreDir::default(),
        infos: vec![info(&a, &[&b]), info(&b, &[]), info(&drv, &[])],
        contents: vec![a, b],
        extras: Extras::default(),
    }
}

/// The source tree `a`, whose hash has this byte.
fn tree(byte: u8) -> Tree {
    Tree { path: path('a', "a"), nar_hash: NarHash::new([byte; 32]), is_flake: true }
}

/// What is said of files in `/etc`.
fn perm(mode: Option<u32>) -> Perm {
    Perm { path: PermGlob::new("/etc/*").expect("a pattern"), mode, uid: Some(7), gid: None, uname: None, gname: None }
}

/// Something to build, for that reason.
fn root_of(reason: Reason) -> Extras {
    Extras { roots: [(reason, [path('b', "b")].into())].into(), ..Extras::default() }
}

#[test]
fn everything_that_bytes_depend_on_changes_the_key() {
    type Change = fn(&mut Inputs);
    let changes: [(&str, Change); 44] = [
        ("a parent", |inputs| inputs.root = Some(root(&[]))),
        ("a folder of a parent's", |inputs| inputs.root = Some(root(&["a/"]))),
        ("a file of a parent's", |inputs| inputs.root = Some(root(&["a"]))),
        ("a link of a parent's", |inputs| inputs.root = Some(root(&["a>"]))),
        ("another link of a parent's", |inputs| inputs.root = Some(root(&["a>b"]))),
        ("an owner in a parent", |inputs| {
            let mut root = root(&["a/"]);
            root.entries.values_mut().for_each(|entry| entry.uid = 5);
            inputs.root = Some(root);
        }),
        ("a text of a parent's", |inputs| {
            let texts = [("etc/passwd", "a:x:1".to_owned())].into();
            inputs.root = Some(parent::Root { texts, ..root(&[]) });
        }),
        ("the store dir", |inputs| inputs.store_dir = StoreDir::new("/gnu/store").expect("valid")),
        ("the user's name", |inputs| inputs.user.name = "other".to_owned()),
        ("the user's number", |inputs| inputs.user.uid = 77),
        ("the group's number", |inputs| inputs.user.gid = 77),
        ("the home folder", |inputs| inputs.user.home = "/other".to_owned()),
        ("the shell", |inputs| inputs.user.shell = "/other".to_owned()),
        ("a value in nix.conf", |inputs| drop(inputs.spec.nix_conf.insert("sandbox".to_owned(), "true".to_owned()))),
        ("a name in nix.conf", |inputs| drop(inputs.spec.nix_conf.insert("cores".to_owned(), String::new()))),
        ("the hook", |inputs| inputs.spec.hook = true),
        ("the database", |inputs| inputs.spec.include_nix_db = false),
        ("no contents", |inputs| inputs.contents.clear()),
        ("fewer contents", |inputs| drop(inputs.contents.pop())),
        ("the contents' order", |inputs| inputs.contents.reverse()),
        ("one path more", |inputs| inputs.infos.push(info(&path('d', "d"), &[]))),
        ("a path's name", |inputs| inputs.infos[2].path = path('c', "other.drv")),
        ("a hash", |inputs| inputs.infos[0].nar_hash = NarHash::new([1; 32])),
        ("a size", |inputs| inputs.infos[0].nar_size = 7),
        ("a content address", |inputs| inputs.infos[0].ca = Some("fixed:x".to_owned())),
        ("a deriver in the closure", |inputs| inputs.infos[0].deriver = Some(path('c', "c.drv"))),
        ("no references", |inputs| inputs.infos[0].references.clear()),
        ("a reference to itself", |inputs| inputs.infos[1].references.push(path('b', "b"))),
        ("a source tree", |inputs| drop(inputs.extras.trees.insert("nixpkgs".to_owned(), tree(1)))),
        ("a source tree's hash", |inputs| drop(inputs.extras.trees.insert("nixpkgs".to_owned(), tree(2)))),
        ("a source tree's name", |inputs| drop(inputs.extras.trees.insert("other".to_owned(), tree(1)))),
        ("an input", |inputs| inputs.extras = root_of(Reason::InputOf("c".to_owned()))),
        ("another reason", |inputs| inputs.extras = root_of(Reason::SourceOf("c".to_owned()))),
        ("a realisation", |inputs| {
            drop(inputs.infos[0].realisations.insert("sha256:0!out".to_owned(), BTreeSet::new()));
        }),
        ("another realisation", |inputs| {
            drop(inputs.infos[0].realisations.insert("sha256:0!out".to_owned(), ["sha256:1!out".to_owned()].into()));
        }),
        ("a copy", |inputs| inputs.extras.mutable = [(path('d', "d"), NarHash::new([1; 32]))].into()),
        ("a copy's hash", |inputs| inputs.extras.mutable = [(path('d', "d"), NarHash::new([2; 32]))].into()),
        ("files that were made", |inputs| inputs.extras.made.digest = Some(Digest::of(b"one"))),
        ("other files", |inputs| inputs.extras.made.digest = Some(Digest::of(b"two"))),
        ("a mode", |inputs| inputs.spec.perms = vec![perm(Some(0o600))]),
        ("an owner", |inputs| inputs.spec.perms = vec![perm(None)]),
        ("a stowage of the store", |inputs| inputs.extras.program = Some(path('d', "d"))),
        ("no store paths", |inputs| inputs.spec.include_store_paths = false),
        ("another reference", |inputs| inputs.infos[0].references = vec![path('c', "c.drv")]),
    ];
    let mut keys = BTreeMap::from([(inputs().key(), "nothing")]);
    for (what, change) in changes {
        let mut inputs = inputs();
        change(&mut inputs);
        if let Some(other) = keys.insert(inputs.key(), what) {
            panic!("{what} changes no more than {other}");
        }
    }
}

#[test]
fn a_flake_switches_flakes_on_beside_other_features() {
    let nix_conf = |setting: Option<(&str, &str)>, parent: &str| -> Vec<String> {
        let mut inputs = inputs();
        inputs.extras.trees.insert("nixpkgs".to_owned(), tree(1));
        inputs.spec.nix_conf = setting.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let texts = [("etc/nix/nix.conf", parent.to_owned())].into();
        inputs.root = Some(parent::Root { texts, ..root(&[]) });
        let text = inputs.with_layer(|layer| layer.nix_conf());
        text.lines().filter(|line| line.contains("features") || line.contains("registry")).map(str::to_owned).collect()
    };
    let registry = "flake-registry = /etc/nix/registry.json";
    assert_eq!(nix_conf(None, ""), [registry, "extra-experimental-features = flakes nix-command"]);
    let both = [registry, "extra-experimental-features = ca-derivations flakes nix-command"];
    assert_eq!(nix_conf(Some(("extra-experimental-features", "ca-derivations")), ""), both);
    assert_eq!(nix_conf(None, "extra-experimental-features = ca-derivations"), both);
    let own = ("experimental-features", "nix-command");
    assert_eq!(nix_conf(Some(own), ""), ["experimental-features = nix-command"]);
    let own = ("experimental-features", "flakes");
    assert_eq!(nix_conf(Some(own), ""), ["experimental-features = flakes", registry]);
}

#[test]
fn what_the_layer_does_not_have_does_not_change_the_key() {
    let mut other = inputs();
    other.infos[0].deriver = Some(path('d', "unknown.drv"));
    other.infos[0].signatures = vec!["key:signature".to_owned()];
    other.infos.reverse();
    other.spec.created = "2020-01-01T00:00:00Z".to_owned();
    other.spec.max_layers = Some(7);
    assert_eq!(other.key(), inputs().key());
}

/// The names in the layer on a parent's `root`, with their owners.
fn names_on(root: parent::Root, spec: ImageSpec) -> BTreeMap<String, (u32, u32)> {
    names_of(root, spec, User::default())
}

/// Likewise for that user.
fn names_of(root: parent::Root, spec: ImageSpec, user: User) -> BTreeMap<String, (u32, u32)> {
    let closure = Closure::new(&StoreDir::default(), vec![info(&path('a', "a"), &[])], None).expect("closed");
    let index = LayerIndex::new(std::path::Path::new("/dev/null/none"));
    let ground = Ground::new(&root, closure.store_dir());
    let extras = &Extras::default();
    let layer =
        SystemLayer { spec: &spec, user: &user, closure: &closure, contents: &[], extras, index: &index, ground };
    let store = tempfile::tempdir().expect("a folder");
    let tar = layer.make(&StoreFiles::open(store.path()).expect("a store")).expect("nothing in the way");
    let mut archive = tar::Archive::new(&tar[..]);
    let entry = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let entry = entry.expect("valid");
        let name = String::from_utf8(entry.path_bytes().into_owned()).expect("ASCII");
        (
            name,
            (
                u32::try_from(entry.header().uid().expect("a number")).expect("small"),
                entry.header().mode().expect("a number"),
            ),
        )
    };
    archive.entries().expect("a tar").map(entry).collect()
}

#[test]
fn who_has_no_home_gets_none() {
    let of = |home: &str| names_of(root(&[]), ImageSpec::default(), User { home: home.to_owned(), ..User::default() });
    assert!(of("/home/x").contains_key("home/x/"));
    assert!(!of(NO_HOME).keys().any(|name| name.starts_with("homeless")));
}

#[test]
fn the_state_of_a_parents_nix_is_the_users_and_without_locks_and_logs() {
    let mut ground = root(&[
        "nix/",
        "nix/store/",
        "nix/store/.links/",
        "nix/var/",
        "nix/var/log/",
        "nix/var/nix/",
        "nix/var/nix/db/",
        "nix/var/nix/db/db.sqlite",
        "nix/var/nix/db/db.sqlite-wal",
        "nix/var/nix/gc.lock",
        "nix/var/nix/temproots/",
        "nix/var/nix/temproots/5",
        "nix/var/nix/profiles/",
        "nix/var/nix/profiles/per-user/",
        "nix/var/nix/profiles/per-user/p.lock",
        "nix/var/nix/profiles/default>x",
        "nix/var/nix/gcroots/",
        "nix/var/nix/gcroots/profiles/",
        "var/",
        "var/tmp>/tmp",
        "etc/",
        "etc/nsswitch.conf",
    ]);
    ground.entries.get_mut(&b"etc"[..]).expect("there").mode = 0o2750;
    let names = names_on(ground.clone(), ImageSpec::default());
    for name in [
        "nix/store/",
        "nix/store/.links/",
        "nix/var/",
        "nix/var/log/",
        "nix/var/nix/",
        "nix/var/nix/db/",
        "nix/var/nix/profiles/per-user/",
        "nix/var/nix/gcroots/profiles/",
        "home/user/",
    ] {
        assert_eq!(names.get(name), Some(&(1000, 0o755)), "{name}");
    }
    for name in ["db/.wh..wh..opq", ".wh.gc.lock", ".wh.temproots", "profiles/per-user/.wh.p.lock", "db/db.sqlite"] {
        assert!(names.contains_key(&format!("nix/var/nix/{name}")), "{name}");
    }
    for name in ["nix/var/nix/temproots/", "nix/var/nix/profiles/default", "etc/nsswitch.conf", "var/tmp/"] {
        assert!(!names.contains_key(name), "{name}");
    }
    assert_eq!((names["etc/"], names["tmp/"]), ((0, 0o2750), (0, 0o1777)));
    // Without a database there is none: the parent's would not know what is new.
    let names = names_on(ground, ImageSpec { include_nix_db: false, ..ImageSpec::default() });
    assert!(names.contains_key("nix/var/nix/.wh.db") && !names.contains_key("nix/var/nix/db/"), "{names:?}");
    // Ours takes the place of what an image of ours has there.
    let names = names_on(
        root(&["nix/", "nix/var/", "nix/var/nix/", "nix/var/nix/db/", "nix/var/nix/db/schema"]),
        ImageSpec::default(),
    );
    assert!(!names.contains_key("nix/var/nix/db/.wh..wh..opq"));
}
