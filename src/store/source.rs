//! Where registrations come from: a store's database, a text, or JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::closure::{Closure, ClosureError};
use super::db::realisations::Realisation;
use super::db::{DatabaseError, StoreDb};
use super::{PathInfo, StoreLocation, StorePath, dump, json};

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

/// Registrations, where they were found.
pub struct Registrations<'a> {
    location: &'a StoreLocation,
    held: Held<'a>,
}

enum Held<'a> {
    Database(StoreDb<'a>),
    List(Vec<PathInfo>),
}

impl RegistrationSource {
    /// Opens the database of the store at `location`, or reads the file.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn open<'a>(&self, location: &'a StoreLocation) -> Result<Registrations<'a>, RegistrationError> {
        let store_dir = &location.store_dir;
        let (path, infos) = match self {
            Self::Database => return Ok(Registrations { location, held: Held::Database(StoreDb::open(location)?) }),
            Self::Dump(path) => (
                path,
                dump::parse(&read(path)?, store_dir)
                    .map_err(|source| RegistrationError::Dump { path: path.clone(), source })?,
            ),
            Self::Json(path) => (
                path,
                json::parse(&read(path)?, store_dir)
                    .map_err(|source| RegistrationError::Json { path: path.clone(), source })?,
            ),
        };
        if infos.is_empty() {
            return Err(RegistrationError::Empty(path.clone()));
        }
        Ok(Registrations { location, held: Held::List(infos) })
    }
}

impl Registrations<'_> {
    /// What `roots` reach; without them, all of a list. `others`, which no store has registered,
    /// are there beside them, and refer to nothing.
    ///
    /// # Errors
    /// When registrations can't be read, or are no closure.
    pub fn closure(&self, roots: Option<&[StorePath]>, others: Vec<PathInfo>) -> Result<Closure, RegistrationError> {
        let own: BTreeSet<StorePath> = others.iter().map(|info| info.path.clone()).collect();
        let registered = roots.unwrap_or_default().iter().filter(|path| !own.contains(path));
        let mut infos = match &self.held {
            Held::Database(database) => database.closure(&registered.cloned().collect::<Vec<_>>())?,
            Held::List(infos) => infos.clone(),
        };
        infos.retain(|info| !own.contains(&info.path));
        infos.extend(others);
        let roots = roots.map(|roots| roots.iter().cloned().chain(own).collect::<Vec<_>>());
        Ok(Closure::new(&self.location.store_dir, infos, roots.as_deref())?)
    }

    /// Adds `infos` to a list.
    pub fn add(&mut self, infos: Vec<PathInfo>) {
        if let Held::List(list) = &mut self.held {
            list.extend(infos);
        }
    }

    /// All of a list; a database has too many.
    #[must_use]
    pub fn into_list(self) -> Vec<PathInfo> {
        match self.held {
            Held::Database(_) => Vec::new(),
            Held::List(infos) => infos,
        }
    }

    /// The paths that texts name.
    ///
    /// # Errors
    /// When one of them is not registered.
    pub fn mentioned(&self, mentions: &[Mention]) -> Result<Vec<StorePath>, RegistrationError> {
        mentions.iter().map(|Mention { hash, text }| self.with_hash(hash, text)).collect()
    }

    fn with_hash(&self, hash: &str, text: &str) -> Result<StorePath, RegistrationError> {
        match &self.held {
            Held::Database(database) => {
                let named = database.with_hash(hash)?;
                Ok(named.ok_or_else(|| DatabaseError::NotValid(text.to_owned()))?)
            }
            Held::List(infos) => {
                let named = infos.iter().find(|info| info.path.to_basename().starts_with(hash));
                Ok(named.ok_or_else(|| ClosureError::UnknownRoot(text.to_owned()))?.path.clone())
            }
        }
    }

    /// Whether they are in a database, which knows more than a list.
    #[must_use]
    pub fn is_database(&self) -> bool {
        matches!(self.held, Held::Database(_))
    }

    /// The store that they are of.
    #[must_use]
    pub fn location(&self) -> &StoreLocation {
        self.location
    }

    /// Which of `paths` are registered.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn valid(&self, paths: &[StorePath]) -> Result<BTreeSet<StorePath>, DatabaseError> {
        match &self.held {
            Held::Database(database) => Ok(database.valid(paths)?.into_iter().collect()),
            Held::List(infos) => {
                let registered: BTreeSet<&StorePath> = infos.iter().map(|info| &info.path).collect();
                Ok(paths.iter().filter(|path| registered.contains(path)).cloned().collect())
            }
        }
    }

    /// The derivations that may have made `path`, the likeliest first: that which its
    /// registration names, be it registered or not, and those that declare it.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn derivers(&self, path: &StorePath) -> Result<Vec<StorePath>, DatabaseError> {
        match &self.held {
            Held::Database(database) => {
                let declaring = database.derivations(path)?;
                let named = database.deriver(path)?;
                Ok(named.into_iter().chain(declaring).collect())
            }
            Held::List(infos) => {
                let declares =
                    |info: &&PathInfo| info.outputs.values().any(|output| *output == self.location.print(path));
                let named = infos.iter().find(|info| info.path == *path).and_then(|info| info.deriver.clone());
                let declaring = infos.iter().filter(declares).map(|info| info.path.clone());
                Ok(named.into_iter().chain(declaring).collect())
            }
        }
    }

    /// What the registered derivation `drv` refers to, and what it declares; `None` where it is
    /// not registered.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn derivation(&self, drv: &StorePath) -> Result<Option<Registered>, DatabaseError> {
        let find = |infos: &[PathInfo]| infos.iter().find(|info| info.path == *drv).cloned();
        let info = match &self.held {
            Held::Database(database) if database.valid(std::slice::from_ref(drv))?.is_empty() => None,
            Held::Database(database) => find(&database.closure(std::slice::from_ref(drv))?),
            Held::List(infos) => find(infos),
        };
        let Some(info) = info else { return Ok(None) };
        let outputs = match &self.held {
            Held::Database(database) => database.declared(drv)?,
            Held::List(_) => {
                let parse = |path: &String| self.location.store_dir.parse_path(path.as_bytes()).ok();
                info.outputs.iter().filter_map(|(name, path)| Some((name.clone(), parse(path)?))).collect()
            }
        };
        Ok(Some(Registered { references: info.references, outputs }))
    }

    /// The store path that the realisation `id` is; a list has none.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn realised(&self, id: &str) -> Result<Option<StorePath>, DatabaseError> {
        match &self.held {
            Held::Database(database) => database.realised(id),
            Held::List(_) => Ok(None),
        }
    }

    /// The registered derivations of that name, without `.drv`, in the order in which they were
    /// registered; a list tells of none.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn derivations_named(&self, name: &str) -> Result<Vec<StorePath>, DatabaseError> {
        match &self.held {
            Held::Database(database) => database.derivations_named(name),
            Held::List(_) => Ok(Vec::new()),
        }
    }

    /// What is called `ids`, and all that they depend on, which comes first.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn realisations(&self, ids: &BTreeSet<String>) -> Result<Vec<Realisation>, DatabaseError> {
        match &self.held {
            Held::Database(database) if !ids.is_empty() => database.realisations_called(ids),
            _ => Ok(Vec::new()),
        }
    }
}

/// What registrations tell of a derivation whose file is gone.
pub struct Registered {
    /// Its sources, and the derivations that it takes outputs of.
    pub references: Vec<StorePath>,
    /// The paths that it declares, by the names of its outputs.
    pub outputs: BTreeMap<String, StorePath>,
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
