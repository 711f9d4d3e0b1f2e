//! Reads NARs that nobody vouches for, as they come from caches.
//!
//! The crate nix-archive parses: it streams, keeps no contents in memory, and
//! refuses what is deeper than [`MAX_DEPTH`], names that lead elsewhere or are
//! not in order, padding that is not zeros, lengths beyond reason, and anything
//! after the end. What it lacks is added here: the limits of names, targets and
//! paths, a limit for the whole, which also holds for the sizes that are
//! announced, and the hash.
//!
//! Whatever Nix 2.8 refuses to unpack is refused, which `tests/nars.rs` tries.
//! Stowage writes deeper NARs than it reads, since a store may have them.
//!
//! Source: Nix's `parseDump`, `src/libutil/archive.cc`.

use std::cell::Cell;
use std::io::{self, BufReader, Read};

use nix_archive::nar::{Error, Event as Parsed, FileContents, decode_events_reader};
use sha2::{Digest as _, Sha256};

use super::Measured;
use crate::store::NarHash;

/// How many folders may be in each other. Nix's `narMaxDepth`, since 2.34; it is
/// also what nix-archive has.
pub const MAX_DEPTH: usize = 64;

/// How many bytes a name may have. Nix's `narMaxName`; no file system of Linux
/// takes more.
pub const MAX_NAME: usize = 255;

/// How many bytes a link's target may have. Nix's `narMaxTarget`, which is
/// Linux's limit.
pub const MAX_TARGET: usize = 4095;

/// How many bytes a path below the root may have: no call of Linux takes more,
/// so Nix before 2.33 can't unpack it.
pub const MAX_PATH: usize = 4095;

/// How much of the source is read at once.
const BUFFER_SIZE: usize = 64 * 1024;

/// Something in a NAR. Its path comes with it: empty for the root, else names
/// with `/` between them.
pub enum Event<'a> {
    /// A folder begins; what is in it follows, in the order of the names' bytes.
    Enter,
    /// The folder ends.
    Leave,
    /// A file.
    Regular {
        /// Whether it is executable.
        executable: bool,
        /// How many bytes it has.
        size: u64,
        /// These bytes, which need not be read. They are not to be believed
        /// before the whole NAR is read and its hash compared.
        contents: &'a mut dyn Read,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points: 1 to [`MAX_TARGET`] bytes, none of them zero.
        target: &'a [u8],
    },
}

/// Why a NAR was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is none, is cut off, or has something in it that no store path has.
    #[error("it is no NAR, or a bad one: {0}")]
    Refused(String),
    /// It has folders deeper in each other than [`MAX_DEPTH`]. Nix up to 2.33 takes those.
    #[error("it has more than {MAX_DEPTH} folders in each other")]
    TooDeep,
    /// It does not end where it should.
    #[error("it is longer than {0} bytes, the size that its NAR should have")]
    TooLong(u64),
    /// Its source fails, e.g. since what is compressed is damaged.
    #[error("reading a NAR: {0}")]
    Source(io::Error),
    /// Whoever was told of its contents can't go on.
    #[error(transparent)]
    Visit(io::Error),
}

/// Reads the NAR in `source`, of at most `limit` bytes, to the end of both, and
/// tells `visit` of all that is in it. Of a source that has more, no more than
/// `limit` bytes and a buffer are read.
///
/// The result is for the caller to compare with what the NAR should be.
///
/// # Errors
/// When it is no good NAR, does not end, or `visit` fails.
pub fn read(
    source: impl Read,
    limit: u64,
    mut visit: impl FnMut(&[u8], Event<'_>) -> io::Result<()>,
) -> Result<Measured, ReadError> {
    let meter = Meter { limit, size: Cell::new(0), problem: Cell::new(None) };
    let source = BufReader::with_capacity(BUFFER_SIZE, source);
    let mut metered = Metered { source, hasher: Sha256::new(), meter: &meter };
    let mut path = Vec::new();
    let parsed = decode_events_reader(&mut metered, |event| meter.pass_on(event, &mut path, &mut visit));
    let hash = NarHash::new(metered.hasher.finalize().into());
    match parsed {
        Ok(()) => Ok(Measured { hash, size: meter.size.get() }),
        Err(error) => Err(meter.explain(error)),
    }
}

/// What is known of the reading beside the parser, which knows neither limit nor
/// cause.
struct Meter {
    limit: u64,
    /// How many bytes are read.
    size: Cell<u64>,
    problem: Cell<Option<Problem>>,
}

/// What ended the reading, where the parser's error does not tell.
#[derive(Clone, Copy)]
enum Problem {
    TooLong,
    CutOff,
    Source,
    Visit,
    Bad(&'static str),
}

impl Meter {
    /// Notes a problem, and makes an error that gets past the parser; the first
    /// one is the cause of the others.
    fn fail(&self, problem: Problem) -> io::Error {
        self.problem.set(self.problem.get().or(Some(problem)));
        io::ErrorKind::InvalidData.into()
    }

    /// Checks what the parser does not, and tells `visit`.
    fn pass_on<R: Read>(
        &self,
        event: Parsed<'_, FileContents<'_, R>>,
        path: &mut Vec<u8>,
        visit: &mut impl FnMut(&[u8], Event<'_>) -> io::Result<()>,
    ) -> Result<(), Error> {
        let (Parsed::DirectoryStart { name }
        | Parsed::DirectoryEnd { name }
        | Parsed::Regular { name, .. }
        | Parsed::Symlink { name, .. }) = event;
        let around = parent_length(path);
        let length = path.len();
        if !matches!(event, Parsed::DirectoryEnd { .. }) {
            self.push(path, name)?;
        }
        let visited = match event {
            Parsed::DirectoryStart { .. } => return self.told(visit(path, Event::Enter)),
            Parsed::DirectoryEnd { .. } => {
                let visited = visit(path, Event::Leave);
                path.truncate(around);
                return self.told(visited);
            }
            Parsed::Symlink { target, .. } => {
                self.check_target(target)?;
                visit(path, Event::Symlink { target })
            }
            Parsed::Regular { executable, contents, .. } => {
                let size = contents.size();
                // Before anybody makes room for it.
                if size > self.limit - self.size.get() {
                    return Err(self.fail(Problem::TooLong).into());
                }
                let mut contents = Contents { contents, left: size, meter: self };
                visit(path, Event::Regular { executable, size, contents: &mut contents })
            }
        };
        path.truncate(length);
        self.told(visited)
    }

    fn push(&self, path: &mut Vec<u8>, name: Option<&[u8]>) -> io::Result<()> {
        let Some(name) = name else { return Ok(()) };
        if name.len() > MAX_NAME {
            return Err(self.fail(Problem::Bad("a name has more than 255 bytes")));
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend(name);
        if path.len() > MAX_PATH {
            return Err(self.fail(Problem::Bad("a path has more than 4095 bytes")));
        }
        Ok(())
    }

    fn check_target(&self, target: &[u8]) -> io::Result<()> {
        match target {
            [] => Err(self.fail(Problem::Bad("a link points nowhere"))),
            _ if target.len() > MAX_TARGET => Err(self.fail(Problem::Bad("a link's target has more than 4095 bytes"))),
            _ if target.contains(&0) => Err(self.fail(Problem::Bad("a link's target has a zero in it"))),
            _ => Ok(()),
        }
    }

    fn told(&self, visited: io::Result<()>) -> Result<(), Error> {
        visited.map_err(|error| {
            // Unless it only hands on what the source said.
            self.fail(Problem::Visit);
            Error::Io(error)
        })
    }

    fn explain(&self, error: Error) -> ReadError {
        let refused = |text: &str| ReadError::Refused(text.to_owned());
        match (self.problem.get(), error) {
            (Some(Problem::TooLong), _) => ReadError::TooLong(self.limit),
            (Some(Problem::CutOff), _) | (None, Error::UnexpectedEof) => refused("it is cut off"),
            (Some(Problem::Bad(text)), _) => refused(text),
            (Some(Problem::Visit), Error::Io(error)) => ReadError::Visit(error),
            (_, Error::Io(error)) => ReadError::Source(error),
            (_, Error::MaxDepth(_)) => ReadError::TooDeep,
            (_, error) => ReadError::Refused(error.to_string()),
        }
    }
}

/// How long the path around `path` is.
fn parent_length(path: &[u8]) -> usize {
    path.iter().rposition(|byte| *byte == b'/').unwrap_or(0)
}

/// A source that is hashed and counted, and has an end.
struct Metered<'a, R> {
    source: BufReader<R>,
    hasher: Sha256,
    meter: &'a Meter,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let left = self.meter.limit - self.meter.size.get();
        // At the limit, a byte more would be one too many.
        let mut probe = [0];
        let wanted = space.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let space = if left == 0 && !space.is_empty() { &mut probe[..] } else { &mut space[..wanted] };
        let length = self.source.read(space).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                self.meter.fail(Problem::Source);
            }
        })?;
        if left == 0 && length > 0 {
            return Err(self.meter.fail(Problem::TooLong));
        }
        self.hasher.update(&space[..length]);
        self.meter.size.set(self.meter.size.get() + length as u64);
        Ok(length)
    }
}

/// A file's contents, which are never less than announced.
struct Contents<'a, 'b, R> {
    contents: FileContents<'a, R>,
    left: u64,
    meter: &'b Meter,
}

impl<R: Read> Read for Contents<'_, '_, R> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let length = self.contents.read(space)?;
        if length == 0 && self.left > 0 && !space.is_empty() {
            self.meter.fail(Problem::CutOff);
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests;
