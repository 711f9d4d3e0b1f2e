//! Signs what a cache says of store paths, as Nix does.
//!
//! A key is a text `NAME:BASE64`, of 64 bytes: the seed of an ed25519 key, and its public
//! key. What is signed is a fingerprint of all that a reader must be able to believe:
//!
//! ```text
//! 1;/nix/store/…-name;sha256:NARHASH;NARSIZE;REFERENCE,REFERENCE,…
//! ```
//!
//! A signature says that whoever has the key stands for these contents. So what is signed is
//! always what this machine's own database says, never what somebody has put in the cache.
//!
//! Source: Nix's `crypto.cc`, and `ValidPathInfo::fingerprint` in `path-info.cc`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signer as _, SigningKey};

use crate::nar::Measured;
use crate::store::{PathInfo, StoreDir};

/// How long a secret key is, in bytes.
const KEY_SIZE: usize = 64;
/// How long a public key is.
const PUBLIC_KEY_SIZE: usize = 32;

/// A text that is no secret key. What it is, is not told: it may nearly be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No name, or nothing after it.
    #[error("it is not of the form NAME:BASE64")]
    Form,
    /// Letters that are not base64.
    #[error("what follows its name is no base64")]
    Base64,
    /// The wrong half of a pair.
    #[error("it is a public key; a secret one is wanted")]
    Public,
    /// Cut off, or of another kind.
    #[error("it has {0} bytes, where a secret key has {KEY_SIZE}")]
    Size(usize),
    /// Its halves do not belong together.
    #[error("its public half is not that of its secret half")]
    Halves,
}

/// A key to sign with. It can't be printed.
#[derive(Clone)]
pub struct SecretKey {
    name: String,
    key: SigningKey,
}

impl SecretKey {
    /// Reads a key in Nix's form; white space around it does not matter.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, encoded) = text.trim().split_once(':').ok_or(KeyError::Form)?;
        // Others would break the lines that signatures are on.
        let is_good = |letter: char| !letter.is_whitespace() && !letter.is_control();
        if name.is_empty() || !name.chars().all(is_good) || encoded.is_empty() {
            return Err(KeyError::Form);
        }
        let bytes = BASE64.decode(encoded).map_err(|_| KeyError::Base64)?;
        let pair: [u8; KEY_SIZE] = match bytes.len() {
            PUBLIC_KEY_SIZE => return Err(KeyError::Public),
            size => bytes.try_into().map_err(|_| KeyError::Size(size))?,
        };
        let key = SigningKey::from_keypair_bytes(&pair).map_err(|_| KeyError::Halves)?;
        Ok(Self { name: name.to_owned(), key })
    }

    /// What readers of the cache name it by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The signature of `text`, as a narinfo has it.
    fn sign(&self, text: &str) -> String {
        format!("{}:{}", self.name, BASE64.encode(self.key.sign(text.as_bytes()).to_bytes()))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SecretKey({})", self.name)
    }
}

/// All keys that an export signs with; often there is none.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<SecretKey>);

impl Keys {
    /// Several keys as one text, with white space between them, as a CI has them in a variable.
    ///
    /// # Errors
    /// When one is none: its place, from 1 on, and why.
    pub fn parse_all(text: &str) -> Result<Self, (usize, KeyError)> {
        let keys = text.split_whitespace().zip(1..);
        keys.map(|(text, place)| SecretKey::parse(text).map_err(|error| (place, error))).collect()
    }

    /// Whether nothing is signed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys.
    pub fn iter(&self) -> impl Iterator<Item = &SecretKey> {
        self.0.iter()
    }

    /// A signature by each key, as narinfos have them, that the path of `info` has the
    /// contents `nar`.
    #[must_use]
    pub fn sign(&self, store_dir: &StoreDir, info: &PathInfo, nar: &Measured) -> Vec<String> {
        if self.is_empty() {
            return Vec::new();
        }
        self.sign_text(&fingerprint(store_dir, info, nar))
    }

    /// A signature of `text` by each key.
    #[must_use]
    pub fn sign_text(&self, text: &str) -> Vec<String> {
        self.iter().map(|key| key.sign(text)).collect()
    }
}

impl FromIterator<SecretKey> for Keys {
    fn from_iter<I: IntoIterator<Item = SecretKey>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

/// What is signed.
fn fingerprint(store_dir: &StoreDir, info: &PathInfo, nar: &Measured) -> String {
    let mut references: Vec<String> =
        info.references.iter().map(|reference| store_dir.render_path(reference)).collect();
    references.sort_unstable();
    let path = store_dir.render_path(&info.path);
    format!("1;{path};sha256:{};{};{}", nar.hash.to_nix32(), nar.size, references.join(","))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::store::{NarHash, StorePath};

    /// What `nix-store --generate-binary-cache-key key-1` of Nix 2.8.0 wrote, for these tests.
    pub const KEY: &str =
        "key-1:AYwcdtPbqb5VrPEo/Yk1W2eePSgtQSGE7GE+UgpiAh7lqn7TjNMxhONbx5rR+aCGg30iQjscngjfTNaGYFSMug==";
    const PUBLIC: &str = "key-1:5ap+04zTMYTjW8ea0fmghoN9IkI7HJ4I30zWhmBUjLo=";

    fn path(name: &str) -> StorePath {
        StorePath::from_basename(name.as_bytes()).expect("valid")
    }

    #[test]
    fn signatures_are_those_of_nix() {
        // `nix copy --to file://…?secret-key=…` of Nix 2.8.0 wrote this.
        let hash = NarHash::parse("05shsc68ywd7zgjqqcmkl3ig1c5yldkxdqcxi222aw9dg6z2wk2a").expect("valid");
        let references = vec![path("vhkzlh33kxcn562yklbf2b8niz2bx3q2-fx-a")];
        let info = PathInfo::new(path("0p7hy9s1v61li0rk8gliaq676g0gk51i-fx-b"), hash, 2192, references);
        let keys = Keys::parse_all(KEY).expect("a key");
        let signed = keys.sign(&StoreDir::default(), &info, &Measured { hash, size: 2192 });
        assert_eq!(
            signed,
            ["key-1:to9E0xiAgp5kf0DjpRrFviR7fN7V2xyVQ+8yvbBiSNUHjjkZfXdjTjqFzx189GPj+shuBrJoz0HmT2w7rzsWDA=="]
        );
    }

    #[test]
    fn references_are_signed_in_the_order_of_their_names() {
        let names = ["zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz-a", "0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-b"];
        let hash = NarHash::new([7; 32]);
        let info = PathInfo::new(path("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-a"), hash, 1, names.map(path).to_vec());
        let text = fingerprint(&StoreDir::default(), &info, &Measured { hash, size: 1 });
        assert!(text.ends_with(&format!(";1;/nix/store/{},/nix/store/{}", names[1], names[0])), "{text}");
    }

    #[test]
    fn what_is_no_secret_key_is_told_without_telling_it() {
        let mut other = KEY.to_owned();
        other.replace_range(10..11, if &KEY[10..11] == "A" { "B" } else { "A" });
        let cut = KEY[..50].to_owned();
        for (text, error) in [
            ("", KeyError::Form),
            ("key-1", KeyError::Form),
            (":AAAA", KeyError::Form),
            ("key-1:", KeyError::Form),
            ("key 1:AAAA", KeyError::Form),
            ("key-1:????", KeyError::Base64),
            (PUBLIC, KeyError::Public),
            (&cut, KeyError::Size(33)),
            (&other, KeyError::Halves),
        ] {
            let found = SecretKey::parse(text).expect_err("no key");
            assert_eq!(found, error);
            assert!(!found.to_string().contains("key-1"), "{found}");
        }
        assert_eq!(Keys::parse_all(&format!("{KEY}\n key-1:")).expect_err("no key"), (2, KeyError::Form));
    }

    #[test]
    fn keys_are_not_printed() {
        let keys = Keys::parse_all(&format!(" {KEY}\n{KEY} ")).expect("keys");
        assert_eq!(format!("{keys:?}"), "Keys([SecretKey(key-1), SecretKey(key-1)])");
    }
}
