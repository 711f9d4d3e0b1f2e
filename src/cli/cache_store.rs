//! `stowage cache` and `stowage env` for caches that are stores.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::args::{CacheKind, CheckArguments, EnvArguments, GcArguments, InfoArguments, WaitArguments};
use super::cache_check::{Damaged, ages, gc_options, tell_collected};
use super::output;
use super::settings::{self, Settings};
use super::wait::absolute;
use crate::cache::Place;
use crate::cache::folder::CACHE_INFO;
use crate::cache::setup::Setup;
use crate::local_store::modes::State;
use crate::local_store::{self, LocalStore, begin::Begun, namespaces};

/// Nix can't build in the folder.
#[derive(Debug, thiserror::Error)]
#[error(
    "Nix can't build in {dir} here, since it needs user namespaces for that ({why}), and Nix 2.8 would say nothing and build in /nix/store; let the runner's containers make them (docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined), or take an image in which /nix leads to {dir}/nix (`cacheStore` in its spec), or use a binary cache: stowage cache init {dir}"
)]
pub struct NoPlaceToBuild {
    dir: String,
    why: namespaces::NoNamespaces,
}

/// How Nix builds in a store in a folder.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// `/nix` leads there.
    Linked,
    /// By `--store`.
    Namespaces,
}

/// The store at `dir`, if there is one.
///
/// # Errors
/// When it is somebody else's.
pub fn at(settings: &Settings, dir: &Path) -> anyhow::Result<Option<LocalStore>> {
    let place = settings.place(dir)?;
    let Some(folder) = place.folder().filter(|folder| LocalStore::is_at(folder)) else {
        return Ok(None);
    };
    Ok(Some(LocalStore::open(&absolute(folder)?, &settings.location(None).store_dir)?))
}

/// Makes the store in `dir` ready for a job, and tells how Nix builds in it.
///
/// # Errors
/// When it can't, or the store can't be made.
pub fn init(settings: &Settings, dir: &Path) -> anyhow::Result<()> {
    let place = settings.place(dir)?;
    let Place::Folder(folder) = &place else {
        return Err(super::exit::UsageError(format!("{place} can't be a store, since Nix builds in folders")).into());
    };
    let folder = absolute(folder)?;
    let way = way(&folder)?;
    let store = LocalStore::open_or_make(&folder, &settings.location(None).store_dir)?;
    let begun = local_store::begin(&store, settings::processors(), Some(State::Sealed))?;
    tell(&begun);
    if !settings.quiet {
        let how = match way {
            Way::Linked => "Nix builds there, since /nix leads there".to_owned(),
            Way::Namespaces => format!("`nix-build --store {0}`, or after eval \"$(stowage env {0})\"", dir.display()),
        };
        output::print(&format!("{} paths are in the store {}; {how}\n", begun.paths, dir.display()))?;
    }
    Ok(())
}

/// How Nix builds in `dir`; an error where it can't.
fn way(dir: &Path) -> anyhow::Result<Way> {
    let link = std::fs::read_link("/nix").ok().and_then(|target| target.parent().map(Path::to_owned));
    if link.is_some_and(|leads| leads == dir || leads.canonicalize().is_ok_and(|leads| leads == dir)) {
        return Ok(Way::Linked);
    }
    let program = std::env::current_exe().context("finding stowage")?;
    match namespaces::try_them(&program) {
        Ok(()) => Ok(Way::Namespaces),
        Err(why) => Err(NoPlaceToBuild { dir: dir.display().to_string(), why }.into()),
    }
}

/// Which kind suits a folder that is no cache yet, and why: measured by `bench/gitlab`, see the
/// README. `None` where it is one, or a bucket.
pub fn recommendation(settings: &Settings, dir: &Path, kind: Option<CacheKind>) -> anyhow::Result<Option<String>> {
    let place = settings.place(dir)?;
    let Some(folder) = place.folder().filter(|folder| !folder.join(CACHE_INFO).exists() && !LocalStore::is_at(folder))
    else {
        return Ok(None);
    };
    Ok(recommend(kind.unwrap_or(CacheKind::BinaryCache), settings::is_in_gitlab(), || way(&absolute(folder)?)))
}

fn recommend(kind: CacheKind, is_archived: bool, way: impl FnOnce() -> anyhow::Result<Way>) -> Option<String> {
    let text = match (kind, is_archived) {
        (CacheKind::BinaryCache, true) => {
            "a binary cache, which suits a folder that GitLab's runner archives: packing and unpacking a store takes longer than it saves; where the folder stays from job to job, try --as store"
        }
        (CacheKind::BinaryCache, false) if way().is_ok() => {
            "a binary cache; where only jobs on this machine use it, one at a time, they begin sooner in a store, since nothing is copied: --as store"
        }
        (CacheKind::BinaryCache, false) => {
            "a binary cache; a store, in which jobs could build at once, would need user namespaces, which this machine does not allow"
        }
        (CacheKind::Store, true) => {
            "a store, which suits a folder that stays from job to job; where GitLab's runner archives it, jobs are done sooner with a binary cache: --as binary-cache"
        }
        (CacheKind::Store, false) => return None,
    };
    Some(text.to_owned())
}

/// Warns of what is not as it was.
pub fn tell(begun: &Begun) {
    if let Some(problem) = &begun.anew {
        tracing::warn!("{problem}; nothing of this cache can be used, and it begins anew");
    }
    for (path, fault) in &begun.lost {
        tracing::warn!("{path} will be built again: {fault}");
    }
}

/// Leaves the store ready to be archived.
///
/// # Errors
/// When somebody is at work there, or it can't be changed.
pub fn wait(settings: &Settings, store: &LocalStore, arguments: &WaitArguments) -> anyhow::Result<()> {
    let ended = local_store::end(store, settings::processors())?;
    if arguments.json {
        let value = json!({ "paths": ended.paths, "added": ended.added, "size": ended.size, "changed": ended.changed });
        output::print(&format!("{value}\n"))?;
    } else if !settings.quiet {
        let dir = arguments.dir.display();
        let size = output::size(ended.size);
        output::print(&format!(
            "{} paths are in the store {dir} ({size}), {} of them new\n",
            ended.paths, ended.added
        ))?;
    }
    Ok(())
}

/// Looks for what is not as it was; with `--deep`, by hashing all.
///
/// # Errors
/// When the store can't be read or changed; with `--strict`, when something was damaged.
pub fn check(settings: &Settings, store: &LocalStore, arguments: &CheckArguments) -> anyhow::Result<()> {
    let mut begun = local_store::begin(store, arguments.jobs.threads(), None)?;
    if arguments.deep {
        let damaged = local_store::begin::deep(store, arguments.jobs.threads())?;
        begun.paths -= damaged.len();
        begun.lost.extend(damaged);
    }
    tell(&begun);
    let count = begun.lost.len() + usize::from(begun.anew.is_some());
    if arguments.json {
        let lost = begun.lost.iter().map(|(path, fault)| json!({ "path": path, "reason": fault.to_string() }));
        let value = json!({ "paths": begun.paths, "lost": lost.collect::<Vec<_>>(), "anew": begun.anew });
        output::print(&format!("{value}\n"))?;
    } else if !settings.quiet {
        output::print(&format!("{} paths, {count} damaged, and gone now\n", begun.paths))?;
    }
    if arguments.strict && count > 0 { Err(Damaged(count).into()) } else { Ok(()) }
}

/// Makes the store smaller.
///
/// # Errors
/// When somebody is at work there, or it can't be changed.
pub fn collect(settings: &Settings, store: &LocalStore, arguments: &GcArguments) -> anyhow::Result<()> {
    let options = gc_options(store.location(), arguments)?;
    let report = local_store::collect(store, &options)?;
    tell_collected(settings, store.location(), arguments, &report, "GC roots name all that is left")
}

/// Tells what is in the store.
///
/// # Errors
/// When it can't be read.
pub fn print_info(store: &LocalStore, arguments: &InfoArguments) -> anyhow::Result<()> {
    let info = local_store::info(store)?;
    if arguments.json {
        let value = json!({
            "storeDir": store.location().store_dir.to_string(), "paths": info.paths, "uncompressed": info.size,
            "oldest": info.oldest, "newest": info.newest, "leastRecentlyUsed": info.least_recently_used,
        });
        output::print(&format!("{value}\n"))?;
        return Ok(());
    }
    let mut text =
        format!("a store with {} paths for {}, {}\n", info.paths, store.location().store_dir, output::size(info.size));
    text += &ages([info.oldest, info.newest, info.least_recently_used]);
    Ok(output::print(&text)?)
}

/// What a job sets so that Nix builds in `store`, or copies from it.
///
/// # Errors
/// When Nix can't build there, or the form can't hold it.
pub fn print_env(
    store: &LocalStore,
    setup: impl FnOnce(&Path) -> anyhow::Result<Setup>,
    arguments: &EnvArguments,
) -> anyhow::Result<()> {
    if arguments.substituter {
        return Ok(output::print(&setup(store.dir())?.render(arguments.format, &settings::nix_config()?)?)?);
    }
    match way(store.dir())? {
        Way::Linked => {
            tracing::info!("there is nothing to set: /nix leads to {}/nix", store.dir().display());
            Ok(())
        }
        Way::Namespaces => Ok(output::print(&Setup::remote(store.dir(), arguments.format)?)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_suits_depends_on_who_keeps_the_folder_and_on_what_nix_may_do() {
        let can = || Ok(Way::Namespaces);
        let can_t = || Err(anyhow::anyhow!("it is forbidden"));
        for (text, part) in [
            (recommend(CacheKind::BinaryCache, true, can), Some("suits a folder that GitLab's runner archives")),
            (recommend(CacheKind::BinaryCache, true, can_t), Some("suits a folder that GitLab's runner archives")),
            (recommend(CacheKind::BinaryCache, false, can), Some("begin sooner in a store")),
            (recommend(CacheKind::BinaryCache, false, can_t), Some("does not allow")),
            (recommend(CacheKind::Store, true, can), Some("--as binary-cache")),
            (recommend(CacheKind::Store, false, can), None),
        ] {
            assert!(
                text.as_deref().map_or(part.is_none(), |text| part.is_some_and(|part| text.contains(part))),
                "{text:?}"
            );
        }
    }
}
