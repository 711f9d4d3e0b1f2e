//! What others do with a bucket just when gc or check is at work there.

use std::ffi::OsStr;
use std::sync::Arc;

use super::*;
use crate::cache::gc::lease::Lease;

/// What is recorded of the path of that letter.
fn record_of(store: &Store, objects: &Objects, letter: char) -> Vec<u8> {
    let record = objects.text(&objects.keys("stowage/used/")[0]);
    let hash = store.narinfo(letter)[..32].to_owned();
    let lines = record.lines().filter(|line| line.starts_with("stowage-used") || line.starts_with(&hash));
    lines.map(|line| format!("{line}\n")).collect::<String>().into_bytes()
}

fn is_narinfo_gone(line: &str) -> bool {
    line.starts_with("DELETE ") && line.ends_with(".narinfo")
}

/// A bucket with the store's paths that were written long ago; `before` gets a record of the path
/// of that letter, too.
fn old_bucket(
    store: &Store,
    letter: char,
    before: impl Fn(&str, &Objects, &[u8]) -> Option<Reply> + Send + Sync + 'static,
) -> (crate::registry::tests::server::Server, Place, Objects) {
    let record: Arc<Mutex<Vec<u8>>> = Arc::default();
    let own = Arc::clone(&record);
    let before = move |line: &str, objects: &Objects| {
        let record = own.lock().expect("no panic").clone();
        if record.is_empty() { None } else { before(line, objects, &record) }
    };
    let (server, client, objects) = Objects::start(before);
    let place = place(client);
    store.add(&place, KEY).expect("exports");
    let text = record_of(store, &objects, letter);
    objects.age(9);
    *record.lock().expect("no panic") = text;
    (server, place, objects)
}

fn removed(result: Result<gc::Report, CacheError>) -> Vec<String> {
    result.expect("collects").removed.iter().map(|path| path.name().to_owned()).collect()
}

#[test]
fn whoever_ends_while_gc_reads_what_was_begun_is_heard() {
    let store = Store::new();
    // Between any two of its lists.
    for moment in 0..4 {
        let lists = Mutex::new(None);
        let before = move |line: &str, objects: &Objects, record: &[u8]| {
            let mut lists = lists.lock().expect("no panic");
            if is_narinfo_gone(line) && lists.is_none() {
                objects.put("stowage/begun/9-x", record);
                *lists = Some(0);
            } else if let (true, Some(count)) = (line == "GET ", lists.as_mut()) {
                if *count == moment {
                    objects.put("stowage/used/9-y", record);
                    objects.lock().remove("stowage/begun/9-x");
                }
                *count += 1;
            }
            None
        };
        let (_server, place, objects) = old_bucket(&store, 'a', before);
        assert_eq!(removed(collect(&place, &StoreDir::default(), &options(1))), ["b"], "{moment}");
        assert!(objects.keys("").contains(&store.narinfo('a')) && objects.keys("nar/").len() == 1);
    }
}

#[test]
fn with_what_comes_back_comes_what_it_needs() {
    let store = Store::new();
    let before = |line: &str, objects: &Objects, record: &[u8]| {
        if is_narinfo_gone(line) {
            objects.put("stowage/begun/9-x", record);
        }
        None
    };
    let (_server, place, objects) = old_bucket(&store, 'b', before);
    // Somebody has signed it since gc read it.
    let signed = objects.text(&store.narinfo('b')).replace("Sig: key-1:", "Sig: key-9:");
    objects.put(&store.narinfo('b'), signed.as_bytes());
    objects.lock().values_mut().for_each(|one| one.1 -= DAY * 9);
    assert!(removed(collect(&place, &StoreDir::default(), &options(1))).is_empty());
    assert_eq!(objects.keys("nar/").len(), 2);
    assert_eq!(objects.text(&store.narinfo('b')), signed);
    is_sound(&place);
}

#[test]
fn what_others_need_comes_back_though_gc_fails() {
    let store = Store::new();
    let before = |line: &str, objects: &Objects, record: &[u8]| {
        if !is_narinfo_gone(line) {
            return None;
        }
        // The first goes, and the second may.
        let is_first = objects.keys("stowage/begun/").is_empty();
        objects.put("stowage/begun/9-x", record);
        (!is_first).then(|| Reply::of(403).body("<Error><Code>AccessDenied</Code></Error>"))
    };
    let (_server, place, objects) = old_bucket(&store, 'b', before);
    collect(&place, &StoreDir::default(), &options(1)).expect_err("it is denied");
    assert!(objects.keys("").contains(&store.narinfo('b')));
    assert_eq!((objects.keys("nar/").len(), objects.keys("stowage/collecting").len()), (2, 0));
    is_sound(&place);
}

#[test]
fn a_narinfo_whose_nar_was_deleted_when_it_was_new_goes() {
    let store = Store::new();
    let texts: Mutex<Vec<(String, String)>> = Mutex::default();
    let before = move |line: &str, objects: &Objects, record: &[u8]| {
        let mut texts = texts.lock().expect("no panic");
        if let Some(key) = line.strip_prefix("DELETE ").filter(|_| is_narinfo_gone(line)) {
            texts.push((key.to_owned(), objects.text(key)));
        }
        // He has written the NAR when gc has seen that it is old, and now writes the narinfo.
        if line.starts_with("DELETE nar/") {
            objects.put("stowage/begun/9-x", record);
            texts.iter().for_each(|(key, text)| objects.put(key, text.as_bytes()));
        }
        None
    };
    let (_server, place, objects) = old_bucket(&store, 'a', before);
    assert_eq!(removed(collect(&place, &StoreDir::default(), &options(1))), ["b", "a"]);
    assert!(!objects.keys("").contains(&store.narinfo('a')));
}

#[test]
fn one_deletes_at_a_time_and_whoever_was_killed_is_not_waited_for() {
    let (_server, client, objects) = Objects::start(|_, _| None);
    let root = place(client).open().expect("opens");
    let lease = Lease::take(&root, Duration::ZERO).expect("asked").expect("free");
    assert!(Lease::take(&root, Duration::ZERO).expect("asked").is_none());
    // Somebody took it over, who took the other for dead.
    objects.put("stowage/collecting", b"another");
    drop(lease);
    assert_eq!(objects.text("stowage/collecting"), "another");
    assert!(Lease::take(&root, Duration::ZERO).expect("asked").is_none());
    objects.lock().values_mut().for_each(|one| one.1 -= DAY);
    drop(Lease::take(&root, Duration::ZERO).expect("asked").expect("nobody's"));
    assert!(objects.keys("").is_empty());
}

#[test]
fn a_lease_whose_answer_was_lost_is_taken_nevertheless() {
    for is_own in [true, false] {
        // One's own or somebody else's is written, and a proxy says that it is not.
        let before = move |line: &str, objects: &Objects, body: &[u8]| {
            let is_first = line == "PUT stowage/collecting" && objects.keys("lost").is_empty();
            is_first.then(|| {
                objects.put("lost", b"");
                objects.put("stowage/collecting", if is_own { body } else { b"another" });
                Reply::of(503)
            })
        };
        let (_server, client, objects) = Objects::start_with_bodies(before);
        let root = place(client).open().expect("opens");
        let lease = Lease::take(&root, Duration::ZERO).expect("asked");
        assert_eq!(lease.is_some(), is_own);
        drop(lease);
        assert_eq!(objects.keys("stowage/").len(), usize::from(!is_own));
    }
}

#[test]
fn a_nar_that_nobody_named_and_somebody_needs_when_it_goes() {
    let store = Store::new();
    let gone: Mutex<Vec<(String, Vec<u8>)>> = Mutex::default();
    let before = move |line: &str, objects: &Objects, record: &[u8]| {
        let mut gone = gone.lock().expect("no panic");
        // Nobody names them: somebody was killed, or gc was.
        if line == "GET " && gone.is_empty() {
            for name in objects.keys("").into_iter().filter(|key| key.ends_with(".narinfo")) {
                gone.push((name.clone(), objects.lock().remove(&name).expect("there").0));
            }
        }
        if line.starts_with("DELETE nar/") {
            objects.put("stowage/begun/9-x", record);
            gone.iter().for_each(|(key, text)| objects.put(key, text));
        }
        None
    };
    let (_server, place, objects) = old_bucket(&store, 'a', before);
    assert!(removed(collect(&place, &StoreDir::default(), &options(1))).is_empty());
    assert!(!objects.keys("").contains(&store.narinfo('a')), "its NAR went");
}

#[test]
fn the_nar_of_a_narinfo_that_was_changed_meanwhile_stays() {
    let store = Store::new();
    let text: Arc<Mutex<Option<(String, String)>>> = Arc::default();
    let own = Arc::clone(&text);
    let before = move |line: &str, objects: &Objects| {
        if line.starts_with("HEAD ")
            && line.ends_with(".narinfo")
            && let Some((key, text)) = own.lock().expect("no panic").take()
        {
            objects.put(&key, text.as_bytes());
        }
        None
    };
    let (_server, client, objects) = Objects::start(before);
    let place = place(client);
    store.add(&place, KEY).expect("exports");
    // The narinfo is of a NAR that was compressed otherwise; soon there is the right one.
    let (key, right) = (store.narinfo('b'), objects.text(&store.narinfo('b')));
    let size = right.lines().find_map(|line| line.strip_prefix("FileSize: ")).expect("a size");
    objects.put(&key, right.replace(&format!("FileSize: {size}"), "FileSize: 7").as_bytes());
    objects.age(1);
    *text.lock().expect("no panic") = Some((key, right));
    is_sound(&place);
    assert_eq!(objects.keys("nar/").len(), 2);
    is_sound(&place);
}

/// One output of a derivation of which the other is not in the cache.
fn add_output(place: &Place) {
    let folder = tempfile::tempdir().expect("a folder");
    let (output, derivation) = (path('c', "foo-1-lib"), path('d', "foo-1.drv"));
    std::fs::write(folder.path().join(output.to_basename()), "lib").expect("written");
    let files = StoreFiles::open(folder.path()).expect("opens");
    let nar = nar::measure(&files, &files.walk(&output).expect("walks")).expect("readable");
    let info = PathInfo { deriver: Some(derivation), ..PathInfo::new(output, nar.hash, nar.size, Vec::new()) };
    let closure = Closure::new(&StoreDir::default(), vec![info], None).expect("closed");
    export(&files, &closure, place, &Options::new(1)).expect("exports");
}

#[test]
fn what_gc_has_deleted_or_is_deleting_is_no_damage() {
    let store = Store::new();
    let (_server, client, objects) = Objects::start(|_, _| None);
    let place = place(client);
    store.add(&place, KEY).expect("exports");
    add_output(&place);
    // Its narinfos are gone, and its records are not.
    objects.lock().remove(&store.narinfo('b'));
    is_sound(&place);
    // Now what others need, which is put back in a moment.
    store.add(&place, KEY).expect("exports");
    let a = objects.lock().remove(&store.narinfo('a')).expect("there");
    objects.put("stowage/collecting", b"another");
    let check = || check(&place, &StoreDir::default(), check::Options { deep: true, jobs: 2 }).expect("checks");
    assert!(check().quarantined.is_empty());
    objects.lock().remove("stowage/collecting");
    assert_eq!(check().quarantined.len(), 1, "it can't tell then");
    objects.lock().insert(store.narinfo('a'), a);
}

#[test]
fn what_is_written_anew_while_a_check_looks_is_not_moved() {
    let store = Store::new();
    type Nar = Option<(String, Vec<u8>)>;
    let nar: Arc<Mutex<Nar>> = Arc::default();
    let own = Arc::clone(&nar);
    let before = move |line: &str, objects: &Objects| {
        // It has been listed and read.
        if line.starts_with("HEAD ")
            && line.ends_with(".narinfo")
            && let Some((key, bytes)) = own.lock().expect("no panic").take()
        {
            objects.put(&key, &bytes);
        }
        None
    };
    let (_server, client, objects) = Objects::start(before);
    let place = place(client);
    store.add(&place, KEY).expect("exports");
    let key = objects.keys("nar/").remove(0);
    let bytes = objects.lock().get(&key).expect("there").0.clone();
    // It was lost, cut off, or something else.
    for lost in [None, Some(&b""[..]), Some(&b"cut"[..]), Some(&vec![7; bytes.len()][..])] {
        match lost {
            None => drop(objects.lock().remove(&key)),
            Some(lost) => objects.put(&key, lost),
        }
        objects.age(1);
        *nar.lock().expect("no panic") = Some((key.clone(), bytes.clone()));
        is_sound(&place);
        assert_eq!(objects.text(&store.narinfo('a')).matches("StorePath").count(), 1);
        is_sound(&place);
    }
}

#[test]
fn records_that_nobody_can_read_stay() {
    let store = Store::new();
    let (_server, client, objects) = Objects::start(|_, _| None);
    let place = place(client);
    store.add(&place, KEY).expect("exports");
    store.add(&place, KEY).expect("exports");
    objects.put("stowage/used/1-later", b"stowage-used 2\na 7\n");
    collect(&place, &StoreDir::default(), &options(1)).expect("collects");
    assert_eq!(objects.keys("stowage/used/").len(), 2);
    assert!(objects.keys("").contains(&"stowage/used/1-later".to_owned()));
}

#[test]
fn records_that_become_one_meanwhile_are_read_from_that() {
    let store = Store::new();
    let before = |line: &str, objects: &Objects| {
        // It was listed, and is another's part now.
        if line.starts_with("GET stowage/used/")
            && !objects.keys("stowage/used/").contains(&"stowage/used/9-all".to_owned())
        {
            let names = objects.keys("stowage/used/");
            let text = objects.text(&names[0]);
            names.iter().for_each(|name| drop(objects.lock().remove(name)));
            objects.put("stowage/used/9-all", text.as_bytes());
        }
        None
    };
    let (_server, client, _objects) = Objects::start(before);
    let place = place(client);
    store.add(&place, KEY).expect("exports");
    assert_eq!(usage::read(&place.open().expect("opens")).expect("reads").len(), 2);
}

#[test]
fn what_is_written_between_two_attempts_to_delete_it_stays() {
    let before = |line: &str, objects: &Objects| {
        let is_first = line == "DELETE x" && objects.keys("busy").is_empty();
        is_first.then(|| {
            objects.put("busy", b"");
            objects.put("x", b"");
            Reply::of(503).body("<Error><Code>SlowDown</Code></Error>")
        })
    };
    let (server, client, objects) = Objects::start(before);
    objects.put("x", b"");
    objects.age(2);
    assert!(!super::super::Bucket::new(client).remove_older(OsStr::new("x"), DAY).expect("asked"));
    assert_eq!((server.count("DELETE "), objects.keys("x").len()), (1, 1));
}

#[test]
fn what_is_old_is_deleted_and_what_is_new_is_not() {
    let (_server, client, objects) = Objects::start(|_, _| None);
    let bucket = super::super::Bucket::new(client);
    objects.put("x", b"");
    let name = OsStr::new("x");
    assert!(!bucket.remove_older(name, DAY).expect("asked"));
    objects.age(2);
    assert!(bucket.remove_older(name, DAY).expect("asked"));
    assert!(!bucket.remove_older(name, DAY).expect("asked"));
    assert!(objects.keys("").is_empty());
}
