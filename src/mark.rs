//! What the database held when a job began: what is newer, the job built.
//!
//! `ValidPaths.id` is never used twice, so the highest one tells. Beside the queue, or where
//! that belongs to somebody else, in the user's own state folder, in a file for each cache;
//! an image with a hook has one for all, since each job in it begins with its database.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::queue::Queue;

/// The name, in the queue's folder, of an image's own mark.
pub const OF_IMAGE: &str = "image.json";

/// A state of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// The highest number of a registration, or 0.
    pub last_id: i64,
}

/// Where marks are.
pub struct Marks {
    folders: Vec<PathBuf>,
}

impl Marks {
    /// Those of `queue`, and of the user whose state is in `state_home`.
    #[must_use]
    pub fn new(queue: &Queue, state_home: Option<PathBuf>) -> Self {
        let own = state_home.map(|folder| folder.join("stowage"));
        Self { folders: std::iter::once(queue.folder().to_owned()).chain(own).collect() }
    }

    /// Writes the mark for the cache in `cache`.
    ///
    /// # Errors
    /// When it can be written nowhere.
    pub fn set(&self, cache: &Path, mark: Mark) -> std::io::Result<()> {
        let mut result = Ok(());
        for folder in &self.folders {
            let folder = folder.join("marks");
            result = std::fs::create_dir_all(&folder)
                .and_then(|()| crate::fs::write_atomically(&folder.join(name(cache)), &serde_json::to_vec(&mark)?));
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// The mark for the cache in `cache`, or else the image's.
    #[must_use]
    pub fn get(&self, cache: &Path) -> Option<Mark> {
        let of_cache = self.folders.iter().map(|folder| folder.join("marks").join(name(cache)));
        let of_image = self.folders.iter().map(|folder| folder.join(OF_IMAGE));
        of_cache.chain(of_image).find_map(|path| serde_json::from_slice(&crate::fs::read_regular(&path).ok()?).ok())
    }
}

fn name(cache: &Path) -> String {
    format!("{}.json", &Digest::of(cache.as_os_str().as_encoded_bytes()).to_hex()[..32])
}
