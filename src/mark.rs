//! What the database held when a job began: what is newer, the job built.
//!
//! `ValidPaths.id` is never used twice, so the highest one tells. Beside the queue, or where
//! that belongs to somebody else, in the user's own state folder, in a file for each cache;
//! an image with a hook has one for all, since each job in it begins with its database.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::queue::Queue;

/// The name, in the queue's folder, of an image's own mark.
pub const OF_IMAGE: &str = "image.json";

/// How long a job may take.
const LONGEST_JOB: Duration = Duration::from_secs(24 * 60 * 60);

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
        self.of_cache(cache).chain(self.of_image()).find_map(|path| read(&path))
    }

    /// That of the job which is under way: of a machine where the last one began long ago, none.
    #[must_use]
    pub fn get_recent(&self, cache: &Path) -> Option<Mark> {
        match self.of_cache(cache).find_map(|path| Some((read(&path)?, path))) {
            Some((mark, path)) => is_recent(&path).then_some(mark),
            None => self.of_image().find_map(|path| read(&path)),
        }
    }

    fn of_cache(&self, cache: &Path) -> impl Iterator<Item = PathBuf> {
        let name = Path::new("marks").join(name(cache));
        self.folders.iter().map(move |folder| folder.join(&name))
    }

    fn of_image(&self) -> impl Iterator<Item = PathBuf> {
        self.folders.iter().map(|folder| folder.join(OF_IMAGE))
    }
}

fn read(path: &Path) -> Option<Mark> {
    serde_json::from_slice(&crate::fs::read_regular(path).ok()?).ok()
}

fn is_recent(path: &Path) -> bool {
    let age = path.metadata().and_then(|data| data.modified()).map(|time| time.elapsed().unwrap_or_default());
    age.is_ok_and(|age| age < LONGEST_JOB)
}

fn name(cache: &Path) -> String {
    format!("{}.json", &Digest::of(cache.as_os_str().as_encoded_bytes()).to_hex()[..32])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_job_that_began_long_ago_nothing_is_under_way() {
        let state = tempfile::tempdir().expect("a folder");
        let marks = Marks { folders: vec![state.path().to_owned()] };
        let (cache, mark) = (Path::new("/cache"), Mark { last_id: 7 });
        assert_eq!(marks.get_recent(cache), None);
        // An image's mark has the date of the image.
        let of_image = state.path().join(OF_IMAGE);
        std::fs::write(&of_image, r#"{"lastId":3}"#).expect("written");
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        let set = |path: &Path| std::fs::File::open(path).and_then(|file| file.set_modified(long_ago)).expect("set");
        set(&of_image);
        assert_eq!(marks.get_recent(cache), Some(Mark { last_id: 3 }));
        marks.set(cache, mark).expect("written");
        assert_eq!((marks.get_recent(cache), marks.get(cache)), (Some(mark), Some(mark)));
        set(&marks.of_cache(cache).next().expect("a path"));
        assert_eq!((marks.get_recent(cache), marks.get(cache)), (None, Some(mark)));
    }
}
