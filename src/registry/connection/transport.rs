//! Sends one request: by TLS or without, by which proxy, and where redirects lead.
//!
//! Redirects are followed here, since each of them may lead to somebody who has no
//! business with a password, or to where there is no TLS.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ureq::http::request::Builder;
use ureq::http::{Method, header};
use ureq::{Agent, Proxy};

use super::super::agent::{self, Patience, explain};
use super::super::error::RegistryError;
use super::super::origin::{Origin, as_reached, resolve};
use super::super::proxy::shown;
use super::{Answer, Connection, Failure, Request, drain};

/// Some registries hash a layer again before they say that they have it.
const PATIENCE: Patience = Patience { connect: Duration::from_secs(15), silence: Duration::from_secs(120) };

/// How often a request is sent elsewhere.
const MOST_REDIRECTS: u32 = 10;

/// What agents differ in: whether they know TLS, whose certificates take longer to read than all
/// else that is to be done for an image that is there already; and the proxy.
pub(super) type AgentKey = (bool, Option<String>);

impl Connection {
    /// Sends a request as it is.
    pub(super) fn send(&self, request: &Request<'_>, authorization: Option<&str>) -> Result<Answer, Failure> {
        let base = self.base()?;
        let url = if request.url.starts_with('/') {
            format!("{base}{}", request.url)
        } else {
            as_reached(&base, request.url)
        };
        let own = Origin::of(&base).ok_or_else(|| {
            let problem = "that is no name of a host".to_owned();
            Failure::Final(RegistryError::Unreachable { host: self.host.clone(), problem })
        })?;
        let answer = self.travel(&own, url, request, (&own, authorization))?;
        let _ = self.base.set(base);
        self.has_answered.store(true, Ordering::Relaxed);
        Ok(answer)
    }

    /// Sends a request to `url`, and to wherever that leads. Nobody gets the authorization but
    /// the one whom it is for.
    pub(super) fn travel(
        &self,
        base: &Origin,
        mut url: String,
        request: &Request<'_>,
        (owner, authorization): (&Origin, Option<&str>),
    ) -> Result<Answer, Failure> {
        for _ in 0..=MOST_REDIRECTS {
            let to = self.permitted(base, &url, request.action)?;
            let answer = self.hop(&to, &url, request, authorization.filter(|_| to == *owner))?;
            let Some(next) = next(base, &url, &answer, &request.method) else {
                return Ok(answer);
            };
            drain(answer);
            url = next;
        }
        Err(Failure::Final(self.failed(request.action, "it sends that from one place to the next".to_owned())))
    }

    /// Who answers for `url`, if he may be asked: by TLS everybody; without it a registry
    /// without TLS itself, this machine, and those whom somebody has named.
    pub(in crate::registry) fn permitted(&self, base: &Origin, url: &str, action: &str) -> Result<Origin, Failure> {
        let Some(to) = Origin::of(url) else {
            return Err(Failure::Final(self.failed(action, "it leads to a place that is no URL of HTTP".to_owned())));
        };
        let is_named = |to: &Origin| {
            let named = &self.access.plain_http;
            named.iter().any(|host| Origin::of(&format!("http://{host}")).is_some_and(|named| named == *to))
        };
        if to.is_tls || to == *base || !base.is_tls && (to.is_loopback() || is_named(&to)) {
            return Ok(to);
        }
        let problem = format!("it leads to {to} by HTTP without TLS");
        let hint =
            if base.is_tls { String::new() } else { format!("; name that by --plain-http {to}, if it is right") };
        Err(Failure::Final(self.failed(action, format!("{problem}{hint}"))))
    }

    /// Sends a request to one server.
    pub(super) fn hop(
        &self,
        to: &Origin,
        url: &str,
        request: &Request<'_>,
        authorization: Option<&str>,
    ) -> Result<Answer, Failure> {
        let mut builder = ureq::http::Request::builder().method(request.method.clone()).uri(url);
        for (name, value) in request.headers {
            builder = builder.header(*name, value);
        }
        if let Some(authorization) = authorization {
            builder = builder.header(header::AUTHORIZATION, authorization);
        }
        // The query may be what opens a store.
        tracing::trace!("{} {}", request.method, url.split('?').next().unwrap_or_default());
        let agent = self.agent(to, request.action)?;
        run(&agent, builder, request).map_err(|error| self.failure(&error, to, request.action))
    }

    /// Where the registry is: without TLS if somebody said so, or if it is on this machine and
    /// answers so; a registry for oneself needs no certificate.
    fn base(&self) -> Result<String, Failure> {
        if let Some(base) = self.base.get() {
            return Ok(base.clone());
        }
        let is_plain = self.plain_http || (self.is_loopback && self.speaks_plainly()?);
        Ok(format!("{}://{}", if is_plain { "http" } else { "https" }, self.host))
    }

    /// Whether somebody there answers without TLS. That is asked first, without saying
    /// who asks: reading the system's authorities takes longer than all else that is to
    /// be done for an image that is there already.
    fn speaks_plainly(&self) -> Result<bool, Failure> {
        let url = format!("http://{}/v2/", self.host);
        let Some(to) = Origin::of(&url) else { return Ok(false) };
        match self.agent(&to, "be asked")?.get(&url).call() {
            // A server that wants TLS says 400 to this.
            Ok(answer) => Ok(answer.status() != 400),
            Err(ureq::Error::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                Err(Failure::Passing { problem: error.to_string(), wait: None, complaint: None })
            }
            // Or it closes the connection, or says what is no HTTP.
            Err(_) => Ok(false),
        }
    }

    /// What sends requests to `to`.
    fn agent(&self, to: &Origin, action: &str) -> Result<Agent, Failure> {
        let proxy = self.access.proxies.of(to).map_err(|problem| Failure::Final(self.failed(action, problem)))?;
        let key = (to.is_tls, proxy);
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let proxy = key.1.as_deref().map(Proxy::new).transpose();
        let proxy = proxy.map_err(|error| Failure::Final(self.failed(action, error.to_string())))?;
        let tls = if to.is_tls { Some(self.access.trust.tls(&self.host).map_err(Failure::Final)?) } else { None };
        let agent = agent::agent(tls, proxy, PATIENCE);
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    /// What it means that `to` gave no answer.
    pub(super) fn failure(&self, error: &ureq::Error, to: &Origin, action: &str) -> Failure {
        let problem = explain(error);
        let is_unknown = agent::is_unknown_host(error);
        let problem = if is_unknown { "there is no such host".to_owned() } else { problem };
        let problem = match self.access.proxies.of(to) {
            Ok(Some(proxy)) => format!("{problem}, by the proxy {}", shown(&proxy)),
            _ => problem,
        };
        let is_wrong = matches!(error, ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl);
        let is_untrusted = agent::is_untrusted(error);
        // Somebody without TLS. On this machine that may be one who was asked so, and could not
        // answer just then.
        let is_plain = self.is_loopback && self.base.get().is_none_or(|base| base.starts_with("http:"));
        let is_no_tls = problem.contains("corrupt message");
        if is_no_tls && is_plain {
            // It is there.
            self.has_answered.store(true, Ordering::Relaxed);
        }
        let is_final = is_unknown || is_wrong || is_untrusted || is_no_tls && !is_plain;
        let scheme = if to.is_tls { "https" } else { "http" };
        if Origin::of(&format!("{scheme}://{}", self.host)).is_some_and(|own| own != *to) {
            let problem = format!("{to} can't be reached: {problem}");
            return match is_final {
                true => Failure::Final(self.failed(action, problem)),
                false => Failure::Passing { problem, wait: None, complaint: None },
            };
        }
        let host = self.host.clone();
        if is_unknown || is_wrong {
            Failure::Final(RegistryError::Unreachable { host, problem })
        } else if is_final {
            Failure::Final(RegistryError::Untrusted { host, problem })
        } else {
            Failure::Passing { problem, wait: None, complaint: None }
        }
    }
}

/// Where an answer sends a request, if it does. One that changes something is not asked again
/// as if it changed nothing.
fn next(base: &Origin, url: &str, answer: &Answer, method: &Method) -> Option<String> {
    let follows = match answer.status().as_u16() {
        301..=303 => matches!(*method, Method::GET | Method::HEAD),
        307 | 308 => true,
        _ => false,
    };
    let location = answer.headers().get(header::LOCATION).filter(|_| follows)?;
    let next = resolve(url, location.to_str().ok()?);
    Some(if base.is_tls { as_reached(&format!("https://{base}"), &next) } else { next })
}

fn run(agent: &Agent, builder: Builder, request: &Request<'_>) -> Result<Answer, ureq::Error> {
    match request.body {
        Some(body) => agent.run(builder.body(body)?),
        None if matches!(request.method, Method::GET | Method::HEAD | Method::DELETE) => agent.run(builder.body(())?),
        None => agent.run(builder.body(&[][..])?),
    }
}
