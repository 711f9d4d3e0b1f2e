//! Takes files and folders that are not in the store for store paths.

use nix_derivation::CAHash;

use super::{PathInfo, StoreDir, StorePath};
use crate::nar::{self, Measured};
use crate::tree::elsewhere::{Elsewhere, FirstReading};

/// How `tree` is registered once Nix copies it into the store under `name`, as `builtins.path`
/// does: a path that is addressed by its contents and refers to nothing. All of it is read, and
/// what it was then it has to be whenever it is read again.
///
/// # Errors
/// When it can't be read.
pub fn adopt(tree: &mut Elsewhere, name: &str, store_dir: &StoreDir) -> anyhow::Result<PathInfo> {
    let reading = FirstReading::new(tree);
    let Measured { hash, size } = nar::measure(&reading, reading.entries())?;
    let digests = reading.finish();
    tree.remember(digests);
    let address = CAHash::Nar(hash.to_nix_hash());
    let path = store_dir.build_ca_path(name, &address, std::iter::empty::<&StorePath>(), false)?;
    Ok(PathInfo { ca: Some(address.to_nix_string()), ..PathInfo::new(path, hash, size, Vec::new()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::exclude::Exclude;
    use crate::tree::{Entry, StoreFiles, TreeError};

    #[test]
    fn what_is_left_out_is_as_if_it_were_not_there() {
        let store = tempfile::tempdir().expect("a folder");
        let work = tempfile::tempdir().expect("a folder");
        let (with, without) = (work.path().join("with"), work.path().join("without"));
        for folder in [&with, &without] {
            std::fs::create_dir_all(folder.join("lib")).expect("writable");
            std::fs::write(folder.join("lib/default.nix"), "1").expect("writable");
            std::os::unix::fs::symlink("lib", folder.join("link")).expect("writable");
        }
        std::fs::create_dir_all(with.join(".git/objects")).expect("writable");
        std::fs::create_dir_all(with.join("doc")).expect("writable");
        std::fs::write(with.join("doc/x.md"), "x").expect("writable");
        let mut files = StoreFiles::open(store.path()).expect("there");
        let exclude = |patterns: &[&str]| Exclude::new(&patterns.iter().map(ToString::to_string).collect::<Vec<_>>());
        let mut adopted = |path, patterns: &[&str]| {
            let mut tree = Elsewhere::open(path, exclude(patterns).expect("patterns")).expect("there");
            let info = adopt(&mut tree, "source", &StoreDir::default()).expect("readable");
            files.put_elsewhere(&info.path, tree);
            info
        };
        let one = adopted(&without, &[]);
        assert_eq!(adopted(&with, &["/doc"]), one);
        assert_ne!(adopted(&with, &[]), one);
        assert!(one.ca.as_ref().is_some_and(|ca| ca.starts_with("fixed:r:sha256:")));
        // Its own path, and the names below that.
        let entries = files.walk(&one.path).expect("there");
        let names: Vec<String> =
            entries.iter().map(|Entry { path, .. }| String::from_utf8_lossy(path).into_owned()).collect();
        let base = one.path.to_basename();
        assert_eq!(names, ["", "/lib", "/lib/default.nix", "/link"].map(|name| format!("{base}{name}")));
        assert_eq!(files.read_whole(format!("{base}/lib/default.nix").as_bytes()).expect("there"), b"1");
    }

    #[test]
    fn a_file_is_a_tree_too_and_what_is_gone_is_named() {
        let (store, work) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let file = work.path().join("index.json");
        std::fs::write(&file, "{}").expect("writable");
        let mut files = StoreFiles::open(store.path()).expect("there");
        let exclude = Exclude::new(&[]).expect("none");
        let mut tree = Elsewhere::open(&file, exclude.clone()).expect("there");
        let info = adopt(&mut tree, "source", &StoreDir::default()).expect("readable");
        files.put_elsewhere(&info.path, tree);
        assert_eq!(files.read_whole(info.path.to_basename().as_bytes()).expect("there"), b"{}");
        std::fs::remove_file(&file).expect("there");
        let error = files.read_whole(info.path.to_basename().as_bytes()).expect_err("gone");
        assert!(error.to_string().contains("index.json"), "{error}");
        assert!(matches!(Elsewhere::open(&file, exclude), Err(TreeError::Io { .. })));
    }
}
