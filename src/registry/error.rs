//! Why a registry does not give or take something.

use std::path::PathBuf;

use serde::Deserialize;

use super::name::RepositoryName;

/// Why something can't be had from a registry, or put there.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Nobody answers.
    #[error("can't reach the registry {host}: {problem}; is the name right, and does it run?")]
    Unreachable {
        /// The registry.
        host: String,
        /// What went wrong.
        problem: String,
    },
    /// Somebody answers who can't prove to be that registry.
    #[error(
        "the registry {host} is not trusted: {problem}; put the certificate of its authority into /etc/docker/certs.d/{host}/ca.crt, or name it by SSL_CERT_FILE; a registry without TLS has to be named by --plain-http {host}"
    )]
    Untrusted {
        /// The registry.
        host: String,
        /// What is wrong.
        problem: String,
    },
    /// A file of credentials, or of certificates, that can't be used.
    #[error("{path}: {problem}", path = path.display())]
    Settings {
        /// The file, or the helper's name.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The registry wants to know who asks, or does not let that one.
    #[error("the registry {host} refuses to {action}: {problem}{}", denied_hint(*known, host))]
    Denied {
        /// The registry.
        host: String,
        /// What was asked.
        action: String,
        /// What it says.
        problem: String,
        /// Whether it was told who asks.
        known: bool,
    },
    /// There is no such thing.
    #[error("the registry {host} can't {action}: {problem}")]
    Missing {
        /// The registry.
        host: String,
        /// What was asked.
        action: String,
        /// What it says.
        problem: String,
    },
    /// It has no room.
    #[error("the registry {host} is full, and can't {action}: {problem}; make room there, and run this again")]
    Full {
        /// The registry.
        host: String,
        /// What was asked.
        action: String,
        /// What it says.
        problem: String,
    },
    /// It fails, again and again, or says what nobody expects.
    #[error("the registry {host} fails to {action}: {problem}")]
    Failed {
        /// The registry.
        host: String,
        /// What was asked.
        action: String,
        /// What it says.
        problem: String,
    },
    /// It gives other bytes than were asked for.
    #[error("the registry has other bytes for {what} of {at} than its digest says; push that image again")]
    Damaged {
        /// The repository.
        at: RepositoryName,
        /// What was asked for.
        what: String,
    },
    /// An upload that has to begin anew, from its first byte.
    #[error("the registry {host} has lost an upload, again and again: {problem}; its log may say why")]
    Lost {
        /// The registry.
        host: String,
        /// What it says.
        problem: String,
    },
}

fn denied_hint(known: bool, host: &str) -> String {
    if known {
        format!("; are user and password for {host} right, and may that user do this?")
    } else {
        format!("; log in first: `docker login {host}` or `podman login {host}`")
    }
}

/// The body of an error: OCI distribution-spec 1.1, "Error Codes".
#[derive(Deserialize)]
struct Body {
    errors: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    detail: serde_json::Value,
}

/// What a registry said of a failure.
#[derive(Clone, Debug)]
pub struct Complaint {
    /// The HTTP status.
    pub status: u16,
    /// The codes of its errors.
    pub codes: Vec<String>,
    /// For people.
    pub text: String,
    /// Whether there is no room for more.
    is_full: bool,
}

/// How many letters of what somebody says are shown.
const MOST_LETTERS: usize = 500;

impl Complaint {
    /// Reads the body of an answer of that status.
    #[must_use]
    pub fn read(status: u16, body: &[u8]) -> Self {
        let parsed = serde_json::from_slice(body).unwrap_or(Body { errors: Vec::new() });
        let is_full = is_full(status, &parsed.errors, body);
        let print = |entry: &Entry| {
            let detail = match &entry.detail {
                serde_json::Value::Null => String::new(),
                serde_json::Value::String(text) => format!(" ({text})"),
                other => format!(" ({other})"),
            };
            plain(format!("{} {}{detail}", entry.code, entry.message).as_bytes())
        };
        let said: Vec<String> = parsed.errors.iter().map(print).collect();
        let text = if said.is_empty() { plain(body) } else { plain(said.join("; ").as_bytes()) };
        let text = if text.is_empty() { format!("HTTP status {status}") } else { format!("{text} (HTTP {status})") };
        Self { status, codes: parsed.errors.into_iter().map(|entry| entry.code).collect(), text, is_full }
    }

    /// Whether one of its errors has that code.
    #[must_use]
    pub fn has_code(&self, code: &str) -> bool {
        self.codes.iter().any(|own| own == code)
    }

    /// Whether the same request may work a little later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self.status, 408 | 425 | 429 | 500 | 502..=504) && !self.is_full
    }

    /// The error, when `host` was asked to do `action`; `known` says whether it knew by whom.
    #[must_use]
    pub fn into_error(self, host: &str, action: &str, known: bool) -> RegistryError {
        let (host, action) = (host.to_owned(), action.to_owned());
        let is_denied = self.has_code("DENIED") || self.has_code("UNAUTHORIZED");
        let Self { status, text: problem, is_full, .. } = self;
        match status {
            _ if is_full => RegistryError::Full { host, action, problem },
            401 | 403 => RegistryError::Denied { host, action, problem, known },
            _ if is_denied => RegistryError::Denied { host, action, problem, known },
            404 => RegistryError::Missing { host, action, problem },
            _ => RegistryError::Failed { host, action, problem },
        }
    }
}

/// Whether a registry says that there is no room for more: by 507, or in words. What details say
/// of rules is no sign of it, but for the errno of distribution's disk, 28 or 122.
fn is_full(status: u16, errors: &[Entry], body: &[u8]) -> bool {
    if !matches!(status, 403 | 413 | 500 | 507) {
        return false;
    }
    let says = |text: &str| {
        let text = text.to_ascii_lowercase();
        text.contains("no space left") || text.contains("quota")
    };
    let of_disk = |entry: &Entry| {
        let detail = entry.detail.to_string();
        let errno = |number: &str| ["}", ","].iter().any(|end| detail.contains(&format!("\"Err\":{number}{end}")));
        errno("28") || errno("122") || detail.contains("no space left")
    };
    let in_words = errors.iter().any(|entry| says(&entry.code) || says(&entry.message) || of_disk(entry));
    status == 507 || in_words || errors.is_empty() && says(&String::from_utf8_lossy(body))
}

/// What somebody says, on one line, not too much of it, and without what terminals obey.
#[must_use]
pub fn plain(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // Some letters turn the direction of those after them.
    let turns =
        |letter: char| matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    line.chars().filter(|letter| !letter.is_control() && !turns(*letter)).take(MOST_LETTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_a_failure_that_passes() {
        let full = br#"{"errors":[{"code":"UNKNOWN","message":"unknown error","detail":{"DriverName":"filesystem","Enclosed":{"Op":"write","Path":"/x","Err":28}}}]}"#;
        let full = Complaint::read(500, full);
        assert!(!full.may_pass());
        assert!(matches!(full.into_error("r", "x", false), RegistryError::Full { .. }));
        assert!(Complaint::read(500, b"oops").may_pass());
        assert!(Complaint::read(429, b"").may_pass());
        assert!(!Complaint::read(400, b"").may_pass());
    }

    #[test]
    fn what_a_registry_says_is_passed_on() {
        let body = br#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry","detail":{"name":"a"}}]}"#;
        let error = Complaint::read(404, body).into_error("r:1", "read the manifest x", false).to_string();
        assert!(error.contains("NAME_UNKNOWN repository name not known"), "{error}");
        let error = Complaint::read(502, b"<html>\n<b>Bad</b>\x1b[31m</html>").into_error("r", "x", false).to_string();
        assert!(error.contains("<html> <b>Bad</b>[31m</html> (HTTP 502)"), "{error}");
        let denied = |known| Complaint::read(401, b"").into_error("r", "x", known).to_string();
        assert!(denied(false).contains("docker login r"), "{}", denied(false));
        assert!(denied(true).contains("password for r right"), "{}", denied(true));
    }

    #[test]
    fn only_what_says_so_is_full() {
        let is_full = |status, body: &str| {
            let error = Complaint::read(status, body.as_bytes()).into_error("r", "x", false);
            matches!(error, RegistryError::Full { .. })
        };
        let said = |message: &str, detail: &str| {
            format!(r#"{{"errors":[{{"code":"DENIED","message":"{message}","detail":"{detail}"}}]}}"#)
        };
        assert!(is_full(403, &said("Quota exceeded for the project", "")));
        assert!(is_full(500, "write: no space left on device"));
        assert!(is_full(507, ""));
        assert!(!is_full(403, &said("no", "see the policy on quotas")));
        for status in [400, 401, 404, 429, 503] {
            assert!(!is_full(status, &said("quota", "")), "{status}");
        }
    }

    #[test]
    fn what_a_registry_says_can_do_nothing_to_a_terminal() {
        let message = "a\\u001b[2Jb\\r\\nc\\u202ed".to_owned() + &"x".repeat(1000);
        let body = format!(r#"{{"errors":[{{"code":"UNKNOWN","message":"{message}"}}]}}"#);
        let text = Complaint::read(400, body.as_bytes()).text;
        assert!(text.starts_with("UNKNOWN a[2Jb cdxxx") && text.len() < 600, "{text:?}");
    }
}
