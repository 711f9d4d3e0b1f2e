//! The limit that builds are measured against: reads all files below some paths,
//! and hashes their bytes, on all processors. No headers, no image, no index.
//!
//!     hash-files [--threads N] [--ahead N] [--no-hash] LIST
//!
//! LIST is a file with one path a line. The largest files come first; with
//! `--ahead`, the system is told of that many files before they are read.

use std::error::Error;
use std::fs::{File, symlink_metadata};
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{Advice, fadvise};
use sha2::{Digest as _, Sha256};

type Failure = Box<dyn Error + Send + Sync>;

/// How much is read with one call, in bytes.
const BUFFER: usize = 256 << 10;

#[derive(Default)]
struct Options {
    threads: usize,
    ahead: usize,
    no_hash: bool,
    list: PathBuf,
}

fn options() -> Result<Options, Failure> {
    let mut options = Options { threads: std::thread::available_parallelism()?.get(), ..Options::default() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().ok_or("a number is missing")?.parse().map_err(Failure::from);
        match argument.as_str() {
            "--threads" => options.threads = number()?,
            "--ahead" => options.ahead = number()?,
            "--no-hash" => options.no_hash = true,
            _ => options.list = argument.into(),
        }
    }
    Ok(options)
}

/// Calls `job` with 0, 1, ... `count` - 1 on some threads; tells what each made.
fn share<T: Send>(
    threads: usize,
    count: usize,
    job: impl Fn(usize, &mut [u8]) -> Result<T, Failure> + Sync,
) -> Result<Vec<T>, Failure> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut buffer = vec![0; BUFFER];
        let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        numbers
            .take_while(|number| *number < count)
            .map(|number| job(number, &mut buffer))
            .collect::<Result<Vec<_>, _>>()
    };
    let results = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| Err("a thread panicked".into())))
            .collect::<Vec<_>>()
    });
    Ok(results.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// The files below `path`, links not followed, with their sizes in bytes.
fn files(path: PathBuf) -> Result<Vec<(u64, PathBuf)>, Failure> {
    let mut found = Vec::new();
    let mut waiting = vec![path];
    while let Some(path) = waiting.pop() {
        let metadata = symlink_metadata(&path)?;
        if metadata.is_dir() {
            for entry in path.read_dir()? {
                waiting.push(entry?.path());
            }
        } else if metadata.is_file() {
            found.push((metadata.len(), path));
        }
    }
    Ok(found)
}

fn main() -> Result<(), Failure> {
    let Options { threads, ahead, no_hash, list } = options()?;
    let paths: Vec<PathBuf> = std::fs::read_to_string(list)?.lines().map(PathBuf::from).collect();
    let found = share(threads, paths.len(), |number, _| files(paths[number].clone()))?;
    let mut files: Vec<(u64, PathBuf)> = found.into_iter().flatten().collect();
    files.sort_by(|one, other| other.cmp(one));
    let announce = |number: usize| -> Result<(), Failure> {
        if let Some((_, path)) = files.get(number) {
            fadvise(File::open(path)?, 0, None, Advice::WillNeed)?;
        }
        Ok(())
    };
    (0..ahead).try_for_each(announce)?;
    let sizes = share(threads, files.len(), |number, buffer| {
        if ahead > 0 {
            announce(number + ahead)?;
        }
        let mut file = File::open(&files[number].1)?;
        let (mut hasher, mut size) = (Sha256::new(), 0);
        loop {
            let length = file.read(buffer)?;
            if length == 0 {
                break;
            }
            size += length as u64;
            if !no_hash {
                hasher.update(&buffer[..length]);
            }
        }
        std::hint::black_box(hasher.finalize());
        Ok(size)
    })?;
    println!("{} files, {} bytes", files.len(), sizes.iter().sum::<u64>());
    Ok(())
}
