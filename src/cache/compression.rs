//! The forms that a NAR's file can have in a cache.
//!
//! A NAR is one stream of its codec, compressed by one thread; but a large one in zstd is
//! compressed on all of them, in blocks as layers are ([`crate::layer::compress`]). In any
//! case the bytes depend on the NAR, the codec, its level and the library's version.

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::codec::{self, Codec};
use crate::layer::compress::{self, Press};
use crate::parent::compression;

/// Higher ones ask their readers for more memory than zstd gives them unasked.
const ZSTD_LEVELS: RangeInclusive<u8> = 1..=19;
const XZ_LEVELS: RangeInclusive<u8> = 0..=9;
/// Within a few percent of the size that higher levels come to, at a speed that
/// a disk can follow.
const ZSTD_LEVEL: u8 = 3;
/// As `xz` and Nix have it.
const XZ_LEVEL: u8 = 6;
/// How many threads compress blocks: a NAR is not read and hashed faster than so many follow.
const MOST_THREADS: usize = 8;

/// How a NAR is compressed: `none`, `zstd`, `xz`, or with a level as in `zstd:9`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// zstd, at that level.
    Zstd(u8),
    /// xz, at that level.
    Xz(u8),
}

/// A text that names no compression.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is no compression: {problem}; there are none, zstd (zstd:1 to zstd:19) and xz (xz:0 to xz:9)")]
pub struct CompressionError {
    text: String,
    problem: &'static str,
}

impl Compression {
    /// Each codec once, the most usual first.
    pub const CODECS: [Self; 3] = [Self::Zstd(ZSTD_LEVEL), Self::Xz(XZ_LEVEL), Self::None];

    /// What follows `.nar` in the name of the file, as Nix has it.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Zstd(_) => ".zst",
            Self::Xz(_) => ".xz",
        }
    }

    /// What a narinfo calls it.
    #[must_use]
    pub fn in_narinfo(self) -> nix_narinfo::Compression {
        match self {
            Self::None => nix_narinfo::Compression::None,
            Self::Zstd(_) => nix_narinfo::Compression::Zstd,
            Self::Xz(_) => nix_narinfo::Compression::Xz,
        }
    }

    /// Reads what is compressed so.
    ///
    /// # Errors
    /// When no memory is left.
    pub fn reader<'a>(self, reader: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
        match self {
            Self::None => compression::Compression::None.reader(reader),
            Self::Zstd(_) => compression::Compression::Zstd.reader(reader),
            Self::Xz(_) => compression::Compression::Xz.reader(reader),
        }
    }

    /// The threads, at most `threads`, that compress large NARs in blocks, if it has blocks.
    #[must_use]
    pub fn press(self, threads: usize) -> Option<Press> {
        match self {
            Self::Zstd(level) => Some(Press::new(compress::Compression::Zstd(level), threads.min(MOST_THREADS))),
            Self::None | Self::Xz(_) => None,
        }
    }

    /// Compresses `size` bytes into `writer`.
    ///
    /// # Errors
    /// When no memory is left.
    pub fn writer<W: Write>(self, writer: W, size: u64) -> io::Result<Encoder<'static, W>> {
        Ok(match self {
            Self::None => Encoder::None(writer),
            Self::Zstd(level) => {
                let mut encoder = zstd::stream::write::Encoder::new(writer, i32::from(level))?;
                // With the size known, small NARs take little memory, and readers are told
                // in the frame's header.
                encoder.set_pledged_src_size(Some(size))?;
                Encoder::Zstd(encoder)
            }
            Self::Xz(level) => Encoder::Xz(liblzma::write::XzEncoder::new(writer, u32::from(level))),
        })
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self::Zstd(ZSTD_LEVEL)
    }
}

impl FromStr for Compression {
    type Err = CompressionError;

    fn from_str(text: &str) -> Result<Self, CompressionError> {
        let codec = Codec::new(text);
        let parsed = match codec.name {
            "none" => codec.without_level().map(|()| Self::None),
            "zstd" => codec.level_in(&ZSTD_LEVELS, ZSTD_LEVEL).map(Self::Zstd),
            "xz" => codec.level_in(&XZ_LEVELS, XZ_LEVEL).map(Self::Xz),
            _ => Err(codec::UNKNOWN),
        };
        parsed.map_err(|problem| CompressionError { text: text.to_owned(), problem })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => formatter.write_str("none"),
            Self::Zstd(level) => write!(formatter, "zstd:{level}"),
            Self::Xz(level) => write!(formatter, "xz:{level}"),
        }
    }
}

/// What compresses a NAR.
pub enum Encoder<'a, W: Write> {
    /// Not at all.
    None(W),
    /// With zstd.
    Zstd(zstd::stream::write::Encoder<'static, W>),
    /// With xz.
    Xz(liblzma::write::XzEncoder<W>),
    /// In blocks, on the threads of a press.
    Blocks(compress::Encoder<'a, W>),
}

impl<W: Write> Encoder<'_, W> {
    /// Writes the end of the stream.
    ///
    /// # Errors
    /// When it can't be written, or there were more or fewer bytes than was said.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Self::None(writer) => Ok(writer),
            Self::Zstd(encoder) => encoder.finish(),
            Self::Xz(encoder) => encoder.finish(),
            Self::Blocks(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(writer) => writer.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
            Self::Xz(encoder) => encoder.write(bytes),
            Self::Blocks(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::None(writer) => writer.flush(),
            Self::Zstd(encoder) => encoder.flush(),
            Self::Xz(encoder) => encoder.flush(),
            Self::Blocks(encoder) => encoder.flush(),
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
            ("zstd", Compression::Zstd(3)),
            ("zstd:19", Compression::Zstd(19)),
            ("xz", Compression::Xz(6)),
            ("xz:0", Compression::Xz(0)),
        ] {
            let parsed: Compression = text.parse().expect(text);
            assert_eq!(parsed, expected);
            assert_eq!(parsed.to_string().parse::<Compression>().expect(text), expected);
        }
        assert_eq!(Compression::default(), Compression::CODECS[0]);
    }

    #[test]
    fn every_message_names_its_cause() {
        for (text, message) in [
            ("gzip", "codec is not known"),
            ("", "codec is not known"),
            ("none:1", "no levels"),
            ("zstd:0", "level"),
            ("zstd:20", "level"),
            ("xz:10", "level"),
            ("xz:", "level"),
        ] {
            let error = text.parse::<Compression>().expect_err(text).to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_compressed_can_be_read() {
        let bytes: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
        for codec in Compression::CODECS {
            let mut encoder = codec.writer(Vec::new(), bytes.len() as u64).expect("memory");
            encoder.write_all(&bytes).expect("memory");
            let written = encoder.finish().expect("memory");
            let mut read = Vec::new();
            codec.reader(&written[..]).expect("memory").read_to_end(&mut read).expect("valid");
            assert!(read == bytes, "{codec}");
        }
    }
}
