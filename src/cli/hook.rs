//! `stowage hook`: what Nix runs after each build.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, anyhow};

use super::settings::{self, Settings};
use super::wait::absolute;
use super::{complain, layer_index, output, precompute, worker};
use crate::hook::config::HookConfig;
use crate::hook::{self, HookEvent};
use crate::mark::Marks;
use crate::queue::{Queue, Record};
use crate::s3::address;

/// Does what Nix calls the hook for, and says what goes wrong. A hook that fails stops the
/// build, and is never called again for what was built. So it fails only where that was
/// asked for.
pub fn main() -> ExitCode {
    let mut is_strict = settings::is_strict();
    match survive(|| record(&mut is_strict)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("what was built is not in the cache: {}", output::explain(&error)));
            if is_strict { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    }
}

/// Runs `body`; to Nix, a panic in it is an error like others.
fn survive(body: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(body))
        .unwrap_or_else(|_| Err(anyhow!("a mistake in stowage, which the lines before this one describe")))
}

/// Records what was built and hands it to a worker. Where that can't be done, or Nix is to
/// wait for it, exports it.
fn record(is_strict: &mut bool) -> anyhow::Result<()> {
    let settings = Settings::read(true, Vec::new())?;
    let location = settings.location(None);
    let configuration = settings.hook_configuration();
    let config = match worker::configuration(configuration.as_deref()) {
        Err(error) if !*is_strict => {
            let problem = output::explain(&error);
            complain(format_args!("{problem}; what was built is recorded, and exported once that is mended"));
            HookConfig { cache: Some(PathBuf::new()), ..HookConfig::usual() }
        }
        config => config?,
    };
    *is_strict |= config.strict;
    let variables = settings::variables();
    let mut event = HookEvent::from_environment(
        &variables,
        &location.store_dir,
        config.cache.as_deref(),
        settings::current_folder,
    )?;
    // Where the database can't be read now, the worker asks it again.
    match hook::claimed_outputs(&event, &location) {
        Ok(outputs) => event.out_paths = outputs,
        Err(error) => complain(format_args!("{error}; trying again later")),
    }
    let mut record = Record::new(event.drv_path.as_ref(), &event.out_paths, event.destination.clone());
    // The worker runs in another folder.
    let absolute = |file: PathBuf| std::path::absolute(&file).unwrap_or(file);
    record.configuration = configuration.map(absolute);
    record.spec = settings.hook_spec.clone().filter(|file| is_spec(file)).map(absolute);
    // Nor does it have this environment, if another hook has started it.
    record.layer_index = settings.layer_index.as_deref().map(layer_index::absolute);
    match settings.keys() {
        Ok(keys) => record.signers = keys.iter().map(|key| key.name().to_owned()).collect(),
        Err(error) => {
            complain(format_args!("{error}; what was built is recorded, and not exported before that is mended"))
        }
    }
    if *is_strict {
        return worker::deliver(&settings, &location, &[&record]);
    }
    let queue = Queue::new(&location);
    match queue.push(&location, &record) {
        Ok(()) if config.worker => start_worker(&queue),
        Ok(()) => Ok(()),
        // Nix would wait for a bucket; and a job's end finds what no hook told of.
        Err(error) if is_seen_to(&settings, &queue, &event.destination) => {
            let folder = queue.folder().display();
            Err(anyhow!("recording it in {folder}: {error}; `stowage cache wait` exports it at the job's end"))
        }
        Err(error) => {
            complain(format_args!(
                "recording what was built in {}: {error}; exporting it now",
                queue.folder().display()
            ));
            worker::deliver(&settings, &location, &[&record])
        }
    }
}

/// Whether the cache is a bucket, and it is noted when the job began.
fn is_seen_to(settings: &Settings, queue: &Queue, cache: &Path) -> bool {
    let mark = |cache: PathBuf| Marks::new(queue, settings.state_home.clone()).get_recent(&cache);
    address::is_address(&cache.to_string_lossy()) && absolute(cache).is_ok_and(|cache| mark(cache).is_some())
}

/// Whether the file has a spec; says so where it has none, since nobody hears the worker.
fn is_spec(file: &Path) -> bool {
    let spec = precompute::read(file);
    if let Err(error) = &spec {
        complain(format_args!("the layers of what was built are not known yet: {}", output::explain(error)));
    }
    spec.is_ok()
}

/// Starts a worker that outlives the hook, unless one is at work. What it inherits of Nix's
/// would hold up the build.
pub(super) fn start_worker(queue: &Queue) -> anyhow::Result<()> {
    if queue.lock().context("looking for a worker")?.is_none() {
        return Ok(());
    }
    close_fds::set_fds_cloexec_threadsafe(3, &[]);
    let program = std::env::current_exe().context("finding stowage itself")?;
    let start = Command::new(program)
        .arg("worker")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    start.map(drop).context("starting a worker; what was built waits for the next one, or for `stowage cache wait`")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_panic_does_not_end_the_hook() {
        super::survive(|| panic!("this is only a test")).expect_err("a panic");
        super::survive(|| Ok(())).expect("no panic");
    }
}
