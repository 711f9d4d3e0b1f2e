//! The file of an archive: a tar that appears once it is complete, or standard
//! output.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use super::DestinationError;
use crate::fs::PartialFile;
use crate::layer::Owner;
use crate::layer::tar::{self, BLOCK, Header, Kind};

/// A tar that is being written.
pub struct ArchiveFile {
    path: PathBuf,
    out: Output,
}

enum Output {
    Standard(File),
    File(PartialFile),
}

impl ArchiveFile {
    /// Begins an archive at `path`, where it appears once it is complete; `-` is
    /// standard output.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub fn create(path: &Path) -> Result<Self, DestinationError> {
        let out = if path == Path::new("-") {
            if io::stdout().is_terminal() {
                return Err(DestinationError::Terminal);
            }
            // Not through std's buffer, which looks for line feeds in it all.
            let stdout = rustix::io::dup(rustix::stdio::stdout())
                .map_err(|errno| DestinationError::write(path)(errno.into()))?;
            Output::Standard(File::from(stdout))
        } else {
            if path.is_dir() {
                return Err(DestinationError::Foreign {
                    path: path.to_owned(),
                    problem: "is a folder; name a file for the archive".to_owned(),
                });
            }
            if let Some(file) = crate::fs::open_special(path).map_err(DestinationError::write(path))? {
                return Ok(Self { path: path.to_owned(), out: Output::Standard(file) });
            }
            let folder = crate::fs::folder_of(path);
            Output::File(PartialFile::create(folder).map_err(DestinationError::write(path))?)
        };
        Ok(Self { path: path.to_owned(), out })
    }

    /// Writes an archive to `file`, which is called `path` in messages.
    #[must_use]
    pub fn of_file(file: File, path: &Path) -> Self {
        Self { path: path.to_owned(), out: Output::Standard(file) }
    }

    /// Where it is to be.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a small file.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> Result<(), DestinationError> {
        let mut entry = header(name, bytes.len() as u64);
        entry.extend(bytes);
        tar::pad(&mut entry);
        self.out.write_all(&entry).map_err(DestinationError::write(&self.path))
    }

    /// Begins a file of `size` bytes, which are written next.
    ///
    /// # Errors
    /// When it can't be begun.
    pub fn begin(&mut self, name: &str, size: u64) -> io::Result<()> {
        self.out.write_all(&header(name, size))
    }

    /// Ends a file of `size` bytes.
    ///
    /// # Errors
    /// When it can't be ended.
    pub fn end(&mut self, size: u64) -> io::Result<()> {
        self.out.write_all(&tar::END[..tar::padding(size) as usize])
    }

    /// Ends the archive, and gives it its name.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn finish(&mut self) -> Result<(), DestinationError> {
        self.out.write_all(&tar::END).and_then(|()| self.out.flush()).map_err(DestinationError::write(&self.path))?;
        let nothing = File::open("/dev/null").map_err(DestinationError::read(Path::new("/dev/null")))?;
        match std::mem::replace(&mut self.out, Output::Standard(nothing)) {
            Output::Standard(_) => Ok(()),
            Output::File(file) => file.persist(&self.path).map_err(DestinationError::write(&self.path)),
        }
    }
}

impl Write for ArchiveFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Standard(file) => file.write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Standard(file) => file.flush(),
            Self::File(file) => file.flush(),
        }
    }
}

fn header(name: &str, size: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BLOCK);
    Header {
        path: name.as_bytes(),
        kind: Kind::Regular(size),
        mode: 0o444,
        owner: &Owner::default(),
        mtime: 1,
        capability: b"",
    }
    .write(&mut bytes);
    bytes
}
