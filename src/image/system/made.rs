//! What was made for this image alone: the files of a tar, and copies of contents.

use super::{HOOK, PROGRAM, SystemLayer};
use crate::image::contents::{Layout, Placed};
use crate::image::items::{Item, Items, Node, parents};
use crate::image::made::Made;
use crate::layer::Owner;
use crate::layer::key::KeyHasher;
use crate::store::StorePath;
use crate::tree::{StoreFiles, TreeError};

impl SystemLayer<'_> {
    /// All of it, with its owners.
    pub(super) fn made(&self, layout: &Layout, files: &StoreFiles) -> Result<Made, TreeError> {
        let mut made = self.extras.made.clone();
        let homes = parents(self.home()).chain([self.home().to_vec()]);
        made.dissolve(homes, files, self.closure.store_dir())?;
        for (path, placed) in &layout.placed {
            let Placed::Copy { from, executable } = placed else { continue };
            let mode = if *executable { 0o755 } else { 0o644 };
            let item = Item { mode, ..Item::of_root(Node::File(files.read_whole(from)?)) };
            made.items.entry(path.clone()).or_insert(item);
        }
        // Folders and links of a home's contents are the user's as its files are.
        let home = [self.home(), b"/"].concat();
        let in_home = layout.placed.iter().filter(|(path, _)| path.starts_with(&home));
        for (path, placed) in in_home.filter(|_| !self.extras.mutable.is_empty()) {
            let node = match placed {
                Placed::Directory => Node::Directory,
                Placed::Link(target) => Node::Link(target.clone()),
                Placed::Copy { .. } => continue,
            };
            made.items.entry(path.clone()).or_insert(Item::of_root(node));
        }
        let owner = Owner { uid: self.user.uid, gid: self.user.gid, ..Owner::default() };
        made.give(self.home(), &owner);
        Ok(made)
    }

    /// The names that the hook's configuration and people know stowage by, where it is a store path.
    pub(super) fn add_program(&self, items: &mut Items<'_>) {
        if let Some(program) = &self.extras.program {
            let target = format!("{}/bin/stowage", self.closure.store_dir().render_path(program));
            items.put(PROGRAM.as_bytes(), Item::of_root(Node::Link(target.into_bytes())));
            items.put(HOOK.as_bytes(), Item::of_root(Node::Link(b"stowage".to_vec())));
        }
    }

    /// What that depends on.
    pub(super) fn add_made_to(&self, hasher: &mut KeyHasher) {
        let (spec, extras) = (self.spec, self.extras);
        if let Some(program) = &extras.program {
            hasher.add(program.to_basename().as_bytes());
        }
        let is_plain = extras.mutable.is_empty() && extras.made.digest.is_none() && spec.perms.is_empty();
        if is_plain && spec.include_store_paths {
            return;
        }
        hasher.add(&[u8::from(spec.include_store_paths)]);
        hasher.add_all(extras.mutable.keys().map(StorePath::to_basename));
        hasher.add_all(extras.mutable.values().map(|hash| *hash.as_bytes()));
        hasher.add_all(extras.made.digest.iter().map(ToString::to_string));
        hasher.add_all(spec.perms.iter().map(|perm| format!("{perm:?}")));
    }
}
