//! Who asks a registry, and with which token.
//!
//! Sources: distribution's `docs/spec/auth/token.md` and `oauth.md`.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::http::{Method, header};

use super::super::challenge::Challenge;
use super::super::credentials::Credentials;
use super::super::error::RegistryError;
use super::{Answer, Connection, Failure, Request, complaint, drain};

/// How long a token is good that does not say so (token.md).
const TOKEN_LIFE: u64 = 60;

/// What a registry has said that it wants, and the tokens for it.
#[derive(Default)]
pub(super) struct Auth {
    challenge: Option<Challenge>,
    tokens: BTreeMap<String, Token>,
}

#[derive(Clone)]
struct Token {
    text: String,
    until: Instant,
}

impl Connection {
    /// What is sent along at first, as far as the registry has said what it wants.
    pub(super) fn authorization(&self, request: &Request<'_>) -> Result<Option<String>, Failure> {
        let challenge = self.lock().challenge.clone();
        match (challenge, &self.credentials) {
            (Some(challenge), _) => self.answer(&challenge, request),
            (None, None) => Ok(None),
            // Rather than to send a whole layer only to hear who may.
            (None, Some(_)) if request.body.is_some() => {
                let ping = Request { method: Method::GET, url: "/v2/", headers: &[], body: None, ..*request };
                let answer = self.send(&ping, None)?;
                let challenge = self.learn(&answer, request.scopes, None);
                drain(answer);
                challenge.map_or(Ok(None), |challenge| self.answer(&challenge, request))
            }
            (None, Some(_)) => Ok(None),
        }
    }

    /// Remembers what the registry wants; a token that it did not take is no good.
    pub(super) fn learn(&self, answer: &Answer, scopes: &[String], sent: Option<&str>) -> Option<Challenge> {
        let values = answer.headers().get_all(header::WWW_AUTHENTICATE);
        let challenge = Challenge::parse(values.iter().filter_map(|value| value.to_str().ok()))?;
        let mut auth = self.lock();
        auth.challenge = Some(challenge.clone());
        if sent.is_some() {
            let key = scopes.join(" ");
            auth.tokens.retain(|scopes, token| *scopes != key || Some(token.text.as_str()) != sent);
        }
        Some(challenge)
    }

    pub(super) fn answer(&self, challenge: &Challenge, request: &Request<'_>) -> Result<Option<String>, Failure> {
        match challenge {
            Challenge::Basic => Ok(self.credentials.as_ref().and_then(Credentials::basic)),
            Challenge::Bearer { realm, service } => {
                let key = request.scopes.join(" ");
                // One asks, and the others wait for what it gets.
                let _turn = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(token) = self.lock().tokens.get(&key).filter(|token| Instant::now() < token.until) {
                    return Ok(Some(format!("Bearer {}", token.text)));
                }
                let token = self.token(realm, service.as_deref(), request)?;
                let header = format!("Bearer {}", token.text);
                self.lock().tokens.insert(key, token);
                Ok(Some(header))
            }
        }
    }

    /// Gets a token from where the registry says.
    fn token(&self, realm: &str, service: Option<&str>, request: &Request<'_>) -> Result<Token, Failure> {
        let denied = |problem: String| {
            let (host, action) = (self.host.clone(), request.action.to_owned());
            Failure::Final(RegistryError::Denied { host, action, problem, known: self.credentials.is_some() })
        };
        if realm.starts_with("http://") && self.base.get().is_some_and(|base| base.starts_with("https://")) {
            return Err(denied(format!("it wants a password to be sent without TLS, to {realm}")));
        }
        let mut query: Vec<(&str, &str)> = service.map(|service| ("service", service)).into_iter().collect();
        query.extend(request.scopes.iter().map(|scope| ("scope", scope.as_str())));
        let scopes = request.scopes.join(" ");
        let agent = self.agent().map_err(Failure::Final)?;
        let answer = if let Some(Credentials::Identity(token)) = &self.credentials {
            let mut form = vec![("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", "stowage")];
            form.extend(service.map(|service| ("service", service)));
            form.push(("scope", &scopes));
            agent.post(realm).send_form(form)
        } else {
            let mut get = agent.get(realm);
            for (name, value) in query {
                get = get.query(name, value);
            }
            if let Some(basic) = self.credentials.as_ref().and_then(Credentials::basic) {
                get = get.header(header::AUTHORIZATION, basic);
            }
            get.call()
        };
        let mut answer = answer.map_err(|error| self.failure(error))?;
        if answer.status() != 200 {
            let complaint = complaint(answer);
            if complaint.may_pass() {
                let problem = complaint.text.clone();
                return Err(Failure::Passing { problem, wait: None, complaint: Some(complaint) });
            }
            return Err(denied(complaint.text));
        }
        let body = answer.body_mut().with_config().limit(1 << 20).read_to_vec().map_err(|error| self.failure(error))?;
        let given: Given =
            serde_json::from_slice(&body).map_err(|error| denied(format!("{realm} gives no token: {error}")))?;
        let text = given.token.or(given.access_token).ok_or_else(|| denied(format!("{realm} gives no token")))?;
        // A little less, since the way there takes time, too.
        let life = Duration::from_secs(given.expires_in.unwrap_or(TOKEN_LIFE).max(TOKEN_LIFE)) * 9 / 10;
        Ok(Token { text, until: Instant::now() + life })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Auth> {
        self.auth.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a token server gives.
#[derive(Deserialize)]
struct Given {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}
