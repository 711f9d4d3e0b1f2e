//! What `cache check`, `cache gc` and `cache info` do to caches that Nix and
//! stowage have written.
#![expect(clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

mod scratch;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use scratch::{Scratch, assert_whole, chain, run, snapshot};
use stowage::cache::Place;
use stowage::cache::check::{self, Fault, Report, check};
use stowage::cache::{CacheError, Options, export, export_selected, gc, usage};
use stowage::store::{StoreDir, StorePath};

const STOWAGE: &str = env!("CARGO_BIN_EXE_stowage");
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A scratch with a chain of `count` paths in the cache `cache`.
fn cached(count: usize) -> (Scratch, StorePath) {
    let scratch = Scratch::new();
    let root = scratch.build(&chain(count, 3000));
    add(&scratch, &root);
    (scratch, root)
}

fn add(scratch: &Scratch, root: &StorePath) {
    let closure = scratch.closure(root);
    export(&scratch.files(), &closure, scratch.path("cache"), &Options::new(2)).expect("exports");
}

fn checked(scratch: &Scratch, cache: &str, deep: bool) -> Report {
    check(scratch.path(cache), &scratch.location().store_dir, check::Options { deep, jobs: 2 }).expect("checks")
}

fn narinfo(scratch: &Scratch, path: &StorePath) -> PathBuf {
    scratch.path("cache").join(format!("{}.narinfo", &path.to_basename()[..32]))
}

/// The NAR that a narinfo names.
fn nar(narinfo: &Path) -> PathBuf {
    let text = fs::read_to_string(narinfo).expect("readable");
    let url = text.lines().find_map(|line| line.strip_prefix("URL: ")).expect("a URL");
    narinfo.with_file_name("").join(url)
}

fn faults(report: &Report) -> Vec<&Fault> {
    report.quarantined.iter().map(|bad| &bad.fault).collect()
}

#[test]
fn a_sound_cache_keeps_every_time() {
    let (scratch, root) = cached(4);
    let cache = scratch.path("cache");
    let before = snapshot(&cache);
    add(&scratch, &root);
    for deep in [false, true] {
        let report = checked(&scratch, "cache", deep);
        assert!(report.narinfos == 4 && report.incomplete == 0 && report.repaired.is_empty());
        assert_eq!(faults(&report), [&Fault::Empty; 0]);
    }
    for arguments in
        [&["info"][..], &["gc", "--max-size", "1G", "--keep-days", "7"], &["gc", "--max-size", "1", "--dry-run"]]
    {
        run(scratch.command(STOWAGE).args(["cache", arguments[0]]).arg(&cache).args(&arguments[1..]));
    }
    assert_eq!(snapshot(&cache), before);
}

#[test]
fn each_compression_is_read_and_damage_in_it_found() {
    for compression in ["none", "xz", "zstd", "gzip", "bzip2"] {
        let (scratch, root) = cached(3);
        let cache = scratch.path("by-nix");
        let url = format!("file://{}?compression={compression}", cache.display());
        run(scratch.command("nix").args(["copy", "--to", &url]).arg(scratch.location().print(&root)));
        let report = checked(&scratch, "by-nix", true);
        assert_eq!((report.narinfos, report.unknown, faults(&report).len()), (3, 0, 0), "{compression}");

        let narinfo = cache.join(narinfo(&scratch, &root).file_name().expect("a name"));
        let nar = nar(&narinfo);
        let mut bytes = fs::read(&nar).expect("readable");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&nar, &bytes).expect("written");
        assert!(checked(&scratch, "by-nix", false).quarantined.is_empty());
        let report = checked(&scratch, "by-nix", true);
        assert!(
            matches!(faults(&report)[..], [one, other] if one.is_of_nar() && one == other),
            "{compression}: {report:?}"
        );
        assert!(!narinfo.exists() && !nar.exists());
        assert_eq!(fs::read(cache.join(&report.quarantined[1].place)).expect("kept"), bytes);
    }
}

#[test]
fn what_is_quarantined_is_exported_again() {
    let (scratch, root) = cached(3);
    let file = narinfo(&scratch, &root);
    let whole = fs::read(&file).expect("readable");
    for round in 0..2 {
        fs::write(&file, &whole[..whole.len() / 2]).expect("written");
        let report = checked(&scratch, "cache", false);
        assert!(matches!(faults(&report)[..], [Fault::Malformed(_)]), "{report:?}");
        let place = if round == 0 { String::new() } else { format!(".{round}") };
        assert!(report.quarantined[0].place.ends_with(&format!(".narinfo{place}")), "{report:?}");
        add(&scratch, &root);
        assert_eq!(assert_whole(&scratch.path("cache"), &scratch.location().store_dir), 3);
    }
}

#[test]
fn links_are_moved_and_never_followed() {
    let (scratch, root) = cached(2);
    let (cache, outside) = (scratch.path("cache"), scratch.path("outside"));
    fs::create_dir(&outside).expect("made");
    symlink(&outside, cache.join("quarantine")).expect("linked");
    fs::rename(cache.join("nar"), outside.join("nar")).expect("moved");
    symlink(outside.join("nar"), cache.join("nar")).expect("linked");
    fs::remove_file(narinfo(&scratch, &root)).expect("removed");
    fs::write(outside.join("file"), "somebody else's").expect("written");
    symlink(outside.join("file"), narinfo(&scratch, &root)).expect("linked");
    let report = checked(&scratch, "cache", true);
    assert_eq!(report.quarantined.len(), 3, "{report:?}");
    assert!(cache.join("nar").symlink_metadata().expect("made again").is_dir());
    assert!(cache.join("quarantine/nar").symlink_metadata().expect("moved").is_symlink());
    assert!(cache.join("quarantine.1").symlink_metadata().expect("moved").is_symlink());
    assert_eq!(fs::read_dir(&outside).expect("a folder").count(), 2);
    assert_eq!(fs::read_to_string(outside.join("file")).expect("there"), "somebody else's");
    assert!(checked(&scratch, "cache", true).quarantined.is_empty());
}

#[test]
fn forged_narinfos_do_not_pass() {
    let (scratch, root) = cached(3);
    let file = narinfo(&scratch, &root);
    let text = fs::read_to_string(&file).expect("readable");
    let size = text.lines().find(|line| line.starts_with("FileSize")).expect("a size");
    // A bomb, by what it claims to be: zeros, and a file of zeros.
    let token = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let padded = |text: &str| [token(text), vec![0; text.len().next_multiple_of(8) - text.len()]].concat();
    let head: Vec<u8> =
        ["nix-archive-1", "(", "type", "regular", "contents"].iter().flat_map(|text| padded(text)).collect();
    for start in [Vec::new(), [head, (1_u64 << 30).to_le_bytes().to_vec()].concat()] {
        let zeros = std::io::Read::take(std::io::repeat(0), 1 << 30);
        let bomb = zstd::encode_all(std::io::Read::chain(&start[..], zeros), 1).expect("memory");
        fs::write(nar(&file), &bomb).expect("written");
        fs::write(&file, text.replace(size, &format!("FileSize: {}", bomb.len()))).expect("written");
        let report = checked(&scratch, "cache", true);
        match faults(&report)[..] {
            [Fault::NarUnreadable(_), Fault::NarUnreadable(_)] if start.is_empty() => {}
            [Fault::NarSize(_), Fault::NarSize(_)] if !start.is_empty() => {}
            _ => panic!("{report:?}"),
        }
        add(&scratch, &root);
    }

    let text = fs::read_to_string(&file).expect("there again");
    fs::write(&file, text.replace("References: ", &format!("References: {}-x ", "a".repeat(32)))).expect("written");
    assert_eq!(checked(&scratch, "cache", false).incomplete, 1);
    let report = checked(&scratch, "cache", true);
    assert!(matches!(faults(&report)[..], [Fault::Reference(_)]), "{report:?}");

    add(&scratch, &root);
    let text = fs::read_to_string(&file).expect("there again");
    fs::write(&file, text.replace("-n1", "-n9")).expect("written");
    let report = checked(&scratch, "cache", false);
    assert!(matches!(faults(&report)[..], [Fault::OtherName(_)]), "{text} {report:?}");

    add(&scratch, &root);
    let leaf = scratch.closure(&root).infos().iter().find(|info| info.path.name() == "n0").expect("there").path.clone();
    let text = fs::read_to_string(narinfo(&scratch, &leaf)).expect("readable");
    let circle = text.replace("References: ", &format!("References: {} ", root.to_basename()));
    fs::write(narinfo(&scratch, &leaf), circle).expect("written");
    assert_eq!(faults(&checked(&scratch, "cache", false)), [&Fault::Cycle; 3]);
}

#[test]
fn what_an_export_left_out_is_not_lost_and_what_is_deleted_is() {
    let expression = r#"let
        common = { system = builtins.currentSystem; builder = "/bin/sh"; };
        two = derivation (common // {
            name = "two"; outputs = [ "out" "lib" ]; args = [ "-c" "echo lib > $lib; echo out > $out" ];
        });
      in derivation (common // { name = "top"; args = [ "-c" "echo ${two} ${two.lib} > $out" ]; })"#;
    let scratch = Scratch::new();
    let root = scratch.build(expression);
    let closure = scratch.closure(&root);
    for left_out in ["two", "two-lib", "none"] {
        let cache = scratch.path(left_out);
        let wanted = |id| closure.info(id).path.name() != left_out;
        export_selected(&scratch.files(), &closure, &wanted, &cache, &Options::new(2)).expect("exports");
        let before = snapshot(&cache);
        let report = checked(&scratch, left_out, true);
        assert_eq!((report.quarantined.len(), snapshot(&cache) == before), (0, true), "{left_out}: {report:?}");
    }
    let two = closure.infos().iter().find(|info| info.path.name() == "two").expect("there");
    let name = format!("{}.narinfo", &two.path.to_basename()[..32]);
    fs::remove_file(scratch.path("none").join(name)).expect("removed");
    let report = checked(&scratch, "none", false);
    assert!(matches!(faults(&report)[..], [Fault::Sibling(_)]), "{report:?}");
}

#[test]
fn a_cache_of_another_store_is_left_alone() {
    let (scratch, _) = cached(2);
    let before = snapshot(&scratch.path("cache"));
    let options = check::Options { deep: false, jobs: 1 };
    let result = check(scratch.path("cache"), &StoreDir::default(), options);
    assert!(matches!(result, Err(CacheError::StoreDir { .. })));
    assert_eq!(snapshot(&scratch.path("cache")), before);
    // Where the paths are right, it is the info that is wrong.
    fs::write(scratch.path("cache/nix-cache-info"), "StoreDir: /gnu/store\n").expect("written");
    let report = checked(&scratch, "cache", false);
    assert_eq!((report.quarantined.len(), report.repaired), (1, vec!["nix-cache-info".to_owned()]));
}

#[test]
fn damage_is_no_failure_unless_asked() {
    let (scratch, root) = cached(2);
    fs::write(narinfo(&scratch, &root), "").expect("written");
    let mut strict = scratch.command(STOWAGE);
    let output = strict.args(["cache", "check", "--strict", "cache"]).output().expect("runs");
    assert_eq!(output.status.code(), Some(8));
    assert!(run(scratch.command(STOWAGE).args(["cache", "check", "--strict", "cache"])).stderr.is_empty());
    fs::write(scratch.path("cache/nix-cache-info"), "").expect("written");
    let output = run(scratch.command(STOWAGE).args(["cache", "check", "cache", "--json"]));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(value["quarantined"][0]["file"], "nix-cache-info");
    assert_eq!(value["quarantined"][0]["fault"], "empty");
    let none = run(scratch.command(STOWAGE).args(["cache", "check", "none"]));
    assert_eq!(none.stdout, b"0 narinfos, 0 files quarantined\n");
}

#[test]
fn what_was_used_lately_stays_with_all_it_needs() {
    let (scratch, root) = cached(6);
    let cache = scratch.path("cache");
    let store_dir = scratch.location().store_dir;
    let record = fs::read_to_string(cache.join("stowage/used")).expect("recorded");
    assert_eq!(record.lines().count(), 7);
    // All is old, and n3 was used.
    let old = SystemTime::now() - 40 * DAY;
    for entry in fs::read_dir(&cache).expect("a cache") {
        let path = entry.expect("readable").path();
        if path.extension().is_some_and(|extension| extension == "narinfo") {
            fs::File::open(path).and_then(|file| file.set_modified(old)).expect("set");
        }
    }
    fs::remove_file(cache.join("stowage/used")).expect("removed");
    let infos = scratch.closure(&root).infos().to_vec();
    let find = |name: &str| infos.iter().find(|info| info.path.name() == name).expect("there").path.clone();
    let orphan = cache.join("nar/0000.nar.zst");
    fs::write(&orphan, "").expect("written");
    let options = gc::Options { max_age: Some(30 * DAY), keep: vec![find("n3")], ..gc::Options::default() };
    let report = gc::collect(&cache, &store_dir, &options).expect("collects");
    let names: Vec<&str> = report.removed.iter().map(StorePath::name).collect();
    assert!(names.len() == 2 && names.contains(&"n4") && names.contains(&"n5"), "{names:?}");
    assert_eq!((assert_whole(&cache, &store_dir), report.before), (4, 6));
    assert!(orphan.exists(), "somebody may be about to name it");
    fs::File::open(&orphan).and_then(|file| file.set_modified(old)).expect("set");

    let half = gc::collect(&cache, &store_dir, &gc::Options { max_size: Some(report.size), ..gc::Options::default() });
    assert!(half.expect("collects").removed.is_empty() && !orphan.exists());
    let size = |limit| gc::Options { max_size: Some(limit), ..gc::Options::default() };
    let report = gc::collect(&cache, &store_dir, &size(report.size - 4000)).expect("collects");
    assert_eq!(assert_whole(&cache, &store_dir) + report.removed.len(), 4);
    assert!(report.size <= report.size_before - 4000 && !report.removed.is_empty());
    add(&scratch, &root);
    assert_eq!(assert_whole(&cache, &store_dir), 6);
}

#[test]
fn use_is_noted_once_a_week_and_only_of_what_is_there() {
    let scratch = Scratch::new();
    let root = scratch.build(&chain(3, 1000));
    add(&scratch, &root);
    let cache = scratch.path("cache");
    let folder = Place::from(&cache).open().expect("opens");
    let mut paths: Vec<StorePath> = scratch.closure(&root).infos().iter().map(|info| info.path.clone()).collect();
    paths.push(StorePath::from_basename(b"00000000000000000000000000000000-elsewhere").expect("a name"));
    let before = snapshot(&cache);
    usage::refresh(&folder, &paths).expect("reads");
    assert_eq!(snapshot(&cache), before, "all of it was just recorded");

    let now = usage::seconds(SystemTime::now());
    for (days, is_noted) in [(6, false), (8, true)] {
        let mut used = usage::read(&folder).expect("reads");
        let one = used.values_mut().next().expect("a record");
        let time = now - days * DAY.as_secs();
        one.time = time;
        let deriver = one.deriver.clone();
        usage::write(&folder, &used).expect("writes");
        usage::refresh(&folder, &paths).expect("writes");
        let used = usage::read(&folder).expect("reads");
        let one = used.values().next().expect("a record");
        assert_eq!((one.time != time, &one.deriver), (is_noted, &deriver), "{days}");
        assert_eq!(used.len(), 3);
    }
    // The job that is under way uses it now, whatever was recorded.
    let options = gc::Options { max_age: Some(Duration::ZERO), used: vec![root], ..gc::Options::default() };
    std::thread::sleep(Duration::from_millis(1100));
    let report = gc::collect(&cache, &scratch.location().store_dir, &options).expect("collects");
    assert_eq!((report.removed.len(), report.before), (0, 3));
}
