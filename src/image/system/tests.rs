use super::*;
use crate::image::ground::tests::root;
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
}

impl Inputs {
    fn key(&self) -> LayerKey {
        let closure = Closure::new(&self.store_dir, self.infos.clone(), None).expect("closed");
        let index = LayerIndex::new(std::path::Path::new("/none"));
        SystemLayer {
            spec: &self.spec,
            user: &self.user,
            closure: &closure,
            contents: &self.contents,
            index: &index,
            ground: self.root.as_ref().map_or_else(Ground::default, |root| Ground::new(root, &self.store_dir)),
        }
        .key()
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
    }
}

#[test]
fn everything_that_bytes_depend_on_changes_the_key() {
    type Change = fn(&mut Inputs);
    let changes: [(&str, Change); 29] = [
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
fn what_the_layer_does_not_have_does_not_change_the_key() {
    let mut other = inputs();
    other.infos[0].deriver = Some(path('d', "unknown.drv"));
    other.infos[0].signatures = vec!["key:signature".to_owned()];
    other.infos.reverse();
    other.spec.created = "2020-01-01T00:00:00Z".to_owned();
    other.spec.max_layers = Some(7);
    assert_eq!(other.key(), inputs().key());
}
