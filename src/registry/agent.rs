//! What sends requests over HTTP, to registries and to buckets.

use std::time::Duration;

use ureq::tls::TlsConfig;
use ureq::{Agent, Proxy};

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For something to happen on it.
    pub silence: Duration,
}

/// What sends requests by `proxy`, and with TLS as `tls` says. Redirects are left to whoever
/// asks, since each may lead to somebody who has no business with a password.
#[must_use]
pub fn agent(tls: Option<TlsConfig>, proxy: Option<Proxy>, patience: Patience) -> Agent {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .user_agent(concat!("stowage/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .max_redirects(0)
        .max_idle_connections(32)
        .max_idle_connections_per_host(16)
        .timeout_connect(Some(patience.connect))
        .timeout_per_read(Some(patience.silence))
        .timeout_per_write(Some(patience.silence))
        .proxy(proxy);
    if let Some(tls) = tls {
        config = config.tls_config(tls);
    }
    config.build().new_agent()
}

/// What an error says, without the words of the library around it.
#[must_use]
pub fn explain(error: &ureq::Error) -> String {
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

/// Whether an error says that whoever answers is not to be trusted.
#[must_use]
pub fn is_untrusted(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::Pem(_))
        || matches!(error, ureq::Error::Io(_)) && explain(error).contains("certificate")
}

/// Whether an error says that nobody has such a name, unlike a server of names that does not
/// answer.
#[must_use]
pub fn is_unknown_host(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::HostNotFound)
        || matches!(error, ureq::Error::Io(_)) && explain(error).contains("Name or service not known")
}
