//! Asks a bucket, until there is an answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use rusty_s3::Method;
use ureq::http::{Response, header};
use ureq::{Agent, Body};

use super::super::S3Error;
use super::super::address::is_region;
use super::super::credentials::Found;
use super::super::error::{Complaint, Context};
use super::super::redact::without_queries;
use super::{Client, Inner};
use crate::registry::agent::{self, Patience};
use crate::registry::connection::pause;

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

/// An answer of a status that the caller knows what to do with.
pub(in crate::s3) type Answer = Response<Body>;

/// A request for an object, or for the bucket itself.
pub(in crate::s3) struct Request<'a> {
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
pub(in crate::s3) enum Failure {
    /// Another may have one, after that time if the server says so.
    Passing(S3Error, Option<Duration>),
    /// No other will.
    Final(S3Error),
}

impl<'a> Request<'a> {
    /// One without a body, for an object.
    pub(in crate::s3) fn new(method: Method, key: &'a str, action: String) -> Self {
        Self { method, key: Some(key), query: &[], headers: &[], body: None, action }
    }
}

impl Client {
    /// Asks until there is an answer.
    pub(in crate::s3) fn send(&self, request: &Request<'_>) -> Result<Answer, S3Error> {
        self.persist(|| self.attempt(request))
    }

    /// Asks until there is an answer, and reads it. What takes long may be answered with 200 before
    /// it is known how it ends: an error that follows counts as one from the beginning.
    pub(in crate::s3) fn send_whole(&self, request: &Request<'_>) -> Result<(u16, Vec<u8>), S3Error> {
        self.persist(|| {
            let mut answer = self.attempt(request)?;
            let status = answer.status().as_u16();
            let body = answer.body_mut().with_config().limit(MAX_COMPLAINT).read_to_vec();
            let body = body.map_err(|error| self.failure(&error, &request.action))?;
            match status < 300 && String::from_utf8_lossy(&body).contains("<Error>") {
                true => Err(self.refusal(request, Complaint::read(status, &body), None)),
                false => Ok((status, body)),
            }
        })
    }

    /// Does `attempt` until it fails or succeeds for good.
    pub(in crate::s3) fn persist<T>(&self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, S3Error> {
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
            std::thread::sleep(bounded(wait).max(pause(number)));
        }
        unreachable!("the loop ends by returning")
    }

    /// Asks once, or twice where credentials were too old.
    pub(in crate::s3) fn attempt(&self, request: &Request<'_>) -> Result<Answer, Failure> {
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
        if let Some(region) = region.filter(|region| region != self.region() && is_region(region)) {
            complaint.text = format!("{}; it is in {region}", complaint.text);
            complaint.region = Some(region);
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
    pub(in crate::s3) fn failure(&self, error: &ureq::Error, action: &str) -> Failure {
        let problem = without_queries(&agent::explain(error));
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
    pub(in crate::s3) fn error(&self, complaint: &Complaint, action: &str) -> S3Error {
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
    pub(in crate::s3) fn failed(&self, action: &str, problem: &str) -> S3Error {
        S3Error::Failed {
            bucket: self.0.bucket.name().to_owned(),
            action: action.to_owned(),
            problem: without_queries(problem),
        }
    }
}

/// How long to wait if a server asks for that.
pub(super) fn bounded(wait: Option<Duration>) -> Duration {
    wait.unwrap_or_default().min(LONGEST_PAUSE)
}

/// The tag of the version that an answer is about.
pub(in crate::s3) fn tag(answer: &Answer) -> Option<String> {
    Some(answer.headers().get(header::ETAG)?.to_str().ok()?.to_owned())
}

/// What is left of an answer.
pub(in crate::s3) fn rest(mut answer: Answer) -> Vec<u8> {
    answer.body_mut().with_config().limit(MAX_COMPLAINT).read_to_vec().unwrap_or_default()
}
