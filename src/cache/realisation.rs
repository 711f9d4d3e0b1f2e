//! What a cache says that content-addressed derivations have made.
//!
//! `realisations/sha256:HASH!OUTPUT.doi`, as Nix up to 2.34 reads it: JSON without spaces, its
//! keys sorted. What is signed is the same without the signatures.
//!
//! Source: Nix's `realisation.cc`, and `BinaryCacheStore::registerDrvOutput`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::shelf::ShelfError;
use super::sign::Keys;
use super::{CacheError, CacheFolder};
use crate::store::db::realisations::Realisation;

/// Puts `realisations`, signed by `keys`, into a cache in which their paths are. One that is
/// there keeps its signatures, unless it says otherwise: then it is replaced, as Nix does.
///
/// # Errors
/// When the cache can't be written.
pub fn add(cache: &CacheFolder, realisations: &[Realisation], keys: &Keys) -> Result<(), CacheError> {
    for realisation in realisations {
        match file_name(realisation) {
            Some(name) => add_one(cache, realisation, &name, keys)?,
            None => tracing::warn!("the realisation {:?} is left out: no file can have that name", realisation.id),
        }
    }
    Ok(())
}

fn add_one(cache: &CacheFolder, realisation: &Realisation, name: &str, keys: &Keys) -> Result<(), ShelfError> {
    cache.merge_realisation(name, |present| {
        let mut signatures = realisation.signatures.clone();
        let mut value = without_signatures(realisation);
        signatures.extend(keys.sign_text(&value.to_string()));
        signatures.extend(present_signatures(&value, present));
        value["signatures"] = json!(signatures);
        value.to_string().into_bytes()
    })
}

/// What is signed.
fn without_signatures(realisation: &Realisation) -> Value {
    let dependent: serde_json::Map<String, Value> =
        realisation.dependent.iter().map(|(id, path)| (id.clone(), json!(path.to_basename()))).collect();
    json!({ "dependentRealisations": dependent, "id": realisation.id, "outPath": realisation.out_path.to_basename() })
}

/// The signatures in the file `present`, if that says the same as `value`.
fn present_signatures(value: &Value, present: &[u8]) -> BTreeSet<String> {
    let Ok(Value::Object(mut present)) = serde_json::from_slice(present) else {
        return BTreeSet::new();
    };
    let signatures = present.remove("signatures").and_then(|signatures| serde_json::from_value(signatures).ok());
    if Value::Object(present) == *value { signatures.unwrap_or_default() } else { BTreeSet::new() }
}

/// The name of its file, unless its output has a name that leads elsewhere.
fn file_name(realisation: &Realisation) -> Option<String> {
    let (hash, output) = realisation.id.strip_prefix("sha256:")?.split_once('!')?;
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte);
    let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hash && !output.is_empty() && output.bytes().all(is_good)).then(|| format!("{}.doi", realisation.id))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cache::sign::tests::KEY;
    use crate::store::{StoreDir, StorePath};

    const ID: &str = "sha256:3897db575b458e6031f280982c231346d96bf9b7cf4a6e53162661b2b25f9156!out";

    /// What `nix copy` of Nix 2.8.0 wrote.
    const GOLDEN: &str = r#"{"dependentRealisations":{"sha256:16a64beab97f1d96245c5c8d3f0ebb75b84dc3ccf042bd20e83a74ce524a56da!out":"w0cn8j1j0nd0ni833vrfz2hmvn1bblk1-ca-a"},"id":"sha256:3897db575b458e6031f280982c231346d96bf9b7cf4a6e53162661b2b25f9156!out","outPath":"jb95vjm17z35nials7x5wbj79bckw087-ca-b","signatures":[]}"#;

    fn realisation() -> Realisation {
        let path = |name: &str| StorePath::from_basename(name.as_bytes()).expect("valid");
        let dependent = "sha256:16a64beab97f1d96245c5c8d3f0ebb75b84dc3ccf042bd20e83a74ce524a56da!out".to_owned();
        Realisation {
            id: ID.to_owned(),
            out_path: path("jb95vjm17z35nials7x5wbj79bckw087-ca-b"),
            dependent: BTreeMap::from([(dependent, path("w0cn8j1j0nd0ni833vrfz2hmvn1bblk1-ca-a"))]),
            signatures: BTreeSet::new(),
        }
    }

    #[test]
    fn a_realisation_is_what_nix_writes_and_keeps_signatures() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = CacheFolder::open(folder.path(), &StoreDir::default()).expect("opens");
        let read =
            || std::fs::read_to_string(folder.path().join("realisations").join(format!("{ID}.doi"))).expect("there");
        add(&cache, &[realisation()], &Keys::default()).expect("writes");
        assert_eq!(read(), GOLDEN);
        add(&cache, &[realisation()], &Keys::parse_all(KEY).expect("a key")).expect("writes");
        let signed = read();
        assert!(signed.contains(r#""signatures":["key-1:"#), "{signed}");
        add(&cache, &[realisation()], &Keys::default()).expect("writes");
        assert_eq!(read(), signed);
        // Another build's signatures are not for this one.
        add(&cache, &[Realisation { dependent: BTreeMap::new(), ..realisation() }], &Keys::default()).expect("writes");
        assert!(read().ends_with(r#""signatures":[]}"#));
    }

    #[test]
    fn names_that_lead_elsewhere_are_left_out() {
        for id in ["", "sha256:00!out", "md5:00!out", &ID.replace("!out", "!"), &ID.replace("!out", "!/../../x")] {
            assert_eq!(file_name(&Realisation { id: id.to_owned(), ..realisation() }), None);
        }
    }
}
