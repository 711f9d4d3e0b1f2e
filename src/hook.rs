//! What Nix's post-build-hook hands over, and what of it to believe.
//!
//! Nix runs the hook after each build, with `DRV_PATH` and `OUT_PATHS` in the
//! environment. Two things are wrong with that. Nix 2.8.0 and 2.30–2.31 leave
//! `OUT_PATHS` empty. And variables that were set before Nix was called win
//! over Nix's own, so `OUT_PATHS` may hold anything. So it is only a hint: what
//! counts is that the database says it is valid, and what the database knows of
//! `DRV_PATH`'s outputs is added.
//!
//! Source: Nix's `runPostBuildHook`, `derivation-building-goal.cc`.

pub mod config;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use config::{Extent, HookConfig};

use crate::cache::shelf::ShelfError;
use crate::cache::{self, CacheError, CacheFolder, Options, Place, Summary, realisation};
use crate::local_store::LocalStore;
use crate::s3::{S3Error, address};
use crate::store::db::{DatabaseError, StoreDb};
use crate::store::derivation::declared_outputs;
use crate::store::{Closure, ClosureError, NodeId, StoreDir, StoreLocation, StorePath};
use crate::tree::{StoreFiles, TreeError};

/// One build that Nix has finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookEvent {
    /// The derivation that was built, if Nix named one.
    pub drv_path: Option<StorePath>,
    /// What it made, as far as Nix said; not to be believed yet.
    pub out_paths: Vec<StorePath>,
    /// The folder, or the address of the bucket, of the cache that the outputs go to.
    pub destination: PathBuf,
}

/// Why what was built is not in the cache.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// Called by hand, or by something else than Nix.
    #[error("neither DRV_PATH nor OUT_PATHS names a store path in {0}; Nix sets them when it runs the post-build-hook")]
    NoBuild(StoreDir),
    /// A daemon's hook runs in `/`, and nobody wants a cache there.
    #[error("no folder to export to; set STOWAGE_CACHE to one, for a Nix daemon in its service's environment")]
    NoDestination,
    /// The destination is relative to a folder that was deleted, or can't be read.
    #[error("{named}, and the current folder can't be found: {source}; set STOWAGE_CACHE to an absolute path")]
    NoCurrentFolder {
        /// What the variables say.
        named: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Outputs that the database does not know, e.g. of another store.
    #[error("the store has no valid output of {0}")]
    NoOutput(String),
    /// The database can't be read.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The database is not closed under references.
    #[error(transparent)]
    Closure(#[from] ClosureError),
    /// The store can't be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The cache can't be written.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl HookError {
    /// Whether it is the cache that can't be used, whatever is to be exported.
    #[must_use]
    pub fn is_of_cache(&self) -> bool {
        use CacheError::{Address, Busy, Missing, Shelf, StoreDir};
        matches!(self, Self::Cache(Shelf(_) | Address(_) | Missing(_) | Busy(_) | StoreDir { .. }))
    }

    /// Whether it is a bucket that does not answer as it should: each try takes its time.
    #[must_use]
    pub fn is_of_bucket(&self) -> bool {
        match self {
            // That concerns one NAR, which is tried again.
            Self::Cache(CacheError::Shelf(ShelfError::Bucket(error))) => !matches!(error, S3Error::NoUpload { .. }),
            _ => false,
        }
    }
}

impl HookEvent {
    /// Reads the event from the variables that Nix has set. `current_dir` finds
    /// the folder that the hook runs in; it may be gone, so it is only looked for
    /// where the destination depends on it.
    ///
    /// The destination is `$STOWAGE_CACHE`, else the one that is `configured`, else
    /// `cache` in `$CI_PROJECT_DIR`, else `cache` in the current folder, unless that is
    /// `/`.
    ///
    /// # Errors
    /// When no build is named, or no destination.
    pub fn from_environment(
        environment: &BTreeMap<OsString, OsString>,
        store_dir: &StoreDir,
        configured: Option<&Path>,
        current_dir: impl FnOnce() -> std::io::Result<PathBuf>,
    ) -> Result<Self, HookError> {
        let variable = |name: &str| environment.get(&OsString::from(name)).filter(|value| !value.is_empty());
        let paths = |name| {
            let value = variable(name).map_or(&b""[..], |value| value.as_bytes());
            value.split(u8::is_ascii_whitespace).filter_map(|word| store_dir.parse_path(word).ok()).collect::<Vec<_>>()
        };
        let drv_path = paths("DRV_PATH").into_iter().next();
        let out_paths = paths("OUT_PATHS");
        if drv_path.is_none() && out_paths.is_empty() {
            return Err(HookError::NoBuild(store_dir.clone()));
        }
        let beneath = |folder: &Path, named: String| match current_dir() {
            Ok(current_dir) => Ok(current_dir.join(folder)),
            Err(source) => Err(HookError::NoCurrentFolder { named, source }),
        };
        let relative = |name: &str, value: &Path| format!("{name} is the relative path {}", value.display());
        let destination = match (variable("STOWAGE_CACHE").map(Path::new), variable("CI_PROJECT_DIR").map(Path::new)) {
            (Some(folder), _) if folder.is_absolute() || is_address(folder) => folder.to_owned(),
            (Some(folder), _) => beneath(folder, relative("STOWAGE_CACHE", folder))?,
            (None, _) if configured.is_some() => configured.map(Path::to_owned).unwrap_or_default(),
            (None, Some(project)) if project.is_absolute() => project.join("cache"),
            (None, Some(project)) => beneath(&project.join("cache"), relative("CI_PROJECT_DIR", project))?,
            (None, None) => {
                match beneath(Path::new("cache"), "neither STOWAGE_CACHE nor CI_PROJECT_DIR is set".to_owned())? {
                    folder if folder == Path::new("/cache") => return Err(HookError::NoDestination),
                    folder => folder,
                }
            }
        };
        Ok(Self { drv_path, out_paths, destination })
    }

    /// What to call the build in a message.
    fn name(&self) -> String {
        let path = self.drv_path.as_ref().or(self.out_paths.first());
        path.map(StorePath::to_basename).unwrap_or_default()
    }
}

/// What was built, as far as it is to be believed.
///
/// # Errors
/// When the database can't be read.
pub fn outputs(event: &HookEvent, location: &StoreLocation) -> Result<Vec<StorePath>, HookError> {
    Ok(believable_outputs(event, &StoreDb::open(location)?)?)
}

/// What was built, as far as the hook must know it: from the derivation itself, which is
/// quicker than the database. Whoever exports it looks whether it is valid.
///
/// # Errors
/// When the derivation does not tell, and the database can't be read.
pub fn claimed_outputs(event: &HookEvent, location: &StoreLocation) -> Result<Vec<StorePath>, HookError> {
    let declared = event.drv_path.as_ref().and_then(|drv| {
        let text = crate::fs::read_regular(&location.real_dir.join(drv.to_basename())).ok()?;
        declared_outputs(&text, drv, &location.store_dir)
    });
    match declared {
        Some(declared) => {
            let all: BTreeSet<StorePath> = declared.into_iter().chain(event.out_paths.iter().cloned()).collect();
            Ok(all.into_iter().collect())
        }
        None => outputs(event, location),
    }
}

/// Whether that is a bucket, and no folder.
fn is_address(destination: &Path) -> bool {
    destination.to_str().is_some_and(address::is_address)
}

/// Exports what `events` built to the cache at `place`, as `config` says; tells what that got.
///
/// # Errors
/// When nothing that one of them built is valid, or it can't be exported.
pub fn export(
    events: &[HookEvent],
    place: &Place,
    config: &HookConfig,
    location: &StoreLocation,
    options: &Options,
) -> Result<Summary, HookError> {
    // What was built in a cache that is a store is there.
    if events.is_empty() || place.folder().is_some_and(LocalStore::is_at) {
        return Ok(Summary::default());
    }
    let database = StoreDb::open(location)?;
    let mut roots = BTreeSet::new();
    for event in events {
        let outputs = believable_outputs(event, &database)?;
        if outputs.is_empty() {
            return Err(HookError::NoOutput(event.name()));
        }
        roots.extend(outputs);
        if let Some(drv) = event.drv_path.as_ref().filter(|_| config.extent == Extent::Build) {
            roots.extend(needed_to_build(drv, &database)?);
        }
    }
    let roots: Vec<StorePath> = roots.into_iter().collect();
    send(&roots, place, config, location, &database, options)
}

/// Exports `roots` to the cache at `place`, and what of their closure `config` wants.
///
/// # Errors
/// When it can't be exported.
pub fn send(
    roots: &[StorePath],
    place: &Place,
    config: &HookConfig,
    location: &StoreLocation,
    database: &StoreDb<'_>,
    options: &Options,
) -> Result<Summary, HookError> {
    let closure = Closure::new(&location.store_dir, database.closure(roots)?, Some(roots))?;
    let files = StoreFiles::open(&location.real_dir)?;
    let is_root: BTreeSet<NodeId> = closure.roots().iter().copied().collect();
    let wanted =
        |id: NodeId| (config.extent != Extent::Outputs || is_root.contains(&id)) && config.wants(closure.info(id));
    let summary = cache::export_selected(&files, &closure, &wanted, place, options)?;
    let paths = (0..closure.len()).filter(|id| wanted(*id)).map(|id| &closure.info(id).path);
    let realisations = database.realisations(&paths.collect::<Vec<_>>())?;
    if !realisations.is_empty() {
        let cache = CacheFolder::open(place, &location.store_dir)?;
        realisation::add(&cache, &realisations, &options.keys)?;
    }
    Ok(summary)
}

/// All that there is of what building `drv` takes: derivations and their valid outputs.
fn needed_to_build(drv: &StorePath, database: &StoreDb<'_>) -> Result<Vec<StorePath>, DatabaseError> {
    // A remote builder's derivation was never written.
    if database.valid(std::slice::from_ref(drv))?.is_empty() {
        return Ok(Vec::new());
    }
    let mut paths = vec![drv.clone()];
    for info in database.closure(std::slice::from_ref(drv))? {
        if info.path.name().ends_with(".drv") {
            paths.extend(database.outputs(&info.path)?);
        }
    }
    Ok(paths)
}

/// What Nix named, as far as it is valid, and what the database names.
fn believable_outputs(event: &HookEvent, database: &StoreDb<'_>) -> Result<Vec<StorePath>, DatabaseError> {
    let mut outputs: BTreeSet<StorePath> = database.valid(&event.out_paths)?.into_iter().collect();
    if let Some(drv) = &event.drv_path {
        outputs.extend(database.outputs(drv)?);
    }
    Ok(outputs.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRV: &str = "/nix/store/zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz-a.drv";
    const OUT: &str = "/nix/store/2cdphvmw5lnlvkc7wcphwqsnpl0gbqkf-a";

    fn event(variables: &[(&str, &str)], current_dir: &str) -> Result<HookEvent, HookError> {
        let environment = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        HookEvent::from_environment(&environment, &StoreDir::default(), None, || match current_dir {
            "" => Err(std::io::ErrorKind::NotFound.into()),
            folder => Ok(folder.into()),
        })
    }

    #[test]
    fn what_nix_sets_is_read() {
        let outs = format!("{OUT} /nix/store/0c7c96gikmzv87i7lv3vq5s1cmfjd6zf-b\n");
        let event = event(&[("DRV_PATH", DRV), ("OUT_PATHS", &outs)], "/work").expect("an event");
        assert_eq!(event.drv_path.expect("named").to_absolute_path(), DRV);
        assert_eq!(event.out_paths.iter().map(StorePath::name).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn the_destination_is_the_first_that_is_named() {
        let destination = |variables: &[(&str, &str)], current_dir| {
            let variables = [&[("DRV_PATH", DRV)], variables].concat();
            event(&variables, current_dir).map(|event| event.destination)
        };
        let (cache, project) = (("STOWAGE_CACHE", "/srv/c"), ("CI_PROJECT_DIR", "/builds/p"));
        for (variables, current_dir, expected) in [
            (&[cache, project][..], "/", "/srv/c"),
            (&[("STOWAGE_CACHE", "s3://cache?region=r"), project], "", "s3://cache?region=r"),
            (&[("STOWAGE_CACHE", "c")], "/work", "/work/c"),
            (&[("STOWAGE_CACHE", ""), project], "/", "/builds/p/cache"),
            (&[project], "/work", "/builds/p/cache"),
            (&[], "/work", "/work/cache"),
        ] {
            assert_eq!(destination(variables, current_dir).expect("one"), Path::new(expected));
        }
        assert!(matches!(destination(&[], "/"), Err(HookError::NoDestination)));
        // A current folder that is gone is missed only where it is needed.
        assert_eq!(destination(&[cache], "").expect("absolute"), Path::new("/srv/c"));
        assert_eq!(destination(&[project], "").expect("absolute"), Path::new("/builds/p/cache"));
        for (variables, named) in [
            (&[("STOWAGE_CACHE", "c"), project][..], "STOWAGE_CACHE is the relative path c"),
            (&[("CI_PROJECT_DIR", "p")], "CI_PROJECT_DIR is the relative path p"),
            (&[], "neither STOWAGE_CACHE nor CI_PROJECT_DIR is set"),
        ] {
            let text = destination(variables, "").expect_err("none").to_string();
            assert!(text.starts_with(named) && text.contains("current folder"), "{text}");
        }
    }

    #[test]
    fn words_that_are_no_store_paths_are_dropped() {
        let words = format!("/evil ../x {OUT}/bin /nix/store/.. {OUT}");
        let event = event(&[("OUT_PATHS", &words)], "/work").expect("an event");
        assert_eq!(event.out_paths.len(), 1);
        assert_eq!(event.drv_path, None);
    }

    #[test]
    fn without_any_build_it_is_no_event() {
        for variables in [&[][..], &[("OUT_PATHS", "")], &[("OUT_PATHS", "/evil"), ("DRV_PATH", "/evil.drv")]] {
            assert!(matches!(event(variables, "/work"), Err(HookError::NoBuild(_))), "{variables:?}");
        }
    }
}
