//! Keeps the map in `src/lib.rs` true, and pure files pure.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a pure file may not name outside of its tests.
const IMPURE: [&str; 9] = [
    "std::fs",
    "std::env",
    "std::process::Command",
    "SystemTime",
    "Instant",
    "rustix::",
    "File::",
    "tempfile",
    "std::net",
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All source files, by their paths below `src`.
fn files(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path.strip_prefix(source()).expect("below src").to_str().expect("ASCII").to_owned());
        }
    }
}

/// The files of the map, and whether they are pure.
fn map() -> BTreeMap<String, bool> {
    let text = std::fs::read_to_string(source().join("lib.rs")).expect("readable");
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | `"));
    rows.map(|row| {
        let fields: Vec<&str> = row.split(" | ").collect();
        let name = fields[0].trim_end_matches('`').to_owned();
        assert!(!fields[1].is_empty() && row.ends_with(" |"), "{row}");
        match row.trim_end_matches(" |").rsplit(' ').next() {
            Some("pure") => (name, true),
            Some("IO") => (name, false),
            _ => panic!("{name} is neither pure nor IO: {row}"),
        }
    })
    .collect()
}

/// A file's text up to its tests; a file of tests has nothing else.
fn code(name: &str) -> String {
    if name.ends_with("/tests.rs") {
        return String::new();
    }
    let text = std::fs::read_to_string(source().join(name)).expect("readable");
    text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

#[test]
fn the_map_has_every_file_and_no_other() {
    let mut found = Vec::new();
    files(&source(), &mut found);
    found.retain(|name| name != "lib.rs" && name != "main.rs");
    found.sort();
    let listed: Vec<String> = map().into_keys().collect();
    assert_eq!(listed, found);
}

#[test]
fn pure_files_touch_no_file_clock_environment_or_process() {
    for name in map().into_iter().filter(|(_, pure)| *pure).map(|(name, _)| name) {
        let code: Vec<String> =
            code(&name).lines().filter(|line| !line.trim_start().starts_with("//")).map(str::to_owned).collect();
        for word in IMPURE {
            assert!(!code.iter().any(|line| line.contains(word)), "{name} is said to be pure, and names {word}");
        }
    }
}

#[test]
fn only_settings_read_the_environment() {
    for name in map().into_keys().filter(|name| name != "cli/settings.rs") {
        assert!(!code(&name).contains("env::var"), "{name}");
    }
}

#[test]
fn arrows_go_one_way() {
    // Planning sees no file, packing sees no graph, and a destination sees no
    // closure and no plan.
    for (folder, forbidden) in [
        ("plan/", &["crate::tree", "crate::layer", "crate::image", "crate::destination", "crate::cli"][..]),
        ("layer/", &["Closure", "crate::plan", "crate::image", "crate::destination", "crate::cli"]),
        ("destination/", &["Closure", "crate::plan", "crate::cli"]),
        (
            "store/",
            &[
                "crate::plan",
                "crate::layer::pack",
                "crate::layer::deliver",
                "crate::image",
                "crate::destination",
                "crate::cli",
            ],
        ),
        ("image/", &["crate::destination", "crate::cli"]),
    ] {
        for name in map().into_keys().filter(|name| name.starts_with(folder)) {
            for word in forbidden {
                assert!(!code(&name).contains(word), "{name} names {word}");
            }
        }
    }
}

#[test]
fn the_tests_that_security_md_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("SECURITY.md")).expect("readable");
    let mut count = 0;
    for row in text.lines().filter(|line| line.starts_with("| ") && line.contains(".rs`: ")) {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().expect("a field");
        for group in tests.split("; ").filter(|group| group.contains(".rs`: ")) {
            let (file, names) = group.split_once("`: ").expect("a file and names");
            let code = std::fs::read_to_string(root.join(file.trim_start_matches('`'))).expect(file);
            for name in names.split(", ") {
                let name = name.trim_matches('`');
                assert!(code.contains(&format!("fn {name}()")), "{file} has no {name}");
                count += 1;
            }
        }
    }
    assert!(count > 30, "{count}");
}
