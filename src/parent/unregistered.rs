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
use crate::digest::HashWriter;
use crate::nar::{self, Measured, NarError};
use crate::store::{PathInfo, StoreDir, StorePath};
use crate::tree::{self, Entry, Node, Sink, TreeError};

/// How much memory may be spent on the entries of several store paths, in bytes.
const BATCH: usize = 48 << 20;

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
        let candidates = Candidates::new(self.paths);
        let mut infos = Vec::new();
        let mut rest = unknown;
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(self.batch(rest));
            self.register_batch(batch, &candidates, &mut infos)?;
            rest = later;
        }
        Ok(infos)
    }

    /// How many of the first of `paths` memory holds the entries of: at least one.
    fn batch(&self, paths: &[StorePath]) -> usize {
        let mut left = BATCH;
        let fits = |path: &&StorePath| {
            let path = self.path_of(path);
            let size: usize = self.layers.iter().filter_map(|layer| layer.store.get(&path)).sum();
            left = left.saturating_sub(size);
            left > 0
        };
        paths.iter().take_while(fits).count().max(1)
    }

    /// Registers as many paths as are looked for at once.
    fn register_batch(
        &self,
        paths: &[StorePath],
        candidates: &Candidates<'_>,
        infos: &mut Vec<PathInfo>,
    ) -> Result<(), ParentError> {
        let wanted: BTreeSet<Vec<u8>> = paths.iter().map(|path| self.path_of(path)).collect();
        let has = |layer: &Layer| wanted.iter().any(|path| layer.store.contains_key(path));
        let within: BTreeSet<usize> = (0..self.layers.len()).filter(|number| has(&self.layers[*number])).collect();
        self.check_bytes(paths, &within)?;
        let mut spool = Spool::new().map_err(ParentError::Temporary)?;
        let look = Look { layers: self.layers, within, paths: wanted, max_size: u64::MAX };
        let files = look.find(&mut spool).map_err(|(layer, problem)| self.error(layer, problem))?;
        for path in paths {
            let info = self.measure(path, &files, candidates).map_err(|problem| {
                let last = self.layers.iter().rposition(|layer| layer.store.contains_key(&self.path_of(path)));
                self.error(last.unwrap_or(0), problem)
            })?;
            infos.push(info);
        }
        Ok(())
    }

    /// What is only named can't be looked into.
    fn check_bytes(&self, unknown: &[StorePath], within: &BTreeSet<usize>) -> Result<(), ParentError> {
        let is_named = |layer: &usize| matches!(self.layers[*layer].content, Content::Store { .. });
        let named: Vec<usize> = within.iter().copied().filter(is_named).collect();
        let is_in_named =
            |path: &&StorePath| named.iter().any(|layer| self.layers[*layer].store.contains_key(&self.path_of(path)));
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
        let (measured, scanner): (Measured, _) = nar::write(&tree, &entries, writer)
            .map_err(|error| match error {
                NarError::Tree(error) => LayerProblem::Store(error.to_string()),
                NarError::Write(error) => LayerProblem::Temporary(error),
            })?
            .finish();
        Ok(PathInfo::new(path.clone(), measured.hash, measured.size, scanner.finish()))
    }

    /// Its store dir, without a leading `/`.
    fn store(&self) -> &[u8] {
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::digest::Digest;
    use crate::parent::blob::tests::blob;
    use crate::parent::find::FoundLayer;
    use crate::parent::layers::{self, Unread};
    use crate::store::closure::tests::path;
    use crate::tree::StoreFiles;

    /// Names whose order depends on whether bytes or paths are compared.
    const NAMES: [&str; 6] = ["a", "a.b", "a-b", "b", "a/8", "a/b/c"];

    #[derive(Clone, Debug)]
    enum File {
        Regular(Vec<u8>, bool),
        Link(String),
        HardLink,
        Folder,
    }

    fn any_file() -> impl Strategy<Value = File> {
        let contents = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..600),
            Just(format!("/nix/store/{}-b", "b".repeat(32)).into_bytes()),
            Just(vec![b'a'; 40]),
        ];
        prop_oneof![
            (contents, any::<bool>()).prop_map(|(contents, executable)| File::Regular(contents, executable)),
            // The crate `tar` drops a `/` that is not needed.
            "/?[a-c]{1,3}(/[a-c]{1,3}){0,2}".prop_map(File::Link),
            Just(File::Link(format!("../{}-c", "c".repeat(32)))),
            Just(File::HardLink),
            Just(File::Folder),
        ]
    }

    /// Lays the files out below `root`, and tells which there are: a hard link needs
    /// something to link to.
    fn plant(root: &Path, files: &[(&'static str, File)]) -> Vec<(&'static str, File)> {
        let mut planted: Vec<(&str, File)> = Vec::new();
        std::fs::create_dir_all(root).expect("made");
        for (name, file) in files {
            let at = root.join(name);
            let first = planted.iter().find(|(_, file)| matches!(file, File::Regular(..))).map(|(name, _)| *name);
            if matches!(file, File::HardLink) && first.is_none() {
                continue;
            }
            // What is below a link is elsewhere on disk.
            let leads_through =
                |(other, file): &(&str, File)| matches!(file, File::Link(_)) && name.starts_with(&format!("{other}/"));
            if planted.iter().any(leads_through) {
                continue;
            }
            if std::fs::create_dir_all(at.parent().expect("a folder")).is_err() || at.symlink_metadata().is_ok() {
                continue;
            }
            match file {
                File::Regular(contents, executable) => {
                    std::fs::write(&at, contents).expect("written");
                    let mode = if *executable { 0o755 } else { 0o644 };
                    std::fs::set_permissions(&at, std::fs::Permissions::from_mode(mode)).expect("set");
                }
                File::Link(target) => symlink(target, &at).expect("linked"),
                File::Folder => std::fs::create_dir(&at).expect("made"),
                File::HardLink => {
                    std::fs::hard_link(root.join(first.unwrap_or_default()), &at).expect("linked");
                }
            }
            planted.push((name, file.clone()));
        }
        planted
    }

    /// A tar of these files in reverse order; hard links after what they link to.
    fn tar_of(base: &str, files: &[(&str, File)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let first = files.iter().find(|(_, file)| matches!(file, File::Regular(..))).map(|(name, _)| *name);
        let (links, others): (Vec<_>, Vec<_>) = files.iter().partition(|(_, file)| matches!(file, File::HardLink));
        for (name, file) in others.into_iter().rev().chain(links) {
            let mut header = tar::Header::new_gnu();
            header.set_mode(if matches!(file, File::Regular(_, false)) { 0o644 } else { 0o755 });
            header.set_size(0);
            let name = format!("./nix/store/{base}/{name}");
            match file {
                File::Regular(contents, _) => {
                    header.set_size(contents.len() as u64);
                    builder.append_data(&mut header, name, &contents[..])
                }
                File::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    builder.append_link(&mut header, name, target)
                }
                File::Folder => {
                    header.set_entry_type(tar::EntryType::Directory);
                    builder.append_data(&mut header, name, &[][..])
                }
                File::HardLink => {
                    header.set_entry_type(tar::EntryType::Link);
                    let target = format!("nix/store/{base}/{}", first.unwrap_or_default());
                    builder.append_link(&mut header, name, target)
                }
            }
            .expect("memory");
        }
        builder.into_inner().expect("memory")
    }

    fn register(tars: &[Vec<u8>], unknown: &StorePath) -> PathInfo {
        let store_dir = StoreDir::default();
        let unread = |tar: &Vec<u8>| Unread::Blob(FoundLayer { blob: blob(tar), descriptor: None });
        let diff_ids: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
        let mut spool = Spool::new().expect("a file");
        let (layers, _) = layers::read("x", tars.iter().map(unread).collect(), &diff_ids, &store_dir, &mut spool)
            .map_err(|error| error.to_string())
            .expect("valid");
        let paths = [unknown.clone(), path('b', "b"), path('c', "c")].into();
        let image = Image { name: "x", layers: &layers, store_dir: &store_dir, paths: &paths };
        let mut infos = image.register(std::slice::from_ref(unknown)).expect("valid");
        infos.pop().expect("one")
    }

    proptest! {
        // Each writes a tree to disk.
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn a_tar_in_any_order_gives_the_nar_of_the_tree_on_disk(
            names in Just(NAMES.to_vec()).prop_shuffle(), files in prop::collection::vec(any_file(), 6), cut in 0_usize..7
        ) {
            let store = tempfile::tempdir().expect("a folder");
            let tree = path('d', "tree");
            let base = tree.to_basename();
            let files: Vec<_> = names.into_iter().zip(files).collect();
            let mut planted = plant(&store.path().join(&base), &files);
            planted.push((".", File::Folder));
            // Hard links stay in the layer of what they link to.
            let cut = if planted.iter().any(|(_, file)| matches!(file, File::HardLink)) { 0 } else { cut.min(planted.len()) };
            let (lower, upper) = planted.split_at(cut);
            let info = register(&[tar_of(&base, lower), tar_of(&base, upper)], &tree);

            let on_disk = StoreFiles::open(store.path()).expect("opens");
            let nar = nar::dump(&on_disk, &tree, Vec::new()).expect("dumps");
            prop_assert_eq!(info.nar_size, nar.len() as u64);
            prop_assert_eq!(info.nar_hash.to_hex(), Digest::of(&nar).to_hex());
            let mentions = |path: &StorePath| nar.windows(32).any(|window| window == &path.to_basename().as_bytes()[..32]);
            let mentioned: Vec<StorePath> = [path('b', "b"), path('c', "c"), tree].into_iter().filter(mentions).collect();
            prop_assert_eq!(info.references, mentioned);
        }
    }

    #[test]
    fn what_upper_layers_hide_in_a_store_path_is_hidden() {
        let tree = path('d', "tree");
        let base = tree.to_basename();
        let file = |text: &str| File::Regular(text.as_bytes().to_vec(), false);
        let lower = tar_of(&base, &[("a", file("old")), ("b/c", file("c")), ("d", file("d"))]);
        let upper = tar_of(&base, &[("a", file("new")), (".wh.b", file("")), ("d/.wh..wh..opq", file(""))]);
        let plain = tar_of(&base, &[("a", file("new")), ("d", file("d"))]);
        let (layered, plain) = (register(&[lower, upper], &tree), register(&[plain], &tree));
        assert_eq!(layered.nar_hash, plain.nar_hash);
    }
}
