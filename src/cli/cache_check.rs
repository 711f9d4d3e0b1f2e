//! `stowage cache check`, `cache gc` and `cache info`.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use super::args::{CheckArguments, GcArguments, InfoArguments};
use super::output;
use super::paths;
use super::settings::Settings;
use super::wait;
use crate::cache::check::{self, Report};
use crate::cache::gc;
use crate::cache::info::info;
use crate::store::{StoreLocation, StorePath};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A cache was damaged, and who asked wants to know by the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{0} files were damaged; they are in quarantine now")]
pub struct Damaged(pub(super) usize);

/// Checks a cache. A job begins with it, under `set -e`, so damage that is out
/// of the way is no failure.
///
/// # Errors
/// When the cache can't be read or repaired; with `--strict`, when there was
/// something to repair.
pub fn check(settings: &Settings, arguments: &CheckArguments) -> anyhow::Result<()> {
    let place = settings.place(&arguments.dir)?;
    let options = check::Options { deep: arguments.deep, jobs: arguments.jobs.threads() };
    let is_missing = |dir: &Path| dir.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound);
    let report = if place.folder().is_some_and(is_missing) {
        tracing::info!("there is no cache at {place}");
        Report::default()
    } else {
        check::check(&place, &settings.location(None).store_dir, options)?
    };
    for bad in &report.quarantined {
        tracing::warn!("{}: {}; it is {} now", bad.file, bad.fault, bad.place);
    }
    if arguments.json {
        output::print(&format!("{}\n", check_json(&report)))?;
    } else if !settings.quiet {
        output::print(&check_text(&report))?;
    }
    match report.quarantined.len() {
        count if arguments.strict && count > 0 => Err(Damaged(count).into()),
        _ => Ok(()),
    }
}

fn check_text(report: &Report) -> String {
    let mut text = format!("{} narinfos, {} files quarantined", report.narinfos, report.quarantined.len());
    if report.incomplete > 0 {
        text += &format!(", {} paths refer to others that are not there", report.incomplete);
    }
    if report.unknown > 0 {
        text += &format!(", {} NARs not checked, since only Nix can unpack them", report.unknown);
    }
    if !report.repaired.is_empty() {
        text += &format!(", made again: {}", report.repaired.join(", "));
    }
    text + "\n"
}

fn check_json(report: &Report) -> serde_json::Value {
    let quarantined = report.quarantined.iter().map(|bad| {
        json!({ "file": bad.file, "place": bad.place, "fault": bad.fault.code(), "reason": bad.fault.to_string() })
    });
    json!({
        "narinfos": report.narinfos,
        "incomplete": report.incomplete,
        "unchecked": report.unknown,
        "quarantined": quarantined.collect::<Vec<_>>(),
        "repaired": report.repaired,
    })
}

/// Makes a cache smaller.
///
/// # Errors
/// When it can't be read or written, or a path to keep is none.
pub fn collect(settings: &Settings, arguments: &GcArguments) -> anyhow::Result<()> {
    let location = settings.location(arguments.store.root.as_deref());
    let used = used_now(settings, &location, &arguments.dir);
    let options = gc::Options { used, ..gc_options(&location, arguments)? };
    let report = gc::collect(settings.place(&arguments.dir)?, &location.store_dir, &options)?;
    tell_collected(settings, &location, arguments, &report, "all that is left must stay")
}

/// What to delete, as the command line has it; paths to keep are of the store at `location`.
///
/// # Errors
/// When one of them is none.
pub(super) fn gc_options(location: &StoreLocation, arguments: &GcArguments) -> anyhow::Result<gc::Options> {
    let keep = arguments.keep.iter().map(|path| paths::resolve(location, path));
    Ok(gc::Options {
        max_size: arguments.max_size,
        max_age: arguments.keep_days.map(|days| DAY * days),
        keep: keep.collect::<Result<_, _>>()?,
        used: Vec::new(),
        dry_run: arguments.dry_run,
    })
}

/// Says what was deleted; and where it is still too large, why that is `left`.
pub(super) fn tell_collected(
    settings: &Settings,
    location: &StoreLocation,
    arguments: &GcArguments,
    report: &gc::Report,
    left: &str,
) -> anyhow::Result<()> {
    if let Some(limit) = arguments.max_size.filter(|limit| report.size > *limit) {
        let (is, may) = (output::size(report.size), output::size(limit));
        tracing::warn!("the cache is {is} large, and may be {may}: {left}");
    }
    let removed: Vec<String> = report.removed.iter().map(|path| location.print(path)).collect();
    let (gone, kept) = (removed.len(), report.before - removed.len());
    if arguments.json {
        let value = json!({
            "kept": kept, "removed": removed, "otherFiles": report.other_files,
            "sizeBefore": report.size_before, "size": report.size, "dryRun": arguments.dry_run,
        });
        output::print(&format!("{value}\n"))?;
    } else if !settings.quiet {
        output::print(&format!(
            "{gone} of {} paths {} ({}), {kept} stay ({})\n",
            report.before,
            if arguments.dry_run { "would go" } else { "are gone" },
            output::size(report.size_before - report.size),
            output::size(report.size),
        ))?;
    }
    Ok(())
}

/// Tells what is in a cache.
///
/// # Errors
/// When it can't be read.
pub fn print_info(settings: &Settings, arguments: &InfoArguments) -> anyhow::Result<()> {
    let place = settings.place(&arguments.dir)?;
    let info = info(&place, &settings.location(None).store_dir).with_context(|| format!("reading {place}"))?;
    if arguments.json {
        let value = json!({
            "storeDir": info.store_dir.to_string(), "paths": info.paths, "damaged": info.damaged,
            "withoutNar": info.without_nar, "size": info.size, "compressed": info.compressed,
            "uncompressed": info.uncompressed, "quarantined": info.quarantined,
            "quarantinedSize": info.quarantined_size, "oldest": info.oldest, "newest": info.newest,
            "leastRecentlyUsed": info.least_recently_used,
        });
        output::print(&format!("{value}\n"))?;
        return Ok(());
    }
    let mut text = format!(
        "{} paths for {}, {} compressed, {} uncompressed; {} {}\n",
        info.paths,
        info.store_dir,
        output::size(info.compressed),
        output::size(info.uncompressed),
        output::size(info.size),
        if place.folder().is_some() { "on disk" } else { "in all" }
    );
    text += &ages([info.oldest, info.newest, info.least_recently_used]);
    for (count, what) in [
        (info.damaged, "narinfos are damaged; `stowage cache check` takes them away"),
        (info.without_nar, "paths have no NAR; `stowage cache check` takes them away"),
        (info.quarantined, "files are in quarantine"),
    ] {
        if count > 0 {
            text += &format!("{count} {what}\n");
        }
    }
    Ok(output::print(&text)?)
}

/// What the job that is under way took from the cache. It only spares that: a cache can be made
/// smaller without any database.
fn used_now(settings: &Settings, location: &StoreLocation, dir: &Path) -> Vec<StorePath> {
    wait::new_since_begin(settings, location, dir).unwrap_or_else(|error| {
        tracing::warn!("what this job used is not known: {error:#}");
        Vec::new()
    })
}

/// How long ago the oldest, the newest and the least recently used path was written or used, as
/// far as there is one.
pub(super) fn ages(times: [Option<u64>; 3]) -> String {
    let lines = ["oldest", "newest", "least recently used"].into_iter().zip(times);
    lines.filter_map(|(what, time)| Some(format!("{what}: {} days ago\n", days_since(time?)))).collect()
}

fn days_since(seconds: u64) -> u64 {
    let now = crate::cache::usage::seconds(std::time::SystemTime::now());
    now.saturating_sub(seconds) / DAY.as_secs()
}
