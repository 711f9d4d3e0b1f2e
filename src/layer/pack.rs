//! Turns store paths into the bytes of a layer, in one pass over their files.

use std::collections::BTreeMap;

use super::chunks::{Chunks, Flow, PackError};
use super::tar::{self, BLOCK, HIDING, Header, Kind};
use super::{Owner, STORE_TIME, Stamp};
use crate::store::{StoreDir, StorePath};
use crate::tree::{Entry, Node, Sink as _, StoreFiles, TreeError};

/// How many entries ahead files are announced, once one was not in the page cache. Measured
/// (44,553 small files): 5 times as fast, where 16 threads are 3 times as fast; with all files
/// cached it would cost up to 40 % more.
const AHEAD: usize = 32;

/// A store layer whose size is known, since its files were looked at, but whose
/// bytes were not read.
pub struct StoreLayer<'a> {
    files: &'a StoreFiles,
    store_dir: &'a StoreDir,
    stamp: &'a Stamp,
    entries: Vec<Entry>,
    size: u64,
}

impl<'a> StoreLayer<'a> {
    /// Looks at the files of `paths`, which are in order.
    ///
    /// # Errors
    /// When one is gone, or can't be read.
    pub fn walk(
        files: &'a StoreFiles,
        store_dir: &'a StoreDir,
        stamp: &'a Stamp,
        paths: &[StorePath],
    ) -> Result<Self, TreeError> {
        let mut entries = Vec::new();
        for path in paths {
            entries.append(&mut files.walk(path)?);
        }
        let name = |path: &[u8]| path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        if let Some(entry) = entries.iter().find(|entry| entry.path[name(&entry.path)..].starts_with(HIDING)) {
            return Err(TreeError::Hiding(format!("{store_dir}/{}", String::from_utf8_lossy(&entry.path))));
        }
        let mut layer = Self { files, store_dir, stamp, entries, size: 0 };
        let mut header = layer.folders();
        let mut size = (header.len() + tar::END.len()) as u64;
        for entry in &layer.entries {
            header.clear();
            layer.header(entry, &mut header);
            size += header.len() as u64;
            if let Node::Regular { size: length, .. } = entry.node {
                size += length.next_multiple_of(BLOCK as u64);
            }
        }
        layer.size = size;
        Ok(layer)
    }

    /// The size of the layer's tar, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads the files and hands the tar's bytes to `flow`; tells what the flow
    /// has come to, and the architectures of the files.
    ///
    /// # Errors
    /// When a file is not as it was when it was looked at, or `flow` fails.
    pub fn write<F: Flow>(&self, flow: F) -> Result<(F, BTreeMap<String, u64>), PackError> {
        let mut chunks = Chunks::new(flow);
        let mut header = self.folders();
        chunks.add(&header)?;
        let (mut cold, mut announced) = (false, 0);
        for (number, entry) in self.entries.iter().enumerate() {
            if cold {
                self.announce(&mut announced, number);
            }
            header.clear();
            self.header(entry, &mut header);
            chunks.add(&header)?;
            if let Node::Regular { size, .. } = entry.node {
                // An empty one has no first bytes; those of the next header are not its.
                if size > 0 {
                    chunks.start_file()?;
                }
                self.files.read_noting(&entry.path, size, &mut chunks, &mut cold)?;
                chunks.add(&tar::END[..tar::padding(size) as usize])?;
            }
        }
        chunks.add(&tar::END)?;
        chunks.finish()
    }

    /// Announces the files that follow the entry `number`, as far as they are not `announced`
    /// yet, so that the disk has many to read at once.
    fn announce(&self, announced: &mut usize, number: usize) {
        let until = (number + AHEAD).min(self.entries.len());
        let from = (*announced).max(number + 1).min(until);
        for entry in &self.entries[from..until] {
            if matches!(entry.node, Node::Regular { size, .. } if size > 0) {
                self.files.announce(&entry.path);
            }
        }
        *announced = until;
    }

    /// The headers of the folders that lead to the store.
    fn folders(&self) -> Vec<u8> {
        let root = Owner::default();
        let store = self.prefix();
        let ends = (0..store.len()).filter(|at| store[*at] == b'/').chain([store.len()]);
        let mut headers = Vec::new();
        for end in ends {
            let header = Header {
                path: &store[..end],
                kind: Kind::Directory,
                mode: 0o755,
                owner: &root,
                mtime: STORE_TIME,
                capability: b"",
            };
            header.write(&mut headers);
        }
        headers
    }

    fn header(&self, entry: &Entry, out: &mut Vec<u8>) {
        let (kind, mode) = match &entry.node {
            Node::Directory => (Kind::Directory, 0o555),
            Node::Regular { executable: true, size } => (Kind::Regular(*size), 0o555),
            Node::Regular { executable: false, size } => (Kind::Regular(*size), 0o444),
            Node::Symlink { target } => (Kind::Symlink(target), 0o777),
        };
        let path = [self.prefix(), &entry.path].join(&b'/');
        let Stamp { owner, mtime } = self.stamp;
        Header { path: &path, kind, mode, owner, mtime: *mtime, capability: b"" }.write(out);
    }

    /// The store dir without its leading `/`.
    fn prefix(&self) -> &[u8] {
        self.store_dir.as_str().trim_start_matches('/').as_bytes()
    }
}
