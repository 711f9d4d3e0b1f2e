//! Lays out `contents` at `/`, as dockerTools does: folders are made, everything
//! else is a link into the store.
//!
//! Where several contents have the same folder, it is one folder with the
//! entries of all of them, through links to folders too (nixpkgs' `buildEnv`
//! makes such links where only one package has a folder). Two different files of
//! one name are a conflict. A relative link that stays within its content keeps
//! its text, as lndir does; what it leads to is laid out beside it.

mod links;
mod stored;

use std::collections::{BTreeMap, BTreeSet};

use super::ground::{Below, Ground};
use super::items::parents;
use crate::layer::tar::HIDING;
use crate::store::{StoreDir, StorePath};
use crate::tree::{Entry, Node, StoreFiles, TreeError};
use links::{Links, components};
pub use links::{linked_file, linked_folder, names};
pub use stored::StoredLayout;

/// Where the image's programs find certificates; `contents` may call the file
/// otherwise, where it is linked.
pub const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

/// What nixpkgs' `cacert` calls it.
const NIXPKGS_CERTIFICATES: &str = "etc/ssl/certs/ca-bundle.crt";

/// What nobody looks for at `/`, and almost all packages have, so that they would be in each other's
/// way; by the ends of their paths, as in Nix's own profiles (`src/libstore/builtins/buildenv.cc`,
/// which leaves out all that is called `log`, too).
const LEFT_OUT: [&str; 6] =
    ["/nix-support", "/propagated-build-inputs", "/perllocal.pod", "/info/dir", "/manifest.nix", "/manifest.json"];

/// Why contents can't be laid out.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// Two files where there can be one.
    #[error(
        "/{path} comes from two places: from {one} and from {other}; leave one of them out, or put what you need of them into one folder"
    )]
    Conflict {
        /// The path in the image.
        path: String,
        /// What the one has there.
        one: String,
        /// What the other has there.
        other: String,
    },
    /// The parent's folder would be lost.
    #[error(
        "/{path} is a folder in the parent image, and here a file or link: {file}; leave it out, or put what you need of it into one folder"
    )]
    FolderBelow {
        /// The path in the image.
        path: String,
        /// What the contents have there.
        file: String,
    },
    /// What the parent has there could not be seen any more.
    #[error(
        "/{path} is a link in the parent image, to {target}, which is not in this store, so that nothing can be put beside what it leads to; fetch it into this store, or make /{path} a folder in the parent"
    )]
    NotHere {
        /// The path in the image.
        path: String,
        /// What the link leads to.
        target: String,
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
    /// A copy of the file at that path below the store dir.
    Copy {
        /// Where the file is.
        from: Vec<u8>,
        /// Whether its owner may execute it.
        executable: bool,
    },
}

/// What is laid out, and how.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    /// The store paths.
    pub contents: &'a [StorePath],
    /// Those of them whose files are copied.
    pub mutable: &'a [StorePath],
    /// What becomes a folder of the image's own even where a link to one would do, since more goes
    /// into it.
    pub folders: BTreeSet<Vec<u8>>,
    /// Whether links to folders of other store paths do, too.
    pub only_folders: bool,
}

/// Contents laid out at `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The entries, by their paths without a leading `/`.
    pub placed: BTreeMap<Vec<u8>, Placed>,
    /// What contents bring as `/etc/passwd`.
    pub passwd: String,
    /// What contents bring as `/etc/group`.
    pub group: String,
}

impl Layout {
    /// Lays out what is `wanted` on a parent's file system, whose folders stay folders.
    ///
    /// # Errors
    /// When two contents have different files of one name, or can't be read.
    pub fn new(
        files: &StoreFiles,
        store_dir: &StoreDir,
        wanted: &Wanted<'_>,
        ground: Ground<'_>,
    ) -> Result<Self, ContentsError> {
        let Wanted { contents, mutable, folders, only_folders } = wanted.clone();
        let mut builder = Builder {
            links: Links { files, store_dir },
            contents,
            mutable,
            folders,
            only_folders,
            ground,
            placed: BTreeMap::new(),
        };
        if builder.find(b"bin/sh")?.is_none() && builder.find(b"bin/bash")?.is_some() {
            builder.folders.insert(b"bin".to_vec());
        }
        let mut roots = Vec::new();
        for path in contents {
            let base = path.to_basename().into_bytes();
            match builder.links.resolve(&base)? {
                Some(Entry { path, node: Node::Directory }) if !roots.contains(&path) => roots.push(path),
                Some(Entry { node: Node::Directory, .. }) => {}
                _ => return Err(ContentsError::NoFolder(store_dir.render_path(path))),
            }
        }
        builder.merge(Folder { place: b"", sources: &roots, above: None })?;
        builder.add_usual_names()?;
        Ok(Self { passwd: builder.read(b"etc/passwd")?, group: builder.read(b"etc/group")?, placed: builder.placed })
    }
}

/// A layout that is being made.
struct Builder<'a> {
    links: Links<'a>,
    contents: &'a [StorePath],
    mutable: &'a [StorePath],
    folders: BTreeSet<Vec<u8>>,
    only_folders: bool,
    ground: Ground<'a>,
    placed: BTreeMap<Vec<u8>, Placed>,
}

/// A folder of the image, with the folders below the store dir whose entries it
/// gets, and the folder that it is in.
#[derive(Clone, Copy)]
struct Folder<'a> {
    place: &'a [u8],
    sources: &'a [Vec<u8>],
    above: Option<&'a Folder<'a>>,
}

impl Builder<'_> {
    /// The text of the file that contents bring as `path`; empty where none does.
    fn read(&self, path: &[u8]) -> Result<String, ContentsError> {
        match self.find(path)? {
            Some(Entry { path, node: Node::Regular { .. } }) => {
                Ok(String::from_utf8_lossy(&self.links.files.read_whole(&path)?).into_owned())
            }
            _ => Ok(String::new()),
        }
    }

    /// Names that programs expect, for what contents have under another:
    /// `/bin/sh`, `/usr/bin/env`, and the certificates.
    fn add_usual_names(&mut self) -> Result<(), ContentsError> {
        for (name, other) in [("bin/sh", "bin/bash"), ("usr/bin/env", "bin/env"), (CERTIFICATES, NIXPKGS_CERTIFICATES)]
        {
            let (name, other) = (name.as_bytes(), other.as_bytes());
            // On a Debian, /bin/env would be a link to itself.
            let is_below =
                self.ground.below(name) != Below::Nothing || self.ground.place(name) == self.ground.place(other);
            // Where commands or links say what /usr/bin is, the image adds it to that.
            let is_later = name.starts_with(b"usr") && (self.only_folders || self.is_link_above(name));
            if !is_below && !is_later && self.find(name)?.is_none() && self.find(other)?.is_some() {
                self.placed.insert(name.to_vec(), Placed::Link([b"/", other].concat()));
            }
        }
        Ok(())
    }

    /// Whether a folder that `path` is in is a link.
    fn is_link_above(&self, path: &[u8]) -> bool {
        let is_link = |folder: Vec<u8>| matches!(self.placed.get(&folder), Some(Placed::Link(_)));
        parents(path).any(is_link)
    }

    /// Makes the entries of `folder`.
    fn merge(&mut self, folder: Folder<'_>) -> Result<(), ContentsError> {
        let mut names: BTreeMap<Vec<u8>, Vec<Entry>> = BTreeMap::new();
        for source in folder.sources {
            for entry in self.links.files.children(source)?.unwrap_or_default() {
                let name = entry.path[source.len() + 1..].to_vec();
                if name.starts_with(HIDING) {
                    return Err(TreeError::Hiding(self.links.print(&entry.path)).into());
                }
                names.entry(name).or_default().push(entry);
            }
        }
        for (name, entries) in names {
            let path = if folder.place.is_empty() { name } else { [folder.place, b"/", &name].concat() };
            let full = [b"/", &path[..]].concat();
            if LEFT_OUT.iter().any(|end| full.ends_with(end.as_bytes())) {
                continue;
            }
            self.place(folder, path, &entries)?;
        }
        Ok(())
    }

    /// Makes the entry `path` of `folder` from what its sources have there.
    fn place(&mut self, folder: Folder<'_>, path: Vec<u8>, entries: &[Entry]) -> Result<(), ContentsError> {
        let placed: Vec<Placed> = entries.iter().map(|entry| self.placed(entry, &path)).collect();
        let differ = placed.iter().position(|one| *one != placed[0]);
        let has_folder = entries.iter().any(|entry| entry.node == Node::Directory);
        let leads_out = || entries.iter().any(|entry| self.leads_out(entry, &path));
        if (differ.is_some() || has_folder || self.is_folder(&path) || (self.only_folders && leads_out()))
            && let Some(sources) = self.all_folders(entries)?
        {
            // A link to a folder that it is in: laid out, it would have no end.
            if let Some(above) = folder.holding(&sources) {
                self.placed.insert(path, Placed::Link([b"/", above].concat()));
                return Ok(());
            }
            self.placed.insert(path.clone(), Placed::Directory);
            return self.merge(Folder { place: &path, sources: &sources, above: Some(&folder) });
        }
        if let Some(other) = differ
            && !self.are_same(entries)?
        {
            return Err(ContentsError::Conflict {
                path: String::from_utf8_lossy(&path).into_owned(),
                one: self.links.print(&entries[0].path),
                other: self.links.print(&entries[other].path),
            });
        }
        self.placed.extend(placed.into_iter().next().map(|placed| (path, placed)));
        Ok(())
    }

    /// Whether all of `entries` are or lead to one file, as in a package and in an environment that
    /// has it.
    fn are_same(&self, entries: &[Entry]) -> Result<bool, TreeError> {
        let found = entries.iter().map(|entry| self.links.resolve(&entry.path)).collect::<Result<Vec<_>, _>>()?;
        Ok(found.iter().all(|one| one.is_some() && *one == found[0]))
    }

    /// What `place` becomes of `entry`, if it is no folder.
    fn placed(&self, entry: &Entry, place: &[u8]) -> Placed {
        match &entry.node {
            Node::Regular { executable, .. } if self.is_mutable(entry) => {
                Placed::Copy { from: entry.path.clone(), executable: *executable }
            }
            Node::Symlink { target } if self.is_mutable(entry) => Placed::Link(self.copied_link(entry, place, target)),
            _ => Placed::Link(self.link_to(entry, place)),
        }
    }

    fn is_mutable(&self, entry: &Entry) -> bool {
        let base = entry.path.split(|byte| *byte == b'/').next().unwrap_or_default();
        self.mutable.iter().any(|path| path.to_basename().as_bytes() == base)
    }

    /// Whether `path` is a folder even where a link to one would do.
    fn is_folder(&self, path: &[u8]) -> bool {
        self.folders.contains(path) || matches!(self.ground.below(path), Below::Directory | Below::InStore(_))
    }

    /// The folders that `entries` are or lead to, each once, if all are such.
    fn all_folders(&self, entries: &[Entry]) -> Result<Option<Vec<Vec<u8>>>, ContentsError> {
        let mut folders = Vec::new();
        for entry in entries {
            match self.links.resolve(&entry.path)? {
                Some(Entry { path, node: Node::Directory }) if !folders.contains(&path) => folders.push(path),
                Some(Entry { node: Node::Directory, .. }) => {}
                _ => return Ok(None),
            }
        }
        Ok(Some(folders))
    }

    /// The target of the image's link `place` to `entry`: where a link leads
    /// anyway, or the entry itself.
    fn link_to(&self, entry: &Entry, place: &[u8]) -> Vec<u8> {
        match &entry.node {
            Node::Symlink { target } if target.starts_with(b"/") || self.stays(entry, place, target) => target.clone(),
            _ => self.links.print(&entry.path).into_bytes(),
        }
    }

    /// The target of a link that is copied: that what it leads to in the store, where it leaves its content.
    fn copied_link(&self, entry: &Entry, place: &[u8], target: &[u8]) -> Vec<u8> {
        if target.starts_with(b"/") || self.stays(entry, place, target) {
            return target.to_vec();
        }
        let mut path: Vec<Vec<u8>> = components(&entry.path).collect();
        path.pop();
        for name in components(target) {
            if name != b".." {
                path.push(name);
            } else if path.pop().is_none() {
                // Out of the store: nobody knows where it is in the image.
                return target.to_vec();
            }
        }
        self.links.print(&path.join(&b"/"[..])).into_bytes()
    }

    /// Whether `entry` is a link that means something else at `place`, or leads out of its content.
    fn leads_out(&self, entry: &Entry, place: &[u8]) -> bool {
        matches!(&entry.node, Node::Symlink { target } if target.starts_with(b"/") || !self.stays(entry, place, target))
    }

    /// Whether the relative link `entry` means the same at `place`: it is there in
    /// its content, too, and leads to somewhere in it.
    fn stays(&self, entry: &Entry, place: &[u8], target: &[u8]) -> bool {
        let in_content = |path: &StorePath| entry.path == [path.to_basename().as_bytes(), b"/", place].concat();
        let mut depth = components(place).count() - 1;
        let within = components(target).all(|name| {
            let up = name == b"..";
            let left = up && depth == 0;
            depth = if up { depth.saturating_sub(1) } else { depth + 1 };
            !left
        });
        within && self.contents.iter().any(in_content)
    }

    /// What the first of the contents that has `path` has there, links followed.
    fn find(&self, path: &[u8]) -> Result<Option<Entry>, ContentsError> {
        for content in self.contents {
            let path = [content.to_basename().as_bytes(), b"/", path].concat();
            if let Some(entry) = self.links.resolve(&path)? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

impl Folder<'_> {
    /// The place of the nearest folder at or above this one that has the entries of
    /// all of `sources`.
    fn holding(&self, sources: &[Vec<u8>]) -> Option<&[u8]> {
        if sources.iter().all(|source| self.sources.contains(source)) {
            return Some(self.place);
        }
        self.above.and_then(|above| above.holding(sources))
    }
}

#[cfg(test)]
mod tests;
