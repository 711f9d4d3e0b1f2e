//! Reads a large object as a stream, and goes on where a connection breaks.

use std::io::{self, Read};

use rusty_s3::Method;
use ureq::http::header;

use super::client::{Answer, Client, Failure, Request, tag};
use super::{Client as Bucket, S3Error};

/// How often in a row a connection may break before anything has come.
const ATTEMPTS: u32 = 8;

/// An object that is read. An error is an [`S3Error`] inside of that of the system.
pub struct Download {
    client: Bucket,
    key: String,
    tag: Option<String>,
    size: u64,
    position: u64,
    body: Option<Box<dyn Read + Send>>,
}

impl Download {
    /// The object `key`; `None` where there is none.
    ///
    /// # Errors
    /// When that can't be found out.
    pub fn open(client: &Client, key: &str) -> Result<Option<Self>, S3Error> {
        let answer = client.send(&Request::new(Method::Get, key, format!("read {key}")))?;
        if answer.status() == 404 {
            return Ok(None);
        }
        let size = answer.body().content_length();
        let size = size.ok_or_else(|| client.failed(&format!("read {key}"), "it does not say how large that is"))?;
        Ok(Some(Self {
            client: client.clone(),
            key: key.to_owned(),
            tag: tag(&answer),
            size,
            position: 0,
            body: Some(reader(answer)),
        }))
    }

    /// How large it is, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Asks for what is still to come.
    fn resume(&self) -> Result<Box<dyn Read + Send>, S3Error> {
        let action = format!("read {} from byte {} on", self.key, self.position);
        let mut headers = vec![("range", format!("bytes={}-", self.position))];
        headers.extend(self.tag.iter().map(|tag| ("if-match", tag.clone())));
        let request = Request { headers: &headers, ..Request::new(Method::Get, &self.key, action) };
        let answer = self.client.send(&request)?;
        match answer.status().as_u16() {
            206 => {
                let range = answer.headers().get(header::CONTENT_RANGE).and_then(|text| text.to_str().ok());
                let expected = format!("bytes {}-", self.position);
                if range.is_none_or(|range| range.starts_with(&expected)) {
                    return Ok(reader(answer));
                }
                Err(self.client.failed(&request.action, "it gives another part"))
            }
            // Some know no ranges.
            200 if self.position == 0 => Ok(reader(answer)),
            status => Err(self.client.failed(&request.action, &format!("it is another object by now (HTTP {status})"))),
        }
    }

    fn read_once(&mut self, space: &mut [u8]) -> Result<usize, Failure> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => self.resume().map_err(Failure::Final)?,
        };
        let cut_off =
            |problem: &str| Failure::Passing(self.client.failed(&format!("read {}", self.key), problem), None);
        match body.read(space) {
            Ok(0) => Err(cut_off("the answer was cut off")),
            Ok(length) => {
                self.body = Some(body);
                Ok(length)
            }
            Err(error) => Err(cut_off(&error.to_string())),
        }
    }
}

impl Read for Download {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.position).unwrap_or(usize::MAX).min(space.len());
        if left == 0 {
            return Ok(0);
        }
        for number in 1.. {
            match self.read_once(&mut space[..left]) {
                Ok(length) => {
                    self.position += length as u64;
                    return Ok(length);
                }
                Err(Failure::Passing(error, _)) if number < ATTEMPTS => {
                    tracing::debug!("{error}; going on from byte {}", self.position);
                    std::thread::sleep(crate::registry::connection::pause(number));
                }
                Err(Failure::Passing(error, _) | Failure::Final(error)) => return Err(io::Error::other(error)),
            }
        }
        unreachable!("the loop ends by returning")
    }
}

fn reader(answer: Answer) -> Box<dyn Read + Send> {
    Box::new(answer.into_body().into_with_config().limit(u64::MAX).reader())
}
