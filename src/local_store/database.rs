//! Changes a store's Nix database, which nobody else uses at the time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, params};
use sha2::{Digest as _, Sha256};

use super::{LocalStore, LocalStoreError};
use crate::digest::Digest;
use crate::image::nixdb;
use crate::url;

/// How long to wait for a Nix that has locked it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A row of `ValidPaths`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its number.
    pub id: i64,
    /// The store path, in full.
    pub path: String,
    /// The hash of its NAR, as Nix writes it.
    pub hash: String,
    /// The size of its NAR, in bytes.
    pub nar_size: u64,
    /// When it was registered, in seconds since the epoch.
    pub registered: u64,
    /// The derivation that made it, in full.
    pub deriver: Option<String>,
}

/// The database, open for writing.
pub struct Database {
    connection: Connection,
    file: PathBuf,
}

impl Database {
    /// That of `store`, if it has one.
    ///
    /// # Errors
    /// When it can't be opened, or is damaged.
    pub fn open(store: &LocalStore) -> Result<Option<Self>, LocalStoreError> {
        let file = store.location().database();
        if file.symlink_metadata().is_err() {
            return Ok(None);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        let open = || {
            let connection = Connection::open_with_flags(&file, flags | OpenFlags::SQLITE_OPEN_NOFOLLOW)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "foreign_keys", true)?;
            let state: String = connection.query_row("pragma quick_check(1)", [], |row| row.get(0))?;
            // An empty file is a database, too.
            connection.prepare("select path from ValidPaths")?;
            match &state[..] {
                "ok" => Ok(connection),
                _ => Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
                    Some(state),
                )),
            }
        };
        match open() {
            Ok(connection) => Ok(Some(Self { connection, file })),
            Err(error) => Err(told(&file, error)),
        }
    }

    /// That of `image`, which nobody changes, and which this user may not be able to change.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn open_unchanging(image: &LocalStore) -> Result<Self, LocalStoreError> {
        let file = image.location().database();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        match Connection::open_with_flags(unchanging(&file), flags) {
            Ok(connection) => Ok(Self { connection, file }),
            Err(error) => Err(told(&file, error)),
        }
    }

    /// Adds the rows of the database `other`, which nobody changes, that are not here yet.
    ///
    /// # Errors
    /// When it can't be read, or this one not be written; then none is added.
    pub fn adopt(&mut self, other: &Path) -> Result<(), LocalStoreError> {
        const PATHS: &str = "insert or ignore into main.ValidPaths
            (path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca)
            select path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca from other.ValidPaths order by id";
        // A path that was here with other contents keeps the references that it has.
        const REFERENCES: &str = "insert or ignore into main.Refs (referrer, reference)
            select mine.id, its.id from other.Refs r
            join other.ValidPaths a on a.id = r.referrer join other.ValidPaths b on b.id = r.reference
            join main.ValidPaths mine on mine.path = a.path and mine.hash = a.hash
            join main.ValidPaths its on its.path = b.path";
        const OUTPUTS: &str = "insert or ignore into main.DerivationOutputs (drv, id, path)
            select mine.id, o.id, o.path from other.DerivationOutputs o
            join other.ValidPaths a on a.id = o.drv join main.ValidPaths mine on mine.path = a.path";
        const REALISATIONS: &str = "insert into main.Realisations (drvPath, outputName, outputPath, signatures)
            select r.drvPath, r.outputName, mine.id, r.signatures from other.Realisations r
            join other.ValidPaths a on a.id = r.outputPath join main.ValidPaths mine on mine.path = a.path
            where not exists (select 1 from main.Realisations m where m.drvPath = r.drvPath and m.outputName = r.outputName)
            order by r.id";
        const DEPENDENT: &str = "insert into main.RealisationsRefs (referrer, realisationReference)
            select mine.id, its.id from other.RealisationsRefs r
            join other.Realisations a on a.id = r.referrer join other.Realisations b on b.id = r.realisationReference
            join main.Realisations mine on mine.drvPath = a.drvPath and mine.outputName = a.outputName
            join main.Realisations its on its.drvPath = b.drvPath and its.outputName = b.outputName
            where not exists (select 1 from main.RealisationsRefs m
                where m.referrer = mine.id and m.realisationReference = its.id)";
        let file = self.file.clone();
        let mut adopt = || -> rusqlite::Result<()> {
            self.connection.execute("attach database ?1 as other", [unchanging(other)])?;
            let realised = "select 1 from other.sqlite_master where type = 'table' and name = 'Realisations'";
            let realised = self.connection.prepare(realised)?.exists([])?;
            let has_tables = self.has("Realisations")?;
            let transaction = self.connection.transaction()?;
            for statement in [PATHS, REFERENCES, OUTPUTS] {
                transaction.execute(statement, [])?;
            }
            if realised {
                if !has_tables {
                    transaction.execute_batch(nixdb::REALISATIONS)?;
                }
                transaction.execute(REALISATIONS, [])?;
                transaction.execute(DEPENDENT, [])?;
            }
            transaction.commit()?;
            self.connection.execute("detach database other", []).map(drop)
        };
        adopt().map_err(|error| told(&file, error))
    }

    /// All rows, in the order in which they were registered.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn rows(&self) -> Result<Vec<Row>, LocalStoreError> {
        self.tell((|| {
            let mut query = self.connection.prepare(
                "select id, path, coalesce(narSize, 0), registrationTime, deriver, hash from ValidPaths order by id",
            )?;
            let rows = query.query_map([], |row| {
                let number = |column| row.get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or(0));
                let (id, path, deriver, hash) = (row.get(0)?, row.get(1)?, row.get(4)?, row.get(5)?);
                Ok(Row { id, path, hash, nar_size: number(2)?, registered: number(3)?, deriver })
            })?;
            rows.collect()
        })())
    }

    /// What all registrations come to: another value wherever one was added, is gone, or says
    /// something else.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn digest(&self) -> Result<Digest, LocalStoreError> {
        const QUERY: &str = "select id || ' ' || path || ' ' || hash || ' ' || registrationTime || ' ' ||
            coalesce(ultimate, 0) || ' ' || coalesce(ca, '') || ' ' || coalesce(sigs, '') from ValidPaths order by id";
        self.tell((|| {
            let mut hasher = Sha256::new();
            let mut query = self.connection.prepare(QUERY)?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                hasher.update(row.get::<_, String>(0)?);
                hasher.update("\n");
            }
            for table in ["Realisations", "BuildTraceV3"] {
                if self.has(table)? {
                    let count = format!("select count(*) || ' ' || coalesce(max(rowid), 0) from {table}");
                    hasher.update(self.connection.query_row(&count, [], |row| row.get::<_, String>(0))?);
                }
            }
            Ok(Digest::finish(hasher))
        })())
    }

    /// Whether there is such a table.
    fn has(&self, table: &str) -> rusqlite::Result<bool> {
        self.connection.prepare("select 1 from sqlite_master where type = 'table' and name = ?1")?.exists([table])
    }

    /// All references, from the number of a path to that of what it refers to; none to itself.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn references(&self) -> Result<Vec<(i64, i64)>, LocalStoreError> {
        self.pairs("select referrer, reference from Refs where referrer != reference")
    }

    /// From the number of a derivation to those of its outputs that are there.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn outputs(&self) -> Result<Vec<(i64, i64)>, LocalStoreError> {
        self.pairs("select o.drv, v.id from DerivationOutputs o join ValidPaths v on v.path = o.path")
    }

    fn pairs(&self, query: &str) -> Result<Vec<(i64, i64)>, LocalStoreError> {
        self.tell((|| {
            let mut query = self.connection.prepare(query)?;
            let pairs = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            pairs.collect()
        })())
    }

    /// Has Nix forget the paths with these numbers. What refers to them must be among them.
    ///
    /// # Errors
    /// When that can't be written; then none is forgotten.
    pub fn forget(&mut self, ids: &BTreeSet<i64>) -> Result<(), LocalStoreError> {
        let file = self.file.clone();
        let mut forget = || -> rusqlite::Result<()> {
            let realised = self.has("RealisationsRefs")?;
            let transaction = self.connection.transaction()?;
            for id in ids {
                transaction.execute("delete from Refs where referrer = ?1", params![id])?;
                if realised {
                    let of = "(select id from Realisations where outputPath = ?1)";
                    let delete =
                        format!("delete from RealisationsRefs where referrer in {of} or realisationReference in {of}");
                    transaction.execute(&delete, params![id])?;
                }
            }
            for id in ids {
                transaction.execute("delete from ValidPaths where id = ?1", params![id])?;
            }
            transaction.commit()
        };
        forget().map_err(|error| told(&file, error))
    }

    /// Puts all that was written into the one file, and has nothing beside it any more.
    ///
    /// # Errors
    /// When somebody else has it open, or it can't be written.
    pub fn settle(self) -> Result<(), LocalStoreError> {
        let mode: String = self
            .connection
            .query_row("pragma journal_mode = delete", [], |row| row.get(0))
            .map_err(|error| told(&self.file, error))?;
        if mode != "delete" {
            return Err(LocalStoreError::Busy(self.file));
        }
        Ok(())
    }

    fn tell<T>(&self, result: rusqlite::Result<T>) -> Result<T, LocalStoreError> {
        result.map_err(|error| told(&self.file, error))
    }
}

/// The URI of a database that nobody changes, so that nothing need be locked.
fn unchanging(file: &Path) -> String {
    format!("file:{}?immutable=1", url::encode(file))
}

/// Whether the database is none, so that nothing of the store can be used.
pub fn is_damaged(error: &LocalStoreError) -> bool {
    let LocalStoreError::Database { source, .. } = error else { return false };
    match source {
        rusqlite::Error::SqliteFailure(error, message) => {
            let lacks = |text: &String| text.contains("no such table") || text.contains("no such column");
            matches!(error.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
                || message.as_ref().is_some_and(lacks)
        }
        rusqlite::Error::SqlInputError { msg, .. } => msg.contains("no such table") || msg.contains("no such column"),
        _ => false,
    }
}

fn told(file: &Path, source: rusqlite::Error) -> LocalStoreError {
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => LocalStoreError::Busy(file.to_owned()),
        _ => LocalStoreError::Database { path: file.to_owned(), source },
    }
}
