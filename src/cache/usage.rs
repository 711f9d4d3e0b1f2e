//! When the paths of a cache were last used.
//!
//! GitLab uploads a cache only where some time of a file is newer than its
//! archive. So use must not be written down whenever it happens: a job that only
//! finds what it needs must leave all as it is. But what such a job wrote would
//! be lost anyway, as nothing is uploaded. Hence:
//!
//! - The record is one small file, `stowage/used`, and not the narinfos' times.
//! - An export that adds paths records its whole closure: what it added, what was
//!   there, and what it left out. An export that adds none writes nothing.
//! - A job's end ([`refresh`]) records what the job took from the cache, too, but only where
//!   what was recorded of some of it is a week old: then the record is worth an upload.
//!   GitLab.com drops caches that had none for two weeks.
//! - `stowage cache gc` drops what is gone, if something is.
//! - A path without a record was last used when its narinfo was written, which is
//!   what Nix's own `nix copy` leaves behind.
//!
//! So a time is that of the last upload that mattered, and may be up to a week older than
//! the last use by a job that has a beginning and an end, and never newer.
//!
//! ```text
//! stowage-used 1
//! HASH SECONDS DERIVER  the hash part of a path; seconds since the epoch; the base
//!                       name of its derivation, or `-`
//! HASH 0 -              what an export left out on purpose
//! ```
//!
//! The derivations are for `stowage cache check`: of a path whose narinfo is gone,
//! they tell which others are its siblings. So is what was left out: nobody lost it.
//!
//! Lines that are none are passed over: the worst is that a path goes too early,
//! and is built again. Two exports at the same time may lose each other's record.
//!
//! In a bucket nothing is uploaded that is there already, and nobody is locked out. So each
//! export writes a record of its own, whatever it adds, `stowage/used/DAY-RANDOM`, and `gc` makes
//! one of them all. Before it looks for anything it writes `stowage/begun/DAY-RANDOM`, about all
//! that it may find or add, and deletes that at its end: from then on `gc` knows what to leave
//! alone, or to put back; see [`gc`](super::gc).

mod text;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::time::{Duration, SystemTime};

use super::beneath::manage::{Entry, Lock};
use super::check::metadata::hash_part;
use super::narinfo;
use super::scan::sum;
use super::shelf::{Shelf, ShelfError, Version};
use crate::parallel::parallel;
use crate::store::{Closure, NodeId, StorePath};
pub use text::{Use, Used};
use text::{merge, parse, render};

/// The folder for what stowage alone reads.
pub const FOLDER: &str = "stowage";

const FILE: &str = "used";

/// In a bucket, the folder of what exports have begun and not ended.
const BEGUN: &str = "begun";

/// No record is longer, in bytes.
const LIMIT: u64 = 64 << 20;

/// How many paths are in one that is made of several: lines have 270 bytes at the most.
const MOST: usize = 200_000;

/// How often the records are listed where some went meanwhile.
const TRIES: u32 = 4;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How old a record may be of what is used again and again.
const REFRESH: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long an export waits for somebody who deletes. A hook can't wait for ever
/// for a user who may hold the lock on purpose.
const PATIENCE: Duration = Duration::from_secs(10);

/// All that is recorded, and in which files.
#[derive(Debug, Default)]
pub struct Records {
    /// What is used, or may be about to be.
    pub used: Used,
    seen: BTreeSet<(&'static str, String)>,
    /// Those of `seen` that nobody here can read: another version's, say.
    foreign: BTreeSet<String>,
}

/// What an export has begun with, until it ends.
#[must_use]
pub struct Begun<'a> {
    root: &'a Shelf,
    /// Its record, where others can only be told by one.
    name: Option<String>,
}

/// Keeps others from deleting what `closure` has, in the cache in `root`, for as long as that is
/// open, or until the end.
///
/// # Errors
/// When others can't be told.
pub fn hold<'a>(root: &'a Shelf, closure: &Closure) -> Result<Begun<'a>, ShelfError> {
    if root.is_shared() {
        let time = seconds(SystemTime::now());
        let all = closure.infos().iter();
        let used = all.map(|info| (hash_part(&info.path), Use { time, deriver: info.deriver.clone() })).collect();
        return Ok(Begun { root, name: Some(add(root, BEGUN, &used)?) });
    }
    if !root.lock(Lock::Adding, PATIENCE) {
        tracing::warn!("somebody deletes from the cache; paths may be missing there that others refer to");
    }
    Ok(Begun { root, name: None })
}

impl Begun<'_> {
    /// Says that it has ended. Where that can't be said, the record is nobody's in a day.
    pub fn end(self) {
        if let Some(name) = &self.name {
            let folder = self.root.folder(FOLDER).and_then(|folder| folder.folder(BEGUN));
            if let Err(error) = folder.and_then(|folder| folder.remove(OsStr::new(name))) {
                tracing::debug!("{error}");
            }
        }
    }
}

/// Records that those of `closure` which were `wanted` in the cache in `root` are used now.
/// The export does not fail for it; tells whether it is recorded.
pub fn record(root: &Shelf, closure: &Closure, wanted: &dyn Fn(NodeId) -> bool) -> bool {
    let write = || -> Result<(), ShelfError> {
        // Others have records of their own in a bucket.
        let mut used = if root.is_shared() { Used::new() } else { read(root)? };
        let time = seconds(SystemTime::now());
        for (id, info) in closure.infos().iter().enumerate() {
            let hash = hash_part(&info.path);
            if wanted(id) {
                used.insert(hash, Use { time, deriver: info.deriver.clone() });
            } else {
                used.entry(hash).or_insert(Use::LEFT_OUT);
            }
        }
        if root.is_shared() { add(root, FILE, &used).map(drop) } else { self::write(root, &used) }
    };
    let result = write();
    if let Err(error) = &result {
        tracing::warn!("what is used is not recorded: {error}");
    }
    result.is_ok()
}

/// Records that those of `paths` that are in the cache in `root` are used now, if that was last
/// recorded of some of them a week ago, or never.
///
/// # Errors
/// When it can't be read or written.
pub fn refresh(root: &Shelf, paths: &[StorePath]) -> Result<(), ShelfError> {
    let mut used = if root.is_shared() { Used::new() } else { read(root)? };
    let time = seconds(SystemTime::now());
    let hashes: Vec<String> = present(root, paths)?.into_iter().map(hash_part).collect();
    let is_old = |hash: &String| used.get(hash).is_none_or(|one| one.time + REFRESH.as_secs() < time);
    if !hashes.iter().any(is_old) {
        return Ok(());
    }
    for hash in hashes {
        used.entry(hash).or_default().time = time;
    }
    if root.is_shared() { add(root, FILE, &used).map(drop) } else { write(root, &used) }
}

/// Those of `paths` that are in the cache in `root`, as far as narinfos tell. The first that a bucket
/// does not answer is the last that it is asked for.
///
/// # Errors
/// When that can't be found out.
pub fn present<'a>(root: &Shelf, paths: &'a [StorePath]) -> Result<Vec<&'a StorePath>, ShelfError> {
    let mut present = Vec::new();
    let together = if root.is_shared() { root.threads(1) } else { paths.len().max(1) };
    for some in paths.chunks(together) {
        let sizes = parallel(some, root.threads(1), |path| root.size(&narinfo::file_name(path)));
        for (path, size) in some.iter().zip(sizes) {
            match size {
                Ok(Some(_)) => present.push(path),
                // In a folder one may be unreadable.
                Ok(None) | Err(ShelfError::Folder(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(present)
}

/// Reads what was recorded.
///
/// # Errors
/// When it can't be read.
pub fn read(root: &Shelf) -> Result<Used, ShelfError> {
    Ok(read_new(root, &[FILE], &Records::default())?.used)
}

/// Reads what was recorded, and what others have begun.
///
/// # Errors
/// When it can't be read.
pub fn read_all(root: &Shelf) -> Result<Records, ShelfError> {
    read_new(root, &[BEGUN, FILE], &Records::default())
}

/// Reads what others have recorded or begun since `records` were read.
///
/// # Errors
/// When it can't be read.
pub fn read_since(root: &Shelf, records: &Records) -> Result<Records, ShelfError> {
    if root.is_shared() { read_new(root, &[BEGUN, FILE], records) } else { Ok(Records::default()) }
}

/// Reads what is in `folders` of a bucket and not among `known`; in a folder there is one file.
/// Whoever ends records what he used, and then drops what he had begun: so what is begun is
/// read first.
fn read_new(root: &Shelf, folders: &[&'static str], known: &Records) -> Result<Records, ShelfError> {
    let Some(folder) = root.existing(FOLDER)? else {
        return Ok(Records::default());
    };
    if !root.is_shared() {
        let contents = folder.read(FILE, LIMIT)?.unwrap_or_default();
        return Ok(Records { used: parse(&contents).unwrap_or_default(), ..Records::default() });
    }
    let mut records = Records::default();
    for kind in folders.iter().copied() {
        let folder = folder.folder(kind)?;
        // Of several gc makes one, and deletes them: then that one is there by now.
        for _ in 0..TRIES {
            let is_new = |name: &String| !known.seen.contains(&(kind, name.clone()));
            let names: Vec<String> = names(&folder)?.into_iter().filter(is_new).collect();
            if read_into(&mut records, &folder, kind, &names)? || kind == BEGUN {
                break;
            }
        }
    }
    Ok(records)
}

/// Reads the records `names`, a few at a time; tells whether all were there.
fn read_into(records: &mut Records, folder: &Shelf, kind: &'static str, names: &[String]) -> Result<bool, ShelfError> {
    let mut are_there = true;
    for some in names.chunks(folder.threads(1)) {
        for (name, contents) in some.iter().zip(parallel(some, some.len(), |name| folder.look(name, LIMIT))) {
            let (contents, version) = contents?;
            if version == Version::NONE {
                are_there = false;
                continue;
            }
            match contents.as_deref().and_then(parse) {
                Some(used) => merge(&mut records.used, used),
                None => drop(records.foreign.insert(name.clone())),
            }
            records.seen.insert((kind, name.clone()));
        }
    }
    Ok(are_there)
}

/// Records `used`, and nothing else, in a folder.
///
/// # Errors
/// When it can't be written.
pub fn write(root: &Shelf, used: &Used) -> Result<(), ShelfError> {
    root.folder(FOLDER)?.write(FILE, render(used).as_bytes())
}

/// Drops from the record what is not to be kept; of several records in a bucket it makes one.
///
/// # Errors
/// When it can't be read or written.
pub fn retain(root: &Shelf, keep: &dyn Fn(&str, &Use) -> bool) -> Result<(), ShelfError> {
    let Records { mut used, mut seen, foreign } = read_new(root, &[FILE], &Records::default())?;
    seen.retain(|(_, name)| !foreign.contains(name));
    let before = used.len();
    used.retain(|hash, one| keep(hash, one));
    if !root.is_shared() {
        return if used.len() == before { Ok(()) } else { write(root, &used) };
    }
    if used.len() == before && seen.len() <= 1 {
        return Ok(());
    }
    // One that is too large would be read by nobody.
    let mut left = used.into_iter().peekable();
    while left.peek().is_some() {
        add(root, FILE, &left.by_ref().take(MOST).collect())?;
    }
    // Nobody changes a record that is there, so what is deleted is what was read.
    let folder = root.folder(FOLDER)?.folder(FILE)?;
    seen.iter().try_for_each(|(_, name)| folder.remove(OsStr::new(name)))
}

/// Drops what was begun `age` ago in a bucket: whoever began it was killed.
///
/// # Errors
/// When it can't be deleted.
pub fn drop_begun(root: &Shelf, age: Duration) -> Result<(), ShelfError> {
    if !root.is_shared() {
        return Ok(());
    }
    let folder = root.folder(FOLDER)?.folder(BEGUN)?;
    let is_old = |entry: &Entry| SystemTime::now().duration_since(entry.modified).is_ok_and(|since| since > age);
    folder.entries()?.iter().filter(|entry| is_old(entry)).try_for_each(|entry| folder.remove(&entry.name))
}

/// How large the records are, in bytes.
///
/// # Errors
/// When that can't be found out.
pub fn size(root: &Shelf) -> Result<u64, ShelfError> {
    let Some(folder) = root.existing(FOLDER)? else { return Ok(0) };
    let mut size = sum(&folder.entries()?);
    for kind in [FILE, BEGUN].into_iter().filter(|_| root.is_shared()) {
        size += sum(&folder.folder(kind)?.entries()?);
    }
    Ok(size)
}

/// Adds a record of one's own, and tells its name.
fn add(root: &Shelf, kind: &str, used: &Used) -> Result<String, ShelfError> {
    let day = seconds(SystemTime::now()) / DAY.as_secs();
    let name = format!("{day}-{}", unused_name(root)?);
    root.folder(FOLDER)?.folder(kind)?.write(&name, render(used).as_bytes())?;
    Ok(name)
}

/// A name that nobody else has, nor can guess.
///
/// # Errors
/// When the system has no random numbers.
pub fn unused_name(root: &Shelf) -> Result<String, ShelfError> {
    let mut random = [0; 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| root.failure(FOLDER, errno.into()))?;
    Ok(crate::digest::hex(&random))
}

fn names(folder: &Shelf) -> Result<Vec<String>, ShelfError> {
    Ok(folder.entries()?.into_iter().filter_map(|entry| entry.name.into_string().ok()).collect())
}

/// How many seconds since the epoch that is.
#[must_use]
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
