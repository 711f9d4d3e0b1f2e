//! Reads a NAR as Nix would, and compares it with what its narinfo says.
//!
//! No more is unpacked than the narinfo says there is, so a bomb costs as much
//! as what it claims to be, and nothing is kept.
//!
//! A reference that the NAR does not hold is one that nobody found in it: Nix
//! looks for references in these very bytes. Whether one was left out can't be
//! told, since builds may drop references on purpose; signatures tell.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Write as _};

use nix_derivation::{CAHash, NixHash};
use nix_narinfo::Compression as Named;
use sha2::{Digest as _, Sha256};

use super::fault::Fault;
use super::metadata::Metadata;
use crate::parent::compression::Compression;
use crate::parent::references::{Candidates, ReferenceScanner};
use crate::store::NarHash;

const BUFFER_SIZE: usize = 256 * 1024;

/// How bzip2 begins; then comes a digit.
const BZIP2: &[u8] = b"BZh";

/// What became of a NAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what its narinfo says.
    Whole,
    /// It is compressed in a way that only Nix can read.
    Unknown,
}

/// Compares the NAR in `file` with what `metadata` says of it.
///
/// # Errors
/// When Nix would refuse it.
pub fn verify(file: File, metadata: &Metadata) -> Result<Verdict, Fault> {
    let unreadable = |error: io::Error| Fault::NarUnreadable(error.to_string());
    let mut reader = BufReader::with_capacity(BUFFER_SIZE, file);
    let first = io::BufRead::fill_buf(&mut reader).map_err(unreadable)?;
    let nar: Box<dyn io::Read> = match metadata.narinfo.compression() {
        Named::None => Box::new(reader),
        Named::Other(_) => return Ok(Verdict::Unknown),
        // Nix looks at the first bytes, too.
        _ if first.starts_with(BZIP2) => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
        named => match Compression::of(first) {
            // Nix finds no compression, and gives up.
            Compression::None => {
                return Err(Fault::NarUnreadable(format!("it is not compressed as {}", named.as_str())));
            }
            found => found.reader(reader).map_err(unreadable)?,
        },
    };
    let candidates = Candidates::new(metadata.references());
    let read = read(nar, metadata.narinfo.nar_size(), &candidates).map_err(unreadable)?;
    compare(&read, metadata)
}

/// What was found in a NAR.
struct Contents {
    size: u64,
    hash: NarHash,
    references: Vec<crate::store::StorePath>,
    /// The hash of a NAR's only file; `None` where there are more, or a link.
    flat: Option<[u8; 32]>,
}

/// Reads a NAR up to `limit` bytes, and one more.
fn read(nar: impl io::Read, limit: u64, candidates: &Candidates<'_>) -> io::Result<Contents> {
    let mut nar = nar.take(limit.saturating_add(1));
    let mut hasher = Sha256::new();
    let mut scanner = ReferenceScanner::new(candidates);
    let mut flat = FlatHasher::default();
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut size = 0;
    loop {
        let length = match nar.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        size += length as u64;
        hasher.update(&buffer[..length]);
        scanner.write_all(&buffer[..length])?;
        flat.update(&buffer[..length]);
    }
    let hash = NarHash::new(hasher.finalize().into());
    Ok(Contents { size, hash, references: scanner.finish(), flat: flat.finish() })
}

fn compare(found: &Contents, metadata: &Metadata) -> Result<Verdict, Fault> {
    let narinfo = &metadata.narinfo;
    if found.size != narinfo.nar_size() {
        return Err(Fault::NarSize(narinfo.nar_size()));
    }
    if found.hash != metadata.nar_hash {
        return Err(Fault::NarHash { expected: metadata.nar_hash.to_nix32(), found: found.hash.to_nix32() });
    }
    if let Some(missing) = metadata.references().find(|path| found.references.binary_search(path).is_err()) {
        return Err(Fault::Reference(missing.to_basename()));
    }
    let is_right = match narinfo.content_address() {
        Some(CAHash::Nar(NixHash::Sha256(hash))) if !narinfo.references().contains(narinfo.store_path()) => {
            hash == found.hash.as_bytes()
        }
        Some(CAHash::Flat(NixHash::Sha256(hash)) | CAHash::Text(hash)) => found.flat.as_ref() == Some(hash),
        // Nix alone knows the others.
        _ => true,
    };
    if is_right { Ok(Verdict::Whole) } else { Err(Fault::ContentAddress) }
}

/// Hashes the contents of a NAR's only file, which content addresses of one file
/// are about.
#[derive(Default)]
struct FlatHasher {
    head: Vec<u8>,
    /// The hash so far, and how much is to come.
    body: Option<(Sha256, u64)>,
}

/// No head of a NAR of one file is longer.
const MAX_HEAD: usize = 160;

impl FlatHasher {
    fn update(&mut self, bytes: &[u8]) {
        if let Some((hasher, left)) = &mut self.body {
            let length = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            hasher.update(&bytes[..length]);
            *left -= length as u64;
            return;
        }
        if self.head.len() >= MAX_HEAD {
            return;
        }
        // The first buffer nearly always has all of it.
        let known = self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(MAX_HEAD)]);
        if let Some((start, size)) = flat_head(&self.head) {
            self.body = Some((Sha256::new(), size));
            let seen = self.head.split_off(start);
            self.update(&seen);
            let used = start + seen.len() - known;
            self.update(&bytes[used.min(bytes.len())..]);
        }
    }

    fn finish(self) -> Option<[u8; 32]> {
        self.body.filter(|(_, left)| *left == 0).map(|(hasher, _)| hasher.finalize().into())
    }
}

/// Where the contents of a NAR's only file begin, and how long they are.
fn flat_head(head: &[u8]) -> Option<(usize, u64)> {
    let plain = [&b"nix-archive-1"[..], b"(", b"type", b"regular", b"contents"];
    let executable = [&b"nix-archive-1"[..], b"(", b"type", b"regular", b"executable", b"", b"contents"];
    [&plain[..], &executable[..]].into_iter().find_map(|tokens| {
        let prefix: Vec<u8> = tokens.iter().flat_map(|token| encode(token)).collect();
        let size = head.strip_prefix(&prefix[..])?.first_chunk()?;
        Some((prefix.len() + 8, u64::from_le_bytes(*size)))
    })
}

/// A token of a NAR.
fn encode(token: &[u8]) -> Vec<u8> {
    let mut bytes = (token.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(token);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_file_of_a_nar_is_hashed_however_it_comes() {
        let mut nar: Vec<u8> = [&b"nix-archive-1"[..], b"(", b"type", b"regular", b"contents"]
            .iter()
            .flat_map(|token| encode(token))
            .collect();
        let text = b"some text of more than a few bytes".repeat(20);
        nar.extend(encode(&text));
        nar.extend(encode(b")"));
        for step in [1, 7, 100, 130, nar.len()] {
            let mut hasher = FlatHasher::default();
            nar.chunks(step).for_each(|chunk| hasher.update(chunk));
            assert_eq!(hasher.finish(), Some(Sha256::digest(&text).into()), "{step} bytes at a time");
        }
        let mut hasher = FlatHasher::default();
        hasher.update(&nar[..200]);
        assert_eq!(hasher.finish(), None);
    }
}
