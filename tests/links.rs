//! The cache's owner against root's hook: whatever he puts in the place of a
//! folder or a file, before an export or in its midst, nothing outside of the
//! cache is opened, made or changed.
//!
//! "Outside" is a folder of root's that inotify watches, so that even a file that
//! is opened and not read is seen. All of this needs root.
#![expect(clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

mod attack;
mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use attack::{Attack, FILES, FOLDERS, Obstacle, USER, Who};
use rustix::fs::{CWD, RenameFlags};
use stowage::cache::CacheError;
use stowage::cache::beneath::FolderError;
use stowage::cache::shelf::ShelfError;

#[test]
fn the_watcher_sees_what_a_careless_writer_does() {
    let attack = Attack::new();
    assert_eq!(attack.events(), [""; 0]);
    fs::create_dir(attack.cache()).expect("made");
    symlink(attack.outside(), attack.cache().join("nar")).expect("linked");
    fs::write(attack.cache().join("nar/x"), "").expect("written");
    assert!(!attack.events().is_empty());
    fs::File::open(attack.outside().join("secret")).expect("opens");
    assert!(!attack.events().is_empty());
}

#[test]
fn without_an_attack_the_cache_belongs_to_the_folder_s_owner() {
    for who in [Who::Root, Who::User] {
        let attack = Attack::new();
        attack.export(who).expect("exports");
        attack.assert_nothing_outside();
        let mut count = 0;
        attack.walk(&attack.cache(), &mut |path| {
            let data = path.symlink_metadata().expect("there");
            assert_eq!((data.uid(), data.gid()), (USER, USER), "{}", path.display());
            assert_eq!(data.mode() & 0o7022, 0, "{}", path.display());
            count += 1;
        });
        assert!(count > 8, "{count}");
    }
}

#[test]
fn a_folder_that_is_something_else_is_refused() {
    for who in [Who::Root, Who::User] {
        for folder in FOLDERS {
            for obstacle in Obstacle::IN_PLACE_OF_FOLDERS {
                let attack = Attack::new();
                attack.export(Who::User).expect("exports");
                attack.replace(&attack.project().join(folder), obstacle);
                let result = attack.export(who);
                let text = format!("{folder} is {obstacle:?} for {who:?}: {result:?}");
                assert!(result.is_err(), "{text}");
                attack.assert_nothing_outside();
            }
        }
    }
}

#[test]
fn the_folder_around_the_cache_may_be_no_link_either() {
    for obstacle in Obstacle::IN_PLACE_OF_FOLDERS {
        let attack = Attack::new();
        attack.replace(&attack.project(), obstacle);
        attack.export(Who::Root).expect_err("refused");
        attack.assert_nothing_outside();
    }
}

#[test]
fn a_file_that_is_something_else_is_replaced_or_refused() {
    for who in [Who::Root, Who::User] {
        for index in 0..FILES {
            for obstacle in Obstacle::IN_PLACE_OF_FILES {
                let attack = Attack::new();
                attack.export(Who::User).expect("exports");
                let file = &attack.files()[index];
                attack.replace(file, obstacle);
                let result = attack.export(who);
                attack.assert_nothing_outside();
                let text = format!("{} is {obstacle:?} for {who:?}: {result:?}", file.display());
                if obstacle == Obstacle::Folder {
                    // What is in it may be wanted: it is not deleted.
                    assert!(result.is_err() && file.is_dir(), "{text}");
                    continue;
                }
                if obstacle == Obstacle::HardLink && who == Who::User {
                    // He may not read it, and is told so.
                    assert!(result.is_err(), "{text}");
                    continue;
                }
                result.unwrap_or_else(|error| panic!("{text}: {error:?}"));
                let data = file.symlink_metadata().expect("there");
                assert!(data.is_file() && data.nlink() == 1 && data.uid() == USER, "{text}");
                attack.assert_whole();
            }
        }
    }
}

#[test]
fn a_link_of_root_s_own_that_the_user_has_moved_is_not_followed() {
    // As `sudo nix-build` leaves `result` in a user's folder.
    for name in ["cache", "project"] {
        let attack = Attack::new();
        let place = if name == "cache" { attack.cache() } else { attack.project() };
        attack.replace(&place, Obstacle::LinkOfRoot);
        let error = attack.export(Who::Root).expect_err("refused");
        attack.assert_nothing_outside();
        let is_link = matches!(
            error,
            Some(CacheError::Shelf(ShelfError::Folder(FolderError::ForeignLink(_) | FolderError::NoFolder(_))))
        );
        assert!(is_link, "{error:?}");
    }
}

#[test]
fn a_narinfo_that_leads_out_of_the_cache_is_not_followed() {
    let outside = |attack: &Attack| attack.outside().join("secret");
    for url in
        ["../../outside/secret", "nar/../../../outside/secret", "/ABSOLUTE", "file:///ABSOLUTE", "nar/..", "nar/", ""]
    {
        let attack = Attack::new();
        attack.export(Who::User).expect("exports");
        let path = outside(&attack);
        let url = url.replace("/ABSOLUTE", path.to_str().expect("UTF-8"));
        for narinfo in attack.narinfos() {
            let text = fs::read_to_string(&narinfo).expect("there");
            let changed: String = text
                .lines()
                .filter(|line| !line.starts_with("FileSize"))
                .map(|line| if line.starts_with("URL: ") { format!("URL: {url}\n") } else { format!("{line}\n") })
                .collect();
            fs::write(&narinfo, changed).expect("written");
        }
        let summary = attack.export(Who::Root).expect("exports").expect("tells");
        assert_eq!((summary.added, summary.skipped), (3, 0), "{url}");
        attack.assert_nothing_outside();
        attack.assert_whole();
    }
}

#[test]
fn a_nar_that_is_a_link_does_not_count_as_there() {
    let attack = Attack::new();
    attack.export(Who::User).expect("exports");
    // A NAR elsewhere, whole and of the right size.
    let nar = attack.files().pop().expect("a NAR");
    let elsewhere = attack.base().join("elsewhere");
    fs::rename(&nar, &elsewhere).expect("moved");
    symlink(&elsewhere, &nar).expect("linked");
    let summary = attack.export(Who::Root).expect("exports").expect("tells");
    assert_eq!((summary.added, summary.skipped), (1, 2));
    attack.assert_whole();
}

/// Swaps two names again and again while exports go on, and tells how many of
/// them succeeded and failed.
fn race(attack: &Attack, place: &Path, obstacle: Obstacle, seed: u64) -> [usize; 2] {
    let other = place.with_file_name("other");
    attack.put(&other, obstacle);
    let done = std::sync::atomic::AtomicBool::new(false);
    let mut counts = [0; 2];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = seed;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                // What is to be swapped may be missing just now.
                let _ = rustix::fs::renameat_with(CWD, place, CWD, &other, RenameFlags::EXCHANGE);
                // Marsaglia's xorshift: some waits are none, some let an export end.
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let wait = if random.is_multiple_of(4) { random / 4 % 4000 } else { random / 4 % 50 };
                std::thread::sleep(Duration::from_micros(wait));
            }
        });
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(700) {
            let failed = attack.export_here().is_err();
            counts[usize::from(failed)] += 1;
            attack.forget_some();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    counts
}

#[test]
fn what_is_swapped_in_the_midst_of_an_export_is_not_followed() {
    let mut sums = [0; 2];
    for (seed, folder) in (1..).zip(FOLDERS.iter().copied().chain(["."])) {
        for obstacle in [Obstacle::LinkToFolder, Obstacle::LinkOfRoot] {
            let attack = Attack::new();
            attack.export_here().expect("exports");
            let place = if folder == "." { attack.project() } else { attack.project().join(folder) };
            let counts = race(&attack, &place, obstacle, u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
            attack.assert_nothing_outside();
            sums = [sums[0] + counts[0], sums[1] + counts[1]];
        }
    }
    // Else nothing was raced with.
    assert!(sums[0] > 20 && sums[1] > 20, "{sums:?}");
}

#[test]
fn files_swapped_in_the_midst_of_an_export_are_not_followed() {
    for index in 0..FILES {
        for obstacle in [Obstacle::LinkToFile, Obstacle::HardLink, Obstacle::LinkToNothing, Obstacle::Pipe] {
            let attack = Attack::new();
            attack.export_here().expect("exports");
            let [succeeded, failed] = race(&attack, &attack.files()[index].clone(), obstacle, index as u64 + 1);
            attack.assert_nothing_outside();
            assert!(succeeded + failed > 5, "{succeeded} and {failed} exports");
        }
    }
}

#[test]
fn unfinished_files_that_are_swapped_are_not_written_through() {
    let attack = Attack::new();
    attack.export_here().expect("exports");
    let done = std::sync::atomic::AtomicBool::new(false);
    let mut swapped = 0;
    let mut exports = 0;
    std::thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            let mut swapped = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for folder in [attack.cache(), attack.cache().join("nar")] {
                    for name in support::names(&folder).iter().filter(|name| name.starts_with(".tmp-")) {
                        let path = folder.join(name);
                        let _ = fs::remove_file(&path);
                        let put = if swapped % 2 == 0 {
                            symlink(attack.outside().join("secret"), &path)
                        } else {
                            attack.hard_link(&path)
                        };
                        swapped += usize::from(put.is_ok());
                    }
                }
            }
            swapped
        });
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            let _ = attack.export_here();
            exports += 1;
            attack.forget_some();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        swapped = attacker.join().expect("no panic");
    });
    attack.assert_nothing_outside();
    assert!(swapped > 3, "{swapped} swapped in {exports} exports");
}

#[test]
fn the_names_of_unfinished_files_can_t_be_guessed_nor_put_there_before() {
    let attack = Attack::new();
    let names: Vec<String> = (0..4)
        .map(|_| {
            let folder = stowage::cache::beneath::Folder::open_or_make(&attack.cache()).expect("opens");
            let kept = folder.temporary().expect("made");
            let name = support::names(&attack.cache()).into_iter().find(|name| name.starts_with(".tmp-"));
            drop(kept);
            name.expect("there")
        })
        .collect();
    for name in &names {
        assert_eq!(name.len(), ".tmp-".len() + 32, "128 bits: {name}");
        assert_eq!(names.iter().filter(|other| *other == name).count(), 1);
    }
}

#[test]
fn what_root_had_before_is_not_given_away() {
    let attack = Attack::new();
    fs::create_dir(attack.cache()).expect("made");
    std::os::unix::fs::chown(attack.cache(), Some(USER), Some(USER)).expect("given away");
    // Empty folders of root's, as a container's volume may be; the user may rename
    // one, since what is around it is his.
    let decoy = attack.project().join("volume");
    let done = std::sync::atomic::AtomicBool::new(false);
    let is_given = |decoy: &fs::File| decoy.metadata().expect("open").uid() != 0;
    let (mut made, mut given, mut swapped) = (0, 0, 0);
    std::thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            let (mut made, mut given, mut swapped) = (0, 0, 0);
            let mut decoys = std::collections::VecDeque::new();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                if fs::create_dir(&decoy).is_ok() {
                    decoys.push_back(fs::File::open(&decoy).expect("opens"));
                    made += 1;
                }
                // Nobody looks at the oldest any more, and only so many files can be open.
                while decoys.len() > 500 {
                    given += decoys.pop_front().iter().filter(|decoy| is_given(decoy)).count();
                }
                // As soon as the folder is made, the other takes its place.
                let folder = attack.cache().join("nar");
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    if rustix::fs::renameat_with(CWD, &decoy, CWD, &folder, RenameFlags::EXCHANGE).is_ok() {
                        swapped += 1;
                        break;
                    }
                }
                // It is not the decoy by now.
                let _ = fs::remove_dir(&decoy);
            }
            (made, given + decoys.iter().filter(|decoy| is_given(decoy)).count(), swapped)
        });
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            let _ = stowage::cache::CacheFolder::open(attack.cache(), &stowage::store::StoreDir::default());
            let _ = fs::remove_dir(attack.cache().join("nar"));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        (made, given, swapped) = attacker.join().expect("no panic");
    });
    attack.assert_nothing_outside();
    assert!(swapped > 10 && made > 10, "{swapped}");
    assert_eq!(given, 0, "of {made} folders");
}

#[test]
fn a_set_gid_folder_hands_no_right_on() {
    let attack = Attack::new();
    fs::create_dir(attack.cache()).expect("made");
    std::os::unix::fs::chown(attack.cache(), Some(USER), Some(4)).expect("given away");
    attack.set_mode(&attack.cache(), 0o2775);
    attack.export(Who::Root).expect("exports");
    attack.assert_nothing_outside();
    attack.walk(&attack.cache(), &mut |path| {
        let data = path.symlink_metadata().expect("there");
        let expected = if path == attack.cache() {
            0o2775
        } else if data.is_dir() {
            0o755
        } else {
            0o644
        };
        assert_eq!((data.mode() & 0o7777, data.uid(), data.gid()), (expected, USER, 4), "{}", path.display());
    });
}

#[test]
fn all_of_this_holds_without_openat2() {
    for error in ["ENOSYS", "EPERM"] {
        for obstacle in [None, Some(Obstacle::LinkToFolder), Some(Obstacle::LinkOfRoot)] {
            let attack = Attack::new();
            attack.export(Who::User).expect("exports");
            if let Some(obstacle) = obstacle {
                attack.replace(&attack.cache().join("nar"), obstacle);
            }
            attack.forget_some();
            let succeeded = attack.export_without_openat2(error);
            assert_eq!(succeeded, obstacle.is_none(), "{error}, {obstacle:?}");
            attack.assert_nothing_outside();
        }
        for index in 0..FILES {
            let attack = Attack::new();
            attack.export(Who::User).expect("exports");
            attack.replace(&attack.files()[index], Obstacle::LinkToFile);
            assert!(attack.export_without_openat2(error), "{index}");
            attack.assert_nothing_outside();
            attack.assert_whole();
        }
    }
}
