use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::time::Duration;

use super::super::beneath::{Folder, FolderError};
use super::*;

fn open(path: &Path) -> Result<CacheFolder, CacheError> {
    CacheFolder::open(path, &StoreDir::default())
}

#[test]
fn a_new_cache_has_all_that_nix_looks_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cache");
    open(&path).expect("opens");
    let info = std::fs::read_to_string(path.join("nix-cache-info")).expect("there");
    assert_eq!(info, "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n");
    let mode = |name: &str| path.join(name).metadata().expect(name).permissions().mode() & 0o7777;
    assert_eq!(mode("nix-cache-info"), 0o644);
    for name in ["nar", "log", "realisations", "build-trace-v2", ""] {
        assert_eq!(mode(name), 0o755, "{name}");
    }
}

/// GitLab's runner makes a project's folder so.
#[test]
fn where_everybody_may_write_others_may_go_on_with_the_cache() {
    for (around, expected) in [(0o777, 0o777), (0o1777, 0o755), (0o775, 0o755), (0o2777, 0o777), (0o773, 0o777)] {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(around)).expect("set");
        let path = folder.path().join("cache");
        open(&path).expect("opens");
        for name in ["nar", "log", ""] {
            let mode = path.join(name).metadata().expect(name).permissions().mode() & 0o777;
            assert_eq!(mode, expected, "{name} in {around:o}");
        }
    }
}

#[test]
fn what_nix_says_of_a_cache_is_completed_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let info = folder.path().join("nix-cache-info");
    std::fs::write(&info, "StoreDir: /nix/store\n").expect("written");
    open(folder.path()).expect("opens");
    let text = || std::fs::read_to_string(&info).expect("there");
    assert_eq!(text(), "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n");
    let state = || info.metadata().map(|data| (data.ino(), data.mtime(), data.mtime_nsec())).expect("there");
    let before = state();
    open(folder.path()).expect("opens");
    assert_eq!(state(), before);

    for of_others in ["StoreDir: /nix/store\nPriority: 41\n", "StoreDir: /nix/store\nWantMassQuery: 0\n"] {
        std::fs::write(&info, of_others).expect("written");
        open(folder.path()).expect("opens");
        assert_eq!(text(), of_others);
    }
}

#[test]
fn what_killed_runs_have_left_goes_after_a_day() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = |folder: &Path| {
        let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().expect("UTF-8")).collect();
        names.sort();
        names
    };
    open(folder.path()).expect("opens");
    let places = [folder.path().to_owned(), folder.path().join("nar")];
    let places = places.map(|path| (Folder::open(&path).expect("a folder"), path));
    let mut expected = Vec::new();
    for (place, path) in &places {
        std::mem::forget(place.temporary());
        for of_others in [".tmp-mine", "old.narinfo"] {
            std::fs::write(path.join(of_others), "").expect("written");
        }
        symlink("/", path.join(".tmp-00000000000000000000000000000000")).expect("linked");
        let abandoned = names(path).into_iter().find(|name| name.len() == 37 && !name.ends_with("000")).expect("left");
        for name in [&abandoned, ".tmp-mine", "old.narinfo"] {
            let file = std::fs::File::options().write(true).open(path.join(name)).expect("opens");
            file.set_modified(std::time::SystemTime::now() - Duration::from_secs(2 * 24 * 60 * 60)).expect("set");
        }
        // An export at work.
        std::mem::forget(place.temporary());
        expected.push(names(path).into_iter().filter(|name| *name != abandoned).collect::<Vec<_>>());
    }
    open(folder.path()).expect("opens");
    assert_eq!(places.map(|(_, path)| names(&path)).to_vec(), expected);
}

#[test]
fn a_folder_without_a_parent_is_no_place_for_a_cache() {
    let folder = tempfile::tempdir().expect("a folder");
    let parent = folder.path().join("none");
    let text = open(&parent.join("cache")).expect_err("no parent").to_string();
    assert!(text.contains(&format!("there is no folder {};", parent.display())), "{text}");
}

#[test]
fn a_cache_of_another_store_is_refused_and_an_empty_info_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let info = folder.path().join("nix-cache-info");
    std::fs::write(&info, "StoreDir: /gnu/store\n").expect("written");
    assert!(matches!(open(folder.path()), Err(CacheError::StoreDir { .. })));
    std::fs::write(&info, "").expect("written");
    open(folder.path()).expect("opens");
}

#[test]
fn links_in_the_cache_are_refused() {
    let outside = tempfile::tempdir().expect("a folder");
    for name in ["nar", "log"] {
        let folder = tempfile::tempdir().expect("a folder");
        symlink(outside.path(), folder.path().join(name)).expect("linked");
        let error = open(folder.path()).expect_err("a link");
        assert!(matches!(error, CacheError::Shelf(ShelfError::Folder(FolderError::NoFolder(_)))), "{error}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(outside.path().join("mine"), "StoreDir: /gnu/store\n").expect("written");
    symlink(outside.path().join("mine"), folder.path().join("nix-cache-info")).expect("linked");
    open(folder.path()).expect("opens");
    assert!(folder.path().join("nix-cache-info").symlink_metadata().expect("there").is_file());
    assert_eq!(std::fs::read_dir(outside.path()).expect("a folder").count(), 1);
}

#[test]
fn a_pipe_in_place_of_a_file_does_not_hold_us() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("nix-cache-info");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o644.into(), 0).expect("made");
    open(folder.path()).expect("opens");
    assert!(pipe.metadata().expect("there").is_file());
}

#[test]
fn what_root_makes_belongs_to_the_owner_of_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("project");
    std::fs::create_dir(&path).expect("made");
    if chown(&path, Some(1234), Some(1234)).is_err() {
        return; // Only root can give folders away.
    }
    open(&path.join("cache")).expect("opens");
    for name in ["cache", "cache/nar", "cache/nix-cache-info"] {
        assert_eq!(path.join(name).metadata().expect(name).uid(), 1234, "{name}");
    }
}

#[test]
fn a_priority_is_set_and_nothing_else_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = open(folder.path()).expect("opens");
    let info = folder.path().join("nix-cache-info");
    for (before, after) in [
        (
            "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n",
            "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 10\n",
        ),
        (
            "StoreDir: /nix/store\nPriority: 41\nWantMassQuery: 0\n",
            "StoreDir: /nix/store\nWantMassQuery: 0\nPriority: 10\n",
        ),
    ] {
        std::fs::write(&info, before).expect("written");
        cache.set_priority(10).expect("set");
        assert_eq!(std::fs::read_to_string(&info).expect("there"), after);
        let inode = info.metadata().expect("there").ino();
        cache.set_priority(10).expect("set");
        assert_eq!(info.metadata().expect("there").ino(), inode);
    }
}
