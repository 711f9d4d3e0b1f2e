//! The image spec: what an image is to be, as JSON or TOML.
//!
//! Where nixpkgs' dockerTools has the argument, its name and meaning are kept.
//! A key that nobody knows is an error which names the nearest known one; a key
//! that is known, but not built yet, is an error that says so.

mod error;
mod values;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use serde::Deserialize;
use serde_json::Value;

use super::config::ContainerConfig;
use super::name::ImageName;
use super::user::User;
use super::{Platform, keys, kinds};
use crate::inputs::Depth;
use crate::layer::compress::Compression;
use crate::layer::{Owner, elf};
use crate::plan::{Hint, Pattern, Policy, Previous, Strategy, Volatile};
pub use error::SpecError;
use values::{compression, groups, hints, is_date, name, nix_conf, patterns, strategy};

/// Docker runs this many layers, and no more.
pub const MAX_LAYERS: u64 = 125;

/// What an image is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageSpec {
    /// What it is called; by default like the first of its contents.
    pub name: Option<ImageName>,
    /// The image that it is built on: a reference, or the path of a folder or file.
    pub from_image: Option<String>,
    /// The paths that are linked at `/`: store paths, or links to them.
    pub contents: Vec<String>,
    /// How a container of it runs.
    pub config: ContainerConfig,
    /// Go's name of the architecture; by default that of the files.
    pub architecture: Option<String>,
    /// When it was made, by RFC 3339.
    pub created: String,
    /// The owner of the store paths.
    pub owner: Owner,
    /// The most layers that it may have, the parent's included.
    pub max_layers: Option<u64>,
    /// Whether it has a Nix database.
    pub include_nix_db: bool,
    /// Who runs in it; by default whoever runs in the parent.
    pub user: Option<User>,
    /// Settings of `/etc/nix/nix.conf`, beside or instead of the default ones.
    pub nix_conf: BTreeMap<String, String>,
    /// How store paths are put into layers.
    pub strategy: Strategy,
    /// For the strategy of that name: how many paths each layer has.
    pub paths_per_layer: Vec<NonZeroUsize>,
    /// What makes paths more or less popular than they are.
    pub hints: Vec<Hint>,
    /// Layers of their own, by patterns.
    pub groups: Vec<Vec<Pattern>>,
    /// Whether stowage and its hook are in the image.
    pub hook: bool,
    /// How its layers are compressed, where that is not left to the destination.
    pub compression: Option<Compression>,
    /// The store paths with which the hook finds out the image's layers once they are built.
    pub precompute: Vec<Pattern>,
    /// The cache, an absolute path, that `/nix` leads into: the image's own store is put there
    /// when a container begins, and Nix builds there.
    pub cache_store: Option<String>,
    /// What can be built in the image.
    pub build_deps: BuildDeps,
    /// Source trees, by the names that expressions find them by.
    pub trees: BTreeMap<String, SourceTree>,
}

/// What can be built in an image, without anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildDeps {
    /// The derivations, their outputs, or links to either.
    pub of: Vec<String>,
    /// Whether the derivations are in the image, so that nothing must be instantiated anew.
    pub drvs: bool,
    /// How far back it can build.
    pub depth: Depth,
}

/// A source tree that goes into an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceTree {
    /// The file or folder, or a store path.
    pub path: String,
    /// What of it is left out, as in a `.gitignore`.
    pub exclude: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Keys {
    name: Option<String>,
    tag: Option<String>,
    from_image: Option<String>,
    #[serde(default)]
    contents: Contents,
    config: Option<ContainerConfig>,
    architecture: Option<String>,
    created: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
    uname: Option<String>,
    gname: Option<String>,
    max_layers: Option<u64>,
    #[serde(rename = "includeNixDB")]
    include_nix_db: Option<bool>,
    user: Option<User>,
    nix_conf: Option<BTreeMap<String, Value>>,
    strategy: Option<String>,
    paths_per_layer: Option<Vec<NonZeroUsize>>,
    popularity: Option<BTreeMap<String, f64>>,
    layers: Option<Vec<Vec<String>>>,
    hook: Option<bool>,
    compression: Option<String>,
    precompute: Option<Vec<String>>,
    cache_store: Option<String>,
    build_deps_of: Option<values::BuildDepsOf>,
    nixpkgs: Option<values::Trees>,
}

/// A path, or a list of them, as dockerTools takes either.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Contents {
    Many(Vec<String>),
    One(String),
}

impl Default for Contents {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl From<Contents> for Vec<String> {
    fn from(contents: Contents) -> Self {
        match contents {
            Contents::Many(paths) => paths,
            Contents::One(path) => vec![path],
        }
    }
}

impl Default for BuildDeps {
    fn default() -> Self {
        Self { of: Vec::new(), drvs: true, depth: Depth::default() }
    }
}

impl Default for ImageSpec {
    fn default() -> Self {
        Self {
            name: None,
            from_image: None,
            contents: Vec::new(),
            config: ContainerConfig::default(),
            architecture: None,
            created: "1970-01-01T00:00:01Z".to_owned(),
            owner: Owner::default(),
            max_layers: None,
            include_nix_db: true,
            user: None,
            nix_conf: BTreeMap::new(),
            strategy: Strategy::default(),
            paths_per_layer: Vec::new(),
            hints: Vec::new(),
            groups: Vec::new(),
            hook: false,
            compression: None,
            precompute: Vec::new(),
            cache_store: None,
            build_deps: BuildDeps::default(),
            trees: BTreeMap::new(),
        }
    }
}

impl ImageSpec {
    /// Parses a spec in JSON.
    ///
    /// # Errors
    /// When it is none, or says something that can't be.
    pub fn from_json(text: &str) -> Result<Self, SpecError> {
        Self::from_value(serde_json::from_str(text).map_err(SpecError::Json)?)
    }

    /// Parses a spec in TOML.
    ///
    /// # Errors
    /// When it is none, or says something that can't be.
    pub fn from_toml(text: &str) -> Result<Self, SpecError> {
        let table: toml::Table = toml::from_str(text).map_err(|error| SpecError::Toml(Box::new(error)))?;
        Self::from_value(from_toml(toml::Value::Table(table)))
    }

    /// The platform that the image is to be for, if the spec tells it.
    #[must_use]
    pub fn platform(&self) -> Option<Platform> {
        self.architecture.as_deref().map(Platform::linux)
    }

    fn from_value(value: Value) -> Result<Self, SpecError> {
        keys::check(&value)?;
        kinds::check_objects(&value)?;
        let keys: Keys = Keys::deserialize(&value).map_err(|_| kinds::problem::<Keys>(&value))?;
        let default = Self::default();
        let strategy = strategy(&keys)?;
        let spec = Self {
            name: name(keys.name, keys.tag)?,
            from_image: keys.from_image,
            contents: keys.contents.into(),
            config: keys.config.unwrap_or_default(),
            architecture: keys.architecture,
            created: keys.created.unwrap_or(default.created),
            owner: Owner {
                uid: keys.uid.unwrap_or_default(),
                gid: keys.gid.unwrap_or_default(),
                uname: keys.uname.unwrap_or_default(),
                gname: keys.gname.unwrap_or_default(),
            },
            max_layers: keys.max_layers,
            include_nix_db: keys.include_nix_db.unwrap_or(true),
            user: keys.user,
            nix_conf: nix_conf(keys.nix_conf.unwrap_or_default())?,
            strategy,
            hints: hints(keys.popularity.as_ref())?,
            groups: groups(keys.layers.as_ref())?,
            paths_per_layer: keys.paths_per_layer.unwrap_or_default(),
            hook: keys.hook.unwrap_or(false),
            compression: keys.compression.map(compression).transpose()?,
            precompute: patterns("precompute", keys.precompute.iter().flatten())?,
            cache_store: keys.cache_store,
            build_deps: keys.build_deps_of.map(BuildDeps::from).unwrap_or_default(),
            trees: keys.nixpkgs.map(BTreeMap::from).unwrap_or_default(),
        };
        spec.check()?;
        Ok(spec)
    }

    /// Finds values that can't be.
    ///
    /// # Errors
    /// The first of them.
    pub fn check(&self) -> Result<(), SpecError> {
        let nonsense = |key, problem| Err(SpecError::Nonsense { key, problem });
        if let Some(user) = &self.user {
            if let Some(problem) = user.problem() {
                return nonsense("user", problem);
            }
            if !super::system::may_be_home(&user.home) {
                return nonsense("user", format!("home {:?} is a folder of the system's", user.home));
            }
        }
        if let Some(architecture) = &self.architecture
            && !elf::ARCHITECTURES.contains(&architecture.as_str())
        {
            let known = elf::ARCHITECTURES.join(", ");
            return nonsense("architecture", format!("{architecture:?} is none of Go's names: {known}"));
        }
        if !is_date(&self.created) {
            let hint = "give a date of RFC 3339, e.g. of `date -u +%Y-%m-%dT%H:%M:%SZ`; `now` would make the image's bytes depend on the clock";
            return nonsense("created", format!("{:?}: {hint}", self.created));
        }
        if self.from_image.is_none() {
            self.check_layers(self.least_layers(), "")?;
        }
        let is_ordered = matches!(self.strategy, Strategy::Popularity | Strategy::PathsPerLayer);
        if !self.hints.is_empty() && !is_ordered {
            let problem = "hints are for the strategies \"popularity\" and \"pathsPerLayer\"; \"stable\" learns from --previous, and `layers` keeps paths together";
            return nonsense("popularity", problem.to_owned());
        }
        if self.paths_per_layer.is_empty() == (self.strategy == Strategy::PathsPerLayer) {
            let problem = "the strategy \"pathsPerLayer\", and no other, needs a list of numbers, e.g. [10, 1]";
            return nonsense("pathsPerLayer", problem.to_owned());
        }
        if self.hook && !self.include_nix_db {
            return nonsense("hook", "the hook needs a Nix database in the image (includeNixDB)".to_owned());
        }
        let builds = [("buildDepsOf", self.build_deps.of.is_empty()), ("nixpkgs", self.trees.is_empty())];
        if let Some((key, _)) = builds.iter().find(|(_, is_empty)| !is_empty && !self.include_nix_db) {
            return nonsense(key, "what is built in the image needs a Nix database there (includeNixDB)".to_owned());
        }
        if let Some(problem) = self.trees.keys().find_map(|name| super::trees::name_problem(name)) {
            return nonsense("nixpkgs", problem);
        }
        if let Some(problem) = self.cache_store.as_deref().and_then(|dir| self.cache_store_problem(dir)) {
            return nonsense("cacheStore", problem);
        }
        Ok(())
    }

    fn cache_store_problem(&self, dir: &str) -> Option<String> {
        let is_plain = dir.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
        if !dir.starts_with('/') || !is_plain || dir.contains('\0') {
            return Some(format!(
                "{dir:?} is no absolute path without `.`, `..` and empty parts, as of a project's cache in GitLab, /builds/GROUP/PROJECT/cache"
            ));
        }
        let around = dir.trim_start_matches('/').rsplit_once('/').map_or("", |(around, _)| around);
        let is_systems = ["", "builds", "home"].contains(&around) || super::system::OWN_FOLDERS.contains(&around);
        if is_systems || ["/nix/", "/stowage/", "/proc/", "/usr/"].iter().any(|top| dir.starts_with(top)) {
            return Some(format!(
                "{dir:?} is no place for a cache; name a folder in one that is mounted, e.g. /builds/GROUP/PROJECT/cache"
            ));
        }
        if !self.include_nix_db {
            return Some("Nix needs a database in the image (includeNixDB)".to_owned());
        }
        self.from_image
            .as_ref()
            .map(|parent| format!("the parent {parent} has its own /nix, or expects one; put all into one image"))
    }

    /// Whether stowage itself is in the image.
    #[must_use]
    pub fn has_program(&self) -> bool {
        self.hook || self.cache_store.is_some()
    }

    /// How its store paths are planned, in at most `limit` layers, with what is `volatile` apart,
    /// knowing `previous` plans.
    #[must_use]
    pub fn policy(&self, limit: NonZeroUsize, volatile: &[Volatile], previous: Vec<Previous>) -> Policy {
        Policy {
            strategy: self.strategy,
            limit,
            paths_per_layer: self.paths_per_layer.clone(),
            hints: self.hints.clone(),
            groups: self.groups.clone(),
            volatile: volatile.to_vec(),
            previous,
        }
    }

    /// How many layers there may be where the least number is `least`; `parent` says
    /// where that comes from.
    ///
    /// # Errors
    /// When that are too few.
    pub fn check_layers(&self, least: u64, parent: &str) -> Result<(), SpecError> {
        let most = self.max_layers.unwrap_or(MAX_LAYERS).min(MAX_LAYERS);
        if most >= least {
            return Ok(());
        }
        let problem = format!("{most} layers are too few: {parent}the image needs {least} at the least");
        Err(SpecError::Nonsense { key: "maxLayers", problem })
    }

    /// The system layer, the hook's, and one for store paths.
    #[must_use]
    pub fn least_layers(&self) -> u64 {
        2 + u64::from(self.has_program())
    }
}

/// The same value in JSON, which has texts for dates.
fn from_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(value) => value.into(),
        toml::Value::Datetime(date) => date.to_string().into(),
        toml::Value::Array(values) => values.into_iter().map(from_toml).collect(),
        toml::Value::Table(table) => table.into_iter().map(|(key, value)| (key, from_toml(value))).collect(),
    }
}

#[cfg(test)]
mod tests;
