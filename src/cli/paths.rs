//! Which store paths the command line and the spec mean.

use std::path::{Component, Path, PathBuf};

use crate::fs::MAX_LINKS;
use crate::store::source::Mention;
use crate::store::{StoreDir, StoreLocation, StorePath};

/// A path that is no store path.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// A typing error, or a build that failed.
    #[error("{path}: {source}; give a store path, or a link to one such as nix-build's ./result")]
    Missing {
        /// What was typed.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Likewise, of a source tree.
    #[error("the source tree {path:?}: {source}; name a folder, a file, or a store path")]
    NoTree {
        /// What was typed.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A part of what refers to other store paths: nobody knows to which of them it does.
    #[error(
        "{0} refers to other store paths, so it goes into an image whole or not at all; leave out --exclude, or name a copy of it outside the store"
    )]
    Part(String),
    /// A part of one among the contents, which are whole.
    #[error(
        "{path} is a part of the store path {whole}, and contents are whole ones: name that, or a derivation with links to what you need of it"
    )]
    Within {
        /// What was named.
        path: String,
        /// What it is in.
        whole: String,
    },
    /// A file outside of the store.
    #[error(
        "{path} is neither in the store {store_dir} nor a link to a path there; build it first, or add it with `nix-store --add`"
    )]
    Outside {
        /// What was typed.
        path: PathBuf,
        /// The store dir.
        store_dir: String,
    },
}

/// Where a path is.
#[derive(Debug, PartialEq, Eq)]
pub enum Located {
    /// In a store path, at what is left of it; the store path itself where nothing is.
    InStore(StorePath, PathBuf),
    /// Elsewhere, links followed.
    Outside(PathBuf),
}

/// The store path that `path` is, is in, or leads to, as Nix's
/// `followLinksToStorePath`.
///
/// # Errors
/// When there is none.
pub fn resolve(location: &StoreLocation, path: &Path) -> Result<StorePath, PathError> {
    match locate(location, path).map_err(|source| PathError::Missing { path: path.to_owned(), source })? {
        Located::InStore(found, _) => Ok(found),
        Located::Outside(_) => {
            Err(PathError::Outside { path: path.to_owned(), store_dir: location.store_dir.to_string() })
        }
    }
}

/// Likewise, but only where all of it is meant: its files would be elsewhere at `/`.
///
/// # Errors
/// When there is none, or `path` is a part of it.
pub fn resolve_whole(location: &StoreLocation, path: &Path) -> Result<StorePath, PathError> {
    let found = resolve(location, path)?;
    match locate(location, path) {
        Ok(Located::InStore(_, rest)) if !rest.as_os_str().is_empty() => {
            let whole = location.store_dir.render_path(&found);
            Err(PathError::Within { path: path.display().to_string(), whole })
        }
        _ => Ok(found),
    }
}

/// Where `path` is, or leads to. What a store below some root calls `/nix/store/…` is there.
///
/// # Errors
/// When nothing is there.
pub fn locate(location: &StoreLocation, path: &Path) -> std::io::Result<Located> {
    let mut at = std::path::absolute(path)?;
    for _ in 0..MAX_LINKS {
        let is_plain = |rest: &Path| !rest.components().any(|part| part == Component::ParentDir);
        if let Some((found, rest)) = in_store(location, &at).filter(|(_, rest)| is_plain(rest)) {
            return Ok(Located::InStore(found, rest));
        }
        match std::fs::read_link(&at) {
            Ok(target) => at = crate::fs::folder_of(&at).join(target),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => break,
            Err(error) => return Err(error),
        }
    }
    // A folder on the way may be a link.
    let real = path.canonicalize()?;
    let found = in_store(location, &real);
    Ok(found.map_or(Located::Outside(real), |(found, rest)| Located::InStore(found, rest)))
}

/// Where `path` will be once it is made: as it is now, without links, as far as it is there.
#[must_use]
pub fn future(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    path.ancestors().find_map(|above| {
        let real = above.canonicalize().ok()?;
        Some(real.join(path.strip_prefix(above).ok()?))
    })
}

/// The store path that `path` is in, by the store's name or where it really is, and where in it.
fn in_store(location: &StoreLocation, path: &Path) -> Option<(StorePath, PathBuf)> {
    let real = location.real_dir.canonicalize().ok();
    let folders = [Some(Path::new(location.store_dir.as_str())), Some(&*location.real_dir), real.as_deref()];
    let rest = folders.into_iter().flatten().find_map(|folder| path.strip_prefix(folder).ok())?;
    let mut components = rest.components();
    let name = components.next()?;
    let found = StorePath::from_basename(name.as_os_str().as_encoded_bytes()).ok()?;
    Some((found, components.as_path().to_owned()))
}

/// The places where `text` names store paths.
#[must_use]
pub fn mentions(store_dir: &StoreDir, text: &str) -> Vec<Mention> {
    let prefix = format!("{store_dir}/");
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '+' | '-' | '.' | '_' | '?' | '=');
    let mention = |(at, _): (usize, &str)| {
        let rest = &text[at..];
        let end = rest[prefix.len()..].find(|letter| !is_name(letter)).map_or(rest.len(), |end| end + prefix.len());
        let path = StorePath::from_basename(&rest.as_bytes()[prefix.len()..end]).ok()?;
        Some(Mention { hash: path.to_basename().get(..32)?.to_owned(), text: rest[..end].to_owned() })
    };
    let mut mentions: Vec<Mention> = text.match_indices(&prefix).filter_map(mention).collect();
    mentions.sort();
    mentions.dedup_by(|one, other| one.hash == other.hash);
    mentions
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-a";

    fn location(root: &Path) -> StoreLocation {
        StoreLocation::new(Some(root), StoreDir::default(), Path::new("/nix/var/nix"))
    }

    #[test]
    fn store_paths_are_found_by_name_by_place_and_by_links() {
        let root = tempfile::tempdir().expect("a folder");
        let location = location(root.path());
        std::fs::create_dir_all(location.real_dir.join(A).join("bin")).expect("writable");
        let link = root.path().join("result");
        std::os::unix::fs::symlink(format!("/nix/store/{A}"), &link).expect("writable");
        let again = root.path().join("again");
        std::os::unix::fs::symlink("result", &again).expect("writable");
        for path in [format!("/nix/store/{A}"), format!("/nix/store/{A}/bin/x")] {
            assert_eq!(resolve(&location, Path::new(&path)).expect("valid").to_basename(), A);
        }
        for path in [location.real_dir.join(A).join("bin"), link, again] {
            assert_eq!(resolve(&location, &path).expect("valid").to_basename(), A);
        }
        assert!(matches!(
            resolve_whole(&location, &location.real_dir.join(A).join("bin")),
            Err(PathError::Within { .. })
        ));
        assert_eq!(resolve_whole(&location, &root.path().join("again")).expect("valid").to_basename(), A);
        assert!(matches!(resolve(&location, root.path()), Err(PathError::Outside { .. })));
        assert!(matches!(resolve(&location, &root.path().join("none")), Err(PathError::Missing { .. })));
    }

    #[test]
    fn what_is_not_there_yet_is_found_by_what_is_around_it() {
        let root = tempfile::tempdir().expect("a folder");
        let real = root.path().canonicalize().expect("there");
        std::os::unix::fs::symlink(&real, real.join("link")).expect("writable");
        assert_eq!(future(&real.join("link/new/image")), Some(real.join("new/image")));
        assert_eq!(future(Path::new("/none/x")), Some("/none/x".into()));
    }

    #[test]
    fn store_paths_in_texts_are_found_by_their_hashes() {
        let text = format!("PATH=/nix/store/{A}/bin:/nix/store/{A}?trusted=1:/nix/store/short");
        let found = mentions(&StoreDir::default(), &text);
        let expected = Mention { hash: A[..32].to_owned(), text: format!("/nix/store/{A}") };
        assert_eq!(found, [expected]);
    }
}
