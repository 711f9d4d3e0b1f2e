//! The hash of a store path's NAR, in every spelling that Nix uses.

use nix_derivation::NixHash;

/// The SHA-256 of a store path's NAR serialisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NarHash([u8; 32]);

/// A hash in none of Nix's spellings, or of another algorithm than SHA-256.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a SHA-256 hash (hexadecimal, Nix base32, base64 or SRI)")]
pub struct ParseHashError {
    text: String,
}

impl NarHash {
    /// Wraps the 32 bytes of a digest.
    #[must_use]
    pub fn new(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// Parses hexadecimal, Nix base32, base64, each with or without `sha256:`,
    /// and SRI (`sha256-…`).
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn parse(text: &str) -> Result<Self, ParseHashError> {
        let error = || ParseHashError { text: text.to_owned() };
        let parsed = if text.starts_with("sha256:") || text.starts_with("sha256-") {
            NixHash::parse(text)
        } else {
            NixHash::parse(&format!("sha256:{text}"))
        };
        match parsed {
            Ok(NixHash::Sha256(digest)) => Ok(Self(digest)),
            _ => Err(error()),
        }
    }

    /// The digest's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 hexadecimal digits, as `nix-store --dump-db` prints it.
    #[must_use]
    pub fn to_hex(&self) -> String {
        crate::digest::hex(&self.0)
    }

    /// 52 digits of Nix base32, without a prefix, as NAR file names use it.
    #[must_use]
    pub fn to_nix32(&self) -> String {
        nix_derivation::nixbase32::encode(&self.0)
    }

    /// The same hash as the Nix format crates know it.
    #[must_use]
    pub fn to_nix_hash(&self) -> NixHash {
        NixHash::Sha256(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::NarHash;

    #[test]
    fn all_spellings_that_nix_prints_are_the_same_hash() {
        // nix-hash --type sha256 --to-base16/--to-base32/--to-sri of one hash.
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for text in [
            hex,
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
            "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
            "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        ] {
            assert_eq!(NarHash::parse(text).expect(text).to_hex(), hex, "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "sha256:", "sha512:00", "e3b0", "sha256:zz", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
            assert!(NarHash::parse(text).is_err(), "{text}");
        }
    }
}
