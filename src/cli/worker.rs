//! `stowage worker`: exports what hooks have recorded, and builds images of it.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use super::export::ExportArguments;
use super::settings::{self, Settings};
use crate::cache::Options;
use crate::hook::config::{HookConfig, ImageRule};
use crate::hook::{self, HookError, HookEvent};
use crate::queue::{Queue, Record};
use crate::store::{StoreLocation, StorePath};

/// The lowest priority where the system has no idle one.
const NICE: i32 = 19;

/// Works off the queue, apart from whoever started it.
///
/// # Errors
/// When the queue can't be used.
pub fn run(settings: &Settings, location: &StoreLocation) -> anyhow::Result<()> {
    // The hook's session is Nix's, and ends with it. A worker in a terminal is its session's
    // leader, or its group's, and stays.
    let _ = rustix::process::setsid();
    be_idle();
    let queue = Queue::new(location);
    crate::worker::work(&queue, &|records| deliver(settings, location, records))
        .with_context(|| format!("working off the builds in {}", queue.folder().display()))
}

/// Has this process, and the threads that it will start, run only when nobody else wants to,
/// so that builds do not notice. In a container that means: nobody else in it.
fn be_idle() {
    use thread_priority::{
        NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
        thread_native_id,
    };
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    if set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle).is_err() {
        let _ = rustix::process::setpriority_process(None, NICE);
    }
}

/// The configuration in `file`; where there is none, the usual one.
///
/// # Errors
/// When it can't be understood.
pub fn configuration(file: Option<&Path>) -> anyhow::Result<HookConfig> {
    Ok(file.map_or_else(|| Ok(HookConfig::usual()), HookConfig::read)?)
}

/// How `config` wants exports.
///
/// # Errors
/// When a key can't be read.
pub fn options(settings: &Settings, config: &HookConfig) -> anyhow::Result<Options> {
    let arguments = ExportArguments {
        compress: config.compression,
        secret_key_file: config.secret_key_files.clone(),
        listing: config.listing,
        logs: config.logs,
        priority: None,
    };
    arguments.options(settings, settings::processors(), settings.log_dir(None))
}

/// Exports what `records` tell of, which belong together, and builds the images that are to
/// follow.
///
/// # Errors
/// When any of that fails.
pub fn deliver(settings: &Settings, location: &StoreLocation, records: &[&Record]) -> anyhow::Result<()> {
    let Some(first) = records.first() else {
        return Ok(());
    };
    let config = configuration(first.configuration.as_deref())?;
    let event = |record: &&Record| {
        let destination = Some(&record.cache).filter(|cache| !cache.as_os_str().is_empty());
        let destination = destination.or(config.cache.as_ref()).ok_or(HookError::NoDestination)?.clone();
        Ok(HookEvent { drv_path: record.derivation(), out_paths: record.outputs(), destination })
    };
    let events: Vec<HookEvent> = records.iter().map(event).collect::<Result<_, HookError>>()?;
    let place = settings.place(&events[0].destination).map_err(|error| HookError::Cache(error.into()))?;
    let options = options(settings, &config)?;
    // A worker that another hook has started may not have this one's keys.
    if let Some(name) = first.signers.iter().find(|name| options.keys.iter().all(|key| key.name() != *name)) {
        bail!("the key {name} is not here; `stowage cache wait` with $STOWAGE_SECRET_KEY set signs and exports it");
    }
    let summary = hook::export(&events, &place, &config, location, &options)?;
    tracing::info!("{} paths exported, {} were there", summary.added, summary.skipped);
    for event in &events {
        let rules: Vec<&ImageRule> = config.images.iter().filter(|rule| is_meant(rule, event)).collect();
        if rules.is_empty() && first.spec.is_none() {
            continue;
        }
        let outputs = hook::outputs(event, location)?;
        for rule in rules {
            build(location, rule, &outputs)?;
        }
        if let Some(spec) = &first.spec {
            // What is not known ahead is found out later.
            match super::precompute::run(settings, spec, first.layer_index.as_deref(), location, &outputs) {
                Ok(made) => tracing::info!("{made} layers of the next image computed"),
                Err(error) => tracing::warn!("computing layers of the next image: {error:#}"),
            }
        }
    }
    Ok(())
}

fn is_meant(rule: &ImageRule, event: &HookEvent) -> bool {
    event.drv_path.as_ref().is_some_and(|derivation| rule.matches(derivation))
}

/// Builds an image with `outputs`, by another stowage, which can only fail for itself.
fn build(location: &StoreLocation, rule: &ImageRule, outputs: &[StorePath]) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("finding stowage itself")?;
    let mut arguments: Vec<OsString> =
        vec!["build".into(), "--quiet".into(), "--spec".into(), rule.spec.clone().into()];
    arguments.extend(outputs.iter().map(|output| location.print(output).into()));
    for destination in &rule.to {
        arguments.extend(["--to".into(), destination.into()]);
    }
    let output =
        Command::new(program).args(arguments).stdin(Stdio::null()).output().context("starting stowage build")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("building the image of {} for {}: {}", rule.spec.display(), rule.to.join(", "), said.trim());
    }
    tracing::info!("built the image of {} for {}", rule.spec.display(), rule.to.join(", "));
    Ok(())
}
