//! A folder of an ordinary user with a cache in it, a folder of root's that is
//! watched, and what the one can do to reach the other.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, ReadFlags};
use rustix::fs::{CWD, FileType};
use stowage::cache::{CacheError, Options, Summary, export};
use stowage::store::{Closure, StoreDir, dump};
use stowage::tree::StoreFiles;

use crate::support;

/// The user whose folder it is.
pub const USER: u32 = 1000;

/// The folders that an export opens, below the project.
pub const FOLDERS: [&str; 5] = ["cache", "cache/nar", "cache/log", "cache/realisations", "cache/build-trace-v2"];

/// How many kinds of files there are; see [`Attack::files`].
pub const FILES: usize = 3;

/// How long an export may take that might wait for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Root,
    User,
}

/// What is put in the place of a folder or file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    LinkToFolder,
    LinkToFile,
    LinkToNothing,
    /// To root's folder, and made by root.
    LinkOfRoot,
    HardLink,
    Pipe,
    Device,
    Socket,
    File,
    Folder,
}

impl Obstacle {
    pub const IN_PLACE_OF_FOLDERS: [Self; 9] = [
        Self::LinkToFolder,
        Self::LinkToFile,
        Self::LinkToNothing,
        Self::LinkOfRoot,
        Self::HardLink,
        Self::Pipe,
        Self::Device,
        Self::Socket,
        Self::File,
    ];
    pub const IN_PLACE_OF_FILES: [Self; 9] = [
        Self::LinkToFolder,
        Self::LinkToFile,
        Self::LinkToNothing,
        Self::LinkOfRoot,
        Self::HardLink,
        Self::Pipe,
        Self::Device,
        Self::Socket,
        Self::Folder,
    ];
}

/// The scene.
pub struct Attack {
    scratch: support::Scratch,
    closure: Closure,
    watch: OwnedFd,
    /// Whether a file outside has another name within.
    shared: AtomicBool,
}

impl Attack {
    pub fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "only root can try what is done to root");
        let scratch = support::Scratch::new();
        let infos = dump::parse(&support::registration(), &StoreDir::default()).expect("valid");
        let closure = Closure::new(&StoreDir::default(), infos, None).expect("closed");
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).expect("inotify");
        let attack = Self { scratch, closure, watch, shared: AtomicBool::new(false) };
        // The ordinary user looks into it.
        attack.set_mode(&attack.base(), 0o755);
        for folder in ["outside", "held", "home", "home/project"] {
            fs::create_dir(attack.base().join(folder)).expect("made");
        }
        for folder in ["home", "home/project"] {
            chown(attack.base().join(folder), Some(USER), Some(USER)).expect("given away");
        }
        fs::write(attack.outside().join("secret"), "StoreDir: /gnu/store\n").expect("written");
        attack.set_mode(&attack.outside().join("secret"), 0o600);
        attack.set_mode(&attack.outside(), 0o700);
        // As fs.protected_hardlinks = 0 lets users do.
        fs::hard_link(attack.outside().join("secret"), attack.base().join("held/secret")).expect("linked");
        for path in [attack.outside(), attack.outside().join("secret")] {
            inotify::add_watch(&attack.watch, &path, inotify::WatchFlags::ALL_EVENTS).expect("watched");
        }
        attack
    }

    pub fn base(&self) -> PathBuf {
        self.scratch.path("")
    }

    pub fn outside(&self) -> PathBuf {
        self.scratch.path("outside")
    }

    pub fn project(&self) -> PathBuf {
        self.scratch.path("home/project")
    }

    pub fn cache(&self) -> PathBuf {
        self.scratch.path("home/project/cache")
    }

    pub fn set_mode(&self, path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    }

    /// `nix-cache-info`, a narinfo and a NAR of the same path; [`FILES`] of them.
    pub fn files(&self) -> Vec<PathBuf> {
        let narinfo = self.cache().join(format!("{}.narinfo", &support::HELLO[..32]));
        let info = self.closure.infos().iter().find(|info| info.path.to_basename() == support::HELLO).expect("there");
        let nar = self.cache().join(format!("nar/{}.nar.zst", info.nar_hash.to_nix32()));
        vec![self.cache().join("nix-cache-info"), narinfo, nar]
    }

    pub fn narinfos(&self) -> Vec<PathBuf> {
        let names = support::names(&self.cache()).into_iter().filter(|name| name.ends_with(".narinfo"));
        names.map(|name| self.cache().join(name)).collect()
    }

    /// Exports as root in this process, or as the user in another.
    pub fn export(&self, who: Who) -> Result<Option<Summary>, Option<CacheError>> {
        match who {
            Who::Root => {
                let start = Instant::now();
                let result = self.export_here();
                assert!(start.elapsed() < PATIENCE);
                result.map(Some).map_err(Some)
            }
            Who::User => {
                let user = USER.to_string();
                let mut command = Command::new("timeout");
                command.arg(PATIENCE.as_secs().to_string());
                command.args(["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"]);
                if self.run(command) { Ok(None) } else { Err(None) }
            }
        }
    }

    pub fn export_here(&self) -> Result<Summary, CacheError> {
        let files = StoreFiles::open(&self.scratch.root().join("nix/store")).expect("a store");
        export(&files, &self.closure, self.cache(), &Options::new(2))
    }

    /// Exports as root where `openat2` fails with `error`.
    pub fn export_without_openat2(&self, error: &str) -> bool {
        let log = self.scratch.path("strace");
        let mut command = Command::new("strace");
        command.args(["--follow-forks", "--trace=openat2", &format!("--inject=openat2:error={error}"), "--output"]);
        command.arg(&log);
        let succeeded = self.run(command);
        let calls = fs::read_to_string(&log).expect("strace's log");
        // What another thread interrupts is told in two lines, the result in the second.
        let calls: Vec<&str> = calls.lines().filter(|line| line.contains("openat2") && line.contains(" = ")).collect();
        assert!(!calls.is_empty() && calls.iter().all(|line| line.contains(&format!("-1 {error}"))), "{calls:?}");
        succeeded
    }

    /// Runs the program below `wrapper`; it may fail, but not hang or panic.
    fn run(&self, mut wrapper: Command) -> bool {
        let program = self.scratch.path("stowage");
        if !program.exists() {
            let built = env!("CARGO_BIN_EXE_stowage");
            // To another file system it is copied.
            fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(drop)).expect("there");
        }
        wrapper.arg(&program).args(["cache", "add", "--quiet", "--jobs", "2", "--store"]).arg(self.scratch.root());
        wrapper.arg(self.cache()).args([support::ENVIRONMENT].map(support::printed));
        let output = wrapper.env_clear().env("PATH", "/usr/bin:/bin").current_dir("/").output().expect("starts");
        let text = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code().expect("no signal");
        assert!(code < 100 && !text.contains("panicked"), "{code}: {text}");
        code == 0
    }

    /// Removes what is at `path`, and puts an obstacle there.
    pub fn replace(&self, path: &Path, obstacle: Obstacle) {
        match path.symlink_metadata() {
            Ok(data) if data.is_dir() => fs::remove_dir_all(path).expect("removed"),
            Ok(_) => fs::remove_file(path).expect("removed"),
            Err(_) => {}
        }
        self.put(path, obstacle);
    }

    pub fn put(&self, path: &Path, obstacle: Obstacle) {
        let make = |kind, device| rustix::fs::mknodat(CWD, path, kind, 0o644.into(), device).expect("made");
        match obstacle {
            Obstacle::LinkToFolder | Obstacle::LinkOfRoot => symlink(self.outside(), path).expect("linked"),
            Obstacle::LinkToFile => symlink(self.outside().join("secret"), path).expect("linked"),
            Obstacle::LinkToNothing => symlink(self.outside().join("new"), path).expect("linked"),
            Obstacle::HardLink => self.hard_link(path).expect("linked"),
            Obstacle::Pipe => make(FileType::Fifo, 0),
            Obstacle::Device => make(FileType::CharacterDevice, rustix::fs::makedev(1, 5)),
            Obstacle::Socket => make(FileType::Socket, 0),
            Obstacle::File => fs::write(path, "").expect("written"),
            Obstacle::Folder => {
                fs::create_dir(path).expect("made");
                fs::write(path.join("kept"), "").expect("written");
            }
        }
        // A hard link would give the other name away, too.
        if !matches!(obstacle, Obstacle::LinkOfRoot | Obstacle::HardLink) {
            lchown(path, Some(USER), Some(USER)).expect("given away");
        }
        // What was done to the link itself.
        let _ = self.events();
    }

    /// Gives a file of root's another name.
    pub fn hard_link(&self, path: &Path) -> std::io::Result<()> {
        self.shared.store(true, Ordering::Relaxed);
        fs::hard_link(self.base().join("held/secret"), path)
    }

    /// Removes a narinfo and a NAR, so that the next export has something to do.
    pub fn forget_some(&self) {
        for file in &self.files()[1..] {
            // A race may have another thing there.
            if file.symlink_metadata().is_ok_and(|data| data.is_file() && data.nlink() == 1)
                && file
                    .parent()
                    .and_then(|folder| folder.canonicalize().ok())
                    .is_some_and(|f| f.starts_with(self.project()))
            {
                let _ = fs::remove_file(file);
            }
        }
    }

    /// What has happened outside since this was last asked.
    pub fn events(&self) -> Vec<String> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.watch, &mut buffer);
        let mut events = Vec::new();
        while let Ok(event) = reader.next() {
            // A file with a name within may be opened, to find out that it is not to be
            // read, and that name may be changed or taken away.
            let harmless = ReadFlags::OPEN | ReadFlags::CLOSE_NOWRITE | ReadFlags::ATTRIB | ReadFlags::MOVE_SELF;
            if self.shared.load(Ordering::Relaxed) && harmless.contains(event.events()) {
                continue;
            }
            events.push(format!("{:?} {:?}", event.events(), event.file_name()));
        }
        events
    }

    pub fn assert_nothing_outside(&self) {
        assert_eq!(self.events(), [""; 0]);
        assert_eq!(support::names(&self.outside()), ["secret"]);
        let folder = self.outside().metadata().expect("there");
        assert_eq!((folder.uid(), folder.gid(), folder.mode() & 0o7777), (0, 0, 0o700));
        let file = self.outside().join("secret").metadata().expect("there");
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (0, 0, 0o600));
        assert_eq!(fs::read(self.outside().join("secret")).expect("there"), b"StoreDir: /gnu/store\n");
        // Of that, this has read.
        let _ = self.events();
    }

    /// All narinfos are there, with their NARs.
    pub fn assert_whole(&self) {
        let narinfos = self.narinfos();
        assert_eq!(narinfos.len(), 3);
        for narinfo in narinfos {
            let text = fs::read(&narinfo).expect("readable");
            let narinfo = nix_narinfo::NarInfo::parse_in(&StoreDir::default(), &text).expect("whole");
            let nar = self.cache().join(narinfo.url());
            assert!(nar.symlink_metadata().expect("there").is_file(), "{}", nar.display());
            let bytes = zstd::decode_all(fs::File::open(nar).expect("there")).expect("whole");
            assert_eq!(bytes.len() as u64, narinfo.nar_size());
        }
    }

    /// Calls `visit` with all that is at `path` and below it.
    pub fn walk(&self, path: &Path, visit: &mut dyn FnMut(&Path)) {
        visit(path);
        if path.symlink_metadata().expect("there").is_dir() {
            for name in support::names(path) {
                self.walk(&path.join(name), visit);
            }
        }
    }
}
