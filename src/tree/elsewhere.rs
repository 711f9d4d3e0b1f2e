//! Store paths whose files are not in the store: files and folders that somebody works in.
//!
//! Such a tree may change at any moment, and may belong to somebody else than who runs stowage. So
//! it is looked at once, when it is taken for a store path: from then on it *is* what it was, and
//! a file whose contents are not those that were hashed is an error, not other bytes under the same
//! name. No link is followed below its top.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::exclude::Exclude;
use super::{Entry, Files, Node, Sink, TreeError};

/// A file or folder anywhere, as it was when it was opened.
#[derive(Debug)]
pub struct Elsewhere {
    /// The folder that it is in.
    folder: OwnedFd,
    path: PathBuf,
    name: Vec<u8>,
    exclude: Exclude,
    /// Its entries, depth first, names in the order of their bytes; their paths begin after the
    /// tree's own name.
    entries: Vec<Entry>,
    places: HashMap<Vec<u8>, usize>,
    /// What the contents of each file were, once they were read for the first time.
    digests: Vec<Option<[u8; 32]>>,
    is_partial: bool,
}

impl Elsewhere {
    /// The file or folder at `path`, without what `exclude` names.
    ///
    /// # Errors
    /// When it is not there, can't be read, or has what no store path has.
    pub fn open(path: &Path, exclude: Exclude) -> Result<Self, TreeError> {
        let failed = |source| TreeError::Io { path: path.to_owned(), source };
        let path = path.canonicalize().map_err(failed)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            let problem = std::io::Error::other("the whole file system is no source tree");
            return Err(TreeError::Io { path, source: problem });
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(parent, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        let name = name.as_bytes().to_vec();
        let (entries, places, digests) = (Vec::new(), HashMap::new(), Vec::new());
        let mut tree = Self { folder, name, path, exclude, entries, places, digests, is_partial: false };
        tree.add(Vec::new())?;
        tree.places = tree.entries.iter().map(|entry| entry.path.clone()).zip(0..).collect();
        tree.digests = vec![None; tree.entries.len()];
        Ok(tree)
    }

    /// Where it is, links followed.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it has something of that name at its top.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.places.contains_key(format!("/{name}").as_bytes())
    }

    /// Whether anything that is there is left out.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// Its entries, with `base` in front of their paths.
    pub(super) fn entries(&self, base: &[u8]) -> Vec<Entry> {
        let entry = |entry: &Entry| Entry { path: [base, &entry.path].concat(), node: entry.node.clone() };
        self.entries.iter().map(entry).collect()
    }

    /// What is at `rest`, which begins with its `/`; the top has none.
    pub(super) fn node(&self, rest: &[u8]) -> Result<Node, TreeError> {
        let place = self.places.get(rest).ok_or_else(|| self.error(rest, Errno::NOENT))?;
        Ok(self.entries[*place].node.clone())
    }

    /// What is in the folder at `rest`, by names.
    pub(super) fn names(&self, rest: &[u8]) -> Vec<Vec<u8>> {
        let below = |entry: &&Entry| {
            let name = entry.path.strip_prefix(rest).and_then(|name| name.strip_prefix(b"/"));
            name.filter(|name| !name.contains(&b'/')).map(<[u8]>::to_vec)
        };
        self.entries.iter().filter_map(|entry| below(&entry)).collect()
    }

    /// Reads the file at `rest` into `sink`.
    ///
    /// # Errors
    /// When its contents are not what they were.
    pub(super) fn read<S: Sink>(&self, rest: &[u8], sink: &mut S) -> Result<(), S::Error> {
        let Some(place) = self.places.get(rest) else { return Err(self.error(rest, Errno::NOENT).into()) };
        let digest = self.hash(&self.entries[*place], sink)?;
        match self.digests[*place] == Some(digest) {
            true => Ok(()),
            false => Err(self.changed(rest).into()),
        }
    }

    /// Has the system read the beginning of the file at `rest`.
    pub(super) fn announce(&self, rest: &[u8], length: u64) {
        if let Ok(file) = self.open_file(rest) {
            let length = std::num::NonZeroU64::new(length);
            let _ = rustix::fs::fadvise(&file, 0, length, rustix::fs::Advice::WillNeed);
        }
    }

    /// Where `rest` is, for people.
    pub(super) fn full(&self, rest: &[u8]) -> PathBuf {
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        if rest.is_empty() { self.path.clone() } else { self.path.join(OsStr::from_bytes(rest)) }
    }

    fn add(&mut self, rest: Vec<u8>) -> Result<(), TreeError> {
        let file = self.open_beneath(&rest, OFlags::PATH)?;
        let stat = rustix::fs::fstat(&file).map_err(|errno| self.error(&rest, errno))?;
        let node = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Node::Directory,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&file, "", Vec::new());
                Node::Symlink { target: target.map_err(|errno| self.error(&rest, errno))?.into_bytes() }
            }
            FileType::RegularFile => {
                Node::Regular { executable: stat.st_mode & 0o100 != 0, size: u64::try_from(stat.st_size).unwrap_or(0) }
            }
            _ => return Err(TreeError::Special(self.full(&rest))),
        };
        // Not one for each level.
        drop(file);
        let names = if node == Node::Directory { self.read_names(&rest)? } else { Vec::new() };
        self.entries.push(Entry { path: rest.clone(), node });
        names.into_iter().try_for_each(|name| self.add([&rest[..], b"/", &name].concat()))
    }

    fn read_names(&mut self, rest: &[u8]) -> Result<Vec<Vec<u8>>, TreeError> {
        let folder = self.open_beneath(rest, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let failed = |errno| self.error(rest, errno);
        let (mut names, mut is_partial) = (Vec::new(), false);
        for entry in rustix::fs::Dir::read_from(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let below = [rest, b"/", name].concat();
            let mut kind = entry.file_type();
            if kind == FileType::Unknown {
                let file = self.open_beneath(&below, OFlags::PATH)?;
                kind = FileType::from_raw_mode(rustix::fs::fstat(&file).map_err(failed)?.st_mode);
            }
            if self.exclude.leaves_out(&below[1..], kind == FileType::Directory) {
                is_partial = true;
            } else {
                names.push(name.to_vec());
            }
        }
        self.is_partial |= is_partial;
        names.sort_unstable();
        Ok(names)
    }

    /// Opens what is at `rest`, and follows no link on the way, nor at its end.
    fn open_beneath(&self, rest: &[u8], flags: OFlags) -> Result<OwnedFd, TreeError> {
        let path = [&self.name, rest].concat();
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        beneath(self.folder.as_fd(), &path, flags).map_err(|errno| self.error(rest, errno))
    }

    fn open_file(&self, rest: &[u8]) -> Result<OwnedFd, TreeError> {
        // A pipe would wait for somebody to write.
        let file = self.open_beneath(rest, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let stat = rustix::fs::fstat(&file).map_err(|errno| self.error(rest, errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(file),
            _ => Err(self.changed(rest)),
        }
    }

    /// Reads the file `entry` into `sink`, exactly as long as it was; tells what its contents are.
    fn hash<S: Sink>(&self, entry: &Entry, sink: &mut S) -> Result<[u8; 32], S::Error> {
        let Node::Regular { size, .. } = entry.node else { return Err(self.changed(&entry.path).into()) };
        let mut file = std::fs::File::from(self.open_file(&entry.path)?);
        let failed = |source| TreeError::Io { path: self.full(&entry.path), source };
        let mut hasher = Sha256::new();
        let mut left = size;
        while left > 0 {
            let space = sink.space()?;
            let wanted = space.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let length = match file.read(&mut space[..wanted]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                result => result.map_err(failed)?,
            };
            if length == 0 {
                return Err(self.changed(&entry.path).into());
            }
            hasher.update(&space[..length]);
            sink.advance(length);
            left -= length as u64;
        }
        if file.read(&mut [0]).map_err(failed)? != 0 {
            return Err(self.changed(&entry.path).into());
        }
        Ok(hasher.finalize().into())
    }

    fn changed(&self, rest: &[u8]) -> TreeError {
        TreeError::TreeChanged { tree: self.path.clone(), path: self.full(rest) }
    }

    fn error(&self, rest: &[u8], errno: Errno) -> TreeError {
        match errno {
            // It was there.
            Errno::NOENT | Errno::LOOP | Errno::NOTDIR if !rest.is_empty() => self.changed(rest),
            errno => TreeError::Io { path: self.full(rest), source: errno.into() },
        }
    }
}

/// `openat2`, or the same step by step where there is none.
fn beneath(folder: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(folder, path, flags, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM) => step_by_step(folder, path, flags),
        result => result,
    }
}

fn step_by_step(folder: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let Some(end) = path.iter().position(|byte| *byte == b'/') else {
        return rustix::fs::openat(folder, path, flags, Mode::empty());
    };
    let on_the_way = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let next = rustix::fs::openat(folder, &path[..end], on_the_way, Mode::empty())?;
    step_by_step(next.as_fd(), &path[end + 1..], flags)
}

/// A tree whose files are read for the first time.
pub struct FirstReading<'a> {
    tree: &'a Elsewhere,
    digests: RefCell<Vec<Option<[u8; 32]>>>,
}

impl<'a> FirstReading<'a> {
    /// Begins to read `tree`.
    #[must_use]
    pub fn new(tree: &'a Elsewhere) -> Self {
        Self { tree, digests: RefCell::new(vec![None; tree.entries.len()]) }
    }

    /// The tree's entries.
    #[must_use]
    pub fn entries(&self) -> &'a [Entry] {
        &self.tree.entries
    }

    /// What the files have turned out to be, for [`Elsewhere::remember`].
    #[must_use]
    pub fn finish(self) -> Vec<Option<[u8; 32]>> {
        self.digests.into_inner()
    }
}

impl Files for FirstReading<'_> {
    fn read<S: Sink>(&self, path: &[u8], _: u64, sink: &mut S) -> Result<(), S::Error> {
        let Some(place) = self.tree.places.get(path) else { return Err(self.tree.error(path, Errno::NOENT).into()) };
        let digest = self.tree.hash(&self.tree.entries[*place], sink)?;
        self.digests.borrow_mut()[*place] = Some(digest);
        Ok(())
    }
}

impl Elsewhere {
    /// Remembers what files were when they were read for the first time: they must be the same
    /// whenever they are read again.
    pub fn remember(&mut self, digests: Vec<Option<[u8; 32]>>) {
        self.digests = digests;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nar;
    use crate::store::StorePath;
    use crate::tree::StoreFiles;
    use std::os::unix::fs::symlink;

    /// A tree with a file and a folder with another one, read once, as a store path.
    fn tree(folder: &Path) -> (StoreFiles, StorePath) {
        std::fs::create_dir_all(folder.join("store")).expect("writable");
        std::fs::create_dir_all(folder.join("tree/below")).expect("writable");
        std::fs::write(folder.join("tree/a"), "aaaa").expect("writable");
        std::fs::write(folder.join("tree/below/b"), "bbbb").expect("writable");
        let mut tree = Elsewhere::open(&folder.join("tree"), Exclude::new(&[]).expect("none")).expect("there");
        let reading = FirstReading::new(&tree);
        nar::measure(&reading, reading.entries()).expect("readable");
        let digests = reading.finish();
        tree.remember(digests);
        let mut files = StoreFiles::open(&folder.join("store")).expect("there");
        let path = crate::store::closure::tests::path('a', "source");
        files.put_elsewhere(&path, tree);
        (files, path)
    }

    fn read_again(files: &StoreFiles, path: &StorePath) -> Result<usize, String> {
        let entries = files.walk(path).map_err(|error| error.to_string())?;
        nar::dump(files, path, std::io::sink()).map_err(|error| error.to_string())?;
        Ok(entries.len())
    }

    #[test]
    fn what_changes_after_it_was_hashed_is_an_error_and_what_comes_is_not_there() {
        type Change = fn(&Path) -> std::io::Result<()>;
        let changes: [(&str, Change); 6] = [
            ("contents", |tree| std::fs::write(tree.join("a"), "AAAA")),
            ("longer", |tree| std::fs::write(tree.join("a"), "aaaaa")),
            ("shorter", |tree| std::fs::write(tree.join("a"), "aaa")),
            ("gone", |tree| std::fs::remove_file(tree.join("below/b"))),
            ("a link", |tree| {
                std::fs::rename(tree.join("below"), tree.join("other"))?;
                symlink("other", tree.join("below"))
            }),
            ("a folder", |tree| {
                std::fs::remove_file(tree.join("a"))?;
                std::fs::create_dir(tree.join("a"))
            }),
        ];
        for (what, change) in changes {
            let folder = tempfile::tempdir().expect("a folder");
            let (files, path) = tree(folder.path());
            std::fs::write(folder.path().join("tree/new"), "new").expect("writable");
            assert_eq!(read_again(&files, &path), Ok(4), "{what}");
            change(&folder.path().join("tree")).expect("writable");
            let error = read_again(&files, &path).expect_err(what);
            assert!(error.contains("changed while it was read"), "{what}: {error}");
        }
    }

    #[test]
    fn no_link_on_the_way_is_followed_without_openat2_either() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("a/b")).expect("writable");
        std::fs::write(folder.path().join("a/b/c"), "c").expect("writable");
        symlink("a", folder.path().join("link")).expect("writable");
        let fd = rustix::fs::open(folder.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("there");
        for open in [beneath, step_by_step] {
            let open = |path: &str, flags| open(fd.as_fd(), path.as_bytes(), flags | OFlags::NOFOLLOW);
            open("a/b/c", OFlags::RDONLY).expect("a file");
            open("link", OFlags::PATH).expect("the link itself");
            assert!(open("link/b/c", OFlags::RDONLY).is_err() && open("link", OFlags::RDONLY).is_err());
        }
    }

    #[test]
    fn a_pipe_holds_nobody_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let (files, path) = tree(folder.path());
        let file = folder.path().join("tree/a");
        std::fs::remove_file(&file).expect("there");
        rustix::fs::mknodat(rustix::fs::CWD, &file, FileType::Fifo, Mode::RWXU, 0).expect("writable");
        assert!(read_again(&files, &path).expect_err("a pipe").contains("changed while it was read"));
        let error = Elsewhere::open(&folder.path().join("tree"), Exclude::new(&[]).expect("none")).expect_err("a pipe");
        assert!(matches!(error, TreeError::Special(_)), "{error}");
    }
}
