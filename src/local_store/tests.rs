use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

use super::begin::Fault;
use super::modes::State;
use super::notes::Notes;
use super::*;
use crate::cache::gc::Options;
use crate::image::nixdb;
use crate::store::closure::tests::{info, path};
use crate::store::{Closure, PathInfo, StorePath};

/// The store path of that letter.
fn named(letter: char) -> StorePath {
    // As of a project's own file.
    path(letter, &if letter == 'f' { "flake.lock".to_owned() } else { letter.to_string() })
}

/// A store in `dir` with a chain of paths, the first of which refers to the second, and so on;
/// and a database that knows them. `l` is a link, and no folder.
fn store(dir: &Path, names: &str) -> LocalStore {
    let store = LocalStore::open_or_make(dir, &StoreDir::default()).expect("made");
    let paths: Vec<_> = names.chars().map(named).collect();
    let mut infos: Vec<PathInfo> = Vec::new();
    for (at, path) in paths.iter().enumerate() {
        let place = store.location().real_dir.join(path.to_basename());
        if path.to_basename().ends_with("-l") {
            symlink("/nowhere", &place).expect("linked");
        } else {
            std::fs::create_dir_all(&place).expect("made");
            std::fs::write(place.join("file"), path.to_basename()).expect("written");
        }
        let next: Vec<_> = paths.get(at + 1).into_iter().collect();
        let nar_size = modes::set(&place, None).expect("looked at").nar_size;
        infos.push(PathInfo { nar_size, ..info(path, &next) });
    }
    let closure = Closure::new(&StoreDir::default(), infos, None).expect("closed");
    let database = store.location().database();
    std::fs::create_dir_all(crate::fs::folder_of(&database)).expect("made");
    std::fs::write(&database, nixdb::serialise(&closure, &[]).expect("memory")).expect("written");
    store
}

fn file(store: &LocalStore, letter: char) -> PathBuf {
    store.location().real_dir.join(named(letter).to_basename()).join("file")
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
    symlink(store.location().print(&named(letter)), &result).expect("linked");
    symlink(&result, roots.join(letter.to_string())).expect("linked");
}

#[test]
fn what_is_lost_goes_with_all_that_refers_to_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(dir.path(), "abcd");
    end(&store, 2).expect("ended");
    std::fs::write(file(&store, 'b'), "cut").expect("written");
    let begun = begin(&store, 2, Some(State::Sealed)).expect("begun");
    let faults: Vec<(char, Fault)> =
        begun.lost.iter().map(|(path, fault)| (path.chars().last().expect("a letter"), fault.clone())).collect();
    assert_eq!(faults, [('a', Fault::Refers), ('b', Fault::Changed)]);
    assert_eq!((begun.paths, begun.anew, &known(&store)[..]), (2, None, "cd"));
    assert!(!file(&store, 'a').exists() && !file(&store, 'b').exists() && file(&store, 'c').exists());
    assert_eq!(begin(&store, 1, None).expect("begun").lost, []);

    modes::delete(crate::fs::folder_of(&file(&store, 'd'))).expect("gone");
    let begun = begin(&store, 2, Some(State::Sealed)).expect("begun");
    assert_eq!((begun.lost.len(), begun.lost[1].1.clone(), &known(&store)[..]), (2, Fault::Missing, ""));
}

#[test]
fn without_notes_a_cut_path_is_noticed_by_its_size() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(dir.path(), "abc");
    std::fs::write(file(&store, 'c'), "").expect("written");
    assert_eq!(begin(&store, 2, None).expect("begun").lost.len(), 3);
}

#[test]
fn what_was_built_again_may_look_otherwise() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(dir.path(), "ab");
    end(&store, 2).expect("ended");
    let program = rusqlite::Connection::open(store.location().database()).expect("opens");
    std::fs::write(file(&store, 'a'), "other contents").expect("written");
    let size = modes::set(crate::fs::folder_of(&file(&store, 'a')), None).expect("looked at").nar_size;
    let update = "update ValidPaths set registrationTime = 7, narSize = ?1 where path like '%-a'";
    program.execute(update, [size.cast_signed()]).expect("written");
    drop(program);
    assert!(begin(&store, 2, None).expect("begun").lost.is_empty());
    assert!(end(&store, 2).expect("ended").changed);
}

#[test]
fn a_path_that_is_called_a_lock_stays_and_others_go() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(dir.path(), "fl");
    let lock = store.location().real_dir.join("abc-result.lock");
    std::fs::write(&lock, "").expect("written");
    end(&store, 2).expect("ended");
    assert!(file(&store, 'f').exists() && !lock.exists());
    assert!(begin(&store, 2, Some(State::Sealed)).expect("begun").lost.is_empty());
    assert!(!end(&store, 2).expect("ended").changed);
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
        assert!(begin(&store, 2, Some(State::Sealed)).expect("begun").anew.is_some());
        assert!(!file(&store, 'a').exists() && !store.location().database().exists());
        assert!(begin(&store, 2, Some(State::Sealed)).expect("begun").anew.is_none());
    }
}

#[test]
fn an_end_without_a_change_leaves_no_newer_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(dir.path(), "ab");
    root(&store, 'a');
    assert!(end(&store, 2).expect("ended").changed);
    let changed = i64::try_from(Notes::read(&store).changed).expect("a time");
    begin(&store, 2, Some(State::Sealed)).expect("begun");
    for name in ["db/big-lock", "gc.lock", "temproots/17"] {
        let file = store.location().state_dir.join(name);
        std::fs::create_dir_all(crate::fs::folder_of(&file)).expect("made");
        std::fs::write(file, "").expect("written");
    }
    let ended = end(&store, 2).expect("ended");
    let size = ended.size / 2;
    assert_eq!((ended.paths, ended.added, ended.size, ended.changed), (2, 0, 2 * size, false));
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
    let size = super::info::info(&store).expect("readable").size;
    let options = Options { max_size: Some(size / 4 * 3), ..Options::default() };
    let dry = collect(&store, &Options { dry_run: true, ..options.clone() }).expect("told");
    assert_eq!((dry.removed.len(), dry.other_files, dry.size, &known(&store)[..]), (1, 1, size / 4 * 3, "abcd"));
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
    // Nix's collectors hold the one, its builders the other.
    std::fs::write(store.location().real_dir.join("left-again"), "").expect("written");
    for lock in ["gc.lock", "temproots/17"] {
        let path = store.location().state_dir.join(lock);
        std::fs::create_dir_all(crate::fs::folder_of(&path)).expect("made");
        let file = std::fs::File::create(path).expect("made");
        file.lock().expect("locked");
        assert!(matches!(collect(&store, &options), Err(LocalStoreError::Busy(_))), "{lock}");
    }
    collect(&store, &options).expect("nobody is at work");
}

#[test]
fn what_is_registered_and_not_there_goes_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(dir.path(), "ab");
    end(&store, 2).expect("ended");
    modes::delete(crate::fs::folder_of(&file(&store, 'a'))).expect("gone");
    let options = Options { max_age: Some(Duration::ZERO), max_size: Some(0), ..Options::default() };
    std::fs::write(store.location().real_dir.join("left-by-a-build"), "").expect("written");
    let report = collect(&store, &Options { dry_run: true, ..options.clone() }).expect("told");
    assert_eq!((report.removed.len(), report.other_files), (2, 1));
    std::fs::remove_file(store.location().real_dir.join("left-by-a-build")).expect("gone");
    modes::delete(crate::fs::folder_of(&file(&store, 'b'))).expect("gone");
    // There is no file to delete, and still something to do.
    assert_eq!(collect(&store, &options).expect("done").removed.len(), 2);
    assert_eq!(known(&store), "");
}

#[test]
fn an_image_brings_what_is_not_there_yet() {
    let (dir, brought) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let image = store(brought.path(), "abl");
    let mine = LocalStore::open_or_make(dir.path(), &StoreDir::default()).expect("made");
    let image = LocalStore::shipped(image.dir(), &StoreDir::default());
    assert_eq!(seed(&mine, &image, 2).expect("copied"), 3);
    assert_eq!(known(&mine), "abl");
    assert_eq!(file(&mine, 'a').metadata().expect("there").mode() & 0o777, 0o444);
    let inode = |store: &LocalStore| file(store, 'a').metadata().expect("there").ino();
    let before = inode(&mine);
    assert_eq!(seed(&mine, &image, 2).expect("nothing to do"), 0);

    let other = tempfile::tempdir().expect("a folder");
    let other = store(other.path(), "adbc");
    assert_eq!(seed(&mine, &other, 2).expect("copied"), 2);
    assert_eq!(inode(&mine), before);
    assert_eq!(known(&mine), "ablcd");
    // Those of both, since the paths have the same contents.
    let database = database::Database::open(&mine).expect("opens").expect("there");
    assert_eq!(database.references().expect("readable").len(), 2 + 3);
    assert!(begin(&mine, 2, Some(State::Sealed)).expect("begun").lost.is_empty());
}

#[test]
fn a_store_that_is_no_cache_is_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(dir.path(), "ab");
    std::fs::remove_file(dir.path().join("nix").join(MARK)).expect("there");
    let database = std::fs::read(store.location().database()).expect("there");
    let options = Options { max_age: Some(Duration::ZERO), max_size: Some(0), ..Options::default() };
    // Whole, and as one of which the archive was cut off.
    for left in [&database[..], b""] {
        std::fs::write(store.location().database(), left).expect("written");
        let results = [
            begin(&store, 2, Some(State::Sealed)).map(drop),
            begin::deep(&store, 2).map(drop),
            collect(&store, &options).map(drop),
            end(&store, 2).map(drop),
            LocalStore::open_or_make(dir.path(), &StoreDir::default()).map(drop),
        ];
        for result in results {
            assert!(matches!(result, Err(LocalStoreError::Unmarked(_))), "{result:?}");
        }
        assert!(file(&store, 'a').exists());
        assert_eq!(std::fs::read(store.location().database()).expect("there"), left);
    }
    let root = LocalStore::shipped(Path::new("/"), &StoreDir::default());
    assert!(matches!(begin(&root, 2, None), Err(LocalStoreError::Root(_))));
    // What it says to do.
    std::fs::write(dir.path().join("nix").join(MARK), "").expect("written");
    assert!(begin(&store, 2, Some(State::Sealed)).expect("begun").anew.is_some());
    assert!(!file(&store, 'a').exists() && dir.path().join("nix").join(MARK).exists());
}

#[derive(Debug, thiserror::Error)]
#[error("it was walked")]
struct Walked(#[source] std::io::Error);

#[test]
fn what_the_machine_lacks_is_no_fault_of_a_path() {
    for (errno, is_of_machine) in [(Errno::MFILE, true), (Errno::NOMEM, true), (Errno::IO, false)] {
        let error = crate::tree::TreeError::Io { path: "/x".into(), source: errno.into() };
        // As walkdir has it.
        let walked = std::io::Error::other(Walked(errno.into()));
        assert_eq!(begin::errno_of(&walked).is_some_and(begin::is_of_machine), is_of_machine, "{errno}");
        let error = crate::nar::NarError::Tree(error);
        assert_eq!(begin::errno_of(&error).is_some_and(begin::is_of_machine), is_of_machine, "{errno}");
    }
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
