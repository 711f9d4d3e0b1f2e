//! The texts of a parent's files: links are followed as a container would follow
//! them, into the store, too.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::blob::{Blob, Spool};
use super::layers::{Layer, Merged};
use super::look::{self, Look, LookError, Seen};
use super::overlay::{self, Overlay};
use super::{Node, WANTED};
use crate::fs::MAX_LINKS;

/// How large a text may be, in bytes.
const MAX_TEXT: u64 = 4 << 20;

/// Reads the files that are wanted, those of them that are there.
///
/// # Errors
/// When a layer that has to be looked into again can't be.
pub fn read(
    layers: &[Layer],
    merged: &Merged,
    store: &[u8],
    spool: &mut Spool,
) -> Result<BTreeMap<&'static str, String>, LookError> {
    let mut reader = Reader { layers, merged, store, spool, looked: BTreeMap::new() };
    let mut texts = BTreeMap::new();
    for wanted in WANTED {
        let Some(blob) = reader.follow(wanted.as_bytes())? else {
            continue;
        };
        match blob.bytes(MAX_TEXT) {
            Ok(bytes) => drop(texts.insert(wanted, String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) => tracing::warn!("the parent's /{wanted} is not read: {error}"),
        }
    }
    Ok(texts)
}

struct Reader<'a> {
    layers: &'a [Layer],
    merged: &'a Merged,
    store: &'a [u8],
    spool: &'a mut Spool,
    /// The store paths that were looked into.
    looked: BTreeMap<Vec<u8>, Overlay<Seen>>,
}

/// What is at a path.
enum Step {
    Directory,
    Link(Vec<u8>),
    File(Option<Blob>),
}

impl Reader<'_> {
    /// The file at `path`, links followed.
    fn follow(&mut self, path: &[u8]) -> Result<Option<Blob>, LookError> {
        let mut folder = Vec::new();
        let mut parts: VecDeque<Vec<u8>> = split(path);
        let mut links = 0;
        while let Some(part) = parts.pop_front() {
            if part == b".." {
                folder.truncate(overlay::split(&folder).0.len());
                continue;
            }
            let path = overlay::join(&folder, &part);
            match self.step(&path, parts.is_empty())? {
                Some(Step::Directory) => folder = path,
                Some(Step::File(blob)) => return Ok(blob.filter(|_| parts.is_empty())),
                Some(Step::Link(target)) if links < MAX_LINKS => {
                    links += 1;
                    if target.starts_with(b"/") {
                        folder.clear();
                    }
                    for part in split(&target).into_iter().rev() {
                        parts.push_front(part);
                    }
                }
                Some(Step::Link(_)) | None => return Ok(None),
            }
        }
        Ok(None)
    }

    fn step(&mut self, path: &[u8], is_last: bool) -> Result<Option<Step>, LookError> {
        if let Some(store_path) = self.store_path(path) {
            return Ok(match self.look(store_path)?.get(path) {
                Some(Seen::Directory) => Some(Step::Directory),
                Some(Seen::Link(target)) => Some(Step::Link(target.clone())),
                Some(Seen::File { contents, .. }) => Some(Step::File(contents.clone())),
                Some(Seen::Special) | None => None,
            });
        }
        let Some(placed) = self.merged.overlay.get(path) else {
            return Ok(None);
        };
        Ok(Some(match &placed.entry.node {
            Node::Directory => Step::Directory,
            Node::Link(target) => Step::Link(target.clone()),
            Node::Other if !is_last => Step::File(None),
            Node::Other => Step::File(look::contents(self.layers, placed.layer, path, self.spool)?),
        }))
    }

    /// The store path that `path` is in.
    fn store_path(&self, path: &[u8]) -> Option<Vec<u8>> {
        let below = path.strip_prefix(self.store)?.strip_prefix(b"/")?;
        let end = below.iter().position(|byte| *byte == b'/').unwrap_or(below.len());
        Some(path[..self.store.len() + 1 + end].to_vec())
    }

    /// Looks into a store path, once.
    fn look(&mut self, store_path: Vec<u8>) -> Result<&Overlay<Seen>, LookError> {
        if !self.looked.contains_key(&store_path) {
            let has = |number: &usize| self.layers[*number].store.contains_key(&store_path);
            let within: BTreeSet<usize> = (0..self.layers.len()).filter(has).collect();
            let paths = [store_path.clone()].into();
            let look = Look { layers: self.layers, within, paths, max_size: MAX_TEXT };
            self.looked.insert(store_path.clone(), look.find(self.spool)?);
        }
        Ok(self.looked.entry(store_path).or_default())
    }
}

/// The parts of a path.
fn split(path: &[u8]) -> VecDeque<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.map(<[u8]>::to_vec).collect()
}
