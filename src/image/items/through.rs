//! Follows links of a layer that is made.

use std::collections::BTreeMap;

use super::{Item, Node, folder_of, join};
use crate::fs::MAX_LINKS;
use crate::image::ground::components;

/// Where the folder `path` is, if links in `entries` are followed, but for those in Nix's own folder; `path`
/// itself, where they lead into `store`, or in circles.
pub(super) fn folder(entries: &BTreeMap<Vec<u8>, Item>, store: &[u8], path: &[u8]) -> Vec<u8> {
    let mut left: Vec<&[u8]> = components(path).rev().collect();
    let (mut at, mut links) = (Vec::new(), 0);
    while let Some(name) = left.pop() {
        if name == b".." {
            at.truncate(folder_of(&at).len());
            continue;
        }
        let folder = at.len();
        at = join(&at, name);
        let Some(Item { node: Node::Link(target), .. }) = entries.get(&at) else { continue };
        if at.starts_with(b"nix/") {
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return path.to_vec();
        }
        at.truncate(if target.starts_with(b"/") { 0 } else { folder });
        left.extend(components(target).rev());
    }
    let is_in_store = store.strip_prefix(b"/").is_some_and(|store| at.starts_with(store));
    if links > 0 && is_in_store { path.to_vec() } else { at }
}
