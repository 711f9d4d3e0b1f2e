//! The image spec: what an image is to be, as JSON or TOML.
//!
//! Where nixpkgs' dockerTools has the argument, its name and meaning are kept.
//! A key that nobody knows is an error which names the nearest known one; a key
//! that is known, but not built yet, is an error that says so.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use serde::Deserialize;
use serde_json::Value;

use super::config::ContainerConfig;
use super::name::{ImageName, NameError};
use super::user::User;
use super::{Platform, keys, kinds};
use crate::layer::compress::{Compression, CompressionError};
use crate::layer::{Owner, elf};
use crate::plan::{Hint, Pattern, Policy, Previous, Strategy};

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
}

/// What is wrong with a spec.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Neither JSON nor TOML.
    #[error("the spec is no JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// Likewise, in a file named `.toml`.
    #[error("the spec is no TOML: {0}")]
    Toml(#[source] Box<toml::de::Error>),
    /// A key that nobody knows: often a typing error, whose effect would be missed.
    #[error("unknown key {key:?} in {place}{}", keys::suggest(nearest))]
    UnknownKey {
        /// The key.
        key: String,
        /// Where it is.
        place: &'static str,
        /// The known key that is most like it.
        nearest: Option<&'static str>,
    },
    /// A key of dockerTools or of a later version.
    #[error("the spec's {0:?} is not built yet in this version of stowage; leave it out")]
    NotBuilt(String),
    /// A value of another kind than the key asks for.
    #[error("the spec{}{key} must be {expected}", if key.is_empty() { "" } else { "'s " })]
    Kind {
        /// The key, after those that it is in; of the spec itself none.
        key: String,
        /// What its value has to be.
        expected: &'static str,
    },
    /// A value that makes no sense.
    #[error("the spec's {key}: {problem}")]
    Nonsense {
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
    /// A name that Docker refuses.
    #[error(transparent)]
    Name(#[from] NameError),
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
}

/// A path, or a list of them, as dockerTools takes either.
#[derive(Deserialize)]
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
            contents: match keys.contents {
                Contents::Many(paths) => paths,
                Contents::One(path) => vec![path],
            },
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
        Ok(())
    }

    /// How its store paths are planned, in at most `limit` layers, knowing `previous`
    /// plans.
    #[must_use]
    pub fn policy(&self, limit: NonZeroUsize, previous: Vec<Previous>) -> Policy {
        Policy {
            strategy: self.strategy,
            limit,
            paths_per_layer: self.paths_per_layer.clone(),
            hints: self.hints.clone(),
            groups: self.groups.clone(),
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
        2 + u64::from(self.hook)
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

fn name(name: Option<String>, tag: Option<String>) -> Result<Option<ImageName>, SpecError> {
    match (name, tag) {
        (Some(name), Some(tag)) => Ok(Some(ImageName::new(&name, &tag)?)),
        (Some(name), None) => Ok(Some(ImageName::parse(&name)?)),
        (None, Some(_)) => Err(SpecError::Nonsense { key: "tag", problem: "a tag needs a name".to_owned() }),
        (None, None) => Ok(None),
    }
}

fn compression(text: String) -> Result<Compression, SpecError> {
    text.parse()
        .map_err(|error: CompressionError| SpecError::Nonsense { key: "compression", problem: error.to_string() })
}

/// The strategy that is named, or that of the keys that are for one only.
fn strategy(keys: &Keys) -> Result<Strategy, SpecError> {
    let Some(name) = keys.strategy.as_deref() else {
        return Ok(match (&keys.paths_per_layer, &keys.popularity) {
            (Some(_), _) => Strategy::PathsPerLayer,
            (None, Some(_)) => Strategy::Popularity,
            (None, None) => Strategy::default(),
        });
    };
    <Strategy as clap::ValueEnum>::from_str(name, false).map_err(|_| SpecError::Nonsense {
        key: "strategy",
        problem: format!(
            "{name:?} is no strategy of this version; there are \"stable\", \"popularity\", \"size\" and \"pathsPerLayer\""
        ),
    })
}

fn pattern(key: &'static str, text: &str) -> Result<Pattern, SpecError> {
    Pattern::new(text).map_err(|error| SpecError::Nonsense { key, problem: error.to_string() })
}

fn hints(weights: Option<&BTreeMap<String, f64>>) -> Result<Vec<Hint>, SpecError> {
    let hint = |(text, weight): (&String, &f64)| {
        if !weight.is_finite() || *weight < 0.0 {
            let problem = format!("the weight of {text:?} must be a number from 0 on; 1 changes nothing");
            return Err(SpecError::Nonsense { key: "popularity", problem });
        }
        Ok(Hint { pattern: pattern("popularity", text)?, weight: *weight })
    };
    weights.into_iter().flatten().map(hint).collect()
}

fn groups(groups: Option<&Vec<Vec<String>>>) -> Result<Vec<Vec<Pattern>>, SpecError> {
    groups.into_iter().flatten().map(|group| patterns("layers", group)).collect()
}

fn patterns<'a>(key: &'static str, texts: impl IntoIterator<Item = &'a String>) -> Result<Vec<Pattern>, SpecError> {
    texts.into_iter().map(|text| pattern(key, text)).collect()
}

/// nix.conf's values are words; lists are written with spaces between them.
fn nix_conf(settings: BTreeMap<String, Value>) -> Result<BTreeMap<String, String>, SpecError> {
    let nonsense = |name: &str| SpecError::Nonsense {
        key: "nixConf",
        problem: format!("{name:?} and its value must be words, numbers, true or false, or lists of them, in one line"),
    };
    let scalar = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let setting = |(name, value): (String, Value)| {
        let text = match &value {
            Value::Array(words) => words.iter().map(scalar).collect::<Option<Vec<_>>>().map(|words| words.join(" ")),
            value => scalar(value),
        };
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        match text {
            Some(text) if is_name && !text.contains(['\n', '#']) => Ok((name, text)),
            _ => Err(nonsense(&name)),
        }
    };
    settings.into_iter().map(setting).collect()
}

/// `YYYY-MM-DDTHH:MM:SS`, perhaps fractions, and `Z` or an offset.
fn is_date(text: &str) -> bool {
    let pattern = |text: &str, pattern: &str| {
        text.len() == pattern.len()
            && text
                .bytes()
                .zip(pattern.bytes())
                .all(|(byte, wanted)| if wanted == b'0' { byte.is_ascii_digit() } else { byte == wanted })
    };
    let Some((seconds, rest)) = text.split_at_checked(19) else {
        return false;
    };
    let zone =
        rest.strip_prefix('.').map_or(rest, |rest| rest.trim_start_matches(|letter: char| letter.is_ascii_digit()));
    let is_at_most = |at: usize, most: u8| seconds[at..at + 2].parse::<u8>().is_ok_and(|number| number <= most);
    let are_in_range =
        || [(5, 12), (8, 31), (11, 23), (14, 59), (17, 60)].iter().all(|(at, most)| is_at_most(*at, *most));
    pattern(seconds, "0000-00-00T00:00:00")
        && are_in_range()
        && (zone == "Z" || pattern(zone, "+00:00") || pattern(zone, "-00:00"))
}

#[cfg(test)]
mod tests;
