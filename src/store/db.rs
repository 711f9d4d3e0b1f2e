//! Reads a live Nix database, and never writes it.
//!
//! Nix keeps its database in WAL mode. While anybody has it open, the newest
//! rows are in a file beside it, and only SQLite's ordinary read-only mode
//! sees them. When nobody has, that mode would have to make that file: an
//! ordinary user can't, and root would leave it there. Then, and only then, the
//! database is read as an immutable file, and read again if it changed or the
//! other file appeared meanwhile.
//!
//! Source of the schema: Nix's `src/libstore/schema.sql`, the same from 2.3 on.

mod derivations;
pub mod realisations;
mod row;

use std::collections::HashMap;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _};

use super::{PathInfo, StoreLocation, StorePath};
use crate::url;
use row::parse;
pub use row::{COLUMNS, RowError, info};

/// How long to wait for somebody who has locked the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How often to read a file again that changed while it was read.
const ATTEMPTS: usize = 5;

/// Why a Nix database can't be read.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// No file: often a typing error in `--store`, or a machine without Nix.
    #[error(
        "no Nix database at {0}; name the store with --store ROOT, or give the registrations with --registration or --closure"
    )]
    Missing(PathBuf),
    /// It may not be read, e.g. for want of permission.
    #[error("opening the Nix database {path}: {source}")]
    Unreadable {
        /// The database's file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another version of Nix's schema: its rows might mean something else.
    #[error(
        "the Nix database {path} has schema {found:?}, but only schema 10 is known (Nix 2.0 to 2.35); is it of another version of Nix?"
    )]
    Schema {
        /// The database's file.
        path: PathBuf,
        /// What the file `schema` beside it says.
        found: String,
    },
    /// A file that is not SQLite's, cut off, or damaged.
    #[error(
        "the Nix database {path} is damaged or none at all ({problem}); check it with `sqlite3 {path} 'pragma integrity_check'`"
    )]
    Damaged {
        /// The database's file.
        path: PathBuf,
        /// What SQLite says.
        problem: String,
    },
    /// Somebody has held a lock on it for long.
    #[error("the Nix database {0} has been locked for 5 seconds; try again when the Nix that is at work is done")]
    Locked(PathBuf),
    /// An ordinary user, and changes in a WAL that only its owner can read.
    #[error(
        "the Nix database {0} can't be read by this user while its write-ahead log is not readable; try again, or as root"
    )]
    Wal(PathBuf),
    /// A file that changes all the time.
    #[error("the Nix database {0} changed each time it was read; try again")]
    Restless(PathBuf),
    /// A path that Nix does not know.
    #[error("{0} is not valid in this store; build it, or fetch it with `nix-store --realise {0}`")]
    NotValid(String),
    /// A row that means nothing.
    #[error("the Nix database {path} has a row that can't be understood: {problem}")]
    Row {
        /// The database's file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// A Nix database, open for reading.
pub struct StoreDb<'a> {
    location: &'a StoreLocation,
    file: PathBuf,
}

/// What tells whether a file was changed.
#[derive(PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// A connection, and what the file was when it was opened as immutable.
struct Reader {
    connection: Connection,
    immutable: Option<Stamp>,
}

impl<'a> StoreDb<'a> {
    /// The database of the store at `location`.
    ///
    /// # Errors
    /// When there is none, or it has another schema.
    pub fn open(location: &'a StoreLocation) -> Result<Self, DatabaseError> {
        let file = location.database();
        if !file.is_file() {
            return Err(DatabaseError::Missing(file));
        }
        // Without the file, Nix takes the store for a new one and writes it.
        if let Ok(schema) = std::fs::read_to_string(file.with_file_name("schema"))
            && schema != "10"
        {
            return Err(DatabaseError::Schema { path: file, found: schema });
        }
        Ok(Self { location, file })
    }

    /// The registrations of `roots` and of all that they refer to.
    ///
    /// # Errors
    /// When a root is not valid, or the database can't be read.
    pub fn closure(&self, roots: &[StorePath]) -> Result<Vec<PathInfo>, DatabaseError> {
        self.read(|connection| self.query_closure(connection, roots))
    }

    /// Which of `paths` are valid.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn valid(&self, paths: &[StorePath]) -> Result<Vec<StorePath>, DatabaseError> {
        self.read(|connection| {
            let mut query =
                connection.prepare("select 1 from ValidPaths where path = ?1").map_err(|error| self.error(error))?;
            let mut valid = Vec::new();
            for path in paths {
                if query.exists([self.location.print(path)]).map_err(|error| self.error(error))? {
                    valid.push(path.clone());
                }
            }
            Ok(valid)
        })
    }

    /// The valid path whose hash part is `hash`, if there is one.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn with_hash(&self, hash: &str) -> Result<Option<StorePath>, DatabaseError> {
        let first = format!("{}/{hash}-", self.location.store_dir);
        // All texts that begin with the first, and no other, are before the last.
        let last = format!("{}/{hash}.", self.location.store_dir);
        self.read(|connection| {
            let path: Option<String> = connection
                .query_row("select path from ValidPaths where path >= ?1 and path < ?2", [&first, &last], |row| {
                    row.get(0)
                })
                .optional()
                .map_err(|error| self.error(error))?;
            path.map(|path| self.parse(&path)).transpose()
        })
    }

    /// The highest number that a registration has; no later one gets a lower one.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn last_id(&self) -> Result<i64, DatabaseError> {
        // What was deleted had a number, too.
        const QUERY: &str = "select max(coalesce((select max(id) from ValidPaths), 0),
            coalesce((select seq from sqlite_sequence where name = 'ValidPaths'), 0))";
        self.read(|connection| connection.query_row(QUERY, [], |row| row.get(0)).map_err(|error| self.error(error)))
    }

    /// What was built here with a higher number than `id`, and is still valid.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn built_since(&self, id: i64) -> Result<Vec<StorePath>, DatabaseError> {
        self.since(id, "select path from ValidPaths where id > ?1 and ultimate = 1 order by id")
    }

    /// What was registered with a higher number than `id`, built here or not, and is still valid.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn registered_since(&self, id: i64) -> Result<Vec<StorePath>, DatabaseError> {
        self.since(id, "select path from ValidPaths where id > ?1 order by id")
    }

    fn since(&self, id: i64, query: &str) -> Result<Vec<StorePath>, DatabaseError> {
        self.read(|connection| {
            let mut query = connection.prepare(query).map_err(|error| self.error(error))?;
            let rows = query.query_map([id], |row| row.get::<_, String>(0)).map_err(|error| self.error(error))?;
            rows.map(|row| self.parse(&row.map_err(|error| self.error(error))?)).collect()
        })
    }

    /// Runs `query` in one transaction, so that it sees one state.
    fn read<T>(&self, query: impl Fn(&Connection) -> Result<T, DatabaseError>) -> Result<T, DatabaseError> {
        for _ in 0..ATTEMPTS {
            let reader = self.connect()?;
            let transaction = reader.connection.unchecked_transaction().map_err(|error| self.error(error))?;
            let result = query(&transaction);
            drop(transaction);
            match reader.immutable {
                Some(before) if self.stamp()? != before || self.has_wal() => {}
                _ => return result,
            }
        }
        Err(DatabaseError::Restless(self.file.clone()))
    }

    fn connect(&self) -> Result<Reader, DatabaseError> {
        if self.is_quiet() {
            return self.connect_immutable();
        }
        match self.connect_with("mode=ro") {
            Ok(connection) => return Ok(Reader { connection, immutable: None }),
            Err(error) => match error.sqlite_error_code() {
                Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen) => {}
                _ => return Err(self.error(error)),
            },
        }
        if self.has_wal() {
            return Err(DatabaseError::Wal(self.file.clone()));
        }
        self.connect_immutable()
    }

    /// Opens the file as one that nobody writes; [`Self::read`] finds out when that
    /// was wrong.
    fn connect_immutable(&self) -> Result<Reader, DatabaseError> {
        let before = self.stamp()?;
        std::fs::File::open(&self.file).map_err(|source| self.unreadable(source))?;
        let connection = self.connect_with("immutable=1").map_err(|error| self.error(error))?;
        Ok(Reader { connection, immutable: Some(before) })
    }

    /// Whether nobody has the database open: it is in WAL mode, and there is no
    /// write-ahead log. Opening it the ordinary way would leave one there, or fail
    /// for want of permission.
    fn is_quiet(&self) -> bool {
        let mut header = [0; 20];
        let read = std::fs::File::open(&self.file).and_then(|mut file| file.read_exact(&mut header));
        // SQLite's file format: bytes 18 and 19 are 2 for WAL.
        read.is_ok() && header[18..] == [2, 2] && !self.has_wal()
    }

    /// Opens the file, and reads from it, since only that finds what is wrong.
    fn connect_with(&self, parameter: &str) -> rusqlite::Result<Connection> {
        let url = format!("file:{}?{parameter}", url::encode(&self.file));
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(url, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.query_row("select 1 from ValidPaths limit 1", [], |_| Ok(())).optional()?;
        Ok(connection)
    }

    fn query_closure(&self, connection: &Connection, roots: &[StorePath]) -> Result<Vec<PathInfo>, DatabaseError> {
        let closure = format!(
            "with recursive closure(id) as (
                select id from ValidPaths where path in (select value from json_each(?1))
                union select reference from Refs join closure on referrer = closure.id)
            select {COLUMNS} from closure join ValidPaths v using (id)"
        );
        let printed: Vec<String> = roots.iter().map(|root| self.location.print(root)).collect();
        let printed = serde_json::Value::from(printed).to_string();
        let mut query = connection.prepare(&closure).map_err(|error| self.error(error))?;
        let mut rows = query.query([printed]).map_err(|error| self.error(error))?;
        let mut ids = Vec::new();
        let mut infos = Vec::new();
        while let Some(row) = rows.next().map_err(|error| self.error(error))? {
            ids.push(row.get::<_, i64>(0).map_err(|error| self.error(error))?);
            infos.push(self.info(row)?);
        }
        for root in roots {
            if !infos.iter().any(|info| info.path == *root) {
                return Err(DatabaseError::NotValid(self.location.print(root)));
            }
        }
        self.add_references(connection, &ids, &mut infos)?;
        Ok(infos)
    }

    fn add_references(
        &self,
        connection: &Connection,
        ids: &[i64],
        infos: &mut [PathInfo],
    ) -> Result<(), DatabaseError> {
        let places: HashMap<i64, usize> = ids.iter().copied().zip(0..).collect();
        let mut query =
            connection.prepare("select reference from Refs where referrer = ?1").map_err(|error| self.error(error))?;
        for (place, id) in ids.iter().enumerate() {
            let mut references = Vec::new();
            let mut rows = query.query([id]).map_err(|error| self.error(error))?;
            while let Some(row) = rows.next().map_err(|error| self.error(error))? {
                let reference: i64 = row.get(0).map_err(|error| self.error(error))?;
                let known = places
                    .get(&reference)
                    .ok_or_else(|| self.row(format!("row {id} refers to {reference}, which is not there")))?;
                references.push(infos[*known].path.clone());
            }
            references.sort();
            infos[place].references = references;
        }
        Ok(())
    }

    fn info(&self, row: &rusqlite::Row<'_>) -> Result<PathInfo, DatabaseError> {
        info(&self.location.store_dir, row).map_err(|error| match error {
            RowError::Database(error) => self.error(error),
            RowError::Meaning(problem) => self.row(problem),
        })
    }

    fn parse(&self, path: &str) -> Result<StorePath, DatabaseError> {
        parse(&self.location.store_dir, path).map_err(|problem| self.row(problem))
    }

    fn has_wal(&self) -> bool {
        let mut name = self.file.clone().into_os_string();
        name.push("-wal");
        // An empty one is what a reader has left.
        std::fs::metadata(name).is_ok_and(|metadata| metadata.len() > 0)
    }

    fn stamp(&self) -> Result<Stamp, DatabaseError> {
        let metadata = self.file.metadata().map_err(|source| self.unreadable(source))?;
        Ok(Stamp { inode: metadata.ino(), size: metadata.size(), modified: (metadata.mtime(), metadata.mtime_nsec()) })
    }

    fn unreadable(&self, source: std::io::Error) -> DatabaseError {
        DatabaseError::Unreadable { path: self.file.clone(), source }
    }

    fn row(&self, problem: String) -> DatabaseError {
        DatabaseError::Row { path: self.file.clone(), problem }
    }

    fn error(&self, error: rusqlite::Error) -> DatabaseError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => DatabaseError::Locked(self.file.clone()),
            _ => DatabaseError::Damaged { path: self.file.clone(), problem: error.to_string() },
        }
    }
}

#[cfg(test)]
mod tests;
