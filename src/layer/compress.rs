//! Compressed layers: the forms that a layer's tar can go out in.
//!
//! # Format v1
//!
//! The tar is cut into blocks of a fixed size, the last one shorter, and each
//! is compressed for itself, by a compressor that has seen nothing before:
//!
//! - gzip: members of 1 MiB, by libdeflate, without time or name (RFC 1952,
//!   section 2.2: a file is one member after the other);
//! - zstd: frames of 4 MiB with their size and without a checksum (RFC 8878,
//!   section 3: so is this). 300 MB of a store's files become 0.7 percent larger
//!   so at level 3 than in a single frame; with 2 MiB it is 1.6, with 1 MiB 3.2.
//!
//! So blocks are compressed side by side, and the bytes depend on the tar, the
//! codec, its level and the libraries' versions: not on the number of threads,
//! on the processor, or on how the tar came in pieces. [`VERSION`] changes with
//! any of this; the golden digests in [`encoder`]'s tests tell when it has to.

mod block;
pub mod encoder;

use std::fmt;
use std::str::FromStr;

use crate::codec::{self, Codec};

pub use encoder::{Encoder, Press};

/// The version of the form; see above.
const VERSION: u32 = 1;

/// The media type of a layer that is a bare tar.
pub const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
/// The media type of a layer in gzip.
pub const TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The media type of a layer in zstd.
pub const TAR_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// The levels of libdeflate.
const GZIP_LEVELS: std::ops::RangeInclusive<u8> = 1..=12;
/// Higher ones find only what is farther away than a block is long.
const ZSTD_LEVELS: std::ops::RangeInclusive<u8> = 1..=19;
/// Smaller than what skopeo and docker make by their defaults, in half the time.
const GZIP_LEVEL: u8 = 4;
/// As small as what skopeo and docker make of gzip by their defaults (703 MB of debnix's large,
/// to 704), in two thirds of the time of level 3 (625 MB): where the registry is near, the processor is
/// what a push waits for, and where it is far, level 3 is a word away.
const ZSTD_LEVEL: u8 = 1;

/// How a layer is compressed: `none`, `gzip`, `zstd`, or with a level as in `zstd:9`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip, at that level.
    Gzip(u8),
    /// zstd, at that level.
    Zstd(u8),
}

/// A text that names no compression.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is no compression: {problem}; there are none, gzip (gzip:1 to gzip:12) and zstd (zstd:1 to zstd:19)")]
pub struct CompressionError {
    text: String,
    problem: &'static str,
}

impl Compression {
    /// zstd at its usual level.
    pub const ZSTD: Self = Self::Zstd(ZSTD_LEVEL);
    /// gzip at its usual level.
    pub const GZIP: Self = Self::Gzip(GZIP_LEVEL);

    /// OCI's media type of such a layer.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => TAR,
            Self::Gzip(_) => TAR_GZIP,
            Self::Zstd(_) => TAR_ZSTD,
        }
    }

    /// The media type of such a layer in Docker's manifests of schema 2, which have none for
    /// zstd: nobody who reads these would know what to do.
    #[must_use]
    pub fn docker_media_type(self) -> Option<&'static str> {
        match self {
            Self::None => Some("application/vnd.docker.image.rootfs.diff.tar"),
            Self::Gzip(_) => Some("application/vnd.docker.image.rootfs.diff.tar.gzip"),
            Self::Zstd(_) => None,
        }
    }

    /// Whether the tar stays as it is.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::None
    }

    /// Names all that the compressed bytes depend on, but the tar, as part of a file's
    /// name: the layer index remembers blobs by it.
    #[must_use]
    pub fn form(self) -> String {
        match self {
            Self::None => format!("tar-v{VERSION}"),
            Self::Gzip(level) => format!("gzip-{level}-v{VERSION}"),
            Self::Zstd(level) => format!("zstd-{level}-v{VERSION}"),
        }
    }
}

impl FromStr for Compression {
    type Err = CompressionError;

    fn from_str(text: &str) -> Result<Self, CompressionError> {
        let codec = Codec::new(text);
        let parsed = match codec.name {
            "none" => codec.without_level().map(|()| Self::None),
            "gzip" => codec.level_in(&GZIP_LEVELS, GZIP_LEVEL).map(Self::Gzip),
            "zstd" => codec.level_in(&ZSTD_LEVELS, ZSTD_LEVEL).map(Self::Zstd),
            _ => Err(codec::UNKNOWN),
        };
        parsed.map_err(|problem| CompressionError { text: text.to_owned(), problem })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => formatter.write_str("none"),
            Self::Gzip(level) => write!(formatter, "gzip:{level}"),
            Self::Zstd(level) => write!(formatter, "zstd:{level}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_name_codecs_and_levels() {
        for (text, expected) in [
            ("none", Compression::None),
            ("gzip", Compression::Gzip(4)),
            ("gzip:12", Compression::Gzip(12)),
            ("zstd", Compression::Zstd(1)),
            ("zstd:19", Compression::Zstd(19)),
        ] {
            let parsed: Compression = text.parse().expect(text);
            assert_eq!(parsed, expected);
            assert_eq!(parsed.to_string().parse::<Compression>().expect(text), expected);
        }
    }

    #[test]
    fn every_message_names_its_cause() {
        for (text, message) in [
            ("xz", "codec is not known"),
            ("", "codec is not known"),
            ("none:1", "no levels"),
            ("gzip:0", "level"),
            ("gzip:13", "level"),
            ("zstd:20", "level"),
            ("zstd:", "level"),
            ("zstd:-1", "level"),
        ] {
            let error = text.parse::<Compression>().expect_err(text).to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn docker_has_no_name_for_zstd() {
        assert_eq!(Compression::ZSTD.docker_media_type(), None);
        assert_eq!(Compression::GZIP.docker_media_type(), Some("application/vnd.docker.image.rootfs.diff.tar.gzip"));
    }

    #[test]
    fn forms_differ_and_are_parts_of_file_names() {
        let forms: std::collections::BTreeSet<String> =
            [Compression::None, Compression::Gzip(6), Compression::Gzip(7), Compression::Zstd(6)]
                .map(Compression::form)
                .into();
        assert_eq!(forms.len(), 4);
        assert!(forms.iter().flat_map(|form| form.bytes()).all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
    }
}
