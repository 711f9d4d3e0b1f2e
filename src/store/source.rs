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
    /// Nothing in it: what should have written it has failed.
    #[error("there are no registrations in {0}; did the command that wrote it fail?")]
    Empty(PathBuf),
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

/// A place in a text where a store path is named, as Nix finds references: by the
/// hash part alone, since what follows the name may look like a part of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mention {
    /// The 32 digits of the hash part.
    pub hash: String,
    /// As much of the text as may belong to the path.
    pub text: String,
}

impl RegistrationSource {
    /// What `roots` reach, and what `mentions` name; all that a file has where there
    /// is no root.
    ///
    /// # Errors
    /// When registrations can't be read, or are no closure.
    pub fn closure(
        &self,
        location: &StoreLocation,
        roots: &[StorePath],
        mentions: &[Mention],
    ) -> Result<Closure, RegistrationError> {
        let mut wanted = roots.to_vec();
        let infos = match self {
            Self::Database => {
                let database = StoreDb::open(location)?;
                for Mention { hash, text } in mentions {
                    let named = database.with_hash(hash)?;
                    wanted.push(named.ok_or_else(|| DatabaseError::NotValid(text.clone()))?);
                }
                database.closure(&wanted)?
            }
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
        if let Self::Dump(path) | Self::Json(path) = self {
            if infos.is_empty() {
                return Err(RegistrationError::Empty(path.clone()));
            }
            for Mention { hash, text } in mentions {
                let named = infos.iter().find(|info| info.path.to_basename().starts_with(hash));
                wanted.push(named.ok_or_else(|| ClosureError::UnknownRoot(text.clone()))?.path.clone());
            }
        }
        let takes_all = roots.is_empty() && *self != Self::Database;
        Ok(Closure::new(&location.store_dir, infos, (!takes_all).then_some(&wanted))?)
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
