//! Looks through a layer: one pass, in which it is also hashed.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use super::blob::{Blob, Spool, SpoolError};
use super::error::LayerProblem;
use super::overlay::{self, Change, Changes};
use super::stream::{LayerStream, Sums};
use super::tar::{Kind, TarEntry, TarReader};
use super::{Entry, Node, WANTED};

/// Where an image's Nix database is, its write-ahead log, and its schema's
/// version.
pub const DATABASE: &[u8] = b"nix/var/nix/db/db.sqlite";
/// See [`DATABASE`].
pub const WAL: &[u8] = b"nix/var/nix/db/db.sqlite-wal";
/// See [`DATABASE`].
pub const SCHEMA: &[u8] = b"nix/var/nix/db/schema";

/// How many entries a layer may have.
const MAX_ENTRIES: u64 = 5_000_000;

/// How much memory may be spent on what all layers have, in bytes.
const MAX_KEPT: usize = 100 << 20;

/// What an entry takes beside its path and target, about, in bytes.
pub const ENTRY: usize = 160;

/// How large a file may be whose text is wanted, in bytes.
const MAX_TEXT: u64 = 4 << 20;

/// How large a database may be, in bytes.
const MAX_DATABASE: u64 = 1 << 30;

/// What a layer turned out to be.
pub struct Scanned {
    /// Its digests.
    pub sums: Sums,
    /// What it adds and removes. Of the store, only the store paths themselves.
    pub changes: Changes<Entry>,
    /// The contents of those of its files that are watched.
    pub watched: BTreeMap<Vec<u8>, Blob>,
    /// How much memory the entries of its store paths would take, about, in bytes.
    pub store: BTreeMap<Vec<u8>, usize>,
}

/// Looks through the layers of one image.
pub struct Scanner<'a> {
    store: &'a [u8],
    spool: &'a mut Spool,
    budget: usize,
}

impl<'a> Scanner<'a> {
    /// A scanner for images whose store dir is `store`, without a leading `/`. Watched
    /// files are kept in `spool`.
    pub fn new(store: &'a [u8], spool: &'a mut Spool) -> Self {
        Self { store, spool, budget: MAX_KEPT }
    }

    /// Looks through the layer in `blob`.
    ///
    /// # Errors
    /// When it is no layer, is damaged, or could fool or harm whoever uses it.
    pub fn scan(&mut self, blob: &Blob) -> Result<Scanned, LayerProblem> {
        let mut layer = Layer {
            store: self.store,
            changes: Changes::default(),
            watched: BTreeMap::new(),
            sizes: BTreeMap::new(),
            links: Links::default(),
            budget: &mut self.budget,
        };
        let mut tar = TarReader::new(LayerStream::new(blob)?);
        let mut count = 0;
        while let Some(entry) = tar.entry()? {
            count += 1;
            if count > MAX_ENTRIES {
                return Err(LayerProblem::Bomb(format!("it has more than {MAX_ENTRIES} entries")));
            }
            let limit = watched(&entry.path);
            let (path, size, is_sparse) = (entry.path.clone(), entry.size, entry.kind == Kind::Sparse);
            let is_file = layer.add(entry)?;
            let Some(limit) = limit.filter(|_| is_file) else {
                continue;
            };
            if is_sparse || size > limit {
                let name = path.escape_ascii();
                return Err(LayerProblem::Bomb(format!("\"{name}\" has holes, or more than {limit} bytes")));
            }
            let kept = self.spool.keep(tar.contents()).map_err(LayerProblem::from)?;
            layer.watched.insert(path, kept);
        }
        let Layer { changes, watched, sizes, .. } = layer;
        Ok(Scanned { sums: tar.into_input().finish()?, changes, watched, store: sizes })
    }
}

impl From<SpoolError> for LayerProblem {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::Read(error) => error.into(),
            SpoolError::Write(error) => Self::Temporary(error),
        }
    }
}

/// How large the file at `path` may be, in bytes, if its contents are wanted.
fn watched(path: &[u8]) -> Option<u64> {
    if path == DATABASE || path == WAL {
        return Some(MAX_DATABASE);
    }
    (path == SCHEMA || WANTED.iter().any(|wanted| wanted.as_bytes() == path)).then_some(MAX_TEXT)
}

/// A layer that is being looked through.
struct Layer<'a> {
    store: &'a [u8],
    changes: Changes<Entry>,
    watched: BTreeMap<Vec<u8>, Blob>,
    sizes: BTreeMap<Vec<u8>, usize>,
    links: Links,
    budget: &'a mut usize,
}

impl Layer<'_> {
    /// Takes an entry; tells whether it is a file with contents outside of the
    /// store.
    fn add(&mut self, entry: TarEntry) -> Result<bool, LayerProblem> {
        if entry.path.is_empty() {
            return match entry.kind {
                Kind::Directory => Ok(false),
                _ => Err(LayerProblem::Tar("its root is no folder".to_owned())),
            };
        }
        self.check_way(&entry.path)?;
        if let Kind::HardLink(target) = &entry.kind {
            self.check_way(target)?;
        }
        let change =
            overlay::change(&entry.path).ok_or_else(|| tar_problem(&entry.path, "removes what has no name"))?;
        let (path, below) = self.in_store(&entry.path);
        if below {
            // What is in store paths is only looked at where nothing else tells.
            return self.add_below_store(path, &entry, &change).map(|()| false);
        }
        match change {
            Change::None => Ok(false),
            Change::Hide(path) => {
                self.spend(path.len() + ENTRY).map(|()| self.changes.hidden.push(path)).map(|()| false)
            }
            Change::Empty(path) => {
                self.spend(path.len() + ENTRY).map(|()| self.changes.emptied.push(path)).map(|()| false)
            }
            Change::Add => self.add_entry(entry),
        }
    }

    fn add_entry(&mut self, entry: TarEntry) -> Result<bool, LayerProblem> {
        let TarEntry { path, kind, mode, uid, gid, .. } = entry;
        self.watched.remove(&path);
        let is_file = matches!(kind, Kind::Regular | Kind::Sparse);
        let node = match kind {
            Kind::Directory => Node::Directory,
            Kind::Symlink(target) => Node::Link(target),
            Kind::HardLink(target) => return self.add_hard_link(path, &target, mode, uid, gid).map(|()| false),
            Kind::Regular | Kind::Sparse | Kind::Special => Node::Other,
        };
        self.put(path, Entry { node, mode, uid, gid })?;
        Ok(is_file)
    }

    /// Another name for what the layer has, link or file.
    fn add_hard_link(
        &mut self,
        path: Vec<u8>,
        target: &[u8],
        mode: u32,
        uid: u32,
        gid: u32,
    ) -> Result<(), LayerProblem> {
        let known = self.changes.added.get(target).cloned();
        if known.as_ref().is_some_and(|entry| entry.node == Node::Directory) || self.links.has(target) {
            return Err(tar_problem(&path, "is another name for something that is no file"));
        }
        if let Some(contents) = self.watched.get(target).cloned().filter(|_| watched(&path).is_some()) {
            self.watched.insert(path.clone(), contents);
        }
        self.put(path, known.unwrap_or(Entry { node: Node::Other, mode, uid, gid }))
    }

    fn put(&mut self, path: Vec<u8>, entry: Entry) -> Result<(), LayerProblem> {
        let target = if let Node::Link(target) = &entry.node { target.len() } else { 0 };
        match self.changes.added.get(&path) {
            // It takes the place of another.
            Some(_) => self.spend(target)?,
            None => self.spend(path.len() + target + ENTRY)?,
        }
        if entry.node != Node::Directory {
            self.watched.retain(|watched, _| watched == &path || !overlay::is_within(watched, &path));
            self.links.forget_within(self.store, &path);
        }
        self.changes.added.set(path, entry);
        Ok(())
    }

    /// What is in the store path that is at `path`.
    fn add_below_store(&mut self, path: Vec<u8>, entry: &TarEntry, change: &Change) -> Result<(), LayerProblem> {
        match self.sizes.get_mut(&path) {
            Some(size) => *size += entry.path.len() + ENTRY,
            None => drop(self.sizes.insert(path.clone(), entry.path.len() + ENTRY)),
        }
        if self.changes.added.get(&path).is_none() {
            self.put(path, Entry { node: Node::Directory, mode: 0o555, uid: 0, gid: 0 })?;
        }
        if *change == Change::Add {
            let is_link = match &entry.kind {
                Kind::Symlink(_) => true,
                Kind::HardLink(target) => self.links.has(target),
                _ => false,
            };
            if is_link {
                self.spend(ENTRY)?;
                self.links.add(&entry.path);
            } else {
                self.links.remove(&entry.path);
            }
        }
        Ok(())
    }

    /// The store path that `path` is in, or else `path` itself; and whether it is
    /// below that.
    fn in_store(&self, path: &[u8]) -> (Vec<u8>, bool) {
        let below = path.strip_prefix(self.store).and_then(|rest| rest.strip_prefix(b"/"));
        match below.and_then(|below| below.iter().position(|byte| *byte == b'/')) {
            Some(end) => (path[..self.store.len() + 1 + end].to_vec(), true),
            None => (path.to_vec(), false),
        }
    }

    /// Refuses what is below a link, or a file. Tools put it where the link leads, or
    /// in place of the link, and what is there in the end is not what we see.
    fn check_way(&self, path: &[u8]) -> Result<(), LayerProblem> {
        let obstacle = self.changes.added.obstacle(path);
        match obstacle.or_else(|| self.links.obstacle(self.store, path)) {
            Some(obstacle) => {
                let obstacle = obstacle.escape_ascii();
                Err(tar_problem(path, &format!("leads through \"{obstacle}\", which is no folder in this layer")))
            }
            None => Ok(()),
        }
    }

    /// Counts that many bytes of memory.
    fn spend(&mut self, length: usize) -> Result<(), LayerProblem> {
        match self.budget.checked_sub(length) {
            Some(left) => {
                *self.budget = left;
                Ok(())
            }
            None => Err(LayerProblem::Bomb(format!(
                "the image has more files outside of the store than {} MiB of memory can hold",
                MAX_KEPT >> 20
            ))),
        }
    }
}

fn tar_problem(path: &[u8], problem: &str) -> LayerProblem {
    LayerProblem::Tar(format!("\"{}\" {problem}", path.escape_ascii()))
}

/// The links in store paths, of which there may be millions: by hashes of their
/// paths. Two paths with the same hash could only have a layer refused.
#[derive(Default)]
struct Links {
    hasher: RandomState,
    hashes: HashSet<u64>,
}

impl Links {
    fn add(&mut self, path: &[u8]) {
        self.hashes.insert(self.hasher.hash_one(path));
    }

    fn remove(&mut self, path: &[u8]) {
        if !self.hashes.is_empty() {
            self.hashes.remove(&self.hasher.hash_one(path));
        }
    }

    fn has(&self, path: &[u8]) -> bool {
        !self.hashes.is_empty() && self.hashes.contains(&self.hasher.hash_one(path))
    }

    /// The first link on the way to `path` that is in a store path.
    fn obstacle<'a>(&self, store: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
        if self.hashes.is_empty() || !overlay::is_within(path, store) {
            return None;
        }
        overlay::parents(path).filter(|parent| parent.len() > store.len()).find(|parent| self.has(parent))
    }

    /// After the store, or what it is in, was replaced, none is left.
    fn forget_within(&mut self, store: &[u8], path: &[u8]) {
        if overlay::is_within(store, path) {
            self.hashes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parent::blob::tests::blob;
    use crate::parent::tar::tests::header;

    const STORE: &[u8] = b"nix/store";

    fn scan(entries: &[(&str, u8, &str)]) -> Result<Scanned, LayerProblem> {
        let mut tar = Vec::new();
        for (name, kind, value) in entries {
            let is_file = *kind == b'0';
            let (size, link) = if is_file { (value.len(), "") } else { (0, *value) };
            tar.extend(header(name.as_bytes(), *kind, size as u64, link.as_bytes()));
            if is_file {
                tar.extend(value.as_bytes());
                tar.resize(tar.len().next_multiple_of(512), 0);
            }
        }
        tar.extend([0; 1024]);
        Scanner::new(STORE, &mut Spool::new().expect("a file")).scan(&blob(&tar))
    }

    fn names(scanned: &Scanned) -> Vec<String> {
        scanned.changes.added.iter().map(|(path, _)| String::from_utf8_lossy(path).into_owned()).collect()
    }

    const A: &str = "nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-a";

    #[test]
    fn of_the_store_only_the_store_paths_are_kept() {
        let file = format!("{A}/bin/sh");
        let scanned = scan(&[("./etc/", b'5', ""), ("/etc/passwd", b'0', "root"), (&file, b'0', "x")]).expect("valid");
        assert_eq!(names(&scanned), ["etc", "etc/passwd", A]);
        assert_eq!(scanned.watched[&b"etc/passwd"[..]].bytes(10).expect("kept"), b"root");
    }

    #[test]
    fn ways_through_links_are_refused_in_the_store_too() {
        let (link, below) = (format!("{A}/link"), format!("{A}/link/passwd"));
        for entries in [
            &[("a", b'2', "/etc"), ("a/passwd", b'0', "x")][..],
            &[(A, b'2', "/etc"), (&format!("{A}/passwd"), b'0', "x")],
            &[(&link, b'2', "/etc"), (&below, b'0', "x")],
            &[(&link, b'2', "/etc"), ("etc/passwd", b'1', &below)],
            &[("nix", b'2', "/etc"), (A, b'5', "")],
            &[("a", b'0', "file"), ("a/b", b'0', "x")],
        ] {
            let error = scan(entries).map(|_| ()).expect_err("a trick").to_string();
            assert!(error.contains("leads through"), "{error}");
        }
        // The other way round the link takes the folder's place.
        let scanned = scan(&[("a/passwd", b'0', "x"), ("a", b'2', "/etc")]).expect("valid");
        assert_eq!(names(&scanned), ["a"]);
        // And a folder the link's.
        scan(&[(&link, b'2', "/etc"), (&link, b'5', ""), (&below, b'0', "x")]).map(|_| ()).expect("valid");
    }

    #[test]
    fn hard_links_are_what_they_link_to() {
        let entries = [
            ("etc/nix/nix.conf", b'0', "first"),
            ("etc/passwd", b'1', "/etc/nix/nix.conf"),
            ("link", b'2', "target"),
            ("other", b'1', "link"),
        ];
        let scanned = scan(&entries).expect("valid");
        assert_eq!(scanned.watched[&b"etc/passwd"[..]].bytes(10).expect("kept"), b"first");
        assert_eq!(scanned.changes.added.get(b"other").expect("there").node, Node::Link(b"target".to_vec()));
    }

    #[test]
    fn whiteouts_are_no_files() {
        let whiteout = "nix/store/.wh.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-a";
        let scanned =
            scan(&[("a/.wh.b", b'0', ""), ("c/.wh..wh..opq", b'0', ""), (whiteout, b'0', "")]).expect("valid");
        assert_eq!(scanned.changes.hidden, [b"a/b".to_vec(), A.as_bytes().to_vec()]);
        assert_eq!(scanned.changes.emptied, [b"c".to_vec()]);
        assert!(names(&scanned).is_empty());
    }
}
