//! Compressed layers and archives, told by their first bytes.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use liblzma::stream::Stream;

use super::OpenBlob;
use crate::image::manifest::Descriptor;
use crate::layer::blob::LayerBlob;

/// How much memory xz may take, in bytes: `xz -9` takes 65 MiB.
const XZ_MEMORY: u64 = 100 << 20;

/// The largest window that zstd may take, as a power of 2: that of `--long`.
const ZSTD_WINDOW: u32 = 27;

/// Sizes up to this, in bytes, are never taken for a bomb's.
const HARMLESS: u64 = 1 << 30;

/// How much larger than when compressed a layer may be. Real ones are two to ten
/// times as large; a thousand times is what gzip comes to for zeros.
const MAX_RATIO: u64 = 200;

/// How something is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, RFC 1952.
    Gzip,
    /// Zstandard, RFC 8878.
    Zstd,
    /// xz.
    Xz,
}

impl Compression {
    /// What begins with these bytes: at least six, where there are so many.
    #[must_use]
    pub fn of(first: &[u8]) -> Self {
        match first {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or one that is to be skipped.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }

    /// The media type of a layer that is compressed so. OCI has none for xz; this
    /// one follows its form.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => crate::image::manifest::OCI_LAYER,
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            Self::Xz => "application/vnd.oci.image.layer.v1.tar+xz",
        }
    }

    /// How a layer of that media type is compressed, OCI's or Docker's.
    #[must_use]
    pub fn of_media_type(media_type: &str) -> Self {
        match media_type.rsplit(['+', '.']).next() {
            Some("gzip") => Self::Gzip,
            Some("zstd") => Self::Zstd,
            Some("xz") => Self::Xz,
            _ => Self::None,
        }
    }

    /// Opens what `open` opens, uncompressed.
    #[must_use]
    pub fn uncompressed(self, open: &OpenBlob) -> OpenBlob {
        let open = open.clone();
        Arc::new(move || Ok(Box::new(self.decoder(io::BufReader::new(open()?))?)))
    }

    /// Reads what `reader` gives uncompressed.
    ///
    /// # Errors
    /// When no memory is left.
    pub fn reader<'a>(self, reader: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(Box::new(self.decoder(reader)?))
    }

    fn decoder<R: BufRead>(self, reader: R) -> io::Result<Decoder<R>> {
        Ok(match self {
            Self::None => Decoder::None(reader),
            Self::Gzip => Decoder::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(reader))),
            Self::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(reader)?;
                decoder.window_log_max(ZSTD_WINDOW)?;
                Decoder::Zstd(decoder)
            }
            Self::Xz => {
                let stream = Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
                Decoder::Xz(liblzma::bufread::XzDecoder::new_stream(reader, stream))
            }
        })
    }
}

/// What reads something uncompressed.
enum Decoder<R: BufRead> {
    None(R),
    Gzip(Box<flate2::bufread::MultiGzDecoder<R>>),
    Zstd(zstd::Decoder<'static, R>),
    Xz(liblzma::bufread::XzDecoder<R>),
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::None(reader) => reader.read(space),
            Self::Gzip(decoder) => decoder.read(space),
            Self::Zstd(decoder) => decoder.read(space),
            Self::Xz(decoder) => decoder.read(space),
        }
    }
}

/// A layer that an image has as `blob`, for others to take.
#[must_use]
pub fn taken(blob: &Descriptor, open: &OpenBlob) -> LayerBlob {
    let Descriptor { digest, size, .. } = *blob;
    let compression = Compression::of_media_type(&blob.media_type);
    // Docker 20.10 knows no zstd.
    let plain = (compression == Compression::Zstd).then(|| compression.uncompressed(open));
    LayerBlob { digest, size, open: open.clone(), origin: None, plain }
}

/// How large something may be that is `compressed` bytes when compressed.
#[must_use]
pub fn most(compressed: u64) -> u64 {
    HARMLESS.max(compressed.saturating_mul(MAX_RATIO))
}

/// Something that only grows.
#[derive(Debug, thiserror::Error)]
#[error("it is more than {MAX_RATIO} times as large as it is when compressed, as only zeros would be")]
pub struct TooLarge;

/// Reads up to [`most`] bytes, and fails then.
pub struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R> Bounded<R> {
    /// Reads `inner`, which is `compressed` bytes when compressed.
    pub fn new(inner: R, compressed: u64) -> Self {
        Self { inner, left: most(compressed) }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(space)?;
        self.left = self.left.checked_sub(length as u64).ok_or_else(|| io::Error::other(TooLarge))?;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn compressed(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        match compression {
            Compression::None => bytes.to_vec(),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).expect("memory");
                encoder.finish().expect("memory")
            }
            Compression::Zstd => zstd::encode_all(bytes, 1).expect("memory"),
            Compression::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
                encoder.write_all(bytes).expect("memory");
                encoder.finish().expect("memory")
            }
        }
    }

    #[test]
    fn each_compression_is_told_by_its_first_bytes_and_read_to_its_end() {
        let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Xz] {
            // Two members, as `pigz` and `zstd` may write them.
            let (one, other) = bytes.split_at(1000);
            let all = [compressed(compression, one), compressed(compression, other)].concat();
            assert_eq!(Compression::of(&all), compression);
            let mut read = Vec::new();
            compression.reader(&all[..]).expect("memory").read_to_end(&mut read).expect("valid");
            assert!(read == bytes, "{compression:?}");
            if compression != Compression::None {
                let cut = &all[..all.len() - 10];
                let mut reader = compression.reader(cut).expect("memory");
                reader.read_to_end(&mut read).expect_err("cut");
            }
        }
    }

    #[test]
    fn what_grows_too_much_is_refused() {
        let mut reader = Bounded { inner: io::repeat(0), left: 1000 };
        let error = io::copy(&mut reader, &mut io::sink()).expect_err("endless");
        assert!(error.to_string().contains("200 times"), "{error}");
        assert_eq!((most(0), most(1 << 30)), (1 << 30, 200 << 30));
    }
}
