//! A cache's files in a bucket: objects whose keys are the names that the files would have.

use std::ffi::{OsStr, OsString};
use std::time::{Duration, SystemTime};

use super::beneath::manage::{Entry, Kind};
use crate::s3::client::{Fetched, Listed};
use crate::s3::download::Download;
use crate::s3::upload::{self, Upload};
use crate::s3::{Client, Condition, S3Error, Written};

/// The objects of a bucket whose keys begin with a prefix.
#[derive(Clone, Debug)]
pub struct Bucket {
    client: Client,
    /// Empty, or ending in `/`.
    prefix: String,
}

impl Bucket {
    /// All objects of a bucket.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, prefix: String::new() }
    }

    /// Those below `name`.
    ///
    /// # Errors
    /// When nothing can be called so.
    pub fn below(&self, name: &str) -> Result<Self, S3Error> {
        Ok(Self { client: self.client.clone(), prefix: self.key(name)? + "/" })
    }

    /// Where the object `name` is, for messages.
    #[must_use]
    pub fn shown(&self, name: &str) -> String {
        format!("{}: {}{name}", self.client.address(), self.prefix)
    }

    /// The key of the object `name`. Some names would lead elsewhere in a URL.
    fn key(&self, name: &str) -> Result<String, S3Error> {
        if is_name(name) {
            return Ok(format!("{}{name}", self.prefix));
        }
        let address = self.client.address();
        let (bucket, action) = (address.bucket.clone(), format!("use {}{name:?}", self.prefix));
        Err(S3Error::Failed { bucket, action, problem: "no object of a cache can be called so".to_owned() })
    }

    fn key_of(&self, name: &OsStr) -> Result<String, S3Error> {
        self.key(&name.to_string_lossy())
    }

    /// What the object `name` holds, and the condition under which it is still that; `None`
    /// where there is none of at most `limit` bytes.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn look(&self, name: &str, limit: u64) -> Result<(Option<Vec<u8>>, Condition), S3Error> {
        Ok(match self.client.get(&self.key(name)?, limit)? {
            Fetched::Object(object) => (Some(object.bytes), object.tag.map_or(Condition::Always, Condition::Is)),
            Fetched::TooLarge => (None, Condition::Always),
            Fetched::Absent => (None, Condition::New),
        })
    }

    /// Opens the object `name`.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn file(&self, name: &str) -> Result<Option<Download>, S3Error> {
        Download::open(&self.client, &self.key(name)?)
    }

    /// What is known of the object `name`.
    ///
    /// # Errors
    /// When that can't be found out.
    pub fn head(&self, name: &str) -> Result<Option<Listed>, S3Error> {
        self.client.head(&self.key(name)?)
    }

    /// Writes the object `name`, if `condition` holds.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, name: &str, contents: &[u8], condition: &Condition) -> Result<Written, S3Error> {
        self.client.put(&self.key(name)?, contents, condition)
    }

    /// An upload that makes the object `name`.
    ///
    /// # Errors
    /// When nothing can be called so.
    pub fn upload(&self, name: &str, expected: u64) -> Result<Upload, S3Error> {
        Ok(Upload::new(&self.client, &self.key(name)?, expected))
    }

    /// All objects here, and the prefixes of those below, ordered by name.
    ///
    /// # Errors
    /// When they can't be listed.
    pub fn entries(&self) -> Result<Vec<Entry>, S3Error> {
        let entry = |listed: Listed| {
            let name = listed.key.strip_prefix(&self.prefix)?;
            let (name, kind) = match listed.size {
                Some(size) => (name, Kind::File(size)),
                None => (name.strip_suffix('/')?, Kind::Folder),
            };
            is_name(name).then(|| Entry { name: name.into(), kind, modified: listed.modified })
        };
        let mut entries: Vec<Entry> = self.client.list(&self.prefix)?.into_iter().filter_map(entry).collect();
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    /// Moves the object `name` to `to`, under a name of its own that begins so.
    ///
    /// # Errors
    /// When it can't be moved. Then it may be in both places.
    pub fn move_into(&self, name: &OsStr, to: &Self) -> Result<Option<OsString>, S3Error> {
        let from = self.key_of(name)?;
        for number in 0_u32.. {
            let mut candidate = name.to_owned();
            if number > 0 {
                candidate.push(format!(".{number}"));
            }
            let target = to.key_of(&candidate)?;
            if self.client.head(&target)?.is_some() {
                continue;
            }
            if !self.client.copy(&from, &target)? {
                return Ok(None);
            }
            self.client.delete(&from)?;
            return Ok(Some(candidate));
        }
        Ok(None)
    }

    /// Deletes the object `name`.
    ///
    /// # Errors
    /// When it can't be deleted.
    pub fn remove(&self, name: &OsStr) -> Result<(), S3Error> {
        self.client.delete(&self.key_of(name)?)
    }

    /// Deletes the object `name` if it was not written for `age`, and tells whether that was so.
    ///
    /// # Errors
    /// When it can't be deleted.
    pub fn remove_older(&self, name: &OsStr, age: Duration) -> Result<bool, S3Error> {
        let is_old =
            |object: &Listed| SystemTime::now().duration_since(object.modified).is_ok_and(|since| since >= age);
        self.client.delete_if(&self.key_of(name)?, is_old)
    }

    /// Takes back uploads that somebody began `age` ago, and did not end. Not every server can
    /// tell of them.
    pub fn abandon(&self, age: Duration) {
        let now = SystemTime::now();
        match upload::unfinished(&self.client) {
            Err(error) => tracing::debug!("{error}"),
            Ok(found) => {
                let is_old = |begun| now.duration_since(begun).is_ok_and(|since| since > age);
                for one in found.into_iter().filter(|one| is_old(one.begun)) {
                    if let Err(error) = upload::abort(&self.client, &one.key, &one.id) {
                        tracing::warn!("{error}");
                    }
                }
            }
        }
    }
}

/// Whether a file can be called so.
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains('/')
}

#[cfg(test)]
mod tests;
