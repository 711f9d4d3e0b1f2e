//! Tests of lists that end, and of others.

use std::time::{Duration, SystemTime};

use super::client;
use crate::registry::tests::server::{Reply, Server};

/// A page; `next` is the token for the one after it.
fn page(entries: &str, next: Option<&str>) -> Reply {
    let more = next.map(|next| format!("<NextContinuationToken>{next}</NextContinuationToken>")).unwrap_or_default();
    Reply::of(200).body(format!(
        "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><EncodingType>url</EncodingType><IsTruncated>{}</IsTruncated>{more}{entries}</ListBucketResult>",
        next.is_some()
    ))
}

fn object(key: &str) -> String {
    format!("<Contents><Key>{key}</Key><LastModified>2030-01-01T00:00:00.000Z</LastModified><Size>7</Size></Contents>")
}

const FOLDER: &str = "<CommonPrefixes><Prefix>nar/</Prefix></CommonPrefixes>";

/// The number in the token of a request.
fn token(line: &str) -> usize {
    let token =
        line.split_once("continuation-token=").map_or("0", |(_, rest)| rest.split('&').next().unwrap_or_default());
    token.parse().expect("a number")
}

#[test]
fn lists_go_on_to_their_end() {
    let server = Server::start(|asked, _| match token(&asked.line) {
        0 => page(&(object("a.narinfo") + FOLDER), Some("1")),
        1 => page("", Some("2")),
        2 => page(FOLDER, Some("3")),
        _ => page(&object("realisations/sha256%3Aa%21out.doi"), None),
    });
    let listed = client(&server.host).list("").expect("listed");
    let found: Vec<(&str, Option<u64>)> = listed.iter().map(|one| (&one.key[..], one.size)).collect();
    let (folder, last) = (("nar/", None), ("realisations/sha256:a!out.doi", Some(7)));
    assert_eq!(found, [("a.narinfo", Some(7)), folder, folder, last]);
    assert_eq!(listed[0].modified, SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000));
}

#[test]
fn lists_that_do_not_end_are_told() {
    let entries: String = (0..1000).map(|number| object(&format!("{number:04}"))).collect();
    let forever = entries.clone();
    // Two tokens in turn; and ever new ones for the same page, by a proxy that drops them.
    let turns = Server::start(move |asked, _| page(&entries, Some(if token(&asked.line) == 1 { "2" } else { "1" })));
    let new = Server::start(move |asked, _| page(&forever, Some(&(token(&asked.line) + 1).to_string())));
    for server in [turns, new] {
        let error = client(&server.host).list("").expect_err("endless").to_string();
        assert!(error.contains("the server's list does not end"), "{error}");
        assert!(server.asked().len() < 20, "{}", server.asked().len());
    }
}
