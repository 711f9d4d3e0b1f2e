//! Credentials that some service gives, for a time.
//!
//! Sources: AWS STS, `AssumeRoleWithWebIdentity`; Amazon ECS, "Task IAM role"; Amazon EKS, "Pod
//! Identity"; Amazon EC2, "Instance metadata", version 2.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rusty_s3::Credentials;
use serde::Deserialize;
use ureq::http::Response;
use ureq::{Agent, Body, Timeout};

use super::super::Access;
use super::super::error::{Complaint, S3Error, element};
use super::Found;
use crate::registry::agent::{self, Patience};
use crate::registry::connection::pause;
use crate::registry::origin::Origin;

/// A service on the network.
const FAR: Patience = Patience { connect: Duration::from_secs(15), silence: Duration::from_secs(30) };
/// A service on this machine or its host: where there is none, nobody wants to wait.
const NEAR: Patience = Patience { connect: Duration::from_secs(1), silence: Duration::from_secs(2) };

/// How often a service is asked before it counts as failed.
const ATTEMPTS: u32 = 3;

/// How large an answer may be, in bytes.
const LIMIT: u64 = 256 << 10;

/// Where ECS and EKS have their services; only these and this machine are asked without TLS.
const CONTAINER_HOSTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"];

/// What a service of a container or a machine gives.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

/// For `role`, by the token in `file`, which somebody replaces from time to time; asked for in
/// `region`, or of the service that is for all regions.
pub(super) fn of_web_identity(access: &Access, region: Option<&str>, file: &str, role: &str) -> Result<Found, S3Error> {
    let error = |what: &str, problem: String| S3Error::Settings { what: what.to_owned(), problem };
    let token = std::fs::read_to_string(file).map_err(|problem| error(file, problem.to_string()))?;
    let named = access.sources.get("AWS_ENDPOINT_URL_STS").map(str::to_owned);
    let usual =
        region.map_or("https://sts.amazonaws.com".to_owned(), |region| format!("https://sts.{region}.amazonaws.com"));
    let url = named.unwrap_or(usual);
    let session = access.sources.get("AWS_ROLE_SESSION_NAME").unwrap_or("stowage");
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let form = format!(
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn={}&RoleSessionName={}&WebIdentityToken={}",
        encode(role),
        encode(session),
        encode(token.trim())
    );
    let failed = |problem: String| error(&format!("asking {url} for credentials for {role}"), problem);
    let agent = far(access, &url).map_err(&failed)?;
    let place = format!("{}/", url.trim_end_matches('/'));
    let post = || agent.post(&place).header("content-type", "application/x-www-form-urlencoded").send(&form);
    let text = ask(post).map_err(&failed)?;
    let part = |name: &str| element(&text, name).ok_or_else(|| failed(format!("the answer has no {name}")));
    let (key, secret, token) = (part("AccessKeyId")?, part("SecretAccessKey")?, part("SessionToken")?);
    Ok(Found {
        credentials: Credentials::new_with_token(key, secret, token),
        until: time(element(&text, "Expiration").as_deref()),
        source_of: format!("of the role {role}"),
    })
}

/// Of the container that this runs in, if one was promised.
pub(super) fn of_container(access: &Access) -> Result<Option<Found>, S3Error> {
    let sources = &access.sources;
    let relative = sources.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let url = relative.map(|path| format!("http://{}{path}", CONTAINER_HOSTS[0]));
    let Some(url) = url.or_else(|| sources.get("AWS_CONTAINER_CREDENTIALS_FULL_URI").map(str::to_owned)) else {
        return Ok(None);
    };
    let failed = |problem: String| S3Error::Settings { what: format!("asking {url} for credentials"), problem };
    let origin = Origin::of(&url).ok_or_else(|| failed("that is no URL of HTTP".to_owned()))?;
    if !origin.is_tls && !origin.is_loopback() && !CONTAINER_HOSTS.contains(&&origin.host[..]) {
        return Err(failed("it has no TLS, and is not on this machine".to_owned()));
    }
    let token = match sources.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(file) => Some(std::fs::read_to_string(file).map_err(|error| failed(format!("{file}: {error}")))?),
        None => sources.get("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(str::to_owned),
    };
    let agent = if origin.is_tls { far(access, &url).map_err(&failed)? } else { agent::agent(None, None, NEAR) };
    let get = || match &token {
        Some(token) => agent.get(&url).header("authorization", token.trim()).call(),
        None => agent.get(&url).call(),
    };
    let text = ask(get).map_err(&failed)?;
    found(&text, "of this container").map(Some).map_err(failed)
}

/// Of the machine that this runs on; says what is wrong where it has none.
pub(super) fn of_machine(access: &Access) -> Result<Found, String> {
    let sources = &access.sources;
    if sources.get("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Err("AWS_EC2_METADATA_DISABLED says not to ask the machine for any".to_owned());
    }
    let server = sources.get("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or("http://169.254.169.254");
    let server = server.trim_end_matches('/');
    let agent = agent::agent(None, None, NEAR);
    let asked = |error: String| format!("this is no machine that gives some ({server}: {error})");
    let url = format!("{server}/latest/api/token");
    let put = || agent.put(&url).header("x-aws-ec2-metadata-token-ttl-seconds", "21600").send_empty();
    let token = ask(put).map_err(asked)?;
    let get = |path: &str| {
        let url = format!("{server}/latest/meta-data/iam/security-credentials/{path}");
        ask(|| agent.get(&url).header("x-aws-ec2-metadata-token", &token).call())
    };
    let roles = get("").map_err(asked)?;
    let role = roles.lines().next().unwrap_or_default().trim();
    if role.is_empty() || role.contains('/') {
        return Err("this machine has no role".to_owned());
    }
    found(&get(role).map_err(asked)?, &format!("of this machine's role {role}"))
}

/// What asks a service on the network.
fn far(access: &Access, url: &str) -> Result<Agent, String> {
    let origin = Origin::of(url).ok_or_else(|| "that is no URL of HTTP".to_owned())?;
    if !origin.is_tls && !origin.is_loopback() {
        return Err("it has no TLS, and is not on this machine".to_owned());
    }
    let proxy = access.proxies.of(&origin)?.as_deref().map(ureq::Proxy::new).transpose();
    let proxy = proxy.map_err(|error| error.to_string())?;
    let tls = if origin.is_tls { Some(access.trust.tls(&origin.host)) } else { None };
    let tls = tls.transpose().map_err(|error| error.to_string())?;
    Ok(agent::agent(tls, proxy, FAR))
}

/// What a service answers to `request`, unless it is that something is wrong. What may pass is
/// asked again; whether there is anybody at all is not.
fn ask(mut request: impl FnMut() -> Result<Response<Body>, ureq::Error>) -> Result<String, String> {
    for number in 1.. {
        let (problem, may_pass) = match read(request()) {
            Ok(text) => return Ok(text),
            Err(trouble) => trouble,
        };
        if !may_pass || number >= ATTEMPTS {
            return Err(problem);
        }
        tracing::debug!("{problem}; once more");
        std::thread::sleep(pause(number));
    }
    unreachable!("the loop ends by returning")
}

/// What an answer says; else what is wrong, and whether that may pass.
fn read(answer: Result<Response<Body>, ureq::Error>) -> Result<String, (String, bool)> {
    let trouble = |error: ureq::Error| (agent::explain(&error), may_pass(&error));
    let mut answer = answer.map_err(trouble)?;
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(LIMIT).read_to_vec().map_err(trouble)?;
    if status == 200 {
        return String::from_utf8(body).map_err(|_| ("it is no UTF-8".to_owned(), false));
    }
    let complaint = Complaint::read(status, &body);
    // STS says these two with a status of 400.
    let passes = complaint.may_pass() || matches!(&complaint.code[..], "IDPCommunicationError" | "Throttling");
    Err((complaint.text, passes))
}

/// Whether the same request may have an answer a moment later: not where nobody takes a
/// connection, so that a machine without such a service is soon known.
fn may_pass(error: &ureq::Error) -> bool {
    use std::io::ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable};
    match error {
        ureq::Error::Timeout(timeout) => !matches!(timeout, Timeout::Connect | Timeout::Resolve),
        ureq::Error::Io(problem) => {
            let is_absent =
                matches!(problem.kind(), AddrNotAvailable | ConnectionRefused | HostUnreachable | NetworkUnreachable);
            !is_absent && !agent::is_untrusted(error) && !agent::is_unknown_host(error)
        }
        _ => false,
    }
}

fn found(text: &str, source_of: &str) -> Result<Found, String> {
    let given: Given = serde_json::from_str(text).map_err(|error| format!("the answer is none: {error}"))?;
    let credentials = match given.token {
        Some(token) => Credentials::new_with_token(given.access_key_id, given.secret_access_key, token),
        None => Credentials::new(given.access_key_id, given.secret_access_key),
    };
    Ok(Found { credentials, until: time(given.expiration.as_deref()), source_of: source_of.to_owned() })
}

/// A time as in `2026-11-21T20:00:00Z`.
fn time(text: Option<&str>) -> Option<SystemTime> {
    text?.parse::<Timestamp>().ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsString;

    use super::super::Sources;
    use super::*;
    use crate::registry::tests::server::{Reply, Server};

    fn access(variables: &[(&str, &str)]) -> Access {
        let variables: BTreeMap<OsString, OsString> =
            variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Access { sources: Sources::from_variables(&variables), ..Access::default() }
    }

    const GIVEN: &str =
        r#"{"Code":"Success","AccessKeyId":"K","SecretAccessKey":"S","Token":"T","Expiration":"2030-01-01T00:00:00Z"}"#;

    fn check(found: &Found) {
        assert_eq!((found.credentials.key(), found.credentials.token()), ("K", Some("T")));
        assert_eq!(found.until, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000)));
    }

    #[test]
    fn a_web_identity_is_changed_into_credentials() {
        let xml = "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>K</AccessKeyId><SecretAccessKey>S</SecretAccessKey><SessionToken>T</SessionToken><Expiration>2030-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
        let server = Server::start(move |asked, before| {
            if before == 0 {
                return Reply::of(503);
            }
            let form = String::from_utf8_lossy(&asked.body).into_owned();
            let is_right = form.contains("RoleArn=arn%3Ax") && form.contains("WebIdentityToken=to%2Bken");
            let refusal = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>";
            if is_right { Reply::of(200).body(xml) } else { Reply::of(403).body(refusal) }
        });
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        std::fs::write(&file, "to+ken\n").expect("written");
        let file = file.to_str().expect("UTF-8");
        let access = access(&[("AWS_ENDPOINT_URL_STS", &format!("http://{}", server.host))]);
        check(&of_web_identity(&access, Some("r"), file, "arn:x").expect("given"));
        let error = of_web_identity(&access, Some("r"), file, "arn:y").err().expect("refused").to_string();
        assert!(error.contains("arn:y: AccessDenied no (HTTP 403)"), "{error}");
        assert_eq!(server.count("POST"), 3, "what is refused is not asked again");
    }

    #[test]
    fn containers_and_machines_give_theirs() {
        let server = Server::start(|asked, before| match &asked.line[..] {
            _ if before == 0 => Reply::none(),
            _ if before == 1 => Reply::of(503),
            "GET /task" if asked.header("authorization") == Some("secret") => Reply::of(200).body(GIVEN),
            "PUT /latest/api/token" => Reply::of(200).body("token"),
            _ if asked.header("x-aws-ec2-metadata-token") != Some("token") => Reply::of(401),
            "GET /latest/meta-data/iam/security-credentials/" => Reply::of(200).body("ci\n"),
            "GET /latest/meta-data/iam/security-credentials/ci" => Reply::of(200).body(GIVEN),
            _ => Reply::of(404),
        });
        let url = format!("http://{}", server.host);
        let task = format!("{url}/task");
        let container =
            [("AWS_CONTAINER_CREDENTIALS_FULL_URI", &task[..]), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "secret")];
        check(&of_container(&access(&container)).expect("given").expect("promised"));
        assert!(of_container(&access(&container[..1])).is_err());
        assert!(of_container(&access(&[])).is_ok_and(|found| found.is_none()));
        let far = access(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://10.0.0.1/x")]);
        assert!(of_container(&far).is_err_and(|error| error.to_string().contains("no TLS")));
        check(&of_machine(&access(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &url)])).expect("given"));
    }

    #[test]
    fn a_service_is_asked_three_times_and_one_that_is_not_there_once() {
        let server = Server::start(|_, _| Reply::of(429));
        let url = format!("http://{}", server.host);
        let error = of_machine(&access(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &url)])).err().expect("busy");
        assert!(error.contains("HTTP status 429") && server.asked().len() == 3, "{error}");
        let refused = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let mut count = 0;
        let nobody = ask(|| {
            count += 1;
            Err(ureq::Error::Io(refused()))
        });
        assert!(nobody.is_err() && count == 1);
        for error in [ureq::Error::Timeout(Timeout::PerRead), std::io::Error::from(std::io::ErrorKind::TimedOut).into()]
        {
            assert!(may_pass(&error), "{error}");
        }
        for error in [ureq::Error::Timeout(Timeout::Connect), refused().into(), ureq::Error::HostNotFound] {
            assert!(!may_pass(&error), "{error}");
        }
    }
}
