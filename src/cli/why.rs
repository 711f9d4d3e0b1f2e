//! `stowage why`.

use serde_json::json;

use super::args::WhyArguments;
use super::exit::UsageError;
use super::settings::Settings;
use super::{output, parent};
use crate::parent::{Node, Parent, ReadOptions, read};
use crate::plan::Pattern;
use crate::store::{Closure, NodeId};

/// How a store path came into an image.
struct Reason {
    path: NodeId,
    /// From a path that no other refers to, down to the path itself.
    chain: Vec<NodeId>,
    /// What the image does with the first of them.
    uses: Vec<String>,
}

/// Shows the chain of references that brought a store path into an image.
///
/// # Errors
/// When the image can't be read, or has no such path.
pub fn run(settings: &Settings, arguments: &WhyArguments) -> anyhow::Result<()> {
    let store_dir = settings.location(None).store_dir;
    let reference = parent::reference(&arguments.image)?;
    let options = ReadOptions {
        store_dir: &store_dir,
        platform: arguments.platform.platform.as_ref(),
        host: &|_| Vec::new(),
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
    let reasons: Vec<Reason> = found.into_iter().map(|path| reason(&parent, &closure, path)).collect();
    let text = if arguments.json { as_json(&closure, &reasons) } else { as_text(&closure, &reasons) };
    Ok(output::print(&text)?)
}

fn reason(parent: &Parent, closure: &Closure, path: NodeId) -> Reason {
    let chain = closure.chain_to(path);
    let uses = chain.first().map(|first| uses(parent, &closure.info(*first).path.to_basename())).unwrap_or_default();
    Reason { path, chain, uses }
}

/// What an image does with the store path of that base name, besides having it.
fn uses(parent: &Parent, base: &str) -> Vec<String> {
    let mut uses = Vec::new();
    if parent.config["config"].to_string().contains(base) {
        uses.push("the image's config names it".to_owned());
    }
    let leads_there = |target: &[u8]| target.windows(base.len()).any(|part| part == base.as_bytes());
    let links: Vec<String> = parent
        .root
        .entries
        .iter()
        .filter(|(path, entry)| {
            !path.starts_with(b"nix/var/") && matches!(&entry.node, Node::Link(target) if leads_there(target))
        })
        .map(|(path, _)| format!("/{}", String::from_utf8_lossy(path)))
        .collect();
    match &links[..] {
        [] => {}
        [link] => uses.push(format!("{link} leads to it")),
        [first, rest @ ..] => uses.push(format!("{first} and {} more links lead to it", rest.len())),
    }
    if uses.is_empty() {
        uses.push("it was asked for, or a garbage collector's root".to_owned());
    }
    uses
}

fn as_text(closure: &Closure, reasons: &[Reason]) -> String {
    let mut text = String::new();
    for reason in reasons {
        for (depth, id) in reason.chain.iter().enumerate() {
            let arrow = if depth == 0 { String::new() } else { format!("{}-> ", "   ".repeat(depth - 1)) };
            let uses = if depth == 0 { format!(" ({})", reason.uses.join("; ")) } else { String::new() };
            text += &format!("{arrow}{}{uses}\n", closure.print(*id));
        }
    }
    text
}

fn as_json(closure: &Closure, reasons: &[Reason]) -> String {
    let reason = |reason: &Reason| {
        let chain: Vec<String> = reason.chain.iter().map(|id| closure.print(*id)).collect();
        json!({ "path": closure.print(reason.path), "chain": chain, "uses": reason.uses })
    };
    format!("{:#}\n", json!(reasons.iter().map(reason).collect::<Vec<_>>()))
}
