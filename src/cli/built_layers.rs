//! The layers of an image that were made ahead, as its spec names them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::image::ImageSpec;
use crate::layer::Owner;
use crate::layer::built::{BuiltLayer, BuiltLayerError, Known};
use crate::layer::index::known::KnownLayers;
use crate::plan::Fixed;
use crate::store::{Closure, StoreDir, StorePath, content_address};

/// Layers that were made ahead, by the files that they were read from.
#[derive(Debug, Default)]
pub struct BuiltLayers(Vec<(String, BuiltLayer)>);

impl BuiltLayers {
    /// Reads `files`, of the store `store_dir`.
    ///
    /// # Errors
    /// When one is no such layer.
    pub fn read(files: &[String], store_dir: &StoreDir) -> Result<Self, BuiltLayerError> {
        let read = |file: &String| Ok((file.clone(), BuiltLayer::read(Path::new(file), store_dir)?));
        files.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn layers(&self) -> impl Iterator<Item = &BuiltLayer> {
        self.0.iter().map(|(_, layer)| layer)
    }

    /// What they were asked to have.
    #[must_use]
    pub fn roots(&self) -> BTreeSet<StorePath> {
        self.layers().flat_map(|layer| &layer.roots).cloned().collect()
    }

    /// All that they have: nobody has to look for content addresses of these any more.
    #[must_use]
    pub fn paths(&self) -> BTreeSet<StorePath> {
        self.layers().flat_map(|layer| layer.paths.keys()).cloned().collect()
    }

    /// What the planner has to know of them.
    #[must_use]
    pub fn fixed(&self) -> Vec<Fixed> {
        let fixed = |(file, layer): &(String, BuiltLayer)| Fixed {
            what: format!("made ahead, by {file}"),
            paths: layer.paths.keys().cloned().collect(),
        };
        self.0.iter().map(fixed).collect()
    }

    /// What a layer index has to know of them.
    #[must_use]
    pub fn known(&self) -> KnownLayers {
        let mut known = KnownLayers::default();
        self.layers().for_each(|layer| known.insert(layer.key, layer.record.clone(), None));
        known
    }

    /// Gives the paths of `closure` the content addresses that were found when the layers were
    /// made.
    pub fn add_addresses(&self, closure: &mut Closure) {
        for (path, known) in self.layers().flat_map(|layer| &layer.paths) {
            let id = closure.find(path).filter(|id| closure.info(*id).nar_hash == known.nar_hash);
            if let (Some(id), Some(ca)) = (id.filter(|id| closure.info(*id).ca.is_none()), &known.ca)
                && content_address::is_right(closure.store_dir(), closure.info(id), ca)
            {
                closure.set_content_address(id, ca.clone());
            }
        }
    }

    /// Says which of them the image that `spec` describes can't have as they are, with the store paths
    /// `closure`, since it wants them otherwise, or its `parent` or an earlier one has some of them.
    pub fn warn(&self, spec: &ImageSpec, closure: &Closure, parent: &BTreeSet<&StorePath>) {
        let stamp = &spec.stamp;
        let mut taken: BTreeMap<&StorePath, &str> = parent.iter().map(|path| (*path, "the parent")).collect();
        for (file, layer) in &self.0 {
            if layer.stamp.owner != stamp.owner {
                let (its, images) = (text(&layer.stamp.owner), text(&stamp.owner));
                tracing::warn!(
                    "the layer {file} is made anew: its store paths belong to {its}, and the image's to {images}; give it the image's uid, gid, uname and gname"
                );
            }
            if layer.stamp.mtime != stamp.mtime {
                let (its, images) = (layer.stamp.mtime, stamp.mtime);
                tracing::warn!(
                    "the layer {file} is made anew: its files were modified {its} seconds after 1970 began, and the image's {images}; give it the image's mtime"
                );
            }
            if let Some(dir) = spec.cache_store.as_ref() {
                tracing::warn!("the layer {file} is made anew: the image's store is below {dir}");
            }
            let is_other = |(path, known): &(&StorePath, &Known)| {
                closure.find(path).is_some_and(|id| closure.info(id).nar_hash != known.nar_hash)
            };
            if let Some((path, _)) = layer.paths.iter().find(is_other) {
                tracing::warn!(
                    "the layer {file} is made anew: {} has other contents here than where it was made",
                    closure.store_dir().render_path(path)
                );
            }
            let others: Vec<(&StorePath, &str)> =
                layer.paths.keys().filter_map(|path| Some((path, *taken.get(path)?))).collect();
            if let Some((path, other)) = others.first().filter(|_| others.len() < layer.paths.len()) {
                tracing::warn!(
                    "the layer {file} is made anew: {} of its {} paths, {} among them, are in {other}, too; make it with `--except` of that",
                    others.len(),
                    layer.paths.len(),
                    path.to_basename()
                );
            }
            for path in layer.paths.keys() {
                taken.entry(path).or_insert(file);
            }
        }
    }
}

fn text(owner: &Owner) -> String {
    let names = [&owner.uname, &owner.gname].iter().any(|name| !name.is_empty());
    let names = if names { format!(" ({}:{})", owner.uname, owner.gname) } else { String::new() };
    format!("{}:{}{names}", owner.uid, owner.gid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{LayerRecord, Stamp};
    use crate::store::closure::tests::{info, path};
    use crate::store::{NarHash, PathInfo};

    #[test]
    fn paths_have_the_addresses_that_layers_know_of_the_same_contents() {
        // The first is `nix-store --add` of a file with the text `hello`, by Nix 2.8; the others give other
        // paths.
        let hello = crate::store::StorePath::from_basename(b"yqi18hzk6wxzj2ksv7x9k8rnnzwirzz9-hello").expect("valid");
        let address = "fixed:r:sha256:0sg9f58l1jj88w6pdrfdpj5x9b1zrwszk84j81zvby36q9whhhqa";
        let hash = |text: &str| NarHash::parse(text).expect("valid");
        let of_hello = hash("0sg9f58l1jj88w6pdrfdpj5x9b1zrwszk84j81zvby36q9whhhqa");
        let addressed = |path: &StorePath, nar_hash: NarHash, ca: Option<&str>| PathInfo {
            nar_hash,
            ca: ca.map(str::to_owned),
            ..info(path, &[])
        };
        let (a, b) = (path('a', "a"), path('b', "b"));
        let infos = [hello.clone(), a.clone(), b.clone()].map(|path| addressed(&path, of_hello, Some(address)));
        let (stamp, record) = (Stamp::default(), LayerRecord::of_tar(b"tar"));
        let layer = BuiltLayer::new(&StoreDir::default(), &infos, BTreeSet::new(), stamp, record);
        let layers = BuiltLayers(vec![("layer.json".to_owned(), layer)]);
        let with = |nar_hash| {
            let infos = vec![
                addressed(&hello, nar_hash, None),
                addressed(&a, of_hello, None),
                addressed(&b, of_hello, Some("text:own")),
            ];
            let mut closure = Closure::new(&StoreDir::default(), infos, None).expect("valid");
            layers.add_addresses(&mut closure);
            [&hello, &a, &b].map(|path| closure.info(closure.find(path).expect("there")).ca.clone())
        };
        let own = Some("text:own".to_owned());
        assert_eq!(with(of_hello), [Some(address.to_owned()), None, own.clone()]);
        assert_eq!(with(hash(&"0".repeat(52))), [None, None, own]);
    }
}
