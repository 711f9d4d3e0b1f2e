//! Reads tars that others wrote, as Docker reads them, in bounded memory.
//!
//! Docker, podman and containerd read layers with Go's `archive/tar`. A tar that
//! two readers take differently could have us see another file system than a
//! container has, so this one decides as Go's does: which entries have contents,
//! which of pax, GNU and plain names counts, and where the archive ends. (The
//! crate `tar` does otherwise in places, and keeps headers of any size.)
//!
//! Sources: POSIX.1-2017, `pax`; Go 1.22's `archive/tar/reader.go`; GNU tar's
//! manual, "Storing Sparse Files".

mod pax;

use std::io::{self, Read};

use crate::layer::tar::{BLOCK, padding};
use pax::Pax;

/// How long a path may be, in bytes, with Linux: no tool unpacks a longer one.
const MAX_PATH: usize = 4096;

/// How large the headers before an entry may be together, in bytes: they are
/// kept in memory. Go's own limit is the same.
const MAX_HEADERS: u64 = 1 << 20;

/// How large a file may be, in bytes: 1 EiB.
const MAX_SIZE: u64 = 1 << 60;

/// A source of bytes some of which are not wanted.
pub trait Input: Read {
    /// Goes on `length` bytes later.
    ///
    /// # Errors
    /// When the source ends before that.
    fn skip(&mut self, length: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.take(length), &mut io::sink())?;
        if skipped == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// An entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TarEntry {
    /// Its path, without `.`, empty parts, and `/` at either end.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Its permissions.
    pub mode: u32,
    /// Its owner's number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
    /// How long its contents are, in bytes.
    pub size: u64,
    /// The file's capabilities, as the system keeps them; empty where it has none.
    pub capability: Vec<u8>,
}

/// What an entry is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    #[default]
    Regular,
    /// A file with holes, whose contents can't be read here.
    Sparse,
    /// Another name for the file with that path.
    HardLink(Vec<u8>),
    /// A symbolic link with that target.
    Symlink(Vec<u8>),
    /// A folder.
    Directory,
    /// A device or pipe.
    Special,
}

/// Why a tar can't be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// Its bytes can't be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// Its bytes are no tar, or one that is refused.
    #[error("{0}")]
    Refused(String),
}

/// Reads a tar entry by entry.
pub struct TarReader<R> {
    input: R,
    /// Where the next byte is, in bytes from the beginning.
    position: u64,
    /// What is left of the entry's contents, and the zeros that follow them.
    left: u64,
    padding: u64,
    /// Whether a block of zeros has told that it ends.
    is_ended: bool,
}

/// The headers that say more of the entry that they precede.
#[derive(Default)]
struct Extras {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Pax,
    size: u64,
}

impl<R: Input> TarReader<R> {
    /// Reads the tar that `input` gives.
    pub fn new(input: R) -> Self {
        Self { input, position: 0, left: 0, padding: 0, is_ended: false }
    }

    /// The next entry; its contents can be read then.
    ///
    /// # Errors
    /// When there is none, and not the end either.
    pub fn entry(&mut self) -> Result<Option<TarEntry>, TarError> {
        let mut extras = Extras::default();
        loop {
            self.skip(self.left + self.padding)?;
            (self.left, self.padding) = (0, 0);
            let Some(block) = self.header()? else {
                return Ok(None);
            };
            let size = number(&block[124..136], "size")?;
            match block[156] {
                b'x' => extras.pax = Pax::parse(&self.extra(&mut extras, size)?)?,
                // Of all entries that follow; Docker ignores them, too.
                b'g' => drop(self.extra(&mut extras, size)?),
                b'L' => extras.long_name = Some(text(&self.extra(&mut extras, size)?).to_vec()),
                b'K' => extras.long_link = Some(text(&self.extra(&mut extras, size)?).to_vec()),
                flag => return self.describe(&block, flag, size, extras).map(Some),
            }
        }
    }

    /// The contents of the entry that was read last.
    pub fn contents(&mut self) -> Contents<'_, R> {
        Contents(self)
    }

    /// Where the contents of the entry that was read last begin, in bytes from the
    /// tar's beginning.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether a block of zeros, after the last entry, says that it ends; else it may be cut off there. Go
    /// does not mind, and some tools write none.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// What the tar is read from; after the last entry, what follows its end.
    pub fn into_input(self) -> R {
        self.input
    }

    fn describe(&mut self, block: &[u8; BLOCK], flag: u8, size: u64, extras: Extras) -> Result<TarEntry, TarError> {
        let pax = extras.pax;
        let size = pax.size.unwrap_or(size);
        let name = extras.long_name.or(pax.path).unwrap_or_else(|| plain_name(block));
        let link = extras.long_link.or(pax.link).unwrap_or_else(|| text(&block[157..257]).to_vec());
        let kind = match flag {
            b'1' => Kind::HardLink(path(&link)?),
            b'2' if link.len() >= MAX_PATH || link.contains(&0) || link.is_empty() => {
                return Err(refused(&name, "is a link whose target no system takes"));
            }
            b'2' => Kind::Symlink(link),
            b'3' | b'4' | b'6' => Kind::Special,
            b'5' => Kind::Directory,
            0 if name.ends_with(b"/") => Kind::Directory,
            b'S' => Kind::Sparse,
            b'0' | 0 | b'7' if pax.sparse => Kind::Sparse,
            b'0' | 0 | b'7' => Kind::Regular,
            other => return Err(refused(&name, &format!("is of the unknown kind {:?}", char::from(other)))),
        };
        // Others have none, whatever they say.
        let size = if matches!(kind, Kind::Regular | Kind::Sparse) { size } else { 0 };
        if flag == b'S' && block[482] != 0 {
            self.skip_sparse_map()?;
        }
        if size > MAX_SIZE {
            return Err(refused(&name, "says that it is larger than any file"));
        }
        (self.left, self.padding) = (size, padding(size));
        let id = |field, what| Ok::<_, TarError>(u32::try_from(number(field, what)?).unwrap_or(u32::MAX));
        Ok(TarEntry {
            path: path(&name)?,
            kind,
            mode: (number(&block[100..108], "mode")? & 0o7777) as u32,
            uid: pax.uid.map_or_else(|| id(&block[108..116], "owner"), Ok)?,
            gid: pax.gid.map_or_else(|| id(&block[116..124], "group"), Ok)?,
            size,
            capability: pax.capability,
        })
    }

    /// The next header; `None` at the end: two blocks of zeros, or nothing.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let Some(block) = self.block()? else {
            return Ok(None);
        };
        if block == [0; BLOCK] {
            self.is_ended = true;
            return match self.block()? {
                Some(next) if next != [0; BLOCK] => {
                    Err(TarError::Refused("it goes on after a block of zeros, where it should end".to_owned()))
                }
                _ => Ok(None),
            };
        }
        // The sum takes its own field for spaces.
        let sum: u64 = block[..148].iter().chain(&[b' '; 8]).chain(&block[156..]).map(|byte| u64::from(*byte)).sum();
        if number(&block[148..156], "checksum").ok() != Some(sum) {
            return Err(TarError::Refused("it is no tar, or damaged: a header has a wrong checksum".to_owned()));
        }
        Ok(Some(block))
    }

    /// The next block, unless nothing is left.
    fn block(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.position += BLOCK as u64;
        Ok(Some(block))
    }

    /// The contents of a header that says more of the next entry.
    fn extra(&mut self, extras: &mut Extras, size: u64) -> Result<Vec<u8>, TarError> {
        extras.size = extras.size.saturating_add(size).saturating_add(BLOCK as u64);
        if extras.size > MAX_HEADERS {
            return Err(TarError::Refused(format!("an entry has headers of more than {MAX_HEADERS} bytes")));
        }
        (self.left, self.padding) = (size, padding(size));
        let mut bytes = Vec::new();
        self.contents().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Skips the blocks that say where the holes of a file are.
    fn skip_sparse_map(&mut self) -> Result<(), TarError> {
        // As many as there can be holes of a block each in 1 TiB.
        for _ in 0..1 << 20 {
            match self.block()? {
                None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Some(block) if block[504] == 0 => return Ok(()),
                Some(_) => {}
            }
        }
        Err(TarError::Refused("a file has more holes than any file".to_owned()))
    }

    fn skip(&mut self, length: u64) -> io::Result<()> {
        self.input.skip(length)?;
        self.position += length;
        Ok(())
    }
}

/// The contents of an entry.
pub struct Contents<'a, R>(&'a mut TarReader<R>);

impl<R: Input> Read for Contents<'_, R> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.0.left).unwrap_or(usize::MAX);
        let wanted = space.len().min(left);
        if wanted == 0 {
            return Ok(0);
        }
        let length = self.0.input.read(&mut space[..wanted])?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.left -= length as u64;
        self.0.position += length as u64;
        Ok(length)
    }
}

/// A path without `.`, empty parts, and `/` at either end; all of a layer's paths
/// are meant from the root.
fn path(name: &[u8]) -> Result<Vec<u8>, TarError> {
    if name.len() >= MAX_PATH {
        return Err(refused(&name[..100], "has a longer path than any system takes"));
    }
    if name.contains(&0) {
        return Err(refused(name, "has a zero in its path"));
    }
    let mut parts = name.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").peekable();
    let mut path = Vec::with_capacity(name.len());
    while let Some(part) = parts.next() {
        if part == b".." {
            return Err(refused(name, "leads out of its folder with `..`"));
        }
        path.extend(part);
        if parts.peek().is_some() {
            path.push(b'/');
        }
    }
    Ok(path)
}

/// The name in a header, with ustar's prefix.
fn plain_name(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = text(&block[..100]);
    // GNU's own headers have other fields where ustar has the prefix.
    let prefix = if &block[257..263] == b"ustar\0" { text(&block[345..500]) } else { b"" };
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

/// A field up to its first zero.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number in octal digits, or in bytes where the first bit is set.
fn number(field: &[u8], what: &str) -> Result<u64, TarError> {
    let damaged = || TarError::Refused(format!("a header is damaged: its {what} is no number"));
    match field {
        [first, rest @ ..] if first & 0x80 != 0 => {
            // The second bit would be a minus.
            let first = if first & 0x40 == 0 { first & 0x3f } else { return Err(damaged()) };
            let digits = std::iter::once(&first).chain(rest);
            digits
                .copied()
                .try_fold(0_u64, |sum, byte| sum.checked_mul(256)?.checked_add(byte.into()))
                .ok_or_else(damaged)
        }
        _ => {
            let digits = std::str::from_utf8(text(field)).map_err(|_| damaged())?.trim();
            if digits.is_empty() { Ok(0) } else { u64::from_str_radix(digits, 8).map_err(|_| damaged()) }
        }
    }
}

fn refused(name: &[u8], problem: &str) -> TarError {
    TarError::Refused(format!("\"{}\" {problem}", name.escape_ascii()))
}

#[cfg(test)]
pub(super) mod tests;
