//! Asks a bucket, until there is an answer.
//!
//! Source: Amazon S3 API Reference.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Bucket, Method};
use ureq::http::{Response, header};
use ureq::{Agent, Body};

use super::credentials::{Finder, Found};
use super::error::{Complaint, Context};
use super::{Access, Address, S3Error, address};
use crate::registry::agent::{self, Patience};
use crate::registry::connection::pause;
use crate::registry::origin::Origin;

/// How often something is asked before it counts as failed.
const ATTEMPTS: u32 = 8;

/// How often to try whether anybody is there at all.
const FIRST_ATTEMPTS: u32 = 3;

/// How long to wait. A server that merges the parts of a large object may be silent for long.
const PATIENCE: Patience = Patience { connect: Duration::from_secs(15), silence: Duration::from_secs(120) };

/// The longest wait that a server can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// For how long a signature is good.
const SIGNED_FOR: Duration = Duration::from_secs(15 * 60);

/// How much of an answer is read that is only about what went wrong, in bytes.
const MAX_COMPLAINT: u64 = 64 << 10;

/// How large a list of at most a thousand objects may be, in bytes.
pub(super) const MAX_LIST: u64 = 16 << 20;

/// An answer of a status that the caller knows what to do with.
pub(super) type Answer = Response<Body>;

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

/// A request for an object, or for the bucket itself.
pub(super) struct Request<'a> {
    pub method: Method,
    pub key: Option<&'a str>,
    /// Sorted by name.
    pub query: &'a [(&'a str, &'a str)],
    pub headers: &'a [(&'static str, String)],
    pub body: Option<&'a [u8]>,
    /// What it is for, for messages: `write x.narinfo`.
    pub action: String,
}

/// Why one attempt has no answer.
pub(super) enum Failure {
    /// Another may have one, after that time if the server says so.
    Passing(S3Error, Option<Duration>),
    /// No other will.
    Final(S3Error),
}

impl<'a> Request<'a> {
    /// One without a body, for an object.
    pub(super) fn new(method: Method, key: &'a str, action: String) -> Self {
        Self { method, key: Some(key), query: &[], headers: &[], body: None, action }
    }
}

impl Client {
    /// The bucket at `address`. Nobody is asked yet.
    ///
    /// # Errors
    /// When the address is none.
    pub fn new(address: &Address, access: &Access) -> Result<Self, S3Error> {
        let region = address.region.clone().or_else(|| access.sources.region(address.profile.as_deref()));
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
        let modified = modified.unwrap_or(SystemTime::UNIX_EPOCH);
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
        let answer = self.send(&request)?;
        let status = answer.status().as_u16();
        let body = rest(answer);
        match status {
            404 => Ok(false),
            // It may begin to answer before it knows.
            _ if String::from_utf8_lossy(&body).contains("<Error>") => {
                Err(self.error(&Complaint::read(status, &body), &request.action))
            }
            _ => Ok(true),
        }
    }

    /// Deletes the object `key`; one that is gone is no error.
    ///
    /// # Errors
    /// When it can't be deleted.
    pub fn delete(&self, key: &str) -> Result<(), S3Error> {
        self.send(&Request::new(Method::Delete, key, format!("delete {key}"))).map(drop)
    }

    /// The objects whose keys begin with `prefix`, and the prefixes of those that have a `/`
    /// after it.
    ///
    /// # Errors
    /// When they can't be listed.
    pub fn list(&self, prefix: &str) -> Result<Vec<Listed>, S3Error> {
        let mut listed = Vec::new();
        let mut token: Option<String> = None;
        let action = if prefix.is_empty() { "list what is in it".to_owned() } else { format!("list {prefix}") };
        loop {
            let mut query: Vec<(&str, &str)> = token.iter().map(|token| ("continuation-token", &token[..])).collect();
            query.extend([("delimiter", "/"), ("encoding-type", "url"), ("list-type", "2"), ("prefix", prefix)]);
            let request = Request {
                method: Method::Get,
                key: None,
                query: &query,
                headers: &[],
                body: None,
                action: action.clone(),
            };
            let page = self.persist(|| {
                let mut answer = self.attempt(&request)?;
                let body = answer.body_mut().with_config().limit(MAX_LIST).read_to_string();
                let body = body.map_err(|error| self.failure(&error, &request.action))?;
                let page = ListObjectsV2::parse_response(&body);
                page.map_err(|error| {
                    Failure::Final(self.failed(&request.action, &format!("its list is none: {error}")))
                })
            })?;
            listed.extend(page.contents.into_iter().map(|object| Listed {
                modified: time(object.last_modified.as_deref()),
                size: Some(object.size.unwrap_or(0)),
                key: object.key,
            }));
            let prefixes = page.common_prefixes.into_iter();
            let prefix_of = |one: rusty_s3::actions::list_objects_v2::CommonPrefixes| Listed {
                key: one.prefix,
                size: None,
                modified: SystemTime::UNIX_EPOCH,
            };
            listed.extend(prefixes.map(prefix_of));
            match page.next_continuation_token {
                Some(next) if token.as_ref() != Some(&next) => token = Some(next),
                Some(_) => return Err(self.failed(&action, "it does not go on with its list")),
                None => return Ok(listed),
            }
        }
    }

    /// Asks until there is an answer.
    pub(super) fn send(&self, request: &Request<'_>) -> Result<Answer, S3Error> {
        self.persist(|| self.attempt(request))
    }

    /// Does `attempt` until it fails or succeeds for good.
    pub(super) fn persist<T>(&self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, S3Error> {
        for number in 1.. {
            let (error, wait) = match attempt() {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(error, wait)) => (error, wait),
            };
            let has_answered = self.0.has_answered.load(Ordering::Relaxed);
            if number >= if has_answered { ATTEMPTS } else { FIRST_ATTEMPTS } {
                return Err(error);
            }
            tracing::debug!("{error}; once more");
            let pause = pause(number);
            std::thread::sleep(wait.map_or(pause, |wait| wait.clamp(pause, LONGEST_PAUSE)));
        }
        unreachable!("the loop ends by returning")
    }

    /// Asks once, or twice where credentials were too old.
    pub(super) fn attempt(&self, request: &Request<'_>) -> Result<Answer, Failure> {
        let found = self.0.finder.get().map_err(Failure::Final)?;
        match self.ask(request, &found)? {
            Ok(answer) => Ok(answer),
            Err((complaint, _)) if complaint.is_of_age() && self.0.finder.forget(&found) => {
                let found = self.0.finder.get().map_err(Failure::Final)?;
                self.ask(request, &found)?.map_err(|(complaint, wait)| self.refusal(request, complaint, wait))
            }
            Err((complaint, wait)) => Err(self.refusal(request, complaint, wait)),
        }
    }

    /// Asks once; an answer that is none is told as what it complains of.
    #[allow(clippy::type_complexity, reason = "a name for it would be used here only")]
    fn ask(
        &self,
        request: &Request<'_>,
        found: &Arc<Found>,
    ) -> Result<Result<Answer, (Complaint, Option<Duration>)>, Failure> {
        let answer = self.run(request, found).map_err(|error| self.failure(&error, &request.action))?;
        self.0.has_answered.store(true, Ordering::Relaxed);
        let status = answer.status().as_u16();
        let is_conditional = request.headers.iter().any(|(name, _)| name.starts_with("if-"));
        if matches!(status, 200..=299) || is_conditional && matches!(status, 409 | 412 | 501) {
            return Ok(Ok(answer));
        }
        let wait = answer.headers().get(header::RETRY_AFTER).and_then(|text| text.to_str().ok()?.parse().ok());
        let wait = wait.map(Duration::from_secs);
        let region = answer.headers().get("x-amz-bucket-region").and_then(|text| Some(text.to_str().ok()?.to_owned()));
        let headers = answer.headers().clone();
        let body = rest(answer);
        let mut complaint = Complaint::read(status, &body);
        let is_of_object = request.key.is_some() && !matches!(&complaint.code[..], "NoSuchBucket" | "NoSuchUpload");
        if status == 404 && is_of_object {
            let mut answer = Response::builder().status(404).body(Body::builder().data(body));
            if let Ok(answer) = &mut answer {
                *answer.headers_mut() = headers;
            }
            return answer.map(Ok).map_err(|error| Failure::Final(self.failed(&request.action, &error.to_string())));
        }
        if let Some(region) = region.filter(|region| region != self.region()) {
            complaint.text = format!("{}; it is in {region}", complaint.text);
        }
        // An answer to HEAD has no body that says why.
        if request.method == Method::Head && complaint.code.is_empty() && matches!(status, 301 | 307 | 400..=499) {
            let again = Request { key: request.key, ..Request::new(Method::Get, "", request.action.clone()) };
            return match self.ask(&again, found)? {
                Err(complaint) => Ok(Err(complaint)),
                Ok(_) => Ok(Err((complaint, wait))),
            };
        }
        Ok(Err((complaint, wait)))
    }

    /// Sends a signed request.
    fn run(&self, request: &Request<'_>, found: &Found) -> Result<Answer, ureq::Error> {
        let bucket = &self.0.bucket;
        let url = request.key.map_or_else(|| bucket.base_url().clone(), |key| bucket.object_url(key));
        // Those of AWS have to be signed, and the others need not.
        let signed = request.headers.iter().filter(|(name, _)| name.starts_with("x-amz-"));
        let url = rusty_s3::signing::sign(
            &Timestamp::now(),
            request.method,
            url,
            found.credentials.key(),
            found.credentials.secret(),
            found.credentials.token(),
            bucket.region(),
            SIGNED_FOR.as_secs(),
            request.query.iter().copied(),
            signed.map(|(name, value)| (*name, &value[..])),
        );
        tracing::trace!("{} {}", request.method.to_str(), url.path());
        let mut builder = ureq::http::Request::builder().method(request.method.to_str()).uri(url.as_str());
        for (name, value) in request.headers {
            builder = builder.header(*name, value);
        }
        let agent = self.agent()?;
        match request.body {
            Some(body) => agent.run(builder.body(body)?),
            None if matches!(request.method, Method::Put | Method::Post) => agent.run(builder.body(&[][..])?),
            None => agent.run(builder.body(())?),
        }
    }

    fn agent(&self) -> Result<Agent, ureq::Error> {
        if let Some(agent) = self.0.agent.get() {
            return Ok(agent.clone());
        }
        let Inner { access, origin, .. } = &*self.0;
        let other = |problem: String| ureq::Error::Io(std::io::Error::other(problem));
        let proxy = access.proxies.of(origin).map_err(other)?.as_deref().map(ureq::Proxy::new).transpose()?;
        let tls = if origin.is_tls { Some(access.trust.tls(&origin.host)) } else { None };
        let tls = tls.transpose().map_err(|error| other(error.to_string()))?;
        Ok(self.0.agent.get_or_init(|| agent::agent(tls, proxy, PATIENCE)).clone())
    }

    /// What it means that there was no answer, or only a part of one.
    pub(super) fn failure(&self, error: &ureq::Error, action: &str) -> Failure {
        let problem = agent::explain(error);
        let (bucket, server) = (self.0.bucket.name().to_owned(), self.0.server.clone());
        let is_no_tls = self.0.origin.is_tls && problem.contains("corrupt message");
        if agent::is_untrusted(error) || is_no_tls {
            return Failure::Final(S3Error::Untrusted { bucket, server, problem });
        }
        let is_wrong = matches!(error, ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl);
        if agent::is_unknown_host(error) || is_wrong {
            return Failure::Final(S3Error::Unreachable { bucket, server, problem });
        }
        Failure::Passing(
            match self.0.has_answered.load(Ordering::Relaxed) {
                true => S3Error::Busy { bucket, server, action: action.to_owned(), problem },
                false => S3Error::Unreachable { bucket, server, problem },
            },
            None,
        )
    }

    fn refusal(&self, request: &Request<'_>, complaint: Complaint, wait: Option<Duration>) -> Failure {
        let may_pass = complaint.may_pass();
        let error = self.error(&complaint, &request.action);
        if may_pass { Failure::Passing(error, wait) } else { Failure::Final(error) }
    }

    /// The error that a complaint is.
    pub(super) fn error(&self, complaint: &Complaint, action: &str) -> S3Error {
        let found = self.0.finder.get();
        complaint.clone().into_error(&Context {
            bucket: self.0.bucket.name(),
            server: &self.0.server,
            region: self.0.bucket.region(),
            source_of: found.as_ref().map_or("that were found", |found| &found.source_of),
            action,
        })
    }

    /// The error that a wrong answer is.
    pub(super) fn failed(&self, action: &str, problem: &str) -> S3Error {
        S3Error::Failed {
            bucket: self.0.bucket.name().to_owned(),
            action: action.to_owned(),
            problem: problem.to_owned(),
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Client").field(&self.0.address).finish()
    }
}

/// The tag of the version that an answer is about.
pub(super) fn tag(answer: &Answer) -> Option<String> {
    Some(answer.headers().get(header::ETAG)?.to_str().ok()?.to_owned())
}

/// What is left of an answer.
pub(super) fn rest(mut answer: Answer) -> Vec<u8> {
    answer.body_mut().with_config().limit(MAX_COMPLAINT).read_to_vec().unwrap_or_default()
}

/// A time as in `2026-11-21T20:00:00.000Z`; what is none counts as new, so that nothing goes
/// for it.
pub(super) fn time(text: Option<&str>) -> SystemTime {
    let parsed = text.and_then(|text| text.parse::<Timestamp>().ok());
    parsed.map_or_else(SystemTime::now, SystemTime::from)
}
