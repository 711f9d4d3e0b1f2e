//! What tells of paths that were in a cache, and are lost.

use std::collections::{HashMap, HashSet};

use nix_narinfo::NarInfo;

use super::metadata::hash_part;
use super::siblings::{self, Lost, Present};
use super::{Checked, Fault};
use crate::cache::shelf::Shelf;
use crate::cache::{narinfo, usage};
use crate::store::StorePath;

/// Finds outputs whose siblings are lost; again and again, as what goes may have siblings, too.
pub fn check_siblings(checked: &mut [Checked], root: &Shelf, used: &usage::Used) {
    let traces = Traces::find(checked, root, used);
    let mut derivers = traces.derivers;
    loop {
        let sound = || checked.iter().filter_map(|one| one.result.as_ref().ok().map(|metadata| &metadata.narinfo));
        let there: HashSet<&StorePath> = sound().map(|narinfo| narinfo.store_path()).collect();
        let present = |narinfo| Present { path: NarInfo::store_path(narinfo), deriver: narinfo.deriver() };
        let present: Vec<Present<'_>> = sound().map(present).collect();
        let named = sound().flat_map(|narinfo| narinfo.references()).chain(&traces.references);
        let is_left_out = |path: &StorePath| used.get(&hash_part(path)).is_some_and(usage::Use::is_left_out);
        let missing: HashSet<&StorePath> = named.filter(|path| !there.contains(path) && !is_left_out(path)).collect();
        let named: HashSet<String> = missing.iter().map(|path| hash_part(path)).collect();
        let unknown = traces.unknown.iter().any(|hash| !named.contains(hash));
        let damaged = traces.damaged || !missing.is_empty();
        let bereft = siblings::bereft(&present, &Lost { derivers, missing, unknown, damaged });
        if bereft.is_empty() {
            return;
        }
        let bereft: HashMap<StorePath, String> = bereft.into_iter().map(|(path, lost)| (path.clone(), lost)).collect();
        for one in checked.iter_mut() {
            one.doubt(|metadata| match bereft.get(metadata.narinfo.store_path()) {
                Some(lost) => Err(Fault::Sibling(lost.clone())),
                None => Ok(()),
            });
        }
        derivers = HashSet::new();
    }
}

/// What tells of paths that were in the cache, and are lost.
struct Traces {
    /// Their derivations.
    derivers: HashSet<StorePath>,
    /// What their narinfos say that they refer to.
    references: Vec<StorePath>,
    /// The hash parts of those of which nothing is known but that.
    unknown: Vec<String>,
    /// Whether there is any such path.
    damaged: bool,
}

impl Traces {
    fn find(checked: &[Checked], root: &Shelf, used: &usage::Used) -> Self {
        let sound: HashSet<&str> =
            checked.iter().filter(|one| one.result.is_ok()).filter_map(|one| one.name.get(..32)).collect();
        // From a bucket nothing gets lost, but somebody may be deleting it, or have deleted it.
        let is_trace = !root.is_shared();
        let lost = || used.iter().filter(|(hash, one)| is_trace && !sound.contains(&hash[..]) && !one.is_left_out());
        let damaged = lost().next().is_some() || checked.iter().any(|one| one.result.is_err());
        let mut derivers: HashSet<StorePath> = lost().filter_map(|(_, one)| one.deriver.clone()).collect();
        let (mut references, mut unknown) = (Vec::new(), Vec::new());
        for one in checked.iter().filter(|one| one.result.is_err()) {
            let hash = one.name.strip_suffix(".narinfo").unwrap_or_default();
            let contents = root.read(&one.name, narinfo::SIZE_LIMIT).ok().flatten().unwrap_or_default();
            let text = String::from_utf8_lossy(&contents);
            let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            let stated = field("StorePath").and_then(|path| path.rsplit('/').next()?.get(..32));
            let deriver = field("Deriver").and_then(|name| StorePath::from_basename(name.as_bytes()).ok());
            let is_known = stated == Some(hash) && deriver.is_some();
            // A copy under a wrong name is no loss of what it is about.
            derivers.extend(deriver.filter(|_| stated.is_none_or(|stated| !sound.contains(stated))));
            if hash.len() == 32 && !is_known && !used.contains_key(hash) {
                unknown.push(hash.to_owned());
            }
            let named = field("References").unwrap_or_default().split(' ');
            references.extend(named.filter_map(|name| StorePath::from_basename(name.as_bytes()).ok()));
        }
        Self { derivers, references, unknown, damaged }
    }
}
