//! Where URLs lead: who is asked, and whether by TLS.
//!
//! Source: RFC 3986, section 5 (relative references) and RFC 6454 (origins).

use core::net::IpAddr;

use ureq::http::Uri;

/// Who answers for a URL. Two URLs of one origin reach the same server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Whether it is reached by TLS.
    pub is_tls: bool,
    /// The host in small letters; an IPv6 address in brackets.
    pub host: String,
    /// The port, the scheme's own where none is written.
    pub port: u16,
}

impl Origin {
    /// That of an absolute URL of HTTP. One that says who asks has none: those are not for
    /// others to choose.
    #[must_use]
    pub fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let is_tls = match uri.scheme_str()?.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        let host = authority.host().to_ascii_lowercase();
        // `r.example:` has no port either.
        let is_bare = authority.as_str().trim_end_matches(':').len() == host.len();
        let port = if is_bare { default_port(is_tls) } else { authority.port_u16()? };
        (!host.is_empty()).then_some(Self { is_tls, host, port })
    }

    /// Whether it is this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// The address that the host is, if it is no name.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }

    /// Whether a URL of `other`, which a registry gave that is reached here, means that registry:
    /// behind a proxy registries do not always know that there is TLS.
    fn is_meant_by(&self, other: &Self) -> bool {
        let is_usual = |origin: &Self| origin.port == default_port(origin.is_tls);
        self.host == other.host && (self.port == other.port || is_usual(self) && is_usual(other))
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.host)?;
        if self.port == default_port(self.is_tls) { Ok(()) } else { write!(formatter, ":{}", self.port) }
    }
}

fn default_port(is_tls: bool) -> u16 {
    if is_tls { 443 } else { 80 }
}

/// What `reference`, as in the header `Location`, means in an answer from the URL `at`.
#[must_use]
pub fn resolve(at: &str, reference: &str) -> String {
    if scheme(reference).is_some() {
        return reference.to_owned();
    }
    let (scheme, rest) = at.split_once("://").unwrap_or(("https", at));
    if reference.starts_with("//") {
        return format!("{scheme}:{reference}");
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, at_path) = rest.split_at(end);
    let at_path = at_path.split('#').next().unwrap_or_default();
    let (path, query) = reference.find('?').map_or((reference, ""), |at| reference.split_at(at));
    let old = at_path.split('?').next().unwrap_or_default();
    let path = match path {
        "" if query.is_empty() => at_path.to_owned(),
        "" => old.to_owned(),
        _ if path.starts_with('/') => without_dots(path),
        _ => without_dots(&format!("{}/{path}", old.rsplit_once('/').map_or("", |(folder, _)| folder))),
    };
    format!("{scheme}://{authority}{path}{query}")
}

/// The scheme of an absolute URL; `://` in a query is none.
fn scheme(url: &str) -> Option<&str> {
    let (scheme, _) = url.split_once("://")?;
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let begins_right = scheme.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    (begins_right && scheme.bytes().all(is_letter)).then_some(scheme)
}

/// Section 5.2.4, for paths that begin with `/`.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    for (number, part) in parts.iter().enumerate() {
        match *part {
            "." | ".." => {
                if *part == ".." {
                    kept.pop();
                }
                if number + 1 == parts.len() {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

/// `url`, which the registry at `base` gave, as that registry is reached; those of others are
/// as they were.
#[must_use]
pub fn as_reached(base: &str, url: &str) -> String {
    match (Origin::of(base), Origin::of(url)) {
        (Some(own), Some(other)) if own.is_meant_by(&other) => {
            let (_, rest) = url.split_once("://").unwrap_or_default();
            format!("{base}{}", rest.find(['/', '?']).map_or("", |at| &rest[at..]))
        }
        _ => url.to_owned(),
    }
}

/// Whether a host, perhaps with a port, is this machine.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000", "LOCALHOST"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "128.0.0.1", "[::2]:80", "127.0.0.1.example", "r.example:5000"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn case_and_default_ports_make_no_other_origin() {
        let own = Origin::of("https://r.example/v2/").expect("an origin");
        assert_eq!(Origin::of("HTTPS://R.Example:443/x?y=http://z"), Some(own.clone()));
        assert_eq!(own.to_string(), "r.example");
        for other in ["http://r.example", "https://r.example:5000", "https://r.example.evil/", "https://s.example"] {
            let other = Origin::of(other).expect(other);
            assert_ne!(other, own);
        }
        assert_eq!(Origin::of("http://[::1]:80/").expect("an origin").host, "[::1]");
        for none in ["https://r.example@evil.example/", "ftp://r.example/", "/v2/", "https:///x", "https://r:x/", ""] {
            assert_eq!(Origin::of(none), None, "{none}");
        }
    }

    #[test]
    fn references_are_resolved_as_rfc_3986_has_it() {
        // Section 5.4, but for fragments and parameters.
        let at = "http://a/b/c/d;p?q";
        for (reference, expected) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../../g", "http://a/g"),
            ("../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("./../g", "http://a/b/g"),
            ("g?y/../x", "http://a/b/c/g?y/../x"),
            ("https://g/h", "https://g/h"),
            ("/x?to=https://y/", "http://a/x?to=https://y/"),
        ] {
            assert_eq!(resolve(at, reference), expected, "{reference}");
        }
        assert_eq!(resolve("https://r.example", "u?x"), "https://r.example/u?x");
    }

    #[test]
    fn urls_of_uploads_are_meant_as_the_registry_is_reached() {
        for (base, url, expected) in [
            ("https://r.example:5000", "http://r.example:5000/v2/a", "https://r.example:5000/v2/a"),
            ("https://r.example", "http://r.example/v2/a?b=c://d", "https://r.example/v2/a?b=c://d"),
            ("https://r.example", "https://R.example:443/v2/a", "https://r.example/v2/a"),
            ("https://r.example:5000", "http://r.example/v2/a", "http://r.example/v2/a"),
            ("https://r.example:5000", "https://store.example/x", "https://store.example/x"),
            (
                "https://r.example:5000",
                "https://r.example:5000@evil.example/v2",
                "https://r.example:5000@evil.example/v2",
            ),
        ] {
            assert_eq!(as_reached(base, url), expected);
        }
    }
}
