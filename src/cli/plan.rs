//! `stowage plan`.

use std::path::Path;

use super::args::PlanArguments;
use super::exit::UsageError;
use super::gather::{self, Gathered};
use super::paths;
use super::settings::Settings;
use super::{build, earlier, output, parent};
use crate::build::layers::{self, Needed};
use crate::plan::diff::Layout;
use crate::plan::saved::SavedPlan;
use crate::plan::{self, LayerPlan, PlannedLayer};
use crate::store::{Closure, StoreLocation};

/// Shows a layer plan.
///
/// # Errors
/// See [`super::exit::Exit`].
pub fn run(settings: &Settings, arguments: PlanArguments) -> anyhow::Result<()> {
    let mut spec = build::spec(arguments.spec.as_deref(), None, arguments.strategy, arguments.max_layers)?;
    let location = settings.location(arguments.source.store.root.as_deref());
    gather::add_arguments(&mut spec, arguments.needs)?;
    let source = arguments.source.registrations();
    let Gathered { closure, extras, listed, .. } = gather::gather(&source, &location, &arguments.paths, &spec)?;
    let platform = spec.platform();
    let read = |text: &String| earlier::read(text, &settings.registries, platform.as_ref());
    let old = arguments.previous.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let (layouts, previous): (Vec<_>, Vec<_>) = old.into_iter().map(|old| (old.layout, old.previous)).unzip();
    let known = parent::Known { closure: &closure, listed: &listed };
    let parent = arguments.from.as_ref().or(spec.from_image.as_ref());
    let parent =
        parent.map(|text| parent::parent(text, &spec, &known, &location, &settings.registries, true)).transpose()?;
    // What the parent has is not planned again.
    let closure = match &parent {
        _ if !spec.include_store_paths => closure.without(&closure.infos().iter().map(|info| &info.path).collect()),
        None => closure,
        Some(parent) => closure.without(&parent.paths()),
    };
    let limit = layers::limit(&spec, parent.as_ref(), Needed::new(&extras, &closure), spec.has_program())?;
    let plan = plan::plan(&closure, &spec.policy(limit, &extras, previous));
    let saved = SavedPlan::new(&closure, &plan, spec.strategy);
    let old = (!layouts.is_empty())
        .then(|| Layout { layers: layouts.into_iter().flat_map(|layout| layout.layers).collect() });
    let kept = old.map(|old| Layout::from(&saved).kept(&old));
    let text = match (&arguments.why, arguments.json) {
        (Some(path), false) => explain(&closure, &plan, &location, path)?,
        (None, false) => as_table(&closure, &plan, kept.as_deref()),
        (None, true) => as_json(&saved, kept.as_deref())?,
        (Some(_), true) => {
            return Err(UsageError("--why is for people; --json tells why of each layer".to_owned()).into());
        }
    };
    Ok(output::print(&text)?)
}

/// The plan as a script, or the next plan, wants it. With earlier plans, what is kept
/// of them, too.
fn as_json(plan: &SavedPlan, kept: Option<&[bool]>) -> anyhow::Result<String> {
    let mut json = serde_json::to_value(plan)?;
    if let Some(kept) = kept {
        for (place, is_kept) in kept.iter().enumerate() {
            json["layers"][place]["kept"] = (*is_kept).into();
        }
        let sent = plan.layers.iter().zip(kept).filter(|(_, is_kept)| !**is_kept);
        json["bytesToSend"] = sent.fold(0_u64, |sum, (layer, _)| sum.saturating_add(layer.size)).into();
    }
    Ok(format!("{json}\n"))
}

/// A line for each layer; the system layer, which no plan knows, is left out.
fn as_table(closure: &Closure, plan: &LayerPlan, kept: Option<&[bool]>) -> String {
    let is_sent = |place: usize| kept.is_some_and(|kept| !kept[place]);
    let mut table = format!("{:>5}  {:>5}  {:>10}  {}\n", "layer", "paths", "size", "what, and why");
    let mut to_send = 0_u64;
    for (place, layer) in plan.layers.iter().enumerate() {
        let size = layer.nar_size(closure);
        let mark = if is_sent(place) { "*" } else { " " };
        to_send = to_send.saturating_add(if is_sent(place) { size } else { 0 });
        table += &format!(
            "{:>5}{mark} {:>5}  {:>10}  {} ({})\n",
            place + 1,
            layer.paths.len(),
            output::size(size),
            what(closure, layer),
            layer.why
        );
    }
    table += &format!(
        "{} paths, {}, in {} layers, and the system layer on top\n",
        closure.len(),
        output::size(closure.nar_size()),
        plan.layers.len()
    );
    match kept {
        None => table,
        Some(kept) => {
            let sent = kept.iter().filter(|is_kept| !**is_kept).count();
            table + &format!("* would be sent: {sent} layers, {}, and the system layer\n", output::size(to_send))
        }
    }
}

/// The first names of a layer, the largest paths first.
fn what(closure: &Closure, layer: &PlannedLayer) -> String {
    let mut by_size = layer.paths.clone();
    by_size.sort_by_key(|id| std::cmp::Reverse(closure.info(*id).nar_size));
    let names: Vec<&str> = by_size.iter().map(|id| closure.info(*id).path.name()).collect();
    match names[..] {
        [first, second, _, ..] => format!("{first}, {second} and {} more", names.len() - 2),
        _ => names.join(", "),
    }
}

/// The layer of one path: what it is with, and why.
fn explain(closure: &Closure, plan: &LayerPlan, location: &StoreLocation, path: &Path) -> anyhow::Result<String> {
    let path = paths::resolve(location, path)?;
    let found = closure
        .find(&path)
        .and_then(|id| plan.layers.iter().position(|layer| layer.paths.contains(&id)).map(|place| (id, place)));
    let Some((id, place)) = found else {
        let path = location.print(&path);
        return Err(UsageError(format!("{path} is not in the closure; `stowage plan` without --why shows all")).into());
    };
    let layer = &plan.layers[place];
    let mut text = format!(
        "{}\nlayer {} of {}, {}: {}\n",
        closure.print(id),
        place + 1,
        plan.layers.len(),
        output::size(layer.nar_size(closure)),
        layer.why
    );
    for other in &layer.paths {
        text += &format!("  {:>10}  {}\n", output::size(closure.info(*other).nar_size), closure.print(*other));
    }
    let track = plan.history.track(&path);
    if plan.history.revisions > 0 {
        text += &format!(
            "changed in {} of {} revisions, in {} of them by itself\n",
            track.changed.count_ones(),
            track.age,
            track.own.count_ones()
        );
    }
    Ok(text)
}
