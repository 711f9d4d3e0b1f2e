//! A server with a bucket, in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use sha2::{Digest as _, Sha256};

use crate::registry::tests::server::{Asked, Reply, Server};
use crate::s3::Client;

/// What is in the bucket: bytes, and when they were written.
pub type Contents = BTreeMap<String, (Vec<u8>, SystemTime)>;

/// The bucket.
#[derive(Clone, Default)]
pub struct Objects(Arc<Mutex<Contents>>);

/// Is told of each request before it is answered, and may answer in its place.
type Before = dyn Fn(&str, &Objects, &[u8]) -> Option<Reply> + Send + Sync;

impl Objects {
    /// Starts a server that has them.
    pub fn start(before: impl Fn(&str, &Self) -> Option<Reply> + Send + Sync + 'static) -> (Server, Client, Self) {
        Self::start_with_bodies(move |line, objects, _| before(line, objects))
    }

    /// Likewise; `before` gets the requests' bodies, too.
    pub fn start_with_bodies(
        before: impl Fn(&str, &Self, &[u8]) -> Option<Reply> + Send + Sync + 'static,
    ) -> (Server, Client, Self) {
        let objects = Self::default();
        let (own, before): (_, Box<Before>) = (objects.clone(), Box::new(before));
        let server = Server::start(move |asked, _| {
            let line = super::path(asked).replacen("/cache/", "", 1);
            let line = percent_decode_str(&line).decode_utf8().expect("UTF-8").into_owned();
            before(&line, &own, &asked.body).unwrap_or_else(|| own.answer(&line, asked))
        });
        let client = super::client(&server.host);
        (server, client, objects)
    }

    pub fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().expect("no panic")
    }

    pub fn put(&self, key: &str, bytes: &[u8]) {
        self.lock().insert(key.to_owned(), (bytes.to_vec(), SystemTime::now()));
    }

    pub fn text(&self, key: &str) -> String {
        String::from_utf8(self.lock().get(key).expect(key).0.clone()).expect("UTF-8")
    }

    /// The keys that begin so.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.lock().keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    /// Has all that is there so far, but records of use, be written so many days ago.
    pub fn age(&self, days: u64) {
        let mut objects = self.lock();
        objects.retain(|key, _| !key.starts_with("stowage/"));
        let time = SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60);
        objects.values_mut().for_each(|object| object.1 = time);
    }

    fn answer(&self, line: &str, asked: &Asked) -> Reply {
        let (method, key) = line.split_once(' ').expect("a method");
        if asked.line.contains("list-type=2") {
            return self.list(&asked.line);
        }
        let mut objects = self.lock();
        let found = objects.get(key).cloned();
        let missing = || Reply::of(404).body("<Error><Code>NoSuchKey</Code></Error>");
        match method {
            "GET" => found.map_or_else(missing, |(bytes, _)| Reply::of(200).header("etag", &tag(&bytes)).body(bytes)),
            "HEAD" => found.map_or(Reply::of(404), |(bytes, time)| {
                let reply = Reply::of(200).header("content-length", &bytes.len().to_string());
                reply.header("last-modified", &httpdate::fmt_http_date(time))
            }),
            "DELETE" => {
                objects.remove(key);
                Reply::of(204)
            }
            "PUT" => {
                let is_met = match (asked.header("if-none-match"), asked.header("if-match")) {
                    (Some(_), _) => found.is_none(),
                    (_, Some(wanted)) => found.is_some_and(|(bytes, _)| tag(&bytes) == wanted),
                    _ => true,
                };
                if !is_met {
                    return Reply::of(412).body("<Error><Code>PreconditionFailed</Code></Error>");
                }
                let source = asked.header("x-amz-copy-source").map(|source| {
                    let source = percent_decode_str(source).decode_utf8().expect("UTF-8").replacen("/cache/", "", 1);
                    objects.get(&source).map(|(bytes, _)| bytes.clone())
                });
                match source.unwrap_or_else(|| Some(asked.body.clone())) {
                    Some(bytes) => {
                        objects.insert(key.to_owned(), (bytes, SystemTime::now()));
                        Reply::of(200)
                    }
                    None => missing(),
                }
            }
            _ => Reply::of(501),
        }
    }

    fn list(&self, line: &str) -> Reply {
        let prefix = line.rsplit_once("prefix=").expect("a prefix").1;
        let prefix = percent_decode_str(prefix.split('&').next().unwrap_or_default()).decode_utf8().expect("UTF-8");
        let (mut entries, mut folders) = (String::new(), std::collections::BTreeSet::new());
        for (key, (bytes, time)) in self.lock().iter() {
            let Some(rest) = key.strip_prefix(&*prefix) else { continue };
            match rest.split_once('/') {
                Some((folder, _)) => drop(folders.insert(format!("{prefix}{folder}/"))),
                None => {
                    let time = Timestamp::try_from(*time).expect("a time");
                    let size = bytes.len();
                    entries += &format!(
                        "<Contents><Key>{key}</Key><LastModified>{time}</LastModified><Size>{size}</Size></Contents>"
                    );
                }
            }
        }
        for folder in folders {
            entries += &format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>");
        }
        let name = "ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";
        Reply::of(200).body(format!("<{name}><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"))
    }
}

fn tag(bytes: &[u8]) -> String {
    format!("\"{}\"", crate::digest::hex(&Sha256::digest(bytes)))
}
