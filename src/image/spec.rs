//! The image spec: what an image is to be, as JSON or TOML.
//!
//! Where nixpkgs' dockerTools has the argument, its name and meaning are kept.
//! A key that nobody knows is an error which names the nearest known one; a key
//! that is known, but not built yet, is an error that says so.

mod check;
mod error;
mod values;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::config::{self, ContainerConfig};
use super::extras::Extras;
use super::name::ImageName;
use super::perms::Perm;
use super::user::User;
use super::{Platform, keys, kinds};
use crate::inputs::Depth;
use crate::layer::compress::Compression;
use crate::layer::{Owner, STORE_TIME, Stamp};
use crate::plan::{Hint, Pattern, Policy, Previous, Strategy};
pub use error::SpecError;
pub use values::seconds;
use values::{compression, groups, hints, name, nix_conf, patterns, strategy};

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
    /// Whether it says which, if only that there are none.
    pub names_contents: bool,
    /// Those of the contents, by their paths, that are copied to `/`, and not linked there.
    pub mutable: Vec<String>,
    /// A tar whose files are put at `/`.
    pub root: Option<String>,
    /// Owners and modes of files at `/`.
    pub perms: Vec<Perm>,
    /// How a container of it runs.
    pub config: ContainerConfig,
    /// Keys of its `config` that are Docker's own, and handed on.
    pub dockers: Map<String, Value>,
    /// Go's name of the architecture; by default that of the files.
    pub architecture: Option<String>,
    /// When it was made, by RFC 3339.
    pub created: String,
    /// Whom the store paths belong to, and when they were modified.
    pub stamp: Stamp,
    /// The most layers that it may have, the parent's included.
    pub max_layers: Option<u64>,
    /// Whether it has a Nix database.
    pub include_nix_db: bool,
    /// Whether it has store paths; else they are to be mounted.
    pub include_store_paths: bool,
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
    /// The files of layers that were made ahead.
    pub built_layers: Vec<String>,
    /// Whether stowage and its hook are in the image.
    pub hook: bool,
    /// The store path that has them; else they are a layer of their own.
    pub program: Option<String>,
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
    contents: Option<values::Contents>,
    copy_to_root: Option<values::Contents>,
    // Folders that links lead to are folders, whatever it says.
    #[serde(rename = "keepContentsDirlinks")]
    _keep_contents_dirlinks: Option<bool>,
    include_store_paths: Option<bool>,
    root: Option<String>,
    mutable: Option<values::Contents>,
    perms: Option<Vec<values::PermKeys>>,
    config: Option<ContainerConfig>,
    architecture: Option<String>,
    created: Option<String>,
    mtime: Option<String>,
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
    layers: Option<Vec<values::Group>>,
    hook: Option<values::Hook>,
    compression: Option<String>,
    precompute: Option<Vec<String>>,
    cache_store: Option<String>,
    build_deps_of: Option<values::BuildDepsOf>,
    nixpkgs: Option<values::Trees>,
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
            names_contents: false,
            mutable: Vec::new(),
            root: None,
            perms: Vec::new(),
            config: ContainerConfig::default(),
            dockers: Map::new(),
            architecture: None,
            created: "1970-01-01T00:00:01Z".to_owned(),
            stamp: Stamp::default(),
            max_layers: None,
            include_nix_db: true,
            include_store_paths: true,
            user: None,
            nix_conf: BTreeMap::new(),
            strategy: Strategy::default(),
            paths_per_layer: Vec::new(),
            hints: Vec::new(),
            groups: Vec::new(),
            built_layers: Vec::new(),
            hook: false,
            program: None,
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

    fn from_value(mut value: Value) -> Result<Self, SpecError> {
        let dockers = value.get_mut("config").and_then(Value::as_object_mut).map(config::take_dockers).transpose()?;
        keys::check(&value)?;
        kinds::check_objects(&value)?;
        let keys: Keys = Keys::deserialize(&value).map_err(|_| kinds::problem::<Keys>(&value))?;
        let default = Self::default();
        let strategy = strategy(&keys)?;
        let (hook, program) = keys.hook.map_or((false, None), values::Hook::parts);
        let spec = Self {
            name: name(keys.name, keys.tag)?,
            from_image: keys.from_image,
            names_contents: keys.contents.is_some() || keys.copy_to_root.is_some(),
            contents: values::contents(keys.contents, keys.copy_to_root)?,
            root: keys.root,
            mutable: keys.mutable.map(Vec::from).unwrap_or_default(),
            perms: values::perms(keys.perms.unwrap_or_default())?,
            config: keys.config.unwrap_or_default(),
            dockers: dockers.unwrap_or_default(),
            architecture: keys.architecture,
            created: keys.created.unwrap_or(default.created),
            stamp: Stamp {
                owner: Owner {
                    uid: keys.uid.unwrap_or_default(),
                    gid: keys.gid.unwrap_or_default(),
                    uname: keys.uname.unwrap_or_default(),
                    gname: keys.gname.unwrap_or_default(),
                },
                mtime: keys
                    .mtime
                    .map_or(Ok(STORE_TIME), |text| values::seconds(&text))
                    .map_err(|problem| SpecError::Nonsense { key: "mtime", problem })?,
            },
            max_layers: keys.max_layers,
            include_nix_db: keys.include_nix_db.or(keys.include_store_paths).unwrap_or(true),
            include_store_paths: keys.include_store_paths.unwrap_or(true),
            user: keys.user,
            nix_conf: nix_conf(keys.nix_conf.unwrap_or_default())?,
            strategy,
            hints: hints(keys.popularity.as_ref())?,
            groups: groups(keys.layers.as_ref())?,
            built_layers: values::built_layers(keys.layers.as_ref()),
            paths_per_layer: keys.paths_per_layer.unwrap_or_default(),
            hook,
            program,
            compression: keys.compression.map(compression).transpose()?,
            precompute: patterns("precompute", keys.precompute.iter().flatten())?,
            cache_store: keys.cache_store,
            build_deps: keys.build_deps_of.map(BuildDeps::from).unwrap_or_default(),
            trees: keys.nixpkgs.map(BTreeMap::from).unwrap_or_default(),
        };
        spec.check()?;
        Ok(spec)
    }

    /// Whether stowage itself is in the image, by a layer of its own. Before the store is where
    /// `/nix` leads, no store path has it.
    #[must_use]
    pub fn has_program(&self) -> bool {
        (self.hook && self.program.is_none()) || self.cache_store.is_some()
    }

    /// How its store paths are planned, in at most `limit` layers, with what `extras` has apart,
    /// knowing `previous` plans.
    #[must_use]
    pub fn policy(&self, limit: NonZeroUsize, extras: &Extras, previous: Vec<Previous>) -> Policy {
        Policy {
            strategy: self.strategy,
            limit,
            paths_per_layer: self.paths_per_layer.clone(),
            hints: self.hints.clone(),
            groups: self.groups.clone(),
            fixed: extras.fixed.clone(),
            volatile: extras.volatile.clone(),
            previous,
        }
    }

    /// The system layer, the hook's, and one for store paths.
    #[must_use]
    pub fn least_layers(&self) -> u64 {
        1 + u64::from(self.include_store_paths) + u64::from(self.has_program())
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
