//! Finds content addresses again that a list of registrations has lost.
//!
//! `nix-store --dump-db` and closureInfo leave them out, and so do some JSON forms.
//! But a store path that is addressed by its content is made of that address: one
//! that gives the path is its address, without a doubt. For recursive hashes the
//! NAR hash is enough, if they are SHA-256; for flat ones and texts, a single file has to be read.
//! Recursive ones of other hashes, and MD5, stay lost.
//!
//! Source: Nix's `makeFixedOutputPath` and `makeTextPath`, `store-api.cc`.

use std::collections::BTreeSet;

use nix_derivation::{CAHash, NixHash};
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};

use super::{Closure, PathInfo, StoreDir, StorePath};
use crate::layer::index::LayerIndex;
use crate::layer::key::KeyHasher;
use crate::tree::{Entry, Node, Sink, StoreFiles, TreeError};

/// What is remembered of a single file.
#[derive(Serialize, Deserialize)]
struct Found {
    ca: Option<String>,
}

/// Gives the paths of `closure` their recursive addresses back.
pub fn restore_recursive(closure: &mut Closure) {
    for id in 0..closure.len() {
        let info = closure.info(id);
        let address = CAHash::Nar(info.nar_hash.to_nix_hash());
        if info.ca.is_none() && gives(closure.store_dir(), info, &address) {
            closure.set_content_address(id, address.to_nix_string());
        }
    }
}

/// Gives the single files among the paths of `closure` their addresses back, but for those of
/// `known`; what was found is remembered in `index`.
///
/// # Errors
/// When a file can't be read.
pub fn restore_files(
    closure: &mut Closure,
    files: &StoreFiles,
    index: &LayerIndex,
    known: &BTreeSet<StorePath>,
) -> Result<(), TreeError> {
    for id in 0..closure.len() {
        let info = closure.info(id);
        if info.ca.is_some() || known.contains(&info.path) {
            continue;
        }
        let mut hasher = KeyHasher::new("stowage content address v2");
        hasher.add(closure.print(id).as_bytes());
        hasher.add(info.nar_hash.as_bytes());
        let key = hasher.finish();
        let found = match index.recall::<Found>("address", &key) {
            Some(found) => found,
            None => {
                let found = Found { ca: of_file(closure.store_dir(), info, files)? };
                index.remember("address", &key, &found);
                found
            }
        };
        if let Some(ca) = found.ca {
            closure.set_content_address(id, ca);
        }
    }
    Ok(())
}

/// The address of the single file that `info` is of, if it has one.
///
/// # Errors
/// When it can't be read.
pub(super) fn of_file(store_dir: &StoreDir, info: &PathInfo, files: &StoreFiles) -> Result<Option<String>, TreeError> {
    files.check(&info.path)?;
    let Entry { path, node: Node::Regular { executable: false, size } } =
        files.entry(info.path.to_basename().as_bytes())?
    else {
        return Ok(None);
    };
    let mut hashing =
        Hashing { sha256: Sha256::new(), sha512: Sha512::new(), sha1: Sha1::new(), buffer: vec![0; 256 * 1024] };
    files.read(&path, size, &mut hashing)?;
    let digest: [u8; 32] = hashing.sha256.finalize().into();
    let addresses = [
        CAHash::Text(digest),
        CAHash::Flat(NixHash::Sha256(digest)),
        CAHash::Flat(NixHash::Sha512(Box::new(hashing.sha512.finalize().into()))),
        CAHash::Flat(NixHash::Sha1(hashing.sha1.finalize().into())),
    ];
    Ok(addresses.iter().find(|address| gives(store_dir, info, address)).map(CAHash::to_nix_string))
}

/// Whether `ca` is the address of the path of `info`, which it has to give.
#[must_use]
pub fn is_right(store_dir: &StoreDir, info: &PathInfo, ca: &str) -> bool {
    CAHash::parse(ca).is_ok_and(|address| gives(store_dir, info, &address))
}

/// Whether `address` is that of the path of `info`.
pub(super) fn gives(store_dir: &StoreDir, info: &PathInfo, address: &CAHash) -> bool {
    let others: Vec<&StorePath> = info.references.iter().filter(|reference| **reference != info.path).collect();
    let refers_to_itself = others.len() < info.references.len();
    let path = store_dir.build_ca_path(info.path.name(), address, others, refers_to_itself);
    path.is_ok_and(|path| path == info.path)
}

/// Hashes what is read.
struct Hashing {
    sha256: Sha256,
    sha512: Sha512,
    sha1: Sha1,
    buffer: Vec<u8>,
}

impl Sink for Hashing {
    type Error = TreeError;

    fn space(&mut self) -> Result<&mut [u8], TreeError> {
        Ok(&mut self.buffer)
    }

    fn advance(&mut self, length: usize) {
        let bytes = &self.buffer[..length];
        self.sha256.update(bytes);
        self.sha512.update(bytes);
        self.sha1.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::NarHash;

    /// `nix-store --add`, `builtins.toFile` and `nix-store --add-fixed sha256` of a
    /// file with the text `hello`, by Nix 2.8; and the last for sha512 and sha1.
    const ADDED: [(&str, &str); 5] = [
        (
            "9dsyz1y7fz5x2b2p5qc3a34qbjd2v83x-hello",
            "fixed:sha512:11w1pmwfdpz9pisbhp5qiv38q6dmidq2ipcqykw3p0sb6yrqcij79rwcwcjbxyzwbdal349qbxrncbk7pmd6snljrfpiwv2pljd4wcv",
        ),
        ("v0nrf1zmxrpzqx6hw27z2qp9glpisrpz-hello", "fixed:sha1:9m1skbnr5i43n3yypvda5s65vhfwdx5a"),
        (
            "yqi18hzk6wxzj2ksv7x9k8rnnzwirzz9-hello",
            "fixed:r:sha256:0sg9f58l1jj88w6pdrfdpj5x9b1zrwszk84j81zvby36q9whhhqa",
        ),
        ("i4f75pn3bxkxdk2kld86k5qazq4cqj8i-hello", "text:sha256:094qif9n4cq4fdg459qzbhg1c6wywawwaaivx0k0x8xhbyx4vwic"),
        ("3fhdhfqli6qm669f7sz8d8v6xz24zrqc-hello", "fixed:sha256:094qif9n4cq4fdg459qzbhg1c6wywawwaaivx0k0x8xhbyx4vwic"),
    ];

    #[test]
    fn addresses_are_those_that_nix_gave() {
        let store = tempfile::tempdir().expect("a folder");
        let infos = ADDED.map(|(name, _)| {
            std::fs::write(store.path().join(name), "hello").expect("writable");
            let hash = NarHash::parse("0sg9f58l1jj88w6pdrfdpj5x9b1zrwszk84j81zvby36q9whhhqa").expect("valid");
            PathInfo::new(StorePath::from_basename(name.as_bytes()).expect("valid"), hash, 120, Vec::new())
        });
        let mut closure = Closure::new(&StoreDir::default(), infos.to_vec(), None).expect("closed");
        let index = LayerIndex::new(&store.path().join("index"));
        let files = StoreFiles::open(store.path()).expect("a folder");
        for _ in 0..2 {
            restore_recursive(&mut closure);
            restore_files(&mut closure, &files, &index, &BTreeSet::new()).expect("readable");
            for (name, ca) in ADDED {
                let id = closure.find(&StorePath::from_basename(name.as_bytes()).expect("valid")).expect("there");
                assert_eq!(closure.info(id).ca.as_deref(), Some(ca), "{name}");
            }
        }
    }

    #[test]
    fn a_path_that_is_not_addressed_by_its_content_gets_no_address() {
        let info = crate::store::closure::tests::info(&crate::store::closure::tests::path('a', "a"), &[]);
        let mut closure = Closure::new(&StoreDir::default(), vec![info], None).expect("closed");
        restore_recursive(&mut closure);
        assert_eq!(closure.info(0).ca, None);
    }
}
