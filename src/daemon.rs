//! The Docker daemon, asked through its socket.
//!
//! Source: Docker's Engine API 1.41: `/images/load`, `/images/NAME/get`,
//! `/images/NAME/json`, `/images/NAME/tag`.

pub mod socket;

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use ureq::http::Response;
use ureq::{Agent, Body, SendBody};

use crate::digest::Digest;
use crate::image::ImageName;
use crate::registry::RegistryError;
use crate::registry::trust;

/// How much of an answer is read that is only about what went wrong, in bytes.
const MAX_ANSWER: u64 = 1 << 20;

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(15);

/// Where a daemon listens, as `DOCKER_HOST` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DaemonAddress {
    /// A socket.
    Socket(PathBuf),
    /// A host and port, and the folder with `ca.pem`, `cert.pem` and `key.pem` if it
    /// wants TLS.
    Tcp(String, Option<PathBuf>),
    /// Something else.
    Unknown(String),
}

/// Why the daemon does not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Nobody answers.
    #[error("can't reach the Docker daemon at {address}: {problem}{hint}")]
    Unreachable {
        /// Where it should be.
        address: String,
        /// What went wrong.
        problem: String,
        /// What helps.
        hint: &'static str,
    },
    /// It can't, or does not want to.
    #[error("the Docker daemon at {address} fails to {action}: {problem}")]
    Refused {
        /// Where it is.
        address: String,
        /// What was asked.
        action: String,
        /// What it says.
        problem: String,
    },
    /// Certificates that can't be used.
    #[error(transparent)]
    Certificate(#[from] RegistryError),
}

impl Default for DaemonAddress {
    fn default() -> Self {
        Self::Socket("/var/run/docker.sock".into())
    }
}

impl DaemonAddress {
    /// What `DOCKER_HOST` says; `certificates` is a folder with some, if TLS is wanted.
    #[must_use]
    pub fn parse(text: &str, certificates: Option<PathBuf>) -> Self {
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Self::Socket(path.into()),
            Some(("tcp", host)) if !host.is_empty() => {
                let host = host.trim_end_matches('/');
                let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
                let usual = if certificates.is_some() { ":2376" } else { ":2375" };
                Self::Tcp(format!("{host}{}", if has_port { "" } else { usual }), certificates)
            }
            _ => Self::Unknown(text.to_owned()),
        }
    }
}

impl std::fmt::Display for DaemonAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(formatter, "{}", path.display()),
            Self::Tcp(host, _) => write!(formatter, "tcp://{host}"),
            Self::Unknown(text) => formatter.write_str(text),
        }
    }
}

/// A Docker daemon.
#[derive(Clone)]
pub struct Daemon {
    address: String,
    base: String,
    agent: Agent,
}

impl Daemon {
    /// The daemon at `address`; nothing is asked yet.
    ///
    /// # Errors
    /// When nobody can be asked there.
    pub fn new(address: &DaemonAddress) -> Result<Self, DaemonError> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("stowage/", env!("CARGO_PKG_VERSION")))
            .proxy(None)
            // A load takes as long as it takes; the socket tells when the daemon goes.
            .timeout_connect(Some(CONNECT));
        let (base, agent) = match address {
            DaemonAddress::Socket(path) => ("http://docker".to_owned(), socket::agent(config.build(), path)),
            DaemonAddress::Tcp(host, None) => (format!("http://{host}"), config.build().new_agent()),
            DaemonAddress::Tcp(host, Some(folder)) => {
                let tls = trust::of_docker(folder)?;
                (format!("https://{host}"), config.tls_config(tls).build().new_agent())
            }
            DaemonAddress::Unknown(text) => {
                return Err(DaemonError::Unreachable {
                    address: text.clone(),
                    problem: "DOCKER_HOST is neither unix:///PATH nor tcp://HOST:PORT".to_owned(),
                    hint: "; set it to one of these, or pipe into `docker load`: docker-archive:-",
                });
            }
        };
        Ok(Self { address: address.to_string(), base, agent })
    }

    /// Whether the daemon has the image with that config.
    ///
    /// # Errors
    /// When it does not say.
    pub fn has(&self, id: &Digest) -> Result<bool, DaemonError> {
        let answer = self.agent.get(format!("{}/images/{id}/json", self.base)).call();
        let answer = answer.map_err(|error| self.unreachable(&error))?;
        match answer.status().as_u16() {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(self.refused("look for an image", answer)),
        }
    }

    /// Calls an image that it has `name`.
    ///
    /// # Errors
    /// When it does not.
    pub fn tag(&self, id: &Digest, name: &ImageName) -> Result<(), DaemonError> {
        let request = self.agent.post(format!("{}/images/{id}/tag", self.base));
        let request = request.query("repo", &name.repository).query("tag", &name.tag);
        let answer = request.send_empty().map_err(|error| self.unreachable(&error))?;
        match answer.status().as_u16() {
            201 => Ok(()),
            _ => Err(self.refused(&format!("call an image {name}"), answer)),
        }
    }

    /// Has it load a docker archive, while that is made.
    ///
    /// # Errors
    /// When it does not.
    pub fn load(&self, archive: &mut dyn Read) -> Result<(), DaemonError> {
        let request = self.agent.post(format!("{}/images/load", self.base));
        let request = request.query("quiet", "1").content_type("application/x-tar");
        let mut answer = request.send(SendBody::from_reader(archive)).map_err(|error| self.unreachable(&error))?;
        if answer.status() != 200 {
            return Err(self.refused("load the image", answer));
        }
        // What goes wrong later is told in the answer, which is 200 already.
        let text = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
        let text = text.map_err(|error| self.unreachable(&error))?;
        let values = text.split(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).unwrap_or_default());
        let values: Vec<serde_json::Value> = values.collect();
        let said = |key: &'static str| values.iter().filter_map(move |value| value[key].as_str());
        let problem = match said("error").next() {
            Some(problem) => problem.to_owned(),
            None if said("stream").any(|text| text.contains("Loaded image")) => return Ok(()),
            None => "it does not say that it has loaded any; see its log".to_owned(),
        };
        let (address, action) = (self.address.clone(), "load the image".to_owned());
        Err(DaemonError::Refused { address, action, problem })
    }

    /// The image `name` as a docker archive.
    ///
    /// # Errors
    /// When it has none.
    pub fn save(&self, name: &ImageName) -> Result<impl Read + use<>, DaemonError> {
        let action = format!("save the image {name}");
        let answer = self.agent.get(format!("{}/images/{name}/get", self.base)).call();
        let answer = answer.map_err(|error| self.unreachable(&error))?;
        if answer.status() != 200 {
            return Err(self.refused(&action, answer));
        }
        Ok(answer.into_body().into_with_config().limit(u64::MAX).reader())
    }

    fn unreachable(&self, error: &ureq::Error) -> DaemonError {
        let problem = match error {
            ureq::Error::Io(error) => error.to_string(),
            other => other.to_string(),
        };
        let hint = match error {
            ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                "; only root and the members of the group docker may ask it"
            }
            ureq::Error::Io(error)
                if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) =>
            {
                "; does it run, and there? DOCKER_HOST names another place"
            }
            _ => "; see its log",
        };
        DaemonError::Unreachable { address: self.address.clone(), problem, hint }
    }

    fn refused(&self, action: &str, mut answer: Response<Body>) -> DaemonError {
        let body = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec().unwrap_or_default();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let problem =
            value["message"].as_str().map_or_else(|| format!("HTTP status {}", answer.status()), str::to_owned);
        DaemonError::Refused { address: self.address.clone(), action: action.to_owned(), problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_host_names_sockets_and_hosts() {
        let parse = |text| DaemonAddress::parse(text, None);
        assert_eq!(parse("unix:///run/x.sock"), DaemonAddress::Socket("/run/x.sock".into()));
        assert_eq!(parse("tcp://docker:2375"), DaemonAddress::Tcp("docker:2375".to_owned(), None));
        assert_eq!(parse("tcp://docker"), DaemonAddress::Tcp("docker:2375".to_owned(), None));
        for text in ["ssh://a", "fd://", "", "unix://", "tcp://"] {
            let error = Daemon::new(&parse(text)).err().expect("unknown").to_string();
            assert!(error.contains("neither unix"), "{error}");
        }
    }
}
