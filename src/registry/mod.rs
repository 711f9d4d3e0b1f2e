//! Registries: images over HTTP, without a daemon and without a tarball.
//!
//! A client of our own: `oci-client` 0.18 retries nothing, asks no right on the
//! repository that a blob is mounted from, sends a request for each piece of a
//! stream, and needs tokio and a hundred crates more (`ureq`: 33).

pub mod agent;
pub mod challenge;
pub mod connection;
pub mod credentials;
pub mod error;
pub mod name;
pub mod origin;
pub mod proxy;
pub mod repository;
#[cfg(test)]
pub(crate) mod tests;
pub mod trust;
pub mod upload;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use connection::{Access, Connection};
use credentials::Sources;
pub use error::RegistryError;
pub use name::{RegistryImage, RepositoryName};
pub use repository::Repository;

use crate::daemon::DaemonAddress;

/// How to reach registries, and as whom.
#[derive(Default)]
pub struct Registries {
    credentials: Sources,
    access: Access,
    /// Where the Docker daemon listens.
    pub daemon: DaemonAddress,
    open: Mutex<BTreeMap<RepositoryName, Repository>>,
}

impl Registries {
    /// Credentials come from `credentials`; registries are reached as `access` says.
    #[must_use]
    pub fn new(credentials: Sources, access: Access, daemon: DaemonAddress) -> Self {
        Self { credentials, access, daemon, open: Mutex::default() }
    }

    /// The repository `name`; each is opened once.
    ///
    /// # Errors
    /// When the credentials for it can't be read.
    pub fn repository(&self, name: &RepositoryName) -> Result<Repository, RegistryError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(repository) = open.get(name) {
            return Ok(repository.clone());
        }
        let credentials = self.credentials.find(name)?;
        let plain_http = self.access.plain_http.contains(&name.registry);
        let connection = Connection::new(name.host(), plain_http, self.access.clone(), credentials);
        let repository = Repository::new(name.clone(), Arc::new(connection));
        open.insert(name.clone(), repository.clone());
        Ok(repository)
    }
}
