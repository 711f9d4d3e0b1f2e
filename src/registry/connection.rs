//! Talks to one registry: who asks, in which way, and how often until there is an
//! answer.
//!
//! Source: OCI distribution-spec 1.1.

mod authorization;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use authorization::Auth;
use ureq::config::ConfigBuilder;
use ureq::http::request::Builder;
use ureq::http::{Method, Response, Uri, header};
use ureq::typestate::AgentScope;
use ureq::{Agent, Body};

use super::credentials::Credentials;
use super::error::{Complaint, RegistryError};
use super::trust::Trust;

/// How often something is asked before it counts as failed, and how long to wait after the
/// first time; each time twice as long.
const ATTEMPTS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(300);

/// How often to try whether anybody is there at all.
const FIRST_ATTEMPTS: u32 = 3;

/// How long to wait at the most between two attempts.
const MOST_PAUSE: Duration = Duration::from_secs(5);

/// The longest wait that a registry can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long to wait for a connection, and then for something to happen on it. Some registries
/// hash a layer again before they say that they have it.
const CONNECT: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_secs(120);

/// How much of an answer is read that is only about what went wrong, in bytes.
const MAX_COMPLAINT: u64 = 64 << 10;

/// A registry, as one repository of it sees it.
pub struct Connection {
    host: String,
    is_loopback: bool,
    plain_http: bool,
    trust: Trust,
    credentials: Option<Credentials>,
    agent: OnceLock<Agent>,
    plain_agent: OnceLock<Agent>,
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
    pub fn new(host: &str, plain_http: bool, trust: Trust, credentials: Option<Credentials>) -> Self {
        Self {
            host: host.to_owned(),
            is_loopback: is_loopback(host),
            plain_http,
            trust,
            credentials,
            agent: OnceLock::new(),
            plain_agent: OnceLock::new(),
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
        let mut pause = PAUSE;
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
            std::thread::sleep(wait.map_or(pause, |wait| wait.clamp(pause, LONGEST_PAUSE)));
            pause = MOST_PAUSE.min(pause * 2);
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
        let challenge = self.learn(&answer, request.scopes, sent);
        drain(answer);
        let again = match challenge {
            Some(challenge) => self.answer(&challenge, request)?,
            None => None,
        };
        // Without another way to ask there is no other answer.
        let answer = self.send(request, again.as_deref())?;
        self.checked(answer, request)
    }

    /// Passes on what is not about the way of asking.
    fn checked(&self, answer: Answer, request: &Request<'_>) -> Result<Answer, Failure> {
        let status = answer.status().as_u16();
        let wait = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let wait = wait.map(Duration::from_secs);
        if status == 401 || status == 403 || status == 429 || status >= 500 {
            let complaint = complaint(answer);
            if complaint.may_pass() {
                let problem = complaint.text.clone();
                return Err(Failure::Passing { problem, wait, complaint: Some(complaint) });
            }
            let known = self.credentials.is_some();
            return Err(Failure::Final(complaint.into_error(&self.host, request.action, known)));
        }
        Ok(answer)
    }

    /// The error that an answer is.
    #[must_use]
    pub fn refusal(&self, answer: Answer, action: &str) -> RegistryError {
        complaint(answer).into_error(&self.host, action, self.credentials.is_some())
    }

    /// Sends a request as it is.
    fn send(&self, request: &Request<'_>, authorization: Option<&str>) -> Result<Answer, Failure> {
        let base = match self.base.get() {
            Some(base) => base.clone(),
            // A registry for oneself needs no certificate.
            None if self.plain_http || (self.is_loopback && self.speaks_plainly()) => format!("http://{}", self.host),
            None => format!("https://{}", self.host),
        };
        let answer = self.send_to(&base, request, authorization).map_err(|error| self.failure(error))?;
        let _ = self.base.set(base);
        self.has_answered.store(true, Ordering::Relaxed);
        Ok(answer)
    }

    /// Whether somebody there answers without TLS. That is asked first, without saying
    /// who asks: reading the system's authorities takes longer than all else that is to
    /// be done for an image that is there already.
    fn speaks_plainly(&self) -> bool {
        // A server that wants TLS says 400 to this.
        let answer = self.plain_agent().get(format!("http://{}/v2/", self.host)).call();
        answer.is_ok_and(|answer| answer.status() != 400)
    }

    fn send_to(&self, base: &str, request: &Request<'_>, authorization: Option<&str>) -> Result<Answer, ureq::Error> {
        let url = absolute(base, request.url);
        // Whoever else an upload is sent to has no business with it.
        let authorization = authorization.filter(|_| origin(&url) == origin(base));
        let builder = || {
            let mut builder = ureq::http::Request::builder().method(request.method.clone()).uri(&url);
            for (name, value) in request.headers {
                builder = builder.header(*name, value);
            }
            match authorization {
                Some(authorization) => builder.header(header::AUTHORIZATION, authorization),
                None => builder,
            }
        };
        tracing::trace!("{} {url}", request.method);
        if self.is_loopback && origin(&url) == origin(base) && base.starts_with("http:") {
            let answer = run(self.plain_agent(), builder(), request)?;
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
        }
        let agent = self.agent().map_err(|error| ureq::Error::Io(std::io::Error::other(error.to_string())))?;
        run(agent, builder(), request)
    }

    fn agent(&self) -> Result<&Agent, RegistryError> {
        if let Some(agent) = self.agent.get() {
            return Ok(agent);
        }
        let mut config = self.settings();
        if !self.plain_http {
            config = config.tls_config(self.trust.tls(&self.host)?);
        }
        Ok(self.agent.get_or_init(|| config.build().new_agent()))
    }

    /// For HTTP without TLS and without going anywhere else.
    fn plain_agent(&self) -> &Agent {
        self.plain_agent.get_or_init(|| self.settings().max_redirects(0).build().new_agent())
    }

    fn settings(&self) -> ConfigBuilder<AgentScope> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("stowage/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .redirect_auth_headers(ureq::config::RedirectAuthHeaders::SameHost)
            .max_idle_connections(32)
            .max_idle_connections_per_host(16)
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE));
        if self.is_loopback { config.proxy(None) } else { config }
    }

    fn failure(&self, error: ureq::Error) -> Failure {
        let host = self.host.clone();
        let problem = explain(&error);
        match error {
            ureq::Error::HostNotFound => {
                Failure::Final(RegistryError::Unreachable { host, problem: "there is no such host".to_owned() })
            }
            // What the resolver says of a name that nobody has, unlike of a server of names that
            // does not answer.
            ureq::Error::Io(_) if problem.contains("Name or service not known") => {
                Failure::Final(RegistryError::Unreachable { host, problem: "there is no such host".to_owned() })
            }
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
                Failure::Final(RegistryError::Unreachable { host, problem })
            }
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::Pem(_) => {
                Failure::Final(RegistryError::Untrusted { host, problem })
            }
            ureq::Error::Io(_) if problem.contains("certificate") || problem.contains("corrupt message") => {
                Failure::Final(RegistryError::Untrusted { host, problem })
            }
            _ => Failure::Passing { problem, wait: None, complaint: None },
        }
    }
}

fn run(agent: &Agent, builder: Builder, request: &Request<'_>) -> Result<Answer, ureq::Error> {
    match request.body {
        Some(body) => agent.run(builder.body(body)?),
        None if matches!(request.method, Method::GET | Method::HEAD | Method::DELETE) => agent.run(builder.body(())?),
        None => agent.run(builder.body(&[][..])?),
    }
}

/// Reads what is left of an answer that nobody wants, so that its connection can be used again.
pub fn drain(mut answer: Answer) {
    let _ = std::io::copy(&mut answer.body_mut().with_config().limit(MAX_COMPLAINT).reader(), &mut std::io::sink());
}

fn complaint(mut answer: Answer) -> Complaint {
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(MAX_COMPLAINT).read_to_vec().unwrap_or_default();
    Complaint::read(status, &body)
}

/// What an error says, without the words of the library around it.
fn explain(error: &ureq::Error) -> String {
    let text = match error {
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Rustls(error) => error.to_string(),
        ureq::Error::ConnectionFailed => "nothing answers there".to_owned(),
        other => other.to_string(),
    };
    match text.contains("CaUsedAsEndEntity") {
        true => "its certificate is an authority's own; give it one that is signed by that authority".to_owned(),
        false => text,
    }
}

/// An URL that a registry gives may have no host. One with its own host means it as it is
/// reached: behind a proxy registries do not always know that there is TLS.
fn absolute(base: &str, url: &str) -> String {
    let host = |url: &str| url.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or_default().to_owned());
    match url.split_once("://") {
        None => format!("{base}/{}", url.trim_start_matches('/')),
        Some((_, rest)) if host(url) == host(base) => {
            format!("{base}/{}", rest.split_once('/').map_or("", |(_, path)| path))
        }
        Some(_) => url.to_owned(),
    }
}

fn origin(url: &str) -> Option<(String, String)> {
    let uri: Uri = url.parse().ok()?;
    Some((uri.scheme_str()?.to_owned(), uri.authority()?.as_str().to_owned()))
}

/// Whether a host is this machine.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "128.0.0.1", "[::2]:80", "127.0.0.1.example", "r.example:5000"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn urls_of_uploads_are_meant_as_the_registry_is_reached() {
        let base = "https://r.example:5000";
        assert_eq!(absolute(base, "/v2/a?b=c"), "https://r.example:5000/v2/a?b=c");
        assert_eq!(absolute(base, "http://r.example:5000/v2/a"), "https://r.example:5000/v2/a");
        assert_eq!(absolute(base, "https://store.example/x"), "https://store.example/x");
        assert!(origin(base) != origin("https://store.example/x"));
        assert!(origin(base) == origin("https://r.example:5000/v2/a"));
        assert!(origin(base) != origin("https://r.example:5000@evil.example/v2/a"));
    }
}
