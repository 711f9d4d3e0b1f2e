//! Where registrations come from: a store's database, a text, or JSON.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::closure::{Closure, ClosureError};
use super::db::{DatabaseError, StoreDb};
use super::{StoreLocation, StorePath, dump, json};

/// Where to look for registrations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrationSource {
    /// The database of the store.
    Database,
    /// A file with `closureInfo`'s registration or a dump; `-` is standard input.
    Dump(PathBuf),
    /// A file with JSON; likewise.
    Json(PathBuf),
}

/// Why there are no registrations.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// The database says so.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The file can't be read.
    #[error("reading registrations from {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The text means nothing.
    #[error("the registrations in {path}, {source}")]
    Dump {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: dump::DumpError,
    },
    /// The JSON means nothing.
    #[error("the registrations in {path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: json::JsonError,
    },
    /// They are not closed under references.
    #[error(transparent)]
    Closure(#[from] ClosureError),
}

impl RegistrationSource {
    /// What `roots` reach; all that a file has where there is no root.
    ///
    /// # Errors
    /// When registrations can't be read, or are no closure.
    pub fn closure(&self, location: &StoreLocation, roots: &[StorePath]) -> Result<Closure, RegistrationError> {
        let infos = match self {
            Self::Database => StoreDb::open(location)?.closure(roots)?,
            Self::Dump(path) => {
                let text = read(path)?;
                dump::parse(&text, &location.store_dir)
                    .map_err(|source| RegistrationError::Dump { path: path.clone(), source })?
            }
            Self::Json(path) => {
                let text = read(path)?;
                json::parse(&text, &location.store_dir)
                    .map_err(|source| RegistrationError::Json { path: path.clone(), source })?
            }
        };
        let roots = (!roots.is_empty()).then_some(roots);
        Ok(Closure::new(&location.store_dir, infos, roots)?)
    }
}

fn read(path: &Path) -> Result<String, RegistrationError> {
    let read = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    read.map_err(|source| RegistrationError::File { path: path.to_owned(), source })
}
