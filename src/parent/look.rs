//! Looks into layers again, for the files of paths of which more has to be known
//! than the first pass kept.

use std::collections::BTreeSet;

use super::blob::{Blob, Spool};
use super::error::LayerProblem;
use super::layers::{Content, Layer, same};
use super::overlay::{self, Change, Changes, Inode, Overlay};
use super::scan::ENTRY;
use super::stream::LayerStream;
use super::tar::{Kind, TarEntry, TarReader};

/// How often to look again for what hard links lead to.
const MAX_ROUNDS: usize = 8;

/// How much memory may be spent on what is found, in bytes.
const MAX_KEPT: usize = 192 << 20;

/// Something that was found.
#[derive(Clone, Debug)]
pub enum Seen {
    /// A folder.
    Directory,
    /// A link with that target.
    Link(Vec<u8>),
    /// A file.
    File {
        /// Whether its owner may execute it.
        executable: bool,
        /// Its contents, unless they are larger than what was asked for.
        contents: Option<Blob>,
    },
    /// A device or pipe, or a file with holes.
    Special,
}

impl Inode for Seen {
    fn is_directory(&self) -> bool {
        matches!(self, Self::Directory)
    }

    fn implied() -> Self {
        Self::Directory
    }
}

/// What goes wrong, and in which layer, counted from 0.
pub type LookError = (usize, LayerProblem);

/// What is looked for.
pub struct Look<'a> {
    /// The image's layers, the lowest first.
    pub layers: &'a [Layer],
    /// The layers that may have something, counted from 0.
    pub within: BTreeSet<usize>,
    /// The paths that are wanted, with all below them.
    pub paths: BTreeSet<Vec<u8>>,
    /// How large the files are whose contents are wanted, in bytes.
    pub max_size: u64,
}

impl Look<'_> {
    /// Finds what a container sees at these paths. Contents are kept in `spool`.
    ///
    /// # Errors
    /// When a layer is not what it was any more, or has what no tool unpacks.
    pub fn find(mut self, spool: &mut Spool) -> Result<Overlay<Seen>, LookError> {
        let mut last = 0;
        for _ in 0..MAX_ROUNDS {
            let mut missing = BTreeSet::new();
            let mut overlay = Overlay::default();
            let mut kept = 0;
            for (number, layer) in self.layers.iter().enumerate() {
                let mut changes = match &layer.content {
                    Content::Blob(blob) if self.within.contains(&number) => {
                        self.look(layer, blob, spool, &mut missing, &mut kept).map_err(|problem| (number, problem))?
                    }
                    _ => Changes::default(),
                };
                changes.hidden.extend(layer.removed.hidden.iter().cloned());
                changes.emptied.extend(layer.removed.emptied.iter().cloned());
                overlay.apply(changes, |seen| seen);
                last = if missing.is_empty() { last } else { number };
            }
            if missing.is_empty() {
                return Ok(overlay);
            }
            // Hard links may lead out of what was wanted.
            self.paths.extend(missing);
        }
        Err((last, LayerProblem::Store("hard links that lead to nothing".to_owned())))
    }

    fn look(
        &self,
        layer: &Layer,
        blob: &Blob,
        spool: &mut Spool,
        missing: &mut BTreeSet<Vec<u8>>,
        kept: &mut usize,
    ) -> Result<Changes<Seen>, LayerProblem> {
        let mut tar = TarReader::new(LayerStream::new(blob)?);
        let mut changes = Changes::default();
        while let Some(entry) = tar.entry()? {
            let Some(change) = overlay::change(&entry.path).filter(|change| self.wants(&entry.path, change)) else {
                continue;
            };
            *kept += entry.path.len() + ENTRY;
            if *kept > MAX_KEPT {
                return Err(LayerProblem::Bomb(format!(
                    "a store path has more files than {} MiB of memory can hold",
                    MAX_KEPT >> 20
                )));
            }
            match change {
                Change::Hide(path) => changes.hidden.push(path),
                Change::Empty(path) => changes.emptied.push(path),
                Change::None => {}
                Change::Add => {
                    if let Some(obstacle) = changes.added.obstacle(&entry.path) {
                        let (path, obstacle) = (entry.path.escape_ascii(), obstacle.escape_ascii());
                        return Err(LayerProblem::Tar(format!("\"{path}\" leads through \"{obstacle}\"")));
                    }
                    self.add(&mut changes, entry, &mut tar, spool, missing)?;
                }
            }
        }
        same("now uncompressed the digest", layer.record.diff_id, tar.into_input().finish()?.diff_id)?;
        Ok(changes)
    }

    fn add(
        &self,
        changes: &mut Changes<Seen>,
        entry: TarEntry,
        tar: &mut TarReader<LayerStream>,
        spool: &mut Spool,
        missing: &mut BTreeSet<Vec<u8>>,
    ) -> Result<(), LayerProblem> {
        let seen = match entry.kind {
            Kind::Directory => Seen::Directory,
            Kind::Symlink(target) => Seen::Link(target),
            Kind::Special | Kind::Sparse => Seen::Special,
            Kind::Regular => {
                let contents = if entry.size > self.max_size { None } else { Some(spool.keep(tar.contents())?) };
                Seen::File { executable: entry.mode & 0o100 != 0, contents }
            }
            Kind::HardLink(target) => match changes.added.get(&target) {
                Some(seen) if !seen.is_directory() => seen.clone(),
                Some(_) => Seen::Special,
                None => {
                    missing.insert(target);
                    Seen::Special
                }
            },
        };
        changes.added.set(entry.path, seen);
        Ok(())
    }

    /// Whether what a path says concerns what is wanted.
    fn wants(&self, path: &[u8], change: &Change) -> bool {
        match change {
            Change::Add => self.is_wanted(path),
            Change::Hide(path) | Change::Empty(path) => self.is_wanted(path),
            Change::None => false,
        }
    }

    fn is_wanted(&self, path: &[u8]) -> bool {
        self.paths.contains(path) || overlay::parents(path).any(|parent| self.paths.contains(parent))
    }
}

/// The contents of the file `path`, which is from the layer `number`, counted from
/// 0; `None` where it is no file.
///
/// # Errors
/// See [`Look::find`].
pub fn contents(layers: &[Layer], number: usize, path: &[u8], spool: &mut Spool) -> Result<Option<Blob>, LookError> {
    if let Some(blob) = layers[number].watched.get(path) {
        return Ok(Some(blob.clone()));
    }
    let look = Look { layers, within: [number].into(), paths: [path.to_vec()].into(), max_size: u64::MAX };
    match look.find(spool)?.get(path) {
        Some(Seen::File { contents, .. }) => Ok(contents.clone()),
        _ => Ok(None),
    }
}
