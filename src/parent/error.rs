//! Why a parent can't be read.

use std::path::PathBuf;

use super::compression::TooLarge;
use super::tar::TarError;
use crate::daemon::DaemonError;
use crate::destination::DestinationError;
use crate::digest::Digest;
use crate::registry::RegistryError;

/// Why a parent can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ParentError {
    /// A file that can't be read.
    #[error("reading {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A pipe, device or folder where a file belongs: reading it might never end.
    #[error("{0} is no regular file; save the image to a file first")]
    NotRegular(PathBuf),
    /// Something that is no image, or not all of one.
    #[error("{name} {problem}")]
    NoImage {
        /// The reference.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// One image has to be chosen.
    #[error("{name} {problem}; it has: {}", choices.join(", "))]
    Choice {
        /// The reference.
        name: String,
        /// Why none was chosen.
        problem: String,
        /// What there is.
        choices: Vec<String>,
    },
    /// A layer that is not what it should be.
    #[error("layer {number} of {name} ({digest}) {problem}")]
    Layer {
        /// The reference.
        name: String,
        /// The layer's number, counted from 1, the lowest first.
        number: usize,
        /// The digest that the image knows it by.
        digest: Digest,
        /// What is wrong with it.
        problem: Box<LayerProblem>,
    },
    /// An image folder that is none, or incomplete.
    #[error(transparent)]
    Folder(#[from] DestinationError),
    /// A registry that does not give what it should.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A Docker daemon that does not give what it should.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// No space for what has to be looked at twice.
    #[error("writing to the folder for temporary files: {0}; make room there, or name another with TMPDIR")]
    Temporary(#[source] std::io::Error),
    /// Store paths of which nothing is known, and whose files can't be read.
    #[error(
        "{name} has {paths} in layers that are only named, and neither its database nor this machine's store has registrations of them; build it with a database, or copy it to an archive"
    )]
    Unknown {
        /// The reference.
        name: String,
        /// Some of the paths.
        paths: String,
    },
}

/// What is wrong with a layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerProblem {
    /// Its end is missing.
    #[error("is cut off; fetch the image again")]
    Cut,
    /// Damaged, or on a disk that is.
    #[error("can't be read: {0}")]
    Read(#[source] std::io::Error),
    /// Other bytes than the image says.
    #[error("has {what} {found}, and should have {expected}; fetch the image again")]
    Digest {
        /// Which of its digests.
        what: &'static str,
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// A blob of another size than the image says.
    #[error("is {found} bytes long, and should be {expected}; fetch the image again")]
    Size {
        /// What the image says.
        expected: u64,
        /// What there is.
        found: u64,
    },
    /// Something that would fill memory or disk, or take forever.
    #[error("is refused, since {0}")]
    Bomb(String),
    /// A tar that no tool should write, or that tools would unpack differently.
    #[error("is refused: {0}")]
    Tar(String),
    /// A kind of layer that can't be read at all.
    #[error("is of the kind {0:?}, which stowage does not know")]
    Kind(String),
    /// A database that is none, is damaged, or of another schema.
    #[error("has a Nix database that can't be read: {0}")]
    Database(String),
    /// Files of store paths that no NAR can have.
    #[error("has files in the store that no store path can have: {0}")]
    Store(String),
    /// What had to be looked at twice could not be kept.
    #[error("can't be kept in the folder for temporary files: {0}; make room there, or name another with TMPDIR")]
    Temporary(#[source] std::io::Error),
}

impl From<std::io::Error> for LayerProblem {
    fn from(error: std::io::Error) -> Self {
        if error.get_ref().is_some_and(|inner| inner.is::<TooLarge>()) {
            return Self::Bomb(error.to_string());
        }
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Self::Cut,
            _ => Self::Read(error),
        }
    }
}

impl From<TarError> for LayerProblem {
    fn from(error: TarError) -> Self {
        match error {
            TarError::Read(error) => error.into(),
            TarError::Refused(problem) => Self::Tar(problem),
        }
    }
}
