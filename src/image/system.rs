//! The system layer: what lies on top of the store paths so that an ordinary
//! user can work with Nix in the image. The database, the user, `/etc`, `/tmp`,
//! the links at `/`, and the owners of Nix's own folders.
//!
//! What Nix needs, each point found by leaving it out, is told in
//! `tests/debnix/README.md`, "The image".

mod made;
mod state;

use std::collections::{BTreeMap, BTreeSet};

use super::contents::{Layout, StoredLayout, Wanted};
use super::extras::Extras;
use super::ground::{Below, Ground};
use super::items::{Item, Items, Node, parents};
use super::spec::ImageSpec;
use super::user::User;
use super::{nix_conf, trees};
use crate::layer::index::LayerIndex;
use crate::layer::key::KeyHasher;
use crate::layer::{LayerKey, Owner};
use crate::local_store::seed::SHIPPED;
use crate::store::{Closure, StoreDir, StorePath};
use crate::tree::StoreFiles;

/// Changes whenever the same arguments would give other bytes.
const VERSION: &str = "stowage system layer v7";

/// Where stowage is in an image with a hook.
pub const PROGRAM: &str = "usr/bin/stowage";

/// What nix.conf calls there: stowage is the hook when it is called so.
pub const HOOK: &str = "usr/bin/stowage-hook";

/// The home of who has none, as in Nix's builds; Nix builds nothing where it is there.
const NO_HOME: &str = "/homeless-shelter";

/// The system's flake registry.
const REGISTRY: &str = "etc/nix/registry.json";

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
    /// Who runs in it.
    pub user: &'a User,
    /// All store paths of the image, its parent's included.
    pub closure: &'a Closure,
    /// What is laid out at `/`.
    pub contents: &'a [StorePath],
    /// What is there beside contents, and why.
    pub extras: &'a Extras,
    /// Remembers what was found out of contents and derivations, none of which the
    /// layer's bytes depend on.
    pub index: &'a LayerIndex,
    /// The parent's file system.
    pub ground: Ground<'a>,
}

impl<'a> SystemLayer<'a> {
    /// The layer's key: known without opening a file.
    #[must_use]
    pub fn key(&self) -> LayerKey {
        let mut hasher = KeyHasher::new(VERSION);
        hasher.add(rusqlite::version().as_bytes());
        hasher.add(self.closure.store_dir().as_str().as_bytes());
        let user = self.user;
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
            for (name, path) in &info.outputs {
                hasher.add(name.as_bytes());
                hasher.add(path.as_bytes());
            }
            for (name, depends_on) in &info.realisations {
                hasher.add(name.as_bytes());
                hasher.add_all(depends_on);
            }
        }
        self.ground.add_to(&mut hasher);
        if let Some(dir) = &self.spec.cache_store {
            hasher.add(dir.as_bytes());
        }
        for (link, path) in self.extras.links() {
            hasher.add(link.as_bytes());
            hasher.add(path.to_basename().as_bytes());
        }
        if let Some(registry) = self.registry() {
            hasher.add(registry.as_bytes());
        }
        self.add_made_to(&mut hasher);
        hasher.finish()
    }

    /// The layer's tar.
    ///
    /// # Errors
    /// When contents conflict or can't be read, or a derivation means nothing.
    pub fn make(&self, files: &StoreFiles) -> anyhow::Result<Vec<u8>> {
        let layout = self.layout(files)?;
        let mut items = Items::new(self.ground, self.closure.store_dir());
        for (path, placed) in &layout.placed {
            items.put_content(path, placed)?;
        }
        let database = b"nix/var/nix/db/";
        for (path, item) in self.made(&layout, files)?.items {
            // Beside the image's own, SQLite would apply another's journal.
            if self.spec.include_nix_db && path.starts_with(database) {
                tracing::warn!("/{} gives way to the image's own database", String::from_utf8_lossy(&path));
                continue;
            }
            items.put_made(&path, item)?;
        }
        self.add_env(&mut items);
        if self.spec.has_program() {
            // The layer below has them; here they would hide them.
            items.give_way(PROGRAM.as_bytes());
            items.give_way(HOOK.as_bytes());
        }
        self.add_program(&mut items);
        self.add_accounts(&mut items, &layout);
        self.add_folders(&mut items);
        if self.spec.include_nix_db {
            self.add_database(&mut items, &self.declared_outputs(files)?)?;
        } else if self.spec.include_store_paths {
            // It would know nothing of what is new.
            items.hide(b"nix/var/nix/db");
        }
        items.link_dissolved(files, self.closure.store_dir())?;
        items.apply(&self.spec.perms);
        if let Some(dir) = &self.spec.cache_store {
            self.lead_to(dir, &mut items);
        }
        items.check()?;
        Ok(items.to_tar())
    }

    /// Adds `/usr/bin/env`, where contents have not, since a link is in its way, or commands were to say
    /// what `/usr` is.
    fn add_env(&self, items: &mut Items<'_>) {
        let (env, program) = (b"usr/bin/env", b"bin/env");
        if !items.has(env) && items.has(program) && self.ground.below(env) == Below::Nothing {
            items.put(env, Item::of_root(Node::Link(b"/bin/env".to_vec())));
        }
    }

    /// Has `/nix` lead into the cache `dir`, and puts elsewhere what would be there.
    fn lead_to(&self, dir: &str, items: &mut Items<'_>) {
        items.move_folder(b"nix", &[SHIPPED.trim_start_matches('/').as_bytes(), b"/nix"].concat());
        items.put(b"nix", Item::of_root(Node::Link(format!("{dir}/nix").into_bytes())));
        // Where nothing is mounted, a container has a cache of its own.
        let folder = dir.trim_start_matches('/').as_bytes();
        if let Some(parent) = parents(folder).last() {
            items.put(&parent, self.of_user(Node::Directory));
        }
    }

    /// The contents laid out. What they bring depends on their own closure alone, so
    /// it is remembered for images in which only something else has changed.
    fn layout(&self, files: &StoreFiles) -> anyhow::Result<Layout> {
        let folders: BTreeSet<Vec<u8>> = OWN_FOLDERS
            .iter()
            .map(|folder| folder.as_bytes().to_vec())
            .chain(parents(self.home()))
            .chain([self.home().to_vec()])
            .chain(self.extras.made.items.keys().flat_map(|path| parents(path)))
            .chain(self.extras.made.folders().cloned())
            .collect();
        let mut hasher = KeyHasher::new("stowage contents layout v4");
        hasher.add(self.closure.store_dir().as_str().as_bytes());
        hasher.add_all(folders.iter());
        hasher.add_all(self.contents.iter().map(StorePath::to_basename));
        for id in self.closure.reachable(self.contents) {
            hasher.add(self.closure.info(id).path.to_basename().as_bytes());
            hasher.add(self.closure.info(id).nar_hash.as_bytes());
        }
        hasher.add_all(self.extras.mutable.iter().map(|(path, hash)| format!("{path} {}", hash.to_nix32())));
        self.ground.add_to(&mut hasher);
        let key = hasher.finish();
        if let Some(stored) = self.index.recall::<StoredLayout>("contents", &key) {
            return Ok(stored.into());
        }
        let mutable: Vec<StorePath> = self.extras.mutable.keys().cloned().collect();
        let wanted = Wanted { contents: self.contents, mutable: &mutable, folders, only_folders: false };
        let layout = Layout::new(files, self.closure.store_dir(), &wanted, self.ground)?;
        if let Some(stored) = StoredLayout::of(&layout) {
            self.index.remember("contents", &key, &stored);
        }
        Ok(layout)
    }

    /// `/etc/passwd`, `/etc/group`, `/etc/nsswitch.conf` and `/etc/nix/nix.conf`:
    /// files, never links into the store, which some container runtimes refuse.
    fn add_accounts(&self, items: &mut Items<'_>, layout: &Layout) {
        let has_nsswitch = items.has(b"etc/nsswitch.conf");
        let mut add =
            |path: &str, text: String| items.put(path.as_bytes(), Item::of_root(Node::File(text.into_bytes())));
        let made = |path, contents: &str| format!("{}{contents}", self.extras.made.text(path));
        add("etc/passwd", self.user.passwd(&made("etc/passwd", &layout.passwd), self.ground.text("etc/passwd")));
        add("etc/group", self.user.group(&made("etc/group", &layout.group), self.ground.text("etc/group")));
        add("etc/nix/nix.conf", self.nix_conf());
        if let Some(registry) = self.registry() {
            add(REGISTRY, registry);
        }
        let nsswitch = b"etc/nsswitch.conf";
        if !has_nsswitch && self.ground.below(nsswitch) == Below::Nothing {
            // Without it, glibc asks DNS for names before /etc/hosts.
            add("etc/nsswitch.conf", "hosts: files dns\n".to_owned());
        }
    }

    fn registry(&self) -> Option<String> {
        trees::registry(&self.extras.trees, self.closure.store_dir(), self.ground.text(REGISTRY))
    }

    fn nix_conf(&self) -> String {
        let mut own: BTreeMap<&str, &str> = [("build-users-group", ""), ("sandbox", "false")].into();
        let hook = format!("/{HOOK}");
        if self.spec.hook {
            own.insert("post-build-hook", &hook);
        }
        if self.spec.cache_store.is_some() {
            own.insert("allow-symlinked-store", "true");
        }
        let registry = format!("/{REGISTRY}");
        let parent = self.ground.text("etc/nix/nix.conf");
        let (all, extra) = ("experimental-features", "extra-experimental-features");
        let of_spec = |name| self.spec.nix_conf.get(name).map(String::as_str);
        let own_extra = of_spec(extra).unwrap_or_default().split_whitespace().map(str::to_owned);
        let features = nix_conf::values(parent, extra).chain(own_extra);
        let features: BTreeSet<String> = features.chain(["flakes".to_owned(), "nix-command".to_owned()]).collect();
        let features = features.into_iter().collect::<Vec<_>>().join(" ");
        let mut settings = self.spec.nix_conf.clone();
        if self.registry().is_some() {
            if of_spec(all).is_none() {
                settings.insert(extra.to_owned(), features);
            }
            // Nix asks for the global registry before it looks at any, and fails without a network;
            // and without flakes it warns of the setting.
            if [all, extra].iter().any(|name| settings.get(*name).is_some_and(|value| value.contains("flakes"))) {
                own.insert("flake-registry", &registry);
            }
        }
        // What commands wrote is no default of ours.
        let made = self.extras.made.text("etc/nix/nix.conf");
        own.retain(|name, _| nix_conf::values(&made, name).next().is_none());
        own.extend(settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        nix_conf::write(&own, &format!("{parent}{made}"))
    }

    fn add_folders(&self, items: &mut Items<'_>) {
        for folder in OWN_FOLDERS.map(str::as_bytes) {
            let mode = match folder {
                // A layer of its own has stowage there.
                b"usr" | b"usr/bin" if self.spec.has_program() => {
                    items.replace_by_folder(folder);
                    continue;
                }
                b"tmp" | b"var/tmp" => 0o1777,
                // The parent's own, if it has them.
                b"root" if self.ground.below(folder) == Below::Nothing => 0o700,
                b"var/empty" if self.ground.below(folder) == Below::Nothing => 0o555,
                _ => {
                    items.put_folder(folder);
                    continue;
                }
            };
            Self::add_folder(items, folder, Item { mode, ..Item::of_root(Node::Directory) });
        }
        if self.user.home != NO_HOME {
            let is_new = self.ground.below(self.home()) == Below::Nothing;
            let mode = if self.home() == b"root" && is_new { 0o700 } else { 0o755 };
            Self::add_folder(items, self.home(), Item { mode, ..self.of_user(Node::Directory) });
        }
        if !self.spec.include_store_paths {
            return;
        }
        let store = self.closure.store_dir().as_str().trim_start_matches('/').as_bytes();
        let links = [store, b"/.links"].concat();
        let links = Some(links).filter(|links| self.ground.below(links) == Below::Directory);
        for folder in [store.to_vec()].into_iter().chain(links) {
            items.put(&folder, self.of_user(Node::Directory));
        }
    }

    /// Puts a folder as `own` says, but with the mode that was made for it, or that the parent has, and the
    /// owner that was made, unless these are what `mkdir` gives.
    fn add_folder(items: &mut Items<'_>, path: &[u8], own: Item) {
        let mkdir = Item::of_root(Node::Directory);
        let made = items.made_folder(path).cloned();
        let mode = made.as_ref().map(|made| made.mode).or(items.parents_folder(path).map(|entry| entry.mode & 0o7777));
        let mode = mode.filter(|mode| *mode != mkdir.mode).unwrap_or(own.mode);
        let owner = made.map(|made| made.owner).filter(|owner| *owner != mkdir.owner).unwrap_or(own.owner.clone());
        items.put(path, Item { mode, owner, ..own });
    }

    fn home(&self) -> &[u8] {
        self.user.home.trim_start_matches('/').as_bytes()
    }

    fn of_user(&self, node: Node) -> Item {
        let owner = Owner { uid: self.user.uid, gid: self.user.gid, ..Owner::default() };
        Item { owner, ..Item::of_root(node) }
    }
}

/// Whether `home` may be a user's: no folder of the system's but root's.
#[must_use]
pub fn may_be_home(home: &str) -> bool {
    let home = home.trim_start_matches('/');
    home == "root" || !(OWN_FOLDERS.contains(&home) || home.starts_with("nix/"))
}

/// The tar of the layer with stowage itself, `program`, and its hook's name.
#[must_use]
pub fn hook_layer(program: &[u8], ground: Ground<'_>) -> Vec<u8> {
    let store_dir = StoreDir::default();
    let mut items = Items::new(ground, &store_dir);
    items.put(PROGRAM.as_bytes(), Item { mode: 0o555, ..Item::of_root(Node::File(program.to_vec())) });
    items.put(HOOK.as_bytes(), Item::of_root(Node::Link(b"stowage".to_vec())));
    items.to_tar()
}

/// The key of that layer.
#[must_use]
pub fn hook_layer_key(program: &[u8], ground: Ground<'_>) -> LayerKey {
    let mut hasher = KeyHasher::new("stowage hook layer v1");
    hasher.add(program);
    // Where it lies on a parent may make a difference, as a rule not.
    let (here, alone) = (hook_layer(b"", ground), hook_layer(b"", Ground::default()));
    if here != alone {
        hasher.add(&here);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests;
