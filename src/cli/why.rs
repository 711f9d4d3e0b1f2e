//! `stowage why`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::json;

use super::args::WhyArguments;
use super::exit::UsageError;
use super::settings::Settings;
use super::{output, parent, paths};
use crate::destination::ImageReference;
use crate::image::extras::Reason;
use crate::parent::{Node, Parent, ReadOptions, read};
use crate::plan::Pattern;
use crate::store::{Closure, NodeId, StorePath};

/// How a store path came into an image.
struct Answer {
    path: NodeId,
    /// From a path that the image has for a reason of its own, down to the path itself.
    chain: Vec<NodeId>,
    /// Why the image has the first of them.
    uses: Vec<Use>,
}

/// Why an image has a store path, besides that others refer to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    /// Its config names it.
    Config,
    /// Links outside the store lead to it: it is among the contents.
    Links(Vec<String>),
    /// Something can be built with it.
    Build(Reason),
    /// None that can be seen.
    Unknown,
}

/// Shows what brought a store path into an image, and by which chains of references.
///
/// # Errors
/// When the image can't be read, or has no such path.
pub fn run(settings: &Settings, arguments: &WhyArguments) -> anyhow::Result<()> {
    let location = settings.location(None);
    let store_dir = location.store_dir.clone();
    let reference = parent::reference(&arguments.image)?;
    // Its store paths are those of this store.
    let is_folder = matches!(reference, ImageReference::Folder { .. });
    let host = |paths: &[StorePath]| if is_folder { parent::registered(&location, paths) } else { Vec::new() };
    let options = ReadOptions {
        store_dir: &store_dir,
        platform: arguments.platform.platform.as_ref(),
        host: &host,
        believe_history: true,
        registries: &settings.registries,
    };
    let parent = read(&reference, &options)?;
    let closure = Closure::new(&store_dir, parent.registrations.clone(), None)?;
    let pattern = Pattern::new(&arguments.path).map_err(|error| UsageError(error.to_string()))?;
    let found: Vec<NodeId> = (0..closure.len()).filter(|id| pattern.matches(&closure.info(*id).path)).collect();
    if found.is_empty() {
        return Err(UsageError(format!(
            "{} is not among the {} store paths of {}",
            arguments.path,
            closure.len(),
            parent.name
        ))
        .into());
    }
    let seen = Seen::new(&parent, &closure);
    let answers: Vec<Answer> = found.into_iter().flat_map(|path| seen.answers(&closure, path)).collect();
    let text = if arguments.json { as_json(&closure, &answers) } else { as_text(&closure, &answers) };
    Ok(output::print(&text)?)
}

/// What is seen in an image of each of its store paths.
struct Seen {
    uses: Vec<Vec<Use>>,
    referrers: Vec<Vec<NodeId>>,
}

impl Seen {
    fn new(parent: &Parent, closure: &Closure) -> Self {
        let mut uses = vec![Vec::new(); closure.len()];
        let hash = |path: &StorePath| path.to_basename().chars().take(32).collect();
        let by_hash: BTreeMap<String, NodeId> =
            closure.infos().iter().zip(0..).map(|(info, id)| (hash(&info.path), id)).collect();
        let find = |text: &str| -> Vec<NodeId> {
            let mentions = paths::mentions(closure.store_dir(), text);
            mentions.iter().filter_map(|mention| by_hash.get(&mention.hash).copied()).collect()
        };
        for id in find(&parent.config["config"].to_string()) {
            uses[id].push(Use::Config);
        }
        let mut links: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
        for (path, entry) in &parent.root.entries {
            let Node::Link(target) = &entry.node else { continue };
            // Names come from whoever made the image, and go to a terminal.
            let path: String = String::from_utf8_lossy(path).replace(char::is_control, "\u{fffd}");
            for id in find(&String::from_utf8_lossy(target)) {
                match Reason::of_link(&path) {
                    Some(reason) => uses[id].push(Use::Build(reason)),
                    None if path.starts_with("nix/var/") => {}
                    None => links.entry(id).or_default().push(format!("/{path}")),
                }
            }
        }
        let mut referrers = vec![Vec::new(); closure.len()];
        for id in 0..closure.len() {
            closure.references(id).iter().filter(|other| **other != id).for_each(|other| referrers[*other].push(id));
        }
        for id in closure.unreferenced() {
            // Of what others refer to, links lead to it because they lead to these.
            uses[id].extend(links.remove(&id).map(Use::Links));
            if uses[id].is_empty() {
                uses[id].push(Use::Unknown);
            }
        }
        uses.iter_mut().for_each(|uses| uses.sort());
        Self { uses, referrers }
    }

    /// The reasons for `path`: for each kind of them, one of the shortest chains, the shortest
    /// first.
    fn answers(&self, closure: &Closure, path: NodeId) -> Vec<Answer> {
        let mut answers = Vec::new();
        let mut known: BTreeSet<String> = BTreeSet::new();
        let mut below: Vec<Option<NodeId>> = vec![None; closure.len()];
        let mut seen = vec![false; closure.len()];
        seen[path] = true;
        let mut queue = VecDeque::from([path]);
        while let Some(at) = queue.pop_front() {
            let uses: Vec<Use> = self.uses[at].iter().filter(|one| known.insert(one.kind())).cloned().collect();
            if !uses.is_empty() {
                let chain = std::iter::successors(Some(at), |at| below[*at]).collect();
                answers.push(Answer { path, chain, uses });
            }
            for referrer in &self.referrers[at] {
                if !std::mem::replace(&mut seen[*referrer], true) {
                    below[*referrer] = Some(at);
                    queue.push_back(*referrer);
                }
            }
        }
        if answers.is_empty() {
            // A circle that nothing refers to.
            answers.push(Answer { path, chain: vec![path], uses: vec![Use::Unknown] });
        }
        answers
    }
}

impl Use {
    /// What others of its kind have in common with it.
    fn kind(&self) -> String {
        match self {
            Self::Links(_) | Self::Build(Reason::Contents) => "contents".to_owned(),
            other => other.to_string(),
        }
    }

    /// Its kind, for scripts.
    fn tag(&self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Links(_) | Self::Build(Reason::Contents) => "contents",
            Self::Build(Reason::InputOf(_) | Reason::BeforeInput(_)) => "input",
            Self::Build(Reason::SourceOf(_)) => "source",
            Self::Build(Reason::Derivation) => "derivation",
            Self::Build(Reason::Tree(_)) => "tree",
            Self::Build(Reason::Layer) => "layer",
            Self::Build(Reason::Root) => "root",
            Self::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for Use {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config => formatter.write_str("the image's config names it"),
            Self::Links(links) => match &links[..] {
                [link] => write!(formatter, "{link} leads to it"),
                links => {
                    let first = links.first().map_or("", String::as_str);
                    write!(formatter, "{first} and {} more links lead to it", links.len().saturating_sub(1))
                }
            },
            Self::Build(reason) => reason.fmt(formatter),
            Self::Unknown => formatter.write_str("it was asked for, or a garbage collector's root"),
        }
    }
}

fn as_text(closure: &Closure, answers: &[Answer]) -> String {
    let mut text = String::new();
    for answer in answers {
        for (depth, id) in answer.chain.iter().enumerate() {
            let arrow = if depth == 0 { String::new() } else { format!("{}-> ", "   ".repeat(depth - 1)) };
            let uses: Vec<String> = answer.uses.iter().map(ToString::to_string).collect();
            let uses = if depth == 0 { format!(" ({})", uses.join("; ")) } else { String::new() };
            text += &format!("{arrow}{}{uses}\n", closure.print(*id));
        }
    }
    text
}

fn as_json(closure: &Closure, answers: &[Answer]) -> String {
    let answer = |answer: &Answer| {
        let chain: Vec<String> = answer.chain.iter().map(|id| closure.print(*id)).collect();
        let uses: Vec<String> = answer.uses.iter().map(ToString::to_string).collect();
        let by: Vec<&str> = answer.uses.iter().map(Use::tag).collect();
        json!({ "path": closure.print(answer.path), "chain": chain, "by": by, "uses": uses })
    };
    format!("{:#}\n", json!(answers.iter().map(answer).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ground::tests::root;
    use crate::store::StoreDir;
    use crate::store::closure::tests::{info, path};

    /// An image whose contents are `a`; `b` is an input of `d.drv`, and both need `c`.
    fn image() -> (Parent, Closure) {
        let (a, b, c, d) = (path('a', "a"), path('b', "b"), path('c', "c"), path('d', "d.drv"));
        let registrations = vec![info(&a, &[&c]), info(&b, &[&b, &c]), info(&c, &[]), info(&d, &[])];
        let store = |path: &StorePath| StoreDir::default().render_path(path);
        let links = [
            format!("bin>{}/bin", store(&a)),
            format!("nix/var/nix/gcroots/stowage/{}>{}", d.to_basename(), store(&d)),
            format!("nix/var/nix/gcroots/stowage/derivations/{}>{}", d.to_basename(), store(&d)),
            format!("nix/var/nix/gcroots/stowage/inputs-of/{}/{}>{}", d.to_basename(), b.to_basename(), store(&b)),
        ];
        let config = json!({ "config": { "Env": [format!("B={}", store(&b))] } });
        let root = root(&links.each_ref().map(String::as_str));
        let closure = Closure::new(&StoreDir::default(), registrations.clone(), None).expect("closed");
        (Parent { name: "x".to_owned(), config, layers: Vec::new(), root, registrations }, closure)
    }

    #[test]
    fn all_reasons_are_told_each_with_a_shortest_chain() {
        let (parent, closure) = image();
        let seen = Seen::new(&parent, &closure);
        let tags = |id| -> Vec<(Vec<NodeId>, Vec<&str>)> {
            let answers = seen.answers(&closure, id).into_iter();
            answers.map(|answer| (answer.chain, answer.uses.iter().map(Use::tag).collect())).collect()
        };
        assert_eq!(tags(2), [(vec![0, 2], vec!["contents"]), (vec![1, 2], vec!["config", "input"])]);
        assert_eq!(tags(0), [(vec![0], vec!["contents"])]);
        assert_eq!(tags(3), [(vec![3], vec!["derivation"])]);
    }

    #[test]
    fn what_has_no_reason_was_asked_for() {
        let (mut parent, closure) = image();
        parent.root.entries.clear();
        parent.config = json!({});
        let seen = Seen::new(&parent, &closure);
        assert_eq!(seen.answers(&closure, 2)[0].uses, [Use::Unknown]);
        let (a, b) = (path('a', "a"), path('b', "b"));
        let cycle = vec![info(&a, &[&b]), info(&b, &[&a])];
        let cycle = Closure::new(&StoreDir::default(), cycle, None).expect("closed");
        let answers = Seen::new(&parent, &cycle).answers(&cycle, 1);
        assert_eq!((answers.len(), &answers[0].chain[..]), (1, &[1][..]));
    }
}
