use std::cell::Cell;
use std::path::Path;
use std::time::SystemTime;

use super::*;
use crate::image::nixdb;
use crate::store::closure::tests::{info, path};
use crate::store::{Closure, StoreDir};

/// A database in WAL mode that nobody has open, below `root`.
fn quiet_database(root: &Path) -> StoreLocation {
    let location = StoreLocation::new(Some(root), StoreDir::default(), Path::new("/nix/var/nix"));
    let closure = Closure::new(&location.store_dir, vec![info(&path('a', "a"), &[])], None).expect("closed");
    let file = location.database();
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("writable");
    std::fs::write(&file, nixdb::serialise(&closure, &[]).expect("memory")).expect("writable");
    let connection = Connection::open(file).expect("a database");
    connection.execute_batch("pragma journal_mode = wal").expect("writable");
    connection.close().expect("closed");
    location
}

fn wal(location: &StoreLocation) -> PathBuf {
    location.database().with_file_name("db.sqlite-wal")
}

/// Reads the database, and does `meanwhile` while it is read, with the number
/// of the attempt; tells which attempt was believed.
fn believed(location: &StoreLocation, meanwhile: impl Fn(u32)) -> Result<u32, DatabaseError> {
    let attempts = Cell::new(0);
    StoreDb::open(location)?.read(|_| {
        attempts.set(attempts.get() + 1);
        meanwhile(attempts.get());
        Ok(attempts.get())
    })
}

#[test]
fn a_quiet_database_is_read_once_and_left_as_it_is() {
    let root = tempfile::tempdir().expect("a folder");
    let location = quiet_database(root.path());
    assert_eq!(believed(&location, |_| {}).expect("readable"), 1);
    let valid = StoreDb::open(&location).expect("there").valid(&[path('a', "a"), path('b', "b")]).expect("readable");
    assert_eq!(valid, [path('a', "a")]);
    let folder = std::fs::read_dir(location.database().parent().expect("a folder")).expect("readable");
    assert_eq!(folder.flatten().map(|entry| entry.file_name()).collect::<Vec<_>>(), ["db.sqlite"]);
}

#[test]
fn a_database_is_found_whatever_its_folder_is_called() {
    let folder = tempfile::tempdir().expect("a folder");
    let location = quiet_database(&folder.path().join("a?b#c%20d e+f&g=h;i:j@k~ü"));
    let valid = StoreDb::open(&location).expect("there").valid(&[path('a', "a")]).expect("readable");
    assert_eq!(valid, [path('a', "a")]);
}

#[test]
fn what_was_read_while_the_file_changed_is_not_believed() {
    let root = tempfile::tempdir().expect("a folder");
    let location = quiet_database(root.path());
    let touch = |attempt: u32| {
        let file = std::fs::File::options().write(true).open(location.database()).expect("writable");
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(attempt.into())).expect("writable");
    };
    assert_eq!(
        believed(&location, |attempt| if attempt < 3 {
            touch(attempt)
        })
        .expect("readable"),
        3
    );
    assert!(matches!(believed(&location, touch), Err(DatabaseError::Restless(_))));
    let replace = |attempt: u32| {
        if attempt == 1 {
            let copy = root.path().join("copy");
            std::fs::copy(location.database(), &copy).expect("writable");
            let modified = location.database().metadata().and_then(|metadata| metadata.modified());
            let file = std::fs::File::options().write(true).open(&copy).expect("writable");
            file.set_modified(modified.expect("there")).expect("writable");
            std::fs::rename(&copy, location.database()).expect("writable");
        }
    };
    assert_eq!(believed(&location, replace).expect("readable"), 2);
}

#[test]
fn what_was_read_while_somebody_opened_the_database_is_not_believed() {
    let root = tempfile::tempdir().expect("a folder");
    let location = quiet_database(root.path());
    let open = |_| std::fs::write(wal(&location), "the log of somebody else").expect("writable");
    assert_eq!(believed(&location, open).expect("readable"), 2);
}
