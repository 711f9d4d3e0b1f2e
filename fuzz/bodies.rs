//! What each fuzz target does with its input; `tests/corpora.rs` does the same
//! with all inputs of the corpora.
//!
//! None may panic, whatever the input. What is taken must have the properties
//! that the rest of stowage relies on.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use nix_narinfo::NarInfo;
use stowage::cache::Compression;
use stowage::cache::narinfo::{self, NarFile};
use stowage::hook::HookEvent;
use stowage::nar::read::{self, Event, MAX_DEPTH, MAX_NAME, MAX_PATH, MAX_TARGET};
use stowage::store::{Closure, PathInfo, StoreDir, dump, json};

/// A narinfo of somebody else's cache, about whatever path it says.
pub fn narinfo(bytes: &[u8]) {
    let store_dir = StoreDir::default();
    let Ok(parsed) = NarInfo::parse_in(&store_dir, bytes) else {
        // What is no narinfo is none about any path.
        let path = store_dir.parse_path(b"/nix/store/0c7c96gikmzv87i7lv3vq5s1cmfjd6zf-b").expect("valid");
        let info = PathInfo::new(path, stowage::store::NarHash::new([0; 32]), 1, Vec::new());
        assert_eq!(narinfo::check(&store_dir, &info, bytes), None);
        return;
    };
    let mut references: Vec<_> = parsed.references().iter().cloned().collect();
    references.sort();
    let hash = stowage::store::NarHash::new([0; 32]);
    let info = PathInfo::new(parsed.store_path().clone(), hash, parsed.nar_size(), references);
    if let Some(named) = narinfo::check(&store_dir, &info, bytes) {
        // A name of one component, so that it can't lead out of `nar/`.
        let name = &named.file_name;
        assert!(!name.is_empty() && name.len() <= MAX_NAME && !name.contains(['/', '\0']), "{name:?}");
        assert!(!name.starts_with('.'), "{name:?}");
    }
}

/// A NAR of somebody else's cache.
pub fn nar(bytes: &[u8]) {
    let mut open = Vec::new();
    let mut seen: Option<Vec<u8>> = None;
    let result = read::read(bytes, bytes.len() as u64, |path, event| {
        assert!(path.len() <= MAX_PATH);
        for name in path.split(|byte| *byte == b'/').filter(|_| !path.is_empty()) {
            assert!(!matches!(name, b"" | b"." | b"..") && name.len() <= MAX_NAME && !name.contains(&0));
        }
        match event {
            Event::Leave => assert_eq!(open.pop().as_deref(), Some(path)),
            // Each is new, and in the last folder that was entered.
            _ => {
                let around = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                assert_eq!(open.last().map(Vec::as_slice), (!path.is_empty()).then_some(&path[..around]));
                assert!(seen.as_deref().is_none_or(|seen| in_order(seen, path)));
                seen = Some(path.to_vec());
            }
        }
        match event {
            Event::Enter => {
                open.push(path.to_vec());
                assert!(open.len() <= MAX_DEPTH);
            }
            Event::Leave => {}
            Event::Symlink { target } => {
                assert!((1..=MAX_TARGET).contains(&target.len()) && !target.contains(&0));
            }
            Event::Regular { size, contents, .. } => {
                assert!(size <= bytes.len() as u64);
                // Some of them are left unread.
                if size % 3 != 0 {
                    let mut read = Vec::new();
                    std::io::copy(contents, &mut read)?;
                    assert_eq!(read.len() as u64, size);
                }
            }
        }
        Ok(())
    });
    if let Ok(measured) = result {
        assert_eq!(measured.size, bytes.len() as u64);
        assert!(open.is_empty());
        assert!(read::read(bytes, measured.size - 1, |_, _| Ok(())).is_err());
    }
}

/// Whether the names in a folder come in order, with what is in a folder right
/// after it.
fn in_order(before: &[u8], after: &[u8]) -> bool {
    let parts = |path: &[u8]| path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
    before.is_empty() || parts(before) < parts(after)
}

/// Registrations as text.
pub fn registration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let store_dir = StoreDir::default();
    if let Ok(infos) = dump::parse(text, &store_dir) {
        closure(&store_dir, infos);
    }
}

/// Registrations as JSON.
pub fn json(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let store_dir = StoreDir::default();
    if let Ok(infos) = json::parse(text, &store_dir) {
        closure(&store_dir, infos);
    }
}

/// What is done with registrations next, whoever wrote them.
fn closure(store_dir: &StoreDir, infos: Vec<PathInfo>) {
    let Ok(closure) = Closure::new(store_dir, infos, None) else { return };
    for (id, info) in closure.infos().iter().enumerate() {
        assert_eq!(store_dir.parse_path(closure.print(id).as_bytes()).expect("a store path"), info.path);
        let base = info.path.to_basename();
        assert!(!base.starts_with('.') && !base.contains('/') && base.len() <= MAX_NAME);
        // It may say what no narinfo can, which is an error.
        let nar = stowage::nar::Measured { hash: info.nar_hash, size: info.nar_size };
        let file = NarFile { nar, compression: Compression::default(), bytes: 1 };
        if let Ok(text) = narinfo::render(store_dir, info, &file, Vec::new()) {
            assert!(narinfo::check(store_dir, info, &text).is_some(), "{}", String::from_utf8_lossy(&text));
        }
    }
}

/// The hook's environment: variables with zeros between them, as in
/// `/proc/PID/environ`.
pub fn environment(bytes: &[u8]) {
    let variable = |text: &[u8]| {
        let equals = text.iter().position(|byte| *byte == b'=')?;
        Some((OsStr::from_bytes(&text[..equals]).to_owned(), OsStr::from_bytes(&text[equals + 1..]).to_owned()))
    };
    let variables: BTreeMap<OsString, OsString> = bytes.split(|byte| *byte == 0).filter_map(variable).collect();
    let store_dir = StoreDir::default();
    for current_dir in ["/", "/work"] {
        let Ok(event) = HookEvent::from_environment(&variables, &store_dir, None, || Ok(PathBuf::from(current_dir)))
        else {
            continue;
        };
        assert!(event.destination.is_absolute(), "{}", event.destination.display());
        assert!(event.drv_path.is_some() || !event.out_paths.is_empty());
        // What is named is a store path, and not something below or beside it.
        for path in event.drv_path.iter().chain(&event.out_paths) {
            let printed = path.to_absolute_path_in(&store_dir);
            assert_eq!(store_dir.parse_path(printed.as_bytes()).expect("a store path"), *path);
        }
    }
}
