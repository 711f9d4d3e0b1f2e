//! Works off the queue of builds.

use std::io;
use std::time::{Duration, Instant};

use crate::queue::{Entry, Queue, Record};

/// How long a worker waits at the most for what failed to be due again, before it ends and
/// leaves that to the next one.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

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

/// What became of the builds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many have gone out.
    pub done: usize,
    /// What could not, and why.
    pub failed: Vec<(String, String)>,
}

/// Delivers builds that belong together; see [`work`].
pub type Deliver<'a> = dyn Fn(&[&Record]) -> anyhow::Result<()> + 'a;

/// Works until nothing is left that is due soon, and for a moment nothing came, unless
/// somebody else is at work. Waits for what failed, some seconds.
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
                round(queue, due, deliver)?;
                (last, seen) = (Instant::now(), 0);
                continue;
            }
            match later.iter().map(|entry| entry.record.wait()).min() {
                Some(wait) if wait <= LONGEST_WAIT => std::thread::sleep(wait.min(Duration::from_secs(1))),
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
    loop {
        let entries = || Ok::<_, io::Error>(queue.entries()?.into_iter().filter(|entry| wanted(&entry.record)));
        let is_mine = match entries()?.next() {
            None => return Ok(Report::default()),
            // A queue of somebody else's is worked off by his worker.
            Some(_) => queue.lock().unwrap_or_default(),
        };
        if let Some(_lock) = is_mine {
            return round(queue, entries()?.collect(), deliver);
        }
        if start.elapsed() >= patience {
            let failed = |entry: Entry| {
                let problem = entry.record.problem.clone();
                (name(&entry.record), problem.unwrap_or_else(|| "it is still waiting for its turn".to_owned()))
            };
            return Ok(Report { done: 0, failed: entries()?.map(failed).collect() });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(25));
    }
}

/// Tries all of `entries` once.
fn round(queue: &Queue, entries: Vec<Entry>, deliver: &Deliver<'_>) -> io::Result<Report> {
    let mut report = Report::default();
    let mut left = entries;
    while let Some(first) = left.first() {
        let alike = |entry: &Entry| {
            let key = |record: &Record| (record.cache.clone(), record.configuration.clone(), record.spec.clone());
            key(&entry.record) == key(&first.record)
        };
        let (mut batch, mut rest): (Vec<Entry>, Vec<Entry>) = left.iter().cloned().partition(alike);
        if batch.len() > BATCH {
            rest.splice(0..0, batch.split_off(BATCH));
        }
        together(queue, &batch, deliver, &mut report)?;
        left = rest;
    }
    Ok(report)
}

/// Delivers `batch`; where that fails, each for itself, to find those that are to blame.
fn together(queue: &Queue, batch: &[Entry], deliver: &Deliver<'_>, report: &mut Report) -> io::Result<()> {
    let records: Vec<&Record> = batch.iter().map(|entry| &entry.record).collect();
    match deliver(&records) {
        Ok(()) => {
            report.done += batch.len();
            batch.iter().try_for_each(|entry| queue.finish(entry))
        }
        Err(_) if batch.len() > 1 => batch.chunks(1).try_for_each(|entry| together(queue, entry, deliver, report)),
        Err(error) => {
            // Our errors name their causes themselves.
            let problem = error.to_string();
            for entry in batch {
                tracing::warn!("{}: {problem}", name(&entry.record));
                report.failed.push((name(&entry.record), problem.clone()));
                queue.put_off(entry, &problem)?;
            }
            Ok(())
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
