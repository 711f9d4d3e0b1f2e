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

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::{Duration, SystemTime};

use super::beneath::manage::Lock;
use super::beneath::{Folder, FolderError};
use super::check::metadata::hash_part;
use super::narinfo;
use crate::store::{Closure, NodeId, StorePath};

/// The folder for what stowage alone reads.
pub const FOLDER: &str = "stowage";

const FILE: &str = "used";
const HEADER: &str = "stowage-used 1";

/// No record is longer, in bytes: that is one of a million paths.
const LIMIT: u64 = 64 << 20;

/// How old a record may be of what is used again and again.
const REFRESH: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long an export waits for somebody who deletes. A hook can't wait for ever
/// for a user who may hold the lock on purpose.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is recorded of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// When it was used, in seconds since the epoch.
    pub time: u64,
    /// The derivation that it is an output of.
    pub deriver: Option<StorePath>,
}

/// What is recorded of paths, by their hash parts.
pub type Used = BTreeMap<String, Use>;

/// Keeps others from deleting in the cache in `root` for as long as that is open.
pub fn hold(root: &Folder) {
    if !root.lock(Lock::Adding, PATIENCE) {
        let dir = root.path().display();
        tracing::warn!("somebody deletes from {dir}; paths may be missing there that others refer to");
    }
}

impl Use {
    /// Of a path that was left out.
    const LEFT_OUT: Self = Self { time: 0, deriver: None };

    /// Whether the path was left out.
    #[must_use]
    pub fn is_left_out(&self) -> bool {
        *self == Self::LEFT_OUT
    }
}

/// Records that those of `closure` which were `wanted` in the cache in `root` are used now.
/// The export does not fail for it.
pub fn record(root: &Folder, closure: &Closure, wanted: &dyn Fn(NodeId) -> bool) {
    let write = || -> Result<(), FolderError> {
        let mut used = read(root)?;
        let time = seconds(SystemTime::now());
        for (id, info) in closure.infos().iter().enumerate() {
            let hash = hash_part(&info.path);
            if wanted(id) {
                used.insert(hash, Use { time, deriver: info.deriver.clone() });
            } else {
                used.entry(hash).or_insert(Use::LEFT_OUT);
            }
        }
        self::write(root, &used)
    };
    if let Err(error) = write() {
        tracing::warn!("what is used is not recorded: {error}");
    }
}

/// Records that those of `paths` that are in the cache in `root` are used now, if that was last
/// recorded of some of them a week ago, or never.
///
/// # Errors
/// When it can't be read or written.
pub fn refresh(root: &Folder, paths: &[StorePath]) -> Result<(), FolderError> {
    let mut used = read(root)?;
    let time = seconds(SystemTime::now());
    let is_here = |path: &&StorePath| matches!(root.size(&narinfo::file_name(path)), Ok(Some(_)));
    let hashes: Vec<String> = paths.iter().filter(is_here).map(hash_part).collect();
    let is_old = |hash: &String| used.get(hash).is_none_or(|one| one.time + REFRESH.as_secs() < time);
    if !hashes.iter().any(is_old) {
        return Ok(());
    }
    for hash in hashes {
        used.entry(hash).or_default().time = time;
    }
    write(root, &used)
}

/// Reads what was recorded.
///
/// # Errors
/// When it can't be read.
pub fn read(root: &Folder) -> Result<Used, FolderError> {
    let contents = match root.existing(FOLDER)? {
        Some(folder) => folder.read(FILE, LIMIT)?.unwrap_or_default(),
        None => Vec::new(),
    };
    Ok(parse(&String::from_utf8_lossy(&contents)))
}

/// Records `used`, and nothing else.
///
/// # Errors
/// When it can't be written.
pub fn write(root: &Folder, used: &Used) -> Result<(), FolderError> {
    root.folder(OsStr::new(FOLDER))?.write(FILE, render(used).as_bytes())
}

/// How many seconds since the epoch that is.
#[must_use]
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn parse(text: &str) -> Used {
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return Used::new();
    }
    let entry = |line: &str| {
        let mut fields = line.split(' ');
        let (hash, time) = (fields.next()?.to_owned(), fields.next()?.parse().ok()?);
        let deriver = fields.next().and_then(|name| StorePath::from_basename(name.as_bytes()).ok());
        Some((hash, Use { time, deriver }))
    };
    lines.filter_map(entry).collect()
}

fn render(used: &Used) -> String {
    let line = |(hash, one): (&String, &Use)| {
        let deriver = one.deriver.as_ref().map_or_else(|| "-".to_owned(), StorePath::to_basename);
        format!("{hash} {} {deriver}\n", one.time)
    };
    let lines = used.iter().map(line);
    std::iter::once(format!("{HEADER}\n")).chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::closure::tests::path;

    #[test]
    fn a_record_is_read_as_it_was_written_and_damage_passed_over() {
        let deriver = Some(path('d', "x.drv"));
        let used: Used =
            [("a".to_owned(), Use { time: 7, deriver }), ("b".to_owned(), Use { time: 1_700_000_000, deriver: None })]
                .into();
        let text = "stowage-used 1\na 7 dddddddddddddddddddddddddddddddd-x.drv\nb 1700000000 -\n";
        assert_eq!(render(&used), text);
        assert_eq!(parse(text), used);
        assert_eq!(parse(&text.replace("b 17", "x\nc -1\nb 17")), used);
        assert!(parse("stowage-used 2\na 7\n").is_empty());
        assert!(parse("").is_empty());
    }
}
