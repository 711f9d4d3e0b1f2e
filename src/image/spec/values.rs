//! What single keys of a spec say.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::DateTime;
use serde::Deserialize;
use serde_json::Value;

use super::{BuildDeps, Keys, SourceTree, SpecError};
use crate::image::name::ImageName;
use crate::image::perms::{Perm, PermGlob};
use crate::inputs::Depth;
use crate::layer::LATEST;
use crate::layer::compress::{Compression, CompressionError};
use crate::plan::{Hint, Pattern, Strategy};

/// A path, or a list of them, as dockerTools takes either.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Contents {
    Many(Vec<String>),
    One(String),
}

impl From<Contents> for Vec<String> {
    fn from(contents: Contents) -> Self {
        match contents {
            Contents::Many(paths) => paths,
            Contents::One(path) => vec![path],
        }
    }
}

/// `hook`: whether there is one, or the store path with stowage.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Hook {
    Switch(bool),
    Path(String),
}

impl Hook {
    pub(super) fn parts(self) -> (bool, Option<String>) {
        match self {
            Self::Switch(switch) => (switch, None),
            Self::Path(path) => (true, Some(path)),
        }
    }
}

/// What is laid out at `/`; older dockerTools call it otherwise.
pub(super) fn contents(contents: Option<Contents>, copy_to_root: Option<Contents>) -> Result<Vec<String>, SpecError> {
    match (contents, copy_to_root) {
        (Some(_), Some(_)) => {
            let problem = "it is another name for `contents`, which is there, too; name all in one of them".to_owned();
            Err(SpecError::Nonsense { key: "copyToRoot", problem })
        }
        (one, other) => Ok(one.or(other).map(Vec::from).unwrap_or_default()),
    }
}

/// One of `perms`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PermKeys {
    path: String,
    mode: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
    uname: Option<String>,
    gname: Option<String>,
}

pub(super) fn perms(perms: Vec<PermKeys>) -> Result<Vec<Perm>, SpecError> {
    let perm = |keys: PermKeys| {
        let nonsense = |problem: String| SpecError::Nonsense { key: "perms", problem };
        let path = PermGlob::new(&keys.path).map_err(|error| nonsense(error.to_string()))?;
        let mode = keys.mode.as_ref().map(|mode| {
            let number = Some(mode).filter(|mode| mode.bytes().all(|digit| digit.is_ascii_digit()));
            let number = number.and_then(|mode| u32::from_str_radix(mode, 8).ok()).filter(|number| *number <= 0o7777);
            number.ok_or_else(|| nonsense(format!("{mode:?} is no mode; give it in octal digits, e.g. \"0640\"")))
        });
        if mode.is_none() && keys.uid.or(keys.gid).is_none() && keys.uname.as_ref().or(keys.gname.as_ref()).is_none() {
            return Err(nonsense(format!("nothing is said of {:?}; give a mode, or an owner", keys.path)));
        }
        Ok(Perm { path, mode: mode.transpose()?, uid: keys.uid, gid: keys.gid, uname: keys.uname, gname: keys.gname })
    };
    perms.into_iter().map(perm).collect()
}

/// `buildDepsOf`: paths, or an object that says more.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
pub(super) struct BuildDepsOf(BuildDeps);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BuildDepsObject {
    of: Contents,
    drvs: Option<bool>,
    #[serde(default)]
    depth: Depth,
}

impl TryFrom<Value> for BuildDepsOf {
    type Error = serde_json::Error;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        // Serde would take a list for an object's values.
        if !value.is_object() {
            return Ok(Self(BuildDeps { of: Contents::deserialize(value)?.into(), ..BuildDeps::default() }));
        }
        let BuildDepsObject { of, drvs, depth } = serde_json::from_value(value)?;
        Ok(Self(BuildDeps { of: of.into(), drvs: drvs.unwrap_or(true), depth }))
    }
}

impl From<BuildDepsOf> for BuildDeps {
    fn from(value: BuildDepsOf) -> Self {
        value.0
    }
}

/// `nixpkgs`: one tree of that name, or several by their names.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
pub(super) struct Trees(BTreeMap<String, SourceTree>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TreeObject {
    path: String,
    #[serde(default)]
    exclude: Vec<String>,
}

fn tree(value: Value) -> Result<SourceTree, serde_json::Error> {
    if !value.is_object() {
        return Ok(SourceTree { path: String::deserialize(value)?, exclude: Vec::new() });
    }
    let TreeObject { path, exclude } = serde_json::from_value(value)?;
    Ok(SourceTree { path, exclude })
}

impl TryFrom<Value> for Trees {
    type Error = serde_json::Error;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        match value {
            Value::Object(trees) if !trees.contains_key("path") => {
                trees.into_iter().map(|(name, value)| Ok((name, tree(value)?))).collect::<Result<_, _>>().map(Self)
            }
            one => Ok(Self([("nixpkgs".to_owned(), tree(one)?)].into())),
        }
    }
}

impl From<Trees> for BTreeMap<String, SourceTree> {
    fn from(trees: Trees) -> Self {
        trees.0
    }
}

pub(super) fn name(name: Option<String>, tag: Option<String>) -> Result<Option<ImageName>, SpecError> {
    match (name, tag) {
        (Some(name), Some(tag)) => Ok(Some(ImageName::new(&name, &tag)?)),
        (Some(name), None) => Ok(Some(ImageName::parse(&name)?)),
        (None, Some(_)) => Err(SpecError::Nonsense { key: "tag", problem: "a tag needs a name".to_owned() }),
        (None, None) => Ok(None),
    }
}

pub(super) fn compression(text: String) -> Result<Compression, SpecError> {
    text.parse()
        .map_err(|error: CompressionError| SpecError::Nonsense { key: "compression", problem: error.to_string() })
}

/// The strategy that is named, or that of the keys that are for one only.
pub(super) fn strategy(keys: &Keys) -> Result<Strategy, SpecError> {
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

pub(super) fn hints(weights: Option<&BTreeMap<String, f64>>) -> Result<Vec<Hint>, SpecError> {
    let hint = |(text, weight): (&String, &f64)| {
        if !weight.is_finite() || *weight < 0.0 {
            let problem = format!("the weight of {text:?} must be a number from 0 on; 1 changes nothing");
            return Err(SpecError::Nonsense { key: "popularity", problem });
        }
        Ok(Hint { pattern: pattern("popularity", text)?, weight: *weight })
    };
    weights.into_iter().flatten().map(hint).collect()
}

/// One of `layers`: patterns, or the file of a layer that was made ahead.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Group {
    Patterns(Vec<String>),
    Built(LayerFile),
}

/// Its path, with a `/` in it: else it is a pattern whose brackets were forgotten.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct LayerFile(String);

impl TryFrom<String> for LayerFile {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.contains('/') { Ok(Self(text)) } else { Err("no path") }
    }
}

pub(super) fn groups(groups: Option<&Vec<Group>>) -> Result<Vec<Vec<Pattern>>, SpecError> {
    let patterns = |group: &Group| match group {
        Group::Patterns(texts) => Some(patterns("layers", texts)),
        Group::Built(_) => None,
    };
    groups.into_iter().flatten().filter_map(patterns).collect()
}

pub(super) fn built_layers(groups: Option<&Vec<Group>>) -> Vec<String> {
    let file = |group: &Group| match group {
        Group::Built(LayerFile(file)) => Some(file.clone()),
        Group::Patterns(_) => None,
    };
    groups.into_iter().flatten().filter_map(file).collect()
}

pub(super) fn patterns<'a>(
    key: &'static str,
    texts: impl IntoIterator<Item = &'a String>,
) -> Result<Vec<Pattern>, SpecError> {
    texts.into_iter().map(|text| pattern(key, text)).collect()
}

/// nix.conf's values are words; lists are written with spaces between them.
pub(super) fn nix_conf(settings: BTreeMap<String, Value>) -> Result<BTreeMap<String, String>, SpecError> {
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

/// The seconds since 1970 at a date that a tar's headers can say, or why there are none.
///
/// # Errors
/// When the text is no such date.
pub fn seconds(text: &str) -> Result<u64, String> {
    let date = Some(text).filter(|text| is_date(text)).and_then(|text| text.parse::<Timestamp>().ok());
    let date = date.ok_or_else(|| format!("{text:?}: give a date of RFC 3339, e.g. 1980-01-01T00:00:00Z"))?;
    let seconds = u64::try_from(date.as_second()).ok().filter(|seconds| *seconds <= LATEST);
    seconds.ok_or_else(|| format!("{text:?}: tars have dates from 1970 until 2242"))
}

/// `YYYY-MM-DDTHH:MM:SS`, perhaps fractions, and `Z` or an offset.
pub(super) fn is_date(text: &str) -> bool {
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
    // Docker and podman know no leap seconds.
    let is_there = || !seconds.ends_with(":60") && seconds.parse::<DateTime>().is_ok();
    pattern(seconds, "0000-00-00T00:00:00")
        && is_there()
        && (zone == "Z" || pattern(zone, "+00:00") || pattern(zone, "-00:00"))
}
