//! `stowage plan`.

use serde_json::json;

use super::args::PlanArguments;
use super::exit::UsageError;
use super::settings::{self, Settings};
use super::{build, output};
use crate::build::store_layers;
use crate::image::ImageSpec;
use crate::plan::{self, LayerPlan, Policy};
use crate::store::Closure;
use crate::store::source::RegistrationSource;

/// Shows a layer plan.
///
/// # Errors
/// See [`super::exit::Exit`].
pub fn run(settings: &Settings, arguments: PlanArguments) -> anyhow::Result<()> {
    let mut spec = ImageSpec::default();
    if let Some(strategy) = arguments.strategy {
        spec.strategy = strategy;
    }
    spec.max_layers = build::limit(arguments.max_layers.unwrap_or(spec.max_layers));
    spec.check()?;
    let location = settings.location(arguments.source.store.as_deref());
    let roots = arguments.paths.iter().map(|path| settings::resolve(&location, path)).collect::<Result<Vec<_>, _>>()?;
    let source = arguments.source.registrations();
    if roots.is_empty() && source == RegistrationSource::Database {
        return Err(UsageError(
            "nothing to plan: name a PATH, or give registrations with --registration or --closure".to_owned(),
        )
        .into());
    }
    let closure = source.closure(&location, &roots, &[])?;
    let plan = plan::plan(&closure, &Policy::new(spec.strategy, store_layers(&spec)));
    let text = if arguments.json { as_json(&closure, &plan) } else { as_table(&closure, &plan) };
    Ok(output::print(&text)?)
}

fn as_json(closure: &Closure, plan: &LayerPlan) -> String {
    let layers: Vec<_> = plan
        .layers
        .iter()
        .map(|layer| {
            let paths: Vec<String> = layer.paths.iter().map(|id| closure.print(*id)).collect();
            json!({ "paths": paths, "size": layer.nar_size(closure) })
        })
        .collect();
    format!("{}\n", json!({ "layers": layers }))
}

/// A line for each layer; the system layer, which no plan knows, is left out.
fn as_table(closure: &Closure, plan: &LayerPlan) -> String {
    let mut table = format!("{:>5}  {:>5}  {:>10}  {}\n", "layer", "paths", "size", "what");
    for (number, layer) in plan.layers.iter().enumerate() {
        let names: Vec<&str> = layer.paths.iter().map(|id| closure.info(*id).path.name()).collect();
        let what = match names[..] {
            [name] => name.to_owned(),
            [first, second, ..] => format!(
                "{first}, {second}{}",
                if names.len() > 2 { format!(" and {} more", names.len() - 2) } else { String::new() }
            ),
            [] => String::new(),
        };
        table += &format!(
            "{:>5}  {:>5}  {:>10}  {what}\n",
            number + 1,
            layer.paths.len(),
            output::size(layer.nar_size(closure))
        );
    }
    table
        + &format!(
            "{} paths, {}, in {} layers, and the system layer on top\n",
            closure.len(),
            output::size(closure.nar_size()),
            plan.layers.len()
        )
}
