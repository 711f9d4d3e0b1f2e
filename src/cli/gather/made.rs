//! What is made for an image's `/`, and what it refers to.

use std::path::Path;

use anyhow::Context as _;

use super::Gathering;
use crate::cli::exit::UsageError;
use crate::cli::paths::{self, Located};
use crate::image::ImageSpec;
use crate::image::extras::{Extras, Reason};
use crate::image::made::{Made, MadeError};
use crate::store::{Closure, StorePath};
use crate::tree::StoreFiles;

impl Gathering<'_> {
    /// Reads the spec's `root`, and sees which of `contents` are copied; tells which are linked.
    pub(super) fn add_made(&mut self, spec: &ImageSpec, contents: &[StorePath]) -> anyhow::Result<Vec<StorePath>> {
        if let Some(root) = &spec.root {
            self.add_root(Path::new(root)).with_context(|| format!("the spec's root, {root}"))?;
        }
        for text in &spec.mutable {
            let path = paths::resolve_whole(self.location(), Path::new(text))?;
            if !contents.contains(&path) {
                let problem = format!("{text} in the spec's `mutable` is not among its `contents`; name it there, too");
                return Err(UsageError(problem).into());
            }
            let info = self.registration(&path)?;
            if info.references.contains(&path) {
                let problem = "refers to itself, so it has to be in the store: it can't be in the spec's `mutable`";
                return Err(UsageError(format!("{text} {problem}")).into());
            }
            self.add_roots(Reason::Root, info.references);
            self.extras.mutable.insert(path, info.nar_hash);
        }
        Ok(contents.iter().filter(|path| !self.extras.mutable.contains_key(path)).cloned().collect())
    }

    fn add_root(&mut self, path: &Path) -> anyhow::Result<()> {
        let bytes = crate::fs::read_regular(path).map_err(MadeError::Read)?;
        let store_dir = self.location().store_dir.clone();
        let mut made = Made::parse(&bytes, store_dir.as_str().trim_start_matches('/'))?;
        let references = match paths::locate(self.location(), path)? {
            // Nix has looked for all of them.
            Located::InStore(found, _) => self.registration(&found)?.references,
            Located::Outside(_) => {
                let texts: Vec<_> = made.texts().map(String::from_utf8_lossy).collect();
                self.registrations.mentioned(&paths::mentions(&store_dir, &texts.join("\n")))?
            }
        };
        made.follow(&StoreFiles::open(&self.location().real_dir)?, &store_dir)?;
        self.extras.made = made;
        self.add_roots(Reason::Root, references);
        Ok(())
    }
}

/// A path that is copied to `/` is not in the store, too.
pub(super) fn check_mutable(closure: &Closure, extras: &Extras) -> Result<(), UsageError> {
    let Some(id) = extras.mutable.keys().find_map(|path| closure.find(path)) else {
        return Ok(());
    };
    let by = (0..closure.len()).find(|other| *other != id && closure.references(*other).contains(&id));
    let by = by.map_or_else(|| "the image itself".to_owned(), |by| closure.print(by));
    Err(UsageError(format!(
        "{by} needs {} in the store, so that its files would be in the image twice; take it out of the spec's `mutable`",
        closure.print(id)
    )))
}
