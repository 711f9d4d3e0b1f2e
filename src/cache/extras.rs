//! What a cache may have beside NARs: listings of their files, and logs of builds.
//!
//! Nobody fails for want of them, so where the store can't give one, that is a warning; where
//! the cache can't be written, it is an error as for NARs.
//!
//! Source for logs: Nix's `LocalFSStore::getBuildLogExact`, which finds them, and
//! `BinaryCacheStore::addBuildLog`, which puts them into a cache.

use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};

use bzip2::read::MultiBzDecoder;

use super::shelf::ShelfError;
use super::{CacheFolder, listing};
use crate::fs;
use crate::store::{PathInfo, StorePath};
use crate::tree::{Entry, StoreFiles};

/// How much of a log is in memory.
const BUFFER_SIZE: usize = 64 * 1024;

/// Adds the listing of the files of `info`'s path, unless there is one. `entries` are what it
/// was walked to, if it was.
///
/// # Errors
/// When the cache can't be written.
pub fn add_listing(
    cache: &CacheFolder,
    files: &StoreFiles,
    info: &PathInfo,
    entries: Option<Vec<Entry>>,
) -> Result<(), ShelfError> {
    if cache.has_listing(&info.path)? {
        return Ok(());
    }
    let name = info.path.to_basename();
    match entries.map_or_else(|| files.walk(&info.path), Ok) {
        Err(error) => tracing::warn!("{name} gets no listing: {error}"),
        Ok(entries) => match listing::render(&entries) {
            None => tracing::warn!("{name} gets no listing: it has a file whose name is no UTF-8"),
            Some(listing) => cache.write_listing(&info.path, &listing)?,
        },
    }
    Ok(())
}

/// Adds the log of the build that made `info`'s path, if Nix has one in its folder `logs`,
/// unless it is there.
///
/// # Errors
/// When the cache can't be written.
pub fn add_log(cache: &CacheFolder, logs: &Path, info: &PathInfo) -> Result<(), ShelfError> {
    let Some(drv) = derivation(info) else {
        return Ok(());
    };
    let name = drv.to_basename();
    if cache.has_log(drv)? {
        return Ok(());
    }
    let Some(mut log) = open(logs, &name) else {
        return Ok(());
    };
    let mut draft = cache.new_log(drv)?;
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        let length = match log.read(&mut buffer) {
            Ok(0) => return draft.finish().map(drop),
            Ok(length) => length,
            Err(error) => {
                tracing::warn!("the log of {name} is not kept, since it can't be read: {error}");
                return Ok(());
            }
        };
        draft.write_all(&buffer[..length]).map_err(|source| cache.log_failure(&name, source))?;
    }
}

/// The derivation that `info`'s path is, or was made by.
fn derivation(info: &PathInfo) -> Option<&StorePath> {
    if info.path.name().ends_with(".drv") { Some(&info.path) } else { info.deriver.as_ref() }
}

/// The log of the derivation `name`, uncompressed, in the first place that has one.
fn open(logs: &Path, name: &str) -> Option<Box<dyn Read>> {
    let (first, rest) = name.split_at_checked(2)?;
    for plain in [logs.join("drvs").join(first).join(rest), logs.join("drvs").join(name)] {
        if let Ok(file) = fs::open_regular(&plain) {
            return Some(Box::new(file));
        }
        let mut compressed = plain.into_os_string();
        compressed.push(".bz2");
        if let Ok(file) = fs::open_regular(&PathBuf::from(compressed)) {
            return Some(Box::new(MultiBzDecoder::new(file)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::closure::tests::path;
    use crate::store::{NarHash, StoreDir};

    /// `bzip2` of "building fx-b\n", as Nix 2.8.0 keeps it.
    const LOG: &[u8] = &[
        0x42, 0x5a, 0x68, 0x39, 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, 0x21, 0xb2, 0x6d, 0x80, 0x00, 0x00, 0x02, 0x51,
        0x80, 0x00, 0x10, 0x40, 0x02, 0x15, 0xa5, 0x02, 0x40, 0x20, 0x00, 0x31, 0x03, 0x40, 0xd0, 0x20, 0x00, 0xc9,
        0x16, 0x6a, 0x7a, 0xc1, 0xe2, 0x80, 0xf8, 0xbb, 0x92, 0x29, 0xc2, 0x84, 0x81, 0x0d, 0x93, 0x6c, 0x00,
    ];

    fn add(cache: &Path, logs: &Path, info: &PathInfo) {
        let cache = CacheFolder::open(cache, &StoreDir::default()).expect("opens");
        add_log(&cache, logs, info).expect("writes");
    }

    #[test]
    fn logs_are_found_where_nix_keeps_them() {
        let drv = path('d', "a.drv");
        let name = drv.to_basename();
        let (first, rest) = name.split_at(2);
        let built = PathInfo {
            deriver: Some(drv.clone()),
            ..PathInfo::new(path('a', "a"), NarHash::new([7; 32]), 1, Vec::new())
        };
        let itself = PathInfo::new(drv, NarHash::new([7; 32]), 1, Vec::new());
        for (place, contents) in [
            (format!("drvs/{first}/{rest}.bz2"), LOG),
            (format!("drvs/{first}/{rest}"), b"building fx-b\n"),
            (format!("drvs/{name}.bz2"), LOG),
            (format!("drvs/{name}"), b"building fx-b\n"),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let (cache, logs) = (folder.path().join("cache"), folder.path().join("logs"));
            let log = cache.join("log").join(&name);
            add(&cache, &logs, &built);
            assert!(!log.exists());
            std::fs::create_dir_all(logs.join(&place).parent().expect("has one")).expect("made");
            std::fs::write(logs.join(&place), contents).expect("written");
            for info in [&built, &itself] {
                add(&cache, &logs, info);
                assert_eq!(std::fs::read_to_string(&log).expect("there"), "building fx-b\n", "{place}");
                std::fs::remove_file(&log).expect("removed");
            }
        }
    }

    #[test]
    fn a_log_that_is_cut_off_is_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cache, logs) = (folder.path().join("cache"), folder.path().join("logs"));
        let drv = PathInfo::new(path('d', "a.drv"), NarHash::new([7; 32]), 1, Vec::new());
        std::fs::create_dir_all(logs.join("drvs")).expect("made");
        let log = logs.join("drvs").join(format!("{}.bz2", drv.path.to_basename()));
        std::fs::write(log, &LOG[..LOG.len() - 10]).expect("written");
        add(&cache, &logs, &drv);
        assert_eq!(std::fs::read_dir(cache.join("log")).expect("a folder").count(), 0);
    }
}
