//! The entries of a layer that is made in memory, each where it belongs on the
//! ground that the layer lies on.

mod through;

use std::collections::{BTreeMap, BTreeSet};

use super::contents::{self, ContentsError, Placed};
use super::ground::{Below, Ground};
use super::perms::Perm;
use crate::layer::Owner;
use crate::layer::tar::{self, Header, Kind};
use crate::parent;
use crate::store::StoreDir;
use crate::tree::StoreFiles;

/// When everything was modified, as in the store layers.
const MTIME: u64 = 1;

/// A file, folder or link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub node: Node,
    /// Its permissions.
    pub mode: u32,
    /// Whom it belongs to.
    pub owner: Owner,
    /// A file's capabilities, as the extended attribute `security.capability` has them.
    pub capability: Vec<u8>,
}

/// What an item is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A folder.
    Directory,
    /// A file with those bytes.
    File(Vec<u8>),
    /// A link to there.
    Link(Vec<u8>),
}

/// A layer's entries.
pub struct Items<'a> {
    ground: Ground<'a>,
    entries: BTreeMap<Vec<u8>, Item>,
    /// The folders that were put, by the names they were put under.
    put: BTreeSet<Vec<u8>>,
    /// Where there is something that was made for the image.
    made: BTreeSet<Vec<u8>>,
    /// What has no place, told in the end.
    problem: Option<ContentsError>,
    /// What targets of links into the store begin with.
    store: &'a [u8],
    /// The links into the store that folders take the place of, with what they lead
    /// to there.
    dissolved: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Item {
    /// One of root's, with the usual permissions.
    #[must_use]
    pub fn of_root(node: Node) -> Self {
        let mode = match node {
            Node::Directory => 0o755,
            Node::File(_) => 0o644,
            Node::Link(_) => 0o777,
        };
        Self { node, mode, owner: Owner::default(), capability: Vec::new() }
    }
}

impl<'a> Items<'a> {
    /// No entries, on `ground`, for an image whose store is `store_dir`.
    #[must_use]
    pub fn new(ground: Ground<'a>, store_dir: &'a StoreDir) -> Self {
        Self {
            ground,
            entries: BTreeMap::new(),
            put: BTreeSet::new(),
            made: BTreeSet::new(),
            problem: None,
            store: store_dir.as_str().as_bytes(),
            dissolved: BTreeMap::new(),
        }
    }

    /// Puts what contents have at `path`.
    ///
    /// # Errors
    /// When the parent has a folder where contents have a file, or its links lead two
    /// of the contents' files to one place.
    pub fn put_content(&mut self, path: &[u8], placed: &Placed) -> Result<(), ContentsError> {
        let target = match placed {
            Placed::Link(target) => target,
            Placed::Directory => {
                self.replace_by_folder(path);
                return Ok(());
            }
            // What was made for the image has it.
            Placed::Copy { .. } => return Ok(()),
        };
        let in_store = target.starts_with(self.store);
        if self.ground.below(path) == Below::Directory {
            // Links to links: the parent's folder is what they stand for.
            return if in_store { Err(self.folder_below(path, target)) } else { Ok(()) };
        }
        let place = self.ground.place(path).path;
        // A relative link means something else in another folder.
        let target = match folder_of(&place) == folder_of(path) || target.starts_with(b"/") {
            true => target.clone(),
            false => absolute(folder_of(path), target),
        };
        let link = Node::Link(target);
        match self.entries.get(&place).map(|item| &item.node) {
            Some(other) if *other == link => return Ok(()),
            Some(Node::Directory) if !in_store => return Ok(()),
            Some(other) => return Err(conflict(path, other, &link)),
            None => {}
        }
        self.replace_by_folder(folder_of(path));
        self.entries.insert(place, Item::of_root(link));
        Ok(())
    }

    /// Puts what was made for this image at `path`, which takes the place of links of contents.
    ///
    /// # Errors
    /// When there is a folder, and this is none; or the other way round.
    pub fn put_made(&mut self, path: &[u8], item: Item) -> Result<(), ContentsError> {
        let is_folder = item.node == Node::Directory;
        if !is_folder && self.ground.below(path) == Below::Directory {
            return Err(self.folder_below(path, b"what was made for it"));
        }
        self.replace_by_folder(if is_folder { path } else { folder_of(path) });
        let place = if is_folder { self.ground.place_of_folder(path) } else { self.ground.place(path) }.path;
        match self.entries.get(&place) {
            Some(other) if (other.node == Node::Directory) != is_folder => Err(conflict(path, &other.node, &item.node)),
            // A parent's links may lead two of them to one place.
            Some(other) if !is_folder && self.made.contains(&place) && *other != item => {
                Err(conflict(path, &other.node, &item.node))
            }
            _ => {
                self.made.insert(place.clone());
                self.entries.insert(place, item);
                Ok(())
            }
        }
    }

    /// Whether there is something at `path` in this layer.
    #[must_use]
    pub fn has(&self, path: &[u8]) -> bool {
        self.entries.contains_key(&self.ground.place(&self.place(path)).path)
    }

    /// Gives owners and modes to what they are for.
    pub fn apply(&mut self, perms: &[Perm]) {
        for perm in perms {
            let found = self.entries.iter_mut().filter(|(path, _)| perm.path.matches(path));
            if found.map(|(_, item)| perm.apply(item)).count() == 0 {
                tracing::warn!(
                    "/{} in the spec's `perms` is nothing that this image puts at /; what is in store paths, or in a parent, keeps its owner and mode",
                    perm.path.as_str()
                );
            }
        }
    }

    /// The folder that was made for the image at `path`.
    #[must_use]
    pub fn made_folder(&self, path: &[u8]) -> Option<&Item> {
        let place = self.ground.place_of_folder(&self.through(path)).path;
        self.entries.get(&place).filter(|item| item.node == Node::Directory && self.made.contains(&place))
    }

    /// Puts a file, link or folder of the image's own, which takes the place of what
    /// contents have there.
    pub fn put(&mut self, path: &[u8], item: Item) {
        let is_folder = item.node == Node::Directory;
        let at = if is_folder { self.through(path) } else { self.place(path) };
        self.replace_by_folder(folder_of(&at));
        let place = if is_folder { self.ground.place_of_folder(&at) } else { self.ground.place(&at) }.path;
        if let Some(made) = self.entries.get(&place).filter(|other| is_folder && other.node != Node::Directory)
            && self.made.contains(&place)
        {
            self.problem = Some(conflict(&place, &made.node, &item.node));
        }
        if !matches!(path, b"etc/passwd" | b"etc/group") {
            warn_of_lost(&place, self.entries.get(&place));
        }
        self.entries.insert(place, item);
    }

    /// Puts a folder of the image's own, which keeps the owner and the permissions that it has in the
    /// parent; where something of this layer is a link, it is put where that leads.
    pub fn put_folder(&mut self, path: &[u8]) {
        self.replace_by_folder(&self.through(path));
    }

    /// Puts a folder likewise, which takes the place of a link.
    pub fn replace_by_folder(&mut self, path: &[u8]) {
        if path.is_empty() || !self.put.insert(path.to_vec()) {
            return;
        }
        self.replace_by_folder(folder_of(path));
        let place = self.ground.place_of_folder(path);
        // Those above a path that no link leads away from have been put.
        let above: Vec<Vec<u8>> = if place.path == path { Vec::new() } else { parents(&place.path).collect() };
        for folder in above.into_iter().chain([place.path.clone()]) {
            let ground = self.ground;
            let folder_below = || {
                let entry = ground.entry(&folder).filter(|entry| entry.node == parent::Node::Directory);
                let owner = |entry: &parent::Entry| Owner { uid: entry.uid, gid: entry.gid, ..Owner::default() };
                let item = Item::of_root(Node::Directory);
                entry.map_or(item.clone(), |entry| Item { mode: entry.mode & 0o7777, owner: owner(entry), ..item })
            };
            if self.entries.get(&folder).is_some_and(|item| item.node == Node::Directory) {
                continue;
            }
            let before = self.entries.insert(folder.clone(), folder_below());
            match before {
                Some(before) if self.made.contains(&folder) => {
                    self.problem = Some(conflict(&folder, &before.node, &Node::Directory));
                }
                before => warn_of_lost(&folder, before.as_ref()),
            }
        }
        if let Some(in_store) = place.in_store {
            self.dissolved.insert(place.path, in_store);
        }
    }

    /// Puts all that is at `from` to `to`, as far as it is in this layer.
    pub fn move_folder(&mut self, from: &[u8], to: &[u8]) {
        self.put_folder(folder_of(to));
        let is_there = |path: &[u8]| path.strip_prefix(from).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
        let moved: Vec<Vec<u8>> = self.entries.keys().filter(|path| is_there(path)).cloned().collect();
        for path in moved {
            if let Some(item) = self.entries.remove(&path) {
                self.entries.insert([to, &path[from.len()..]].concat(), item);
            }
        }
    }

    /// Takes away what contents have at `path`, since something else has that place.
    pub fn give_way(&mut self, path: &[u8]) {
        let place = self.ground.place(&self.place(path)).path;
        warn_of_lost(&place, self.entries.remove(&place).as_ref());
    }

    /// Hides what the parent has at `path`, if it has something there.
    pub fn hide(&mut self, path: &[u8]) {
        let place = self.ground.place(path).path;
        if self.ground.entry(&place).is_some() {
            let name = &place[folder_of(&place).len()..];
            let name = name.strip_prefix(b"/").unwrap_or(name);
            self.put(&join(folder_of(path), &[b".wh.", name].concat()), Item::of_root(Node::File(Vec::new())));
        }
    }

    /// Hides all that the parent has in the folder `path`.
    pub fn hide_all_in(&mut self, path: &[u8]) {
        self.put(&join(path, b".wh..wh..opq"), Item::of_root(Node::File(Vec::new())));
    }

    /// Puts links to what the parent has where folders take the place of links into
    /// the store, so that nothing of it goes out of sight.
    ///
    /// # Errors
    /// When that is not in this store.
    pub fn link_dissolved(&mut self, files: &StoreFiles, store_dir: &StoreDir) -> Result<(), ContentsError> {
        for (path, in_store) in std::mem::take(&mut self.dissolved) {
            for name in contents::names(files, store_dir, &in_store, &path)? {
                let target = [store_dir.as_str().as_bytes(), b"/", &in_store, b"/", &name].concat();
                self.entries.entry(join(&path, &name)).or_insert_with(|| Item::of_root(Node::Link(target)));
            }
        }
        Ok(())
    }

    /// Sees whether all that was put has found its place.
    ///
    /// # Errors
    /// When something was made for the image, and is no folder, where the image has one of its own.
    pub fn check(&mut self) -> Result<(), ContentsError> {
        self.problem.take().map_or(Ok(()), Err)
    }

    /// The folder that the parent has at `path`.
    #[must_use]
    pub fn parents_folder(&self, path: &[u8]) -> Option<&'a parent::Entry> {
        let entry = self.ground.entry(&self.ground.place_of_folder(&self.through(path)).path);
        entry.filter(|entry| entry.node == parent::Node::Directory)
    }

    /// Where the folder `path` is, links of this layer followed.
    fn through(&self, path: &[u8]) -> Vec<u8> {
        through::folder(&self.entries, self.store, path)
    }

    /// Where `path` is, if links of this layer are on its way.
    fn place(&self, path: &[u8]) -> Vec<u8> {
        let folder = folder_of(path);
        let name = &path[folder.len()..];
        join(&self.through(folder), name.strip_prefix(b"/").unwrap_or(name))
    }

    /// The layer's tar.
    #[must_use]
    pub fn to_tar(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (path, item) in &self.entries {
            let kind = match &item.node {
                Node::Directory => Kind::Directory,
                Node::File(bytes) => Kind::Regular(bytes.len() as u64),
                Node::Link(target) => Kind::Symlink(target),
            };
            let (mode, owner, capability) = (item.mode, &item.owner, &item.capability[..]);
            Header { path, kind, mode, owner, mtime: MTIME, capability }.write(&mut out);
            if let Node::File(bytes) = &item.node {
                out.extend(bytes);
                tar::pad(&mut out);
            }
        }
        out.extend(tar::END);
        out
    }

    fn folder_below(&self, path: &[u8], target: &[u8]) -> ContentsError {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ContentsError::FolderBelow { path: text(path), file: text(target) }
    }
}

/// Tells of a link that contents bring, and that the image has something else for.
fn warn_of_lost(path: &[u8], item: Option<&Item>) {
    if let Some(Item { node: Node::Link(_), .. }) = item {
        tracing::warn!("/{} gives way to the image's own", String::from_utf8_lossy(path));
    }
}

fn conflict(path: &[u8], one: &Node, other: &Node) -> ContentsError {
    let text = |node: &Node| match node {
        Node::Link(target) => String::from_utf8_lossy(target).into_owned(),
        Node::Directory => "a folder".to_owned(),
        Node::File(_) => "a file".to_owned(),
    };
    let path = String::from_utf8_lossy(path).into_owned();
    ContentsError::Conflict { path, one: text(one), other: text(other) }
}

/// Where a relative link in `folder` leads, which no other link is on the way to.
fn absolute(folder: &[u8], target: &[u8]) -> Vec<u8> {
    let mut path: Vec<&[u8]> = Vec::new();
    for name in folder.split(|byte| *byte == b'/').chain(target.split(|byte| *byte == b'/')) {
        match name {
            b"" | b"." => {}
            b".." => drop(path.pop()),
            name => path.push(name),
        }
    }
    [b"/", path.join(&b'/').as_slice()].concat()
}

/// The folders above `path`, the nearest last.
pub fn parents(path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    (0..path.len()).filter(|at| path[*at] == b'/').map(|at| path[..at].to_vec())
}

/// The folder that `path` is in.
fn folder_of(path: &[u8]) -> &[u8] {
    &path[..path.iter().rposition(|byte| *byte == b'/').unwrap_or(0)]
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

#[cfg(test)]
mod tests;
