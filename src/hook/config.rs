//! The hook's configuration: a TOML file.
//!
//! ```toml
//! cache = "/srv/cache"                 # where what is built goes: a folder, or s3://BUCKET?…
//! export = "closure"                   # or "outputs", or "build"
//! skipSignedBy = ["cache.nixos.org-1"] # what these have signed can be had from them
//! exclude = ["*-source"]               # nor what has such a name
//! compression = "zstd:3"               # of NARs: zstd, xz, none
//! secretKeyFiles = ["/etc/nix/key"]    # what signs narinfos
//! listing = false                      # whether each path gets a listing of its files
//! logs = false                         # whether build logs go out, too
//! strict = false                       # true: Nix waits for the export, and a failure stops it
//! worker = true                        # false: something else runs `stowage worker`, e.g. systemd
//!
//! [[image]]                            # an image to be built when something was built
//! match = "ci-environment*"            # by the derivation's name
//! spec = "/etc/stowage/ci.json"
//! to = ["docker://registry.example/team/ci:latest"]
//! ```

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cache::Compression;
use crate::plan::{Pattern, PatternError};
use crate::s3::{Address, address};
use crate::store::{PathInfo, StorePath};

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the hook's configuration {}: {problem}", path.display())]
pub struct ConfigError {
    path: PathBuf,
    problem: String,
}

/// What of a build goes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Extent {
    /// The outputs and all that they refer to.
    #[default]
    Closure,
    /// The outputs alone.
    Outputs,
    /// The closure, and all that is needed to build again: derivations, their sources, and
    /// what their outputs are.
    Build,
}

/// An image that is built when a derivation was.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageRule {
    pattern: Pattern,
    /// The file of the image's spec.
    pub spec: PathBuf,
    /// Where the image goes.
    pub to: Vec<String>,
}

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HookConfig {
    /// The folder of the cache, or the address of its bucket.
    pub cache: Option<PathBuf>,
    /// What of a build goes out.
    pub extent: Extent,
    /// The names of keys: what one of them has signed does not go out.
    pub skip_signed_by: Vec<String>,
    /// Paths that match do not go out.
    pub exclude: Vec<Pattern>,
    /// How NARs are compressed.
    pub compression: Option<Compression>,
    /// The files of the keys that sign narinfos.
    pub secret_key_files: Vec<PathBuf>,
    /// Whether each path gets a listing of its files.
    pub listing: bool,
    /// Whether build logs go out, too.
    pub logs: bool,
    /// Whether Nix waits for the export, and stops if that fails.
    pub strict: bool,
    /// Whether the hook starts a worker.
    pub worker: bool,
    /// The images.
    pub images: Vec<ImageRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    cache: Option<PathBuf>,
    #[serde(default)]
    export: Extent,
    #[serde(default)]
    skip_signed_by: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
    compression: Option<String>,
    #[serde(default)]
    secret_key_files: Vec<PathBuf>,
    #[serde(default)]
    listing: bool,
    #[serde(default)]
    logs: bool,
    #[serde(default)]
    strict: bool,
    worker: Option<bool>,
    #[serde(default)]
    image: Vec<WrittenImage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenImage {
    #[serde(rename = "match")]
    pattern: String,
    spec: PathBuf,
    to: Vec<String>,
}

impl HookConfig {
    /// What holds without a file.
    #[must_use]
    pub fn usual() -> Self {
        Self { worker: true, ..Self::default() }
    }

    /// Reads the file `path`.
    ///
    /// # Errors
    /// When it can't be read, or says what nobody understands.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let error = |problem: String| ConfigError { path: path.to_owned(), problem };
        let bytes = crate::fs::read_regular(path).map_err(|problem| error(problem.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|_| error("it is no UTF-8".to_owned()))?;
        Self::parse(&text).map_err(error)
    }

    /// Understands the text of a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let written: Written = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        let pattern = |text: &String| Pattern::new(text).map_err(|error: PatternError| error.to_string());
        let image = |image: WrittenImage| {
            if image.to.is_empty() {
                return Err(format!("the image for {:?} goes nowhere; give it a `to`", image.pattern));
            }
            Ok(ImageRule { pattern: pattern(&image.pattern)?, spec: absolute("spec", image.spec)?, to: image.to })
        };
        Ok(Self {
            cache: written.cache.map(cache).transpose()?,
            extent: written.export,
            skip_signed_by: written.skip_signed_by,
            exclude: written.exclude.iter().map(pattern).collect::<Result<_, _>>()?,
            compression: written.compression.map(|text| text.parse().map_err(text_of)).transpose()?,
            secret_key_files: written
                .secret_key_files
                .into_iter()
                .map(|file| absolute("secretKeyFiles", file))
                .collect::<Result<_, _>>()?,
            listing: written.listing,
            logs: written.logs,
            strict: written.strict,
            worker: written.worker.unwrap_or(true),
            images: written.image.into_iter().map(image).collect::<Result<_, _>>()?,
        })
    }

    /// Whether the path of `info` goes out.
    #[must_use]
    pub fn wants(&self, info: &PathInfo) -> bool {
        let is_signed = |name: &String| {
            info.signatures.iter().any(|signature| signature.split_once(':').is_some_and(|(key, _)| key == name))
        };
        !self.skip_signed_by.iter().any(is_signed) && !self.exclude.iter().any(|pattern| pattern.matches(&info.path))
    }
}

impl ImageRule {
    /// Whether the image is built when `derivation` was.
    #[must_use]
    pub fn matches(&self, derivation: &StorePath) -> bool {
        let name = derivation.to_basename();
        let built = StorePath::from_basename(name.strip_suffix(".drv").unwrap_or(&name).as_bytes());
        built.is_ok_and(|built| self.pattern.matches(&built))
    }
}

fn text_of(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// A bucket's address, which has to be right, or a folder.
fn cache(cache: PathBuf) -> Result<PathBuf, String> {
    match cache.to_str().filter(|text| address::is_address(text)) {
        Some(text) => text.parse::<Address>().map(|_| cache.clone()).map_err(text_of),
        None => absolute("cache", cache),
    }
}

/// The hook runs in other folders than the one where somebody wrote the file.
fn absolute(key: &str, path: PathBuf) -> Result<PathBuf, String> {
    if path.is_absolute() { Ok(path) } else { Err(format!("{key} = {path:?} is not absolute")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::closure::tests::{info, path};

    #[test]
    fn all_keys_are_understood() {
        let config = HookConfig::parse(
            r#"cache = "/srv/cache"
            export = "build"
            skipSignedBy = ["cache.nixos.org-1"]
            exclude = ["*-source"]
            compression = "xz:2"
            secretKeyFiles = ["/etc/key"]
            listing = true
            logs = true
            strict = true
            worker = false
            [[image]]
            match = "ci*"
            spec = "/etc/stowage/ci.json"
            to = ["docker://registry.example/ci"]"#,
        )
        .expect("right");
        assert_eq!((config.cache.as_deref(), config.extent), (Some(Path::new("/srv/cache")), Extent::Build));
        assert!(config.strict && !config.worker && config.listing && config.logs);
        assert_eq!(config.compression.map(|compression| compression.extension()), Some(".xz"));
        assert_eq!(config.secret_key_files, [Path::new("/etc/key")]);
        assert!(config.images[0].matches(&path('d', "ci-environment.drv")));
        assert!(!config.images[0].matches(&path('d', "other-ci.drv")));
        let mut signed = info(&path('a', "a"), &[]);
        assert!(config.wants(&signed) && !config.wants(&info(&path('a', "a-source"), &[])));
        signed.signatures = vec!["cache.nixos.org-1:AAAA".to_owned()];
        assert!(!config.wants(&signed));
        assert_eq!(HookConfig::parse("").expect("right"), HookConfig::usual());
        let bucket = "s3://cache?endpoint=s3.example.org&region=r";
        let config = HookConfig::parse(&format!("cache = \"{bucket}\"")).expect("right");
        assert_eq!(config.cache.as_deref(), Some(Path::new(bucket)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, message) in [
            ("cash = 1", "unknown field `cash`"),
            ("cache = \"cache\"", "not absolute"),
            ("cache = \"s3://\"", "s3://"),
            ("compression = \"rar\"", "rar"),
            ("secretKeyFiles = [\"key\"]", "not absolute"),
            ("export = \"all\"", "unknown variant `all`"),
            ("exclude = [\"[\"]", "no pattern"),
            ("[[image]]\nmatch = \"a\"\nspec = \"/s\"\nto = []", "goes nowhere"),
            ("[[image]]\nmatch = \"a\"\nto = [\"x\"]", "missing field `spec`"),
        ] {
            let problem = HookConfig::parse(text).expect_err(text);
            assert!(problem.contains(message), "{problem}");
        }
    }
}
