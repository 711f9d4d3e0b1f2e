//! Works off the queue of builds.

use std::io;
use std::time::{Duration, Instant};

use crate::hook::HookError;
use crate::queue::{Entry, Queue, Record};

/// How long a worker waits at the most for what failed to be due again, before it ends and
/// leaves that to the next one.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How often it looks meanwhile whether there is something else to do.
const STEP: Duration = Duration::from_millis(500);

/// How long a worker stays when nothing is left. The next build often ends soon, and starting a
/// program costs more than most exports.
const LINGER: Duration = Duration::from_secs(1);

/// How often it looks then.
const LOOK: Duration = Duration::from_millis(20);

/// How long it waits for more to come, so that quick builds go out together and are not
/// disturbed one by one.
const GATHER: Duration = Duration::from_millis(500);

/// How many builds go out together at the most.
const BATCH: usize = 256;

/// After so many failures, what is no longer in the store is not asked for again.
const LAST_TRY: u32 = 100;

/// What became of the builds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many have gone out.
    pub done: usize,
    /// What could not, and why.
    pub failed: Vec<(String, String)>,
    /// Whether that is since a bucket does not answer as it should.
    pub is_cut_off: bool,
}

/// Delivers builds that belong together; see [`work`].
pub type Deliver<'a> = dyn Fn(&[&Record]) -> anyhow::Result<()> + 'a;

/// Works until nothing is left that is due soon, and for a moment nothing came, unless
/// somebody else is at work. Waits for what failed, some seconds, unless somebody
/// [asks](Queue::ask) for its place.
///
/// # Errors
/// When the queue can't be used.
pub fn work(queue: &Queue, deliver: &Deliver<'_>) -> io::Result<()> {
    loop {
        let Some(lock) = queue.lock()? else {
            return Ok(());
        };
        queue.sweep();
        let mut last = Instant::now();
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            let entries = queue.entries()?;
            let (due, later): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.record.wait().is_zero());
            if !due.is_empty() {
                if seen == 0 {
                    since = Instant::now();
                }
                if due.len() > seen && since.elapsed() < GATHER {
                    seen = due.len();
                    std::thread::sleep(LOOK);
                    continue;
                }
                round(queue, due, false, deliver).1?;
                (last, seen) = (Instant::now(), 0);
                continue;
            }
            match later.iter().map(|entry| entry.record.wait()).min() {
                Some(_) if queue.is_asked() => return Ok(()),
                Some(wait) if wait <= LONGEST_WAIT => std::thread::sleep(wait.min(STEP)),
                _ if last.elapsed() < LINGER => std::thread::sleep(LOOK),
                _ => break,
            }
        }
        // A hook that came after the last look found the queue locked, and started nobody.
        drop(lock);
        if !queue.entries()?.iter().any(|entry| entry.record.wait().is_zero()) {
            return Ok(());
        }
    }
}

/// Sees to it that what is `wanted` goes out, now, and says what does not: does it, or waits
/// for whoever does, for `patience` at the most.
///
/// # Errors
/// When the queue can't be read.
pub fn drain(
    queue: &Queue,
    wanted: &dyn Fn(&Record) -> bool,
    patience: Duration,
    deliver: &Deliver<'_>,
) -> io::Result<Report> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(5);
    let mut asked = None;
    loop {
        let entries = || Ok::<_, io::Error>(queue.entries()?.into_iter().filter(|entry| wanted(&entry.record)));
        let is_mine = match entries()?.next() {
            None => return Ok(Report::default()),
            // A queue of somebody else's is worked off by his worker.
            Some(_) => queue.lock().unwrap_or_default(),
        };
        if let Some(_lock) = is_mine {
            // What could not be noted, e.g. on a full disk, is only done once more.
            return Ok(round(queue, entries()?.collect(), true, deliver).0);
        }
        // A worker that only waits for what failed makes room.
        asked = asked.or_else(|| queue.ask().unwrap_or_default());
        if start.elapsed() >= patience {
            let failed = |entry: Entry| {
                let problem = entry.record.problem.clone();
                (name(&entry.record), problem.unwrap_or_else(|| "it is still waiting for its turn".to_owned()))
            };
            return Ok(Report { failed: entries()?.map(failed).collect(), ..Report::default() });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(25));
    }
}

/// Tries all of `entries` once; tells, too, whether what became of them could be noted.
/// `is_told` says whether somebody gets to know what failed.
fn round(queue: &Queue, entries: Vec<Entry>, is_told: bool, deliver: &Deliver<'_>) -> (Report, io::Result<()>) {
    let mut round = Round { queue, deliver, is_told, report: Report::default(), noted: Ok(()) };
    let mut left = entries;
    while let Some(first) = left.first() {
        let key = |record: &Record| {
            let Record { cache, configuration, spec, layer_index, signers, .. } = record.clone();
            (cache, configuration, spec, layer_index, signers)
        };
        let wanted = key(&first.record);
        let (mut batch, mut rest): (Vec<Entry>, Vec<Entry>) =
            left.into_iter().partition(|entry| key(&entry.record) == wanted);
        if batch.len() > BATCH {
            rest.splice(0..0, batch.split_off(BATCH));
        }
        round.together(&batch);
        left = rest;
    }
    (round.report, round.noted)
}

/// What is known while builds are tried.
struct Round<'a> {
    queue: &'a Queue,
    deliver: &'a Deliver<'a>,
    is_told: bool,
    report: Report,
    noted: io::Result<()>,
}

impl Round<'_> {
    /// Delivers `batch`; where that fails, each for itself, to find those that are to blame.
    fn together(&mut self, batch: &[Entry]) {
        let records: Vec<&Record> = batch.iter().map(|entry| &entry.record).collect();
        match (self.deliver)(&records) {
            Ok(()) => {
                self.report.done += batch.len();
                for entry in batch {
                    self.note(self.queue.finish(entry));
                }
            }
            // The others would fail alike, and are tried again later. At a job's end, what still
            // fits on a disk goes out.
            Err(error) if error.downcast_ref().is_some_and(|error| self.concerns_all(error)) => {
                self.put_off(batch, &error);
            }
            Err(_) if batch.len() > 1 => batch.chunks(1).for_each(|entry| self.together(entry)),
            Err(error) => self.put_off(batch, &error),
        }
    }

    fn concerns_all(&self, error: &HookError) -> bool {
        error.is_of_bucket() || !self.is_told && error.is_of_cache()
    }

    fn put_off(&mut self, batch: &[Entry], error: &anyhow::Error) {
        self.report.is_cut_off |= error.downcast_ref().is_some_and(HookError::is_of_bucket);
        // Our errors name their causes themselves.
        let problem = error.to_string();
        for entry in batch {
            tracing::warn!("{}: {problem}", name(&entry.record));
            self.report.failed.push((name(&entry.record), problem.clone()));
            let is_over = self.is_told || entry.record.failures >= LAST_TRY;
            self.note(match error.downcast_ref() {
                // Somebody has deleted it, and nobody can bring it back.
                Some(HookError::NoOutput(_)) if is_over => self.queue.finish(entry),
                _ => self.queue.put_off(entry, &problem),
            });
        }
    }

    fn note(&mut self, result: io::Result<()>) {
        if self.noted.is_ok() {
            self.noted = result;
        }
    }
}

/// What to call a build.
fn name(record: &Record) -> String {
    record.derivation.as_ref().or(record.outputs.first()).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::path::Path;

    use super::*;
    use crate::cache::CacheError;
    use crate::s3::S3Error;
    use crate::store::closure::tests::path;
    use crate::store::{StoreDir, StoreLocation};

    fn queue(letters: &[(char, &str)]) -> (tempfile::TempDir, Queue) {
        let root = tempfile::tempdir().expect("a folder");
        let location = StoreLocation::new(Some(root.path()), StoreDir::default(), Path::new("/nix/var/nix"));
        let queue = Queue::new(&location);
        for (letter, cache) in letters {
            let record = Record::new(None, &[path(*letter, "a")], cache.into());
            queue.push(&location, &record).expect("recorded");
        }
        (root, queue)
    }

    fn letters(records: &[&Record]) -> String {
        records.iter().map(|record| &record.outputs[0][..1]).collect()
    }

    #[test]
    fn what_belongs_together_goes_out_together_and_what_fails_alone() {
        let (_root, queue) = queue(&[('a', "/x"), ('b', "/y"), ('c', "/x"), ('d', "/x")]);
        let batches = RefCell::new(Vec::new());
        let deliver = |records: &[&Record]| {
            batches.borrow_mut().push(letters(records));
            if letters(records).contains('c') { Err(anyhow::anyhow!("no")) } else { Ok(()) }
        };
        let report = drain(&queue, &|_| true, Duration::ZERO, &deliver).expect("readable");
        assert_eq!(*batches.borrow(), ["acd", "a", "c", "d", "b"]);
        assert_eq!((report.done, report.failed.len()), (3, 1));
        assert_eq!(report.failed[0].1, "no");
        let left = queue.entries().expect("readable");
        assert_eq!((left.len(), left[0].record.failures), (1, 1));
    }

    #[test]
    fn where_the_cache_fails_no_build_is_tried_alone_unless_it_is_the_last_chance() {
        let (_root, queue) = queue(&[('a', "/x"), ('b', "/x"), ('c', "/x")]);
        let calls = RefCell::new(0);
        let deliver = |_: &[&Record]| {
            *calls.borrow_mut() += 1;
            Err(HookError::Cache(CacheError::Missing("/x".into())).into())
        };
        let entries = || queue.entries().expect("readable");
        round(&queue, entries(), false, &deliver).1.expect("noted");
        assert_eq!(calls.replace(0), 1);
        assert!(entries().iter().all(|entry| entry.record.failures == 1));
        round(&queue, entries(), true, &deliver).1.expect("noted");
        assert_eq!(calls.take(), 4);
    }

    #[test]
    fn a_bucket_that_does_not_answer_is_asked_once() {
        let (_root, queue) = queue(&[('a', "s3://x"), ('b', "s3://x"), ('c', "s3://x")]);
        let calls = RefCell::new(0);
        let deliver = |_: &[&Record]| {
            *calls.borrow_mut() += 1;
            let error = S3Error::Failed { bucket: "x".into(), action: "write a".into(), problem: "it is down".into() };
            Err(HookError::Cache(CacheError::Shelf(error.into())).into())
        };
        let report = drain(&queue, &|_| true, Duration::ZERO, &deliver).expect("readable");
        assert_eq!((calls.take(), report.failed.len(), report.is_cut_off), (1, 3, true));
        assert_eq!(queue.entries().expect("readable").len(), 3);
    }

    #[test]
    fn only_what_is_wanted_is_drained_and_others_work_is_waited_for() {
        let (_root, queue) = queue(&[('a', "/x"), ('b', "/y")]);
        let of_x = |record: &Record| record.cache == Path::new("/x");
        let lock = queue.lock().expect("lockable").expect("free");
        let report = drain(&queue, &of_x, Duration::from_millis(20), &|_| Ok(())).expect("readable");
        assert_eq!((report.done, report.failed.len()), (0, 1));
        drop(lock);
        assert_eq!(drain(&queue, &of_x, Duration::ZERO, &|_| Ok(())).expect("readable").done, 1);
        assert_eq!(queue.entries().expect("readable").len(), 1);
    }

    #[test]
    fn a_worker_that_waits_makes_room_for_who_wants_to_know() {
        let (_root, queue) = queue(&[('a', "/x"), ('b', "/x")]);
        for _ in 0..4 {
            let waiting = queue.entries().expect("readable").remove(0);
            queue.put_off(&waiting, "no disk").expect("noted");
        }
        let (at_work, is_at_work) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let queue = &queue;
            scope.spawn(move || work(queue, &|_| Ok(at_work.send(())?)).expect("works"));
            is_at_work.recv().expect("said");
            let start = Instant::now();
            let report = drain(queue, &|_| true, LONGEST_WAIT, &|_| Err(anyhow::anyhow!("no disk"))).expect("readable");
            assert_eq!(report.failed.last().map(|(_, problem)| &problem[..]), Some("no disk"));
            assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
        });
        assert!(!queue.is_asked());
    }

    #[test]
    fn what_is_gone_is_told_once_and_what_failed_stays() {
        let (_root, queue) = queue(&[('a', "/x"), ('b', "/x"), ('c', "/x")]);
        let deliver = |records: &[&Record]| match &*letters(records) {
            "c" => Ok(()),
            "a" => Err(HookError::NoOutput("a".to_owned()).into()),
            _ => Err(anyhow::anyhow!("no disk")),
        };
        for failed in [vec!["a", "b"], vec!["b"]] {
            let report = drain(&queue, &|_| true, Duration::ZERO, &deliver).expect("readable");
            let names: Vec<&str> = report.failed.iter().map(|(name, _)| &name[..1]).collect();
            assert_eq!(names, failed);
        }
        assert_eq!(queue.entries().expect("readable").len(), 1);
    }

    #[test]
    fn a_worker_that_nobody_hears_asks_often_for_what_is_gone() {
        let (_root, queue) = queue(&[('a', "/x")]);
        let gone = |_: &[&Record]| Err(HookError::NoOutput("a".to_owned()).into());
        let try_once = || round(&queue, queue.entries().expect("readable"), false, &gone).1.expect("noted");
        for tries in 0..=LAST_TRY {
            let entries = queue.entries().expect("readable");
            assert_eq!(entries.first().map(|entry| entry.record.failures), Some(tries));
            try_once();
        }
        assert!(queue.entries().expect("readable").is_empty());
    }

    #[test]
    fn a_worker_tries_again_and_ends_when_nothing_is_left() {
        let (_root, queue) = queue(&[('a', "/x"), ('b', "/x")]);
        let failures = RefCell::new(1);
        let deliver = |records: &[&Record]| {
            if letters(records) == "a" && *failures.borrow() > 0 {
                *failures.borrow_mut() -= 1;
            } else if records.len() == 1 {
                return Ok(());
            }
            Err(anyhow::anyhow!("not yet"))
        };
        work(&queue, &deliver).expect("works");
        assert!(queue.entries().expect("readable").is_empty());
        assert_eq!(failures.take(), 0);
    }
}
