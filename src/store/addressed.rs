//! Registrations of paths that nobody has registered, from their files alone: of derivations, and of
//! sources. Such paths are addressed by their contents, so what is found is right, or it would give
//! another path.

use super::content_address::{gives, of_file};
use super::{PathInfo, StoreDir, StorePath};
use crate::nar::{self, Measured};
use crate::tree::{Entry, Node, StoreFiles};
use nix_derivation::CAHash;

/// The registration of `path`, which refers to `references`, or to nothing else than some of them;
/// `None` where it is not addressed by its contents.
///
/// # Errors
/// When its files can't be read.
pub fn registration(
    files: &StoreFiles,
    store_dir: &StoreDir,
    path: &StorePath,
    references: Vec<StorePath>,
) -> anyhow::Result<Option<PathInfo>> {
    let Measured { hash, size } = nar::measure(files, &files.walk(path)?)?;
    for references in [references, Vec::new()] {
        let info = PathInfo::new(path.clone(), hash, size, references);
        let recursive = CAHash::Nar(hash.to_nix_hash());
        let address = match gives(store_dir, &info, &recursive) {
            true => Some(recursive.to_nix_string()),
            false => of_file(store_dir, &info, files)?,
        };
        if address.is_some() {
            return Ok(Some(PathInfo { ca: address, ..info }));
        }
    }
    Ok(None)
}

/// The text of `path`, if it is a single file.
///
/// # Errors
/// When it can't be read.
pub fn text(files: &StoreFiles, path: &StorePath) -> anyhow::Result<Option<Vec<u8>>> {
    let base = path.to_basename().into_bytes();
    match files.entry(&base)? {
        Entry { node: Node::Regular { .. }, .. } => Ok(Some(files.read_whole(&base)?)),
        _ => Ok(None),
    }
}
