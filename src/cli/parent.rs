//! The image that another is built on, as `--from` and the spec name it.

use std::collections::BTreeMap;
use std::path::Path;

use super::exit::UsageError;
use crate::destination::ImageReference;
use crate::image::ImageSpec;
use crate::parent::files::Files;
use crate::parent::{Parent, ReadOptions, read};
use crate::registry::Registries;
use crate::store::db::{DatabaseError, StoreDb};
use crate::store::{Closure, PathInfo, StoreLocation, StorePath};

/// What is known of store paths before a parent is read.
pub struct Known<'a> {
    /// Those of the image.
    pub closure: &'a Closure,
    /// Those of a list, which may be more.
    pub listed: &'a [PathInfo],
}

/// Reads the image that `text` names. What its own database does not know, what was `gathered` and
/// the store at `location` may. `believe_history`: see [`ReadOptions`].
///
/// # Errors
/// When there is none, or it can't be believed.
pub fn parent(
    text: &str,
    spec: &ImageSpec,
    gathered: &Known<'_>,
    location: &StoreLocation,
    registries: &Registries,
    believe_history: bool,
) -> anyhow::Result<Parent> {
    let Known { closure, listed } = gathered;
    let listed: BTreeMap<&StorePath, &PathInfo> = listed.iter().map(|info| (&info.path, info)).collect();
    let known = |path: &StorePath| {
        let listed = || listed.get(path).copied().cloned();
        closure.find(path).map(|id| closure.info(id).clone()).or_else(listed)
    };
    let host = |paths: &[StorePath]| {
        let mut infos: Vec<PathInfo> = paths.iter().filter_map(known).collect();
        let unknown: Vec<StorePath> = paths.iter().filter(|path| known(path).is_none()).cloned().collect();
        infos.extend(registered(location, &unknown));
        infos
    };
    let platform = spec.platform();
    let store_dir = closure.store_dir();
    let options = ReadOptions { store_dir, platform: platform.as_ref(), believe_history, registries, host: &host };
    let parent = read(&reference(text)?, &options)?;
    tracing::info!("{} has {} layers and {} store paths", parent.name, parent.layers.len(), parent.registrations.len());
    Ok(parent)
}

/// What the store's database has of `paths`, if there is one.
#[must_use]
pub fn registered(location: &StoreLocation, paths: &[StorePath]) -> Vec<PathInfo> {
    if paths.is_empty() || !location.database().is_file() {
        return Vec::new();
    }
    let look = || -> Result<Vec<PathInfo>, DatabaseError> {
        let database = StoreDb::open(location)?;
        let mut infos = database.closure(&database.valid(paths)?)?;
        infos.retain(|info| paths.contains(&info.path));
        Ok(infos)
    };
    look().unwrap_or_else(|error| {
        tracing::warn!("this machine's store does not tell what the parent's database lacks: {error}");
        Vec::new()
    })
}

/// The image that `text` names: a reference, or the path of a folder or file, whose
/// kind is seen by what is in it.
///
/// # Errors
/// When it names none.
pub fn reference(text: &str) -> anyhow::Result<ImageReference> {
    let path = Path::new(text);
    let is_path = text.starts_with(['.', '/']) || !text.contains(':');
    if !is_path {
        return Ok(text.parse()?);
    }
    let folder = path.to_owned();
    if path.join("stowage.json").exists() {
        return Ok(ImageReference::Folder { folder });
    }
    if path.join("oci-layout").exists() {
        return Ok(ImageReference::Oci { folder, tag: None });
    }
    let usage = |problem: &str| UsageError(format!("{text} {problem}"));
    if path.is_dir() {
        return Err(usage("is a folder, but neither an image folder nor an OCI layout").into());
    }
    if !path.exists() {
        let problem = "is not there; name an image: docker-archive:FILE, oci:DIR, oci-archive:FILE, stowage:DIR, or the path of one of these";
        return Err(usage(problem).into());
    }
    // `docker save` of newer versions writes what both have.
    let files = Files::open_archive(path, text)?;
    let (file, name, tag) = (folder, None, None);
    if files.get("manifest.json")?.is_none() && files.get("index.json")?.is_some() {
        return Ok(ImageReference::OciArchive { file, tag });
    }
    Ok(ImageReference::DockerArchive { file, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive with a file of that name.
    fn archive(path: &Path, name: &str) {
        let mut builder = tar::Builder::new(std::fs::File::create(path).expect("writable"));
        let mut header = tar::Header::new_gnu();
        header.set_size(2);
        builder.append_data(&mut header, name, &b"[]"[..]).expect("writable");
        builder.finish().expect("writable");
    }

    #[test]
    fn images_are_named_by_references_or_paths() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, marker) in [("image", "stowage.json"), ("layout", "oci-layout"), ("other", "file")] {
            std::fs::create_dir(folder.path().join(name)).expect("writable");
            std::fs::write(folder.path().join(name).join(marker), "").expect("writable");
        }
        archive(&folder.path().join("docker.tar"), "manifest.json");
        archive(&folder.path().join("oci.tar"), "index.json");
        let of =
            |name: &str| reference(folder.path().join(name).to_str().expect("ASCII")).map(|found| found.to_string());
        for (name, kind) in
            [("image", "stowage:"), ("layout", "oci:"), ("docker.tar", "docker-archive:"), ("oci.tar", "oci-archive:")]
        {
            assert!(of(name).expect(name).starts_with(kind), "{name}");
        }
        assert!(of("other").expect_err("neither").to_string().contains("neither an image folder"));
        assert!(of("none").expect_err("nothing").to_string().contains("is not there"));
        assert_eq!(reference("oci:a:b").expect("a reference").to_string(), "oci:a:b");
        assert!(reference("nonsense:a").is_err());
    }
}
