//! What a layer lies on: the parent's file system, where its links lead, and so
//! where in it a layer's entries belong.
//!
//! A folder over a link would hide all that the link leads to: on a Debian whose
//! `/bin` is a link to `usr/bin`, an entry `bin/foo` belongs to `usr/bin/foo`.

use crate::fs::MAX_LINKS;
use crate::layer::key::KeyHasher;
use crate::parent::{Entry, Node, Root};
use crate::store::StoreDir;

/// A parent's file system, or nothing.
#[derive(Clone, Copy, Default)]
pub struct Ground<'a>(Option<(&'a Root, &'a StoreDir)>);

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// The path without links on its way, and at its end where they were followed;
    /// a link into the store is as a folder.
    pub path: Vec<u8>,
    /// What that is below the store dir, if it is there by such a link.
    pub in_store: Option<Vec<u8>>,
}

/// What is at a path, links followed.
#[derive(Debug, PartialEq, Eq)]
pub enum Below {
    /// Nothing.
    Nothing,
    /// A folder.
    Directory,
    /// Something else.
    Other,
    /// That path below the store dir.
    InStore(Vec<u8>),
}

impl<'a> Ground<'a> {
    /// The file system `root`, whose store dir is `store_dir`.
    #[must_use]
    pub fn new(root: &'a Root, store_dir: &'a StoreDir) -> Self {
        Self(Some((root, store_dir)))
    }

    /// Whether there is a parent.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// The text of a file of [`crate::parent::WANTED`]; empty where there is none.
    #[must_use]
    pub fn text(&self, path: &str) -> &'a str {
        self.0.and_then(|(root, _)| root.texts.get(path)).map_or("", String::as_str)
    }

    /// What is at `path` itself, which has no links on its way.
    #[must_use]
    pub fn entry(&self, path: &[u8]) -> Option<&'a Entry> {
        self.0.and_then(|(root, _)| root.entries.get(path))
    }

    /// What is in the folder `path`, at any depth.
    pub fn within(&self, path: &str) -> impl Iterator<Item = (&'a Vec<u8>, &'a Entry)> + use<'a> {
        let first = format!("{path}/").into_bytes();
        // The byte after `/`.
        let last = format!("{path}0").into_bytes();
        self.0.into_iter().flat_map(move |(root, _)| root.entries.range(first.clone()..last.clone()))
    }

    /// What is at `path`, links followed.
    #[must_use]
    pub fn below(&self, path: &[u8]) -> Below {
        let Some(place) = self.follow(path) else {
            return Below::Nothing;
        };
        match (place.in_store, self.entry(&place.path).map(|entry| &entry.node)) {
            (Some(path), _) => Below::InStore(path),
            (None, Some(Node::Directory)) => Below::Directory,
            (None, Some(_)) => Below::Other,
            (None, None) => Below::Nothing,
        }
    }

    /// Where the folder `path` belongs: where links lead, unless that is a file.
    #[must_use]
    pub fn place_of_folder(&self, path: &[u8]) -> Place {
        match self.below(path) {
            Below::Other => self.place(path),
            _ => self.follow(path).unwrap_or_else(|| self.place(path)),
        }
    }

    /// Where `path` belongs, if it is no folder: it replaces a link of that name.
    #[must_use]
    pub fn place(&self, path: &[u8]) -> Place {
        let Some(at) = path.iter().rposition(|byte| *byte == b'/') else {
            return Place { path: path.to_vec(), in_store: None };
        };
        let folder = self.place_of_folder(&path[..at]);
        let join =
            |folder: Vec<u8>| if folder.is_empty() { path[at + 1..].to_vec() } else { [&folder, &path[at..]].concat() };
        Place { path: join(folder.path), in_store: folder.in_store.map(join) }
    }

    /// Where `path` leads, or would if it were there; nowhere where links lead in
    /// circles.
    fn follow(&self, path: &[u8]) -> Option<Place> {
        let mut left: Vec<&[u8]> = components(path).rev().collect();
        let mut at = Place { path: Vec::new(), in_store: None };
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == b".." {
                at.path.truncate(at.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                // Above a store path nothing is that belongs to it.
                let above = |path: Vec<u8>| Some(path[..path.iter().rposition(|byte| *byte == b'/')?].to_vec());
                at.in_store = at.in_store.and_then(above);
                continue;
            }
            let length = at.path.len();
            push(&mut at.path, name);
            if let Some(path) = &mut at.in_store {
                push(path, name);
                continue;
            }
            let Some(Entry { node: Node::Link(target), .. }) = self.entry(&at.path) else {
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return None;
            }
            if let Some(path) = self.below_store(target) {
                at.in_store = Some(path.to_vec());
                continue;
            }
            at.path.truncate(if target.starts_with(b"/") { 0 } else { length });
            left.extend(components(target).rev());
        }
        Some(at)
    }

    /// The part of a link's target below the store dir.
    fn below_store<'t>(&self, target: &'t [u8]) -> Option<&'t [u8]> {
        let (_, store_dir) = self.0?;
        let rest = target.strip_prefix(store_dir.as_str().as_bytes())?.strip_prefix(b"/")?;
        (!rest.is_empty()).then_some(rest)
    }

    /// Adds all that is known to the key of a layer; nothing where there is nothing.
    pub fn add_to(&self, hasher: &mut KeyHasher) {
        let Some((root, _)) = self.0 else {
            return;
        };
        hasher.add(&(root.entries.len() as u64).to_be_bytes());
        for (path, entry) in &root.entries {
            hasher.add(path);
            let (kind, target) = match &entry.node {
                Node::Directory => (0, &b""[..]),
                Node::Link(target) => (1, &target[..]),
                Node::Other => (2, &b""[..]),
            };
            hasher.add(target);
            hasher.add(&[kind, entry.mode, entry.uid, entry.gid].map(u32::to_be_bytes).concat());
        }
        for (path, text) in &root.texts {
            hasher.add(path.as_bytes());
            hasher.add(text.as_bytes());
        }
    }
}

/// The names in a path.
pub(super) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

fn push(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend(name);
}

#[cfg(test)]
#[allow(missing_docs, reason = "only tests see it")]
pub mod tests {
    use super::*;

    /// A file system of these names: folders end in `/`, and links have a `>`.
    pub fn root(names: &[&str]) -> Root {
        let entry = |name: &&str| {
            let (path, node) = match (name.split_once('>'), name.strip_suffix('/')) {
                (Some((path, target)), _) => (path, Node::Link(target.as_bytes().to_vec())),
                (None, Some(path)) => (path, Node::Directory),
                (None, None) => (*name, Node::Other),
            };
            (path.as_bytes().to_vec(), Entry { node, mode: 0o755, uid: 0, gid: 0 })
        };
        Root { entries: names.iter().map(entry).collect(), ..Root::default() }
    }

    fn place(root: &Root, path: &str) -> String {
        let store_dir = StoreDir::default();
        let place = Ground::new(root, &store_dir).place(path.as_bytes());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("ASCII");
        text(place.path) + &place.in_store.map_or_else(String::new, |path| format!(" in {}", text(path)))
    }

    #[test]
    fn entries_belong_where_the_links_on_their_way_lead() {
        let root = root(&[
            "bin>usr/bin",
            "usr/",
            "usr/bin/",
            "usr/bin/sh",
            "var/",
            "var/run>/run",
            "run/",
            "etc>/system/etc",
            "system/",
            "system/etc/",
            "up>../../usr",
            "via>bin",
            "far>/none/where",
            "file",
            "loop>loop",
            "usr/bin/x11>.",
        ]);
        for (path, expected) in [
            ("bin/foo", "usr/bin/foo"),
            ("via/foo", "usr/bin/foo"),
            ("up/bin/foo", "usr/bin/foo"),
            ("var/run/foo", "run/foo"),
            ("etc/nix/nix.conf", "system/etc/nix/nix.conf"),
            ("far/foo", "none/where/foo"),
            ("bin/x11/x11/foo", "usr/bin/foo"),
            ("bin", "bin"),
            ("new/foo", "new/foo"),
            ("file/foo", "file/foo"),
            ("loop/foo", "loop/foo"),
            ("usr/bin/x11/../lib/foo", "usr/lib/foo"),
        ] {
            assert_eq!(place(&root, path), expected, "{path}");
        }
        assert_eq!(place(&Root::default(), "a/b"), "a/b");
    }

    #[test]
    fn links_into_the_store_are_as_folders() {
        let root = root(&["bin>/nix/store/x-y/bin", "usr/", "usr/bin>../bin"]);
        assert_eq!(place(&root, "bin/foo"), "bin/foo in x-y/bin/foo");
        assert_eq!(place(&root, "usr/bin/foo"), "bin/foo in x-y/bin/foo");
        assert_eq!(place(&root, "bin"), "bin");
        let store_dir = StoreDir::default();
        assert_eq!(Ground::new(&root, &store_dir).below(b"bin"), Below::InStore(b"x-y/bin".to_vec()));
    }

    #[test]
    fn what_is_there_is_told_with_links_followed() {
        let root = root(&["bin>usr/bin", "usr/", "usr/bin/", "usr/bin/sh", "sh>bin/sh", "none>x"]);
        let store_dir = StoreDir::default();
        let ground = Ground::new(&root, &store_dir);
        for (path, expected) in [
            ("bin", Below::Directory),
            ("usr", Below::Directory),
            ("sh", Below::Other),
            ("bin/sh", Below::Other),
            ("none", Below::Nothing),
            ("other", Below::Nothing),
        ] {
            assert_eq!(ground.below(path.as_bytes()), expected, "{path}");
        }
        assert_eq!(ground.within("usr").count(), 2);
        assert_eq!(Ground::default().below(b"usr"), Below::Nothing);
    }
}
