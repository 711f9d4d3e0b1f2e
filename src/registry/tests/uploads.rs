//! Tests of uploads, and of reading what breaks off.

use std::io::Read as _;

use super::super::upload::Mount;
use super::*;

fn said(code: &str) -> String {
    format!(r#"{{"errors": [{{"code": "{code}", "message": "says why"}}]}}"#)
}

/// What has begun an upload, and else answers by `answer`.
fn taking(answer: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Server {
    registry(move |asked, before| match asked.line.starts_with("POST") {
        true => Reply::of(202).header("location", &format!("/upload/{before}")),
        false => answer(asked, before),
    })
}

fn is_lost(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Lost { .. })
}

#[test]
fn what_a_registry_says_of_a_chunk_is_passed_on() {
    let front = taking(|_, _| Reply::of(416).body(said("TOO_LARGE")));
    let repository = repository(&front, None);
    let error = repository.send_chunk(&mut repository.begin_upload().expect("begun"), b"x").expect_err("refused");
    assert!(is_lost(&error) && error.to_string().contains("TOO_LARGE says why"), "{error}");
}

#[test]
fn uploads_that_are_lost_begin_anew() {
    let front = taking(|asked, _| match asked.line.starts_with("PUT /upload/0") {
        true => Reply::of(400).body(said("BLOB_UPLOAD_INVALID")),
        false => Reply::of(201),
    });
    repository(&front, None).put_blob(&Digest::of(b"x"), b"x").expect("taken");
    assert_eq!(front.count("POST"), 2);
    for (code, status, times) in
        [("BLOB_UPLOAD_UNKNOWN", 404, 3), ("RANGE_INVALID", 400, 3), ("DIGEST_INVALID", 400, 1)]
    {
        let front = taking(move |_, _| Reply::of(status).body(said(code)));
        let error = repository(&front, None).put_blob(&Digest::of(b"x"), b"x").expect_err(code);
        assert_eq!((front.count("POST"), is_lost(&error)), (times, times > 1), "{error}");
        assert!(error.to_string().contains("says why"), "{error}");
    }
}

#[test]
fn what_nobody_knows_of_an_upload_that_broke_is_sent_anew() {
    for (code, status) in [("UNSUPPORTED", 501), ("DENIED", 403), ("UNKNOWN", 405)] {
        let front = taking(move |asked, before| match asked.line.as_str() {
            line if line.starts_with("PATCH") && before == 0 => Reply::none(),
            line if line.starts_with("GET /upload") => Reply::of(status).body(said(code)),
            _ => Reply::of(202),
        });
        let repository = repository(&front, None);
        let error = repository.send_chunk(&mut repository.begin_upload().expect("begun"), b"x").expect_err(code);
        assert!(is_lost(&error), "{error}");
    }
}

#[test]
fn an_upload_that_went_on_after_a_break_may_have_other_bytes() {
    let front = taking(|asked, before| match asked.line.as_str() {
        line if line.starts_with("PATCH") && before == 0 => Reply::none(),
        line if line.starts_with("PATCH") => Reply::of(if asked.body == b"de" { 202 } else { 416 }),
        line if line.starts_with("GET /upload") => Reply::of(204).header("range", "0-2"),
        _ => Reply::of(400).body(said("DIGEST_INVALID")),
    });
    let repository = repository(&front, None);
    let mut upload = repository.begin_upload().expect("begun");
    repository.send_chunk(&mut upload, b"abcde").expect("taken");
    let error = repository.finish_upload(upload, &Digest::of(b"abcdef"), b"f").expect_err("other bytes");
    assert!(is_lost(&error), "{error}");
}

#[test]
fn places_of_uploads_are_found_however_they_are_written() {
    for location in ["HTTP://HOST/u?to=http://x/", "//HOST/u?to=http://x/", "../../../../../u?to=http://x/"] {
        let front = registry(move |asked, _| match asked.line.split('&').next() {
            Some(line) if line.starts_with("POST") => {
                Reply::of(202).header("location", &location.replace("HOST", asked.header("host").expect("a host")))
            }
            Some("PUT /u?to=http://x/") => Reply::of(201),
            _ => Reply::of(500),
        });
        repository(&front, None).put_blob(&Digest::of(b"x"), b"x").expect(location);
    }
}

#[test]
fn a_mount_that_fails_is_an_upload() {
    let front = registry(|asked, _| match asked.line.contains("mount=") {
        true => Reply::of(500),
        false => Reply::of(202).header("location", "/u").header("oci-chunk-min-length", "5000000"),
    });
    let from = RepositoryName { registry: front.host.clone(), repository: "c".to_owned() };
    let mounted = repository(&front, None).mount(&Digest::of(b"x"), &from).expect("an answer");
    assert!(matches!(mounted, Mount::Refused(upload) if upload.least() == 5_000_000));
    assert_eq!(front.count("POST /v2/a/b/blobs/uploads/?mount"), 3);
}

#[test]
fn a_manifest_that_breaks_off_is_read_again() {
    let front = registry(|_, before| {
        let reply = Reply::of(200).header("content-type", "application/json; charset=x").body("{\"a\": 1}");
        if before == 0 { reply.cut(3) } else { reply }
    });
    let manifest = repository(&front, None).get_manifest("1").expect("whole");
    assert_eq!((&manifest.bytes[..], manifest.media_type.as_str()), (&b"{\"a\": 1}"[..], "application/json"));
}

#[test]
fn what_is_too_large_is_read_once() {
    let front = registry(|_, _| Reply::of(200).body(vec![b' '; (16 << 20) + 1]));
    let error = repository(&front, None).get_blob(&Digest::of(b"x")).expect_err("too large").to_string();
    assert!(error.contains("larger than 16 MiB"), "{error}");
    assert_eq!(front.count("GET /v2/a/b/"), 1);
}

#[test]
fn a_blob_goes_on_as_long_as_it_gets_further() {
    let bytes: Vec<u8> = (0..700_000_u32).flat_map(|number| number.to_le_bytes()).collect();
    let (digest, whole) = (Digest::of(&bytes), bytes.clone());
    let front = registry(move |asked, _| {
        let from =
            asked.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let from: usize = from.unwrap_or(0);
        Reply::of(if from == 0 { 200 } else { 206 }).body(&whole[from..]).cut(400_000)
    });
    let mut read = Vec::new();
    let mut reader = repository(&front, None).open_blob(&digest, bytes.len() as u64).expect("there");
    reader.read_to_end(&mut read).expect("it gets further each time");
    assert!(read == bytes);
    assert_eq!(front.count("GET /v2/a/b/"), 7);
}

#[test]
fn a_blob_that_gets_no_further_has_an_end() {
    let front = registry(|_, _| Reply::of(200).body([0; 100]).cut(50));
    let mut reader = repository(&front, None).open_blob(&Digest::of(b"x"), 100).expect("there");
    reader.read_to_end(&mut Vec::new()).expect_err("nothing more comes");
    assert_eq!(front.count("GET /v2/a/b/"), 6);
}
