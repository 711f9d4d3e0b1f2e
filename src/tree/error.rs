//! Why a store path can't be read.

use std::path::PathBuf;

/// Why a store path can't be read as its registration says.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The database knows it, the disk does not.
    #[error("{0} is registered, but gone from disk; restore it with `nix-store --repair-path {0}`")]
    Gone(PathBuf),
    /// Neither the disk knows it, nor the database: it was collected.
    #[error("{path} is gone, and this store does not know it any more; restore it with `{command}`")]
    Collected {
        /// The path.
        path: PathBuf,
        /// The command that brings it back.
        command: String,
    },
    /// Store paths never change; one that does would give a wrong layer.
    #[error(
        "{path} changed while it was read: it was {expected} bytes long, and is {found} now; check its store path with `nix-store --verify-path`"
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// The size that the walk found, in bytes.
        expected: u64,
        /// What it is now: a size, or "longer".
        found: String,
    },
    /// Somebody works in a source tree; what was hashed of it must be what goes into an image.
    #[error(
        "the source tree {tree} changed while it was read: {path} is not what it was; try again when nobody writes there"
    )]
    TreeChanged {
        /// The tree.
        tree: PathBuf,
        /// What is not what it was.
        path: PathBuf,
    },
    /// A device, socket or pipe, which no NAR can have.
    #[error("{0} is neither a file, nor a folder, nor a symbolic link; no store path may have such a file")]
    Special(PathBuf),
    /// A container would not have it, and perhaps not what is called like it without that beginning.
    #[error(
        "{0} has a name by which layers hide what is below them, so no image can have it; call it otherwise, or leave it out of its store path"
    )]
    Hiding(String),
    /// Anything else that the system says.
    #[error("reading {path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}
