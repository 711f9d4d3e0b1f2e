//! Which proxy a server is asked by.
//!
//! Source: Go's `golang.org/x/net/http/httpproxy`, so that docker, podman and
//! skopeo go the same way; `ALL_PROXY`, which Go does not know, is curl's.

use ipnet::IpNet;

use super::origin::Origin;

/// The proxies that the environment names.
// Their passwords have no business in logs.
#[derive(Clone, Default)]
pub struct Proxies {
    /// For HTTP without TLS: `http_proxy`.
    pub http: Option<String>,
    /// For HTTP with TLS: `https_proxy`.
    pub https: Option<String>,
    /// Where there is none of its own: `all_proxy`.
    pub all: Option<String>,
    /// Who is asked without any: `no_proxy`.
    pub none_for: Option<String>,
}

impl Proxies {
    /// The URL of the proxy by which `to` is asked; this machine is asked without.
    ///
    /// # Errors
    /// When that proxy is none that can be used; says why.
    pub fn of(&self, to: &Origin) -> Result<Option<String>, String> {
        let own = if to.is_tls { &self.https } else { &self.http };
        let named = own.as_deref().or(self.all.as_deref()).map(str::trim).filter(|proxy| !proxy.is_empty());
        let Some(named) = named.filter(|_| !to.is_loopback() && !self.is_without(to)) else {
            return Ok(None);
        };
        let (scheme, rest) = named.split_once("://").unwrap_or(("http", named));
        let scheme = scheme.to_ascii_lowercase();
        let host = without_password(rest);
        if scheme != "http" && scheme != "https" {
            let problem = "stowage knows proxies of HTTP only; name one of those by HTTPS_PROXY, or none";
            return Err(format!("the proxy {scheme}://{host} can't be used: {problem}"));
        }
        Ok(Some(format!("{scheme}://{rest}")))
    }

    fn is_without(&self, to: &Origin) -> bool {
        self.none_for.iter().flat_map(|list| list.split(',')).any(|entry| means(entry, to))
    }
}

/// The proxy's host and port, for messages.
#[must_use]
pub fn shown(proxy: &str) -> &str {
    without_password(proxy.split_once("://").map_or(proxy, |(_, rest)| rest))
}

fn without_password(rest: &str) -> &str {
    rest.rsplit_once('@').map_or(rest, |(_, host)| host)
}

/// Whether an entry of `no_proxy` means `to`.
fn means(entry: &str, to: &Origin) -> bool {
    let entry = entry.trim().to_ascii_lowercase();
    if entry.is_empty() || entry == "*" {
        return entry == "*";
    }
    if let (Ok(network), Some(address)) = (entry.parse::<IpNet>(), to.address()) {
        return network.contains(&address);
    }
    let (host, port) = match entry.rsplit_once(':') {
        // An IPv6 address without brackets has no port.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse::<u16>().ok()),
        _ => (entry.as_str(), None),
    };
    if port.is_some_and(|port| port != to.port) {
        return false;
    }
    if let Some(address) = to.address() {
        return host.trim_start_matches('[').trim_end_matches(']').parse() == Ok(address);
    }
    // `.a.example` and `*.a.example` mean the hosts below, and `a.example` itself as well.
    let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
    match host.strip_prefix('.') {
        Some(_) => to.host.ends_with(host),
        None => to.host == host || to.host.strip_suffix(host).is_some_and(|rest| rest.ends_with('.')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(none_for: &str) -> Proxies {
        Proxies {
            http: Some("http://plain.example:1".to_owned()),
            https: Some("tls.example:2".to_owned()),
            all: Some("http://all.example:3".to_owned()),
            none_for: Some(none_for.to_owned()),
        }
    }

    fn of(proxies: &Proxies, url: &str) -> Option<String> {
        proxies.of(&Origin::of(url).expect(url)).expect("usable")
    }

    #[test]
    fn each_scheme_has_a_proxy_of_its_own() {
        let all = proxies("");
        assert_eq!(of(&all, "https://r.example").as_deref(), Some("http://tls.example:2"));
        assert_eq!(of(&all, "http://r.example").as_deref(), Some("http://plain.example:1"));
        for own in ["http://localhost:5000", "https://127.0.0.1", "http://[::1]:80"] {
            assert_eq!(of(&all, own), None, "{own}");
        }
        let only = Proxies { http: None, ..proxies("") };
        assert_eq!(of(&only, "http://r.example").as_deref(), Some("http://all.example:3"));
        let only = Proxies { https: all.https, ..Proxies::default() };
        assert_eq!(of(&only, "http://r.example"), None);
    }

    #[test]
    fn no_proxy_is_read_as_go_reads_it() {
        for (list, url) in [
            ("*", "https://r.example"),
            ("a.example, r.example ", "https://r.example"),
            ("Example", "https://r.example"),
            (".example", "https://r.example"),
            ("*.example", "https://r.example"),
            ("r.example:443", "https://r.example"),
            ("10.0.0.0/8", "https://10.1.2.3:5000"),
            ("10.1.2.3", "https://10.1.2.3:5000"),
            ("10.1.2.3:5000", "https://10.1.2.3:5000"),
            ("fd00::/8", "https://[fd00::1]:5000"),
            ("fd00::1", "https://[fd00::1]:5000"),
            ("[fd00::1]:5000", "https://[fd00::1]:5000"),
        ] {
            assert_eq!(of(&proxies(list), url), None, "{list} {url}");
        }
        for (list, url) in [
            ("", "https://r.example"),
            (",", "https://r.example"),
            ("ample", "https://r.example"),
            (".r.example", "https://r.example"),
            ("r.example:80", "https://r.example"),
            ("11.0.0.0/8", "https://10.1.2.3"),
            ("10.1.2.3:80", "https://10.1.2.3"),
        ] {
            assert!(of(&proxies(list), url).is_some(), "{list} {url}");
        }
    }

    #[test]
    fn a_proxy_of_another_kind_is_not_passed_by() {
        let socks = Proxies { all: Some("socks5h://ann:secret@p.example:1080".to_owned()), ..Proxies::default() };
        let error = socks.of(&Origin::of("https://r.example").expect("an origin")).expect_err("socks");
        assert!(error.contains("socks5h://p.example:1080") && !error.contains("secret"), "{error}");
    }
}
