use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use super::begin::Fault;
use super::collect::Options;
use super::notes::Notes;
use super::*;
use crate::image::nixdb;
use crate::store::closure::tests::{info, path};
use crate::store::{Closure, PathInfo};

/// A store in `dir` with a chain of paths, the first of which refers to the second, and so on;
/// and a database that knows them.
fn store(dir: &Path, names: &str) -> LocalStore {
    let paths: Vec<_> = names.chars().map(|letter| path(letter, &letter.to_string())).collect();
    let infos: Vec<PathInfo> = (0..paths.len())
        .map(|at| {
            let next: Vec<_> = paths.get(at + 1).into_iter().collect();
            PathInfo { nar_size: 1000, ..info(&paths[at], &next) }
        })
        .collect();
    let closure = Closure::new(&StoreDir::default(), infos, None).expect("closed");
    let store = LocalStore::open_or_make(dir, &StoreDir::default()).expect("made");
    let database = store.location().database();
    std::fs::create_dir_all(crate::fs::folder_of(&database)).expect("made");
    std::fs::write(&database, nixdb::serialise(&closure, &[]).expect("memory")).expect("written");
    for path in &paths {
        let folder = store.location().real_dir.join(path.to_basename());
        std::fs::create_dir_all(&folder).expect("made");
        std::fs::write(folder.join("file"), path.to_basename()).expect("written");
    }
    store
}

fn file(store: &LocalStore, letter: char) -> PathBuf {
    store.location().real_dir.join(path(letter, &letter.to_string()).to_basename()).join("file")
}

/// The letters of the paths that the database knows.
fn known(store: &LocalStore) -> String {
    let rows = database::Database::open(store).expect("opens").expect("there").rows().expect("readable");
    rows.iter().filter_map(|row| row.path.chars().last()).collect()
}

fn root(store: &LocalStore, letter: char) {
    let roots = store.location().state_dir.join("gcroots/auto");
    std::fs::create_dir_all(&roots).expect("made");
    let result = store.dir().join(format!("result-{letter}"));
    symlink(store.location().print(&path(letter, &letter.to_string())), &result).expect("linked");
    symlink(&result, roots.join(letter.to_string())).expect("linked");
}

#[test]
fn what_is_lost_goes_with_all_that_refers_to_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(dir.path(), "abcd");
    end(&store, 2).expect("ended");
    std::fs::write(file(&store, 'b'), "cut").expect("written");
    let begun = begin(&store, 2).expect("begun");
    let faults: Vec<(char, Fault)> =
        begun.lost.iter().map(|(path, fault)| (path.chars().last().expect("a letter"), fault.clone())).collect();
    assert_eq!(faults, [('a', Fault::Refers), ('b', Fault::Changed)]);
    assert_eq!((begun.paths, begun.anew, &known(&store)[..]), (2, None, "cd"));
    assert!(!file(&store, 'a').exists() && !file(&store, 'b').exists() && file(&store, 'c').exists());
    assert_eq!(begin(&store, 1).expect("begun").lost, []);

    modes::delete(crate::fs::folder_of(&file(&store, 'd'))).expect("gone");
    let begun = begin(&store, 2).expect("begun");
    assert_eq!((begun.lost.len(), begun.lost[1].1.clone(), &known(&store)[..]), (2, Fault::Missing, ""));
}

#[test]
fn bytes_that_are_others_are_found_by_hashing() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(dir.path(), "ab");
    // The hashes of these registrations are invented.
    let lost = begin::deep(&store, 2).expect("read");
    assert_eq!(lost.iter().map(|(_, fault)| fault.clone()).collect::<Vec<_>>(), [Fault::Contents, Fault::Contents]);
    assert_eq!(known(&store), "");
}

#[test]
fn a_database_that_is_none_takes_all_with_it() {
    for bytes in [&b"no database"[..], b""] {
        let dir = tempfile::tempdir().expect("a folder");
        let store = store(dir.path(), "ab");
        std::fs::write(store.location().database(), bytes).expect("written");
        assert!(begin(&store, 2).expect("begun").anew.is_some());
        assert!(!file(&store, 'a').exists() && !store.location().database().exists());
        assert!(begin(&store, 2).expect("begun").anew.is_none());
    }
}

#[test]
fn an_end_without_a_change_leaves_no_newer_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(dir.path(), "ab");
    root(&store, 'a');
    assert!(end(&store, 2).expect("ended").changed);
    let changed = i64::try_from(Notes::read(&store).changed).expect("a time");
    begin(&store, 2).expect("begun");
    for name in ["db/big-lock", "gc.lock", "temproots/17"] {
        let file = store.location().state_dir.join(name);
        std::fs::create_dir_all(crate::fs::folder_of(&file)).expect("made");
        std::fs::write(file, "").expect("written");
    }
    let ended = end(&store, 2).expect("ended");
    assert_eq!((ended.paths, ended.added, ended.size, ended.changed), (2, 0, 2000, false));
    for entry in walkdir::WalkDir::new(dir.path().join("nix")) {
        let entry = entry.expect("readable");
        let data = entry.metadata().expect("there");
        assert!((data.mtime(), data.mtime_nsec()) <= (changed, 0), "{}", entry.path().display());
        assert!(!entry.path().ends_with("gc.lock"));
    }
}

#[test]
fn what_no_root_names_goes_where_it_is_too_large() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(dir.path(), "abcd");
    root(&store, 'c');
    end(&store, 2).expect("ended");
    std::fs::write(store.location().real_dir.join("left-by-a-build"), "").expect("written");
    let options = Options { max_size: Some(3000), ..Options::default() };
    let dry = collect(&store, &Options { dry_run: true, ..options.clone() }).expect("told");
    assert_eq!((dry.removed.len(), dry.other_files, dry.size, &known(&store)[..]), (1, 1, 3000, "abcd"));
    let report = collect(&store, &options).expect("done");
    assert_eq!((report.before, report.removed.len(), report.other_files), (4, 1, 1));
    // The first goes, since the others are needed by it.
    assert_eq!(known(&store), "bcd");
    let options = Options { max_age: Some(Duration::ZERO), max_size: Some(0), ..Options::default() };
    collect(&store, &options).expect("done");
    assert_eq!(known(&store), "cd");
    assert!(file(&store, 'c').exists() && !file(&store, 'b').exists());
    // Which the next job takes for no change.
    assert!(!end(&store, 2).expect("ended").changed);
    let file = std::fs::File::create(store.location().state_dir.join("gc.lock")).expect("made");
    file.lock().expect("locked");
    std::fs::write(store.location().real_dir.join("left-again"), "").expect("written");
    assert!(matches!(collect(&store, &options), Err(LocalStoreError::Busy(_))));
}

#[test]
fn an_image_brings_what_is_not_there_yet() {
    let (dir, brought) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let image = store(brought.path(), "ab");
    let mine = LocalStore::open_or_make(dir.path(), &StoreDir::default()).expect("made");
    let image = LocalStore::shipped(image.dir(), &StoreDir::default());
    assert_eq!(seed(&mine, &image, 2).expect("copied"), 2);
    assert_eq!(known(&mine), "ab");
    assert_eq!(file(&mine, 'a').metadata().expect("there").mode() & 0o777, 0o444);
    let inode = |store: &LocalStore| file(store, 'a').metadata().expect("there").ino();
    let before = inode(&mine);
    assert_eq!(seed(&mine, &image, 2).expect("nothing to do"), 0);

    let other = tempfile::tempdir().expect("a folder");
    let other = store(other.path(), "adbc");
    assert_eq!(seed(&mine, &other, 2).expect("copied"), 2);
    assert_eq!(inode(&mine), before);
    assert_eq!(known(&mine), "abcd");
    // Those of both, since the paths have the same contents.
    let database = database::Database::open(&mine).expect("opens").expect("there");
    assert_eq!(database.references().expect("readable").len(), 2 + 2);
    assert!(begin(&mine, 2).expect("begun").lost.is_empty());
}

#[test]
fn a_binary_cache_and_somebody_else_s_folder_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("nix-cache-info"), "").expect("written");
    let error = LocalStore::open_or_make(dir.path(), &StoreDir::default()).expect_err("another kind");
    assert!(matches!(error, LocalStoreError::BinaryCache(_)));
    let dir = tempfile::tempdir().expect("a folder");
    store(dir.path(), "a");
    if std::os::unix::fs::chown(dir.path().join("nix/store"), Some(1234), None).is_err() {
        return; // Only root can give folders away.
    }
    let error = LocalStore::open(dir.path(), &StoreDir::default()).expect_err("another's");
    assert!(matches!(error, LocalStoreError::Owner { owner: 1234, .. }), "{error}");
}
