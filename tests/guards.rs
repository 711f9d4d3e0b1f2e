//! What only shows when something else went before, or goes wrong meanwhile:
//! layers too big for memory, stale knowledge, spoiled blobs, readers that go.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use stowage::digest::Digest;
use support::{ENVIRONMENT, HELLO, LIBRARY, Scratch, names, printed};

const MIB: u64 = 1 << 20;

/// How long a run may take that might wait for ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// A store path of one file, which is zeros between its first and its last bytes.
struct Sparse {
    /// The file's size, in bytes.
    size: u64,
    /// The NAR size that is registered, which need not be true.
    registered: u64,
}

/// Adds store paths, and writes the file `registration` of them alone; returns
/// their names.
fn add_paths(scratch: &Scratch, paths: &[Sparse]) -> Vec<String> {
    let mut registration = String::new();
    let mut added = Vec::new();
    for (digit, path) in "0123456789abcdfghijklmnpqrsvwxyz".chars().zip(paths) {
        let name = format!("{}-data", String::from(digit).repeat(32));
        let folder = scratch.store_file(&name);
        std::fs::create_dir_all(&folder).expect("writable");
        let mut file = std::fs::File::create(folder.join("data")).expect("writable");
        file.set_len(path.size).expect("writable");
        file.write_all(name.as_bytes()).expect("writable");
        file.seek(SeekFrom::Start(path.size - name.len() as u64)).expect("a file");
        file.write_all(name.as_bytes()).expect("writable");
        let hash = Digest::of(name.as_bytes()).to_hex();
        registration += &format!("{}\nsha256:{hash}\n{}\n\n0\n", printed(&name), path.registered);
        added.push(name);
    }
    assert_eq!(added.len(), paths.len());
    scratch.write("registration", &registration);
    added
}

/// Compares each layer of a docker archive with the digest that its config has
/// of it; returns the config.
fn assert_right(archive: &Path) -> Value {
    let mut digests = BTreeMap::new();
    let mut texts = BTreeMap::new();
    let mut archive = tar::Archive::new(std::fs::File::open(archive).expect("an archive"));
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("valid");
        let name = entry.path().expect("a path").to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("whole");
        digests.insert(name.clone(), Digest::of(&bytes).to_string());
        if name.ends_with(".json") {
            texts.insert(name, serde_json::from_slice::<Value>(&bytes).expect("JSON"));
        }
    }
    let manifest = &texts["manifest.json"][0];
    let layers: Vec<&String> = manifest["Layers"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|name| &digests[name.as_str().expect("text")])
        .collect();
    let config = &texts[manifest["Config"].as_str().expect("text")];
    let named: Vec<&str> =
        config["rootfs"]["diff_ids"].as_array().expect("a list").iter().map(|id| id.as_str().expect("text")).collect();
    assert_eq!(named, layers);
    config.clone()
}

#[test]
fn the_digests_of_big_and_small_layers_are_those_of_their_bytes() {
    let scratch = Scratch::new();
    let mut paths: Vec<Sparse> = (1..=12).map(|number| Sparse { size: number * 1000, registered: 1000 }).collect();
    paths.push(Sparse { size: 9 * MIB, registered: 9 * MIB });
    // Not as big, and bigger, than registered.
    paths.push(Sparse { size: 1000, registered: 9 * MIB });
    paths.push(Sparse { size: 17 * MIB, registered: 1000 });
    add_paths(&scratch, &paths);
    let mut configs = Vec::new();
    for jobs in ["1", "2"] {
        // What the first archive has found out is known to the second.
        std::fs::remove_dir_all(scratch.path("cache")).ok();
        for _ in 0..2 {
            let to = [
                "--registration",
                "registration",
                "--to",
                "docker-archive:archive.tar",
                "--jobs",
                jobs,
                "--strategy",
                "popularity",
            ];
            scratch.build(&to).timeout(PATIENCE).assert().success();
            configs.push(assert_right(&scratch.path("archive.tar")));
        }
    }
    assert_eq!(configs[0]["rootfs"]["diff_ids"].as_array().expect("a list").len(), paths.len() + 1);
    assert!(configs.iter().all(|config| *config == configs[0]));
}

#[test]
fn a_stale_size_of_a_big_layer_is_not_believed() {
    let scratch = Scratch::new();
    add_paths(&scratch, &[Sparse { size: 9 * MIB, registered: 9 * MIB }]);
    let build = || {
        let to = ["--registration", "registration", "--to", "docker-archive:archive.tar"];
        scratch.build(&to).timeout(PATIENCE).assert().success();
        assert_right(&scratch.path("archive.tar"))
    };
    let config = build();
    let index = scratch.path("cache/stowage/layers");
    let mut spoiled = 0;
    for name in names(&index) {
        let mut record: Value =
            serde_json::from_slice(&std::fs::read(index.join(&name)).expect("readable")).expect("JSON");
        if record["size"].as_u64().is_some_and(|size| size > 9 * MIB) {
            record["size"] = 5.into();
            record["diffId"] = Digest::of(b"stale").to_string().into();
            std::fs::write(index.join(&name), record.to_string()).expect("writable");
            spoiled += 1;
        }
    }
    assert_eq!(spoiled, 1);
    assert_eq!(build(), config);
}

/// Runs a build of `registration` into `out`; returns its exit code, and fails
/// where it does not end.
fn code_of_build_into(scratch: &Scratch, out: Option<Stdio>, jobs: &str) -> Option<i32> {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_stowage"));
    command
        .args(["build", "--store", "root", "--registration", "registration", "--jobs", jobs])
        .args(["--to", "docker-archive:-"])
        .env_clear()
        .env("XDG_CACHE_HOME", scratch.path("cache"))
        .current_dir(scratch.path(""))
        .stdout(out.unwrap_or_else(Stdio::piped))
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("a program");
    // Whoever was to read has gone.
    drop(child.stdout.take());
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status.code();
        }
        if start.elapsed() > PATIENCE {
            child.kill().expect("a child");
            child.wait().expect("a child");
            panic!("it waits for ever");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_failure_ends_those_who_wait_for_memory() {
    let scratch = Scratch::new();
    // Two of them fill the memory.
    let added = add_paths(&scratch, &[const { Sparse { size: 12 * MIB, registered: 1000 } }; 8]);
    for jobs in ["1", "4"] {
        assert_eq!(code_of_build_into(&scratch, None, jobs), Some(6));
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
        assert_eq!(code_of_build_into(&scratch, Some(full.into()), jobs), Some(6));
    }
    let _socket =
        std::os::unix::net::UnixListener::bind(scratch.store_file(&added[4]).join("socket")).expect("writable");
    for jobs in ["1", "4"] {
        assert_eq!(code_of_build_into(&scratch, Some(Stdio::null()), jobs), Some(5));
    }
}

#[test]
fn a_path_gone_from_disk_is_missed_though_its_layer_is_known() {
    let scratch = Scratch::new();
    scratch.built(&[&printed(ENVIRONMENT)]);
    std::fs::remove_dir_all(scratch.store_file(LIBRARY)).expect("there");
    let output = scratch.build(&[&printed(ENVIRONMENT)]).assert().code(5);
    let text = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(text.contains(LIBRARY) && text.contains("gone from disk"), "{text}");
}

/// The names of the store paths that the image in `oci:layout` holds.
fn roots_of(scratch: &Scratch, built: &Value) -> BTreeSet<String> {
    let system = built["layers"].as_array().expect("a list").last().expect("a layer")["diffId"].as_str();
    let blob = system.expect("a digest").trim_start_matches("sha256:");
    let bytes = std::fs::read(scratch.path("layout/blobs/sha256").join(blob)).expect("a blob");
    let mut archive = tar::Archive::new(&bytes[..]);
    let paths =
        archive.entries().expect("a tar").map(|entry| entry.expect("valid").path().expect("a path").into_owned());
    paths
        .filter_map(|path| Some(path.strip_prefix("nix/var/nix/gcroots/stowage").ok()?.to_str()?.to_owned()))
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn only_what_no_other_path_refers_to_is_a_root() {
    let scratch = Scratch::new();
    let only_the_environment = BTreeSet::from([ENVIRONMENT.to_owned()]);
    // The one refers to the other.
    let built = scratch.built(&[&printed(HELLO), &printed(ENVIRONMENT), "--to", "oci:layout"]);
    assert_eq!(roots_of(&scratch, &built), only_the_environment);
    scratch.built(&[&printed(HELLO), &printed(ENVIRONMENT)]);
    assert_eq!(names(&scratch.path("image/roots")), [ENVIRONMENT]);
    // Only the config names the one that is not referred to.
    scratch.write("spec.json", &format!(r#"{{"config": {{"Cmd": ["{}/bin/x"]}}}}"#, printed(ENVIRONMENT)));
    let built = scratch.built(&["--spec", "spec.json", &printed(LIBRARY), "--to", "oci:layout"]);
    assert_eq!(roots_of(&scratch, &built), only_the_environment);
    // Nobody asks for one more than the other.
    scratch.write("registration", &support::registration());
    let built = scratch.built(&["--registration", "registration", "--to", "oci:layout"]);
    assert_eq!(roots_of(&scratch, &built), only_the_environment);
}

#[test]
fn an_image_folder_has_only_the_blobs_of_its_last_image() {
    let scratch = Scratch::new();
    scratch.built(&[&printed(ENVIRONMENT)]);
    let first = names(&scratch.path("image/blobs/sha256"));
    scratch.built(&[&printed(LIBRARY)]);
    scratch.built(&[&printed(LIBRARY), "--to", "stowage:fresh"]);
    let second = names(&scratch.path("image/blobs/sha256"));
    assert_eq!(second, names(&scratch.path("fresh/blobs/sha256")));
    assert!(!second.iter().any(|name| first.contains(name)), "the images are to have nothing in common");
    scratch.stowage(&["inspect", "stowage:image"]).assert().success();
}

#[test]
fn a_blob_that_is_cut_off_is_made_again() {
    for (destination, folder) in [("oci:layout", "layout"), ("stowage:image", "image")] {
        let scratch = Scratch::new();
        let build = || scratch.built(&[&printed(ENVIRONMENT), "--to", destination])["digest"].clone();
        let digest = build();
        let blobs = scratch.path(folder).join("blobs/sha256");
        let there = names(&blobs);
        for name in &there {
            let blob = std::fs::OpenOptions::new().write(true).open(blobs.join(name)).expect("writable");
            blob.set_len(blob.metadata().expect("there").len() / 2).expect("writable");
        }
        assert_eq!(build(), digest);
        assert_eq!(names(&blobs), there);
        for name in &there {
            assert_eq!(
                Digest::of(&std::fs::read(blobs.join(name)).expect("readable")).to_hex(),
                *name,
                "{destination}"
            );
        }
    }
}

#[test]
fn in_a_nix_build_nothing_is_held() {
    let scratch = Scratch::new();
    let build = |environment: &[(&str, &str)]| {
        scratch.build(&[&printed(HELLO)]).envs(environment.iter().copied()).assert().success();
        scratch.path("image/roots").exists() || scratch.root().join("nix/var/nix/gcroots").exists()
    };
    assert!(!build(&[("NIX_BUILD_TOP", "/build")]));
    // `nix-shell` sets both.
    assert!(build(&[("NIX_BUILD_TOP", "/tmp"), ("IN_NIX_SHELL", "impure")]));
}

#[test]
fn everybody_may_read_an_image_whatever_the_umask() {
    for umask in ["077", "000"] {
        let scratch = Scratch::new();
        let destinations = ["docker-archive:archive.tar", "oci:layout", "stowage:image"];
        let to: Vec<&str> = destinations.iter().flat_map(|destination| ["--to", destination]).collect();
        let status = std::process::Command::new("sh")
            .args(["-c", "umask \"$1\"; shift; exec \"$0\" \"$@\""])
            .args([env!("CARGO_BIN_EXE_stowage"), umask, "--quiet", "build", "--store", "root", &printed(HELLO)])
            .args(to)
            .env("XDG_CACHE_HOME", scratch.path("cache"))
            .current_dir(scratch.path(""))
            .status()
            .expect("a shell");
        assert!(status.success());
        let mut files: Vec<_> = ["layout", "image"]
            .iter()
            .flat_map(|folder| {
                names(&scratch.path(folder).join("blobs/sha256"))
                    .into_iter()
                    .map(move |name| format!("{folder}/blobs/sha256/{name}"))
            })
            .collect();
        assert!(files.len() > 4);
        files
            .extend(["archive.tar", "layout/index.json", "layout/oci-layout", "image/stowage.json"].map(str::to_owned));
        for file in files {
            let mode = scratch.path(&file).metadata().expect("there").permissions().mode() & 0o777;
            assert_eq!(mode, 0o644, "{file} with umask {umask}");
        }
    }
}

#[test]
fn a_database_that_nobody_has_open_is_left_as_it_is() {
    let scratch = Scratch::new();
    let database = rusqlite::Connection::open(scratch.database()).expect("a database");
    database.execute_batch("pragma journal_mode = wal; update ValidPaths set ultimate = 1").expect("writable");
    database.close().expect("closed");
    let folder = scratch.database().parent().expect("a folder").to_owned();
    let (before, bytes) = (names(&folder), std::fs::read(scratch.database()).expect("readable"));
    assert_eq!((before.len(), bytes[18]), (2, 2), "the database in WAL mode, and its schema");
    scratch.built(&[&printed(ENVIRONMENT)]);
    assert_eq!(names(&folder), before);
    assert_eq!(std::fs::read(scratch.database()).expect("readable"), bytes);
}

#[test]
fn devices_and_pipes_are_written_to_and_not_replaced() {
    use std::os::unix::fs::FileTypeExt as _;
    let scratch = Scratch::new();
    let (pipe, link) = (scratch.path("pipe"), scratch.path("link"));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    std::os::unix::fs::symlink("pipe", &link).expect("writable");
    for name in ["pipe", "link"] {
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read(pipe).expect("readable")
        });
        let digest = scratch.path("digest");
        let destination = format!("docker-archive:{name}");
        scratch.build(&[&printed(HELLO), "--to", &destination, "--digest-file", "digest"]).assert().success();
        let archive = scratch.path("archive.tar");
        std::fs::write(&archive, reader.join().expect("read")).expect("writable");
        assert_right(&archive);
        assert!(pipe.symlink_metadata().expect("there").file_type().is_fifo(), "{name}");
        assert!(std::fs::read_to_string(digest).expect("written").starts_with("sha256:"));
    }
    assert!(link.symlink_metadata().expect("there").is_symlink());
    // What a shell makes of `--digest-file >(cat)`, and what scripts write.
    let output = scratch.build(&[&printed(HELLO), "--quiet", "--digest-file", "/dev/stdout"]).output().expect("run");
    assert!(output.status.success() && output.stdout.starts_with(b"sha256:"), "{output:?}");
}
