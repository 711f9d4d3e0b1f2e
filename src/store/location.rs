//! Where a store is: its logical store dir, its files and its database.

use std::path::{Path, PathBuf};

use super::{StoreDir, StorePath};

/// A store on this machine, as Nix's `local?root=…&real=…&state=…` tells it.
#[derive(Clone, Debug)]
pub struct StoreLocation {
    /// The store dir that store paths are printed with, usually `/nix/store`.
    pub store_dir: StoreDir,
    /// The folder where the store paths' files really are.
    pub real_dir: PathBuf,
    /// The folder of Nix's state, usually `/nix/var/nix`.
    pub state_dir: PathBuf,
}

impl StoreLocation {
    /// A store below `root`, or this system's own where there is none.
    ///
    /// With a root, store paths keep the store dir's name, while their files
    /// are at `ROOT/nix/store` and the database is at `ROOT/nix/var/nix`, as
    /// with Nix's `--store ROOT`.
    #[must_use]
    pub fn new(root: Option<&Path>, store_dir: StoreDir, state_dir: &Path) -> Self {
        match root {
            None => Self { real_dir: PathBuf::from(store_dir.as_str()), state_dir: state_dir.to_owned(), store_dir },
            Some(root) => Self {
                real_dir: root.join(store_dir.as_str().trim_start_matches('/')),
                state_dir: root.join("nix/var/nix"),
                store_dir,
            },
        }
    }

    /// The root that it is below, if it is not this system's own.
    #[must_use]
    pub fn root(&self) -> Option<PathBuf> {
        let below = self.store_dir.as_str().trim_start_matches('/');
        let root = self.real_dir.to_str()?.strip_suffix(below)?;
        Some(PathBuf::from(root)).filter(|root| root != Path::new("/"))
    }

    /// `path` with the logical store dir in front, as Nix prints it.
    #[must_use]
    pub fn print(&self, path: &StorePath) -> String {
        self.store_dir.render_path(path)
    }

    /// The SQLite database of the store.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.state_dir.join("db/db.sqlite")
    }
}
