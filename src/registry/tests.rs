//! Tests of the client against a server that does as it is told.

pub(crate) mod server;
mod uploads;

use std::sync::Arc;

use server::{Asked, Reply, Server};

use super::connection::Access;
use super::credentials::Credentials;
use super::*;
use crate::digest::Digest;

fn ann() -> Credentials {
    Credentials::User { name: "ann".to_owned(), password: "secret".to_owned() }
}

/// The repository `a/b` of a server.
pub(crate) fn repository(server: &Server, credentials: Option<Credentials>) -> Repository {
    let name = RepositoryName { registry: server.host.clone(), repository: "a/b".to_owned() };
    let connection = Connection::new(&server.host, false, Access::default(), credentials);
    Repository::new(name, Arc::new(connection))
}

fn bearer(realm: &str) -> String {
    format!("Bearer realm=\"{realm}\",service=\"s\"")
}

/// Says that it is there, and else answers by `answer`.
pub(crate) fn registry(answer: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |asked, before| match asked.line.as_str() {
        "GET /v2/" => Reply::of(200),
        _ => answer(asked, before),
    })
}

#[test]
fn who_is_sent_to_by_a_redirect_gets_no_password() {
    let evil = Arc::new(Server::start_at("127.0.0.2", |asked, _| match asked.line.starts_with("GET /token") {
        true => Reply::of(200).body(r#"{"token": "t"}"#),
        false => Reply::of(401).header("www-authenticate", &bearer("http://127.0.0.1:1/token")),
    }));
    let to = format!("http://{}/blob", evil.host);
    let front = registry(move |_, _| Reply::of(307).header("location", &to));
    let error = repository(&front, Some(ann())).get_blob(&Digest::of(b"x")).expect_err("nobody has it").to_string();
    assert!(error.contains(&format!("{}: ", evil.host)), "{error}");
    assert!(!evil.was_told(), "{:?}", evil.asked());
    // Nor does it say where to get a token for later.
    assert_eq!(evil.lines().len(), 1);
}

#[test]
fn what_was_said_to_a_registry_is_said_to_nobody_else() {
    let store = Server::start_at("127.0.0.2", |_, _| Reply::of(200).body("x"));
    for answers in [307, 302] {
        let to = format!("http://{}/blob", store.host);
        let front = registry(move |asked, _| match asked.header("authorization") {
            Some(_) => Reply::of(answers).header("location", &to),
            None => Reply::of(401).header("www-authenticate", "Basic realm=x"),
        });
        assert_eq!(repository(&front, Some(ann())).get_blob(&Digest::of(b"x")).expect("there"), b"x");
    }
    assert_eq!(store.lines(), ["GET /blob", "GET /blob"]);
    assert!(!store.was_told(), "{:?}", store.asked());
}

#[test]
fn who_takes_an_upload_for_a_registry_gets_no_password() {
    for how in ["Basic realm=x", "Bearer realm=http://HOST/token"] {
        let evil = Server::start_at("127.0.0.2", move |asked, _| {
            let how = how.replace("HOST", asked.header("host").expect("a host"));
            Reply::of(401).header("www-authenticate", &how)
        });
        let to = format!("http://{}/upload", evil.host);
        let front = registry(move |_, _| Reply::of(202).header("location", &to));
        repository(&front, Some(ann())).put_blob(&Digest::of(b"x"), b"x").expect_err("refused");
        let told = |asked: &Asked| asked.header("authorization").is_some() || asked.line.contains("token");
        assert!(!evil.asked().iter().any(told), "{how}: {:?}", evil.asked());
    }
}

#[test]
fn nothing_goes_without_tls_to_whom_nobody_named() {
    // An address that nobody has.
    for realm in ["http://192.0.2.1/token", "HTTP://192.0.2.1/token"] {
        let front = registry(move |_, _| Reply::of(401).header("www-authenticate", &bearer(realm)));
        let error = repository(&front, Some(ann())).get_blob(&Digest::of(b"x")).expect_err(realm).to_string();
        assert!(error.contains("192.0.2.1 by HTTP without TLS"), "{error}");
    }
    let front = registry(|_, _| Reply::of(202).header("location", "http://192.0.2.1/upload"));
    let error = repository(&front, None).put_blob(&Digest::of(b"x"), b"x").expect_err("refused").to_string();
    assert!(error.contains("192.0.2.1 by HTTP without TLS"), "{error}");
}

#[test]
fn a_registry_with_tls_leads_nowhere_without() {
    let connection = Connection::new("r.example", false, Access::default(), None);
    let access = Access { plain_http: vec!["store.example:80".to_owned()], ..Access::default() };
    let plain = Connection::new("r.example", true, access, None);
    let origin = |url| super::origin::Origin::of(url).expect("an origin");
    for url in ["http://r.example/", "http://store.example/", "http://127.0.0.1/"] {
        assert!(connection.permitted(&origin("https://r.example"), url, "x").is_err(), "{url}");
        assert!(plain.permitted(&origin("http://r.example"), url, "x").is_ok(), "{url}");
    }
    assert!(plain.permitted(&origin("http://r.example"), "http://other.example/", "x").is_err());
    assert!(connection.permitted(&origin("https://r.example"), "https://store.example/", "x").is_ok());
}

#[test]
fn redirects_are_followed_with_their_bodies() {
    let front = registry(|asked, _| match asked.line.as_str() {
        "POST /v2/a/b/blobs/uploads/" => Reply::of(308).header("location", "/v2/other/uploads/"),
        "POST /v2/other/uploads/" => Reply::of(202).header("location", "upload?state=https://x/"),
        line if line.starts_with("PUT /v2/other/uploads/upload?state=https://x/&digest=") => {
            Reply::of(307).header("location", "../last")
        }
        "PUT /v2/other/last" => Reply::of(if asked.body == b"bytes" { 201 } else { 400 }),
        _ => Reply::of(404),
    });
    repository(&front, None).put_blob(&Digest::of(b"bytes"), b"bytes").expect("taken");
    // One that leads to itself has an end.
    let front = registry(|_, _| Reply::of(302).header("location", "x"));
    let error = repository(&front, None).get_blob(&Digest::of(b"x")).expect_err("nowhere").to_string();
    assert!(error.contains("from one place to the next"), "{error}");
}

/// A registry that wants the token `good` of `host`.
fn with_token(host: &str) -> Server {
    let realm = bearer(&format!("http://{host}/token"));
    registry(move |asked, _| match asked.header("authorization") {
        Some("Bearer good") => Reply::of(200).body("x"),
        _ => Reply::of(401).header("www-authenticate", &realm),
    })
}

#[test]
fn tokens_are_taken_in_every_form() {
    let forms = [
        r#"{"token": "good", "expires_in": 18446744073709551615}"#,
        r#"{"token": "", "access_token": "good"}"#,
        r#"{"access_token": "good", "expires_in": 0}"#,
    ];
    for form in forms {
        let tokens = Server::start(move |asked, before| match (asked.header("authorization"), before) {
            (_, 0) => Reply::of(503).header("retry-after", "0"),
            (Some("Basic YW5uOnNlY3JldA=="), _) => Reply::of(200).body(form),
            _ => Reply::of(401),
        });
        let front = with_token(&tokens.host);
        let repository = repository(&front, Some(ann()));
        for _ in 0..2 {
            assert_eq!(repository.get_blob(&Digest::of(b"x")).expect(form), b"x");
        }
        // Once in vain, and once for both.
        let asked = "GET /token?service=s&scope=repository%3Aa%2Fb%3Apull";
        assert_eq!(tokens.lines(), [asked, asked], "{form}");
    }
}

#[test]
fn an_identity_token_goes_to_who_gives_tokens_only() {
    let identity = || Some(Credentials::Identity("id".to_owned()));
    let tokens = Server::start(|asked, _| {
        assert_eq!(asked.line, "POST /token");
        let form =
            "grant_type=refresh_token&refresh_token=id&client_id=stowage&service=s&scope=repository%3Aa%2Fb%3Apull";
        assert_eq!(asked.body, form.as_bytes());
        Reply::of(200).body(r#"{"access_token": "good"}"#)
    });
    let front = with_token(&tokens.host);
    assert_eq!(repository(&front, identity()).get_blob(&Digest::of(b"x")).expect("a token"), b"x");
    let evil = Arc::new(Server::start_at("127.0.0.2", |_, _| Reply::of(200)));
    let to = format!("http://{}/token", evil.host);
    let tokens = Server::start(move |_, _| Reply::of(307).header("location", &to));
    let front = with_token(&tokens.host);
    repository(&front, identity()).get_blob(&Digest::of(b"x")).expect_err("no token");
    assert!(evil.lines().is_empty());
}

#[test]
fn a_token_server_that_is_not_there_is_named() {
    // A port that nobody has any more.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").to_string();
    let front = with_token(&gone);
    let begin = std::time::Instant::now();
    let connection = Connection::new(&front.host, false, Access::default(), None);
    let request = connection::Request {
        method: ureq::http::Method::GET,
        url: "/v2/x",
        headers: &[],
        body: None,
        scopes: &[],
        action: "x",
    };
    let Err(connection::Failure::Passing { problem, .. }) = connection.ask_once(&request) else {
        panic!("it may come back");
    };
    assert!(problem.contains(&gone), "{problem} {:?}", begin.elapsed());
}

#[test]
fn without_another_way_to_ask_nothing_is_asked_twice() {
    for (how, times) in [("", 1), ("Negotiate", 1), ("Basic realm=x", 2)] {
        let front = registry(move |_, _| Reply::of(401).header("www-authenticate", how));
        repository(&front, Some(ann())).get_blob(&Digest::of(b"x")).expect_err("refused");
        assert_eq!(front.count("GET /v2/a/b/"), times, "{how}");
    }
    // Whoever wants no password is asked for that once.
    let front = registry(|asked, _| match asked.line.starts_with("POST") {
        true => Reply::of(202).header("location", "/v2/u"),
        false => Reply::of(201),
    });
    let repository = repository(&front, Some(ann()));
    repository.put_blob(&Digest::of(b"x"), b"x").expect("taken");
    repository.put_blob(&Digest::of(b"y"), b"y").expect("taken");
    // One more finds out that there is no TLS.
    assert_eq!(front.count("GET /v2/"), 2);
}

#[test]
fn a_registry_for_oneself_may_drop_the_first_connections() {
    let front = Server::start(|asked, before| match asked.line.as_str() {
        "GET /v2/" if before < 4 => Reply::none(),
        "GET /v2/" => Reply::of(200),
        _ => Reply::of(200).body("x"),
    });
    assert_eq!(repository(&front, None).get_blob(&Digest::of(b"x")).expect("there"), b"x");
}

#[test]
fn each_server_is_asked_by_its_own_proxy() {
    // One that says no to everybody.
    let proxy = Server::start(|_, _| Reply::of(403));
    let plain = Server::start(|_, _| Reply::of(200).body("x"));
    let proxies = super::proxy::Proxies {
        https: Some(format!("http://ann:secret@{}", proxy.host)),
        none_for: Some("192.0.2.0/24".to_owned()),
        ..Default::default()
    };
    let access = Access { proxies, ..Access::default() };
    let request = connection::Request {
        method: ureq::http::Method::GET,
        url: "/v2/x",
        headers: &[],
        body: None,
        scopes: &[],
        action: "x",
    };
    let Err(connection::Failure::Passing { problem, .. }) =
        Connection::new("r.example", false, access.clone(), None).ask_once(&request)
    else {
        panic!("refused");
    };
    assert!(problem.contains(&format!("by the proxy {}", proxy.host)) && !problem.contains("secret"), "{problem}");
    assert_eq!(proxy.lines(), ["CONNECT r.example:443"]);
    // This machine, and whoever has no TLS, is asked without.
    Connection::new(&plain.host, false, access, None).ask_once(&request).map(drop).map_err(drop).expect("there");
    assert_eq!(proxy.lines().len(), 1);
}
