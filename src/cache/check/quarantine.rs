//! Moves what is bad to `quarantine/`, and tells what.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};

use super::{Checked, Fault, Quarantined, Report, cache_info, read, realisations};
use crate::cache::beneath::FolderError;
use crate::cache::beneath::manage::{Entry, Kind};
use crate::cache::folder::{CACHE_INFO, CACHE_INFO_LIMIT, EMPTY_FOLDERS};
use crate::cache::narinfo;
use crate::cache::shelf::{Shelf, ShelfError};
use crate::store::StoreDir;

/// The folder that bad files go to.
pub const QUARANTINE: &str = "quarantine";

/// Where bad files go; the folder is made for the first.
pub struct Quarantine<'a> {
    root: &'a Shelf,
    folder: Option<Shelf>,
    report: &'a mut Report,
    /// The NARs of narinfos that are not sound, and stay: somebody has changed them meanwhile.
    spared: HashSet<String>,
}

impl<'a> Quarantine<'a> {
    /// The quarantine of the cache in `root`.
    pub fn new(root: &'a Shelf, report: &'a mut Report) -> Self {
        Self { root, folder: None, report, spared: HashSet::new() }
    }

    /// Takes the narinfos that are not sound; of a bucket only those that are, with their NARs,
    /// still what was listed, in `entries` and the folder of NARs: somebody may have written them
    /// anew.
    ///
    /// # Errors
    /// When one can't be moved.
    pub fn narinfos(
        &mut self,
        checked: &[Checked],
        entries: &[Entry],
        nars: Option<(&Shelf, &[Entry])>,
    ) -> Result<(), ShelfError> {
        let by_name = |entries: &'_ [Entry]| entries.iter().map(|entry| (entry.name.clone(), entry.clone())).collect();
        let (entries, nar_entries): (HashMap<OsString, Entry>, HashMap<OsString, Entry>) =
            (by_name(entries), by_name(nars.map_or(&[], |(_, entries)| entries)));
        for one in checked {
            if let Err(fault) = &one.result {
                let name = OsStr::new(&one.name);
                let is_same = self.root.is_as_listed(name, entries.get(name))?
                    && match (&one.nar, nars) {
                        (Some(nar), Some((folder, _))) => {
                            folder.is_as_listed(OsStr::new(nar), nar_entries.get(OsStr::new(nar)))?
                        }
                        _ => true,
                    };
                if !is_same {
                    tracing::info!("{}: {fault}; it was changed meanwhile, and stays", one.name);
                    self.spared.extend(one.nar.clone());
                    continue;
                }
                self.take(None, name, fault.clone())?;
                self.take_listing(&one.name)?;
            }
        }
        Ok(())
    }

    /// Takes NARs that are to blame, unless a sound narinfo names them, too; and what
    /// would be in the way of a NAR.
    ///
    /// # Errors
    /// When one can't be moved.
    pub fn nars(&mut self, checked: &[Checked], folder: &Shelf, entries: &[Entry]) -> Result<(), ShelfError> {
        let good: HashSet<&str> =
            checked.iter().filter_map(|one| Some(&one.result.as_ref().ok()?.nar_file[..])).collect();
        let bad: HashMap<&str, &Fault> =
            checked.iter().filter_map(|one| Some((one.bad_nar.as_deref()?, one.result.as_ref().err()?))).collect();
        for entry in entries {
            let name = entry.name.to_string_lossy();
            let fault = match entry.kind {
                Kind::File(0) if !name.contains("tmp") => Fault::Empty,
                Kind::File(_) => match bad.get(&*name) {
                    Some(fault) if !good.contains(&*name) && !self.spared.contains(&*name) => (*fault).clone(),
                    _ => continue,
                },
                _ => Fault::NotAFile,
            };
            if folder.is_as_listed(&entry.name, Some(entry))? {
                self.take(Some(("nar", folder)), &entry.name, fault)?;
            }
        }
        Ok(())
    }

    /// Takes realisations that Nix can't read.
    ///
    /// # Errors
    /// When one can't be moved.
    pub fn realisations(&mut self) -> Result<(), ShelfError> {
        let Some(folder) = self.root.existing("realisations")? else {
            return Ok(());
        };
        let mut sound = Vec::new();
        let mut faults = Vec::new();
        for name in folder.entries()?.into_iter().filter_map(|entry| entry.name.into_string().ok()) {
            if !name.ends_with(realisations::SUFFIX) {
                continue;
            }
            let contents = read(&folder, &name, narinfo::SIZE_LIMIT)?;
            match contents.and_then(|contents| realisations::judge(&name, &contents)) {
                Ok(realisation) => sound.push(realisation),
                Err(fault) => faults.push((name, fault)),
            }
        }
        faults.extend(realisations::incomplete(&sound));
        for (name, fault) in faults {
            self.take(Some(("realisations", &folder)), OsStr::new(&name), fault)?;
        }
        Ok(())
    }

    /// Takes what should make the folder a cache, and does not: its info, and what
    /// is there in place of its folders.
    ///
    /// # Errors
    /// When one can't be moved.
    pub fn frame(&mut self, store_dir: &StoreDir) -> Result<(), ShelfError> {
        let entries = self.root.entries()?;
        for entry in &entries {
            let name = entry.name.to_string_lossy();
            let is_folder = name == "nar" || EMPTY_FOLDERS.contains(&&*name);
            let fault = if is_folder {
                (entry.kind != Kind::Folder).then_some(Fault::NotAFolder)
            } else if name == CACHE_INFO {
                read(self.root, CACHE_INFO, CACHE_INFO_LIMIT)?
                    .and_then(|info| match cache_info::judge(&info)? {
                        found if found == store_dir.as_str() => Ok(()),
                        found => Err(Fault::malformed(format!("it is for the store {found}"))),
                    })
                    .err()
            } else {
                None
            };
            if let Some(fault) = fault {
                self.take(None, &entry.name, fault)?;
            }
        }
        Ok(())
    }

    /// Takes the listing along, as what comes in the path's place may have other files.
    fn take_listing(&mut self, narinfo: &str) -> Result<(), ShelfError> {
        if let (Some(folder), Some(hash)) = (&self.folder, narinfo.strip_suffix(".narinfo")) {
            self.root.move_into(OsStr::new(&format!("{hash}.ls")), folder)?;
        }
        Ok(())
    }

    /// Moves `name` of the cache's folder, or of one below.
    fn take(&mut self, from: Option<(&str, &Shelf)>, name: &OsStr, fault: Fault) -> Result<(), ShelfError> {
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => open_quarantine(self.root)?,
        };
        let folder = self.folder.insert(folder);
        let source = from.map_or(self.root, |(_, source)| source);
        if let Some(place) = source.move_into(name, folder)? {
            let name = name.to_string_lossy();
            let file = from.map_or_else(|| name.to_string(), |(above, _)| format!("{above}/{name}"));
            let place = format!("{QUARANTINE}/{}", place.to_string_lossy());
            self.report.quarantined.push(Quarantined { file, place, fault });
        }
        Ok(())
    }
}

/// Makes the folder, and puts aside what is in its way.
fn open_quarantine(root: &Shelf) -> Result<Shelf, ShelfError> {
    match root.folder(QUARANTINE) {
        Err(ShelfError::Folder(FolderError::NoFolder(_))) => {
            root.move_into(OsStr::new(QUARANTINE), root)?;
            root.folder(QUARANTINE)
        }
        result => result,
    }
}
