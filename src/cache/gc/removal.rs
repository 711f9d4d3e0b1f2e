//! Deletes from a cache, in an order that leaves it whole wherever it ends.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

use super::lease::Lease;
use super::{ABANDONED, Rubbish};
use crate::cache::beneath::manage::{Entry, Kind};
use crate::cache::check::metadata::{self, hash_part};
use crate::cache::check::realisations::{self, Realisation};
use crate::cache::scan::{Path, Scan};
use crate::cache::shelf::{Shelf, ShelfError, Version};
use crate::cache::{narinfo, usage};
use crate::parallel::parallel;
use crate::store::{StoreDir, StorePath};

/// After how many it is said that one is still at work.
const BATCH: usize = 256;

/// Deletes, or only counts.
pub struct Removal<'a> {
    root: &'a Shelf,
    scan: &'a Scan,
    /// Where there is none, nothing is deleted.
    lease: Option<Lease<'a>>,
    /// How much went, in bytes.
    pub size: u64,
    /// How many files went that were no path's.
    pub others: usize,
    /// The NARs that went.
    nars: HashSet<OsString>,
}

/// A narinfo that is deleted.
struct Deleted {
    at: usize,
    /// What it held then, where others may want it back.
    text: Option<Vec<u8>>,
}

impl<'a> Removal<'a> {
    /// Deletes from `root` what is in `scan`, if there is a lease.
    pub fn new(root: &'a Shelf, scan: &'a Scan, lease: Option<Lease<'a>>) -> Self {
        Self { root, scan, lease, size: 0, others: 0, nars: HashSet::new() }
    }

    /// Deletes the paths `gone`, in that order, but for those that somebody needs who has begun
    /// since `records` were read: these are put back, and no longer among `gone`.
    ///
    /// # Errors
    /// When something can't be deleted or put back.
    pub fn paths(&mut self, records: &usage::Records, gone: &mut Vec<usize>) -> Result<(), ShelfError> {
        let (deleted, result) = self.narinfos(gone);
        if self.lease.is_some() {
            // However that ended: what others have found must be there.
            let claimed = usage::read_since(self.root, records)?.used;
            self.put_back(&deleted, gone, &claimed)?;
        }
        result?;
        self.nars(gone)?;
        self.logs_and_listings(gone)
    }

    /// Does the same with many things at once, as far as it is done here.
    fn each<T: Sync, R: Send>(
        &mut self,
        items: &[T],
        work: impl Fn(&T) -> Result<R, ShelfError> + Sync,
        mut done: impl FnMut(&mut Self, &T, R),
    ) -> Result<(), ShelfError> {
        for batch in items.chunks(BATCH) {
            if let Some(lease) = &mut self.lease {
                lease.renew()?;
            }
            let results = parallel(batch, self.root.threads(1), &work);
            let mut failure = Ok(());
            for (item, result) in batch.iter().zip(results) {
                match result {
                    Ok(result) => done(self, item, result),
                    Err(error) => failure = failure.and(Err(error)),
                }
            }
            failure?;
        }
        Ok(())
    }

    /// Narinfos, those that need others first. Whatever happens, tells which.
    fn narinfos(&mut self, gone: &[usize]) -> (Vec<Deleted>, Result<(), ShelfError>) {
        let (root, scan, is_dry) = (self.root, self.scan, self.lease.is_none());
        let mut deleted = Vec::new();
        let delete = |at: &usize| {
            let name = format!("{}.narinfo", scan.paths[*at].hash);
            if is_dry {
                return Ok(None);
            }
            // Somebody may have signed it since.
            let text = if root.is_shared() { root.read(&name, narinfo::SIZE_LIMIT)? } else { None };
            root.remove(OsStr::new(&name)).map(|()| text)
        };
        for level in levels(&scan.paths, gone) {
            let result = self.each(&level, delete, |own, at, text| {
                own.size += scan.paths[*at].size;
                deleted.push(Deleted { at: *at, text });
            });
            if result.is_err() {
                // What failed may be gone nevertheless.
                let known: HashSet<usize> = deleted.iter().map(|one| one.at).collect();
                let unsure = level.into_iter().filter(|at| !known.contains(at));
                let text = |at: &usize| Some(scan.paths[*at].metadata.narinfo.to_canonical_bytes());
                deleted.extend(unsure.map(|at| Deleted { text: text(&at), at }));
                return (deleted, result);
            }
        }
        (deleted, Ok(()))
    }

    /// Puts the narinfos back of what somebody has found while they were being deleted.
    fn put_back(
        &mut self,
        deleted: &[Deleted],
        gone: &mut Vec<usize>,
        claimed: &usage::Used,
    ) -> Result<(), ShelfError> {
        let claimed = needed(&self.scan.paths, gone, claimed);
        let mut failure = Ok(());
        // What is needed went last, and comes back first.
        for Deleted { at, text } in deleted.iter().rev().filter(|one| claimed.contains(&one.at)) {
            let path = &self.scan.paths[*at];
            if let Some(text) = text {
                let put = self.root.replace(&format!("{}.narinfo", path.hash), text, &Version::NONE);
                failure = failure.and(put.map(drop));
            }
            self.size = self.size.saturating_sub(path.size);
        }
        gone.retain(|at| !claimed.contains(at));
        failure
    }

    /// The paths that are `gone`, and the others.
    fn parted(&self, gone: &[usize]) -> (Vec<&'a Path>, Vec<&'a Path>) {
        let gone: HashSet<usize> = gone.iter().copied().collect();
        let (going, staying): (Vec<_>, Vec<_>) =
            self.scan.paths.iter().enumerate().partition(|(at, _)| gone.contains(at));
        let paths = |some: Vec<(usize, &'a Path)>| some.into_iter().map(|(_, path)| path).collect();
        (paths(going), paths(staying))
    }

    /// NARs that only what is gone named.
    fn nars(&mut self, gone: &[usize]) -> Result<(), ShelfError> {
        let (going, staying) = self.parted(gone);
        let nar = |path: &&'a Path| (&path.metadata.nar_file[..], path.nar_size);
        let mut nars: HashSet<(&str, Option<u64>)> = going.iter().map(nar).collect();
        for one in staying.iter().map(nar) {
            nars.remove(&one);
        }
        let mut nars: Vec<(OsString, u64)> =
            nars.into_iter().map(|(name, size)| (name.into(), size.unwrap_or(0))).collect();
        nars.sort();
        self.delete_nars(&nars).map(drop)
    }

    /// Tells how many went.
    fn delete_nars(&mut self, nars: &[(OsString, u64)]) -> Result<usize, ShelfError> {
        let Some(folder) = self.root.existing("nar")? else { return Ok(0) };
        let (root, is_dry) = (self.root, self.lease.is_none());
        let now = SystemTime::now();
        let is_new = |entry: &&Entry| now.duration_since(entry.modified).is_ok_and(|age| age < ABANDONED);
        let new: HashSet<&OsStr> = self.scan.nars.iter().filter(is_new).map(|entry| &*entry.name).collect();
        // Others write those anew that they need.
        let delete = |(name, _): &(OsString, u64)| match is_dry {
            true => Ok(!root.is_shared() || !new.contains(&**name)),
            false => folder.remove_older(name, ABANDONED),
        };
        let before = self.nars.len();
        self.each(nars, delete, |own, (name, size), is_gone| {
            if is_gone {
                own.size += size;
                own.nars.insert(name.clone());
            }
        })?;
        Ok(self.nars.len() - before)
    }

    /// Listings of what is gone, and logs of what made only that.
    fn logs_and_listings(&mut self, gone: &[usize]) -> Result<(), ShelfError> {
        let there: HashSet<&OsStr> = self.scan.entries.iter().map(|entry| &*entry.name).collect();
        let listings = gone.iter().map(|at| format!("{}.ls", self.scan.paths[*at].hash));
        let listings: Vec<(OsString, u64)> =
            listings.filter(|name| there.contains(OsStr::new(name))).map(|name| (name.into(), 0)).collect();
        self.files(self.root, &listings)?;
        let (going, staying) = self.parted(gone);
        let deriver = |path: &&'a Path| path.metadata.narinfo.deriver().map(StorePath::to_basename);
        let mut logs: HashSet<String> = going.iter().filter_map(deriver).collect();
        for one in staying.iter().filter_map(deriver) {
            logs.remove(&one);
        }
        let Some(folder) = self.root.existing("log")?.filter(|_| !logs.is_empty()) else { return Ok(()) };
        let mut found = Vec::new();
        for entry in folder.entries()? {
            let name = entry.name.to_string_lossy();
            // Compressed ones end in .bz2 and the like.
            let deriver = name.find(".drv").map_or(&*name, |at| &name[..at + 4]);
            if let (true, Kind::File(size)) = (logs.contains(deriver), entry.kind) {
                found.push((entry.name.clone(), size));
            }
        }
        self.files(&folder, &found).map(drop)
    }

    /// Tells how many went.
    fn files(&mut self, folder: &Shelf, files: &[(OsString, u64)]) -> Result<usize, ShelfError> {
        let is_dry = self.lease.is_none();
        let delete = |(name, _): &(OsString, u64)| if is_dry { Ok(()) } else { folder.remove(name) };
        self.each(files, delete, |own, (_, size), ()| own.size += size).map(|()| files.len())
    }

    /// Deletes narinfos that somebody wrote when NARs had just been deleted here which he had
    /// written. `records` are what was known before.
    ///
    /// # Errors
    /// When that can't be found out, or they not be deleted.
    pub fn drop_bereft(&mut self, records: &usage::Records, store_dir: &StoreDir) -> Result<(), ShelfError> {
        let root = self.root;
        let Some(folder) = root.existing("nar")?.filter(|_| self.lease.is_some() && root.is_shared()) else {
            return Ok(());
        };
        let nars = std::mem::take(&mut self.nars);
        if nars.is_empty() {
            return Ok(());
        }
        let claimed: Vec<String> = usage::read_since(root, records)?.used.into_keys().collect();
        let drop_one = |hash: &String| -> Result<(), ShelfError> {
            let name = format!("{hash}.narinfo");
            let contents = root.read(&name, narinfo::SIZE_LIMIT)?.unwrap_or_default();
            let Ok(metadata) = metadata::judge(store_dir, &name, &contents) else { return Ok(()) };
            let nar = &metadata.nar_file;
            if nars.contains(OsStr::new(nar)) && folder.size(nar)?.is_none() {
                tracing::warn!("{name} goes, since its NAR went while somebody wrote it; the next export adds both");
                root.remove(OsStr::new(&name))?;
            }
            Ok(())
        };
        self.each(&claimed, drop_one, |_, _, ()| {})
    }

    /// What no path needs.
    ///
    /// # Errors
    /// When it can't be deleted.
    pub fn rubbish(&mut self, rubbish: &Rubbish) -> Result<(), ShelfError> {
        for (name, files) in &rubbish.0 {
            self.others += match *name {
                "" => self.files(self.root, files)?,
                "nar" => self.delete_nars(files)?,
                name => match self.root.existing(name)? {
                    Some(folder) => self.files(&folder, files)?,
                    None => 0,
                },
            };
        }
        Ok(())
    }

    /// Realisations of what is gone, and those that depend on them.
    ///
    /// # Errors
    /// When they can't be read or deleted.
    pub fn realisations(&mut self) -> Result<(), ShelfError> {
        let Some(folder) = self.root.existing("realisations")? else { return Ok(()) };
        let names: Vec<String> =
            folder.entries()?.into_iter().filter_map(|entry| entry.name.into_string().ok()).collect();
        let root = self.root;
        let look = |name: &String| -> Result<Option<(Realisation, bool)>, ShelfError> {
            let contents = folder.read(name, narinfo::SIZE_LIMIT)?.unwrap_or_default();
            let Ok(realisation) = realisations::judge(name, &contents) else { return Ok(None) };
            let is_gone = match realisation.out_path() {
                Some(path) => root.size(&narinfo::file_name(&path))?.is_none(),
                None => false,
            };
            Ok(Some((realisation, is_gone)))
        };
        let (mut left, mut gone): (_, Vec<(OsString, u64)>) = (Vec::new(), Vec::new());
        self.each(&names, look, |_, name, found| match found {
            Some((_, true)) => gone.push((name.into(), 0)),
            Some((realisation, false)) => left.push(realisation),
            None => {}
        })?;
        gone.extend(realisations::incomplete(&left).into_iter().map(|(name, _)| (name.into(), 0)));
        self.files(&folder, &gone).map(drop)
    }
}

/// `gone` in levels: what a path refers to is in a later one than the path.
fn levels(paths: &[Path], gone: &[usize]) -> Vec<Vec<usize>> {
    let known = by_hash(paths, gone);
    let mut level: HashMap<usize, usize> = HashMap::new();
    let mut levels: Vec<Vec<usize>> = Vec::new();
    for at in gone {
        let own = level.get(at).copied().unwrap_or(0);
        levels.resize_with(levels.len().max(own + 1), Vec::new);
        levels[own].push(*at);
        for reference in paths[*at].metadata.references().filter_map(|path| known.get(&hash_part(path)[..])) {
            let later = level.entry(*reference).or_default();
            *later = (*later).max(own + 1);
        }
    }
    levels
}

/// Those of `gone` that are claimed, and what they refer to, and all outputs of what made these.
fn needed(paths: &[Path], gone: &[usize], claimed: &usage::Used) -> HashSet<usize> {
    let known = by_hash(paths, gone);
    let mut siblings: HashMap<&StorePath, Vec<usize>> = HashMap::new();
    for at in gone {
        if let Some(deriver) = paths[*at].metadata.narinfo.deriver() {
            siblings.entry(deriver).or_default().push(*at);
        }
    }
    let mut pending: Vec<usize> = gone.iter().copied().filter(|at| claimed.contains_key(&paths[*at].hash)).collect();
    let mut needed = HashSet::new();
    while let Some(at) = pending.pop() {
        if !needed.insert(at) {
            continue;
        }
        let metadata = &paths[at].metadata;
        pending.extend(metadata.references().filter_map(|path| known.get(&hash_part(path)[..])));
        pending.extend(metadata.narinfo.deriver().and_then(|deriver| siblings.get(deriver)).into_iter().flatten());
    }
    needed
}

fn by_hash<'a>(paths: &'a [Path], gone: &[usize]) -> HashMap<&'a str, usize> {
    gone.iter().map(|at| (&paths[*at].hash[..], *at)).collect()
}
