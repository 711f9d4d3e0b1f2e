//! Finds an image's config and layers among files.
//!
//! Sources: moby's `image/tarexport` and `image/spec/v1.2.md` for docker archives
//! (the legacy file `repositories` is not needed); OCI image-spec 1.1,
//! `image-layout.md` and `image-index.md`.

use serde_json::Value;

use super::ParentError;
use super::blob::Blob;
use super::files::Files;
use crate::daemon::Daemon;
use crate::digest::Digest;
use crate::image::manifest::{
    DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, DockerArchiveEntry, Manifest, OCI_INDEX, OCI_MANIFEST,
};
use crate::image::{ImageName, Platform};
use crate::registry::{Registries, RegistryImage};

/// How large a manifest, index or config may be, in bytes; registries take 4 MiB.
const MAX_JSON: u64 = 16 << 20;

/// How many images, and indexes of some, one index may lead to, so that nobody is kept busy for
/// ever.
const MAX_OPENED: usize = 1000;

/// How large their manifests and configs may be together, in bytes: all of them are in memory.
const MAX_ALL_JSON: u64 = 128 << 20;

/// How the media types of manifests begin that no registry has taken since 2020.
const DOCKER_SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+";

/// The annotation with an image's tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An image's parts, before its layers were looked at.
pub struct Found {
    /// The config's bytes.
    pub config: Vec<u8>,
    /// The layers, the lowest first.
    pub layers: Vec<FoundLayer>,
    /// The manifest's bytes; docker archives have none.
    pub manifest: Option<Vec<u8>>,
    /// What the image is called, whole or only by a tag.
    pub called: Option<String>,
    /// What an index says that it is for.
    pub platform: Option<Platform>,
}

/// A layer's blob, and what a manifest says of it.
pub struct FoundLayer {
    /// The blob.
    pub blob: Blob,
    /// What the manifest says; docker archives say nothing.
    pub descriptor: Option<Descriptor>,
}

/// What is looked for.
#[derive(Clone, Copy)]
pub struct Search<'a> {
    /// The reference, for messages.
    pub name: &'a str,
    /// Which of the images for several platforms.
    pub choice: Choice<'a>,
}

/// What an index has led to up to now.
#[derive(Default)]
struct Opened {
    images: usize,
    bytes: u64,
}

/// Which of the images of an index are wanted.
#[derive(Clone, Copy)]
pub enum Choice<'a> {
    /// The only one.
    Only,
    /// The one for that platform.
    For(&'a Platform),
    /// All of them.
    All,
}

impl<'a> Choice<'a> {
    /// The image for `platform`, or the only one.
    #[must_use]
    pub fn of(platform: Option<&'a Platform>) -> Self {
        platform.map_or(Self::Only, Self::For)
    }

    /// Compares the platform that the image `name` is for with the one that is wanted.
    ///
    /// # Errors
    /// When it is another one.
    pub fn check(self, name: &str, found: Option<&Platform>) -> Result<(), ParentError> {
        match (self, found) {
            (Self::For(wanted), Some(found)) if !wanted.takes(found) => Err(ParentError::Choice {
                name: name.to_owned(),
                problem: format!("has no image for {wanted}"),
                choices: vec![found.to_string()],
            }),
            _ => Ok(()),
        }
    }
}

impl Search<'_> {
    /// The image of a docker archive that is called `wanted`, or the only one.
    ///
    /// # Errors
    /// When there is none, or not all of it.
    pub fn docker(&self, files: &Files, wanted: Option<&ImageName>) -> Result<Found, ParentError> {
        let list = self.file(files, "manifest.json")?;
        let list: Vec<DockerArchiveEntry> = self.parse(&self.json(&list, "manifest.json")?, "manifest.json")?;
        let has_name = |entry: &DockerArchiveEntry, wanted: &ImageName| {
            let names = entry.repo_tags.iter().flatten();
            names
                .filter_map(|name| ImageName::parse(short(name)).ok())
                .any(|name| name.to_string() == short(&wanted.to_string()))
        };
        let fitting: Vec<&DockerArchiveEntry> =
            list.iter().filter(|entry| wanted.is_none_or(|wanted| has_name(entry, wanted))).collect();
        let [entry] = fitting[..] else {
            let names = list.iter().flat_map(|entry| entry.repo_tags.clone().unwrap_or_default()).collect();
            let problem = match wanted {
                Some(wanted) => format!("has {} images called {wanted}", fitting.len()),
                None => format!("has {} images; name one: docker-archive:FILE:NAME:TAG", fitting.len()),
            };
            return Err(self.choice(problem, names));
        };
        let config = self.json(&self.file(files, &entry.config)?, &entry.config)?;
        self.check_config_name(&entry.config, &config)?;
        let layer = |(number, name): (usize, &String)| {
            let missing = || self.problem(format!("has no layer {} ({name}): it is cut off", number + 1));
            Ok(FoundLayer { blob: files.get(name)?.ok_or_else(missing)?, descriptor: None })
        };
        let layers = entry.layers.iter().enumerate().map(layer).collect::<Result<_, ParentError>>()?;
        let called = entry.repo_tags.iter().flatten().next().map(|name| short(name).to_owned());
        Ok(Found { config, layers, manifest: None, called, platform: None })
    }

    /// Configs are called by their digests. Another digest is another config.
    fn check_config_name(&self, name: &str, config: &[u8]) -> Result<(), ParentError> {
        let base = name.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        match Digest::parse(&format!("sha256:{}", base.trim_start_matches("sha256:"))) {
            Ok(digest) if digest != Digest::of(config) => {
                Err(self.problem(format!("has a config {name} that is not what its name says; save the image again")))
            }
            _ => Ok(()),
        }
    }

    /// The images of an OCI layout that have the tag `tag`, or the only one.
    ///
    /// # Errors
    /// When there is none, or not all of it.
    pub fn oci(&self, files: &Files, tag: Option<&str>) -> Result<Vec<Found>, ParentError> {
        let index = self.json(&self.file(files, "index.json")?, "index.json")?;
        let index: Value = self.parse(&index, "index.json")?;
        let tag_of = |entry: &Value| entry["annotations"][REF_NAME].as_str().map(str::to_owned);
        let entries = index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
        let fitting: Vec<&Value> =
            entries.iter().filter(|entry| tag.is_none() || tag_of(entry).as_deref() == tag).collect();
        let tags =
            || entries.iter().map(|entry| tag_of(entry).unwrap_or_else(|| "one without a tag".to_owned())).collect();
        if fitting.is_empty() {
            let wanted = tag.map_or_else(String::new, |tag| format!(" with the tag {tag:?}"));
            return Err(self.choice(format!("has no image{wanted}"), tags()));
        }
        // Several of one tag are one image for several platforms; several tags are
        // several images, unless they are the same.
        let mut digests: Vec<&Value> = fitting.iter().map(|entry| &entry["digest"]).collect();
        digests.dedup();
        let several_tags = fitting.iter().any(|entry| tag_of(entry) != tag_of(fitting[0]));
        if digests.len() > 1 && several_tags {
            return Err(self.choice("has several images; name one by its tag".to_owned(), tags()));
        }
        let fitting = if digests.len() > 1 { &fitting[..] } else { &fitting[..1] };
        let found = self.choose(files, fitting, &mut Opened::default())?;
        Ok(found.into_iter().map(|found| Found { called: tag_of(fitting[0]), ..found }).collect())
    }

    /// The image of a Docker daemon, which is kept in a temporary file.
    ///
    /// # Errors
    /// When there is none, or not all of it.
    pub fn daemon(&self, image: &ImageName, registries: &Registries) -> Result<Found, ParentError> {
        let archive = Daemon::new(&registries.daemon)?.save(image)?;
        let files = Files::read_archive(archive, self.name.as_ref(), self.name).map_err(|error| match error {
            ParentError::Read { source, .. } => {
                let problem = format!("can't be read from the Docker daemon at {}: {source}", registries.daemon);
                self.problem(format!("{problem}; see its log, and try again"))
            }
            other => other,
        })?;
        self.docker(&files, None)
    }

    /// The images in a registry; of their layers nothing is fetched yet.
    ///
    /// # Errors
    /// When there is none, or not all of it.
    pub fn registry(&self, image: &RegistryImage, registries: &Registries) -> Result<Vec<Found>, ParentError> {
        let repository = registries.repository(&image.at)?;
        let manifest = repository.get_manifest(&image.reference())?;
        let entry = serde_json::json!({
            "mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.bytes.len(),
        });
        let found = self.choose(&Files::Registry(repository, manifest), &[&entry], &mut Opened::default())?;
        Ok(found.into_iter().map(|found| Found { called: image.tag.clone(), ..found }).collect())
    }

    /// The images among those of an index that are wanted.
    fn choose(&self, files: &Files, entries: &[&Value], opened: &mut Opened) -> Result<Vec<Found>, ParentError> {
        // Attestations are listed beside images, for no platform.
        let is_image = |entry: &Value| {
            entry["platform"]["os"] != "unknown" && entry["annotations"]["vnd.docker.reference.type"].is_null()
        };
        let images: Vec<&Value> = entries.iter().copied().filter(|entry| is_image(entry)).collect();
        if images.is_empty() {
            return Err(self.problem("lists no image".to_owned()));
        }
        let fitting = match self.choice {
            Choice::All => images,
            Choice::Only => vec![self.only(&images)?],
            Choice::For(wanted) => vec![self.best(&images, wanted)?],
        };
        let mut found = Vec::new();
        for entry in fitting {
            found.extend(self.open(files, entry, opened)?);
        }
        Ok(found)
    }

    /// The only image, or the only one for Linux.
    fn only<'a>(&self, images: &[&'a Value]) -> Result<&'a Value, ParentError> {
        let is_linux = |entry: &&'a Value| entry["platform"]["os"] == "linux";
        match (images, &images.iter().copied().filter(is_linux).collect::<Vec<_>>()[..]) {
            ([only], _) | (_, [only]) => Ok(only),
            _ => {
                let problem = "has images for several platforms; choose one by --platform, or for `build` and `plan` by the spec's `architecture`";
                Err(self.choice(problem.to_owned(), platforms(images)))
            }
        }
    }

    /// The image for the platform `wanted`. What the one without a platform is for, only its
    /// config tells.
    fn best<'a>(&self, images: &[&'a Value], wanted: &Platform) -> Result<&'a Value, ParentError> {
        if let [only] = images
            && only["platform"].is_null()
        {
            return Ok(only);
        }
        let fits = |entry: &&'a Value| {
            let found = Platform::of(&entry["platform"]).filter(|found| wanted.takes(found))?;
            Some((found.variant.is_none(), found.variant, *entry))
        };
        // What runs on all machines, else the latest variant, as of arm's v7 before v6.
        let best = images.iter().filter_map(fits).max_by_key(|(runs, variant, _)| (*runs, variant.clone()));
        let missing = || self.choice(format!("has no image for {wanted}"), platforms(images));
        best.map(|(.., entry)| entry).ok_or_else(missing)
    }

    /// The image that `entry` of an index describes; or those of another index.
    fn open(&self, files: &Files, entry: &Value, opened: &mut Opened) -> Result<Vec<Found>, ParentError> {
        opened.images += 1;
        if opened.images > MAX_OPENED {
            return Err(self.problem(format!("lists more than {MAX_OPENED} images and indexes of images")));
        }
        let descriptor = self.descriptor(entry)?;
        let bytes = self.json(&self.blob(files, &descriptor)?, "manifest")?;
        if Digest::of(&bytes) != descriptor.digest {
            return Err(
                self.problem(format!("has other bytes for {} than the digest says; fetch it again", descriptor.digest))
            );
        }
        self.check_size(&bytes, &descriptor)?;
        let value: Value = self.parse(&bytes, "manifest")?;
        if self.is_index(&value, &descriptor)? {
            let entries: Vec<&Value> = value["manifests"].as_array().into_iter().flatten().collect();
            return self.choose(files, &entries, opened);
        }
        let found = self.manifest(files, &self.parse(&bytes, "manifest")?)?;
        opened.bytes += (bytes.len() + found.config.len()) as u64;
        if opened.bytes > MAX_ALL_JSON {
            return Err(self.problem(format!("has more than {} MiB of manifests and configs", MAX_ALL_JSON >> 20)));
        }
        Ok(vec![Found { manifest: Some(bytes), platform: Platform::of(&entry["platform"]), ..found }])
    }

    /// Whether a manifest is an index of others. One that can be read in two ways is none: others
    /// may have looked at the other (CVE-2021-41190).
    fn is_index(&self, value: &Value, descriptor: &Descriptor) -> Result<bool, ParentError> {
        let lists_images = value.get("manifests").is_some();
        let has_parts = value.get("config").is_some() || value.get("layers").is_some();
        if lists_images && has_parts {
            return Err(self.problem(format!("has a manifest {} that is an index as well", descriptor.digest)));
        }
        let own = value["mediaType"].as_str();
        if value["schemaVersion"] == 1 || own.is_some_and(|own| own.starts_with(DOCKER_SCHEMA_1)) {
            return Err(
                self.problem("has a manifest of the old schema 1; push it again with a newer docker".to_owned())
            );
        }
        for kind in own.into_iter().chain([descriptor.media_type.as_str()]) {
            let says_index = kind == OCI_INDEX || kind == DOCKER_INDEX;
            let says_image = kind == OCI_MANIFEST || kind == DOCKER_MANIFEST;
            let is_other = own.is_some_and(|own| own != kind && is_known(own));
            if says_index && has_parts || says_image && lists_images || (says_index || says_image) && is_other {
                let digest = descriptor.digest;
                return Err(self.problem(format!("has a manifest {digest} that is something else than {kind}")));
            }
        }
        let kind = own.unwrap_or(&descriptor.media_type);
        Ok(lists_images || !has_parts && (kind == OCI_INDEX || kind == DOCKER_INDEX))
    }

    /// Compares what a descriptor says of a size, which others may believe.
    fn check_size(&self, bytes: &[u8], descriptor: &Descriptor) -> Result<(), ParentError> {
        if bytes.len() as u64 == descriptor.size {
            return Ok(());
        }
        let Descriptor { digest, size, .. } = descriptor;
        Err(self.problem(format!("has {} bytes for {digest}, which is said to have {size}", bytes.len())))
    }

    /// The parts that a manifest lists.
    fn manifest(&self, files: &Files, manifest: &Manifest) -> Result<Found, ParentError> {
        let config = self.json(&self.blob(files, &manifest.config)?, "config")?;
        if Digest::of(&config) != manifest.config.digest {
            return Err(self.problem("has a config that is not what its digest says; fetch it again".to_owned()));
        }
        self.check_size(&config, &manifest.config)?;
        let layer = |(number, descriptor): (usize, &Descriptor)| {
            let blob = files.blob(descriptor)?;
            let missing =
                || self.problem(format!("has no layer {} ({}); fetch it again", number + 1, descriptor.digest));
            Ok(FoundLayer { blob: blob.ok_or_else(missing)?, descriptor: Some(descriptor.clone()) })
        };
        let layers = manifest.layers.iter().enumerate().map(layer).collect::<Result<_, ParentError>>()?;
        Ok(Found { config, layers, manifest: None, called: None, platform: None })
    }

    fn descriptor(&self, entry: &Value) -> Result<Descriptor, ParentError> {
        serde_json::from_value(entry.clone())
            .map_err(|error| self.problem(format!("has an index that can't be read: {error}")))
    }

    fn blob(&self, files: &Files, descriptor: &Descriptor) -> Result<Blob, ParentError> {
        let missing = || self.problem(format!("has no blob {}: it is not all of an image", descriptor.digest));
        files.blob(descriptor)?.ok_or_else(missing)
    }

    fn file(&self, files: &Files, name: &str) -> Result<Blob, ParentError> {
        files.get(name)?.ok_or_else(|| self.problem(format!("has no {name}: it is no such image, or not all of it")))
    }

    fn json(&self, blob: &Blob, what: &str) -> Result<Vec<u8>, ParentError> {
        blob.bytes(MAX_JSON).map_err(|error| self.problem(format!("has a {what} that can't be read: {error}")))
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, bytes: &[u8], what: &str) -> Result<T, ParentError> {
        serde_json::from_slice(bytes).map_err(|error| self.problem(format!("has a {what} that can't be read: {error}")))
    }

    fn problem(&self, problem: String) -> ParentError {
        ParentError::NoImage { name: self.name.to_owned(), problem }
    }

    fn choice(&self, problem: String, choices: Vec<String>) -> ParentError {
        ParentError::Choice { name: self.name.to_owned(), problem, choices }
    }
}

/// Whether that is one of the kinds of manifests.
fn is_known(media_type: &str) -> bool {
    [OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST].contains(&media_type)
}

/// The platforms of an index's entries, for messages.
fn platforms(entries: &[&Value]) -> Vec<String> {
    let platform = |entry: &&Value| Platform::of(&entry["platform"]);
    entries.iter().map(|entry| platform(entry).map_or("one for no platform".to_owned(), |it| it.to_string())).collect()
}

/// An image's name without what podman and skopeo put before short names.
fn short(name: &str) -> &str {
    name.strip_prefix("docker.io/library/").or_else(|| name.strip_prefix("localhost/")).unwrap_or(name)
}
