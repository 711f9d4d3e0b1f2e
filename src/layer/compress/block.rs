//! One block of a layer: a gzip member, or a zstd frame.

use std::io;

use libdeflater::{CompressionLvl, Compressor};

use super::Compression;

/// How many bytes of the tar are a block.
pub fn size(compression: Compression) -> usize {
    match compression {
        Compression::None | Compression::Gzip(_) => 1 << 20,
        Compression::Zstd(_) => 4 << 20,
    }
}

/// How much memory a compressor takes beside its block, in bytes, at the most: what zstd 1.5 was
/// found to have after 4 MiB, and libdeflate for its tables. Its levels grow by leaps.
pub fn memory(compression: Compression) -> usize {
    let mib = match compression {
        Compression::None => 1,
        Compression::Gzip(0..=9) | Compression::Zstd(0..=6) => 2,
        Compression::Zstd(7 | 8) => 5,
        Compression::Gzip(_) | Compression::Zstd(9) => 10,
        Compression::Zstd(10 | 11) => 20,
        Compression::Zstd(15) => 64,
        Compression::Zstd(_) => 50,
    };
    mib << 20
}

/// Compresses a block, with a new compressor for each: zstd's remember something of
/// what they had before, on which their bytes then depend (`hashSalt`, levels 5 to 12).
///
/// # Errors
/// When the level is none of the codec's, or there is no memory.
pub fn compress(compression: Compression, block: &[u8]) -> io::Result<Vec<u8>> {
    match compression {
        Compression::None => Ok(block.to_vec()),
        Compression::Gzip(level) => {
            let level = CompressionLvl::new(level.into())
                .map_err(|_| io::Error::other(format!("no level of gzip: {level}")))?;
            let mut compressor = Compressor::new(level);
            let mut out = vec![0; compressor.gzip_compress_bound(block.len())];
            let length = compressor.gzip_compress(block, &mut out).map_err(io::Error::other)?;
            out.truncate(length);
            Ok(out)
        }
        Compression::Zstd(level) => zstd::bulk::compress(block, level.into()),
    }
}
