//! `stowage diff`.

use super::args::DiffArguments;
use super::settings::Settings;
use super::{earlier, output};
use crate::plan::diff::Difference;

/// Shows what is different between two images or plans.
///
/// # Errors
/// When one of them can't be read.
pub fn run(settings: &Settings, arguments: &DiffArguments) -> anyhow::Result<()> {
    let read = |text| earlier::read(text, &settings.registries, arguments.platform.platform.as_ref());
    let (old, new) = (read(&arguments.old)?.layout, read(&arguments.new)?.layout);
    let difference = Difference::between(&old, &new);
    let text =
        if arguments.json { format!("{:#}\n", serde_json::to_value(&difference)?) } else { as_text(&difference) };
    Ok(output::print(&text)?)
}

/// A base name's part after the hash.
fn name(base: &str) -> &str {
    base.get(33..).unwrap_or(base)
}

/// A line for each path that came (`+`), went (`-`), or is another (`~`), and a
/// summary.
fn as_text(difference: &Difference) -> String {
    let mut text = String::new();
    for path in &difference.went {
        text += &format!("- {}\n", name(path));
    }
    for path in &difference.came {
        text += &format!("+ {}\n", name(path));
    }
    for (old, new) in &difference.changed {
        text += &format!("~ {} -> {}\n", name(old), name(new));
    }
    for (_, new) in &difference.rebuilt {
        text += &format!("~ {} (built anew)\n", name(new));
    }
    text + &format!(
        "{} paths came, {} went, {} changed, {} were built anew, {} are the same\n{} of {} layers are kept ({}), {} to send\n",
        difference.came.len(),
        difference.went.len(),
        difference.changed.len(),
        difference.rebuilt.len(),
        difference.unchanged,
        difference.layers_kept,
        difference.layers,
        output::size(difference.bytes_kept),
        output::size(difference.bytes_to_send),
    )
}
