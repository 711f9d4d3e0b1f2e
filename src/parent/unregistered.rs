//! Registers store paths of which no database knows, from their files in the
//! layers: NAR hash, size and references, as `nix-store --register-validity
//! --hash-given` would have them, had somebody found them out.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::path::PathBuf;

use super::ParentError;
use super::blob::{Blob, Spool};
use super::error::LayerProblem;
use super::layers::{Content, Layer};
use super::look::{Look, Seen};
use super::overlay::{self, Overlay};
use super::references::{Candidates, ReferenceScanner};
use crate::nar::{self, HashWriter, NarError};
use crate::store::{PathInfo, StoreDir, StorePath};
use crate::tree::{self, Entry, Node, Sink, TreeError};

/// What is known of the image.
pub struct Image<'a> {
    /// The reference, for messages.
    pub name: &'a str,
    /// Its layers, the lowest first.
    pub layers: &'a [Layer],
    /// Its store dir.
    pub store_dir: &'a StoreDir,
    /// All its store paths.
    pub paths: &'a BTreeSet<StorePath>,
}

impl Image<'_> {
    /// Registers `unknown`, which are some of the image's store paths.
    ///
    /// # Errors
    /// When their files can't be read, or are none that a store path can have.
    pub fn register(&self, unknown: &[StorePath]) -> Result<Vec<PathInfo>, ParentError> {
        if unknown.is_empty() {
            return Ok(Vec::new());
        }
        let wanted: BTreeSet<Vec<u8>> = unknown.iter().map(|path| self.path_of(path)).collect();
        let has = |layer: &Layer| wanted.iter().any(|path| layer.store.contains(path));
        let within: BTreeSet<usize> = (0..self.layers.len()).filter(|number| has(&self.layers[*number])).collect();
        self.check_bytes(unknown, &within)?;
        let mut spool = Spool::new().map_err(ParentError::Temporary)?;
        let look = Look { layers: self.layers, within, paths: wanted, max_size: u64::MAX };
        let files = look.find(&mut spool).map_err(|(layer, problem)| self.error(layer, problem))?;
        let candidates = Candidates::new(self.paths);
        unknown
            .iter()
            .map(|path| {
                self.measure(path, &files, &candidates).map_err(|error| {
                    let last = self.layers.iter().rposition(|layer| layer.store.contains(&self.path_of(path)));
                    self.error(last.unwrap_or(0), error)
                })
            })
            .collect()
    }

    /// What is only named can't be looked into.
    fn check_bytes(&self, unknown: &[StorePath], within: &BTreeSet<usize>) -> Result<(), ParentError> {
        let is_named = |layer: &usize| matches!(self.layers[*layer].content, Content::Store { .. });
        let named: Vec<usize> = within.iter().copied().filter(is_named).collect();
        let is_in_named =
            |path: &&StorePath| named.iter().any(|layer| self.layers[*layer].store.contains(&self.path_of(path)));
        let paths: Vec<&StorePath> = unknown.iter().filter(is_in_named).collect();
        if paths.is_empty() {
            return Ok(());
        }
        Err(ParentError::Unknown { name: self.name.to_owned(), paths: some(&paths) })
    }

    fn measure(
        &self,
        path: &StorePath,
        files: &Overlay<Seen>,
        candidates: &Candidates<'_>,
    ) -> Result<PathInfo, LayerProblem> {
        let tree = Tree { files, store: self.store() };
        let entries = tree.entries(path)?;
        let writer = HashWriter::new(ReferenceScanner::new(candidates));
        let (measured, scanner) = nar::write(&tree, &entries, writer)
            .map_err(|error| match error {
                NarError::Tree(error) => LayerProblem::Store(error.to_string()),
                NarError::Write(error) => LayerProblem::Temporary(error),
            })?
            .finish();
        Ok(PathInfo::new(path.clone(), measured.hash, measured.size, scanner.finish()))
    }

    /// Its store dir, without a leading `/`.
    #[must_use]
    pub fn store(&self) -> &[u8] {
        self.store_dir.as_str().trim_start_matches('/').as_bytes()
    }

    fn path_of(&self, path: &StorePath) -> Vec<u8> {
        overlay::join(self.store(), path.to_basename().as_bytes())
    }

    /// An error of its layer with that number, counted from 0.
    #[must_use]
    pub fn error(&self, layer: usize, problem: LayerProblem) -> ParentError {
        ParentError::Layer {
            name: self.name.to_owned(),
            number: layer + 1,
            digest: self.layers[layer].descriptor.digest,
            problem: Box::new(problem),
        }
    }
}

/// The first of `paths`, for messages.
#[must_use]
pub fn some(paths: &[&StorePath]) -> String {
    let first: Vec<String> = paths.iter().take(3).map(|path| path.to_basename()).collect();
    match paths.len() - first.len() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// The files of store paths that were found in layers.
struct Tree<'a> {
    files: &'a Overlay<Seen>,
    store: &'a [u8],
}

impl Tree<'_> {
    /// All entries of `path`, depth first, names in the order of their bytes, as a NAR
    /// has them and a tar need not.
    fn entries(&self, path: &StorePath) -> Result<Vec<Entry>, LayerProblem> {
        let base = path.to_basename().into_bytes();
        let special = |path: &[u8]| LayerProblem::Store(path.escape_ascii().to_string());
        let mut entries = Vec::new();
        for (at, seen) in self.files.within(&overlay::join(self.store, &base)) {
            let path = at[self.store.len() + 1..].to_vec();
            let node = match seen {
                Seen::Directory => Node::Directory,
                Seen::Link(target) => Node::Symlink { target: target.clone() },
                Seen::File { executable, contents: Some(blob) } => {
                    Node::Regular { executable: *executable, size: blob.size() }
                }
                Seen::File { contents: None, .. } | Seen::Special => return Err(special(at)),
            };
            entries.push(Entry { path, node });
        }
        if entries.is_empty() {
            return Err(special(&base));
        }
        let parts =
            |entry: &Entry| -> Vec<Vec<u8>> { entry.path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect() };
        entries.sort_by_cached_key(parts);
        Ok(entries)
    }

    fn blob(&self, path: &[u8]) -> Option<&Blob> {
        match self.files.get(&overlay::join(self.store, path)) {
            Some(Seen::File { contents, .. }) => contents.as_ref(),
            _ => None,
        }
    }
}

impl tree::Files for Tree<'_> {
    fn read<S: Sink>(&self, path: &[u8], size: u64, sink: &mut S) -> Result<(), S::Error> {
        let error = |source| TreeError::Io { path: PathBuf::from(path.escape_ascii().to_string()), source };
        let blob = self.blob(path).ok_or_else(|| error(io::ErrorKind::NotFound.into()))?;
        let mut reader = blob.reader();
        let mut left = size;
        while left > 0 {
            let space = sink.space()?;
            let wanted = space.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let length = reader.read(&mut space[..wanted]).map_err(error)?;
            if length == 0 {
                return Err(error(io::ErrorKind::UnexpectedEof.into()).into());
            }
            sink.advance(length);
            left -= length as u64;
        }
        Ok(())
    }
}
