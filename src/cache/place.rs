//! Where a cache is.

use std::fmt;
use std::path::{Path, PathBuf};

use super::beneath::Folder;
use super::bucket::Bucket;
use super::shelf::{Shelf, ShelfError};
use crate::s3;

/// Where a cache is.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a folder.
    Folder(PathBuf),
    /// In a bucket.
    Bucket(s3::Client),
}

impl Place {
    /// Opens what is there.
    ///
    /// # Errors
    /// When there is no such folder, or a link of somebody else leads root there.
    pub fn open(&self) -> Result<Shelf, ShelfError> {
        Ok(match self {
            Self::Folder(path) => Shelf::Folder(Folder::open(path)?),
            Self::Bucket(client) => Shelf::Bucket(Bucket::new(client.clone())),
        })
    }

    /// Opens what is there, and makes the folder if it is not there. Nobody makes a bucket by
    /// the way.
    ///
    /// # Errors
    /// When it is no folder, or the system says no.
    pub fn open_or_make(&self) -> Result<Shelf, ShelfError> {
        match self {
            Self::Folder(path) => Ok(Shelf::Folder(Folder::open_or_make(path)?)),
            Self::Bucket(_) => self.open(),
        }
    }

    /// The folder, if it is one.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(path) => Some(path),
            Self::Bucket(_) => None,
        }
    }

    /// Its name, by which hooks and jobs mean the same cache.
    #[must_use]
    pub fn name(&self) -> PathBuf {
        match self {
            Self::Folder(path) => path.clone(),
            Self::Bucket(client) => client.address().to_string().into(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(formatter),
            Self::Bucket(client) => client.address().fmt(formatter),
        }
    }
}

impl From<&Self> for Place {
    fn from(place: &Self) -> Self {
        place.clone()
    }
}

impl From<&Path> for Place {
    fn from(path: &Path) -> Self {
        Self::Folder(path.to_owned())
    }
}

impl From<&PathBuf> for Place {
    fn from(path: &PathBuf) -> Self {
        Self::Folder(path.clone())
    }
}

impl From<PathBuf> for Place {
    fn from(path: PathBuf) -> Self {
        Self::Folder(path)
    }
}
