//! File systems made of layers: what hides what.
//!
//! Source: OCI image-spec 1.1, `layer.md`, "Applying Changesets" and "Whiteouts".
//! Where it leaves things open, this does what Docker and containerd do with
//! overlayfs: a folder over a link or a file takes its place, be it only one that
//! is implied by what is in it.

use std::collections::BTreeMap;

/// Something that can be in a file system.
pub trait Inode {
    /// Whether it is a folder.
    fn is_directory(&self) -> bool;
    /// A folder that nothing was said of.
    fn implied() -> Self;
}

/// What is at which path: without a leading `/`, and in the order of bytes.
#[derive(Clone, Debug)]
pub struct Overlay<T>(BTreeMap<Vec<u8>, T>);

/// What a layer changes.
#[derive(Clone, Debug)]
pub struct Changes<T> {
    /// What it adds.
    pub added: Overlay<T>,
    /// The paths that it removes.
    pub hidden: Vec<Vec<u8>>,
    /// The folders from which it removes all.
    pub emptied: Vec<Vec<u8>>,
}

/// The beginning of names that remove something.
const WHITEOUT: &[u8] = b".wh.";

/// The name that empties a folder, and others that begin like it mean nothing.
const OPAQUE: &[u8] = b".wh..wh..opq";
const META: &[u8] = b".wh..wh.";

/// What a path in a layer says.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// Something is there.
    Add,
    /// That path is removed.
    Hide(Vec<u8>),
    /// All in that folder is removed.
    Empty(Vec<u8>),
    /// Nothing.
    None,
}

/// What `path` says in a layer; `None` where it is neither a path nor a
/// whiteout.
#[must_use]
pub fn change(path: &[u8]) -> Option<Change> {
    let (folder, name) = split(path);
    let hidden = name.strip_prefix(WHITEOUT);
    // Docker takes nothing below them for files, either.
    if folder.split(|byte| *byte == b'/').any(|part| part.starts_with(META)) {
        return Some(Change::None);
    }
    Some(match hidden {
        None => Change::Add,
        Some(_) if name == OPAQUE => Change::Empty(folder.to_vec()),
        Some(_) if name.starts_with(META) => Change::None,
        Some(b"" | b"." | b"..") => return None,
        Some(hidden) => Change::Hide(join(folder, hidden)),
    })
}

impl<T> Default for Overlay<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Default for Changes<T> {
    fn default() -> Self {
        Self { added: Overlay::default(), hidden: Vec::new(), emptied: Vec::new() }
    }
}

impl<T: Inode> Overlay<T> {
    /// What is at `path`.
    #[must_use]
    pub fn get(&self, path: &[u8]) -> Option<&T> {
        self.0.get(path)
    }

    /// All paths with what is there, folders before what is in them.
    pub fn iter(&self) -> impl Iterator<Item = (&Vec<u8>, &T)> {
        self.0.iter()
    }

    /// What is at `path`, and below it.
    pub fn within(&self, path: &[u8]) -> impl Iterator<Item = (&Vec<u8>, &T)> {
        let below = self.0.range(join(path, b"")..[path, b"0"].concat());
        self.0.get_key_value(path).into_iter().chain(below)
    }

    /// All paths with what is there.
    #[must_use]
    pub fn into_map(self) -> BTreeMap<Vec<u8>, T> {
        self.0
    }

    /// Whether nothing is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first folder on the way to `path` that is none, if there is one. What is
    /// below a link of the same layer is where the link leads for some tools, and in
    /// place of the link for others.
    #[must_use]
    pub fn obstacle<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        parents(path).find(|parent| self.0.get(*parent).is_some_and(|node| !node.is_directory()))
    }

    /// Puts `node` at `path`, in place of what was there. A folder keeps what is in
    /// it.
    pub fn put(&mut self, path: Vec<u8>, node: T) {
        for parent in parents(&path) {
            if !self.0.get(parent).is_some_and(Inode::is_directory) {
                self.0.insert(parent.to_vec(), T::implied());
            }
        }
        self.set(path, node);
    }

    /// As [`Self::put`], but leaves the folders on the way alone.
    pub fn set(&mut self, path: Vec<u8>, node: T) {
        if !node.is_directory() {
            self.empty(&path);
        }
        self.0.insert(path, node);
    }

    /// Removes what is at `path`, and below it.
    pub fn hide(&mut self, path: &[u8]) {
        self.0.remove(path);
        self.empty(path);
    }

    /// Removes what is below `path`.
    pub fn empty(&mut self, path: &[u8]) {
        if path.is_empty() {
            return self.0.clear();
        }
        let first = join(path, b"");
        // Nothing else is between what begins with the first, and this.
        let last = [path, b"0"].concat();
        let below: Vec<Vec<u8>> = self.0.range(first..last).map(|(path, _)| path.clone()).collect();
        for path in below {
            self.0.remove(&path);
        }
    }

    /// Lays a layer on top: what it removes is what other layers have.
    pub fn apply<U>(&mut self, changes: Changes<U>, mut convert: impl FnMut(U) -> T) -> Removed {
        let removed = Removed { hidden: changes.hidden, emptied: changes.emptied };
        for path in &removed.hidden {
            self.hide(path);
        }
        for path in &removed.emptied {
            self.empty(path);
        }
        for (path, node) in changes.added.0 {
            self.put(path, convert(node));
        }
        removed
    }
}

/// What a layer removes of others.
#[derive(Clone, Debug, Default)]
pub struct Removed {
    /// The paths that it removes.
    pub hidden: Vec<Vec<u8>>,
    /// The folders from which it removes all.
    pub emptied: Vec<Vec<u8>>,
}

/// Whether `path` is `ancestor`, or below it; all is below the root, which is
/// empty.
#[must_use]
pub fn is_within(path: &[u8], ancestor: &[u8]) -> bool {
    ancestor.is_empty() || path.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// The folders on the way to `path`, the outermost first.
pub fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at])
}

/// A path's folder, empty for the root, and its name there.
#[must_use]
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// The path of `name` in `folder`.
#[must_use]
pub fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Simple {
        Folder,
        File(u8),
    }

    impl Inode for Simple {
        fn is_directory(&self) -> bool {
            *self == Self::Folder
        }
        fn implied() -> Self {
            Self::Folder
        }
    }

    use Simple::{File, Folder};

    /// A layer of these names, in this order; a name that ends in `/` is a folder.
    fn layer(number: u8, names: &[&str]) -> Changes<Simple> {
        let mut changes = Changes::default();
        for name in names {
            let path = name.trim_end_matches('/').as_bytes().to_vec();
            match change(&path).expect("valid") {
                Change::Add => changes.added.set(path, if name.ends_with('/') { Folder } else { File(number) }),
                Change::Hide(path) => changes.hidden.push(path),
                Change::Empty(path) => changes.emptied.push(path),
                Change::None => {}
            }
        }
        changes
    }

    fn merged(layers: &[&[&str]]) -> Vec<String> {
        let mut overlay = Overlay::default();
        for (names, number) in layers.iter().zip(0..) {
            overlay.apply(layer(number, names), |node| node);
        }
        let text = |(path, node): (&Vec<u8>, &Simple)| {
            let path = String::from_utf8_lossy(path);
            match node {
                Folder => format!("{path}/"),
                File(number) => format!("{path}={number}"),
            }
        };
        overlay.iter().map(text).collect()
    }

    #[test]
    fn whiteouts_hide_what_lower_layers_have_wherever_they_stand() {
        assert_eq!(merged(&[&["a/", "a/b", "a/c", "a-b"], &["a/.wh.b"]]), ["a/", "a-b=0", "a/c=0"]);
        assert_eq!(merged(&[&["a/", "a/b", "a0"], &["a/new", ".wh.a"]]), ["a/", "a/new=1", "a0=0"]);
        assert_eq!(merged(&[&["a/b/c", "a/d"], &["a/e", "a/.wh..wh..opq"]]), ["a/", "a/e=1"]);
        assert_eq!(merged(&[&["a", "b/c"], &[".wh..wh..opq", "d"]]), ["d=1"]);
        assert_eq!(merged(&[&["a"], &[".wh.a", "a"]]), ["a=1"]);
        // What the same layer hides is not hidden from layers above.
        assert_eq!(merged(&[&["a"], &[".wh.a"], &["a"]]), ["a=2"]);
    }

    #[test]
    fn whatever_is_laid_over_something_takes_its_place() {
        assert_eq!(merged(&[&["a/", "a/b", "a/b/c"], &["a"]]), ["a=1"]);
        assert_eq!(merged(&[&["a"], &["a/b"]]), ["a/", "a/b=1"]);
        assert_eq!(merged(&[&["a/b"], &["a/"]]), ["a/", "a/b=0"]);
        // In one layer too, the later entry counts.
        assert_eq!(merged(&[&["a/", "a/b", "a"]]), ["a=0"]);
    }

    #[test]
    fn names_that_hide_nothing_mean_nothing_or_are_refused() {
        for name in [".wh.", "a/.wh..", ".wh..."] {
            assert_eq!(change(name.as_bytes()), None, "{name}");
        }
        for name in [".wh..wh.plnk", ".wh..wh.plnk/1.2", "a/.wh..wh.aufs"] {
            assert_eq!(change(name.as_bytes()), Some(Change::None), "{name}");
        }
        assert_eq!(change(b"a/.wh.b"), Some(Change::Hide(b"a/b".to_vec())));
        assert_eq!(change(b".wh..wh..opq"), Some(Change::Empty(Vec::new())));
    }

    #[test]
    fn an_obstacle_is_what_is_no_folder_on_the_way() {
        let Changes { added, .. } = layer(0, &["a/", "a/b"]);
        assert_eq!(added.obstacle(b"a/b/c/d"), Some(&b"a/b"[..]));
        assert_eq!(added.obstacle(b"a/b"), None);
        assert_eq!(added.obstacle(b"x/y"), None);
    }
}
