//! The layer key: a hash of all that a store layer's bytes depend on, known
//! from registrations alone.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::store::{PathInfo, StoreDir};

/// The version of the layer tar format; see [`super::tar`]. It changes whenever
/// the same paths would give other bytes.
const TAR_VERSION: &str = "stowage layer tar v1";

/// When all files of a store were modified, in seconds since 1970.
pub const STORE_TIME: u64 = 1;

/// Whom files belong to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// The user's name, often empty.
    pub uname: String,
    /// The group's name, often empty.
    pub gname: String,
}

/// What the headers of a store layer's files say that the store does not: whom they belong to, and
/// when they were modified.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Whom they belong to.
    pub owner: Owner,
    /// When they were modified, in seconds since 1970; 1, as in a store, by default.
    #[serde(default = "store_time", skip_serializing_if = "is_store_time")]
    pub mtime: u64,
}

impl Default for Stamp {
    fn default() -> Self {
        Self { owner: Owner::default(), mtime: STORE_TIME }
    }
}

fn store_time() -> u64 {
    STORE_TIME
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_store_time(mtime: &u64) -> bool {
    *mtime == STORE_TIME
}

/// Names a layer before its bytes are known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerKey(Digest);

impl LayerKey {
    /// The key of the layer of `infos`, which are in order.
    #[must_use]
    pub fn of_store_paths<'a>(
        store_dir: &StoreDir,
        stamp: &Stamp,
        infos: impl IntoIterator<Item = &'a PathInfo>,
    ) -> Self {
        let Stamp { owner, mtime } = stamp;
        let mut hasher = KeyHasher::new(TAR_VERSION);
        hasher.add(store_dir.as_str().as_bytes());
        hasher.add(&owner.uid.to_be_bytes());
        hasher.add(&owner.gid.to_be_bytes());
        hasher.add(owner.uname.as_bytes());
        hasher.add(owner.gname.as_bytes());
        for info in infos {
            hasher.add(info.path.to_basename().as_bytes());
            hasher.add(info.nar_hash.as_bytes());
        }
        // Another kind of part than a path's name, and so no other list's key.
        if !is_store_time(mtime) {
            hasher.add(&mtime.to_be_bytes());
        }
        hasher.finish()
    }

    /// 64 hexadecimal digits, as the layer index names its files.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.0.to_hex()
    }
}

impl fmt::Debug for LayerKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LayerKey({})", self.to_hex())
    }
}

/// Hashes a list of byte strings such that no two lists look the same: each is
/// preceded by its length.
pub struct KeyHasher(Sha256);

impl KeyHasher {
    /// A hasher for keys of one kind and version.
    #[must_use]
    pub fn new(kind: &str) -> Self {
        let mut hasher = Self(Sha256::new());
        hasher.add(kind.as_bytes());
        hasher
    }

    /// Adds the next byte string.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    /// Adds a list of byte strings, which then differs from any longer or shorter one.
    pub fn add_all(&mut self, list: impl IntoIterator<Item = impl AsRef<[u8]>>) {
        let list: Vec<_> = list.into_iter().collect();
        self.add(&(list.len() as u64).to_be_bytes());
        for bytes in list {
            self.add(bytes.as_ref());
        }
    }

    /// The key.
    #[must_use]
    pub fn finish(self) -> LayerKey {
        LayerKey(Digest::finish(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::closure::tests::{info, path};

    #[test]
    fn everything_that_bytes_depend_on_changes_the_key() {
        let (a, b) = (info(&path('a', "a"), &[]), info(&path('b', "b"), &[]));
        let mut rebuilt = a.clone();
        rebuilt.nar_hash = crate::store::NarHash::new([1; 32]);
        let store = StoreDir::default();
        let root = Stamp::default();
        let name = || "name".to_owned();
        let owners = [
            Owner { uid: 1000, ..Owner::default() },
            Owner { gid: 1000, ..Owner::default() },
            Owner { uname: name(), ..Owner::default() },
            Owner { gname: name(), ..Owner::default() },
        ];
        let stamps = owners.map(|owner| Stamp { owner, mtime: STORE_TIME });
        let times = [0, 2].map(|mtime| Stamp { mtime, ..Stamp::default() });
        let gnu = StoreDir::new("/gnu/store").expect("valid");
        let mut keys = vec![
            LayerKey::of_store_paths(&store, &root, [&a]),
            LayerKey::of_store_paths(&store, &root, [&b]),
            LayerKey::of_store_paths(&store, &root, [&a, &b]),
            LayerKey::of_store_paths(&store, &root, [&rebuilt]),
            LayerKey::of_store_paths(&gnu, &root, [&a]),
        ];
        keys.extend(stamps.iter().chain(&times).map(|stamp| LayerKey::of_store_paths(&store, stamp, [&a])));
        let different: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
    }

    #[test]
    fn references_and_derivers_do_not_change_the_key() {
        let a = info(&path('a', "a"), &[]);
        let mut other = info(&path('a', "a"), &[&path('b', "b")]);
        other.deriver = Some(path('c', "a.drv"));
        let key = |info| LayerKey::of_store_paths(&StoreDir::default(), &Stamp::default(), [info]);
        assert_eq!(key(&a), key(&other));
    }
}
