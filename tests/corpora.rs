//! Replays the corpora of the fuzz targets: seeds, and what fuzzing has found.
//! So they are tried where there is no cargo-fuzz, too.
#![expect(clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

use std::path::Path;

#[path = "../fuzz/bodies.rs"]
mod bodies;

/// Runs `body` with all inputs of the corpus `name`, and with their beginnings.
fn replay(name: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("a corpus") {
        let path = entry.expect("readable").path();
        let input = std::fs::read(&path).expect("readable");
        // A failure shows the last line.
        eprintln!("{}", path.display());
        body(&input);
        for length in (0..input.len()).step_by(input.len().div_ceil(200).max(1)) {
            body(&input[..length]);
        }
        count += 1;
    }
    assert!(count >= 3, "only {count} inputs in {}", folder.display());
}

#[test]
fn narinfos() {
    replay("narinfo", bodies::narinfo);
}

#[test]
fn nars() {
    replay("nar", bodies::nar);
}

#[test]
fn registrations() {
    replay("registration", bodies::registration);
}

#[test]
fn json() {
    replay("json", bodies::json);
}

#[test]
fn environments() {
    replay("environment", bodies::environment);
}

#[test]
fn every_target_is_replayed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let mut targets: Vec<_> =
        std::fs::read_dir(folder).expect("there").map(|entry| entry.expect("readable").file_name()).collect();
    targets.sort();
    assert_eq!(targets, ["environment.rs", "json.rs", "nar.rs", "narinfo.rs", "registration.rs"]);
}
