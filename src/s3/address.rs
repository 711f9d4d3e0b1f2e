//! Where a bucket is, as Nix writes it: `s3://BUCKET?endpoint=HOST&region=REGION`.
//!
//! Source: Nix's manual, "S3 Binary Cache Store".

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rusty_s3::UrlStyle;

use super::S3Error;

/// How the address of a bucket begins.
pub const SCHEME: &str = "s3://";

/// Where AWS has buckets about which nobody says more, and what servers elsewhere often call
/// themselves. Nix's own default.
pub const USUAL_REGION: &str = "us-east-1";

/// What is encoded in a parameter: all but RFC 3986's unreserved letters, and what hosts and
/// ports are made of.
const RESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':').remove(b'/');

/// What an address can say.
const PARAMETERS: [&str; 5] = ["endpoint", "region", "profile", "scheme", "addressing-style"];

/// Where a bucket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Its name.
    pub bucket: String,
    /// The host, with its port, that has it; `None` for AWS.
    pub endpoint: Option<String>,
    /// The region that was named.
    pub region: Option<String>,
    /// The profile whose credentials are used.
    pub profile: Option<String>,
    /// Whether it is reached by TLS.
    pub is_tls: bool,
    /// Whether the bucket's name is in the path of URLs, and not in their host.
    pub is_path_style: bool,
}

impl Address {
    /// The URL of the server that has it.
    #[must_use]
    pub fn server(&self, region: &str) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        match &self.endpoint {
            Some(endpoint) => format!("{scheme}://{endpoint}"),
            None => format!("{scheme}://s3.{region}.amazonaws.com"),
        }
    }

    /// In which way URLs name it.
    #[must_use]
    pub fn style(&self) -> UrlStyle {
        if self.is_path_style { UrlStyle::Path } else { UrlStyle::VirtualHost }
    }

    /// What Nix takes as the URL of a store, with `more` parameters. The region that is used is
    /// named, since Nix asks no variable for it.
    #[must_use]
    pub fn to_nix(&self, region: &str, more: &[String]) -> String {
        let address = Self { region: Some(region.to_owned()), ..self.clone() };
        let separator = if more.is_empty() { "" } else { "&" };
        format!("{address}{separator}{}", more.join("&"))
    }

    /// The parameters that differ from what is usual, as Nix calls them.
    fn parameters(&self) -> Vec<(&'static str, &str)> {
        let mut parameters = Vec::new();
        parameters.extend(self.endpoint.as_deref().map(|endpoint| ("endpoint", endpoint)));
        parameters.extend(self.region.as_deref().map(|region| ("region", region)));
        parameters.extend(self.profile.as_deref().map(|profile| ("profile", profile)));
        parameters.extend((!self.is_tls).then_some(("scheme", "http")));
        if self.is_path_style != is_usually_path_style(&self.bucket, self.endpoint.as_deref()) {
            parameters.push(("addressing-style", if self.is_path_style { "path" } else { "virtual" }));
        }
        parameters
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{SCHEME}{}", self.bucket)?;
        for (number, (name, value)) in self.parameters().into_iter().enumerate() {
            let separator = if number == 0 { '?' } else { '&' };
            write!(formatter, "{separator}{name}={}", utf8_percent_encode(value, RESERVED))?;
        }
        Ok(())
    }
}

impl FromStr for Address {
    type Err = S3Error;

    fn from_str(text: &str) -> Result<Self, S3Error> {
        let error = |problem: &str| S3Error::Address { text: text.to_owned(), problem: problem.to_owned() };
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| error("it does not begin with s3://"))?;
        let (bucket, query) = rest.split_once('?').unwrap_or((rest, ""));
        let bucket = bucket.strip_suffix('/').unwrap_or(bucket);
        if bucket.contains('/') {
            return Err(error("a cache is a whole bucket, since Nix knows no folders in one"));
        }
        if !is_bucket(bucket) {
            return Err(error(
                "a bucket's name has 3 to 63 small letters, digits, dots and dashes, and begins and ends with a letter or digit",
            ));
        }
        let mut parameters = parameters(query).map_err(|problem| error(&problem))?;
        let [endpoint, region, profile, scheme, style] = PARAMETERS.map(|name| parameters.remove(name));
        if let Some(region) = region.as_deref().filter(|region| !is_region(region)) {
            return Err(error(&format!("its region {region:?} is none: {REGION_RULE}")));
        }
        let (endpoint, written) = split_endpoint(endpoint);
        let is_tls = match scheme.as_deref().or(written.as_deref()) {
            None | Some("https") => true,
            Some("http") => false,
            Some(_) => return Err(error("its scheme is neither https nor http")),
        };
        let is_path_style = match style.as_deref() {
            None | Some("auto") => is_usually_path_style(bucket, endpoint.as_deref()),
            Some("path") => true,
            Some("virtual") => false,
            Some(_) => return Err(error("its addressing-style is not one of path, virtual and auto")),
        };
        if endpoint.as_deref().is_some_and(|endpoint| endpoint.contains(['/', '?', '#', '@', ' '])) {
            return Err(error("its endpoint is no HOST or HOST:PORT"));
        }
        Ok(Self { bucket: bucket.to_owned(), endpoint, region, profile, is_tls, is_path_style })
    }
}

/// The parameters of an address. One without a value is likely from a variable that is not set:
/// to do without it would be to take another bucket than somebody means.
fn parameters(query: &str) -> Result<BTreeMap<&str, String>, String> {
    let mut parameters = BTreeMap::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if !PARAMETERS.contains(&name) {
            return Err(format!("{name} is not one of the parameters {}", PARAMETERS.join(", ")));
        }
        let value = percent_decode_str(value).decode_utf8().map_err(|_| format!("its {name} is no UTF-8"))?;
        if value.is_empty() {
            return Err(format!("its {name} has no value; give it one, or leave it out"));
        }
        if parameters.insert(name, value.into_owned()).is_some() {
            return Err(format!("its {name} is there twice; leave one out"));
        }
    }
    Ok(parameters)
}

/// The host of an endpoint, and the scheme if it was written as a URL.
fn split_endpoint(endpoint: Option<String>) -> (Option<String>, Option<String>) {
    let Some(text) = endpoint else { return (None, None) };
    match text.split_once("://") {
        Some((scheme, host)) => (Some(host.trim_end_matches('/').to_owned()), Some(scheme.to_ascii_lowercase())),
        None => (Some(text), None),
    }
}

/// In which way a bucket is reached of which nobody says so. Not all servers elsewhere know the
/// other one; and AWS's certificates are for hosts that have no further dots.
fn is_usually_path_style(bucket: &str, endpoint: Option<&str>) -> bool {
    endpoint.is_some() || bucket.contains('.')
}

/// Whether a bucket can be called so, which rules out all that would be another path or host.
fn is_bucket(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| is_letter(*byte) || matches!(byte, b'.' | b'-' | b'_'))
        && is_letter(bytes[0])
        && bytes.last().is_some_and(|last| is_letter(*last))
        && !name.contains("..")
}

/// What [`is_region`] says.
pub(super) const REGION_RULE: &str = "regions have letters, digits, dashes and underscores only, as eu-west-1";

/// Whether a region can be called so. It becomes a part of hosts, where a dot would lead elsewhere.
#[must_use]
pub fn is_region(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !name.is_empty() && name.bytes().all(is_letter)
}

/// Whether `text` is meant to be a bucket's address.
#[must_use]
pub fn is_address(text: &str) -> bool {
    text.starts_with(SCHEME)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Address {
        text.parse().expect(text)
    }

    #[test]
    fn addresses_are_those_of_nix() {
        let aws = parse("s3://team-cache");
        assert_eq!(aws.server("eu-west-1"), "https://s3.eu-west-1.amazonaws.com");
        assert!(aws.is_tls && !aws.is_path_style);
        let own = parse("s3://cache?endpoint=127.0.0.1:3900&scheme=http&region=garage&profile=ci%20x");
        assert_eq!(own.server("garage"), "http://127.0.0.1:3900");
        assert_eq!((own.is_path_style, own.profile.as_deref()), (true, Some("ci x")));
        assert_eq!(parse("s3://cache?endpoint=http://h:1/"), parse("s3://cache?endpoint=h:1&scheme=http"));
        assert!(parse("s3://cache/?addressing-style=path").is_path_style);
        assert!(!parse("s3://cache?endpoint=h&addressing-style=virtual").is_path_style);
        assert!(parse("s3://team.cache").is_path_style && parse("s3://team.cache?addressing-style=auto").is_path_style);
        assert!(!parse("s3://team.cache?addressing-style=virtual").is_path_style);
    }

    #[test]
    fn what_is_printed_is_read_as_the_same() {
        for text in [
            "s3://cache",
            "s3://cache?endpoint=127.0.0.1:3900&region=garage&scheme=http",
            "s3://cache?endpoint=h&profile=a%26b",
            "s3://cache?addressing-style=path",
            "s3://cache?endpoint=h&addressing-style=virtual",
            "s3://team.cache",
            "s3://team.cache?addressing-style=virtual",
        ] {
            assert_eq!(parse(text).to_string(), text);
        }
        let nix = parse("s3://cache?endpoint=h").to_nix("r", &["priority=30".to_owned()]);
        assert_eq!(nix, "s3://cache?endpoint=h&region=r&priority=30");
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (text, problem) in [
            ("s3://", "3 to 63"),
            ("s3://ab", "3 to 63"),
            ("s3://../x", "whole bucket"),
            ("s3://a..b", "3 to 63"),
            ("s3://Cache", "3 to 63"),
            ("s3://cache/folder", "whole bucket"),
            ("s3://cache?compression=xz", "compression is not one"),
            ("s3://cache?compression", "compression is not one"),
            ("s3://cache?region=r&endpoint=", "its endpoint has no value"),
            ("s3://cache?endpoint", "its endpoint has no value"),
            ("s3://cache?profile=a&profile=b", "its profile is there twice"),
            ("s3://cache?profile=%ff", "its profile is no UTF-8"),
            ("s3://cache?region=evil.example%2F", "its region \"evil.example/\" is none"),
            ("s3://cache?scheme=ftp", "scheme"),
            ("s3://cache?endpoint=ftp://h", "scheme"),
            ("s3://cache?endpoint=h/x", "HOST:PORT"),
            ("s3://cache?endpoint=user@h", "HOST:PORT"),
            ("s3://cache?addressing-style=x", "addressing-style"),
        ] {
            let error = text.parse::<Address>().expect_err(text).to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
