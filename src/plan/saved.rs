//! Plans as files, which the next plan reads: `stowage plan --json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::history::{History, Previous, REVISIONS, Track};
use super::{LayerPlan, Strategy};
use crate::store::Closure;

/// A plan as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedPlan {
    /// How the layers were planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// The layers, the lowest first.
    pub layers: Vec<SavedLayer>,
    /// What was known of the changes before.
    #[serde(default)]
    pub history: SavedHistory,
}

/// A planned layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedLayer {
    /// The store paths.
    pub paths: Vec<String>,
    /// The sum of their NAR sizes, in bytes.
    #[serde(default)]
    pub size: u64,
    /// Why they are together.
    #[serde(default)]
    pub why: String,
}

/// What is known of changes. Numbers with a bit for each revision are in
/// hexadecimal, since JSON's numbers have too few bits for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedHistory {
    /// See [`History::revisions`].
    pub revisions: u32,
    /// `changed`, `own` and `age` of a [`Track`] by the base name of each store
    /// path. A path that is left out has none yet.
    #[serde(default)]
    pub tracks: BTreeMap<String, (String, String, u32)>,
    /// See [`History::gone`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<Vec<String>>,
}

impl SavedLayer {
    /// The base names of the store paths.
    #[must_use]
    pub fn base_names(&self) -> Vec<String> {
        self.paths.iter().map(|path| path.rsplit('/').next().unwrap_or(path).to_owned()).collect()
    }
}

impl From<&History> for SavedHistory {
    fn from(history: &History) -> Self {
        let hex = |track: &Track| (format!("{:x}", track.changed), format!("{:x}", track.own), track.age);
        let tracks = history.tracks.iter().map(|(name, track)| (name.clone(), hex(track)));
        // A first plan knows nothing of any path; its layers name them.
        let tracks = if history.revisions == 0 { BTreeMap::new() } else { tracks.collect() };
        Self { revisions: history.revisions, tracks, gone: history.gone.clone() }
    }
}

impl SavedHistory {
    /// The history of these; none where a number can't be read. What can't be, such as
    /// a path that is older than all revisions, is cut down to what can.
    #[must_use]
    pub fn parse(&self) -> Option<History> {
        let revisions = self.revisions.min(REVISIONS);
        let bits = |text: &str| u64::from_str_radix(text, 16).ok();
        let track = |(name, (changed, own, age)): (&String, &(String, String, u32))| {
            let age = revisions.min(*age);
            let lived = u64::MAX.checked_shr(REVISIONS - age).unwrap_or(0);
            let changed = bits(changed)? & lived;
            Some((name.clone(), Track { changed, own: bits(own)? & changed, age }))
        };
        let tracks = self.tracks.iter().map(track).collect::<Option<_>>()?;
        Some(History { revisions, tracks, gone: self.gone.clone() })
    }
}

impl SavedPlan {
    /// The form of a plan.
    #[must_use]
    pub fn new(closure: &Closure, plan: &LayerPlan, strategy: Strategy) -> Self {
        let layer = |layer: &super::PlannedLayer| SavedLayer {
            paths: layer.paths.iter().map(|id| closure.print(*id)).collect(),
            size: layer.nar_size(closure),
            why: layer.why.clone(),
        };
        Self {
            strategy: clap::ValueEnum::to_possible_value(&strategy).map(|value| value.get_name().to_owned()),
            layers: plan.layers.iter().map(layer).collect(),
            history: (&plan.history).into(),
        }
    }

    /// What the next plan may know of it.
    ///
    /// # Errors
    /// What can't be read, for people.
    pub fn to_previous(&self) -> Result<Previous, String> {
        let history = self.history.parse().ok_or("its history can't be read")?;
        Ok(Previous { layers: self.layers.iter().map(SavedLayer::base_names).collect(), history })
    }
}

/// What begins the line of an image's config that carries a plan's history.
const MARK: &str = "stowage plan: ";

/// The line of an image's config that carries what its plan knows; the comments of
/// the store layers after it name the paths.
#[must_use]
pub fn to_comment(history: &History) -> String {
    let saved = SavedHistory::from(history);
    // Plain strings and numbers are always JSON.
    format!("{MARK}{}", serde_json::to_string(&saved).unwrap_or_default())
}

/// The comment of a layer of store paths.
#[must_use]
pub fn layer_comment(paths: impl IntoIterator<Item = String>) -> String {
    let paths: Vec<String> = paths.into_iter().collect();
    format!("store paths: {}", paths.join(" "))
}

/// The base names of the store paths that a layer's comment names: ours, or that of
/// nixpkgs, which writes a list as Python does.
#[must_use]
pub fn paths_of_comment(comment: &str) -> Vec<String> {
    let Some(list) = comment.strip_prefix("store paths:") else {
        return Vec::new();
    };
    let words = list.split([' ', ',', '[', ']', '\'', '"']).filter(|word| word.starts_with('/'));
    words.filter_map(|path| path.rsplit('/').next()).map(str::to_owned).collect()
}

/// The plan that the comments of an image's history tell, the lowest layer first:
/// each with whether it is of a layer.
#[must_use]
pub fn previous_of_comments<'a>(comments: impl IntoIterator<Item = (&'a str, bool)>) -> Previous {
    let mut previous = Previous::default();
    for (comment, is_layer) in comments {
        if let Some(text) = comment.strip_prefix(MARK).filter(|_| !is_layer) {
            // The last one is of the image itself, others of its parents.
            let saved = serde_json::from_str::<SavedHistory>(text).ok();
            previous.history = saved.and_then(|saved| saved.parse()).unwrap_or_default();
            previous.layers.clear();
        }
        let paths = if is_layer { paths_of_comment(comment) } else { Vec::new() };
        if !paths.is_empty() {
            previous.layers.push(paths);
        }
    }
    previous
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{limit, sized};
    use crate::plan::{Policy, plan};

    #[test]
    fn what_is_saved_comes_back_from_a_file_and_from_an_image() {
        let paths = [("a-1", 9 << 20), ("b-1", 9 << 20), ("c-1", 9 << 20)];
        let (first, second) = (sized(&paths, &[(0, 1)], &[0, 0, 0]), sized(&paths, &[(0, 1)], &[1, 0, 0]));
        let mut policy = Policy::new(Strategy::Stable, limit(9));
        for closure in [&first, &second] {
            let plan = plan(closure, &policy);
            let text = serde_json::to_string(&SavedPlan::new(closure, &plan, Strategy::Stable)).expect("JSON");
            let read: SavedPlan = serde_json::from_str(&text).expect("a plan");
            let mut previous = read.to_previous().expect("readable");
            let mut comments = vec![("store paths: /nix/store/of-a-parent".to_owned(), true)];
            comments.push((to_comment(&plan.history), false));
            comments.extend(
                plan.layers.iter().map(|layer| (layer_comment(layer.paths.iter().map(|id| closure.print(*id))), true)),
            );
            comments.push(("Nix database".to_owned(), true));
            let from_image = previous_of_comments(comments.iter().map(|(text, is_layer)| (text.as_str(), *is_layer)));
            assert_eq!(previous, from_image);
            if plan.history.revisions == 0 {
                previous.history = plan.history.clone();
            }
            assert_eq!(previous, plan.to_previous(closure));
            policy.previous = vec![from_image];
        }
        assert_eq!(plan(&second, &policy).history.revisions, 1);
    }

    #[test]
    fn what_can_not_be_is_cut_down_to_what_can() {
        let read = |json: &str| serde_json::from_str::<SavedHistory>(json).expect("JSON").parse();
        let all = "ffffffffffffffff";
        let history = read(&format!(
            r#"{{"revisions":3,"tracks":{{"old":["{all}","{all}",4294967295],"new":["1","1",0],"own":["4","7",3]}}}}"#
        ));
        let history = history.expect("readable");
        assert_eq!(history.revisions, 3);
        assert_eq!(history.tracks["old"], Track { changed: 7, own: 7, age: 3 });
        assert_eq!(history.tracks["new"], Track::default());
        assert_eq!(history.tracks["own"], Track { changed: 4, own: 4, age: 3 });
        let history = read(&format!(r#"{{"revisions":4294967295,"tracks":{{"old":["{all}","{all}",4294967295]}}}}"#));
        let history = history.expect("readable");
        assert_eq!((history.revisions, history.tracks["old"].age, history.tracks["old"].changed), (64, 64, u64::MAX));
        assert_eq!(read(r#"{"revisions":1,"tracks":{"a":["10000000000000000","0",1]}}"#), None);
        assert!(serde_json::from_str::<SavedHistory>(r#"{"revisions":-1}"#).is_err());
    }

    #[test]
    fn comments_of_nixpkgs_are_read_too() {
        let comment = "store paths: ['/nix/store/aaa-b', '/nix/store/ccc-d']";
        assert_eq!(paths_of_comment(comment), ["aaa-b", "ccc-d"]);
        assert_eq!(paths_of_comment("Nix database, user"), [""; 0]);
    }
}
