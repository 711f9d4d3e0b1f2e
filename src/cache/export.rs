//! Puts a closure in a cache, with all cores, and in an order that keeps the
//! cache whole.
//!
//! Threads take paths in the order of [`order::queue`], references first, but
//! they do not finish in it. So a narinfo waits until its NAR and the narinfos
//! of its references are there: for each path, `waiting` counts these, and when
//! a count comes to zero, the path is due: the next thread publishes it, and
//! with that those that refer to it may be due. E.g. of glibc ← bash ← git,
//! git's NAR may be done before bash's; then its narinfo is kept until bash's is
//! written. Threads publish side by side, as a bucket takes its time for each.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::compress::{Codec, Failure, StoredNar, store_nar};
use super::folder::Presence;
use super::shelf::{ShelfError, Version};
use super::{CacheError, CacheFolder, Options, Place, Refusal, extras, order, usage};
use crate::layer::deliver::memory::Memory;
use crate::store::{Closure, NodeId};
use crate::tree::StoreFiles;

/// How large the NARs may be together, in bytes, that are sent to a bucket at the same time, and
/// what the largest counts as: of one that is sent in parts, four are in memory, of 8 MiB each.
const SENT: u64 = 64 << 20;
const LARGEST: u64 = 32 << 20;

/// What an export did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many paths are new in the cache.
    pub added: usize,
    /// How many were there.
    pub skipped: usize,
    /// How many of these got signatures that they lacked.
    pub signed: usize,
    /// The size of their NARs, compressed.
    pub bytes: u64,
}

/// Puts all paths of `closure` that are not there yet in the cache at
/// `place`; a folder is made if need be.
///
/// # Errors
/// When the cache can't be used, or paths are not fit for it; all that do not
/// refer to such paths are in the cache then.
pub fn export(
    files: &StoreFiles,
    closure: &Closure,
    place: impl Into<Place>,
    options: &Options,
) -> Result<Summary, CacheError> {
    export_selected(files, closure, &|_| true, place, options)
}

/// [`export`] of those paths only that are `wanted`: the others can be had elsewhere.
///
/// # Errors
/// As there.
pub fn export_selected(
    files: &StoreFiles,
    closure: &Closure,
    wanted: &(dyn Fn(NodeId) -> bool + Sync),
    place: impl Into<Place>,
    options: &Options,
) -> Result<Summary, CacheError> {
    let queue = order::queue(closure).map_err(|id| CacheError::Cycle(closure.print(id)))?;
    let cache = CacheFolder::open(place, closure.store_dir())?;
    if let Some(priority) = options.priority {
        cache.set_priority(priority)?;
    }
    let progress = Mutex::new(Progress::new(closure, queue));
    let begun = usage::hold(cache.root(), closure)?;
    let codec = Codec::new(options.compression, options.jobs);
    let (sent, changed) = (Memory::of(SENT), Condvar::new());
    let export = Export { files, closure, wanted, cache: &cache, options, codec, progress, sent, changed };
    std::thread::scope(|scope| {
        for _ in 0..cache.root().writers(options.jobs).clamp(1, closure.len().max(1)) {
            scope.spawn(|| export.work());
        }
    });
    let progress = export.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
    let summary = progress.finish();
    if let Ok(summary) = &summary
        && (summary.added > 0 || cache.root().is_shared())
        && usage::record(cache.root(), closure, wanted)
    {
        begun.end();
    }
    // Of one that has failed, what it found may be needed by what it added: it does not end.
    summary
}

/// What the threads share.
struct Export<'a> {
    files: &'a StoreFiles,
    closure: &'a Closure,
    wanted: &'a (dyn Fn(NodeId) -> bool + Sync),
    cache: &'a CacheFolder,
    options: &'a Options,
    codec: Codec,
    progress: Mutex<Progress>,
    /// Bounds what is in memory of what is sent.
    sent: Memory,
    /// Tells those who wait that there may be something to do, or nothing any more.
    changed: Condvar,
}

/// How far the paths have come.
struct Progress {
    /// What nobody has begun with.
    queue: std::vec::IntoIter<NodeId>,
    /// What is to be published, and nobody has begun with that.
    due: Vec<NodeId>,
    /// How many threads are at work, and may find more to do.
    at_work: usize,
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
    /// Its NAR is there.
    Ready(Narinfo),
    /// It is in the cache, with all that it refers to.
    Published,
    /// It will not be published: it, or what it refers to, is refused.
    LeftOut,
}

/// What is left to do of a path whose NAR is there.
#[derive(Clone, PartialEq, Eq)]
enum Narinfo {
    /// Nothing.
    Present,
    /// Nothing, since it is not to be there.
    Unwanted,
    /// It has no narinfo yet, or none that will do, and is to get this one.
    New(Vec<u8>, Version),
    /// It has one that lacks signatures, and is to get this one.
    Signed(Vec<u8>, Version),
}

/// What a thread does next.
enum Task {
    /// To see to the path's NAR.
    Export(NodeId),
    /// To write its narinfo.
    Publish(NodeId, Narinfo),
}

/// A thread's work on one task. Whatever ends it, others hear of it.
struct Turn<'a, 'b>(&'a Export<'b>);

impl Drop for Turn<'_, '_> {
    fn drop(&mut self) {
        self.0.progress().at_work -= 1;
        self.0.changed.notify_all();
    }
}

/// What became of one path's NAR.
struct Outcome {
    narinfo: Narinfo,
    /// The size of its file, if that is new.
    bytes: u64,
}

impl Export<'_> {
    /// Works until nothing is left to do.
    fn work(&self) {
        while let Some(task) = self.next() {
            let _turn = Turn(self);
            match task {
                Task::Export(id) => {
                    let outcome = self.export_one(id);
                    self.progress().record(id, outcome);
                }
                Task::Publish(id, narinfo) => {
                    let result = self.publish(id, &narinfo);
                    self.progress().published(id, &narinfo, result);
                }
            }
        }
    }

    /// What to do next; waits where others may still find something.
    fn next(&self) -> Option<Task> {
        let mut progress = self.progress();
        loop {
            if let Some(task) = progress.next() {
                progress.at_work += 1;
                return Some(task);
            }
            if progress.at_work == 0 {
                return None;
            }
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn publish(&self, id: NodeId, narinfo: &Narinfo) -> Result<(), ShelfError> {
        match narinfo {
            Narinfo::New(text, version) | Narinfo::Signed(text, version) => {
                self.cache.publish(self.closure.info(id), text, version, &self.options.keys)
            }
            Narinfo::Present | Narinfo::Unwanted => Ok(()),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn export_one(&self, id: NodeId) -> Result<Outcome, Failure> {
        let present = |narinfo| Outcome { narinfo, bytes: 0 };
        if !(self.wanted)(id) {
            return Ok(present(Narinfo::Unwanted));
        }
        let info = self.closure.info(id);
        let (outcome, is_ours) = match self.cache.look_for(info, &self.options.keys)? {
            Presence::Absent(version) => return self.export_new(id, version),
            Presence::Present { same } => (present(Narinfo::Present), same),
            Presence::Unsigned(narinfo, version) => (present(Narinfo::Signed(narinfo, version)), true),
        };
        // Another build's contents are not listed by ours.
        if self.options.listing && is_ours {
            extras::add_listing(self.cache, self.files, info, None)?;
        }
        self.add_log(id)?;
        Ok(outcome)
    }

    fn export_new(&self, id: NodeId, version: Version) -> Result<Outcome, Failure> {
        let info = self.closure.info(id);
        let Options { keys, listing, .. } = self.options;
        let path = self.closure.print(id);
        let is_shared = self.cache.root().is_shared();
        // One whose size nobody knows may be large.
        let size = if info.nar_size == 0 { LARGEST } else { info.nar_size.min(LARGEST) };
        let _share = is_shared.then(|| self.sent.take(size));
        let StoredNar { file, entries } = store_nar(self.cache, self.files, info, &path, &self.codec)?;
        if *listing {
            extras::add_listing(self.cache, self.files, info, entries)?;
        }
        self.add_log(id)?;
        let narinfo = self.cache.narinfo(info, &file, keys).map_err(|source| Refusal::Narinfo { path, source })?;
        tracing::debug!("{}: {} bytes compressed to {}", info.path.to_basename(), file.nar.size, file.bytes);
        Ok(Outcome { narinfo: Narinfo::New(narinfo, version), bytes: file.bytes })
    }

    fn add_log(&self, id: NodeId) -> Result<(), ShelfError> {
        let logs = self.options.logs.as_deref();
        logs.map_or(Ok(()), |logs| extras::add_log(self.cache, logs, self.closure.info(id)))
    }
}

impl Progress {
    fn new(closure: &Closure, queue: Vec<NodeId>) -> Self {
        Self {
            queue: queue.into_iter(),
            due: Vec::new(),
            at_work: 0,
            referrers: order::referrers(closure),
            waiting: order::reference_counts(closure).into_iter().map(|count| count + 1).collect(),
            states: vec![State::Waiting; closure.len()],
            summary: Summary::default(),
            refusals: Vec::new(),
            failure: None,
        }
    }

    /// What to do next: nothing that could not be published.
    fn next(&mut self) -> Option<Task> {
        while let Some(id) = self.due.pop() {
            if let State::Ready(narinfo) = &self.states[id] {
                return Some(Task::Publish(id, narinfo.clone()));
            }
        }
        self.queue.by_ref().find(|id| self.states[*id] != State::LeftOut).map(Task::Export)
    }

    fn record(&mut self, id: NodeId, outcome: Result<Outcome, Failure>) {
        match outcome {
            // What it refers to was refused meanwhile.
            Ok(_) if self.states[id] == State::LeftOut => {}
            Ok(Outcome { narinfo, bytes }) => {
                self.summary.bytes += bytes;
                self.states[id] = State::Ready(narinfo);
                self.proceed(id);
            }
            Err(Failure::Path(refusal)) => {
                self.refusals.push(refusal);
                self.leave_out(id);
            }
            Err(Failure::Cache(error)) => self.fail(error),
        }
    }

    /// `id` waits for one thing less.
    fn proceed(&mut self, id: NodeId) {
        self.waiting[id] -= 1;
        if self.waiting[id] == 0 && matches!(self.states[id], State::Ready(_)) {
            self.due.push(id);
        }
    }

    /// Counts what was published, and goes on with what waited for it.
    fn published(&mut self, id: NodeId, narinfo: &Narinfo, result: Result<(), ShelfError>) {
        if let Err(error) = result {
            return self.fail(error);
        }
        let Summary { added, skipped, signed, .. } = &mut self.summary;
        match narinfo {
            Narinfo::Present => *skipped += 1,
            Narinfo::Unwanted => {}
            Narinfo::New(..) => *added += 1,
            Narinfo::Signed(..) => (*skipped, *signed) = (*skipped + 1, *signed + 1),
        }
        self.states[id] = State::Published;
        for referrer in std::mem::take(&mut self.referrers[id]) {
            self.proceed(referrer);
        }
    }

    /// Begins with nothing else.
    fn fail(&mut self, error: ShelfError) {
        self.queue = Vec::new().into_iter();
        self.due.clear();
        self.failure.get_or_insert(error.into());
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
