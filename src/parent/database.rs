//! Reads the Nix database of an image: a file that anybody may have made.
//!
//! It is copied out of its layer, and its write-ahead log with it. SQLite then
//! runs nothing that the file brings (views, triggers, functions in its schema),
//! and keeps no value that is larger than a registration's can be.
//!
//! Source: SQLite's "Defense Against The Dark Arts" and "Database File Format".

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use super::blob::Blob;
use super::error::LayerProblem;
use crate::store::db::{COLUMNS, RowError, info};
use crate::store::{PathInfo, StoreDir, StorePath};
use crate::url;

/// The version of the schema that is known, from Nix 2.0 on.
const SCHEMA: &str = "10";

/// How long a value may be, in bytes: signatures are the longest.
const MAX_VALUE: i32 = 1 << 20;

/// How many references are kept at most.
const MAX_REFERENCES: usize = 10_000_000;

/// The files of a database.
#[derive(Clone, Debug)]
pub struct DatabaseFiles {
    /// `db.sqlite`.
    pub database: Blob,
    /// `db.sqlite-wal`, if it is there.
    pub wal: Option<Blob>,
    /// `schema`, if it is there.
    pub schema: Option<Blob>,
}

/// What a database says of an image's store paths.
#[derive(Debug, Default)]
pub struct Rows {
    /// The registrations of paths that the image has.
    pub known: BTreeMap<StorePath, Row>,
    /// How many rows are of other paths, and the first of them.
    pub others: usize,
    /// See `others`.
    pub first_other: Option<String>,
}

/// A registration from a database.
#[derive(Debug)]
pub struct Row {
    /// The registration, with those of its references that the image has.
    pub info: PathInfo,
    /// How many references the image does not have.
    pub missing: usize,
}

/// Reads the rows of the store paths for which `has` holds.
///
/// # Errors
/// When the database is none, is damaged, or of another schema.
pub fn read(
    files: &DatabaseFiles,
    store_dir: &StoreDir,
    has: impl Fn(&StorePath) -> bool,
) -> Result<Rows, LayerProblem> {
    check_schema(files)?;
    let connection = open(files)?;
    rows(&connection, store_dir, has).map_err(|error| LayerProblem::Database(error.to_string()))
}

fn check_schema(files: &DatabaseFiles) -> Result<(), LayerProblem> {
    let Some(schema) = &files.schema else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(&schema.bytes(1024)?).trim_end().to_owned();
    if text == SCHEMA {
        return Ok(());
    }
    Err(LayerProblem::Database(format!("it has schema {text:?}, and only schema {SCHEMA} is known")))
}

/// Opens a copy of the database, which has no name any more afterwards.
fn open(files: &DatabaseFiles) -> Result<Connection, LayerProblem> {
    let folder = tempfile::tempdir().map_err(LayerProblem::Temporary)?;
    let path = folder.path().join("db.sqlite");
    let wal = files.wal.as_ref().filter(|wal| wal.size() > 0);
    let copy = copy(&files.database, &path)?;
    if let Some(wal) = wal {
        copy_wal(wal, &folder.path().join("db.sqlite-wal"))?;
    } else {
        close_wal(&copy)?;
    }
    let connection = connect(&path, wal.is_some()).map_err(|error| LayerProblem::Database(error.to_string()))?;
    // What is open stays, until the connection is dropped.
    folder.close().map_err(LayerProblem::Temporary)?;
    Ok(connection)
}

fn copy(blob: &Blob, path: &Path) -> Result<File, LayerProblem> {
    let mut file =
        File::options().read(true).write(true).create_new(true).open(path).map_err(LayerProblem::Temporary)?;
    let mut reader = blob.reader();
    io::copy(&mut reader, &mut file).map_err(LayerProblem::Temporary)?;
    file.flush().map_err(LayerProblem::Temporary)?;
    Ok(file)
}

fn copy_wal(blob: &Blob, path: &Path) -> Result<(), LayerProblem> {
    copy(blob, path).map(drop)
}

/// Bytes 18 and 19 are 2 for a database with a write-ahead log, and 1 for one
/// without. SQLite would make a log where there is none.
fn close_wal(file: &File) -> Result<(), LayerProblem> {
    let mut header = [0; 20];
    let is_wal = file.read_exact_at(&mut header, 0).is_ok() && header[18..] == [2, 2];
    if is_wal {
        file.write_all_at(&[1, 1], 18).map_err(LayerProblem::Temporary)?;
    }
    Ok(())
}

/// Opens the database, and reads from it, since only that finds what is wrong.
fn connect(path: &Path, has_wal: bool) -> rusqlite::Result<Connection> {
    // Only who may write applies a write-ahead log.
    let (flags, parameter) = if has_wal {
        (OpenFlags::SQLITE_OPEN_READ_WRITE, "mode=rw")
    } else {
        (OpenFlags::SQLITE_OPEN_READ_ONLY, "immutable=1")
    };
    let url = format!("file:{}?{parameter}", url::encode(path));
    let flags = flags | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(url, flags)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    // With one user, the log needs no shared memory beside it.
    connection
        .execute_batch("pragma locking_mode = exclusive; pragma cell_size_check = on; pragma temp_store = memory")?;
    for table in ["ValidPaths", "Refs"] {
        if !has_table(&connection, table)? {
            return Err(rusqlite::Error::QueryReturnedNoRows);
        }
    }
    Ok(connection)
}

/// Virtual tables do not count: they have no pages of their own.
fn has_table(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    connection
        .prepare("select 1 from sqlite_schema where type = 'table' and name = ?1 collate nocase and rootpage > 0")?
        .exists([table])
}

/// What derivations declare, whose files may be nowhere but in the image.
fn read_outputs(connection: &Connection, paths: &HashMap<i64, StorePath>, found: &mut Rows) -> Result<(), RowError> {
    if !has_table(connection, "DerivationOutputs")? {
        return Ok(());
    }
    let mut query = connection.prepare("select drv, id, path from DerivationOutputs")?;
    let mut rows = query.query([])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let known = paths.get(&row.get(0)?).and_then(|path| found.known.get_mut(path));
        // Text of another kind means nothing.
        let (Some(known), Ok(name), Ok(path)) = (known, row.get(1), row.get(2)) else {
            continue;
        };
        count += 1;
        if count > MAX_REFERENCES {
            return Err(RowError::Meaning(format!("it has more than {MAX_REFERENCES} outputs")));
        }
        if known.info.path.is_derivation() {
            known.info.outputs.insert(name, path);
        }
    }
    Ok(())
}

/// As what Nix up to 2.34 knows outputs of content-addressed derivations.
fn read_realisations(
    connection: &Connection,
    paths: &HashMap<i64, StorePath>,
    found: &mut Rows,
) -> Result<(), RowError> {
    if !has_table(connection, "Realisations")? || !has_table(connection, "RealisationsRefs")? {
        return Ok(());
    }
    let mut names: HashMap<i64, (String, StorePath)> = HashMap::new();
    let mut query = connection.prepare("select id, drvPath, outputName, outputPath from Realisations")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (Ok(id), Ok(hash), Ok(output), Ok(path)) =
            (row.get(0), row.get::<_, String>(1), row.get::<_, String>(2), row.get::<_, i64>(3))
        else {
            continue;
        };
        if let Some(path) = paths.get(&path) {
            names.insert(id, (format!("{hash}!{output}"), path.clone()));
        }
        if names.len() > MAX_REFERENCES {
            return Err(RowError::Meaning(format!("it has more than {MAX_REFERENCES} realisations")));
        }
    }
    let mut query = connection.prepare("select referrer, realisationReference from RealisationsRefs")?;
    let mut rows = query.query([])?;
    let mut depends_on: HashMap<i64, BTreeSet<String>> = HashMap::new();
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let (Ok(referrer), Ok(reference)) = (row.get::<_, i64>(0), row.get::<_, i64>(1)) else { continue };
        if let Some((name, _)) = names.get(&reference) {
            depends_on.entry(referrer).or_default().insert(name.clone());
            count += 1;
        }
        if count > MAX_REFERENCES {
            return Err(RowError::Meaning(format!("it has more than {MAX_REFERENCES} realisations")));
        }
    }
    for (id, (name, path)) in names {
        if let Some(known) = found.known.get_mut(&path) {
            known.info.realisations.insert(name, depends_on.remove(&id).unwrap_or_default());
        }
    }
    Ok(())
}

fn rows(connection: &Connection, store_dir: &StoreDir, has: impl Fn(&StorePath) -> bool) -> Result<Rows, RowError> {
    let mut found = Rows::default();
    // Which row is whose.
    let mut paths: HashMap<i64, StorePath> = HashMap::new();
    let mut query = connection.prepare(&format!("select {COLUMNS} from ValidPaths v"))?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        // A row that means nothing is one of no path.
        match info(store_dir, row) {
            Ok(info) if has(&info.path) => {
                paths.insert(row.get(0)?, info.path.clone());
                found.known.insert(info.path.clone(), Row { info, missing: 0 });
            }
            Ok(info) => found.other(|| info.path.to_basename()),
            Err(RowError::Meaning(problem)) => found.other(|| problem),
            Err(error) => return Err(error),
        }
    }
    let mut query = connection.prepare("select referrer, reference from Refs")?;
    let mut rows = query.query([])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let Some(known) = paths.get(&row.get(0)?).and_then(|path| found.known.get_mut(path)) else {
            continue;
        };
        count += 1;
        if count > MAX_REFERENCES {
            return Err(RowError::Meaning(format!("it has more than {MAX_REFERENCES} references")));
        }
        match paths.get(&row.get(1)?) {
            Some(reference) => known.info.references.push(reference.clone()),
            None => known.missing += 1,
        }
    }
    read_outputs(connection, &paths, &mut found)?;
    read_realisations(connection, &paths, &mut found)?;
    for row in found.known.values_mut() {
        row.info.references.sort();
        row.info.references.dedup();
    }
    Ok(found)
}

impl Rows {
    fn other(&mut self, name: impl FnOnce() -> String) {
        self.others += 1;
        self.first_other.get_or_insert_with(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::nixdb;
    use crate::parent::blob::tests::blob;
    use crate::store::Closure;
    use crate::store::closure::tests::{info, path};

    fn files(database: &[u8]) -> DatabaseFiles {
        DatabaseFiles { database: blob(database), wal: None, schema: None }
    }

    fn database() -> Vec<u8> {
        let (a, b, c) = (path('a', "a"), path('b', "b"), path('c', "c"));
        let infos = vec![info(&a, &[&a, &b, &c]), info(&b, &[]), info(&c, &[])];
        nixdb::serialise(&Closure::new(&StoreDir::default(), infos, None).expect("closed"), &[]).expect("memory")
    }

    fn read_all(files: &DatabaseFiles) -> Result<Rows, LayerProblem> {
        read(files, &StoreDir::default(), |path| path.to_basename().as_bytes()[0] != b'c')
    }

    #[test]
    fn rows_of_paths_that_the_image_has_are_read() {
        let rows = read_all(&files(&database())).expect("valid");
        assert_eq!(rows.known.keys().cloned().collect::<Vec<_>>(), [path('a', "a"), path('b', "b")]);
        assert_eq!((rows.others, rows.first_other.as_deref()), (1, Some(&*path('c', "c").to_basename())));
        let a = &rows.known[&path('a', "a")];
        assert_eq!(a.info.references, [path('a', "a"), path('b', "b")]);
        assert_eq!(a.missing, 1);
    }

    #[test]
    fn the_write_ahead_log_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("db.sqlite");
        std::fs::write(&file, database()).expect("writable");
        let connection = Connection::open(&file).expect("a database");
        connection.execute_batch("pragma journal_mode = wal; pragma wal_autocheckpoint = 0").expect("valid");
        connection.execute_batch("delete from Refs; delete from ValidPaths where path like '%-b'").expect("valid");
        let read_blob = |name: &str| blob(&std::fs::read(folder.path().join(name)).expect("there"));
        let mut files =
            DatabaseFiles { database: read_blob("db.sqlite"), wal: Some(read_blob("db.sqlite-wal")), schema: None };
        assert_eq!(read_all(&files).expect("valid").known.len(), 1);
        // Without it, the database is what it was before, and its mode no obstacle.
        files.wal = None;
        assert_eq!(read_all(&files).expect("valid").known.len(), 2);
    }

    #[test]
    fn what_is_no_database_of_nix_is_told() {
        let message = |files: &DatabaseFiles| read_all(files).map(|_| ()).expect_err("none").to_string();
        assert!(message(&files(b"")).contains("can't be read"), "{}", message(&files(b"")));
        assert!(message(&files(&[b'x'; 5000])).contains("not a database"));
        let whole = database();
        assert!(message(&files(&whole[..whole.len() / 2])).contains("can't be read"));
        let mut other = files(&whole);
        other.schema = Some(blob(b"11\n"));
        assert!(message(&other).contains("schema \"11\""), "{}", message(&other));
    }

    #[test]
    fn nothing_that_a_database_brings_is_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let made = |sql: &str| {
            let file = folder.path().join("db.sqlite");
            let _ = std::fs::remove_file(&file);
            let connection = Connection::open(&file).expect("a database");
            connection.execute_batch(sql).expect("valid");
            connection.close().expect("closed");
            files(&std::fs::read(file).expect("there"))
        };
        let view = "create table Refs (referrer, reference);
            create view ValidPaths as with recursive n(id) as (select 1 union all select id + 1 from n)
            select id, '' as path, '' as hash, 0 as narSize, '' as deriver, '' as sigs, '' as ca from n";
        read_all(&made(view)).map(|_| ()).expect_err("a view");
        let large = "create table Refs (referrer, reference);
            create table ValidPaths (id, path, hash, narSize, deriver, sigs, ca);
            insert into ValidPaths values (1, zeroblob(100000000), '', 0, '', '', '')";
        let error = read_all(&made(large)).map(|_| ()).expect_err("too large").to_string();
        assert!(error.contains("too big"), "{error}");
    }
}
