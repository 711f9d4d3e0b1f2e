//! The system layer: what lies on top of the store paths so that an ordinary
//! user can work with Nix in the image. The database, the user, `/etc`, `/tmp`,
//! the links at `/`, and the owners of Nix's own folders.
//!
//! What Nix needs, each point found by leaving it out, is told in
//! `tests/debnix/README.md`, "The image".

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::contents::{Layout, Placed, StoredLayout};
use super::nixdb;
use super::spec::ImageSpec;
use crate::layer::index::LayerIndex;
use crate::layer::key::KeyHasher;
use crate::layer::tar::{self, Header, Kind};
use crate::layer::{LayerKey, Owner};
use crate::store::derivation::{self, DeclaredOutput};
use crate::store::{Closure, StorePath};
use crate::tree::StoreFiles;

/// Changes whenever the same arguments would give other bytes.
const VERSION: &str = "stowage system layer v1";

/// When everything in it was modified, as in the store layers.
const MTIME: u64 = 1;

/// Where stowage is in an image with a hook.
pub const PROGRAM: &str = "usr/bin/stowage";

/// What nix.conf calls there: stowage is the hook when it is called so.
pub const HOOK: &str = "usr/bin/stowage-hook";

/// Folders that are the image's own even where contents have but a link to one,
/// since something is put there, or looked for.
pub const OWN_FOLDERS: [&str; 12] = [
    "etc",
    "etc/nix",
    "etc/ssl",
    "etc/ssl/certs",
    "nix",
    "root",
    "tmp",
    "usr",
    "usr/bin",
    "var",
    "var/empty",
    "var/tmp",
];

/// All that a system layer's bytes depend on.
#[derive(Clone, Copy)]
pub struct SystemLayer<'a> {
    /// What the image is to be.
    pub spec: &'a ImageSpec,
    /// All store paths of the image.
    pub closure: &'a Closure,
    /// What is laid out at `/`.
    pub contents: &'a [StorePath],
    /// Remembers what was found out of contents and derivations, none of which the
    /// layer's bytes depend on.
    pub index: &'a LayerIndex,
}

/// A file, folder or link of the layer.
struct Item {
    node: Node,
    mode: u32,
    owner: Owner,
}

enum Node {
    Directory,
    File(Vec<u8>),
    Link(Vec<u8>),
}

/// What is remembered of a derivation.
#[derive(Serialize, Deserialize)]
struct Outputs {
    outputs: BTreeMap<String, String>,
}

type Items = BTreeMap<Vec<u8>, Item>;

impl SystemLayer<'_> {
    /// The layer's key: known without opening a file.
    #[must_use]
    pub fn key(&self) -> LayerKey {
        let mut hasher = KeyHasher::new(VERSION);
        hasher.add(rusqlite::version().as_bytes());
        hasher.add(self.closure.store_dir().as_str().as_bytes());
        let user = &self.spec.user;
        for text in [&user.name, &user.home, &user.shell, &self.nix_conf()] {
            hasher.add(text.as_bytes());
        }
        for number in [user.uid, user.gid, u32::from(self.spec.include_nix_db), u32::from(self.spec.hook)] {
            hasher.add(&number.to_be_bytes());
        }
        hasher.add(&(self.contents.len() as u64).to_be_bytes());
        for path in self.contents {
            hasher.add(path.to_basename().as_bytes());
        }
        for info in self.closure.infos() {
            hasher.add(info.path.to_basename().as_bytes());
            hasher.add(info.nar_hash.as_bytes());
            hasher.add(&info.nar_size.to_be_bytes());
            hasher.add(info.ca.as_deref().unwrap_or_default().as_bytes());
            let deriver = info.deriver.as_ref().filter(|deriver| self.closure.find(deriver).is_some());
            hasher.add(deriver.map(StorePath::to_basename).unwrap_or_default().as_bytes());
            hasher.add(&(info.references.len() as u64).to_be_bytes());
            for reference in &info.references {
                hasher.add(reference.to_basename().as_bytes());
            }
        }
        hasher.finish()
    }

    /// The layer's tar.
    ///
    /// # Errors
    /// When contents conflict or can't be read, or a derivation means nothing.
    pub fn make(&self, files: &StoreFiles) -> anyhow::Result<Vec<u8>> {
        let layout = self.layout(files)?;
        let mut items: Items =
            layout.placed.iter().map(|(path, placed)| (path.clone(), Item::of_root(placed.into()))).collect();
        if self.spec.hook {
            // The layer below has them; here they would hide them.
            for path in [PROGRAM, HOOK].map(str::as_bytes) {
                warn_of_lost(path, items.remove(path).as_ref());
            }
        }
        let mut own = self.accounts(&layout);
        self.add_folders(&mut own);
        if self.spec.include_nix_db {
            self.add_database(&mut own, &self.declared_outputs(files)?)?;
        }
        for (path, item) in own {
            if !matches!(path.as_slice(), b"etc/passwd" | b"etc/group") {
                warn_of_lost(&path, items.get(&path));
            }
            items.insert(path, item);
        }
        Ok(to_tar(&items))
    }

    /// The contents laid out. What they bring depends on their own closure alone, so
    /// it is remembered for images in which only something else has changed.
    fn layout(&self, files: &StoreFiles) -> anyhow::Result<Layout> {
        let folders: BTreeSet<Vec<u8>> = OWN_FOLDERS
            .iter()
            .map(|folder| folder.as_bytes().to_vec())
            .chain(parents(self.home()))
            .chain([self.home().to_vec()])
            .collect();
        let mut hasher = KeyHasher::new("stowage contents layout v1");
        hasher.add(self.closure.store_dir().as_str().as_bytes());
        hasher.add_all(folders.iter());
        hasher.add_all(self.contents.iter().map(StorePath::to_basename));
        for id in self.closure.reachable(self.contents) {
            hasher.add(self.closure.info(id).path.to_basename().as_bytes());
            hasher.add(self.closure.info(id).nar_hash.as_bytes());
        }
        let key = hasher.finish();
        if let Some(stored) = self.index.recall::<StoredLayout>("contents", &key) {
            return Ok(stored.into());
        }
        let layout = Layout::new(files, self.closure.store_dir(), self.contents, folders)?;
        if let Some(stored) = StoredLayout::of(&layout) {
            self.index.remember("contents", &key, &stored);
        }
        Ok(layout)
    }

    /// `/etc/passwd`, `/etc/group`, `/etc/nsswitch.conf` and `/etc/nix/nix.conf`:
    /// files, never links into the store, which some container runtimes refuse.
    fn accounts(&self, layout: &Layout) -> Items {
        let mut items = Items::new();
        let mut add =
            |path: &str, text: String| items.insert(path.into(), Item::of_root(Node::File(text.into_bytes())));
        add("etc/passwd", self.spec.user.passwd(&layout.passwd));
        add("etc/group", self.spec.user.group(&layout.group));
        add("etc/nix/nix.conf", self.nix_conf());
        if !layout.placed.contains_key(&b"etc/nsswitch.conf"[..]) {
            // Without it, glibc asks DNS for names before /etc/hosts.
            add("etc/nsswitch.conf", "hosts: files dns\n".to_owned());
        }
        items
    }

    fn nix_conf(&self) -> String {
        let mut settings: BTreeMap<&str, &str> = [("build-users-group", ""), ("sandbox", "false")].into();
        let hook = format!("/{HOOK}");
        if self.spec.hook {
            settings.insert("post-build-hook", &hook);
        }
        settings.extend(self.spec.nix_conf.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        settings.iter().map(|(name, value)| format!("{name} = {value}").trim_end().to_owned() + "\n").collect()
    }

    fn add_folders(&self, items: &mut Items) {
        for folder in OWN_FOLDERS.map(str::as_bytes) {
            let mode = match folder {
                b"tmp" | b"var/tmp" => 0o1777,
                b"root" => 0o700,
                b"var/empty" => 0o555,
                _ => 0o755,
            };
            items.insert(folder.to_vec(), Item { mode, ..Item::of_root(Node::Directory) });
        }
        for folder in parents(self.home()) {
            items.entry(folder).or_insert_with(|| Item::of_root(Node::Directory));
        }
        items.insert(self.home().to_vec(), self.of_user(Node::Directory));
        let store = self.closure.store_dir().as_str().trim_start_matches('/').as_bytes();
        for folder in parents(store) {
            items.entry(folder).or_insert_with(|| Item::of_root(Node::Directory));
        }
        items.insert(store.to_vec(), self.of_user(Node::Directory));
    }

    /// The database, and a GC root for each row that no other row refers to. For a
    /// collector that comes to a path of root's deletes its row, and only then
    /// finds that it may not delete the path.
    fn add_database(&self, items: &mut Items, outputs: &[DeclaredOutput]) -> anyhow::Result<()> {
        // Nix makes all else below these. That it makes gcroots/profiles only
        // together with gcroots is why that link is here.
        for folder in [
            "nix/var",
            "nix/var/nix",
            "nix/var/nix/db",
            "nix/var/nix/gcroots",
            "nix/var/nix/gcroots/stowage",
            "nix/var/nix/profiles",
        ] {
            items.insert(folder.into(), self.of_user(Node::Directory));
        }
        items
            .insert("nix/var/nix/gcroots/profiles".into(), self.of_user(Node::Link(b"/nix/var/nix/profiles".to_vec())));
        items.insert(
            "nix/var/nix/db/db.sqlite".into(),
            self.of_user(Node::File(nixdb::serialise(self.closure, outputs)?)),
        );
        items.insert("nix/var/nix/db/schema".into(), self.of_user(Node::File(nixdb::SCHEMA_VERSION.into())));
        for id in self.closure.unreferenced() {
            let path = format!("nix/var/nix/gcroots/stowage/{}", self.closure.info(id).path.to_basename());
            items.insert(path.into_bytes(), self.of_user(Node::Link(self.closure.print(id).into_bytes())));
        }
        Ok(())
    }

    /// The outputs that the closure's derivations declare. Nix keeps them in the
    /// database, too, but no list of registrations has them.
    fn declared_outputs(&self, files: &StoreFiles) -> anyhow::Result<Vec<DeclaredOutput>> {
        let mut declared = Vec::new();
        for (id, info) in self.closure.infos().iter().enumerate().filter(|(_, info)| info.path.is_derivation()) {
            let mut hasher = KeyHasher::new("stowage declared outputs v1");
            hasher.add(self.closure.print(id).as_bytes());
            hasher.add(info.nar_hash.as_bytes());
            let key = hasher.finish();
            let outputs = match self.index.recall::<Outputs>("outputs", &key) {
                Some(outputs) => outputs,
                None => {
                    let outputs = Outputs { outputs: derivation::outputs(files, self.closure, id)? };
                    self.index.remember("outputs", &key, &outputs);
                    outputs
                }
            };
            let output = |(name, path)| DeclaredOutput { derivation: id, name, path };
            declared.extend(outputs.outputs.into_iter().map(output));
        }
        Ok(declared)
    }

    fn home(&self) -> &[u8] {
        self.spec.user.home.trim_start_matches('/').as_bytes()
    }

    fn of_user(&self, node: Node) -> Item {
        let owner = Owner { uid: self.spec.user.uid, gid: self.spec.user.gid, ..Owner::default() };
        Item { owner, ..Item::of_root(node) }
    }
}

impl Item {
    fn of_root(node: Node) -> Self {
        let mode = match node {
            Node::Directory => 0o755,
            Node::File(_) => 0o644,
            Node::Link(_) => 0o777,
        };
        Self { node, mode, owner: Owner::default() }
    }
}

impl From<&Placed> for Node {
    fn from(placed: &Placed) -> Self {
        match placed {
            Placed::Directory => Self::Directory,
            Placed::Link(target) => Self::Link(target.clone()),
        }
    }
}

/// The tar of the layer with stowage itself, `program`, and its hook's name.
#[must_use]
pub fn hook_layer(program: &[u8]) -> Vec<u8> {
    let mut items = Items::new();
    items.insert("usr".into(), Item::of_root(Node::Directory));
    items.insert("usr/bin".into(), Item::of_root(Node::Directory));
    items.insert(PROGRAM.into(), Item { mode: 0o555, ..Item::of_root(Node::File(program.to_vec())) });
    items.insert(HOOK.into(), Item::of_root(Node::Link(b"stowage".to_vec())));
    to_tar(&items)
}

/// The key of that layer.
#[must_use]
pub fn hook_layer_key(program: &[u8]) -> LayerKey {
    let mut hasher = KeyHasher::new("stowage hook layer v1");
    hasher.add(program);
    hasher.finish()
}

/// Tells of something that contents bring, and that the image has another of.
fn warn_of_lost(path: &[u8], item: Option<&Item>) {
    if let Some(Item { node: Node::Link(_), .. }) = item {
        tracing::warn!("/{} of the contents gives way to the image's own", String::from_utf8_lossy(path));
    }
}

/// The folders above `path`, the nearest last.
fn parents(path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    (0..path.len()).filter(|at| path[*at] == b'/').map(|at| path[..at].to_vec())
}

fn to_tar(items: &Items) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, item) in items {
        let kind = match &item.node {
            Node::Directory => Kind::Directory,
            Node::File(bytes) => Kind::Regular(bytes.len() as u64),
            Node::Link(target) => Kind::Symlink(target),
        };
        Header { path, kind, mode: item.mode, owner: &item.owner, mtime: MTIME }.write(&mut out);
        if let Node::File(bytes) = &item.node {
            out.extend(bytes);
            tar::pad(&mut out);
        }
    }
    out.extend(tar::END);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::closure::tests::{info, path};
    use crate::store::{NarHash, PathInfo, StoreDir};

    /// All that [`SystemLayer`] points to.
    #[derive(Clone)]
    struct Inputs {
        spec: ImageSpec,
        store_dir: StoreDir,
        infos: Vec<PathInfo>,
        contents: Vec<StorePath>,
    }

    impl Inputs {
        fn key(&self) -> LayerKey {
            let closure = Closure::new(&self.store_dir, self.infos.clone(), None).expect("closed");
            SystemLayer { spec: &self.spec, closure: &closure, contents: &self.contents }.key()
        }
    }

    /// Three paths, of which the first refers to the second, and the last is a
    /// derivation. What nix.conf says of a hook, it says without one.
    fn inputs() -> Inputs {
        let (a, b, drv) = (path('a', "a"), path('b', "b"), path('c', "c.drv"));
        let nix_conf = [("post-build-hook".to_owned(), format!("/{HOOK}"))].into();
        Inputs {
            spec: ImageSpec { nix_conf, ..ImageSpec::default() },
            store_dir: StoreDir::default(),
            infos: vec![info(&a, &[&b]), info(&b, &[]), info(&drv, &[])],
            contents: vec![a, b],
        }
    }

    #[test]
    fn everything_that_bytes_depend_on_changes_the_key() {
        type Change = fn(&mut Inputs);
        let changes: [(&str, Change); 22] = [
            ("the store dir", |inputs| inputs.store_dir = StoreDir::new("/gnu/store").expect("valid")),
            ("the user's name", |inputs| inputs.spec.user.name = "other".to_owned()),
            ("the user's number", |inputs| inputs.spec.user.uid = 77),
            ("the group's number", |inputs| inputs.spec.user.gid = 77),
            ("the home folder", |inputs| inputs.spec.user.home = "/other".to_owned()),
            ("the shell", |inputs| inputs.spec.user.shell = "/other".to_owned()),
            ("a value in nix.conf", |inputs| {
                drop(inputs.spec.nix_conf.insert("sandbox".to_owned(), "true".to_owned()))
            }),
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
        other.spec.max_layers = 7;
        assert_eq!(other.key(), inputs().key());
    }
}
