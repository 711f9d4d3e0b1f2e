//! Talks to one registry: who asks, in which way, and how often until there is an
//! answer.
//!
//! Source: OCI distribution-spec 1.1.

mod authorization;
mod transport;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use authorization::Auth;
use transport::AgentKey;
use ureq::http::{Method, Response, header};
use ureq::{Agent, Body, ResponseExt as _};

use super::credentials::Credentials;
use super::error::{Complaint, RegistryError};
use super::origin::{Origin, as_reached, is_loopback, resolve};
use super::proxy::Proxies;
use super::trust::Trust;

/// How often something is asked before it counts as failed, and how long to wait after the
/// first time; each time twice as long. Tests need not wait.
const ATTEMPTS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 300 });

/// How often to try whether anybody is there at all.
const FIRST_ATTEMPTS: u32 = 3;

/// How long to wait at the most between two attempts.
const MOST_PAUSE: Duration = Duration::from_secs(5);

/// The longest wait that a registry can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How much of an answer is read that is only about what went wrong, in bytes.
const MAX_COMPLAINT: u64 = 64 << 10;

/// By which ways registries are reached.
#[derive(Clone, Default)]
pub struct Access {
    /// Whom to trust.
    pub trust: Trust,
    /// The hosts, with their ports, that are asked without TLS.
    pub plain_http: Vec<String>,
    /// The proxies in between.
    pub proxies: Proxies,
}

/// A registry, as one repository of it sees it.
pub struct Connection {
    host: String,
    is_loopback: bool,
    plain_http: bool,
    access: Access,
    credentials: Option<Credentials>,
    agents: Mutex<BTreeMap<AgentKey, Agent>>,
    base: OnceLock<String>,
    has_answered: AtomicBool,
    auth: Mutex<Auth>,
    asking: Mutex<()>,
}

/// A request; its URL is a path of the registry, or absolute.
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// The URL.
    pub url: &'a str,
    /// More headers.
    pub headers: &'a [(&'static str, String)],
    /// What is sent.
    pub body: Option<&'a [u8]>,
    /// What is to be allowed, as in `repository:NAME:pull`.
    pub scopes: &'a [String],
    /// What it is for, for messages: `read the manifest x`.
    pub action: &'a str,
}

/// Why one attempt has no answer.
pub enum Failure {
    /// Another may have one, after that time if the registry says so.
    Passing {
        /// What went wrong.
        problem: String,
        /// How long to wait at the least.
        wait: Option<Duration>,
        /// What the registry said, if it said something.
        complaint: Option<Complaint>,
    },
    /// No other will.
    Final(RegistryError),
}

/// An answer, of whatever status that is not about the way of asking.
pub type Answer = Response<Body>;

impl Connection {
    /// A connection to `host`, by HTTP without TLS if `plain_http`.
    #[must_use]
    pub fn new(host: &str, plain_http: bool, access: Access, credentials: Option<Credentials>) -> Self {
        Self {
            host: host.to_owned(),
            is_loopback: is_loopback(host),
            plain_http,
            access,
            credentials,
            agents: Mutex::default(),
            base: OnceLock::new(),
            has_answered: AtomicBool::new(false),
            auth: Mutex::default(),
            asking: Mutex::default(),
        }
    }

    /// The registry's host.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Asks until there is an answer.
    ///
    /// # Errors
    /// When there is none.
    pub fn ask(&self, request: &Request<'_>) -> Result<Answer, RegistryError> {
        self.persist(request.action, || self.ask_once(request))
    }

    /// Does `attempt` until it fails or succeeds for good.
    ///
    /// # Errors
    /// When it fails too often.
    pub fn persist<T>(
        &self,
        action: &str,
        mut attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, RegistryError> {
        for number in 1.. {
            let (problem, wait, complaint) = match attempt() {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing { problem, wait, complaint }) => (problem, wait, complaint),
            };
            let has_answered = self.has_answered.load(Ordering::Relaxed);
            if number >= if has_answered { ATTEMPTS } else { FIRST_ATTEMPTS } {
                let host = self.host.clone();
                return Err(match complaint {
                    Some(complaint) => complaint.into_error(&host, action, self.credentials.is_some()),
                    None if has_answered => RegistryError::Failed { host, action: action.to_owned(), problem },
                    None => RegistryError::Unreachable { host, problem },
                });
            }
            tracing::debug!("{}: {action}: {problem}; once more", self.host);
            let pause = pause(number);
            std::thread::sleep(wait.map_or(pause, |wait| wait.clamp(pause, LONGEST_PAUSE)));
        }
        unreachable!("the loop ends by returning")
    }

    /// Asks once, or twice where the registry first has to say how.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask_once(&self, request: &Request<'_>) -> Result<Answer, Failure> {
        let authorization = self.authorization(request)?;
        let answer = self.send(request, authorization.as_deref())?;
        if answer.status() != 401 {
            return self.checked(answer, request);
        }
        let sent = authorization.as_deref().and_then(|header| header.strip_prefix("Bearer "));
        let again = match self.learn(&answer, request.scopes, sent) {
            Some(challenge) => self.answer(&challenge, request)?,
            None => None,
        };
        // Without another way to ask there is no other answer.
        if again.is_none() || again == authorization {
            return self.checked(answer, request);
        }
        drain(answer);
        let answer = self.send(request, again.as_deref())?;
        self.checked(answer, request)
    }

    /// Passes on what is not about the way of asking.
    fn checked(&self, answer: Answer, request: &Request<'_>) -> Result<Answer, Failure> {
        match answer.status().as_u16() {
            401 | 403 | 408 | 425 | 429 | 500.. => Err(self.complaint(answer, request.action)),
            _ => Ok(answer),
        }
    }

    /// What an answer complains of, and whether that may pass.
    fn complaint(&self, answer: Answer, action: &str) -> Failure {
        let (wait, other) = (wait(&answer), self.other(&answer));
        let mut complaint = read_complaint(answer);
        if let Some(other) = &other {
            complaint.text = format!("{other}: {}", complaint.text);
        }
        if complaint.may_pass() {
            return Failure::Passing { problem: complaint.text.clone(), wait, complaint: Some(complaint) };
        }
        Failure::Final(match other {
            // Nobody can log in there.
            Some(_) => self.failed(action, complaint.text),
            None => complaint.into_error(&self.host, action, self.credentials.is_some()),
        })
    }

    /// Who has answered, if it was not the registry itself.
    fn other(&self, answer: &Answer) -> Option<Origin> {
        let own = self.base.get().and_then(|base| Origin::of(base));
        Origin::of(&answer.get_uri().to_string()).filter(|origin| own.as_ref() != Some(origin))
    }

    fn failed(&self, action: &str, problem: String) -> RegistryError {
        RegistryError::Failed { host: self.host.clone(), action: action.to_owned(), problem }
    }

    /// The error that an answer is.
    #[must_use]
    pub fn refusal(&self, answer: Answer, action: &str) -> RegistryError {
        self.refused(read_complaint(answer), action)
    }

    /// The error that a complaint is.
    #[must_use]
    pub fn refused(&self, complaint: Complaint, action: &str) -> RegistryError {
        complaint.into_error(&self.host, action, self.credentials.is_some())
    }

    /// Where an answer says that something is, as an URL.
    #[must_use]
    pub fn location(&self, answer: &Answer) -> Option<String> {
        let location = answer.headers().get(header::LOCATION)?.to_str().ok()?;
        let url = resolve(&answer.get_uri().to_string(), location);
        Some(self.base.get().map_or_else(|| url.clone(), |base| as_reached(base, &url)))
    }
}

/// How long to wait after something has failed `number` times.
#[must_use]
pub fn pause(number: u32) -> Duration {
    MOST_PAUSE.min(PAUSE * (1 << number.clamp(1, 10).saturating_sub(1)))
}

/// How long an answer asks to be left alone: RFC 9110, section 10.2.3.
fn wait(answer: &Answer) -> Option<Duration> {
    let text = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok()
}

/// Reads what is left of an answer that nobody wants, so that its connection can be used again.
pub fn drain(mut answer: Answer) {
    let _ = std::io::copy(&mut answer.body_mut().with_config().limit(MAX_COMPLAINT).reader(), &mut std::io::sink());
}

/// What an answer says of a failure.
#[must_use]
pub fn read_complaint(mut answer: Answer) -> Complaint {
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(MAX_COMPLAINT).read_to_vec().unwrap_or_default();
    Complaint::read(status, &body)
}
