//! Tests of caches in buckets, where others write at the same time.

mod races;

use std::sync::Mutex;
use std::time::Duration;

use super::super::check::{self, check};
use super::super::gc::{self, collect};
use super::super::sign::Keys;
use super::super::sign::tests::KEY;
use super::super::{CacheError, Options, Place, export, narinfo, usage};
use crate::nar;
use crate::registry::tests::server::Reply;
use crate::s3::S3Error;
use crate::s3::tests::bucket::Objects;
use crate::store::closure::tests::path;
use crate::store::{Closure, PathInfo, StoreDir, StorePath};
use crate::tree::StoreFiles;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A store with the paths a, and b that refers to it.
struct Store {
    _folder: tempfile::TempDir,
    files: StoreFiles,
    closure: Closure,
}

impl Store {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (a, b) = (path('a', "a"), path('b', "b"));
        std::fs::write(folder.path().join(a.to_basename()), "one").expect("written");
        std::fs::write(folder.path().join(b.to_basename()), format!("two, with {}", a.to_absolute_path()))
            .expect("written");
        let files = StoreFiles::open(folder.path()).expect("opens");
        let info = |path: &StorePath, references: &[&StorePath]| {
            let nar = nar::measure(&files, &files.walk(path).expect("walks")).expect("readable");
            let references = references.iter().map(|path| (*path).clone()).collect();
            PathInfo::new(path.clone(), nar.hash, nar.size, references)
        };
        let infos = vec![info(&a, &[]), info(&b, &[&a])];
        let closure = Closure::new(&StoreDir::default(), infos, None).expect("closed");
        Self { _folder: folder, files, closure }
    }

    fn add(&self, place: &Place, keys: &str) -> Result<super::super::Summary, CacheError> {
        let keys = Keys::parse_all(keys).expect("keys");
        export(&self.files, &self.closure, place, &Options { keys, ..Options::new(2) })
    }

    fn narinfo(&self, letter: char) -> String {
        narinfo::file_name(&path(letter, &letter.to_string()))
    }
}

fn options(days: u32) -> gc::Options {
    gc::Options { max_age: Some(DAY * days), ..gc::Options::default() }
}

fn place(client: crate::s3::Client) -> Place {
    Place::Bucket(client)
}

fn is_sound(place: &Place) {
    let report = check(place, &StoreDir::default(), check::Options { deep: true, jobs: 2 }).expect("checks");
    assert!(report.quarantined.is_empty() && report.incomplete == 0, "{report:?}");
}

#[test]
fn what_is_begun_is_said_first_and_references_come_before_what_needs_them() {
    let store = Store::new();
    let (server, client, objects) = Objects::start(|_, _| None);
    let place = place(client);
    assert_eq!(store.add(&place, KEY).expect("exports").added, 2);
    let lines = server.lines();
    let at = |begin: &str| lines.iter().position(|line| line.starts_with(begin)).expect(begin);
    let (a, b) = (store.narinfo('a'), store.narinfo('b'));
    assert!(at("PUT /cache/stowage/begun/") < at(&format!("GET /cache/{a}")));
    assert!(at("PUT /cache/nar/") < at(&format!("PUT /cache/{a}")));
    assert!(at(&format!("PUT /cache/{a}")) < at(&format!("PUT /cache/{b}")));
    assert!(at(&format!("PUT /cache/{b}")) < at("DELETE /cache/stowage/begun/"));
    assert_eq!((objects.keys("stowage/used/").len(), objects.keys("stowage/begun/").len()), (1, 0));
    assert_eq!(store.add(&place, KEY).expect("exports").skipped, 2);
    is_sound(&place);
}

#[test]
fn of_two_who_write_the_same_both_signatures_are_kept() {
    let store = Store::new();
    let first: Mutex<Option<String>> = Mutex::default();
    // Just when the second one writes, the first one's narinfo is there.
    let before = move |line: &str, objects: &Objects| {
        let mut first = first.lock().expect("no panic");
        match (line.strip_prefix("PUT "), &*first) {
            (Some(key), None) if key.ends_with(".narinfo") && objects.keys("earlier/").len() == 2 => {
                let text = objects.text(&format!("earlier/{key}"));
                objects.put(key, text.as_bytes());
                *first = Some(text);
            }
            _ => {}
        }
        None
    };
    let (_server, client, objects) = Objects::start(before);
    let place = place(client);
    store.add(&place, KEY).expect("exports");
    for key in objects.keys("").into_iter().filter(|key| key.ends_with(".narinfo")) {
        let text = objects.text(&key);
        objects.lock().remove(&key);
        objects.put(&format!("earlier/{key}"), text.as_bytes());
    }
    assert_eq!(store.add(&place, &KEY.replace("key-1", "key-2")).expect("exports").added, 2);
    let signers = |key: &str| {
        let text = objects.text(key);
        text.lines()
            .filter_map(|line| Some(line.strip_prefix("Sig: ")?.split(':').next()?.to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(signers(&store.narinfo('a')), ["key-1", "key-2"]);
    assert_eq!(signers(&store.narinfo('b')), ["key-2"]);
}

#[test]
fn what_is_damaged_in_the_store_never_appears() {
    let mut store = Store::new();
    let mut infos = store.closure.infos().to_vec();
    infos[0].nar_hash = infos[1].nar_hash;
    store.closure = Closure::new(&StoreDir::default(), infos, None).expect("closed");
    let (server, client, objects) = Objects::start(|_, _| None);
    assert!(matches!(store.add(&place(client), KEY), Err(CacheError::Refused { .. })));
    assert!(!objects.keys("").iter().any(|key| key.ends_with(".narinfo")), "{:?}", objects.keys(""));
    // That of b is what its name says, and serves again.
    assert!(objects.keys("nar/").len() <= 1);
    assert!(server.count("PUT /cache/nar/") <= 1);
    // What it found may be needed by what it added: gc hears of it for a day.
    assert_eq!(objects.keys("stowage/begun/").len(), 1);
}

#[test]
fn a_nar_that_nobody_named_for_long_is_written_anew() {
    let store = Store::new();
    let (server, client, objects) = Objects::start(|_, _| None);
    let place = place(client);
    store.add(&place, KEY).expect("exports");
    for (days, written) in [(0, 2), (1, 4)] {
        objects.age(days);
        objects.lock().retain(|key, _| !key.ends_with(".narinfo"));
        assert_eq!(store.add(&place, KEY).expect("exports").added, 2);
        assert_eq!(server.count("PUT /cache/nar/"), written, "{days}");
    }
}

#[test]
fn gc_leaves_alone_what_is_new() {
    let store = Store::new();
    let (_server, client, objects) = Objects::start(|_, _| None);
    let place = place(client);
    store.add(&place, KEY).expect("exports");
    let report =
        collect(&place, &StoreDir::default(), &gc::Options { max_size: Some(1), ..options(0) }).expect("collects");
    assert!(report.removed.is_empty() && report.other_files == 0);
    // It was written long ago, and an export has found it just now.
    objects.age(9);
    assert_eq!(store.add(&place, KEY).expect("exports").skipped, 2);
    assert!(collect(&place, &StoreDir::default(), &options(1)).expect("collects").removed.is_empty());
    objects.age(9);
    let report = collect(&place, &StoreDir::default(), &options(1)).expect("collects");
    let names: Vec<&str> = report.removed.iter().map(StorePath::name).collect();
    assert_eq!(names, ["b", "a"], "what is needed goes last");
    assert_eq!(objects.keys("").iter().filter(|key| !key.starts_with("stowage/")).count(), 1, "nix-cache-info");
}

#[test]
fn what_somebody_begins_with_while_gc_deletes_comes_back() {
    let store = Store::new();
    let claim = Mutex::new(None);
    let own = std::sync::Arc::new(claim);
    let shared = std::sync::Arc::clone(&own);
    let before = move |line: &str, objects: &Objects| {
        // He has looked, and found what is going.
        if line.starts_with("DELETE ")
            && line.ends_with(".narinfo")
            && let Some(record) = shared.lock().expect("no panic").take()
        {
            let record: Vec<u8> = record;
            objects.put("stowage/begun/9-x", &record);
        }
        None
    };
    let (_server, client, objects) = Objects::start(before);
    let place = place(client);
    store.add(&place, KEY).expect("exports");
    let record = objects.text(&objects.keys("stowage/used/")[0]);
    let of_a: String = record
        .lines()
        .filter(|line| !line.starts_with(&store.narinfo('b')[..32]))
        .map(|line| format!("{line}\n"))
        .collect();
    let before = objects.text(&store.narinfo('a'));
    objects.age(9);
    *own.lock().expect("no panic") = Some(of_a.into_bytes());
    let report = collect(&place, &StoreDir::default(), &options(1)).expect("collects");
    assert_eq!(report.removed.iter().map(StorePath::name).collect::<Vec<_>>(), ["b"]);
    assert_eq!(objects.text(&store.narinfo('a')), before);
    assert_eq!(objects.keys("nar/").len(), 1);
    is_sound(&place);
}

#[test]
fn a_nar_that_is_written_again_while_gc_deletes_stays() {
    let store = Store::new();
    let before = |line: &str, objects: &Objects| {
        if line.starts_with("DELETE ") && line.ends_with(".narinfo") {
            for key in objects.keys("nar/") {
                let bytes = objects.lock().get(&key).expect("there").0.clone();
                objects.put(&key, &bytes);
            }
        }
        None
    };
    let (_server, client, objects) = Objects::start(before);
    let place = place(client);
    store.add(&place, KEY).expect("exports");
    objects.age(9);
    assert_eq!(collect(&place, &StoreDir::default(), &options(1)).expect("collects").removed.len(), 2);
    assert_eq!(objects.keys("nar/").len(), 2);
}

#[test]
fn records_of_use_become_one() {
    let store = Store::new();
    let (_server, client, objects) = Objects::start(|_, _| None);
    let place = place(client);
    for _ in 0..3 {
        store.add(&place, KEY).expect("exports");
    }
    assert_eq!(objects.keys("stowage/used/").len(), 3);
    collect(&place, &StoreDir::default(), &options(1)).expect("collects");
    assert_eq!(objects.keys("stowage/used/").len(), 1);
    let used = usage::read(&place.open().expect("opens")).expect("reads");
    assert_eq!(used.len(), 2);
}

#[test]
fn a_server_that_fails_is_no_damage_of_the_cache() {
    let store = Store::new();
    // What is answered for NARs: all is well at first.
    type Answers = Vec<fn(&[u8]) -> Reply>;
    let answers: std::sync::Arc<Mutex<Answers>> = std::sync::Arc::default();
    let own = std::sync::Arc::clone(&answers);
    let before = move |line: &str, objects: &Objects| {
        let key = line.strip_prefix("GET ").filter(|key| key.starts_with("nar/"))?;
        let answer = own.lock().expect("no panic").pop()?;
        Some(answer(&objects.lock().get(key).expect("there").0.clone()))
    };
    let (_server, client, objects) = Objects::start(before);
    let place = place(client);
    store.add(&place, KEY).expect("exports");
    let keys = objects.keys("");
    let refuse = |_: &[u8]| Reply::of(403).body("<Error><Code>AccessDenied</Code></Error>");
    let break_off = |bytes: &[u8]| Reply::of(200).header("etag", "\"t\"").body(bytes).cut(9);
    // At once, and when a part was read.
    for next in [vec![refuse as fn(&[u8]) -> Reply; 2], vec![refuse, break_off]] {
        *answers.lock().expect("no panic") = next;
        let result = check(&place, &StoreDir::default(), check::Options { deep: true, jobs: 1 });
        let Err(CacheError::Shelf(super::super::shelf::ShelfError::Bucket(S3Error::Denied { .. }))) = result else {
            panic!("{result:?}");
        };
        assert_eq!(objects.keys(""), keys);
    }
}

#[test]
fn what_is_added_while_a_check_looks_is_not_missing() {
    let store = Store::new();
    let own = store.narinfo('a');
    let taken = Mutex::new(Some(None));
    // It is added between two pages of the list.
    let before = move |line: &str, objects: &Objects| {
        let mut taken = taken.lock().expect("no panic");
        let is_list = line == "GET " && !objects.keys("ready").is_empty();
        match &*taken {
            Some(None) if is_list => *taken = Some(Some(objects.lock().remove(&own).expect("there"))),
            Some(Some(object)) if line.ends_with(".narinfo") => {
                objects.lock().insert(own.clone(), object.clone());
                *taken = None;
            }
            _ => {}
        }
        None
    };
    let (server, client, objects) = Objects::start(before);
    let place = place(client);
    store.add(&place, KEY).expect("exports");
    objects.put("ready", b"");
    let begin = server.asked().len();
    let report = check(&place, &StoreDir::default(), check::Options { deep: false, jobs: 1 }).expect("checks");
    assert_eq!((report.narinfos, report.incomplete, report.quarantined.len()), (2, 0, 0));
    // And what was used is read before what is there.
    let lines = server.lines().split_off(begin);
    let at = |part: &str| lines.iter().position(|line| line.contains(part)).expect(part);
    assert!(at("/cache/stowage/used/") < at(".narinfo"));
}

#[test]
fn what_is_damaged_is_put_aside_and_nothing_is_replaced_there() {
    let store = Store::new();
    let (_server, client, objects) = Objects::start(|_, _| None);
    let place = place(client);
    store.add(&place, KEY).expect("exports");
    let name = store.narinfo('b');
    for _ in 0..2 {
        objects.put(&name, b"StorePath: /nix");
        let report = check(&place, &StoreDir::default(), check::Options { deep: true, jobs: 2 }).expect("checks");
        assert_eq!(report.quarantined.len(), 1);
        assert!(!objects.keys("").contains(&name));
    }
    assert_eq!(objects.keys("quarantine/"), [format!("quarantine/{name}"), format!("quarantine/{name}.1")]);
    assert_eq!(store.add(&place, KEY).expect("exports").added, 1);
    is_sound(&place);
}

#[test]
fn no_name_leads_out_of_the_bucket() {
    let (server, client, objects) = Objects::start(|_, _| None);
    let bucket = super::Bucket::new(client);
    for name in ["", ".", "..", "../other", "a/b", "/"] {
        assert!(bucket.below(name).is_err() && bucket.head(name).is_err(), "{name:?}");
        assert!(bucket.write(name, b"", &crate::s3::Condition::Always).is_err(), "{name:?}");
    }
    assert!(server.lines().is_empty());
    // A folder made by hand, and what only a forger writes.
    for key in ["nar/", "nar/..", "nar/a"] {
        objects.put(key, b"x");
    }
    let names = bucket.below("nar").expect("a name").entries().expect("listed");
    assert_eq!(names.iter().map(|entry| entry.name.to_str()).collect::<Vec<_>>(), [Some("a")]);
    // Letters that mean something in URLs mean nothing here.
    let name = "sha256:0?a=b#c%2e&d+e!out.doi";
    bucket.write(name, b"x", &crate::s3::Condition::Always).expect("written");
    assert!(objects.keys("").contains(&name.to_owned()), "{:?}", objects.keys(""));
}
