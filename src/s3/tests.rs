//! Tests of the client against a server that does as it is told.

pub(crate) mod bucket;
mod list;
mod upload;

use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use super::client::{Failure, Fetched, Object};
use super::credentials::Sources;
use super::download::Download;
use super::*;
use crate::registry::tests::server::{Asked, Reply, Server};

/// The bucket `cache` at `host`, for somebody with keys.
pub fn client(host: &str) -> Client {
    let address = format!("s3://cache?endpoint={host}&scheme=http").parse().expect("an address");
    Client::new(&address, &Access { sources: sources(), ..Access::default() }).expect("one")
}

fn complaint(status: u16, code: &str) -> Reply {
    Reply::of(status).body(format!("<Error><Code>{code}</Code><Message>m</Message></Error>"))
}

fn object(fetched: Result<Fetched, S3Error>) -> Object {
    match fetched.expect("readable") {
        Fetched::Object(object) => object,
        other => panic!("{other:?}"),
    }
}

/// What is asked for, without the signature.
fn path(asked: &Asked) -> &str {
    asked.line.split("X-Amz").next().unwrap_or_default().trim_end_matches(['?', '&'])
}

fn paths(server: &Server) -> Vec<String> {
    server.asked().iter().map(|asked| path(asked).to_owned()).collect()
}

#[test]
fn objects_are_read_written_and_deleted() {
    let server = Server::start(|asked, _| match path(asked) {
        "GET /cache/a%21b" => Reply::of(200).header("etag", "\"t\"").body("text"),
        "HEAD /cache/a%21b" => {
            Reply::of(200).header("content-length", "4").header("last-modified", "Tue, 01 Jan 2030 00:00:00 GMT")
        }
        "PUT /cache/a%21b" | "PUT /cache/q/a%21b" => Reply::of(200),
        "DELETE /cache/a%21b" => Reply::of(204),
        "HEAD /cache/timeless" => Reply::of(200).header("content-length", "4"),
        line if line.starts_with("HEAD") => Reply::of(404),
        _ => complaint(404, "NoSuchKey"),
    });
    let client = client(&server.host);
    let object = object(client.get("a!b", 4));
    assert_eq!((&object.bytes[..], object.tag.as_deref()), (&b"text"[..], Some("\"t\"")));
    assert!(matches!(client.get("a!b", 3), Ok(Fetched::TooLarge)));
    assert!(matches!(client.get("none", 9), Ok(Fetched::Absent)));
    let head = client.head("a!b").expect("tells").expect("there");
    assert_eq!((head.size, head.modified), (Some(4), SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000)));
    assert!(client.head("none").expect("tells").is_none());
    let timeless = client.head("timeless").expect("tells").expect("there");
    assert!(timeless.modified.elapsed().is_ok_and(|age| age < Duration::from_secs(99)), "it counts as new");
    assert_eq!(client.put("a!b", b"x", &Condition::Always).expect("written"), Written::Done);
    assert!(client.copy("a!b", "q/a!b").expect("copied"));
    client.delete("a!b").expect("deleted");
    let asked = server.asked();
    let copied = asked.iter().find(|asked| asked.line.contains("/q/")).expect("asked");
    assert_eq!(copied.header("x-amz-copy-source"), Some("/cache/a%21b"));
    assert!(copied.line.contains("X-Amz-SignedHeaders=host%3Bx-amz-copy-source"), "{}", copied.line);
    assert!(asked.iter().all(|asked| asked.line.contains("X-Amz-Signature=")));
}

#[test]
fn conditions_are_told_from_failures_and_done_without_where_nobody_knows_them() {
    let server =
        Server::start(|asked, before| match (asked.header("if-none-match"), asked.header("if-match"), path(asked)) {
            (_, _, "PUT /cache/odd") if before == 0 => complaint(501, "NotImplemented"),
            (_, _, "PUT /cache/odd") => Reply::of(200),
            (Some("*"), None, _) => complaint(412, "PreconditionFailed"),
            (None, Some("\"t\""), _) => Reply::of(200),
            (None, Some(_), _) => complaint(409, "ConditionalRequestConflict"),
            _ => Reply::of(500),
        });
    let client = client(&server.host);
    let put = |key: &str, condition| client.put(key, b"x", &condition).expect("an answer");
    assert_eq!(put("a", Condition::New), Written::Conflict);
    assert_eq!(put("a", Condition::Is("\"t\"".to_owned())), Written::Done);
    assert_eq!(put("a", Condition::Is("\"u\"".to_owned())), Written::Conflict);
    let odd = self::client(&server.host);
    assert_eq!(odd.put("odd", b"x", &Condition::New).expect("written"), Written::Done);
    assert!(server.asked().last().expect("asked").header("if-none-match").is_none());
}

#[test]
fn what_passes_is_asked_again_and_nothing_else_is() {
    let server = Server::start(|asked, before| match (path(asked), before) {
        ("GET /cache/slow", 0) => complaint(503, "SlowDown"),
        ("GET /cache/slow", 1) => Reply::none(),
        ("GET /cache/slow", 2) => Reply::of(200).body("a long text").cut(3),
        ("GET /cache/slow", _) => Reply::of(200).body("a long text"),
        ("GET /cache/busy", _) => complaint(503, "ServiceUnavailable"),
        ("PUT /cache/full", _) => complaint(507, "XMinioStorageFull"),
        _ => complaint(403, "InvalidAccessKeyId"),
    });
    let client = client(&server.host);
    assert_eq!(object(client.get("slow", 99)).bytes, b"a long text");
    let busy = client.get("busy", 99).expect_err("never").to_string();
    assert!(
        busy.contains("again and again") && busy.contains("read busy") && busy.contains("ServiceUnavailable"),
        "{busy}"
    );
    assert!(matches!(client.put("full", b"", &Condition::New), Err(S3Error::Full { .. })));
    let wrong = client.put("x", b"", &Condition::New).expect_err("unknown");
    assert!(matches!(wrong, S3Error::WrongCredentials { .. }), "{wrong}");
    let counts = |begin: &str| paths(&server).iter().filter(|line| *line == begin).count();
    assert_eq!((counts("PUT /cache/full"), counts("PUT /cache/x"), counts("GET /cache/busy")), (1, 1, 8));
}

#[test]
fn an_object_is_looked_at_before_each_attempt_to_delete_it() {
    let head = || Reply::of(200).header("content-length", "7");
    let count = AtomicUsize::new(0);
    let server = Server::start(move |asked, _| match (path(asked), count.fetch_add(1, Ordering::Relaxed)) {
        ("HEAD /cache/slow", 0..3) | ("HEAD /cache/changed", _) | ("HEAD /cache/x", _) => head(),
        ("DELETE /cache/slow", _) => complaint(503, "SlowDown"),
        ("HEAD /cache/slow" | "HEAD /cache/gone", _) => Reply::of(404),
        _ => complaint(403, "AccessDenied"),
    });
    let client = client(&server.host);
    // The server has done it the second time, in spite of what it said.
    assert!(client.delete_if("slow", |object| object.size == Some(7)).expect("done"));
    assert_eq!((server.count("HEAD"), server.count("DELETE")), (3, 2));
    assert!(!client.delete_if("gone", |_| true).expect("asked"));
    assert!(!client.delete_if("changed", |_| false).expect("asked"));
    assert_eq!(server.count("DELETE"), 2);
    assert!(matches!(client.delete_if("x", |_| true), Err(S3Error::Denied { .. })));
}

#[test]
fn errors_say_what_is_wrong_with_the_place() {
    let server = Server::start(|asked, _| match path(asked) {
        "HEAD /cache/x" => Reply::of(301),
        "GET /cache/x" => complaint(301, "PermanentRedirect").header("x-amz-bucket-region", "eu-west-1"),
        "GET /cache/y" => complaint(404, "NoSuchBucket"),
        "GET /cache/z" => complaint(403, "RequestTimeTooSkewed"),
        _ => complaint(403, "AccessDenied"),
    });
    let client = client(&server.host);
    let elsewhere = client.head("x").expect_err("elsewhere").to_string();
    assert!(elsewhere.contains("us-east-1") && elsewhere.ends_with("?region=eu-west-1"), "{elsewhere}");
    assert!(matches!(client.get("y", 1), Err(S3Error::NoBucket { .. })));
    assert!(matches!(client.get("z", 1), Err(S3Error::Skewed { .. })));
    let denied = client.list("").expect_err("denied").to_string();
    assert!(denied.contains("from AWS_ACCESS_KEY_ID") && denied.contains("s3:ListBucket"), "{denied}");
    let nobody = Server::start(|_, _| Reply::none());
    let error = self::client(&nobody.host).get("x", 1).expect_err("nobody").to_string();
    assert!(error.contains("can't reach the bucket cache") && error.contains(&nobody.host), "{error}");
    assert_eq!(nobody.count("GET"), 3);
    // TLS, where there is none.
    let address = format!("s3://cache?endpoint={}", server.host).parse().expect("an address");
    let error = Client::new(&address, &Access { sources: sources(), ..Access::default() });
    let error = error.expect("one").get("x", 1).expect_err("no TLS").to_string();
    assert!(error.contains("scheme=http"), "{error}");
}

#[test]
fn no_error_has_a_signature_in_it() {
    let server = Server::start(|asked, _| match path(asked) {
        "GET /cache/denied" => Reply::of(403).body(format!("<h1>No</h1> {}", asked.line)),
        _ if asked.line.contains("list-type") => Reply::of(200).body(format!("<{}>", asked.line)),
        _ => complaint(400, &format!("InvalidURI of {}", asked.line)),
    });
    let client = client(&server.host);
    let mut texts = ["denied", "other"].map(|key| client.get(key, 99).expect_err("no").to_string()).to_vec();
    texts.push(client.list("").expect_err("none").to_string());
    let (Failure::Passing(error, _) | Failure::Final(error)) =
        client.failure(&ureq::Error::BadUri("http://h/x?X-Amz-Signature=1".to_owned()), "read x");
    texts.push(error.to_string());
    assert!(texts[0].contains("<h1>No</h1> GET /cache/denied?…"), "{}", texts[0]);
    assert!(!texts.iter().any(|text| text.to_ascii_lowercase().contains("x-amz")), "{texts:?}");
}

fn sources() -> Sources {
    let variables = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    Sources::from_variables(&variables.map(|(name, value)| (name.into(), value.into())).into())
}

#[test]
fn a_download_goes_on_where_it_was_cut_off() {
    let bytes: Vec<u8> = (0..100_000_u32).map(|number| (number / 7) as u8).collect();
    let whole = bytes.clone();
    let server = Server::start(move |asked, before| {
        let whole = &whole;
        let Some(range) = asked.header("range") else {
            return Reply::of(200).header("etag", "\"t\"").body(whole).cut(30_000);
        };
        let from: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().expect("a number");
        assert_eq!(asked.header("if-match"), Some("\"t\""));
        let reply = Reply::of(206).header("content-range", &format!("bytes {from}-99999/100000")).body(&whole[from..]);
        if before == 0 && from < 60_000 { reply.cut(40_000) } else { reply }
    });
    let mut read = Vec::new();
    let mut download = Download::open(&client(&server.host), "o").expect("readable").expect("there");
    assert_eq!(download.size(), 100_000);
    download.read_to_end(&mut read).expect("whole");
    assert!(read == bytes);

    let changed = Server::start(|asked, _| match asked.header("range") {
        None => Reply::of(200).header("etag", "\"t\"").body("0123456789").cut(3),
        Some(_) => complaint(412, "PreconditionFailed"),
    });
    let mut download = Download::open(&client(&changed.host), "o").expect("readable").expect("there");
    let error = download.read_to_end(&mut Vec::new()).expect_err("another one").to_string();
    assert!(error.contains("another object by now"), "{error}");
}

#[test]
fn credentials_that_are_too_old_are_asked_for_again() {
    let server =
        Server::start(|asked, before| match (path(asked), before) {
            ("GET /task", 0) => Reply::of(200)
                .body(r#"{"AccessKeyId":"old","SecretAccessKey":"s","Expiration":"2099-01-01T00:00:00Z"}"#),
            ("GET /task", _) => Reply::of(200)
                .body(r#"{"AccessKeyId":"new","SecretAccessKey":"s","Expiration":"2099-01-01T00:00:00Z"}"#),
            _ if asked.line.contains("Credential=old") => complaint(400, "ExpiredToken"),
            _ => Reply::of(200).body("x"),
        });
    let address = format!("s3://cache?endpoint={}&scheme=http", server.host).parse().expect("an address");
    let url = format!("http://{}/task", server.host);
    let variables = [("AWS_CONTAINER_CREDENTIALS_FULL_URI".into(), url.into())].into();
    let access = Access { sources: Sources::from_variables(&variables), ..Access::default() };
    let client = Client::new(&address, &access).expect("one");
    assert_eq!(object(client.get("x", 1)).bytes, b"x");
    assert_eq!(server.count("GET /task"), 2);
}
