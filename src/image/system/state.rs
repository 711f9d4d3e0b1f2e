//! Nix's own state in an image: its database, and roots.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::SystemLayer;
use crate::image::extras;
use crate::image::ground::Below;
use crate::image::items::{Items, Node, parents};
use crate::image::nixdb;
use crate::layer::key::KeyHasher;
use crate::mark::{self, Mark};
use crate::parent::{self, Entry};
use crate::store::derivation::{self, DeclaredOutput};
use crate::tree::StoreFiles;

/// What Nix locks, and what tells of processes: below its state, and none of it is true
/// in another container.
const LOCKS: [&str; 5] = ["gc.lock", "gc-socket", "temproots", "userpool", "userpool2"];

/// What is remembered of a derivation.
#[derive(Serialize, Deserialize)]
struct Outputs {
    outputs: BTreeMap<String, String>,
}

impl SystemLayer<'_> {
    /// The database, and a GC root for each row that no other row refers to. For a
    /// collector that comes to a path of root's deletes its row, and only then
    /// finds that it may not delete the path.
    pub(super) fn add_database(&self, items: &mut Items<'_>, outputs: &[DeclaredOutput]) -> anyhow::Result<()> {
        self.take_over_state(items);
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
            items.put(folder.as_bytes(), self.of_user(Node::Directory));
        }
        if self.ground.below(b"nix/var/nix/gcroots/profiles") != Below::Directory {
            items.put(b"nix/var/nix/gcroots/profiles", self.of_user(Node::Link(b"/nix/var/nix/profiles".to_vec())));
        }
        let database = nixdb::serialise(self.closure, outputs)?;
        items.put(b"nix/var/nix/db/db.sqlite", self.of_user(Node::File(database)));
        items.put(b"nix/var/nix/db/schema", self.of_user(Node::File(nixdb::SCHEMA_VERSION.into())));
        if self.spec.hook {
            // What a job builds in the image has higher numbers.
            let mark = Mark { last_id: i64::try_from(self.closure.len()).unwrap_or(i64::MAX) };
            items.put(b"nix/var/nix/stowage", self.of_user(Node::Directory));
            let path = format!("nix/var/nix/stowage/{}", mark::OF_IMAGE);
            items.put(path.as_bytes(), self.of_user(Node::File(serde_json::to_vec(&mark)?)));
        }
        for id in self.closure.unreferenced() {
            let path = format!("nix/var/nix/gcroots/stowage/{}", self.closure.info(id).path.to_basename());
            items.put(path.as_bytes(), self.of_user(Node::Link(self.closure.print(id).into_bytes())));
        }
        self.add_roots(items);
        Ok(())
    }

    /// Roots that say why paths are there.
    fn add_roots(&self, items: &mut Items<'_>) {
        let mut folders = BTreeSet::new();
        for (link, path) in self.extras.links() {
            let of_ours = |folder: &Vec<u8>| folder.len() > extras::FOLDER.len();
            folders.extend(parents(link.as_bytes()).filter(of_ours));
            let target = self.closure.store_dir().render_path(path).into_bytes();
            items.put(link.as_bytes(), self.of_user(Node::Link(target)));
        }
        for folder in folders {
            items.put(&folder, self.of_user(Node::Directory));
        }
    }

    /// What the parent has of Nix's state: its folders become the user's, and its locks
    /// go, and so does all of its database, since SQLite would apply the old one's log
    /// to ours. Its profiles and roots stay.
    fn take_over_state(&self, items: &mut Items<'_>) {
        const STATE: &str = "nix/var/nix";
        const DATABASE: &[u8] = b"nix/var/nix/db/";
        let is_folder = |entry: &Entry| entry.node == parent::Node::Directory;
        if self
            .ground
            .within("nix/var/nix/db")
            .any(|(path, _)| !matches!(&path[DATABASE.len()..], b"db.sqlite" | b"schema"))
        {
            items.hide_all_in(b"nix/var/nix/db");
        }
        for name in LOCKS {
            items.hide(format!("{STATE}/{name}").as_bytes());
        }
        let is_gone = |path: &[u8]| {
            let name = path[STATE.len() + 1..].split(|byte| *byte == b'/').next().unwrap_or_default();
            name == b"db" || LOCKS.iter().any(|lock| lock.as_bytes() == name)
        };
        for (path, entry) in self.ground.within("nix/var").filter(|(path, _)| !path.starts_with(STATE.as_bytes())) {
            if is_folder(entry) {
                items.put(path, self.of_user(Node::Directory));
            }
        }
        for (path, entry) in self.ground.within(STATE).filter(|(path, _)| !is_gone(path)) {
            if is_folder(entry) {
                items.put(path, self.of_user(Node::Directory));
            } else if entry.node == parent::Node::Other && path.ends_with(b".lock") {
                items.hide(path);
            }
        }
    }

    /// The outputs that the closure's derivations declare. Nix keeps them in the
    /// database, too, but no list of registrations has them.
    pub(super) fn declared_outputs(&self, files: &StoreFiles) -> anyhow::Result<Vec<DeclaredOutput>> {
        let mut declared = Vec::new();
        for (id, info) in self.closure.infos().iter().enumerate().filter(|(_, info)| info.path.is_derivation()) {
            let mut hasher = KeyHasher::new("stowage declared outputs v1");
            hasher.add(self.closure.print(id).as_bytes());
            hasher.add(info.nar_hash.as_bytes());
            let key = hasher.finish();
            let known = Some(&info.outputs).filter(|outputs| !outputs.is_empty());
            let known = known.map(|outputs| Outputs { outputs: outputs.clone() });
            let outputs = match known.or_else(|| self.index.recall::<Outputs>("outputs", &key)) {
                Some(outputs) => outputs,
                // One of the parent's, which need not be in this store.
                None if self.ground.is_there() && files.check(&info.path).is_err() => {
                    tracing::warn!("what {} declares is not known in the image", self.closure.print(id));
                    continue;
                }
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
}
