//! The system layer: what lies on top of the store paths so that an ordinary
//! user can work with Nix in the image. The database, the user, `/etc`, `/tmp`,
//! the links at `/`, and the owners of Nix's own folders.
//!
//! What Nix needs, each point found by leaving it out, is told in
//! `tests/debnix/README.md`, "The image".

use std::collections::{BTreeMap, BTreeSet};

use super::contents::{Layout, Placed};
use super::nixdb;
use super::spec::ImageSpec;
use crate::layer::key::KeyHasher;
use crate::layer::tar::{self, Header, Kind};
use crate::layer::{LayerKey, Owner};
use crate::store::derivation::DeclaredOutput;
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
const OWN_FOLDERS: [&str; 10] =
    ["etc", "etc/nix", "etc/ssl", "etc/ssl/certs", "nix", "tmp", "usr", "usr/bin", "var", "var/tmp"];

/// All that a system layer's bytes depend on.
#[derive(Clone, Copy)]
pub struct SystemLayer<'a> {
    /// What the image is to be.
    pub spec: &'a ImageSpec,
    /// All store paths of the image.
    pub closure: &'a Closure,
    /// What is laid out at `/`.
    pub contents: &'a [StorePath],
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
        let folders: BTreeSet<Vec<u8>> = OWN_FOLDERS
            .iter()
            .map(|folder| folder.as_bytes().to_vec())
            .chain(parents(self.home()))
            .chain([self.home().to_vec()])
            .collect();
        let layout = Layout::new(files, self.closure.store_dir(), self.contents, folders)?;
        let mut items: Items =
            layout.placed.iter().map(|(path, placed)| (path.clone(), Item::of_root(placed.into()))).collect();
        let mut own = self.accounts(&layout)?;
        self.add_folders(&mut own);
        if self.spec.include_nix_db {
            self.add_database(&mut own, &self.declared_outputs(files)?)?;
        }
        for (path, item) in own {
            if let Some(Item { node: Node::Link(_), .. }) = items.get(&path)
                && !matches!(item.node, Node::Directory)
                && !matches!(path.as_slice(), b"etc/passwd" | b"etc/group")
            {
                tracing::warn!("/{} of the contents gives way to the image's own", String::from_utf8_lossy(&path));
            }
            items.insert(path, item);
        }
        Ok(to_tar(&items))
    }

    /// `/etc/passwd`, `/etc/group`, `/etc/nsswitch.conf` and `/etc/nix/nix.conf`:
    /// files, never links into the store, which some container runtimes refuse.
    fn accounts(&self, layout: &Layout<'_>) -> anyhow::Result<Items> {
        let from_contents = |path: &str| -> anyhow::Result<String> {
            let bytes = layout.read(path.as_bytes())?.unwrap_or_default();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let mut items = Items::new();
        let mut add =
            |path: &str, text: String| items.insert(path.into(), Item::of_root(Node::File(text.into_bytes())));
        add("etc/passwd", self.spec.user.passwd(&from_contents("etc/passwd")?));
        add("etc/group", self.spec.user.group(&from_contents("etc/group")?));
        add("etc/nix/nix.conf", self.nix_conf());
        if !layout.placed.contains_key(&b"etc/nsswitch.conf"[..]) {
            // Without it, glibc asks DNS for names before /etc/hosts.
            add("etc/nsswitch.conf", "hosts: files dns\n".to_owned());
        }
        Ok(items)
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
        for folder in OWN_FOLDERS.map(str::as_bytes).into_iter().chain([&b"root"[..], b"var/empty"]) {
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
        for (id, info) in self.closure.infos().iter().enumerate() {
            if info.path.is_derivation() {
                declared.append(&mut crate::store::derivation::outputs(files, self.closure, id)?);
            }
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
