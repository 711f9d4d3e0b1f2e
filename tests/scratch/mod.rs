//! A store of its own for each test, in which the Nix of this machine builds.
//! Tests that need Nix fail where there is none: they would prove nothing.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sha2::{Digest as _, Sha256};
use stowage::store::db::StoreDb;
use stowage::store::{Closure, StoreDir, StoreLocation, StorePath};
use stowage::tree::StoreFiles;

/// A folder with a Nix store, its state and its configuration.
pub struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let scratch = Self { folder };
        fs::create_dir(scratch.path("conf")).expect("made");
        let settings = "sandbox = false\nsubstituters =\nbuild-users-group =\nexperimental-features = nix-command\n";
        fs::write(scratch.path("conf/nix.conf"), settings).expect("written");
        scratch
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program that works in this store.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("NIX_")) {
            command.env_remove(name);
        }
        command
            .env("NIX_STORE_DIR", self.path("store"))
            .env("NIX_STATE_DIR", self.path("var"))
            .env("NIX_LOG_DIR", self.path("log"))
            .env("NIX_CONF_DIR", self.path("conf"))
            .env("HOME", self.folder.path())
            .current_dir(self.folder.path());
        command
    }

    pub fn location(&self) -> StoreLocation {
        let store_dir = StoreDir::new(self.path("store").to_str().expect("UTF-8")).expect("a store dir");
        StoreLocation::new(None, store_dir, &self.path("var"))
    }

    /// Builds `expression`, and returns what is built.
    pub fn build(&self, expression: &str) -> StorePath {
        let output = run(self.command("nix-build").args(["--no-out-link", "--expr", expression]));
        self.parse(&output.stdout)
    }

    pub fn parse(&self, printed: &[u8]) -> StorePath {
        self.location().store_dir.parse_path(printed.trim_ascii_end()).expect("a store path")
    }

    /// Where the files of `path` are.
    pub fn real_path(&self, path: &StorePath) -> PathBuf {
        self.location().real_dir.join(path.to_basename())
    }

    pub fn files(&self) -> StoreFiles {
        StoreFiles::open(&self.location().real_dir).expect("a store")
    }

    pub fn closure(&self, root: &StorePath) -> Closure {
        let location = self.location();
        let roots = [root.clone()];
        let infos = StoreDb::open(&location).expect("a database").closure(&roots).expect("valid");
        Closure::new(&location.store_dir, infos, Some(&roots)).expect("closed")
    }

    /// Makes the store a new and empty one: the next job's machine.
    pub fn forget_everything(&self) {
        for name in ["store", "var"] {
            run(Command::new("chmod").args(["-R", "u+w"]).arg(self.path(name)));
            fs::remove_dir_all(self.path(name)).expect("removed");
        }
    }
}

impl Drop for Scratch {
    /// Gives back the right to delete what is in the store.
    fn drop(&mut self) {
        let _ = Command::new("chmod").args(["-R", "u+w"]).arg(self.folder.path()).status();
    }
}

/// `count` store paths, each of `size` random bytes, in an executable file, an
/// empty folder and a link; each refers to the one before, and to itself.
pub fn chain(count: usize, size: usize) -> String {
    format!(
        r#"let mk = i: derivation {{
            name = "n${{toString i}}"; system = builtins.currentSystem; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
            before = if i == 0 then "none" else mk (i - 1);
            args = [ "-c" "mkdir -p $out/bin/empty; head -c {size} /dev/urandom > $out/bin/data; chmod +x $out/bin/data
                echo $before $out > $out/refs; ln -s $before/refs $out/before" ];
        }}; in mk {}"#,
        count - 1
    )
}

/// Runs a program that must succeed.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("this test needs {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Checks what must hold of a cache at any moment, and returns how many paths
/// are in it.
pub fn assert_whole(cache: &Path, store_dir: &StoreDir) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(cache).expect("a cache") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "narinfo") {
            continue;
        }
        let text = fs::read(&path).expect("readable");
        let narinfo = nix_narinfo::NarInfo::parse_in(store_dir, &text).expect("whole");
        let compressed = fs::read(cache.join(narinfo.url())).expect("its NAR");
        assert_eq!(narinfo.file_size(), Some(compressed.len() as u64));
        let nar = zstd::decode_all(&compressed[..]).expect("whole");
        assert_eq!(nar.len() as u64, narinfo.nar_size());
        assert_eq!(narinfo.nar_hash().digest_as_bytes(), &Sha256::digest(&nar)[..]);
        for reference in narinfo.references() {
            let name = format!("{}.narinfo", &reference.to_basename()[..32]);
            assert!(cache.join(&name).exists(), "{} refers to {name}", path.display());
        }
        count += 1;
    }
    count
}

/// All files and folders below `folder`, with their inodes, modes and times.
pub fn snapshot(folder: &Path) -> Vec<(PathBuf, u64, u32, std::time::SystemTime)> {
    use std::os::unix::fs::MetadataExt as _;
    let mut entries = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = path.symlink_metadata().expect("there");
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        }
        let mode = metadata.permissions().mode() & 0o7777;
        entries.push((path, metadata.ino(), mode, metadata.modified().expect("a time")));
    }
    entries.sort();
    entries
}
