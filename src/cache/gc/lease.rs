//! Who deletes from a cache is alone: in a folder by a lock, which ends with the process; in a
//! bucket by an object, which is nobody's when it was not renewed for a while.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use crate::cache::beneath::manage::Lock;
use crate::cache::shelf::{Shelf, ShelfError, Version};
use crate::cache::usage::{self, FOLDER};

/// The object.
const FILE: &str = "collecting";

/// No larger one is looked at, in bytes.
const LIMIT: u64 = 1024;

/// From what age on it is nobody's. A single request may be tried again for minutes.
const STALE: Duration = Duration::from_secs(30 * 60);

/// How often it is renewed.
const RENEWED: Duration = Duration::from_secs(5 * 60);

/// How often one looks whether others are done.
const STEP: Duration = Duration::from_secs(1);

/// The right to delete, until it is dropped.
pub struct Lease<'a> {
    /// In a bucket, where the object is, and what only this process writes to it.
    object: Option<(&'a Shelf, String)>,
    renewed: Instant,
}

impl<'a> Lease<'a> {
    /// Takes it for the cache in `root`, waiting for at most `patience`; `None` when others do
    /// not let go of it.
    ///
    /// # Errors
    /// When that can't be found out.
    pub fn take(root: &'a Shelf, patience: Duration) -> Result<Option<Self>, ShelfError> {
        if !root.is_shared() {
            let renewed = Instant::now();
            return Ok(root.lock(Lock::Deleting, patience).then_some(Self { object: None, renewed }));
        }
        let begin = Instant::now();
        let own = usage::unused_name(root)?;
        // Dropped where it is not taken, so that nothing stays of an attempt whose answer was lost.
        let lease = Self { object: Some((root, own.clone())), renewed: begin };
        loop {
            if write(root, &own, begin)? {
                return Ok(Some(lease));
            }
            if begin.elapsed() >= patience {
                return Ok(None);
            }
            std::thread::sleep(STEP.min(patience));
        }
    }

    /// Says that one is still at work, if that was not said for a while.
    ///
    /// # Errors
    /// When it can't be said, or somebody else has taken over.
    pub fn renew(&mut self) -> Result<(), ShelfError> {
        let Some((root, own)) = self.object.as_ref().filter(|_| self.renewed.elapsed() >= RENEWED) else {
            return Ok(());
        };
        if !write(root, own, self.renewed)? {
            let problem = std::io::Error::other("somebody else deletes from this cache now; try again later");
            return Err(root.folder(FOLDER)?.failure(FILE, problem));
        }
        self.renewed = Instant::now();
        Ok(())
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let Some((root, own)) = &self.object else { return };
        let end = || -> Result<(), ShelfError> {
            let folder = root.folder(FOLDER)?;
            match folder.read(FILE, LIMIT)? {
                Some(text) if text.starts_with(own.as_bytes()) => folder.remove(OsStr::new(FILE)),
                _ => Ok(()),
            }
        };
        // It is nobody's in a while.
        if let Err(error) = end() {
            tracing::debug!("{error}");
        }
    }
}

/// Whether nobody deletes from the cache in `root`, as far as that can be told without a lock.
///
/// # Errors
/// When that can't be found out.
pub fn is_free(root: &Shelf) -> Result<bool, ShelfError> {
    Ok(!root.is_shared() || root.folder(FOLDER)?.age(FILE)?.is_none_or(|age| age >= STALE))
}

/// Writes the object, where it is one's own, or there is none, or nobody's; tells whether it is
/// one's own then. What is written differs by when it was `last`, so that others' conditions do.
fn write(root: &Shelf, own: &str, last: Instant) -> Result<bool, ShelfError> {
    let folder = root.folder(FOLDER)?;
    let is_own = |found: Option<Vec<u8>>| found.is_some_and(|found| found.starts_with(own.as_bytes()));
    let (found, version) = folder.look(FILE, LIMIT)?;
    if version != Version::NONE && !is_own(found) && !is_free(root)? {
        return Ok(false);
    }
    let text = format!("{own} {}", last.elapsed().as_nanos());
    // A conflict may be with one's own request, if its answer was lost; and not every server
    // knows conditions.
    folder.replace(FILE, text.as_bytes(), &version)?;
    Ok(is_own(folder.read(FILE, LIMIT)?))
}
