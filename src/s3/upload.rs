//! Writes an object while it is made.
//!
//! A small one is sent at its end, with one request; of a larger one, parts are sent as they
//! fill, by threads of their own. In either case the object is there only when
//! [`Upload::finish`] has said so, whole; and where that is not called, there is no trace of it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::thread::JoinHandle;
use std::time::SystemTime;

use rusty_s3::Method;
use rusty_s3::actions::{CompleteMultipartUploadResponse, CreateMultipartUpload};
use ureq::http::header;

use super::S3Error;
use super::client::{Client, Condition, MAX_LIST, Request, tag, time};
use super::error::{Complaint, element};

/// How large a part is, in bytes. All are of one size, since some servers want that.
const PART: u64 = 8 << 20;

/// How many parts there may be, by S3's rules, less some for what does not get smaller when it
/// is compressed.
const MOST_PARTS: u64 = 9000;

/// How many parts of one object are sent at the same time. Each is in memory until then.
const AT_ONCE: usize = 3;

/// An object that is written. An error is an [`S3Error`] inside of that of the system.
pub struct Upload {
    client: Client,
    key: String,
    part_size: usize,
    buffer: Vec<u8>,
    parts: Option<Box<Parts>>,
    size: u64,
}

/// What was sent of a large object.
struct Parts {
    id: String,
    tags: Vec<String>,
    running: VecDeque<JoinHandle<Result<String, S3Error>>>,
    /// What had the key before.
    before: Result<Option<Version>, S3Error>,
    /// What the server said, if it forgot the upload: Garage does so with all that began before
    /// another was completed.
    forgotten: Option<S3Error>,
}

/// What tells an object from the one that had its key before, which may well be as large.
#[derive(PartialEq, Eq)]
struct Version {
    size: Option<u64>,
    tag: Option<String>,
    modified: Option<String>,
}

/// An upload that somebody has begun, and not ended.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// The key that the object would have.
    pub key: String,
    /// The upload's name.
    pub id: String,
    /// When it began.
    pub begun: SystemTime,
}

impl Upload {
    /// An upload to `key`, of `expected` bytes at the most, or little more.
    #[must_use]
    pub fn new(client: &Client, key: &str, expected: u64) -> Self {
        let part_size = PART.max(expected.div_ceil(MOST_PARTS).next_multiple_of(1 << 20));
        let part_size = usize::try_from(part_size).unwrap_or(usize::MAX);
        Self { client: client.clone(), key: key.to_owned(), part_size, buffer: Vec::new(), parts: None, size: 0 }
    }

    /// Makes it an object, and tells its size.
    ///
    /// # Errors
    /// When that is impossible; then there is no trace of it.
    pub fn finish(mut self) -> Result<u64, S3Error> {
        if self.parts.is_none() {
            let bytes = std::mem::take(&mut self.buffer);
            self.client.put(&self.key, &bytes, &Condition::Always)?;
            return Ok(self.size);
        }
        if !self.buffer.is_empty() {
            self.send_part()?;
        }
        while self.wait_for_one()? {}
        if let Some(parts) = &self.parts {
            self.complete(parts)?;
        }
        self.parts = None;
        Ok(self.size)
    }

    /// Sends the buffer as the next part.
    fn send_part(&mut self) -> Result<(), S3Error> {
        if self.parts.is_none() {
            let before = self.version();
            let id = self.begin()?;
            let parts = Parts { id, tags: Vec::new(), running: VecDeque::new(), before, forgotten: None };
            self.parts = Some(Box::new(parts));
        }
        while self.parts.as_ref().is_some_and(|parts| parts.running.len() >= AT_ONCE) {
            self.wait_for_one()?;
        }
        let bytes = std::mem::take(&mut self.buffer);
        if let Some(parts) = self.parts.as_mut().filter(|parts| parts.forgotten.is_none()) {
            let number = parts.tags.len() + parts.running.len() + 1;
            let (client, key, id) = (self.client.clone(), self.key.clone(), parts.id.clone());
            parts.running.push_back(std::thread::spawn(move || put_part(&client, &key, &id, number, &bytes)));
        }
        Ok(())
    }

    /// Waits for the first part that is under way; `false` where none is.
    fn wait_for_one(&mut self) -> Result<bool, S3Error> {
        let Some(parts) = &mut self.parts else { return Ok(false) };
        let Some(running) = parts.running.pop_front() else { return Ok(false) };
        match running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
            Ok(tag) => parts.tags.push(tag),
            // Whoever was faster may have written the same.
            Err(error @ S3Error::NoUpload { .. }) => parts.forgotten = Some(error),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn begin(&self) -> Result<String, S3Error> {
        let action = format!("begin to write {}", self.key);
        let request = Request { query: &[("uploads", "")], ..Request::new(Method::Post, &self.key, action) };
        let (_, body) = self.client.send_whole(&request)?;
        let text = String::from_utf8_lossy(&body);
        let answer = CreateMultipartUpload::parse_response(&text);
        let answer =
            answer.map_err(|error| self.client.failed(&request.action, &format!("its answer is none: {error}")));
        Ok(answer?.upload_id().to_owned())
    }

    fn complete(&self, parts: &Parts) -> Result<(), S3Error> {
        let error = match &parts.forgotten {
            Some(error) => error.clone(),
            None => match self.ask_to_complete(parts) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
        };
        // The answer to an earlier request, which was lost, may have been that it is done; or
        // somebody else has written it. Who writes a key at the same time writes the same.
        match (&parts.before, self.version()) {
            (Ok(before), Ok(Some(now))) if now.size == Some(self.size) && before.as_ref() != Some(&now) => Ok(()),
            _ => Err(error),
        }
    }

    fn ask_to_complete(&self, parts: &Parts) -> Result<(), S3Error> {
        let action = format!("write {}", self.key);
        let body = complete_body(&parts.tags);
        let request = Request {
            query: &[("uploadId", &parts.id)],
            body: Some(body.as_bytes()),
            ..Request::new(Method::Post, &self.key, action)
        };
        let (status, body) = self.client.send_whole(&request)?;
        match CompleteMultipartUploadResponse::parse(String::from_utf8_lossy(&body).trim()) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.client.error(&Complaint::read(status, &body), &request.action)),
        }
    }

    /// What there is of the object by now.
    fn version(&self) -> Result<Option<Version>, S3Error> {
        let answer = self.client.send(&Request::new(Method::Head, &self.key, format!("look for {}", self.key)))?;
        let text = |name| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
        let size = text(header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let version = Version { size, tag: tag(&answer), modified: text(header::LAST_MODIFIED) };
        Ok(Some(version).filter(|_| answer.status() != 404))
    }
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() >= self.part_size {
            self.send_part().map_err(io::Error::other)?;
        }
        let room = self.part_size - self.buffer.len();
        let taken = bytes.len().min(room);
        self.buffer.extend_from_slice(&bytes[..taken]);
        self.size += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Upload {
    /// Takes back what was sent of an object that is not to be.
    fn drop(&mut self) {
        if let Some(parts) = self.parts.take() {
            // What comes after the end of an upload might stay.
            parts.running.into_iter().for_each(|running| drop(running.join()));
            if let Err(error) = abort(&self.client, &self.key, &parts.id) {
                tracing::debug!("{error}; `stowage cache gc` takes it away in a day");
            }
        }
    }
}

fn put_part(client: &Client, key: &str, id: &str, number: usize, bytes: &[u8]) -> Result<String, S3Error> {
    let part = number.to_string();
    let action = format!("write part {part} of {key}");
    let query = [("partNumber", &part[..]), ("uploadId", id)];
    let request = Request { query: &query, body: Some(bytes), ..Request::new(Method::Put, key, action) };
    let answer = client.send(&request)?;
    tag(&answer).ok_or_else(|| client.failed(&request.action, "its answer has no ETag"))
}

fn complete_body(tags: &[String]) -> String {
    let parts = tags.iter().enumerate().map(|(at, tag)| {
        let tag = tag.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
        format!("<Part><PartNumber>{}</PartNumber><ETag>{tag}</ETag></Part>", at + 1)
    });
    format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts.collect::<String>())
}

/// Takes back what was sent of an object.
///
/// # Errors
/// When that is impossible.
pub fn abort(client: &Client, key: &str, id: &str) -> Result<(), S3Error> {
    let action = format!("take back what was written of {key}");
    let request = Request { query: &[("uploadId", id)], ..Request::new(Method::Delete, key, action) };
    client.send(&request).map(drop)
}

/// The uploads that somebody has begun, and not ended; the first thousand.
///
/// # Errors
/// When the server does not tell.
pub fn unfinished(client: &Client) -> Result<Vec<Unfinished>, S3Error> {
    let action = "list unfinished uploads".to_owned();
    let request = Request { key: None, query: &[("uploads", "")], ..Request::new(Method::Get, "", action) };
    let mut answer = client.send(&request)?;
    let text = answer.body_mut().with_config().limit(MAX_LIST).read_to_string();
    let text = text.map_err(|error| client.failed(&request.action, &error.to_string()))?;
    let upload = |part: &str| {
        let (key, id) = (element(part, "Key")?, element(part, "UploadId")?);
        Some(Unfinished { key, id, begun: time(element(part, "Initiated").as_deref()) })
    };
    Ok(text.split("<Upload>").skip(1).filter_map(upload).collect())
}
