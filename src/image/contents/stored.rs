//! A layout as the layer index remembers it.

use serde::{Deserialize, Serialize};

use super::{Layout, Placed};

/// A layout as it is remembered.
#[derive(Debug, Serialize, Deserialize)]
pub struct StoredLayout {
    placed: Vec<(String, StoredPlaced)>,
    passwd: String,
    group: String,
}

/// What is at a path: a folder, a link with its target, or a copy.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum StoredPlaced {
    Directory(()),
    Link(String),
    Copy(String, bool),
}

impl StoredLayout {
    /// The form of `layout`; none where a name is no UTF-8, which JSON can't hold.
    #[must_use]
    pub fn of(layout: &Layout) -> Option<Self> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let entry = |(path, placed): (&Vec<u8>, &Placed)| {
            let placed = match placed {
                Placed::Directory => StoredPlaced::Directory(()),
                Placed::Link(target) => StoredPlaced::Link(text(target)?),
                Placed::Copy { from, executable } => StoredPlaced::Copy(text(from)?, *executable),
            };
            Some((text(path)?, placed))
        };
        let placed = layout.placed.iter().map(entry).collect::<Option<_>>()?;
        Some(Self { placed, passwd: layout.passwd.clone(), group: layout.group.clone() })
    }
}

impl From<StoredLayout> for Layout {
    fn from(stored: StoredLayout) -> Self {
        let placed = |(path, placed): (String, StoredPlaced)| {
            let placed = match placed {
                StoredPlaced::Directory(()) => Placed::Directory,
                StoredPlaced::Link(target) => Placed::Link(target.into_bytes()),
                StoredPlaced::Copy(from, executable) => Placed::Copy { from: from.into_bytes(), executable },
            };
            (path.into_bytes(), placed)
        };
        Self { placed: stored.placed.into_iter().map(placed).collect(), passwd: stored.passwd, group: stored.group }
    }
}
