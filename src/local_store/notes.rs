//! What stowage notes of a store between jobs, in `nix/var/nix/stowage/store.json`.
//!
//! ```json
//! {"version":1,"changed":1700000000,"rows":"sha256:…",
//!  "paths":{"HASH-NAME":{"looks":"sha256:…","registered":1700000000,"used":1700000000}}}
//! ```
//!
//! Without it, or where it can't be read, all paths count as whole and as used when they were
//! registered.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{LocalStore, LocalStoreError, io_error};
use crate::digest::Digest;

/// What is noted of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// What it looks like; see [`Looks`](super::modes::Looks).
    pub looks: Digest,
    /// When the path was registered that looked so, in seconds since the epoch: built again, it
    /// may look otherwise.
    pub registered: u64,
    /// When a job last needed it, in seconds since the epoch; 0 where none was seen to.
    #[serde(default)]
    pub used: u64,
}

/// All that is noted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notes {
    version: u32,
    /// When the store was last changed, in seconds since the epoch.
    pub changed: u64,
    /// What the rows of the database were then.
    pub rows: Option<Digest>,
    /// The paths, by their base names.
    pub paths: BTreeMap<String, Note>,
}

const VERSION: u32 = 1;

impl Notes {
    /// Those of a store that was changed just now, `changed`; `rows` is what its database has.
    #[must_use]
    pub fn new(changed: u64, rows: Option<Digest>, paths: BTreeMap<String, Note>) -> Self {
        Self { version: VERSION, changed, rows, paths }
    }

    /// Where they are in `store`.
    #[must_use]
    pub fn file(store: &LocalStore) -> PathBuf {
        store.location().state_dir.join("stowage/store.json")
    }

    /// Those of `store`: none where there are none, or nobody could understand them.
    #[must_use]
    pub fn read(store: &LocalStore) -> Self {
        let file = Self::file(store);
        let Ok(bytes) = crate::fs::read_regular(&file) else { return Self::default() };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(notes) if notes.version == VERSION => notes,
            Ok(notes) => {
                tracing::info!("{}: version {} is not known", file.display(), notes.version);
                Self::default()
            }
            Err(error) => {
                tracing::warn!("{}: {error}; what archives have lost is not noticed this time", file.display());
                Self::default()
            }
        }
    }

    /// Writes them.
    ///
    /// # Errors
    /// When that can't be done.
    pub fn write(&self, store: &LocalStore) -> Result<(), LocalStoreError> {
        let file = Self::file(store);
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        let folder = crate::fs::folder_of(&file);
        std::fs::create_dir_all(folder)
            .and_then(|()| crate::fs::write_atomically(&file, &bytes))
            .map_err(|error| io_error(&file, error))
    }
}
