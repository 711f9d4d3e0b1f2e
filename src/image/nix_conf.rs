//! `/etc/nix/nix.conf`: settings by name, of the image and of its parent.
//!
//! Nix applies lines in their order, and a line `extra-NAME` adds to what NAME has
//! been so far: so those come last, and what the parent's file includes comes
//! first.

use std::collections::BTreeMap;

use crate::nix_conf::{Line, lines};

/// The text of the file with the settings `own`, and those of the text `parent`
/// whose names `own` has not.
#[must_use]
pub fn write(own: &BTreeMap<&str, &str>, parent: &str) -> String {
    let mut included = String::new();
    let mut settings: BTreeMap<&str, String> = BTreeMap::new();
    for line in lines(parent) {
        match line {
            Line::Include { optional, file } => {
                included += &format!("{}include {file}\n", if optional { "!" } else { "" });
            }
            Line::Setting { name, values } => drop(settings.insert(name, values.join(" "))),
        }
    }
    settings.extend(own.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let (extra, plain): (Vec<_>, Vec<_>) = settings.iter().partition(|(name, _)| name.starts_with("extra-"));
    let line = |(name, value): (&&str, &String)| format!("{name} = {value}").trim_end().to_owned() + "\n";
    included + &plain.into_iter().chain(extra).map(line).collect::<String>()
}

/// The values that the text `text` gives to the setting `name`; the last line counts.
pub fn values(text: &str, name: &str) -> impl Iterator<Item = String> {
    let found = lines(text).filter_map(|line| match line {
        Line::Setting { name: other, values } if other == name => Some(values),
        _ => None,
    });
    found.last().unwrap_or_default().into_iter().map(str::to_owned).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parents_settings_stay_below_the_images() {
        let parent = "# a comment\nsandbox = true\npost-build-hook = /hook # always\n\nsubstituters = a  b\nextra-substituters = c\nnonsense\n!include /more.conf\n";
        let own = [("sandbox", "false"), ("build-users-group", ""), ("extra-features", "x")].into();
        let expected = "!include /more.conf\nbuild-users-group =\npost-build-hook = /hook\nsandbox = false\nsubstituters = a b\nextra-features = x\nextra-substituters = c\n";
        assert_eq!(write(&own, parent), expected);
    }
}
