//! Puts a closure in a cache, with all cores, and in an order that keeps the
//! cache whole.
//!
//! Threads take paths in the order of [`order::queue`], references first, but
//! they do not finish in it. So a narinfo waits until its NAR and the narinfos
//! of its references are there: for each path, `waiting` counts these, and
//! whoever brings a count to zero publishes that path and goes on with those
//! that refer to it. E.g. of glibc ← bash ← git, git's NAR may be done before
//! bash's; then its narinfo is kept until bash's is written.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::beneath::FolderError;
use super::compress::{Failure, StoredNar, store_nar};
use super::{CacheError, CacheFolder, Refusal, order};
use crate::store::{Closure, NodeId};
use crate::tree::StoreFiles;

/// How to export.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many NARs are compressed at the same time; at least one.
    pub jobs: usize,
}

/// What an export did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many paths are new in the cache.
    pub added: usize,
    /// How many were there.
    pub skipped: usize,
    /// The size of their NARs, compressed.
    pub bytes: u64,
}

/// Puts all paths of `closure` that are not there yet in the cache at
/// `cache_dir`, which is made if need be.
///
/// # Errors
/// When the cache can't be used, or paths are not fit for it; all that do not
/// refer to such paths are in the cache then.
pub fn export(
    files: &StoreFiles,
    closure: &Closure,
    cache_dir: &Path,
    options: Options,
) -> Result<Summary, CacheError> {
    let queue = order::queue(closure).map_err(|id| CacheError::Cycle(closure.print(id)))?;
    let cache = CacheFolder::open(cache_dir, closure.store_dir())?;
    let export = Export { files, closure, cache: &cache, progress: Mutex::new(Progress::new(closure, queue)) };
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.clamp(1, closure.len().max(1)) {
            scope.spawn(|| export.work());
        }
    });
    let progress = export.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
    progress.finish()
}

/// What the threads share.
struct Export<'a> {
    files: &'a StoreFiles,
    closure: &'a Closure,
    cache: &'a CacheFolder,
    progress: Mutex<Progress>,
}

/// How far the paths have come.
struct Progress {
    /// What nobody has begun with.
    queue: std::vec::IntoIter<NodeId>,
    referrers: Vec<Vec<NodeId>>,
    /// What a path's narinfo waits for: its NAR, and the narinfos of so many
    /// references.
    waiting: Vec<usize>,
    states: Vec<State>,
    summary: Summary,
    refusals: Vec<Refusal>,
    /// What ended the export.
    failure: Option<CacheError>,
}

#[derive(Clone, PartialEq, Eq)]
enum State {
    /// Its NAR is not there yet.
    Waiting,
    /// Its NAR is there, and this is its narinfo; `None` where that is there,
    /// too.
    Ready(Option<Vec<u8>>),
    /// It is in the cache, with all that it refers to.
    Published,
    /// It will not be published: it, or what it refers to, is refused.
    LeftOut,
}

/// What became of one path's NAR.
enum Outcome {
    /// The path is in the cache already.
    Present,
    Written {
        narinfo: Vec<u8>,
        bytes: u64,
    },
}

impl Export<'_> {
    /// Works until the queue is empty.
    fn work(&self) {
        loop {
            let Some(id) = self.progress().next() else {
                return;
            };
            let outcome = self.export_one(id);
            self.progress().record(self, id, outcome);
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn export_one(&self, id: NodeId) -> Result<Outcome, Failure> {
        let info = self.closure.info(id);
        if self.cache.has(info)? {
            return Ok(Outcome::Present);
        }
        let StoredNar { nar, bytes } = store_nar(self.cache, self.files, info, &self.closure.print(id))?;
        let narinfo = self
            .cache
            .narinfo(info, &nar, bytes)
            .map_err(|source| Refusal::Narinfo { path: self.closure.print(id), source })?;
        tracing::debug!("{}: {} bytes compressed to {bytes}", info.path.to_basename(), nar.size);
        Ok(Outcome::Written { narinfo, bytes })
    }
}

impl Progress {
    fn new(closure: &Closure, queue: Vec<NodeId>) -> Self {
        Self {
            queue: queue.into_iter(),
            referrers: order::referrers(closure),
            waiting: order::reference_counts(closure).into_iter().map(|count| count + 1).collect(),
            states: vec![State::Waiting; closure.len()],
            summary: Summary::default(),
            refusals: Vec::new(),
            failure: None,
        }
    }

    /// What to do next: nothing that could not be published.
    fn next(&mut self) -> Option<NodeId> {
        self.queue.by_ref().find(|id| self.states[*id] != State::LeftOut)
    }

    fn record(&mut self, export: &Export<'_>, id: NodeId, outcome: Result<Outcome, Failure>) {
        let result = match outcome {
            // What it refers to was refused meanwhile.
            Ok(_) if self.states[id] == State::LeftOut => Ok(()),
            Ok(Outcome::Present) => self.ready(export, id, None),
            Ok(Outcome::Written { narinfo, bytes }) => {
                self.summary.bytes += bytes;
                self.ready(export, id, Some(narinfo))
            }
            Err(Failure::Path(refusal)) => {
                self.refusals.push(refusal);
                self.leave_out(id);
                Ok(())
            }
            Err(Failure::Cache(error)) => Err(error),
        };
        if let Err(error) = result {
            self.queue = Vec::new().into_iter();
            self.failure.get_or_insert(error.into());
        }
    }

    /// Writes the narinfo of `id` if it waits for nothing else, and those of
    /// all that waited only for it.
    fn ready(&mut self, export: &Export<'_>, id: NodeId, narinfo: Option<Vec<u8>>) -> Result<(), FolderError> {
        self.states[id] = State::Ready(narinfo);
        self.waiting[id] -= 1;
        let mut pending = vec![id];
        while let Some(id) = pending.pop() {
            if self.waiting[id] > 0 {
                continue;
            }
            match &self.states[id] {
                State::Ready(Some(narinfo)) => {
                    export.cache.publish(export.closure.info(id), narinfo)?;
                    self.summary.added += 1;
                }
                State::Ready(None) => self.summary.skipped += 1,
                _ => continue,
            }
            self.states[id] = State::Published;
            for referrer in std::mem::take(&mut self.referrers[id]) {
                self.waiting[referrer] -= 1;
                pending.push(referrer);
            }
        }
        Ok(())
    }

    /// Gives up `id` and all that refers to it, near or far.
    fn leave_out(&mut self, id: NodeId) {
        let mut pending = vec![id];
        while let Some(id) = pending.pop() {
            if matches!(self.states[id], State::Waiting | State::Ready(_)) {
                self.states[id] = State::LeftOut;
                pending.extend(std::mem::take(&mut self.referrers[id]));
            }
        }
    }

    fn finish(self) -> Result<Summary, CacheError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        if self.refusals.is_empty() {
            return Ok(self.summary);
        }
        let left_out = self.states.iter().filter(|state| **state == State::LeftOut).count();
        let left_out = left_out.saturating_sub(self.refusals.len());
        Err(CacheError::Refused { refusals: self.refusals, left_out })
    }
}
