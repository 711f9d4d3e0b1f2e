//! Tests of large objects.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use super::{client, complaint, path, paths};
use crate::registry::tests::server::{Asked, Reply, Server};
use crate::s3::S3Error;
use crate::s3::upload::{self, Upload};

fn result(name: &str, inner: &str) -> Reply {
    Reply::of(200).body(format!("<{name} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{inner}</{name}>"))
}

/// Answers to uploads: `uploadId=1` for whatever begins.
fn upload_server(is_bad: impl Fn(&Asked) -> bool + Send + Sync + 'static) -> Server {
    Server::start(move |asked, _| {
        if is_bad(asked) {
            return complaint(400, "InvalidArgument");
        }
        match path(asked) {
            "POST /cache/o" if asked.line.contains("&uploads=") => {
                result("InitiateMultipartUploadResult", "<Bucket>cache</Bucket><Key>o</Key><UploadId>1</UploadId>")
            }
            "POST /cache/o" => result("CompleteMultipartUploadResult", "<ETag>\"e\"</ETag>"),
            "DELETE /cache/o" => Reply::of(204),
            line if line.starts_with("HEAD") => Reply::of(404),
            _ => Reply::of(200).header("etag", &format!("\"{}\"", asked.body.len())),
        }
    })
}

#[test]
fn a_large_object_is_sent_in_parts_and_completed_at_the_end_only() {
    let server = upload_server(|_| false);
    let client = client(&server.host);
    let mut small = Upload::new(&client, "o", 100);
    small.write_all(b"small").expect("taken");
    assert!(server.asked().is_empty());
    assert_eq!(small.finish().expect("there"), 5);
    assert_eq!(paths(&server), ["PUT /cache/o"]);

    let mut large = Upload::new(&client, "o", 20 << 20);
    for _ in 0..20 {
        large.write_all(&vec![7; 1 << 20]).expect("taken");
    }
    assert!(!server.asked().iter().any(|asked| String::from_utf8_lossy(&asked.body).contains("Complete")));
    assert_eq!(large.finish().expect("there"), 20 << 20);
    let asked = server.asked();
    let parts: Vec<usize> =
        asked.iter().filter(|asked| asked.line.contains("partNumber=")).map(|asked| asked.body.len()).collect();
    assert_eq!(parts.iter().sum::<usize>(), 20 << 20);
    assert_eq!(parts.iter().filter(|size| **size == 8 << 20).count(), 2);
    let last = String::from_utf8_lossy(&asked.last().expect("asked").body).into_owned();
    let expected = "<Part><PartNumber>1</PartNumber><ETag>&quot;8388608&quot;</ETag></Part><Part><PartNumber>2</PartNumber><ETag>&quot;8388608&quot;</ETag></Part><Part><PartNumber>3</PartNumber><ETag>&quot;4194304&quot;</ETag></Part>";
    assert_eq!(last, format!("<CompleteMultipartUpload>{expected}</CompleteMultipartUpload>"));
}

#[test]
fn no_more_parts_are_sent_at_once_than_memory_is_for() {
    let (now, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let server = upload_server(move |asked| {
        if asked.line.contains("partNumber=") {
            seen.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(100));
            now.fetch_sub(1, Ordering::Relaxed);
        }
        false
    });
    let mut upload = Upload::new(&client(&server.host), "o", 80 << 20);
    upload.write_all(&vec![7; 80 << 20]).expect("taken");
    upload.finish().expect("there");
    let most = most.load(Ordering::Relaxed);
    assert!((2..=3).contains(&most), "{most}");
}

#[test]
fn an_upload_that_is_given_up_leaves_nothing() {
    let server = upload_server(|_| false);
    let mut given_up = Upload::new(&client(&server.host), "o", 20 << 20);
    given_up.write_all(&vec![7; 10 << 20]).expect("taken");
    drop(given_up);
    let asked = server.asked();
    let last = &asked.last().expect("asked").line;
    assert!(last.starts_with("DELETE /cache/o?") && last.contains("&uploadId=1"), "{last}");
    assert!(!asked.iter().any(|asked| asked.line.starts_with("POST") && asked.line.contains("uploadId")));

    let server = upload_server(|asked| asked.line.contains("partNumber=2"));
    let mut failing = Upload::new(&client(&server.host), "o", 20 << 20);
    let result =
        failing.write_all(&vec![7; 20 << 20]).and_then(|()| failing.finish().map(drop).map_err(std::io::Error::other));
    let error = result.expect_err("refused").to_string();
    assert!(error.contains("write part 2 of o"), "{error}");
    assert!(server.lines().last().expect("asked").starts_with("DELETE /cache/o?"));
}

#[test]
fn what_somebody_began_and_did_not_end_is_found() {
    let server = Server::start(|_, _| {
        Reply::of(200).body("<ListMultipartUploadsResult><Upload><Key>nar/a</Key><UploadId>u&amp;1</UploadId><Initiated>2030-01-01T00:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>")
    });
    let found = upload::unfinished(&client(&server.host)).expect("told");
    assert_eq!((found.len(), &found[0].key[..], &found[0].id[..]), (1, "nar/a", "u&1"));
    assert_eq!(found[0].begun, SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000));
}

/// Uploads 10 MiB to a server that answers to the end of uploads as `complete` says, which is told
/// how often it was asked. There is an object of that size already, with the tag that `tag` has.
fn upload_where(
    complete: impl Fn(usize) -> Reply + Send + Sync + 'static,
    tag: impl Fn(usize) -> &'static str + Send + Sync + 'static,
) -> (Result<u64, S3Error>, Server) {
    let heads = AtomicUsize::new(0);
    let server = Server::start(move |asked, before| match asked.line.split(['/', '?']).next().unwrap_or_default() {
        "POST " if asked.line.contains("&uploads=") => {
            result("InitiateMultipartUploadResult", "<Bucket>cache</Bucket><Key>o</Key><UploadId>1</UploadId>")
        }
        "POST " => complete(before),
        "HEAD " => {
            let head = Reply::of(200).header("content-length", &(10 << 20).to_string());
            head.header("etag", tag(heads.fetch_add(1, Ordering::Relaxed)))
        }
        _ => Reply::of(200).header("etag", "\"part\""),
    });
    let mut upload = Upload::new(&client(&server.host), "o", 10 << 20);
    upload.write_all(&vec![7; 10 << 20]).expect("taken");
    (upload.finish(), server)
}

fn is_taken_back(server: &Server) -> bool {
    server.lines().last().is_some_and(|line| line.starts_with("DELETE /cache/o?") && line.contains("&uploadId=1"))
}

#[test]
fn an_error_after_200_is_tried_again_if_it_may_pass() {
    let done = || result("CompleteMultipartUploadResult", "<ETag>\"e\"</ETag>");
    let error = |code: &str| complaint(200, code);
    let flaky = AtomicUsize::new(0);
    let complete = move |_| match flaky.fetch_add(1, Ordering::Relaxed) {
        0 => error("InternalError"),
        1 => error("SlowDown"),
        2 => done().cut(20),
        _ => done(),
    };
    let (uploaded, server) = upload_where(complete, |_| "\"old\"");
    assert_eq!(uploaded.expect("there"), 10 << 20);
    assert!(!is_taken_back(&server));

    let (uploaded, server) = upload_where(move |_| complaint(200, "InvalidPart"), |_| "\"old\"");
    let error = uploaded.expect_err("refused").to_string();
    assert!(error.contains("write o") && error.contains("InvalidPart") && is_taken_back(&server), "{error}");
}

/// As Garage does it, with all uploads that have begun before another is completed.
#[test]
fn who_is_slower_than_another_who_writes_the_same_is_content() {
    let forget = |_| complaint(404, "NoSuchUpload");
    let (uploaded, _server) = upload_where(forget, |head| if head == 0 { "\"old\"" } else { "\"other's\"" });
    assert_eq!(uploaded.expect("the other's"), 10 << 20);

    // Or when parts are sent: of 20 MiB none is taken.
    let server = Server::start(|asked, before| match asked.line.split(['/', '?']).next().unwrap_or_default() {
        "POST " => result("InitiateMultipartUploadResult", "<Bucket>cache</Bucket><Key>o</Key><UploadId>1</UploadId>"),
        "HEAD " if before == 0 => Reply::of(404),
        "HEAD " => Reply::of(200).header("content-length", &(20 << 20).to_string()).header("etag", "\"other's\""),
        _ => complaint(404, "NoSuchUpload"),
    });
    for (size, is_same) in [(20 << 20, true), (19 << 20, false)] {
        let mut upload = Upload::new(&client(&server.host), "o", size as u64);
        upload.write_all(&vec![7; size]).expect("taken");
        let finished = upload.finish();
        assert_eq!(finished.is_ok(), is_same, "{size}: {finished:?}");
    }
}

#[test]
fn an_older_object_is_not_taken_for_the_new_one() {
    // The answer is lost, and the server knows nothing of the upload by then.
    let lost = |before| if before == 0 { Reply::none() } else { complaint(404, "NoSuchUpload") };
    let (uploaded, server) = upload_where(lost, |_| "\"old\"");
    let error = uploaded.expect_err("the old one").to_string();
    assert!(error.contains("NoSuchUpload") && is_taken_back(&server), "{error}");
    let (uploaded, server) = upload_where(lost, |head| if head == 0 { "\"old\"" } else { "\"new\"" });
    assert_eq!(uploaded.expect("the new one"), 10 << 20);
    assert!(!is_taken_back(&server));
}
