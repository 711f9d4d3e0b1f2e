//! Writes store paths as NARs, byte for byte as `nix-store --dump` does.
//!
//! The walk gives entries depth first with sorted names, which is a NAR's own
//! order, so an archive streams in one pass. Its size is known before any file
//! is opened: whoever compresses it can say so in the frame's header, and a
//! store path that lost or gained files is found without reading one. Folders
//! may be nested as deep as the walk finds them: Nix before 2.34 has no limit.
//!
//! Grammar (Eelco Dolstra's thesis, figure 5.2; a token is its length as 64
//! bits, little endian, its bytes, and zeros up to a multiple of 8):
//!
//! ```text
//! nar     = "nix-archive-1" node
//! node    = "(" "type" kind ")"
//! kind    = "regular" ["executable" ""] "contents" token
//!         | "symlink" "target" token
//!         | "directory" { "entry" "(" "name" token "node" node ")" }
//! ```

pub mod read;

use std::io::Write;
use std::ops::Range;

use crate::digest::{Digest, HashWriter};
use crate::store::{NarHash, StorePath};
use crate::tree::{Entry, Files, Node, Sink, StoreFiles, TreeError};

/// How much is read at most with one call, and handed on with one.
const BUFFER_SIZE: usize = 256 * 1024;

/// Why a store path can't be written as a NAR.
#[derive(Debug, thiserror::Error)]
pub enum NarError {
    /// The store path is not what the walk found, or can't be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The archive has nowhere to go, e.g. the disk is full.
    #[error("writing a NAR: {0}")]
    Write(#[from] std::io::Error),
}

/// What an archive turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The hash of its bytes.
    pub hash: NarHash,
    /// How many they are.
    pub size: u64,
}

impl From<(Digest, u64)> for Measured {
    fn from((digest, size): (Digest, u64)) -> Self {
        Self { hash: NarHash::new(digest.to_bytes()), size }
    }
}

/// Writes the NAR of `path`.
///
/// # Errors
/// When `path` can't be read, or `writer` fails.
pub fn dump<W: Write>(files: &StoreFiles, path: &StorePath, writer: W) -> Result<W, NarError> {
    write(files, &files.walk(path)?, writer)
}

/// Writes the NAR of a store path that was walked to `entries`.
///
/// # Errors
/// When the files are not what the walk found, or `writer` fails.
pub fn write<W: Write>(files: &impl Files, entries: &[Entry], writer: W) -> Result<W, NarError> {
    let mut archive = Archive { writer, buffer: vec![0; BUFFER_SIZE], filled: 0 };
    archive.tokens(&[b"nix-archive-1"])?;
    // How many folders are begun, and not ended.
    let mut open = 0;
    for entry in entries {
        let (depth, name) = place(&entry.path);
        archive.end_nodes(depth..open)?;
        open = depth;
        if let Some(name) = name {
            archive.tokens(&[b"entry", b"(", b"name", name, b"node"])?;
        }
        archive.tokens(&[b"(", b"type"])?;
        match &entry.node {
            Node::Directory => archive.tokens(&[b"directory"])?,
            Node::Symlink { target } => archive.tokens(&[b"symlink", b"target", target])?,
            Node::Regular { executable, size } => {
                let executable: &[&[u8]] = if *executable { &[b"executable", b""] } else { &[] };
                archive.tokens(&[b"regular"])?;
                archive.tokens(executable)?;
                archive.tokens(&[b"contents"])?;
                archive.add(&size.to_le_bytes())?;
                files.read(&entry.path, *size, &mut archive)?;
                archive.pad(*size)?;
            }
        }
        match entry.node {
            Node::Directory => open += 1,
            _ => archive.end_nodes(depth..depth + 1)?,
        }
    }
    archive.end_nodes(0..open)?;
    archive.hand_on()?;
    Ok(archive.writer)
}

/// The size of the NAR that [`write`] makes of `entries`, in bytes.
#[must_use]
pub fn size(entries: &[Entry]) -> u64 {
    layout(entries, |_, _| {})
}

/// Where in that NAR the contents of each file begin, in bytes; 0 for what is no file.
#[must_use]
pub fn offsets(entries: &[Entry]) -> Vec<u64> {
    let mut offsets = vec![0; entries.len()];
    layout(entries, |number, offset| offsets[number] = offset);
    offsets
}

/// Goes through the NAR of `entries` as [`write`] does, tells `found` of each file's number
/// and where its contents begin, and returns the size.
fn layout(entries: &[Entry], mut found: impl FnMut(usize, u64)) -> u64 {
    let tokens = |tokens: &[&[u8]]| tokens.iter().map(|token| 8 + padded(token.len() as u64)).sum::<u64>();
    let ends = |depths: Range<usize>| depths.map(|depth| if depth > 0 { 32 } else { 16 }).sum::<u64>();
    let mut at = tokens(&[b"nix-archive-1"]);
    let mut open = 0;
    for (number, entry) in entries.iter().enumerate() {
        let (depth, name) = place(&entry.path);
        at += ends(depth..open);
        open = depth;
        at += name.map_or(0, |name| tokens(&[b"entry", b"(", b"name", name, b"node"]));
        at += tokens(&[b"(", b"type"]);
        match &entry.node {
            Node::Directory => {
                at += tokens(&[b"directory"]);
                open += 1;
                continue;
            }
            Node::Symlink { target } => at += tokens(&[b"symlink", b"target", target]),
            Node::Regular { executable, size } => {
                let executable = if *executable { tokens(&[b"executable", b""]) } else { 0 };
                at += tokens(&[b"regular"]) + executable + tokens(&[b"contents"]) + 8;
                found(number, at);
                at += padded(*size);
            }
        }
        at += ends(depth..depth + 1);
    }
    at + ends(0..open)
}

/// Hashes the NAR of a store path that was walked to `entries`.
///
/// # Errors
/// When the files are not what the walk found.
pub fn measure(files: &impl Files, entries: &[Entry]) -> Result<Measured, NarError> {
    Ok(write(files, entries, HashWriter::new(std::io::sink()))?.finish().0)
}

/// How deep a path is below its store path, and its name there; a store path
/// itself has none.
fn place(path: &[u8]) -> (usize, Option<&[u8]>) {
    let depth = path.iter().filter(|byte| **byte == b'/').count();
    let name = path.rsplit(|byte| *byte == b'/').next();
    (depth, name.filter(|_| depth > 0))
}

/// `length` up to the next multiple of 8.
fn padded(length: u64) -> u64 {
    length.div_ceil(8) * 8
}

/// A NAR that is being written. Files are read right into its buffer, between
/// the tokens.
struct Archive<W> {
    writer: W,
    buffer: Vec<u8>,
    filled: usize,
}

impl<W: Write> Archive<W> {
    fn tokens(&mut self, tokens: &[&[u8]]) -> Result<(), NarError> {
        for token in tokens {
            let length = token.len() as u64;
            self.add(&length.to_le_bytes())?;
            self.add(token)?;
            self.pad(length)?;
        }
        Ok(())
    }

    /// Ends the nodes at these depths, the deepest first. Those in a folder end
    /// their entry there, too.
    fn end_nodes(&mut self, depths: Range<usize>) -> Result<(), NarError> {
        for depth in depths.rev() {
            self.tokens(if depth > 0 { &[b")", b")"] } else { &[b")"] })?;
        }
        Ok(())
    }

    /// Writes the zeros that follow `length` bytes.
    fn pad(&mut self, length: u64) -> Result<(), NarError> {
        self.add(&[0; 8][..(padded(length) - length) as usize])
    }

    /// Empties the buffer.
    fn hand_on(&mut self) -> Result<(), NarError> {
        self.writer.write_all(&self.buffer[..self.filled])?;
        self.filled = 0;
        Ok(())
    }
}

impl<W: Write> Sink for Archive<W> {
    type Error = NarError;

    fn space(&mut self) -> Result<&mut [u8], NarError> {
        if self.filled == self.buffer.len() {
            self.hand_on()?;
        }
        Ok(&mut self.buffer[self.filled..])
    }

    fn advance(&mut self, length: usize) {
        self.filled += length;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use super::*;

    /// What `nix-store --dump` of Nix 2.8.0 printed for the tree of `plant`.
    const GOLDEN: &[u8] = include_bytes!("../tests/data/tree.nar");

    fn path() -> StorePath {
        StorePath::from_basename(b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-tree").expect("valid")
    }

    /// A folder with all that a NAR can hold, and names whose order depends on
    /// whether bytes or paths are compared.
    fn plant(store: &Path) {
        let tree = store.join(path().to_basename());
        std::fs::create_dir_all(tree.join("a/b/empty")).expect("made");
        for (name, contents) in
            [("a/b/7", &b"1234567"[..]), ("a/8", b"12345678"), ("a.b", b""), ("a-b", b"x\n"), ("\u{fc}", b"u")]
        {
            std::fs::write(tree.join(name), contents).expect("written");
        }
        std::fs::set_permissions(tree.join("a/8"), std::fs::Permissions::from_mode(0o744)).expect("set");
        symlink("../nowhere", tree.join("link")).expect("linked");
    }

    #[test]
    fn a_tree_becomes_the_bytes_that_nix_prints() {
        let store = tempfile::tempdir().expect("a folder");
        plant(store.path());
        let files = StoreFiles::open(store.path()).expect("opens");
        assert_eq!(dump(&files, &path(), Vec::new()).expect("dumps"), GOLDEN);
        let entries = files.walk(&path()).expect("walks");
        assert_eq!(size(&entries), GOLDEN.len() as u64);
        let measured = measure(&files, &entries).expect("measures");
        assert_eq!(measured, Measured { hash: NarHash::new(Digest::of(GOLDEN).to_bytes()), size: GOLDEN.len() as u64 });
    }

    #[test]
    fn a_file_that_grew_after_the_walk_is_an_error() {
        let store = tempfile::tempdir().expect("a folder");
        plant(store.path());
        let files = StoreFiles::open(store.path()).expect("opens");
        let entries = files.walk(&path()).expect("walks");
        std::fs::write(store.path().join(path().to_basename()).join("a/8"), "123456789").expect("written");
        let error = write(&files, &entries, std::io::sink()).expect_err("changed");
        assert!(matches!(error, NarError::Tree(TreeError::Changed { .. })), "{error}");
    }

    #[test]
    fn a_failing_writer_is_told_from_a_failing_store() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let store = tempfile::tempdir().expect("a folder");
        plant(store.path());
        let files = StoreFiles::open(store.path()).expect("opens");
        let error = dump(&files, &path(), Full).map(|_| ()).expect_err("full");
        assert!(matches!(error, NarError::Write(_)), "{error}");
    }
}
