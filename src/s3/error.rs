//! Why a bucket does not give or take something.
//!
//! Source: Amazon S3, "Error responses"; what MinIO, Garage and Ceph say instead.

use super::address::is_region;
use super::redact::{names_secret, without_queries};
use crate::registry::error::plain;

/// What a user may need to do there.
const RIGHTS: &str = "s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject";

/// Why something can't be had from a bucket, or put there.
#[derive(Clone, Debug, thiserror::Error)]
pub enum S3Error {
    /// A typing error.
    #[error(
        "{text:?} is no address of a bucket: {problem}; write one as in s3://cache?endpoint=HOST:PORT&region=REGION"
    )]
    Address {
        /// What was typed.
        text: String,
        /// What is wrong.
        problem: String,
    },
    /// Nobody says who asks.
    #[error(
        "there are no credentials for the bucket {bucket}: {problem}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    )]
    NoCredentials {
        /// The bucket.
        bucket: String,
        /// Where they were looked for.
        problem: String,
    },
    /// Credentials or certificates that are there, and can't be used.
    #[error("{what}: {problem}")]
    Settings {
        /// The file, profile, variable or service.
        what: String,
        /// What is wrong.
        problem: String,
    },
    /// Nobody answers.
    #[error("can't reach the bucket {bucket} at {server}: {problem}; is the endpoint right, and does it run?")]
    Unreachable {
        /// The bucket.
        bucket: String,
        /// The server.
        server: String,
        /// What went wrong.
        problem: String,
    },
    /// Somebody answers who can't prove to be that server, or has no TLS.
    #[error(
        "the server {server} of the bucket {bucket} is not trusted: {problem}; name the certificate of its authority by SSL_CERT_FILE, or say scheme=http where it has no TLS"
    )]
    Untrusted {
        /// The bucket.
        bucket: String,
        /// The server.
        server: String,
        /// What is wrong.
        problem: String,
    },
    /// The server does not know who asks.
    #[error("the credentials for the bucket {bucket}, {source_of}, are wrong: can't {action}: {problem}")]
    WrongCredentials {
        /// The bucket.
        bucket: String,
        /// Where the credentials are from.
        source_of: String,
        /// What was asked.
        action: String,
        /// What the server says.
        problem: String,
    },
    /// Who asks may not do that.
    #[error(
        "the bucket {bucket} does not let the credentials {source_of} {action}: {problem}; a cache needs the rights {RIGHTS}"
    )]
    Denied {
        /// The bucket.
        bucket: String,
        /// Where the credentials are from.
        source_of: String,
        /// What was asked.
        action: String,
        /// What the server says.
        problem: String,
    },
    /// There is no such bucket.
    #[error("there is no bucket {bucket} at {server}: {problem}; make it there, or name another one")]
    NoBucket {
        /// The bucket.
        bucket: String,
        /// The server.
        server: String,
        /// What the server says.
        problem: String,
    },
    /// It is elsewhere.
    #[error(
        "the bucket {bucket} is not in the region {region}: {problem}; name the right one, as in s3://{bucket}?region={right}",
        right = right.as_deref().unwrap_or("REGION")
    )]
    Elsewhere {
        /// The bucket.
        bucket: String,
        /// The region that was asked.
        region: String,
        /// The region that has it, if the server says so.
        right: Option<String>,
        /// What the server says.
        problem: String,
    },
    /// A signature is good for some minutes.
    #[error("this machine's clock and that of {server} differ too much: can't {action}: {problem}; set the clock")]
    Skewed {
        /// The server.
        server: String,
        /// What was asked.
        action: String,
        /// What the server says.
        problem: String,
    },
    /// It has no room.
    #[error("the bucket {bucket} is full: can't {action}: {problem}; make room, e.g. by `stowage cache gc`")]
    Full {
        /// The bucket.
        bucket: String,
        /// What was asked.
        action: String,
        /// What the server says.
        problem: String,
    },
    /// It could not, again and again.
    #[error(
        "the server {server} of the bucket {bucket} could not {action}, again and again: {problem}; it is overloaded, broken or full, and its log may say which"
    )]
    Busy {
        /// The bucket.
        bucket: String,
        /// The server.
        server: String,
        /// What was asked.
        action: String,
        /// What the server says.
        problem: String,
    },
    /// It has forgotten an upload, since somebody took it back, or another was completed.
    #[error("the bucket {bucket} knows nothing of an upload any more: can't {action}: {problem}; try again")]
    NoUpload {
        /// The bucket.
        bucket: String,
        /// What was asked.
        action: String,
        /// What the server says.
        problem: String,
    },
    /// It says what nobody expects.
    #[error("the bucket {bucket} fails to {action}: {problem}")]
    Failed {
        /// The bucket.
        bucket: String,
        /// What was asked.
        action: String,
        /// What the server says, or what is wrong with it.
        problem: String,
    },
}

/// What is known when an error is made.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The server.
    pub server: &'a str,
    /// The region.
    pub region: &'a str,
    /// Where the credentials are from.
    pub source_of: &'a str,
    /// What was asked.
    pub action: &'a str,
}

/// What a server said of a failure.
#[derive(Clone, Debug)]
pub struct Complaint {
    /// The HTTP status.
    pub status: u16,
    /// The error's code.
    pub code: String,
    /// For people.
    pub text: String,
    /// The region that the server names as the right one.
    pub region: Option<String>,
}

impl Complaint {
    /// Reads the body of an answer of that status.
    #[must_use]
    pub fn read(status: u16, body: &[u8]) -> Self {
        let body = String::from_utf8_lossy(body);
        let code = element(&body, "Code").unwrap_or_default();
        let message = element(&body, "Message").unwrap_or_default();
        let is_error = !(code.is_empty() && message.is_empty());
        let said = without_queries(&if is_error { format!("{code} {message}") } else { body.to_string() });
        // Who knows in which way a proxy prints what it was asked.
        let mut text = if is_error || !names_secret(&said) { plain(said.as_bytes()) } else { String::new() };
        text = if text.is_empty() { format!("HTTP status {status}") } else { format!("{text} (HTTP {status})") };
        Self { status, code: plain(code.as_bytes()), text, region: expected_region(&body, &message) }
    }

    /// Whether the same request may work a little later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        // By their codes, since they may come after a status of 200.
        let codes = ["RequestTimeout", "SlowDown", "OperationAborted", "InternalError", "ServiceUnavailable"];
        let passes = codes.contains(&&self.code[..]);
        !self.is_full() && (passes || matches!(self.status, 408 | 425 | 429 | 500 | 502..=504))
    }

    /// Whether the credentials were good once.
    #[must_use]
    pub fn is_of_age(&self) -> bool {
        matches!(&self.code[..], "ExpiredToken" | "TokenRefreshRequired" | "ExpiredTokenException")
    }

    fn is_full(&self) -> bool {
        let text = self.text.to_ascii_lowercase();
        self.status == 507
            || self.code.contains("Quota")
            || self.code == "XMinioStorageFull"
            || matches!(self.status, 200 | 403 | 413 | 500)
                && ["quota", "no space left", "storage full"].iter().any(|words| text.contains(words))
    }

    /// Whether the server does not know who asks.
    fn is_unknown(&self) -> bool {
        let codes = [
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "InvalidToken",
            "InvalidClientTokenId",
            "NotSignedUp",
            "AuthorizationHeaderMalformed",
        ];
        // Garage and s3s say so in words.
        let words = ["no such key", "invalid signature", "access key", "signature"];
        let text = self.text.to_ascii_lowercase();
        codes.contains(&&self.code[..])
            || self.is_of_age()
            || matches!(self.status, 401 | 403) && words.iter().any(|words| text.contains(words))
    }

    /// The error that it is.
    #[must_use]
    pub fn into_error(self, context: &Context<'_>) -> S3Error {
        let Context { bucket, server, region, source_of, action } = context;
        let (bucket, server, action) = (bucket.to_string(), server.to_string(), action.to_string());
        let (region, source_of) = (region.to_string(), source_of.to_string());
        let (is_full, is_unknown, may_pass) = (self.is_full(), self.is_unknown(), self.may_pass());
        let text = self.text.to_ascii_lowercase();
        let is_skewed =
            matches!(&self.code[..], "RequestTimeTooSkewed" | "RequestExpired" | "AuthorizationQueryParametersError")
                || self.status == 403 && (text.contains("request has expired") || text.contains("not yet valid"))
                || self.status == 400 && text.contains("date is too");
        // Of a signature with a wrong region, and of others, too.
        let is_of_scope =
            matches!(&self.code[..], "AuthorizationHeaderMalformed" | "AuthorizationQueryParametersError");
        let right = self.region.filter(|right| *right != region);
        let is_elsewhere =
            matches!(&self.code[..], "PermanentRedirect" | "TemporaryRedirect" | "IllegalLocationConstraintException")
                || matches!(self.status, 301 | 307 | 308)
                || is_of_scope && (right.is_some() || text.contains("the region"));
        let problem = self.text;
        match self.status {
            _ if is_full => S3Error::Full { bucket, action, problem },
            _ if self.code == "NoSuchBucket" => S3Error::NoBucket { bucket, server, problem },
            _ if is_elsewhere => S3Error::Elsewhere { bucket, region, right, problem },
            _ if is_skewed => S3Error::Skewed { server, action, problem },
            _ if is_unknown => S3Error::WrongCredentials { bucket, source_of, action, problem },
            401 | 403 => S3Error::Denied { bucket, source_of, action, problem },
            _ if self.code == "NoSuchUpload" => S3Error::NoUpload { bucket, action, problem },
            _ if may_pass => S3Error::Busy { bucket, server, action, problem },
            _ => S3Error::Failed { bucket, action, problem },
        }
    }
}

/// The region that has a bucket, as an element of an error has it or, with AWS, its message.
fn expected_region(body: &str, message: &str) -> Option<String> {
    let in_words = || Some(message.split_once("expecting '")?.1.split_once('\'')?.0.to_owned());
    element(body, "Region").or_else(in_words).filter(|region| is_region(region))
}

/// The text of the first element `name` of a document that has no attributes and few letters
/// that are written otherwise, as those of AWS are.
#[must_use]
pub fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    let plain = inner.trim().replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
    Some(plain.replace("&amp;", "&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, code: &str, message: &str) -> S3Error {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>");
        let context = Context {
            bucket: "cache",
            server: "https://h",
            region: "eu",
            source_of: "from AWS_ACCESS_KEY_ID",
            action: "write x.narinfo",
        };
        Complaint::read(status, body.as_bytes()).into_error(&context)
    }

    #[test]
    fn each_code_is_told_as_what_it_means() {
        use S3Error::{Busy, Denied, Elsewhere, Failed, Full, NoBucket, Skewed, WrongCredentials};
        assert!(matches!(error(403, "InvalidAccessKeyId", ""), WrongCredentials { .. }));
        assert!(matches!(error(403, "SignatureDoesNotMatch", ""), WrongCredentials { .. }));
        assert!(matches!(error(403, "AccessDenied", "Forbidden: No such key: GK1"), WrongCredentials { .. }));
        assert!(matches!(error(403, "AccessDenied", "Access Denied"), Denied { .. }));
        assert!(matches!(error(404, "NoSuchBucket", ""), NoBucket { .. }));
        assert!(matches!(error(507, "XMinioStorageFull", ""), Full { .. }));
        assert!(matches!(error(403, "QuotaExceeded", ""), Full { .. }));
        assert!(matches!(error(500, "InternalError", "write: No space left on device"), Full { .. }));
        assert!(matches!(error(503, "SlowDown", ""), Busy { .. }));
        assert!(matches!(error(403, "RequestTimeTooSkewed", ""), Skewed { .. }));
        assert!(matches!(error(403, "AccessDenied", "Request has expired"), Skewed { .. }));
        assert!(matches!(error(301, "PermanentRedirect", ""), Elsewhere { .. }));
        assert!(matches!(error(400, "AuthorizationHeaderMalformed", "the region is wrong"), Elsewhere { .. }));
        assert!(matches!(error(400, "InvalidArgument", ""), Failed { .. }));
    }

    #[test]
    fn what_echoes_a_signed_url_is_told_without_it() {
        let url = "http://h/cache/x?X-Amz-Security-Token=SECRET&amp;X-Amz-Signature=SECRET";
        let text = |body: String| Complaint::read(403, body.as_bytes()).text;
        assert_eq!(text(format!("<h1>Denied</h1> {url}")), "<h1>Denied</h1> http://h/cache/x?… (HTTP 403)");
        assert_eq!(text(format!("<Code>A</Code><Message>not {url}!</Message>")), "A not http://h/cache/x?… (HTTP 403)");
        assert_eq!(text(r#"{"X-Amz-Signature": "SECRET"}"#.to_owned()), "HTTP status 403");
    }

    #[test]
    fn a_wrong_region_is_no_wrong_clock_and_the_right_one_is_named() {
        let said = "Error parsing the X-Amz-Credential parameter; the region 'eu' is wrong; expecting 'eu-west-1'";
        let elsewhere = error(400, "AuthorizationQueryParametersError", said);
        assert!(matches!(elsewhere, S3Error::Elsewhere { .. }), "{elsewhere}");
        assert!(elsewhere.to_string().ends_with("s3://cache?region=eu-west-1"), "{elsewhere}");
        // Garage says it by an element.
        let said = "unexpected scope: 20300101/eu/s3/aws4_request</Message><Region>garage</Region><Message>";
        let elsewhere = error(400, "AuthorizationHeaderMalformed", said).to_string();
        assert!(elsewhere.ends_with("s3://cache?region=garage"), "{elsewhere}");
        let said = "X-Amz-Date must be in the ISO8601 format";
        assert!(matches!(error(400, "AuthorizationQueryParametersError", said), S3Error::Skewed { .. }));
        let junk = error(301, "PermanentRedirect", "expecting '&amp;x=y'").to_string();
        assert!(junk.ends_with("?region=REGION"), "{junk}");
    }

    #[test]
    fn messages_name_bucket_action_cause_and_what_to_do() {
        let text = error(403, "InvalidAccessKeyId", "no &lt;such&gt; key").to_string();
        for part in ["bucket cache", "from AWS_ACCESS_KEY_ID", "write x.narinfo", "no <such> key", "HTTP 403"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(error(404, "NoSuchBucket", "").to_string().contains("make it there"));
        assert!(error(507, "", "").to_string().contains("make room"));
    }

    #[test]
    fn what_may_pass_is_tried_again_and_what_is_full_is_not() {
        let may_pass =
            |status, code: &str| Complaint::read(status, format!("<Code>{code}</Code>").as_bytes()).may_pass();
        assert!(may_pass(503, "SlowDown") && may_pass(500, "InternalError") && may_pass(429, ""));
        assert!(may_pass(400, "RequestTimeout") && may_pass(200, "InternalError") && may_pass(200, "SlowDown"));
        assert!(!may_pass(507, "") && !may_pass(403, "AccessDenied") && !may_pass(400, "InvalidArgument"));
    }
}
