//! What the spec says of certain packages: layers of their own, and hints of how
//! popular they are.

use super::history::package;
use super::{PlannedLayer, Policy};
use crate::store::{Closure, NodeId, StorePath};

/// Names store paths: a package's name, a whole name or base name, or a store
/// path; with `*`, `?` and `[…]` as a shell has them.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    text: String,
    glob: glob::Pattern,
}

/// A pattern that can't be understood.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is no pattern: {source}")]
pub struct PatternError {
    text: String,
    source: glob::PatternError,
}

impl Pattern {
    /// Understands a pattern.
    ///
    /// # Errors
    /// When its brackets or asterisks make no sense.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let name = text.rsplit('/').next().unwrap_or(text);
        let glob = glob::Pattern::new(name).map_err(|source| PatternError { text: text.to_owned(), source })?;
        Ok(Self { text: text.to_owned(), glob })
    }

    /// Whether the pattern names `path`.
    #[must_use]
    pub fn matches(&self, path: &StorePath) -> bool {
        let name = path.name();
        self.glob.matches(&package(name)) || self.glob.matches(name) || self.glob.matches(&path.to_basename())
    }

    /// The pattern as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Makes the paths that a pattern names more or less popular.
#[derive(Clone, Debug, PartialEq)]
pub struct Hint {
    /// Which paths.
    pub pattern: Pattern,
    /// How many times as popular.
    pub weight: f64,
}

/// The patterns of groups and hints that name no path of `closure`, which may be typing
/// errors.
#[must_use]
pub fn unmatched<'a>(closure: &Closure, groups: &'a [Vec<Pattern>], hints: &'a [Hint]) -> Vec<&'a str> {
    let is_unmatched = |pattern: &&Pattern| !closure.infos().iter().any(|info| pattern.matches(&info.path));
    let patterns = groups.iter().flatten().chain(hints.iter().map(|hint| &hint.pattern));
    patterns.filter(is_unmatched).map(Pattern::as_str).collect()
}

/// The layers that the policy's groups make, each path in the first that names
/// it, and the paths that are left. One layer is left for these; where there are
/// more groups, the last ones are one.
pub fn take(closure: &Closure, policy: &Policy) -> (Vec<PlannedLayer>, Vec<NodeId>) {
    let group = |id: &NodeId| {
        let path = &closure.info(*id).path;
        policy.groups.iter().position(|patterns| patterns.iter().any(|pattern| pattern.matches(path)))
    };
    let places: Vec<Option<usize>> = (0..closure.len()).map(|id| group(&id)).collect();
    let free: Vec<NodeId> = (0..closure.len()).filter(|id| places[*id].is_none()).collect();
    if policy.limit.get() == 1 && !free.is_empty() {
        return (Vec::new(), (0..closure.len()).collect());
    }
    let limit = policy.limit.get() - usize::from(!free.is_empty());
    let mut layers: Vec<PlannedLayer> = Vec::new();
    for number in 0..policy.groups.len() {
        let paths: Vec<NodeId> = (0..closure.len()).filter(|id| places[*id] == Some(number)).collect();
        let patterns: Vec<&str> = policy.groups[number].iter().map(Pattern::as_str).collect();
        let why = format!("asked for by `layers`: {}", patterns.join(", "));
        let is_full = layers.len() == limit;
        match layers.last_mut() {
            _ if paths.is_empty() => {}
            Some(last) if is_full => {
                last.paths.extend(paths);
                last.why += &format!(" and {}", patterns.join(", "));
            }
            _ => layers.push(PlannedLayer { paths, why }),
        }
    }
    (layers, free)
}
