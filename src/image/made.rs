//! What was made for an image's `/`: the files of a tar, with their owners, modes and capabilities.
//!
//! Nix functions run commands for it (dockerTools' `extraCommands` and `fakeRootCommands`), under
//! fakeroot, and GNU tar tells what came of them.

use std::collections::BTreeMap;
use std::io::Read as _;

use super::contents::{linked_file, linked_folder};
use super::items::{Item, Node, parents};
use super::system::OWN_FOLDERS;
use crate::digest::Digest;
use crate::layer::Owner;
use crate::layer::tar::HIDING;
use crate::parent::WANTED;
use crate::parent::tar::{Input, Kind, TarError, TarReader};
use crate::store::StoreDir;
use crate::tree::{StoreFiles, TreeError};

/// In how many folders a file may be; they take memory each.
const MOST_FOLDERS: usize = 256;

/// How files begin that gzip, zstd and xz have compressed.
const COMPRESSED: [&[u8]; 3] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ"];

/// Files that were made for an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// The files, by their paths without a leading `/`.
    pub items: BTreeMap<Vec<u8>, Item>,
    /// What their bytes hash to.
    pub digest: Option<Digest>,
}

/// Why a tar can't be put at `/`.
#[derive(Debug, thiserror::Error)]
pub enum MadeError {
    /// It is none.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// Its contents can't be read.
    #[error(transparent)]
    Read(#[from] std::io::Error),
    /// Something of it has no place in an image.
    #[error("/{path} {problem}")]
    Refused {
        /// The path in the image.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// A tar in memory.
struct Bytes<'a>(&'a [u8]);

impl std::io::Read for Bytes<'_> {
    fn read(&mut self, space: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(space)
    }
}

impl Input for Bytes<'_> {}

impl Made {
    /// The files in the tar `bytes`, whose store dir is at `store` in the image, without a leading
    /// `/`.
    ///
    /// # Errors
    /// When it is none, or something of it has no place in an image.
    pub fn parse(bytes: &[u8], store: &str) -> Result<Self, MadeError> {
        if COMPRESSED.iter().any(|magic| bytes.starts_with(magic)) {
            return Err(TarError::Refused("it is compressed; name the bare tar".to_owned()).into());
        }
        let mut reader = TarReader::new(Bytes(bytes));
        let mut items: BTreeMap<Vec<u8>, Item> = BTreeMap::new();
        while let Some(entry) = reader.entry()? {
            let refused =
                |problem| Err(MadeError::Refused { path: String::from_utf8_lossy(&entry.path).into_owned(), problem });
            // The image's own: owners and modes of its folders are not for commands to say.
            if entry.path.is_empty() || entry.kind == Kind::Directory && leads(&entry.path, store) {
                continue;
            }
            if let Some(problem) = problem(&entry.path, store) {
                return refused(problem);
            }
            let node = match &entry.kind {
                Kind::Directory => Node::Directory,
                Kind::Symlink(target) => Node::Link(target.clone()),
                Kind::Regular => {
                    let mut bytes = Vec::new();
                    reader.contents().read_to_end(&mut bytes)?;
                    Node::File(bytes)
                }
                Kind::Sparse => return refused("is a file with holes; make the tar without --sparse"),
                Kind::Special => return refused("is a device or a pipe, which images can't have; leave it out"),
                Kind::HardLink(target) => {
                    let Some(other) = items.get(target).cloned() else {
                        return refused("is a hard link to something that does not come before it");
                    };
                    items.insert(entry.path, other);
                    continue;
                }
            };
            let owner = Owner { uid: entry.uid, gid: entry.gid, ..Owner::default() };
            let mode = if matches!(node, Node::Link(_)) { 0o777 } else { entry.mode };
            let item = Item { node, mode, owner, capability: entry.capability };
            items.insert(entry.path, item);
        }
        if !reader.is_ended() {
            return Err(TarError::Refused("it is cut off, or no tar: nothing says that it ends".to_owned()).into());
        }
        let made = Self { items, digest: Some(Digest::of(bytes)) };
        made.check_folders()?;
        Ok(made)
    }

    /// Sees whether all that is below something is below a folder.
    fn check_folders(&self) -> Result<(), MadeError> {
        let is_no_folder = |path: &Vec<u8>| self.items.get(path).is_some_and(|item| item.node != Node::Directory);
        let Some(path) = self.items.keys().find(|path| parents(path).any(|above| is_no_folder(&above))) else {
            return Ok(());
        };
        let path = String::from_utf8_lossy(path).into_owned();
        Err(MadeError::Refused { path, problem: "is below something of the tar that is no folder" })
    }

    /// Has files in place of links into the store where the image's own come, which are made of both.
    ///
    /// # Errors
    /// When one can't be read.
    pub fn follow(&mut self, files: &StoreFiles, store_dir: &StoreDir) -> Result<(), TreeError> {
        self.dissolve(OWN_FOLDERS.map(|folder| folder.as_bytes().to_vec()), files, store_dir)?;
        for path in WANTED {
            if let Some(item) = self.items.get_mut(path.as_bytes())
                && let Node::Link(target) = &item.node
                && let Some(bytes) = linked_file(files, store_dir, target)?
            {
                *item = Item::of_root(Node::File(bytes));
            }
        }
        Ok(())
    }

    /// Has folders in place of links into the store where the image has `folders` of its own, each before
    /// those in it: with links to all that they led to.
    ///
    /// # Errors
    /// When a link's folder can't be read.
    pub fn dissolve(
        &mut self,
        folders: impl IntoIterator<Item = Vec<u8>>,
        files: &StoreFiles,
        store_dir: &StoreDir,
    ) -> Result<(), TreeError> {
        for folder in folders {
            let Some(Node::Link(target)) = self.items.get(&folder).map(|item| &item.node) else { continue };
            let Some(entries) = linked_folder(files, store_dir, target)? else { continue };
            self.items.insert(folder.clone(), Item::of_root(Node::Directory));
            for (name, target) in entries {
                let path = [&folder[..], b"/", &name].concat();
                self.items.entry(path).or_insert_with(|| Item::of_root(Node::Link(target)));
            }
        }
        Ok(())
    }

    /// The text of the file at `path`; empty where there is none.
    #[must_use]
    pub fn text(&self, path: &str) -> String {
        match self.items.get(path.as_bytes()) {
            Some(Item { node: Node::File(bytes), .. }) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        }
    }

    /// Its folders.
    pub fn folders(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.items.iter().filter(|(_, item)| item.node == Node::Directory).map(|(path, _)| path)
    }

    /// The texts in it that may name store paths.
    pub fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.items.values().filter_map(|item| match &item.node {
            Node::File(bytes) | Node::Link(bytes) => Some(&bytes[..]),
            Node::Directory => None,
        })
    }

    /// Gives what belongs to nobody in particular below `home` to its owner.
    pub fn give(&mut self, home: &[u8], owner: &Owner) {
        let is_in = |path: &[u8]| path.strip_prefix(home).is_some_and(|rest| rest.starts_with(b"/"));
        let nobodys = self.items.iter_mut().filter(|(path, item)| is_in(path) && item.owner == Owner::default());
        nobodys.for_each(|(_, item)| item.owner = owner.clone());
    }
}

/// Why nothing of a tar can be at `path`.
fn problem(path: &[u8], store: &str) -> Option<&'static str> {
    if path.starts_with(format!("{store}/").as_bytes()) {
        return Some("is in the store, which a tar can't add to; make it a derivation, and name that");
    }
    if leads(path, store) {
        return Some("is no folder, and leads to the store");
    }
    if path.split(|byte| *byte == b'/').any(|name| name.starts_with(HIDING)) {
        return Some("has a name by which layers hide what is below them; call it otherwise");
    }
    let is_deep = path.iter().filter(|byte| **byte == b'/').count() >= MOST_FOLDERS;
    is_deep.then_some("is in too many folders")
}

/// Whether the folder `path` leads to the store, or is it.
fn leads(path: &[u8], store: &str) -> bool {
    store.as_bytes().strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tar by the crate `tar`, of entries with their kinds, owners, and pax records.
    fn tar(entries: &[(&str, tar::EntryType, &str, u64)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, text, uid) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_mode(0o4755);
            header.set_uid(*uid);
            header.set_gid(7);
            if matches!(kind, tar::EntryType::Regular) {
                header.set_size(text.len() as u64);
                builder.append_data(&mut header, path, text.as_bytes()).expect("writable");
            } else {
                header.set_size(0);
                builder.append_link(&mut header, path, text).expect("writable");
            }
        }
        builder.into_inner().expect("writable")
    }

    #[test]
    fn files_have_what_the_tar_says_and_the_store_stays_out() {
        use tar::EntryType::{Directory, Link, Regular, Symlink};
        let made = tar(&[
            ("./", Directory, ".", 0),
            ("nix/", Directory, ".", 0),
            ("nix/store/", Directory, ".", 0),
            ("nix/var/", Directory, ".", 0),
            ("ni/", Directory, ".", 0),
            ("etc/", Directory, ".", 12),
            ("etc/x", Regular, "hello", 34),
            ("etc/y", Link, "etc/x", 0),
            ("bin", Symlink, "/nix/store/x/bin", 0),
        ]);
        let made = Made::parse(&made, "nix/store").expect("right");
        let names: Vec<_> = made.items.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        assert_eq!(names, ["bin", "etc", "etc/x", "etc/y", "ni", "nix/var"]);
        let file = &made.items[&b"etc/x"[..]];
        assert_eq!((file.mode, file.owner.uid, file.owner.gid), (0o4755, 34, 7));
        assert_eq!(made.items[&b"etc/y"[..]], *file);
        assert_eq!((made.text("etc/x"), made.text("bin")), ("hello".to_owned(), String::new()));
        let deep = "x/".repeat(300) + "x";
        for (path, kind, problem) in [
            ("nix/store/x", Regular, "is in the store"),
            ("nix/store", Regular, "leads to the store"),
            ("nix", Symlink, "leads to the store"),
            ("dev/null", tar::EntryType::Char, "is a device"),
            ("etc/z", Link, "hard link"),
            ("etc/.wh.passwd", Regular, "hide what is below"),
            (".wh.x/y", Regular, "hide what is below"),
            (&deep, Directory, "too many folders"),
        ] {
            let error = Made::parse(&tar(&[(path, kind, "none", 0)]), "nix/store").expect_err(path).to_string();
            assert!(error.contains(problem), "{path}: {error}");
        }
        for above in [Regular, Symlink] {
            let made = tar(&[("a/b", Regular, "x", 0), ("a", above, "x", 0)]);
            let error = Made::parse(&made, "nix/store").expect_err("below a file").to_string();
            assert!(error.contains("/a/b is below something"), "{error}");
        }
    }

    #[test]
    fn what_has_no_end_is_no_tar() {
        let whole = tar(&[("a", tar::EntryType::Regular, "", 0), ("b", tar::EntryType::Regular, "", 0)]);
        assert!(Made::parse(&whole, "nix/store").is_ok());
        for length in [0, 512, 1024] {
            let error = Made::parse(&whole[..length], "nix/store").expect_err("cut off");
            assert!(error.to_string().contains("nothing says that it ends"), "{length}: {error}");
        }
        let packed = zstd::encode_all(&whole[..], 1).expect("memory");
        assert!(Made::parse(&packed, "nix/store").expect_err("packed").to_string().contains("it is compressed"));
    }

    #[test]
    fn accounts_are_read_where_they_are_links_into_the_store() {
        const FILE: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-a/etc/passwd";
        let store = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(store.path().join(FILE).parent().expect("a folder")).expect("writable");
        std::fs::write(store.path().join(FILE), "nginx:x:9:9::/:").expect("writable");
        let target = format!("/nix/store/{FILE}");
        let symlink = tar::EntryType::Symlink;
        let links = [
            ("etc/passwd", symlink, &*target, 0),
            ("etc/group", symlink, "/nix/store/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-b/group", 0),
            ("etc/other", symlink, &*target, 0),
        ];
        let mut made = Made::parse(&tar(&links), "nix/store").expect("right");
        let files = StoreFiles::open(store.path()).expect("a store");
        made.follow(&files, &StoreDir::default()).expect("readable");
        assert_eq!(made.text("etc/passwd"), "nginx:x:9:9::/:");
        assert_eq!((made.text("etc/group"), made.text("etc/other")), (String::new(), String::new()));
        assert_eq!((made.items[&b"etc/passwd"[..]].mode, made.items.len()), (0o644, 3));
    }

    #[test]
    fn what_is_nobodys_in_a_home_is_its_users() {
        let entries = [("home/user/x", tar::EntryType::Regular, "", 0), ("home/user2", tar::EntryType::Regular, "", 0)];
        let mut made = Made::parse(&tar(&entries), "nix/store").expect("right");
        made.items.values_mut().for_each(|item| item.owner.gid = 0);
        let owner = Owner { uid: 1000, gid: 1000, ..Owner::default() };
        made.give(b"home/user", &owner);
        assert_eq!(made.items[&b"home/user/x"[..]].owner, owner);
        assert_eq!(made.items[&b"home/user2"[..]].owner, Owner::default());
    }
}
