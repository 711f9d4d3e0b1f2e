//! What is in a store path, as `HASH.ls` tells whoever wants one file of a NAR.
//!
//! JSON without spaces, its keys in the order in which Nix writes them:
//!
//! ```text
//! {"version":1,"root":NODE}
//! NODE = {"type":"directory","entries":{NAME:NODE,…}}
//!      | {"type":"regular","size":N,"executable":true,"narOffset":N}   (executable: only if it is)
//!      | {"type":"symlink","target":TEXT}
//! ```
//!
//! Source: Nix's `listNar`, in `nar-accessor.cc`, and `BinaryCacheStore::addToStoreCommon`.

use std::borrow::Cow;

use crate::nar;
use crate::store::StorePath;
use crate::tree::{Entry, Node};

/// The name of the listing of `path`.
#[must_use]
pub fn file_name(path: &StorePath) -> String {
    format!("{}.ls", nix_derivation::nixbase32::encode(path.digest()))
}

/// The listing of a store path that was walked to `entries`; `None` where a name or the target
/// of a link is no UTF-8, since JSON can't say it.
#[must_use]
pub fn render(entries: &[Entry]) -> Option<Vec<u8>> {
    let offsets = nar::offsets(entries);
    let mut text = String::from("{\"version\":1,\"root\":");
    // How many folders are begun, and not ended.
    let mut open: usize = 0;
    // Whether something was written since the last folder began.
    let mut is_first = true;
    for (entry, offset) in entries.iter().zip(offsets) {
        let depth = entry.path.iter().filter(|byte| **byte == b'/').count();
        while open > depth {
            text.push_str("}}");
            open -= 1;
            is_first = false;
        }
        if depth > 0 {
            if !is_first {
                text.push(',');
            }
            text.push_str(&quote(entry.path.rsplit(|byte| *byte == b'/').next()?)?);
            text.push(':');
        }
        is_first = false;
        match &entry.node {
            Node::Directory => {
                text.push_str("{\"type\":\"directory\",\"entries\":{");
                open += 1;
                is_first = true;
            }
            Node::Symlink { target } => {
                text.push_str(&format!("{{\"type\":\"symlink\",\"target\":{}}}", quote(target)?));
            }
            Node::Regular { executable, size } => {
                let executable = if *executable { ",\"executable\":true" } else { "" };
                text.push_str(&format!("{{\"type\":\"regular\",\"size\":{size}{executable},\"narOffset\":{offset}}}"));
            }
        }
    }
    text.push_str(&"}}".repeat(open));
    text.push('}');
    Some(text.into_bytes())
}

/// `bytes` as a text of JSON.
fn quote(bytes: &[u8]) -> Option<String> {
    let text: Cow<'_, str> = std::str::from_utf8(bytes).ok()?.into();
    serde_json::to_string(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `nix copy --to file://…?write-nar-listing=1` of Nix 2.8.0 wrote.
    const GOLDEN: &str = r#"{"version":1,"root":{"type":"directory","entries":{"bin":{"type":"directory","entries":{"x":{"type":"regular","size":60,"executable":true,"narOffset":400}}},"d":{"type":"directory","entries":{"b\u0001\\y":{"type":"regular","size":3,"narOffset":816},"e":{"type":"directory","entries":{"link":{"type":"symlink","target":"../bin/x"}}},"tab":{"type":"regular","size":3,"narOffset":1368},"we\"ird":{"type":"regular","size":7,"narOffset":1560},"zero":{"type":"regular","size":0,"narOffset":1752},"ü":{"type":"regular","size":1,"narOffset":1936}}},"empty":{"type":"directory","entries":{}}}}}"#;

    fn entry(path: &str, node: Node) -> Entry {
        Entry { path: format!("hash-name{path}").into_bytes(), node }
    }

    fn file(path: &str, executable: bool, size: u64) -> Entry {
        entry(path, Node::Regular { executable, size })
    }

    fn link(path: &str, target: &str) -> Entry {
        entry(path, Node::Symlink { target: target.into() })
    }

    #[test]
    fn a_listing_is_what_nix_writes() {
        let entries = [
            entry("", Node::Directory),
            entry("/bin", Node::Directory),
            file("/bin/x", true, 60),
            entry("/d", Node::Directory),
            file("/d/b\u{1}\\y", false, 3),
            entry("/d/e", Node::Directory),
            link("/d/e/link", "../bin/x"),
            file("/d/tab", false, 3),
            file("/d/we\"ird", false, 7),
            file("/d/zero", false, 0),
            file("/d/ü", false, 1),
            entry("/empty", Node::Directory),
        ];
        assert_eq!(String::from_utf8(render(&entries).expect("UTF-8")).expect("UTF-8"), GOLDEN);
        assert_eq!(nar::size(&entries), 2192);
    }

    #[test]
    fn a_store_path_may_be_a_file_or_a_link() {
        let text = |entry| String::from_utf8(render(&[entry]).expect("UTF-8")).expect("UTF-8");
        assert_eq!(text(file("", false, 5)), r#"{"version":1,"root":{"type":"regular","size":5,"narOffset":96}}"#);
        assert_eq!(text(link("", "a")), r#"{"version":1,"root":{"type":"symlink","target":"a"}}"#);
    }

    #[test]
    fn what_json_can_not_say_has_no_listing() {
        let nested = Entry { path: b"hash-name/\xff".to_vec(), node: Node::Directory };
        assert_eq!(render(&[entry("", Node::Directory), nested]), None);
    }
}
