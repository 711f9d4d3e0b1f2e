//! Lists what is in a bucket.

use std::time::SystemTime;

use rusty_s3::Method;
use rusty_s3::actions::ListObjectsV2;
use rusty_s3::actions::list_objects_v2::{CommonPrefixes, ListObjectsContent, ListObjectsV2Response};

use super::super::S3Error;
use super::{Client, Failure, Listed, MAX_LIST, Request, time};

/// How much may come in a row that does not go on, in entries and pages. Some servers have pages
/// without anything, or name a prefix on each page that ends in it.
const MOST_IDLE: usize = 10_000;

impl Client {
    /// The objects whose keys begin with `prefix`, and the prefixes of those that have a `/`
    /// after it.
    ///
    /// # Errors
    /// When they can't be listed, or the list does not end.
    pub fn list(&self, prefix: &str) -> Result<Vec<Listed>, S3Error> {
        let action = if prefix.is_empty() { "list what is in it".to_owned() } else { format!("list {prefix}") };
        let (mut listed, mut token, mut progress) = (Vec::new(), None::<String>, Progress::default());
        loop {
            let page = self.page(prefix, token.as_deref(), &action)?;
            let begin = listed.len();
            listed.extend(page.contents.into_iter().map(object));
            listed.extend(page.common_prefixes.into_iter().map(folder));
            match page.next_continuation_token {
                None => return Ok(listed),
                Some(next) if token.as_ref() != Some(&next) && progress.goes_on(&listed[begin..]) => token = Some(next),
                Some(_) => return Err(self.failed(&action, "the server's list does not end")),
            }
        }
    }

    /// The page of a list that `token` is for.
    fn page(&self, prefix: &str, token: Option<&str>, action: &str) -> Result<ListObjectsV2Response, S3Error> {
        let mut query: Vec<(&str, &str)> = token.iter().map(|token| ("continuation-token", *token)).collect();
        query.extend([("delimiter", "/"), ("encoding-type", "url"), ("list-type", "2"), ("prefix", prefix)]);
        let request = Request { key: None, query: &query, ..Request::new(Method::Get, "", action.to_owned()) };
        self.persist(|| {
            let mut answer = self.attempt(&request)?;
            let body = answer.body_mut().with_config().limit(MAX_LIST).read_to_string();
            let body = body.map_err(|error| self.failure(&error, action))?;
            let page = ListObjectsV2::parse_response(&body);
            page.map_err(|error| Failure::Final(self.failed(action, &format!("its list is none: {error}"))))
        })
    }
}

/// How far a list has come. Lists are ordered, though not all servers have it to the letter: so
/// each page need not begin after the one before it, but what is last has to get later.
#[derive(Default)]
struct Progress {
    last: String,
    idle: usize,
}

impl Progress {
    /// Whether the list may go on after `page`.
    fn goes_on(&mut self, page: &[Listed]) -> bool {
        match page.iter().map(|one| &one.key).max().filter(|key| **key > self.last) {
            Some(key) => (self.last, self.idle) = (key.clone(), 0),
            None => self.idle += page.len() + 1,
        }
        self.idle < MOST_IDLE
    }
}

fn object(object: ListObjectsContent) -> Listed {
    let modified = time(object.last_modified.as_deref());
    Listed { key: object.key, size: Some(object.size.unwrap_or(0)), modified }
}

fn folder(prefix: CommonPrefixes) -> Listed {
    Listed { key: prefix.prefix, size: None, modified: SystemTime::UNIX_EPOCH }
}
