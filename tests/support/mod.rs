//! What the tests of the command line share.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod image;

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use stowage::image::nixdb;
use stowage::store::{Closure, StoreDir, dump};

/// The names of the small store's paths; see `tests/data/README.md`.
pub const LIBRARY: &str = "0c7c96gikmzv87i7lv3vq5s1cmfjd6zf-library-1.0";
pub const HELLO: &str = "2cdphvmw5lnlvkc7wcphwqsnpl0gbqkf-hello-2.0";
pub const ENVIRONMENT: &str = "z5rcz9gcddm0klb3d6cmvcqbs2nhpgsm-environment";

/// A copy of the small store, and a place for a test's files.
pub struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    /// A copy with a Nix database that knows the store's paths.
    pub fn new() -> Self {
        let scratch = Self { folder: tempfile::tempdir().expect("a folder") };
        copy(&data().join("store"), &scratch.root());
        let store_dir = StoreDir::default();
        let infos = dump::parse(&registration(), &store_dir).expect("valid");
        let closure = Closure::new(&store_dir, infos, None).expect("closed");
        std::fs::create_dir_all(scratch.database().parent().expect("a folder")).expect("writable");
        std::fs::write(scratch.database(), nixdb::serialise(&closure, &[]).expect("memory")).expect("writable");
        std::fs::write(scratch.database().with_file_name("schema"), "10").expect("writable");
        scratch
    }

    /// A file of the test's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The store's root, for `--store`.
    pub fn root(&self) -> PathBuf {
        self.path("root")
    }

    /// The store's database.
    pub fn database(&self) -> PathBuf {
        self.root().join("nix/var/nix/db/db.sqlite")
    }

    /// A file of one of the store's paths.
    pub fn store_file(&self, name: &str) -> PathBuf {
        self.root().join("nix/store").join(name)
    }

    /// stowage in the test's folder, with nothing of the machine's environment.
    pub fn stowage(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stowage"));
        command.env_clear().env("XDG_CACHE_HOME", self.path("cache")).current_dir(self.folder.path()).args(arguments);
        command
    }

    /// `stowage build --store ROOT` with more arguments.
    pub fn build(&self, arguments: &[&str]) -> Command {
        let mut command = self.stowage(&["build", "--store"]);
        command.arg(self.root()).args(arguments);
        command
    }

    /// What `stowage build … --json` says.
    pub fn built(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.build(arguments).arg("--json").assert().success();
        serde_json::from_slice(&output.get_output().stdout).expect("JSON")
    }

    /// Writes a file of the test's.
    pub fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).expect("writable");
        name.to_owned()
    }
}

/// The folder `tests/data`.
pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// What closureInfo would say of the small store.
pub fn registration() -> String {
    std::fs::read_to_string(data().join("registration")).expect("readable")
}

/// A store path of the small store, printed.
pub fn printed(name: &str) -> String {
    format!("/nix/store/{name}")
}

/// Copies a folder, links as links.
pub fn copy(from: &Path, to: &Path) {
    let metadata = from.symlink_metadata().expect("there");
    if metadata.is_symlink() {
        symlink(from.read_link().expect("a link"), to).expect("writable");
    } else if metadata.is_dir() {
        std::fs::create_dir_all(to).expect("writable");
        for entry in std::fs::read_dir(from).expect("readable") {
            let entry = entry.expect("readable");
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        std::fs::copy(from, to).expect("writable");
        std::fs::set_permissions(to, std::fs::Permissions::from_mode(metadata.permissions().mode() | 0o200))
            .expect("writable");
    }
}

/// The names in a folder.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| {
            entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect()
        })
        .unwrap_or_default();
    names.sort();
    names
}

/// The names in a tar.
pub fn tar_names(bytes: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().expect("a tar");
    entries.map(|entry| entry.expect("valid").path().expect("a path").to_string_lossy().into_owned()).collect()
}
