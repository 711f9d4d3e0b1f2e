//! Pax headers, which say more of the entry that they precede.
//!
//! Source: POSIX.1-2017, `pax`, "pax Header Block"; GNU tar's manual, "Storing Sparse Files".

use super::TarError;
use crate::layer::tar::CAPABILITY;

/// What pax headers say.
#[derive(Default)]
pub struct Pax {
    /// The entry's path.
    pub path: Option<Vec<u8>>,
    /// What a link leads to.
    pub link: Option<Vec<u8>>,
    /// How long the contents are, in bytes.
    pub size: Option<u64>,
    /// The owner's number.
    pub uid: Option<u32>,
    /// The group's number.
    pub gid: Option<u32>,
    /// Whether the file has holes.
    pub sparse: bool,
    /// The file's capabilities.
    pub capability: Vec<u8>,
}

impl Pax {
    /// Parses records `LENGTH KEY=VALUE\n`.
    ///
    /// # Errors
    /// When one is no such record.
    pub fn parse(mut bytes: &[u8]) -> Result<Self, TarError> {
        let damaged = || TarError::Refused("a pax header is damaged".to_owned());
        let mut pax = Self::default();
        while !bytes.is_empty() {
            let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(damaged)?;
            let length = decimal(&bytes[..space]).and_then(|length| usize::try_from(length).ok());
            let length = length.filter(|length| *length > space + 1 && *length <= bytes.len()).ok_or_else(damaged)?;
            let (record, rest) = bytes.split_at(length);
            let record = record[space + 1..].strip_suffix(b"\n").ok_or_else(damaged)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(damaged)?;
            pax.set(&record[..equals], &record[equals + 1..]).ok_or_else(damaged)?;
            bytes = rest;
        }
        Ok(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let id = |value| decimal(value).map(|id| u32::try_from(id).unwrap_or(u32::MAX));
        match key {
            // An empty value takes back what a global header said.
            b"path" | b"linkpath" | b"size" | b"uid" | b"gid" if value.is_empty() => {}
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(id(value)?),
            b"gid" => self.gid = Some(id(value)?),
            b"GNU.sparse.name" => {
                self.path = Some(value.to_vec());
                self.sparse = true;
            }
            _ if key == CAPABILITY.as_bytes() => self.capability = value.to_vec(),
            _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
            _ => {}
        }
        Some(())
    }
}

/// A number in decimal digits; of one with a fraction, what is before that.
fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}
