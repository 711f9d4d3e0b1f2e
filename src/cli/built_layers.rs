//! The layers of an image that were made ahead, as its spec names them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::layer::Stamp;
use crate::layer::built::{BuiltLayer, BuiltLayerError};
use crate::layer::index::known::KnownLayers;
use crate::plan::Fixed;
use crate::store::{Closure, StoreDir, StorePath};

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
            if let (Some(id), Some(ca)) = (id.filter(|id| closure.info(*id).ca.is_none()), &known.ca) {
                closure.set_content_address(id, ca.clone());
            }
        }
    }

    /// Says which of them an image can't have as they are, whose store paths have that `stamp`,
    /// since its `parent` or an earlier one has some of their paths.
    pub fn warn(&self, stamp: &Stamp, parent: &BTreeSet<&StorePath>) {
        let mut taken: BTreeMap<&StorePath, &str> = parent.iter().map(|path| (*path, "the parent")).collect();
        for (file, layer) in &self.0 {
            if layer.stamp != *stamp {
                let (its, images) = (text(&layer.stamp), text(stamp));
                tracing::warn!(
                    "the layer {file} is made anew: its store paths belong to {its}, and the image's to {images}; give it the image's uid, gid, uname, gname and mtime"
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

fn text(Stamp { owner, mtime }: &Stamp) -> String {
    format!("{}:{} ({}:{}), of the second {mtime}", owner.uid, owner.gid, owner.uname, owner.gname)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::LayerRecord;
    use crate::store::closure::tests::{info, path};

    #[test]
    fn paths_have_the_addresses_that_layers_know_of_the_same_contents() {
        let (a, b, c) = (path('a', "a"), path('b', "b"), path('c', "c"));
        let addressed = |path: &StorePath, ca: &str| {
            let mut info = info(path, &[]);
            info.ca = Some(ca.to_owned());
            info
        };
        let infos = [addressed(&a, "text:a"), addressed(&b, "text:b"), addressed(&c, "text:c")];
        let (stamp, record) = (Stamp::default(), LayerRecord::of_tar(b"tar"));
        let layer = BuiltLayer::new(&StoreDir::default(), &infos, BTreeSet::new(), stamp, record);
        let layers = BuiltLayers(vec![("layer.json".to_owned(), layer)]);
        let mut other = info(&b, &[]);
        other.nar_hash = crate::store::NarHash::parse(&format!("sha256:{}", "0".repeat(52))).expect("valid");
        let infos = vec![info(&a, &[]), other, addressed(&c, "text:own")];
        let mut closure = Closure::new(&StoreDir::default(), infos, None).expect("valid");
        layers.add_addresses(&mut closure);
        let found: Vec<_> = (0..3).map(|id| closure.info(id).ca.as_deref()).collect();
        assert_eq!(found, [Some("text:a"), None, Some("text:own")]);
    }
}
