//! A repository of a registry: its manifests and blobs.
//!
//! Source: OCI distribution-spec 1.1, "Pull" and "Push".

use std::io::Read;
use std::sync::Arc;

use ureq::Body;
use ureq::http::{Method, header};

use super::connection::{Connection, Failure, Request, drain, pause};
use super::error::RegistryError;
use super::name::RepositoryName;
use crate::digest::Digest;
use crate::image::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};

/// How large a manifest or config may be, in bytes; registries take 4 MiB.
const MAX_JSON: u64 = 16 << 20;

/// How often the reading of a blob goes on after a break without any progress, and how many
/// bytes are progress.
const RESUMES: u32 = 5;
const PROGRESS: u64 = 64 << 10;

/// A repository that is asked.
#[derive(Clone)]
pub struct Repository {
    name: RepositoryName,
    connection: Arc<Connection>,
}

/// A manifest, or an index of some.
pub struct FoundManifest {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Their digest.
    pub digest: Digest,
    /// What the registry says that it is.
    pub media_type: String,
}

impl Repository {
    /// The repository `name`, by `connection`.
    #[must_use]
    pub fn new(name: RepositoryName, connection: Arc<Connection>) -> Self {
        Self { name, connection }
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &RepositoryName {
        &self.name
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The path of something in the repository.
    pub(super) fn path(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.name.repository)
    }

    pub(super) fn pull(&self) -> [String; 1] {
        [format!("repository:{}:pull", self.name.repository)]
    }

    pub(super) fn push(&self) -> [String; 1] {
        [format!("repository:{}:pull,push", self.name.repository)]
    }

    /// The digest of the manifest that `reference` names, a tag or a digest, if it is there.
    /// One request; to push is what the answer is for.
    ///
    /// # Errors
    /// When the registry does not say.
    pub fn manifest_digest(&self, reference: &str) -> Result<Option<Digest>, RegistryError> {
        let action = format!("look for the manifest {reference} of {}", self.name);
        let accept = accept();
        let (url, scopes) = (self.path(&format!("manifests/{reference}")), &self.push()[..]);
        let request =
            Request { method: Method::HEAD, url: &url, headers: &accept, body: None, scopes, action: &action };
        let answer = self.connection.ask(&request)?;
        let digest = answer.headers().get("docker-content-digest");
        let digest = digest.and_then(|value| Digest::parse(value.to_str().ok()?).ok());
        Ok(digest.filter(|_| answer.status() == 200))
    }

    /// The manifest that `reference` names.
    ///
    /// # Errors
    /// When it can't be had, or is not what its digest says.
    pub fn get_manifest(&self, reference: &str) -> Result<FoundManifest, RegistryError> {
        let action = format!("read the manifest {reference} of {}", self.name);
        let accept = accept();
        let (url, scopes) = (self.path(&format!("manifests/{reference}")), &self.pull()[..]);
        let request = Request { method: Method::GET, url: &url, headers: &accept, body: None, scopes, action: &action };
        let (media_type, bytes) = self.read(&request)?;
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let digest = Digest::of(&bytes);
        match Digest::parse(reference) {
            Ok(expected) if expected != digest => {
                Err(RegistryError::Damaged { at: self.name.clone(), what: format!("the manifest {reference}") })
            }
            _ => Ok(FoundManifest { bytes, digest, media_type }),
        }
    }

    /// What is there in small, and its media type; once more where the connection breaks.
    fn read(&self, request: &Request<'_>) -> Result<(String, Vec<u8>), RegistryError> {
        self.connection.persist(request.action, || {
            let mut answer = self.connection.ask_once(request)?;
            if answer.status() != 200 {
                return Err(Failure::Final(self.connection.refusal(answer, request.action)));
            }
            let media_type = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let media_type = media_type.unwrap_or_default().to_owned();
            match answer.body_mut().with_config().limit(MAX_JSON).read_to_vec() {
                Ok(bytes) => Ok((media_type, bytes)),
                // It will be no smaller.
                Err(ureq::Error::BodyExceedsLimit(_)) => {
                    let problem = format!("it is larger than {} MiB", MAX_JSON >> 20);
                    Err(Failure::Final(self.failed(request.action, &problem)))
                }
                Err(error) => Err(Failure::Passing { problem: error.to_string(), wait: None, complaint: None }),
            }
        })
    }

    /// Puts a manifest under a tag or its digest.
    ///
    /// # Errors
    /// When the registry does not take it.
    pub fn put_manifest(&self, reference: &str, media_type: &str, bytes: &[u8]) -> Result<(), RegistryError> {
        let action = format!("write the manifest {reference} of {}", self.name);
        let url = self.path(&format!("manifests/{reference}"));
        let headers = [("content-type", media_type.to_owned())];
        let (method, scopes) = (Method::PUT, &self.push()[..]);
        let request = Request { method, url: &url, headers: &headers, body: Some(bytes), scopes, action: &action };
        let answer = self.connection.ask(&request)?;
        if answer.status() != 201 && answer.status() != 200 {
            return Err(self.connection.refusal(answer, &action));
        }
        let digest = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        match digest.map(Digest::parse) {
            Some(Ok(digest)) if digest != Digest::of(bytes) => {
                Err(RegistryError::Damaged { at: self.name.clone(), what: format!("the manifest {reference}") })
            }
            _ => {
                drain(answer);
                Ok(())
            }
        }
    }

    /// Whether the blob is there, with that size if the registry tells it.
    ///
    /// # Errors
    /// When the registry does not say.
    pub fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool, RegistryError> {
        let action = format!("look for the blob {digest} of {}", self.name);
        let url = self.path(&format!("blobs/{digest}"));
        let (method, scopes) = (Method::HEAD, &self.push()[..]);
        let request = Request { method, url: &url, headers: &[], body: None, scopes, action: &action };
        let answer = self.connection.ask(&request)?;
        let length = answer.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        match answer.status().as_u16() {
            200 => Ok(length.is_none_or(|length: u64| length == size)),
            404 => Ok(false),
            _ => Err(self.connection.refusal(answer, &action)),
        }
    }

    /// The bytes of a small blob, such as a config.
    ///
    /// # Errors
    /// When it can't be had, or is not what its digest says.
    pub fn get_blob(&self, digest: &Digest) -> Result<Vec<u8>, RegistryError> {
        let action = format!("read the blob {digest} of {}", self.name);
        let (url, scopes) = (self.blob_path(digest), &self.pull()[..]);
        let request = Request { method: Method::GET, url: &url, headers: &[], body: None, scopes, action: &action };
        let (_, bytes) = self.read(&request)?;
        if Digest::of(&bytes) != *digest {
            return Err(RegistryError::Damaged { at: self.name.clone(), what: format!("the blob {digest}") });
        }
        Ok(bytes)
    }

    /// Reads a blob of any size; whoever reads it compares it with its digest. Where the
    /// connection breaks, it goes on where it was.
    ///
    /// # Errors
    /// When it can't be had.
    pub fn open_blob(&self, digest: &Digest, size: u64) -> Result<BlobReader, RegistryError> {
        let mut reader = BlobReader {
            repository: self.clone(),
            digest: *digest,
            size,
            position: 0,
            body: None,
            breaks: 0,
            progress: 0,
        };
        reader.open()?;
        Ok(reader)
    }

    fn blob_path(&self, digest: &Digest) -> String {
        self.path(&format!("blobs/{digest}"))
    }

    fn failed(&self, action: &str, problem: &str) -> RegistryError {
        let (host, action, problem) = (self.connection.host().to_owned(), action.to_owned(), problem.to_owned());
        RegistryError::Failed { host, action, problem }
    }
}

/// The kinds of manifests that are understood.
fn accept() -> [(&'static str, String); 1] {
    [("accept", [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX].join(", "))]
}

/// Reads a blob from its registry.
pub struct BlobReader {
    repository: Repository,
    digest: Digest,
    size: u64,
    position: u64,
    body: Option<Box<dyn Read + Send + Sync>>,
    /// How often it broke off without progress, and where it was when there was some.
    breaks: u32,
    progress: u64,
}

impl BlobReader {
    fn open(&mut self) -> Result<(), RegistryError> {
        let Repository { name, connection } = &self.repository;
        let action = format!("read the blob {} of {name}", self.digest);
        let url = self.repository.blob_path(&self.digest);
        let range = [("range", format!("bytes={}-", self.position))];
        let headers = if self.position == 0 { &[][..] } else { &range };
        let scopes = &self.repository.pull()[..];
        let request = Request { method: Method::GET, url: &url, headers, body: None, scopes, action: &action };
        let answer = connection.ask(&request)?;
        let skip = match answer.status().as_u16() {
            206 => 0,
            // One that knows no ranges begins anew.
            200 => self.position,
            _ => return Err(connection.refusal(answer, &action)),
        };
        let mut body: Box<dyn Read + Send + Sync> = Box::new(reader(answer.into_body(), self.size));
        let skipped = std::io::copy(&mut (&mut body).take(skip), &mut std::io::sink());
        if skipped.is_ok_and(|length| length == skip) {
            self.body = Some(body);
        }
        Ok(())
    }
}

/// One byte more than there should be can be read, so that it is seen.
fn reader(body: Body, size: u64) -> impl Read + Send + Sync {
    body.into_with_config().limit(size.saturating_add(1)).reader()
}

impl Read for BlobReader {
    fn read(&mut self, space: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let problem = match self.body.as_mut().map(|body| body.read(space)) {
                Some(Ok(0)) if self.position < self.size && !space.is_empty() => "the connection was closed".to_owned(),
                Some(Ok(length)) => {
                    self.position += length as u64;
                    return Ok(length);
                }
                Some(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Some(Err(error)) => error.to_string(),
                None => "the connection was closed".to_owned(),
            };
            if self.position - self.progress >= PROGRESS {
                (self.breaks, self.progress) = (0, self.position);
            }
            self.breaks += 1;
            if self.breaks > RESUMES {
                let action = format!("read the blob {} of {}", self.digest, self.repository.name);
                return Err(std::io::Error::other(self.repository.failed(&action, &problem)));
            }
            self.body = None;
            std::thread::sleep(pause(self.breaks));
            self.open().map_err(std::io::Error::other)?;
        }
    }
}
