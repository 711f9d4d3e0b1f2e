//! What was built and has not gone out yet: a queue on disk, so that nothing is lost.
//!
//! Beside the Nix database, so that whoever may build may record it:
//!
//! ```text
//! STATE/stowage/queue/TIME-RANDOM.json   one build, whole as soon as it is there
//! STATE/stowage/lock                     held by the worker that is at work
//! STATE/stowage/asked                    held by who asks it to end rather than to wait for
//!                                        what failed
//! STATE/gcroots/stowage-queue/TIME-RANDOM.N
//!                                        holds its N-th output
//! ```
//!
//! A hook makes the roots, then the file under a name that nobody reads, renames it and
//! syncs it once: a killed hook leaves a whole record or none, and a record that was
//! told of survives a crash. A worker deletes the file, and then the roots, once all has
//! gone out. What killed hooks and workers have left goes after a day.

mod record;

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use record::{now, parse};

pub use record::Record;

use crate::store::StoreLocation;

/// How names of unfinished files begin.
const PARTIAL: &str = ".tmp-";

/// From what age on an unfinished file, or a root without a record, is nobody's.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// Nothing that is read is longer, in bytes.
const MAX_RECORD: u64 = 1 << 20;

/// A record and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    name: String,
    /// What it says.
    pub record: Record,
}

/// The queue of a store.
#[derive(Clone, Debug)]
pub struct Queue {
    folder: PathBuf,
    queue: PathBuf,
    roots: PathBuf,
}

/// Says that a worker is at work, until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Queue {
    /// The queue of the store at `location`.
    #[must_use]
    pub fn new(location: &StoreLocation) -> Self {
        let folder = location.state_dir.join("stowage");
        Self { queue: folder.join("queue"), roots: location.state_dir.join("gcroots/stowage-queue"), folder }
    }

    /// Where the queue and what belongs to it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Records a build, and holds its outputs until it is [finished](Self::finish).
    ///
    /// # Errors
    /// When it can't be written. Then there is no trace of it but roots, which go later.
    pub fn push(&self, location: &StoreLocation, record: &Record) -> io::Result<()> {
        std::fs::create_dir_all(&self.queue)?;
        let name = format!("{:020}-{:016x}", now().as_nanos(), random()?);
        if !record.outputs.is_empty() {
            std::fs::create_dir_all(&self.roots)?;
        }
        for (number, output) in record.outputs().iter().enumerate() {
            symlink(location.print(output), self.roots.join(format!("{name}.{number}")))?;
        }
        self.write(&format!("{name}.json"), record)
    }

    /// All builds that have not gone out yet, the oldest first.
    ///
    /// # Errors
    /// When the queue can't be read. A record that makes no sense is set aside; one that can't
    /// be read now, or that only a newer stowage understands, stays where it is.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut names: Vec<String> = match std::fs::read_dir(&self.queue) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect(),
        };
        names.retain(|name| name.ends_with(".json") && !name.starts_with('.'));
        names.sort_unstable();
        Ok(names.into_iter().filter_map(|name| self.read(name)).collect())
    }

    /// The build of `entry` has gone out.
    ///
    /// # Errors
    /// When the record can't be deleted.
    pub fn finish(&self, entry: &Entry) -> io::Result<()> {
        match std::fs::remove_file(self.queue.join(&entry.name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        for number in 0..entry.record.outputs.len() {
            // One that is left goes later.
            let _ = std::fs::remove_file(self.roots.join(format!("{}.{number}", entry.stem())));
        }
        Ok(())
    }

    /// The build of `entry` could not go out, for `problem`: it will be tried again.
    ///
    /// # Errors
    /// When that can't be written.
    pub fn put_off(&self, entry: &Entry, problem: &str) -> io::Result<()> {
        let mut record = entry.record.clone();
        record.put_off(problem);
        self.write(&entry.name, &record)
    }

    /// The right to work on the queue, unless somebody has it.
    ///
    /// # Errors
    /// When that can't be found out, e.g. since the queue belongs to somebody else.
    pub fn lock(&self) -> io::Result<Option<Lock>> {
        self.lock_file("lock")
    }

    /// Asks the worker that is at work to end once it has nothing to do but to wait for what
    /// failed. Somebody else may have asked already.
    ///
    /// # Errors
    /// As for [`lock`](Self::lock).
    pub fn ask(&self) -> io::Result<Option<Lock>> {
        self.lock_file("asked")
    }

    /// Whether somebody asks so.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.ask().is_ok_and(|lock| lock.is_none())
    }

    fn lock_file(&self, name: &str) -> io::Result<Option<Lock>> {
        std::fs::create_dir_all(&self.folder)?;
        // Whoever can open it for reading could hold it for ever.
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(self.folder.join(name))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// Deletes what killed hooks and workers have left, once it is a day old.
    pub fn sweep(&self) {
        let names = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().collect::<Vec<_>>();
        let is_old = |entry: &std::fs::DirEntry| {
            let modified = entry.path().symlink_metadata().and_then(|metadata| metadata.modified());
            modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > ABANDONED))
        };
        for entry in names(&self.queue).iter().filter(|entry| is_old(entry)) {
            if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        for root in names(&self.roots).iter().filter(|root| is_old(root)) {
            let name = root.file_name();
            let is_ours = |(stem, number): &(&str, &str)| {
                stem.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') && number.parse::<u32>().is_ok()
            };
            let parts = name.to_str().and_then(|name| name.rsplit_once('.')).filter(is_ours);
            let stem = parts.map(|(stem, _)| stem.to_owned());
            if stem.is_some_and(|stem| !self.queue.join(format!("{stem}.json")).exists()) {
                let _ = std::fs::remove_file(root.path());
            }
        }
    }

    fn write(&self, name: &str, record: &Record) -> io::Result<()> {
        let partial = self.queue.join(format!("{PARTIAL}{:016x}", random()?));
        let mut text = serde_json::to_vec(record)?;
        text.push(b'\n');
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&partial)?;
            file.write_all(&text)?;
            std::fs::rename(&partial, self.queue.join(name))?;
            // After the rename, so that one sync brings both to the disk; before it, a
            // killed hook has told nobody that it is done.
            file.sync_all()
        };
        write().inspect_err(|_| drop(std::fs::remove_file(&partial)))
    }

    fn read(&self, name: String) -> Option<Entry> {
        let path = self.queue.join(&name);
        let read = || {
            let mut bytes = Vec::new();
            crate::fs::open_regular(&path)?.take(MAX_RECORD).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(bytes)
        };
        let bytes = match read() {
            Ok(bytes) => bytes,
            // Another worker has finished it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!("reading {}: {error}", path.display());
                return None;
            }
        };
        match parse(&bytes) {
            Ok(Some(record)) => Some(Entry { name, record }),
            Ok(None) => {
                tracing::warn!("{} was written by a newer stowage, which has to export it", path.display());
                None
            }
            Err(problem) => {
                tracing::warn!("{} is no record of a build ({problem}); it is set aside", path.display());
                let _ = std::fs::rename(&path, path.with_extension("damaged"));
                None
            }
        }
    }
}

impl Entry {
    fn stem(&self) -> &str {
        self.name.trim_end_matches(".json")
    }
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::record::LONGEST_PAUSE;
    use super::*;
    use crate::store::StoreDir;
    use crate::store::closure::tests::path;

    fn queue() -> (tempfile::TempDir, StoreLocation, Queue) {
        let root = tempfile::tempdir().expect("a folder");
        let location = StoreLocation::new(Some(root.path()), StoreDir::default(), Path::new("/nix/var/nix"));
        let queue = Queue::new(&location);
        (root, location, queue)
    }

    fn record(letter: char) -> Record {
        Record::new(Some(&path('d', "a.drv")), &[path(letter, "a"), path('b', "b")], "/cache".into())
    }

    fn roots(queue: &Queue) -> usize {
        std::fs::read_dir(&queue.roots).map_or(0, Iterator::count)
    }

    #[test]
    fn what_is_pushed_stays_in_order_and_is_held_until_it_is_finished() {
        let (_root, location, queue) = queue();
        assert!(queue.entries().expect("readable").is_empty());
        for letter in ['x', 'y', 'z'] {
            queue.push(&location, &record(letter)).expect("recorded");
        }
        let entries = queue.entries().expect("readable");
        let records: Vec<_> = entries.iter().map(|entry| entry.record.clone()).collect();
        assert_eq!(records, ['x', 'y', 'z'].map(record));
        assert_eq!(roots(&queue), 6);
        let target = std::fs::read_link(queue.roots.join(format!("{}.0", entries[0].stem()))).expect("a link");
        assert_eq!(target, Path::new(&location.print(&path('x', "a"))));
        queue.finish(&entries[1]).expect("deleted");
        queue.finish(&entries[1]).expect("was deleted");
        assert_eq!((queue.entries().expect("readable").len(), roots(&queue)), (2, 4));
    }

    #[test]
    fn what_fails_waits_longer_each_time() {
        let (_root, location, queue) = queue();
        queue.push(&location, &record('x')).expect("recorded");
        let mut waits = Vec::new();
        for _ in 0..20 {
            let entry = queue.entries().expect("readable").remove(0);
            waits.push(entry.record.wait());
            queue.put_off(&entry, "no disk").expect("written");
        }
        assert_eq!(waits[0], Duration::ZERO);
        // Times are noted in whole seconds.
        let grows = |pair: &[Duration]| pair[1] + Duration::from_secs(1) >= pair[0];
        assert!(waits.windows(2).all(grows), "{waits:?}");
        assert!(waits[19] > LONGEST_PAUSE / 2 && waits[19] <= LONGEST_PAUSE, "{waits:?}");
        let entry = queue.entries().expect("readable").remove(0);
        assert_eq!((entry.record.failures, entry.record.problem.as_deref()), (20, Some("no disk")));
        assert_eq!(roots(&queue), 2);
    }

    #[test]
    fn what_is_no_record_is_set_aside() {
        let (_root, location, queue) = queue();
        queue.push(&location, &record('x')).expect("recorded");
        let whole = serde_json::to_string(&record('y')).expect("JSON");
        for (number, text) in ["", &whole[..20], "{}", &whole.replace("outputs", "inputs")].iter().enumerate() {
            std::fs::write(queue.queue.join(format!("{number}.json")), text).expect("written");
        }
        let newer = queue.queue.join("newer.json");
        std::fs::write(&newer, whole.replace("{\"version\":1", "{\"version\":2,\"more\":1")).expect("written");
        let unreadable = queue.queue.join("unreadable.json");
        std::fs::create_dir(&unreadable).expect("made");
        assert_eq!(queue.entries().expect("readable").len(), 1);
        assert!(newer.exists() && unreadable.exists());
        let damaged = std::fs::read_dir(&queue.queue).expect("a folder").flatten();
        assert_eq!(damaged.filter(|entry| entry.path().extension().is_some_and(|end| end == "damaged")).count(), 4);
    }

    #[test]
    fn only_one_works_at_a_time() {
        let (_root, _, queue) = queue();
        let lock = queue.lock().expect("lockable");
        assert!(lock.is_some() && queue.lock().expect("lockable").is_none());
        let mode = queue.folder.join("lock").metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(lock);
        assert!(queue.lock().expect("lockable").is_some());
    }

    #[test]
    fn what_killed_runs_have_left_goes_after_a_day() {
        let (_root, location, queue) = queue();
        queue.push(&location, &record('x')).expect("recorded");
        let old = SystemTime::now() - Duration::from_secs(2 * 24 * 60 * 60);
        for name in [".tmp-0", ".tmp-1"] {
            let file = File::create(queue.queue.join(name)).expect("made");
            if name == ".tmp-0" {
                file.set_modified(old).expect("set");
            }
        }
        for (name, seconds) in [("00-0e.0", old), ("00-0f.0", SystemTime::now()), ("others.0", old)] {
            let link = queue.roots.join(name);
            symlink("/nix/store/none", &link).expect("linked");
            let seconds = seconds.duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
            let time = rustix::fs::Timespec { tv_sec: i64::try_from(seconds).expect("small"), tv_nsec: 0 };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(rustix::fs::CWD, &link, &times, flags).expect("set");
        }
        queue.sweep();
        assert!(!queue.queue.join(".tmp-0").exists() && queue.queue.join(".tmp-1").exists());
        assert_eq!(roots(&queue), 4);
        assert!(queue.roots.join("00-0e.0").symlink_metadata().is_err());
        assert!(queue.roots.join("00-0f.0").symlink_metadata().is_ok());
    }
}
