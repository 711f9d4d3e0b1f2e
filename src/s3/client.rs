//! What can be done with a bucket.
//!
//! Source: Amazon S3 API Reference.

mod list;
mod request;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use jiff::Timestamp;
use rusty_s3::{Bucket, Method};
use ureq::Agent;
use ureq::http::header;

use super::credentials::Finder;
use super::error::Complaint;
use super::{Access, Address, S3Error, address};
use crate::registry::origin::Origin;
pub(super) use request::{Answer, Failure, Request, rest, tag};

/// How large a list of at most a thousand objects may be, in bytes.
pub(super) const MAX_LIST: u64 = 16 << 20;

/// A bucket. Copies are the same one.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    address: Address,
    access: Access,
    bucket: Bucket,
    server: String,
    origin: Origin,
    finder: Finder,
    agent: OnceLock<Agent>,
    has_answered: AtomicBool,
    /// Whether the server knows no conditions.
    is_unconditional: AtomicBool,
}

/// When something may be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// In any case.
    Always,
    /// Where there is nothing yet.
    New,
    /// Where there is what has that tag.
    Is(String),
}

/// Whether something was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It was.
    Done,
    /// Somebody else was faster, and the condition does not hold.
    Conflict,
}

/// What was found of an object.
#[derive(Clone, Debug)]
pub enum Fetched {
    /// There is none.
    Absent,
    /// It is larger than it may be.
    TooLarge,
    /// It is there.
    Object(Object),
}

/// What an object holds.
#[derive(Clone, Debug)]
pub struct Object {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The tag of this version.
    pub tag: Option<String>,
}

/// An object in a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The key.
    pub key: String,
    /// How large it is, in bytes; `None` for a prefix of keys, which ends in `/`.
    pub size: Option<u64>,
    /// When it was written.
    pub modified: SystemTime,
}

impl Client {
    /// The bucket at `address`. Nobody is asked yet.
    ///
    /// # Errors
    /// When the address is none, or the region that it does not name.
    pub fn new(address: &Address, access: &Access) -> Result<Self, S3Error> {
        let region = match &address.region {
            Some(region) => Some(region.clone()),
            None => access.sources.region(address.profile.as_deref())?,
        };
        let region = region.unwrap_or_else(|| address::USUAL_REGION.to_owned());
        let server = address.server(&region);
        let error = |problem: String| S3Error::Address { text: address.to_string(), problem };
        let origin = Origin::of(&server).ok_or_else(|| error("its endpoint is no host".to_owned()))?;
        let endpoint = server.parse().map_err(|problem| error(format!("its endpoint is no host: {problem}")))?;
        let bucket = Bucket::new(endpoint, address.style(), address.bucket.clone(), region.clone());
        let bucket = bucket.map_err(|problem| error(problem.to_string()))?;
        Ok(Self(Arc::new(Inner {
            finder: Finder::new(access.clone(), address, &region),
            address: address.clone(),
            access: access.clone(),
            bucket,
            server,
            origin,
            agent: OnceLock::new(),
            has_answered: AtomicBool::new(false),
            is_unconditional: AtomicBool::new(false),
        })))
    }

    /// Where the bucket is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// The region that is asked.
    #[must_use]
    pub fn region(&self) -> &str {
        self.0.bucket.region()
    }

    /// What the object `key` holds, if that is at most `limit` bytes.
    ///
    /// # Errors
    /// When that can't be found out.
    pub fn get(&self, key: &str, limit: u64) -> Result<Fetched, S3Error> {
        let request = Request::new(Method::Get, key, format!("read {key}"));
        self.persist(|| {
            let mut answer = self.attempt(&request)?;
            let length = answer.body().content_length();
            if answer.status() == 404 {
                return Ok(Fetched::Absent);
            }
            if length.is_some_and(|length| length > limit) {
                return Ok(Fetched::TooLarge);
            }
            let tag = tag(&answer);
            let bytes = answer.body_mut().with_config().limit(limit.saturating_add(1)).read_to_vec();
            let bytes = bytes.map_err(|error| self.failure(&error, &request.action))?;
            if length.is_some_and(|length| length != bytes.len() as u64) {
                return Err(Failure::Passing(self.failed(&request.action, "the answer was cut off"), None));
            }
            Ok(if bytes.len() as u64 > limit { Fetched::TooLarge } else { Fetched::Object(Object { bytes, tag }) })
        })
    }

    /// How large the object `key` is, and when it was written; `None` where there is none.
    ///
    /// # Errors
    /// When that can't be found out.
    pub fn head(&self, key: &str) -> Result<Option<Listed>, S3Error> {
        let answer = self.send(&Request::new(Method::Head, key, format!("look for {key}")))?;
        if answer.status() == 404 {
            return Ok(None);
        }
        let text = |name| answer.headers().get(name)?.to_str().ok();
        let size = text(header::CONTENT_LENGTH).and_then(|text| text.parse().ok()).unwrap_or(0);
        let modified = text(header::LAST_MODIFIED).and_then(|text| httpdate::parse_http_date(text).ok());
        // As in a list: nothing goes for want of a time.
        let modified = modified.unwrap_or_else(SystemTime::now);
        Ok(Some(Listed { key: key.to_owned(), size: Some(size), modified }))
    }

    /// Writes the object `key`, if `condition` holds.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn put(&self, key: &str, bytes: &[u8], condition: &Condition) -> Result<Written, S3Error> {
        let header = match condition {
            Condition::Always => None,
            Condition::New => Some(("if-none-match", "*".to_owned())),
            Condition::Is(tag) => Some(("if-match", tag.clone())),
        };
        let headers: Vec<_> = header.filter(|_| !self.0.is_unconditional.load(Ordering::Relaxed)).into_iter().collect();
        let action = format!("write {key}");
        let request = Request { headers: &headers, body: Some(bytes), ..Request::new(Method::Put, key, action) };
        let answer = self.send(&request)?;
        match answer.status().as_u16() {
            // What an object was that is gone by now.
            404 | 409 | 412 if !headers.is_empty() => Ok(Written::Conflict),
            // Then the last one wins, and all that anybody writes there is right.
            501 if !headers.is_empty() => {
                tracing::debug!("{} knows no conditions", self.0.server);
                self.0.is_unconditional.store(true, Ordering::Relaxed);
                self.put(key, bytes, &Condition::Always)
            }
            status @ 400.. => Err(self.error(&Complaint::read(status, &rest(answer)), &request.action)),
            _ => Ok(Written::Done),
        }
    }

    /// Makes `to` a copy of the object `from`; `false` where there is none.
    ///
    /// # Errors
    /// When it can't be copied.
    pub fn copy(&self, from: &str, to: &str) -> Result<bool, S3Error> {
        // The source is written as in a URL.
        let object = self.0.bucket.object_url(from);
        let base = self.0.bucket.base_url().path();
        let path = object.path().strip_prefix(base).unwrap_or_else(|| object.path()).trim_start_matches('/');
        let source = format!("/{}/{path}", self.0.bucket.name());
        let headers = [("x-amz-copy-source", source)];
        let action = format!("copy {from} to {to}");
        let request = Request { headers: &headers, ..Request::new(Method::Put, to, action) };
        let (status, _) = self.send_whole(&request)?;
        Ok(status != 404)
    }

    /// Deletes the object `key`; one that is gone is no error.
    ///
    /// # Errors
    /// When it can't be deleted.
    pub fn delete(&self, key: &str) -> Result<(), S3Error> {
        self.send(&deletion(key)).map(drop)
    }

    /// Deletes the object `key` if it `may_go`, and tells whether that is done. It is looked at
    /// before each attempt: while a server is busy, somebody may write it anew.
    ///
    /// # Errors
    /// When it can't be deleted.
    pub fn delete_if(&self, key: &str, may_go: impl Fn(&Listed) -> bool) -> Result<bool, S3Error> {
        let mut is_tried = false;
        self.persist(|| match self.head(key).map_err(Failure::Final)? {
            // An earlier attempt has done it, and its answer was lost.
            None => Ok(is_tried),
            Some(object) if !may_go(&object) => Ok(false),
            Some(_) => {
                is_tried = true;
                self.attempt(&deletion(key)).map(|_| true)
            }
        })
    }
}

fn deletion(key: &str) -> Request<'_> {
    Request::new(Method::Delete, key, format!("delete {key}"))
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Client").field(&self.0.address).finish()
    }
}

/// A time as in `2026-11-21T20:00:00.000Z`; what is none counts as new, so that nothing goes
/// for it.
pub(super) fn time(text: Option<&str>) -> SystemTime {
    let parsed = text.and_then(|text| text.parse::<Timestamp>().ok());
    parsed.map_or_else(SystemTime::now, SystemTime::from)
}
