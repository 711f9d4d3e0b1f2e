//! Follows links within the store.

use std::collections::BTreeMap;

use super::ContentsError;
use crate::fs::MAX_LINKS;
use crate::store::StoreDir;
use crate::tree::{Entry, Node, StoreFiles, TreeError};

/// The store whose links are followed.
#[derive(Clone, Copy)]
pub struct Links<'a> {
    /// Its files.
    pub files: &'a StoreFiles,
    /// What its paths are printed with.
    pub store_dir: &'a StoreDir,
}

/// The names in the folder that `path`, below the store dir, is or leads to; none where it
/// is no folder, or is not in its store path. It is what the parent's link `place` leads to.
///
/// # Errors
/// When the store path is not there.
pub fn names(
    files: &StoreFiles,
    store_dir: &StoreDir,
    path: &[u8],
    place: &[u8],
) -> Result<Vec<Vec<u8>>, ContentsError> {
    let links = Links { files, store_dir };
    let Some(Entry { path: folder, .. }) = links.resolve(path)? else {
        if links.lacks(path)? {
            return Ok(Vec::new());
        }
        let place = String::from_utf8_lossy(place).into_owned();
        return Err(ContentsError::NotHere { path: place, target: links.print(path) });
    };
    let children = files.children(&folder)?.unwrap_or_default();
    Ok(children.into_iter().map(|entry| entry.path[folder.len() + 1..].to_vec()).collect())
}

/// The bytes of the file in the store that a link to `target` leads to; none where there is none.
///
/// # Errors
/// When it can't be read.
pub fn linked_file(files: &StoreFiles, store_dir: &StoreDir, target: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
    let links = Links { files, store_dir };
    let Some(path) = links.below_store(target, &mut Vec::new()) else {
        return Ok(None);
    };
    match links.resolve(path)? {
        Some(Entry { path, node: Node::Regular { .. } }) => files.read_whole(&path).map(Some),
        _ => Ok(None),
    }
}

/// Names in a folder, with what links to them say.
pub type LinkedNames = BTreeMap<Vec<u8>, Vec<u8>>;

/// The names in the folder in the store that a link to `target` leads to, and what links to these would
/// say; none where it leads to no folder.
///
/// # Errors
/// When it can't be read.
pub fn linked_folder(
    files: &StoreFiles,
    store_dir: &StoreDir,
    target: &[u8],
) -> Result<Option<LinkedNames>, TreeError> {
    let links = Links { files, store_dir };
    let Some(path) = links.below_store(target, &mut Vec::new()) else {
        return Ok(None);
    };
    let Some(Entry { path: folder, node: Node::Directory }) = links.resolve(path)? else {
        return Ok(None);
    };
    let children = files.children(&folder)?.unwrap_or_default().into_iter();
    let entry = |child: Entry| (child.path[folder.len() + 1..].to_vec(), links.print(&child.path).into_bytes());
    Ok(Some(children.map(entry).collect()))
}

impl Links<'_> {
    /// Whether a folder on the way to `path`, below the store dir, is there, and has not the next name.
    fn lacks(&self, path: &[u8]) -> Result<bool, TreeError> {
        let Some(at) = path.iter().rposition(|byte| *byte == b'/') else {
            return Ok(false);
        };
        let Some(Entry { path: folder, .. }) = self.resolve(&path[..at])? else {
            return self.lacks(&path[..at]);
        };
        let children = self.files.children(&folder)?.unwrap_or_default();
        Ok(!children.iter().any(|child| child.path[folder.len()..] == path[at..]))
    }

    /// What is at `path`, below the store dir, once all links are followed;
    /// nothing where a link leads out of the store, or nowhere.
    pub fn resolve(&self, path: &[u8]) -> Result<Option<Entry>, TreeError> {
        let mut left: Vec<Vec<u8>> = components(path).rev().collect();
        let mut at: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        let mut found = None;
        while let Some(name) = left.pop() {
            if name == b".." {
                // Above a store path there is nothing that belongs to it.
                if at.len() < 2 {
                    return Ok(None);
                }
                at.pop();
                continue;
            }
            at.push(name);
            let entry = match self.files.entry(&at.join(&b'/')) {
                Err(TreeError::Io { source, .. }) if is_nowhere(&source) => return Ok(None),
                entry => entry?,
            };
            if let Node::Symlink { target } = &entry.node {
                links += 1;
                let Some(target) = (links <= MAX_LINKS).then(|| self.below_store(target, &mut at)).flatten() else {
                    return Ok(None);
                };
                left.extend(components(target).rev());
                found = None;
            } else {
                found = Some(entry);
            }
        }
        match found {
            Some(found) if found.path == at.join(&b'/') => Ok(Some(found)),
            _ if at.is_empty() => Ok(None),
            _ => self.files.entry(&at.join(&b'/')).map(Some),
        }
    }

    /// Where a link at `at` leads from the folder that `at` then is; nothing
    /// where that is out of the store.
    fn below_store<'t>(&self, target: &'t [u8], at: &mut Vec<Vec<u8>>) -> Option<&'t [u8]> {
        if target.starts_with(b"/") {
            let rest = target.strip_prefix(self.store_dir.as_str().as_bytes())?.strip_prefix(b"/")?;
            at.clear();
            return Some(rest);
        }
        at.pop();
        (!at.is_empty()).then_some(target)
    }

    /// The path `path`, below the store dir, in full.
    pub fn print(&self, path: &[u8]) -> String {
        format!("{}/{}", self.store_dir, String::from_utf8_lossy(path))
    }
}

/// The names in `path`.
pub fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> + '_ {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").map(<[u8]>::to_vec)
}

fn is_nowhere(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}
