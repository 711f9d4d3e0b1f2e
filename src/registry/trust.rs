//! Which registries are trusted: the system's authorities, and those that docker
//! and podman were given for a registry.
//!
//! Sources: `containers-certs.d(5)`; Docker's "Verify repository client with
//! certificates".

use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::error::RegistryError;

/// Where certificates are looked for.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Folders with a folder for each registry.
    pub folders: Vec<PathBuf>,
    /// A file with authorities in place of the system's.
    pub authorities: Option<PathBuf>,
}

impl Trust {
    /// What TLS needs to reach `host`.
    ///
    /// # Errors
    /// When a certificate can't be read, or there is none.
    pub fn tls(&self, host: &str) -> Result<TlsConfig, RegistryError> {
        let mut authorities = self.system()?;
        let mut client = None;
        for folder in self.folders.iter().map(|folder| folder.join(host)) {
            for path in files(&folder) {
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("crt") => authorities.extend(certificates(&path)?),
                    Some("cert") => client = Some(client_certificate(&path, &path.with_extension("key"))?),
                    _ => {}
                }
            }
        }
        Ok(TlsConfig::builder().root_certs(RootCerts::from(authorities)).client_cert(client).build())
    }

    fn system(&self) -> Result<Vec<Certificate<'static>>, RegistryError> {
        if let Some(path) = &self.authorities {
            return certificates(path);
        }
        // Those that can't be read are worth no error: another may do.
        let found = rustls_native_certs::load_native_certs().certs;
        Ok(found.iter().map(|certificate| Certificate::from_der(certificate.as_ref()).to_owned()).collect())
    }
}

/// The files of a folder, in order; none, if it is not there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    files
}

fn items(path: &Path) -> Result<Vec<PemItem<'static>>, RegistryError> {
    let error = |problem: String| RegistryError::Settings { path: path.to_owned(), problem };
    let text = std::fs::read(path).map_err(|problem| error(format!("can't be read: {problem}")))?;
    let items: Result<Vec<_>, _> = parse_pem(&text).collect();
    items.map_err(|problem| error(format!("is no PEM: {problem}")))
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, RegistryError> {
    let certificate = |item| if let PemItem::Certificate(certificate) = item { Some(certificate) } else { None };
    Ok(items(path)?.into_iter().filter_map(certificate).collect())
}

/// What TLS needs to reach a Docker daemon, from the folder that `DOCKER_CERT_PATH` names.
///
/// # Errors
/// When something in it can't be read.
pub fn of_docker(folder: &Path) -> Result<TlsConfig, RegistryError> {
    let authorities = RootCerts::from(certificates(&folder.join("ca.pem"))?);
    let client = client_certificate(&folder.join("cert.pem"), &folder.join("key.pem"))?;
    Ok(TlsConfig::builder().root_certs(authorities).client_cert(Some(client)).build())
}

/// The certificate in one file with the key in another.
fn client_certificate(path: &Path, key_path: &Path) -> Result<ClientCert, RegistryError> {
    let key = items(key_path)?.into_iter().find_map(|item| match item {
        PemItem::PrivateKey(key) => Some(key),
        _ => None,
    });
    let missing = || RegistryError::Settings { path: key_path.to_owned(), problem: "has no private key".to_owned() };
    let key: PrivateKey<'static> = key.ok_or_else(missing)?;
    Ok(ClientCert::new_with_certs(&certificates(path)?, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_read_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let host = folder.path().join("r.example:5000");
        std::fs::create_dir(&host).expect("writable");
        let trust = Trust { folders: vec![folder.path().to_owned()], authorities: None };
        trust.tls("other.example").expect("the system's");
        std::fs::write(host.join("client.cert"), "").expect("writable");
        let error = trust.tls("r.example:5000").expect_err("no key").to_string();
        assert!(error.contains("client.key: can't be read"), "{error}");
        let trust = Trust { folders: Vec::new(), authorities: Some(folder.path().join("none.pem")) };
        trust.tls("r.example").expect_err("named, and not there");
    }
}
