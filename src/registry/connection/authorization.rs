//! Who asks a registry, and with which token.
//!
//! Sources: distribution's `docs/spec/auth/token.md` and `oauth.md`.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::http::{Method, header};

use super::super::challenge::Challenge;
use super::super::credentials::Credentials;
use super::super::error::RegistryError;
use super::super::origin::Origin;
use super::{Answer, Connection, Failure, Request, drain};

/// How long a token is good that does not say so (token.md), and the longest that is believed;
/// in seconds.
const TOKEN_LIFE: u64 = 60;
const MOST_TOKEN_LIFE: u64 = 3600;

/// How large what a token server gives may be, in bytes.
const MAX_TOKEN: u64 = 1 << 20;

/// What is encoded in forms: all but RFC 3986's unreserved letters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a registry has said that it wants, and the tokens for it.
#[derive(Default)]
pub(super) struct Auth {
    challenge: Option<Challenge>,
    /// Whether the registry was asked, and wanted nothing.
    is_open: bool,
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
        let (challenge, is_open) = {
            let auth = self.lock();
            (auth.challenge.clone(), auth.is_open)
        };
        match (challenge, &self.credentials) {
            (Some(challenge), _) => self.answer(&challenge, request),
            (None, None) => Ok(None),
            // Rather than to send a whole layer only to hear who may.
            (None, Some(_)) if request.body.is_some() && !is_open => {
                let ping = Request { method: Method::GET, url: "/v2/", headers: &[], body: None, ..*request };
                let answer = self.send(&ping, None)?;
                let challenge = self.learn(&answer, request.scopes, None);
                self.lock().is_open = answer.status() == 200;
                drain(answer);
                challenge.map_or(Ok(None), |challenge| self.answer(&challenge, request))
            }
            (None, Some(_)) => Ok(None),
        }
    }

    /// Remembers what the registry wants; a token that it did not take is no good. What others
    /// want, to whom it has sent a request, they don't get.
    pub(super) fn learn(&self, answer: &Answer, scopes: &[String], sent: Option<&str>) -> Option<Challenge> {
        if self.other(answer).is_some() {
            return None;
        }
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
        let action = request.action;
        let denied = |problem: String| {
            let (host, action) = (self.host.clone(), action.to_owned());
            Failure::Final(RegistryError::Denied { host, action, problem, known: self.credentials.is_some() })
        };
        let base = self.base.get().and_then(|base| Origin::of(base));
        let base = base.ok_or_else(|| denied("it has not said who gives tokens".to_owned()))?;
        let owner = self.permitted(&base, realm, action)?;
        let service = service.map(|service| ("service", service));
        let answer = if let Some(Credentials::Identity(token)) = &self.credentials {
            let scopes = request.scopes.join(" ");
            let fixed = [("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", "stowage")];
            let form = encode(fixed.into_iter().chain(service).chain([("scope", scopes.as_str())]));
            let headers = [("content-type", "application/x-www-form-urlencoded".to_owned())];
            let (method, body) = (Method::POST, Some(form.as_bytes()));
            // Nobody else gets it.
            self.hop(
                &owner,
                realm,
                &Request { method, url: realm, headers: &headers, body, scopes: &[], action },
                None,
            )?
        } else {
            let scopes = request.scopes.iter().map(|scope| ("scope", scope.as_str()));
            let mark = if realm.contains('?') { '&' } else { '?' };
            let url = format!("{realm}{mark}{}", encode(service.into_iter().chain(scopes)));
            let basic = self.credentials.as_ref().and_then(Credentials::basic);
            let get = Request { method: Method::GET, url: realm, headers: &[], body: None, scopes: &[], action };
            self.travel(&base, url, &get, (&owner, basic.as_deref()))?
        };
        self.given(answer, request).map_err(|refused| match refused {
            Refused::Because(problem) => denied(problem),
            Refused::Otherwise(failure) => failure,
        })
    }

    /// Reads the token that a server has given.
    fn given(&self, mut answer: Answer, request: &Request<'_>) -> Result<Token, Refused> {
        if answer.status() != 200 {
            return Err(match self.complaint(answer, request.action) {
                passing @ Failure::Passing { .. } => Refused::Otherwise(passing),
                Failure::Final(RegistryError::Denied { problem, .. } | RegistryError::Failed { problem, .. }) => {
                    Refused::Because(problem)
                }
                Failure::Final(other) => Refused::Otherwise(Failure::Final(other)),
            });
        }
        let passing = |error: ureq::Error| {
            Refused::Otherwise(Failure::Passing { problem: error.to_string(), wait: None, complaint: None })
        };
        let body = answer.body_mut().with_config().limit(MAX_TOKEN).read_to_vec().map_err(passing)?;
        let none = || Refused::Because("the server that it names gives no token".to_owned());
        let given: Given = serde_json::from_slice(&body).map_err(|_| none())?;
        let tokens = [given.token, given.access_token].into_iter().flatten();
        let text = tokens.into_iter().find(|token| !token.is_empty()).ok_or_else(none)?;
        // A little less, since the way there takes time, too.
        let life = given.expires_in.unwrap_or(TOKEN_LIFE).clamp(TOKEN_LIFE, MOST_TOKEN_LIFE);
        Ok(Token { text, until: Instant::now() + Duration::from_secs(life) * 9 / 10 })
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

/// Why a server gives no token.
enum Refused {
    /// It does not want to.
    Because(String),
    /// Something else is wrong.
    Otherwise(Failure),
}

/// Names and values as in a form.
fn encode<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let pairs: Vec<String> =
        pairs.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, RESERVED))).collect();
    pairs.join("&")
}
