//! The files that an image is saved in: of a folder, or of an archive, perhaps
//! compressed as a whole.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::ParentError;
use super::blob::{Blob, BlobReader, Spool, SpoolError};
use super::compression::{Bounded, Compression};
use super::overlay;
use super::tar::{Input, Kind, TarReader};
use crate::fs::MAX_LINKS;
use crate::image::manifest::{
    DOCKER_CONFIG, DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST,
};
use crate::registry::Repository;
use crate::registry::repository::FoundManifest;

/// How many files an archive may have.
const MAX_FILES: usize = 100_000;

/// Files by their names.
pub enum Files {
    /// Those of a folder.
    Folder(PathBuf),
    /// The blobs of a repository of a registry, and the manifest that was asked for.
    Registry(Repository, FoundManifest),
    /// Those of an archive.
    Archive(HashMap<Vec<u8>, Archived>),
}

/// What an archive has by some name.
pub enum Archived {
    /// A file.
    File(Blob),
    /// Another name for the file with this one. `docker save` of old versions
    /// writes a layer that is there twice so.
    Link(Vec<u8>),
}

impl Input for BlobReader {
    fn skip(&mut self, length: u64) -> std::io::Result<()> {
        Self::skip(self, length)
    }
}

impl Files {
    /// Finds the files of the archive at `path`, which `name` names; `-` is standard
    /// input.
    ///
    /// # Errors
    /// When it is no tar, or can't be read.
    pub fn open_archive(path: &Path, name: &str) -> Result<Self, ParentError> {
        if path == Path::new("-") {
            return Self::read_archive(std::io::stdin().lock(), path, name);
        }
        Self::of_archive(Blob::open(path)?, path, name)
    }

    /// Finds the files of an archive that can be read but once, and is called `path` in
    /// messages.
    ///
    /// # Errors
    /// When it is no tar, or can't be read.
    pub fn read_archive(reader: impl std::io::Read, path: &Path, name: &str) -> Result<Self, ParentError> {
        let kept = Spool::new().map_err(ParentError::Temporary)?.keep(reader);
        Self::of_archive(kept.map_err(|error| error.of(path))?, path, name)
    }

    fn of_archive(blob: Blob, path: &Path, name: &str) -> Result<Self, ParentError> {
        let problem = |problem: String| ParentError::NoImage { name: name.to_owned(), problem };
        let compression = Compression::of(&blob.magic().map_err(|source| read_error(path, source))?);
        let blob = if compression == Compression::None {
            blob
        } else {
            let reader = compression.reader(blob.buffered()).map_err(|source| read_error(path, source))?;
            let mut spool = Spool::new().map_err(ParentError::Temporary)?;
            spool.keep(Bounded::new(reader, blob.size())).map_err(|error| match error {
                SpoolError::Read(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    problem("is cut off; save the image again".to_owned())
                }
                SpoolError::Read(error) => problem(format!("can't be decompressed: {error}")),
                SpoolError::Write(error) => ParentError::Temporary(error),
            })?
        };
        Self::index(&blob).map_err(|error| problem(format!("is no archive of an image, or cut off: {error}")))
    }

    /// Finds the files of an archive.
    fn index(blob: &Blob) -> Result<Self, super::tar::TarError> {
        let mut files = HashMap::new();
        let mut tar = TarReader::new(blob.reader());
        while let Some(entry) = tar.entry()? {
            if files.len() >= MAX_FILES {
                return Err(super::tar::TarError::Refused(format!("it has more than {MAX_FILES} files")));
            }
            let found = match entry.kind {
                Kind::Regular => Archived::File(blob.part(tar.position(), entry.size)),
                Kind::HardLink(target) => Archived::Link(target),
                Kind::Symlink(target) => match resolve(&entry.path, &target) {
                    Some(target) => Archived::Link(target),
                    None => continue,
                },
                _ => continue,
            };
            files.insert(entry.path, found);
        }
        Ok(Self::Archive(files))
    }

    /// The file `name`, if it is there.
    ///
    /// # Errors
    /// When it is there, and can't be read.
    pub fn get(&self, name: &str) -> Result<Option<Blob>, ParentError> {
        match self {
            // A registry has blobs only.
            Self::Registry(..) => Ok(None),
            Self::Folder(folder) => match Blob::open(&folder.join(name)) {
                Err(ParentError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
                other => other.map(Some),
            },
            Self::Archive(files) => {
                let mut name = name.trim_start_matches("./").as_bytes();
                for _ in 0..MAX_LINKS {
                    match files.get(name) {
                        Some(Archived::Link(target)) => name = target,
                        Some(Archived::File(blob)) => return Ok(Some(blob.clone())),
                        None => return Ok(None),
                    }
                }
                Ok(None)
            }
        }
    }
}

impl Files {
    /// The blob that `descriptor` describes, if it is there.
    ///
    /// # Errors
    /// When it is there, and can't be read.
    pub fn blob(&self, descriptor: &Descriptor) -> Result<Option<Blob>, ParentError> {
        let Self::Registry(repository, manifest) = self else {
            return self.get(&format!("blobs/sha256/{}", descriptor.digest.to_hex()));
        };
        let Descriptor { media_type, digest, size } = descriptor;
        if *digest == manifest.digest {
            return in_memory(&manifest.bytes).map(Some);
        }
        if [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX].contains(&media_type.as_str()) {
            return in_memory(&repository.get_manifest(&digest.to_string())?.bytes).map(Some);
        }
        if [OCI_CONFIG, DOCKER_CONFIG].contains(&media_type.as_str()) {
            return in_memory(&repository.get_blob(digest)?).map(Some);
        }
        let (from, digest, size) = (repository.clone(), *digest, *size);
        let open = move || -> std::io::Result<Box<dyn std::io::Read + Send>> {
            Ok(Box::new(from.open_blob(&digest, size).map_err(std::io::Error::other)?))
        };
        Ok(Some(Blob::remote(std::sync::Arc::new(open), repository.name().clone(), digest, size)))
    }
}

/// A blob of these bytes.
fn in_memory(bytes: &[u8]) -> Result<Blob, ParentError> {
    let kept = Spool::new().map_err(ParentError::Temporary)?.keep(bytes);
    kept.map_err(|error| error.of(Path::new("a manifest")))
}

impl SpoolError {
    /// The error, of reading `path`.
    fn of(self, path: &Path) -> ParentError {
        match self {
            Self::Read(source) => read_error(path, source),
            Self::Write(source) => ParentError::Temporary(source),
        }
    }
}

fn read_error(path: &Path, source: std::io::Error) -> ParentError {
    ParentError::Read { path: path.to_owned(), source }
}

/// Where the link `path` with that target leads, within the archive.
fn resolve(path: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    let mut folder = if target.starts_with(b"/") { Vec::new() } else { overlay::split(path).0.to_vec() };
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if folder.is_empty() => return None,
            b".." => folder.truncate(overlay::split(&folder).0.len()),
            part => folder = overlay::join(&folder, part),
        }
    }
    Some(folder)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::parent::tar::tests::header;

    #[test]
    fn links_in_archives_lead_to_their_files() {
        let mut tar = Vec::new();
        tar.extend(header(b"./one/layer.tar", b'0', 3, b""));
        tar.extend(b"abc");
        tar.resize(1024, 0);
        tar.extend(header(b"two/layer.tar", b'2', 0, b"../one/layer.tar"));
        tar.extend(header(b"three/layer.tar", b'1', 0, b"two/layer.tar"));
        tar.extend(header(b"loop", b'2', 0, b"loop"));
        tar.extend(header(b"out", b'2', 0, b"../../etc/passwd"));
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &tar).expect("writable");
        let files = Files::open_archive(file.path(), "x").expect("a tar");
        for name in ["one/layer.tar", "./two/layer.tar", "three/layer.tar"] {
            let mut text = String::new();
            let blob = files.get(name).expect("readable").expect("there");
            blob.reader().read_to_string(&mut text).expect("readable");
            assert_eq!(text, "abc", "{name}");
        }
        for name in ["loop", "out", "../etc/passwd"] {
            assert!(files.get(name).expect("readable").is_none(), "{name}");
        }
    }

    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o644)).expect("made");
        for path in [pipe.as_path(), Path::new("/dev/zero"), folder.path()] {
            let error = Files::open_archive(path, "x").map(|_| ()).expect_err("not regular");
            assert!(matches!(error, ParentError::NotRegular(_)), "{error}");
        }
    }
}
