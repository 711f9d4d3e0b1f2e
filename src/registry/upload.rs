//! Uploads of blobs: at once, or in chunks while they are still made.
//!
//! Source: OCI distribution-spec 1.1, "Pushing blobs". What a registry has of a
//! chunk when a connection breaks, it says itself: the upload goes on from there.

use ureq::http::{Method, header};

use super::connection::{Answer, Failure, Request, drain, read_complaint};
use super::error::RegistryError;
use super::name::RepositoryName;
use super::repository::Repository;
use crate::digest::Digest;

/// How often an upload begins anew that the registry has lost.
const RESTARTS: u32 = 3;

/// How often a blob of another repository is asked for while the registry fails.
const MOUNTS: u32 = 3;

/// An upload that has begun.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Where the next bytes go to.
    location: String,
    /// How many bytes the registry has.
    offset: u64,
    /// How many bytes a chunk has to have at the least, but for the last.
    least: u64,
    /// Whether it went on after a break, and may have what nobody meant.
    is_resumed: bool,
}

impl Upload {
    /// How many bytes a chunk has to have at the least, but for the last: the header
    /// `OCI-Chunk-Min-Length`.
    #[must_use]
    pub fn least(&self) -> u64 {
        self.least
    }
}

/// What has become of a wish to have a blob of another repository.
pub enum Mount {
    /// It is there.
    Mounted,
    /// It has to be sent.
    Refused(Upload),
}

impl Repository {
    /// Puts a blob that is in memory.
    ///
    /// # Errors
    /// When the registry does not take it.
    pub fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), RegistryError> {
        for _ in 1..RESTARTS {
            let upload = self.begin_upload()?;
            match self.finish_upload(upload, digest, bytes) {
                Err(RegistryError::Lost { .. }) => {}
                other => return other,
            }
        }
        self.finish_upload(self.begin_upload()?, digest, bytes)
    }

    /// Asks for a blob that the repository `from` of the same registry has.
    ///
    /// # Errors
    /// When the registry says neither yes nor no.
    pub fn mount(&self, digest: &Digest, from: &RepositoryName) -> Result<Mount, RegistryError> {
        let action = format!("take the blob {digest} from {from}");
        let url = self.path(&format!("blobs/uploads/?mount={digest}&from={}", from.repository));
        let [own] = self.push();
        let both = [own, format!("repository:{}:pull", from.repository)];
        let request =
            |scopes| Request { method: Method::POST, url: &url, headers: &[], body: None, scopes, action: &action };
        let mut number = 0;
        let attempt = || {
            number += 1;
            match self.connection().ask_once(&request(&both)) {
                // Some give no token at all where it may not be for both.
                Err(Failure::Final(RegistryError::Denied { .. })) => Ok(None),
                // And some fail at this alone.
                Err(Failure::Passing { complaint: Some(said), .. }) if said.status >= 500 && number >= MOUNTS => {
                    Ok(None)
                }
                other => other.map(Some),
            }
        };
        let Some(answer) = self.connection().persist(&action, attempt)? else {
            return self.begin_upload().map(Mount::Refused);
        };
        match answer.status().as_u16() {
            201 => {
                drain(answer);
                Ok(Mount::Mounted)
            }
            202 => Ok(Mount::Refused(self.begun(answer, &action)?)),
            _ => self.begin_upload().map(Mount::Refused),
        }
    }

    /// Begins an upload.
    ///
    /// # Errors
    /// When the registry does not want any.
    pub fn begin_upload(&self) -> Result<Upload, RegistryError> {
        let action = format!("begin an upload to {}", self.name());
        let (url, scopes) = (self.path("blobs/uploads/"), &self.push()[..]);
        let request =
            Request { method: Method::POST, url: &url, headers: &[], body: Some(&[]), scopes, action: &action };
        let answer = self.connection().ask(&request)?;
        match answer.status().as_u16() {
            202 => self.begun(answer, &action),
            _ => Err(self.connection().refusal(answer, &action)),
        }
    }

    fn begun(&self, answer: Answer, action: &str) -> Result<Upload, RegistryError> {
        let Some(location) = self.connection().location(&answer) else {
            let (host, action) = (self.connection().host().to_owned(), action.to_owned());
            return Err(RegistryError::Failed { host, action, problem: "it says no place for it".to_owned() });
        };
        let least = answer.headers().get("oci-chunk-min-length");
        let least = least.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
        drain(answer);
        Ok(Upload { location, offset: 0, least, is_resumed: false })
    }

    /// Sends the next bytes of an upload.
    ///
    /// # Errors
    /// [`RegistryError::Lost`], when the blob has to be sent from its beginning; or when the
    /// registry does not take it.
    pub fn send_chunk(&self, upload: &mut Upload, chunk: &[u8]) -> Result<(), RegistryError> {
        let action = format!("take a part of a blob for {}", self.name());
        let (begin, end) = (upload.offset, upload.offset + chunk.len() as u64);
        let mut is_first = true;
        self.connection().persist(&action, || {
            if !std::mem::take(&mut is_first) {
                self.find_out(upload, begin, end)?;
            }
            if upload.offset == end {
                return Ok(());
            }
            let rest = usize::try_from(upload.offset - begin).ok().and_then(|sent| chunk.get(sent..));
            let rest = rest.ok_or_else(|| self.lost("it has bytes that nobody has sent"))?;
            let headers = [
                ("content-type", "application/octet-stream".to_owned()),
                ("content-range", format!("{}-{}", upload.offset, end - 1)),
            ];
            let scopes = &self.push()[..];
            let url = upload.location.clone();
            let request = Request {
                method: Method::PATCH,
                url: &url,
                headers: &headers,
                body: Some(rest),
                scopes,
                action: &action,
            };
            let answer = self.connection().ask_once(&request)?;
            match answer.status().as_u16() {
                202 | 201 | 204 => {
                    upload.location = self.connection().location(&answer).unwrap_or_else(|| upload.location.clone());
                    // Not what the answer's `Range` says: some always say the same.
                    upload.offset = end;
                    drain(answer);
                    Ok(())
                }
                _ => Err(self.not_taken(answer, upload, &action)),
            }
        })
    }

    /// Sends the last bytes of an upload, after which it is the blob `digest`.
    ///
    /// # Errors
    /// As [`Self::send_chunk`].
    pub fn finish_upload(&self, mut upload: Upload, digest: &Digest, rest: &[u8]) -> Result<(), RegistryError> {
        let action = format!("take the blob {digest} for {}", self.name());
        let (begin, end) = (upload.offset, upload.offset + rest.len() as u64);
        let mut is_first = true;
        self.connection().persist(&action, || {
            if !std::mem::take(&mut is_first) {
                // It may have been only the answer that was lost.
                if self.has_blob(digest, end).map_err(Failure::Final)? {
                    return Ok(());
                }
                self.find_out(&mut upload, begin, end)?;
            }
            let sent = usize::try_from(upload.offset - begin).ok().and_then(|sent| rest.get(sent..));
            let body = sent.ok_or_else(|| self.lost("it has bytes that nobody has sent"))?;
            let mark = if upload.location.contains('?') { '&' } else { '?' };
            let url = format!("{}{mark}digest={digest}", upload.location);
            let mut headers = vec![("content-type", "application/octet-stream".to_owned())];
            if upload.offset > 0 && !body.is_empty() {
                headers.push(("content-range", format!("{}-{}", upload.offset, end - 1)));
            }
            let scopes = &self.push()[..];
            let request = Request {
                method: Method::PUT,
                url: &url,
                headers: &headers,
                body: Some(body),
                scopes,
                action: &action,
            };
            let answer = self.connection().ask_once(&request)?;
            match answer.status().as_u16() {
                201 | 204 => {
                    drain(answer);
                    Ok(())
                }
                _ => Err(self.not_taken(answer, &upload, &action)),
            }
        })
    }

    /// Asks how much of an upload the registry has, after something went wrong.
    fn find_out(&self, upload: &mut Upload, begin: u64, end: u64) -> Result<(), Failure> {
        let action = format!("continue an upload to {}", self.name());
        let scopes = &self.push()[..];
        let url = upload.location.clone();
        let request = Request { method: Method::GET, url: &url, headers: &[], body: None, scopes, action: &action };
        let answer = match self.connection().ask_once(&request) {
            // Some know no such question, or let nobody ask it.
            Err(Failure::Final(RegistryError::Denied { problem, .. } | RegistryError::Failed { problem, .. })) => {
                return Err(self.lost(&problem));
            }
            other => other?,
        };
        if answer.status() != 204 && answer.status() != 202 {
            return Err(self.lost(&read_complaint(answer).text));
        }
        let range = answer.headers().get(header::RANGE).and_then(|value| value.to_str().ok());
        // `0-0` stands for one byte, and for none: distribution knows no other way to say that.
        let last = range.and_then(|range| range.rsplit_once('-')?.1.parse::<u64>().ok());
        let offset = last.map_or(0, |last| if last == 0 { 0 } else { last + 1 });
        upload.location = self.connection().location(&answer).unwrap_or_else(|| upload.location.clone());
        drain(answer);
        if offset < begin || offset > end {
            return Err(self.lost(&format!("it has {offset} bytes of {begin} to {end}")));
        }
        upload.offset = offset;
        upload.is_resumed = true;
        Ok(())
    }

    /// What it means that a part of an upload was not taken: that it has to begin anew, where
    /// the registry knows nothing of it any more, or has other bytes than it should.
    fn not_taken(&self, answer: Answer, upload: &Upload, action: &str) -> Failure {
        let is_redirect = answer.status().is_redirection();
        let complaint = read_complaint(answer);
        let codes = ["BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "RANGE_INVALID"];
        let is_lost = matches!(complaint.status, 404 | 416)
            || complaint.status == 400 && codes.iter().any(|code| complaint.has_code(code))
            || upload.is_resumed && complaint.has_code("DIGEST_INVALID");
        if is_lost {
            return self.lost(&complaint.text);
        }
        let host = self.connection().host().to_owned();
        Failure::Final(match is_redirect {
            true => {
                let problem = format!("it sends that elsewhere ({})", complaint.text);
                RegistryError::Failed { host, action: action.to_owned(), problem }
            }
            false => self.connection().refused(complaint, action),
        })
    }

    fn lost(&self, problem: &str) -> Failure {
        let (host, problem) = (self.connection().host().to_owned(), problem.to_owned());
        Failure::Final(RegistryError::Lost { host, problem })
    }
}
