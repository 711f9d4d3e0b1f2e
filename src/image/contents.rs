//! Lays out `contents` at `/`, as dockerTools does: folders are made, everything
//! else is a link into the store.
//!
//! Where several contents have the same folder, it is one folder with the
//! entries of all of them, through links to folders too (nixpkgs' `buildEnv`
//! makes such links where only one package has a folder). Two different files of
//! one name are a conflict.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::{StoreDir, StorePath};
use crate::tree::{Entry, Node, StoreFiles, TreeError};

/// Where the image's programs find certificates; `contents` may call the file
/// otherwise, see [`Layout::add_usual_names`].
pub const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

/// What nixpkgs' `cacert` calls it.
const NIXPKGS_CERTIFICATES: &str = "etc/ssl/certs/ca-bundle.crt";

/// How many links lead from one to the other before they count as a loop, as in
/// Linux.
const MAX_LINKS: usize = 40;

/// Why contents can't be laid out.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// Two files where there can be one.
    #[error(
        "/{path} comes from two of the contents: from {one} and from {other}; leave one of them out, or put what you need of them into one folder"
    )]
    Conflict {
        /// The path in the image.
        path: String,
        /// What the one has there.
        one: String,
        /// What the other has there.
        other: String,
    },
    /// A file can't be linked at `/` under no name.
    #[error("{0} is no folder, so it can't be laid out at /; give a folder with it as one of the contents")]
    NoFolder(String),
    /// The store is not as registered.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// An entry of the image's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed {
    /// A folder of the image's own.
    Directory,
    /// A link with that target.
    Link(Vec<u8>),
}

/// Contents laid out at `/`.
#[derive(Debug)]
pub struct Layout<'a> {
    files: &'a StoreFiles,
    store_dir: &'a StoreDir,
    contents: &'a [StorePath],
    folders: BTreeSet<Vec<u8>>,
    /// The entries, by their paths without a leading `/`.
    pub placed: BTreeMap<Vec<u8>, Placed>,
}

impl<'a> Layout<'a> {
    /// Lays out `contents`. The paths in `folders` become folders of the image's
    /// own even where a link to a folder would do, since more goes into them.
    ///
    /// # Errors
    /// When two contents have different files of one name, or can't be read.
    pub fn new(
        files: &'a StoreFiles,
        store_dir: &'a StoreDir,
        contents: &'a [StorePath],
        folders: BTreeSet<Vec<u8>>,
    ) -> Result<Self, ContentsError> {
        let mut layout = Self { files, store_dir, contents, folders, placed: BTreeMap::new() };
        if layout.find(b"bin/sh")?.is_none() && layout.find(b"bin/bash")?.is_some() {
            layout.folders.insert(b"bin".to_vec());
        }
        let mut roots = Vec::new();
        for path in contents {
            let base = path.to_basename().into_bytes();
            match layout.resolve(&base)? {
                Some(Entry { path, node: Node::Directory }) => roots.push(path),
                _ => return Err(ContentsError::NoFolder(store_dir.render_path(path))),
            }
        }
        roots.dedup();
        layout.merge(b"", &roots)?;
        layout.add_usual_names()?;
        Ok(layout)
    }

    /// The bytes of the file that contents bring as `path`, if one does.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn read(&self, path: &[u8]) -> Result<Option<Vec<u8>>, ContentsError> {
        match self.find(path)? {
            Some(Entry { path, node: Node::Regular { .. } }) => Ok(Some(self.files.read_whole(&path)?)),
            _ => Ok(None),
        }
    }

    /// Names that programs expect, for what contents have under another:
    /// `/bin/sh`, `/usr/bin/env`, and the certificates.
    fn add_usual_names(&mut self) -> Result<(), ContentsError> {
        for (name, other) in [("bin/sh", "bin/bash"), ("usr/bin/env", "bin/env"), (CERTIFICATES, NIXPKGS_CERTIFICATES)]
        {
            if self.find(name.as_bytes())?.is_none() && self.find(other.as_bytes())?.is_some() {
                self.placed.insert(name.into(), Placed::Link(format!("/{other}").into_bytes()));
            }
        }
        Ok(())
    }

    /// Makes the entries of the folder `place` from those of `sources`, folders
    /// below the store dir.
    fn merge(&mut self, place: &[u8], sources: &[Vec<u8>]) -> Result<(), ContentsError> {
        let mut names: BTreeMap<Vec<u8>, Vec<Entry>> = BTreeMap::new();
        for source in sources {
            for entry in self.files.children(source)?.unwrap_or_default() {
                let name = entry.path[source.len() + 1..].to_vec();
                names.entry(name).or_default().push(entry);
            }
        }
        for (name, entries) in names {
            let path = if place.is_empty() { name } else { [place, b"/", &name].concat() };
            self.place(path, entries)?;
        }
        Ok(())
    }

    fn place(&mut self, path: Vec<u8>, entries: Vec<Entry>) -> Result<(), ContentsError> {
        let as_folder = entries.len() > 1
            || self.folders.contains(&path)
            || entries.iter().any(|entry| entry.node == Node::Directory);
        if as_folder && let Some(sources) = self.all_folders(&entries)? {
            self.placed.insert(path.clone(), Placed::Directory);
            return self.merge(&path, &sources);
        }
        let links: Vec<Vec<u8>> = entries.iter().map(|entry| self.link_to(entry)).collect();
        if let Some(other) = links.iter().position(|link| *link != links[0]) {
            return Err(ContentsError::Conflict {
                path: String::from_utf8_lossy(&path).into_owned(),
                one: self.print(&entries[0].path),
                other: self.print(&entries[other].path),
            });
        }
        self.placed.extend(links.into_iter().next().map(|link| (path, Placed::Link(link))));
        Ok(())
    }

    /// The folders that `entries` are or lead to, each once, if all are such.
    fn all_folders(&self, entries: &[Entry]) -> Result<Option<Vec<Vec<u8>>>, ContentsError> {
        let mut folders = Vec::new();
        for entry in entries {
            match self.resolve(&entry.path)? {
                Some(Entry { path, node: Node::Directory }) if !folders.contains(&path) => folders.push(path),
                Some(Entry { node: Node::Directory, .. }) => {}
                _ => return Ok(None),
            }
        }
        Ok(Some(folders))
    }

    /// The target of the image's link to `entry`: where an absolute link leads
    /// anyway, or the entry itself.
    fn link_to(&self, entry: &Entry) -> Vec<u8> {
        match &entry.node {
            Node::Symlink { target } if target.starts_with(b"/") => target.clone(),
            _ => self.print(&entry.path).into_bytes(),
        }
    }

    /// What the first of the contents that has `path` has there, links followed.
    fn find(&self, path: &[u8]) -> Result<Option<Entry>, ContentsError> {
        for content in self.contents {
            let path = [content.to_basename().as_bytes(), b"/", path].concat();
            if let Some(entry) = self.resolve(&path)? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// What is at `path`, below the store dir, once all links are followed;
    /// nothing where a link leads out of the store, or nowhere.
    fn resolve(&self, path: &[u8]) -> Result<Option<Entry>, TreeError> {
        let mut left: Vec<Vec<u8>> = components(path).rev().collect();
        let mut at: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        let mut found = None;
        while let Some(name) = left.pop() {
            if name == b".." {
                // Above a store path there is nothing that belongs to it.
                if at.len() < 2 {
                    return Ok(None);
                }
                at.pop();
                continue;
            }
            at.push(name);
            let entry = match self.files.entry(&at.join(&b'/')) {
                Err(TreeError::Io { source, .. }) if is_nowhere(&source) => return Ok(None),
                entry => entry?,
            };
            if let Node::Symlink { target } = &entry.node {
                links += 1;
                let Some(target) = (links <= MAX_LINKS).then(|| self.below_store(target, &mut at)).flatten() else {
                    return Ok(None);
                };
                left.extend(components(target).rev());
                found = None;
            } else {
                found = Some(entry);
            }
        }
        match found {
            Some(found) if found.path == at.join(&b'/') => Ok(Some(found)),
            _ if at.is_empty() => Ok(None),
            _ => self.files.entry(&at.join(&b'/')).map(Some),
        }
    }

    /// Where a link at `at` leads from the folder that `at` then is; nothing
    /// where that is out of the store.
    fn below_store<'t>(&self, target: &'t [u8], at: &mut Vec<Vec<u8>>) -> Option<&'t [u8]> {
        if target.starts_with(b"/") {
            let rest = target.strip_prefix(self.store_dir.as_str().as_bytes())?.strip_prefix(b"/")?;
            at.clear();
            return Some(rest);
        }
        at.pop();
        (!at.is_empty()).then_some(target)
    }

    fn print(&self, path: &[u8]) -> String {
        format!("{}/{}", self.store_dir, String::from_utf8_lossy(path))
    }
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> + '_ {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").map(<[u8]>::to_vec)
}

fn is_nowhere(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-a";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-b";

    /// A store with files, and links where a `>` is in the name.
    fn store(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for file in files {
            let (path, target) = file.split_once('>').map_or((*file, None), |(path, target)| (path, Some(target)));
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("writable");
            match target {
                Some(target) => symlink(target, path).expect("writable"),
                None => std::fs::write(path, file).expect("writable"),
            }
        }
        folder
    }

    fn lay_out(store: &Path, folders: &[&str]) -> Result<Vec<String>, ContentsError> {
        let files = StoreFiles::open(store).expect("a folder");
        let contents = [A, B].map(|name| StorePath::from_basename(name.as_bytes()).expect("valid"));
        let here: Vec<StorePath> =
            contents.into_iter().filter(|path| store.join(path.to_basename()).exists()).collect();
        let folders = folders.iter().map(|folder| folder.as_bytes().to_vec()).collect();
        let store_dir = StoreDir::default();
        let layout = Layout::new(&files, &store_dir, &here, folders)?;
        let text = |(path, placed): (&Vec<u8>, &Placed)| {
            let path = String::from_utf8_lossy(path).into_owned();
            match placed {
                Placed::Directory => path + "/",
                Placed::Link(target) => format!("{path}>{}", String::from_utf8_lossy(target)),
            }
        };
        Ok(layout.placed.iter().map(text).collect())
    }

    fn from(store: &str, path: &str) -> String {
        format!("{path}>/nix/store/{store}/{path}")
    }

    #[test]
    fn folders_are_made_and_files_are_links() {
        let store = store(&[&format!("{A}/bin/x"), &format!("{B}/bin/y"), &format!("{B}/share/doc/y")]);
        let expected = [
            "bin/".to_owned(),
            from(A, "bin/x"),
            from(B, "bin/y"),
            "share/".to_owned(),
            "share/doc/".to_owned(),
            from(B, "share/doc/y"),
        ];
        assert_eq!(lay_out(store.path(), &[]).expect("no conflict"), expected);
    }

    #[test]
    fn a_link_to_a_folder_stays_unless_more_goes_into_it() {
        let store = store(&[&format!("{A}/lib/l"), &format!("{B}/lib>/nix/store/{A}/lib")]);
        std::fs::rename(store.path().join(A), store.path().join("cccccccccccccccccccccccccccccccc-c"))
            .expect("writable");
        let c = "cccccccccccccccccccccccccccccccc-c";
        let link = store.path().join(B).join("lib");
        std::fs::remove_file(&link).expect("writable");
        symlink(format!("/nix/store/{c}/lib"), &link).expect("writable");
        assert_eq!(lay_out(store.path(), &[]).expect("no conflict"), [format!("lib>/nix/store/{c}/lib")]);
        assert_eq!(lay_out(store.path(), &["lib"]).expect("no conflict"), ["lib/".to_owned(), from(c, "lib/l")]);
    }

    #[test]
    fn two_files_of_one_name_are_a_conflict_that_names_them() {
        let store = store(&[&format!("{A}/bin/x"), &format!("{B}/bin/x")]);
        let error = lay_out(store.path(), &[]).expect_err("a conflict").to_string();
        assert!(error.contains("/bin/x comes from two") && error.contains(A) && error.contains(B), "{error}");
    }

    #[test]
    fn two_links_to_one_file_are_no_conflict() {
        let store = store(&[&format!("{A}/bin/x>/nix/store/z/x"), &format!("{B}/bin/x>/nix/store/z/x")]);
        assert_eq!(lay_out(store.path(), &[]).expect("no conflict"), ["bin/", "bin/x>/nix/store/z/x"]);
    }

    #[test]
    fn usual_names_are_added() {
        let store = store(&[&format!("{A}/bin/bash"), &format!("{A}/bin/env"), &format!("{A}/{NIXPKGS_CERTIFICATES}")]);
        let placed =
            lay_out(store.path(), &["etc", "etc/ssl", "etc/ssl/certs", "usr", "usr/bin"]).expect("no conflict");
        for link in [
            "bin/sh>/bin/bash",
            "usr/bin/env>/bin/env",
            "etc/ssl/certs/ca-certificates.crt>/etc/ssl/certs/ca-bundle.crt",
        ] {
            assert!(placed.contains(&link.to_owned()), "{link} in {placed:?}");
        }
    }

    #[test]
    fn links_that_lead_out_or_in_circles_stay_links() {
        let store =
            store(&[&format!("{A}/a>b"), &format!("{A}/b>a"), &format!("{A}/c>../../etc"), &format!("{A}/d>/etc/d")]);
        let expected = [from(A, "a"), from(A, "b"), from(A, "c"), "d>/etc/d".to_owned()];
        assert_eq!(lay_out(store.path(), &["a", "c", "d"]).expect("no conflict"), expected);
    }

    #[test]
    fn a_file_is_no_content() {
        let store = store(&[A]);
        assert!(lay_out(store.path(), &[]).expect_err("no folder").to_string().contains("is no folder"));
    }
}
