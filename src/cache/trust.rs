//! Whether a Nix daemon does what its client's settings say.
//!
//! From a user that it does not trust, a daemon takes of the substituters only those that its
//! own nix.conf names, and neither keys nor a hook; of the hook it does not even say so.
//!
//! Source: Nix 2.8, `ClientSettings::apply` in `daemon.cc`, `matchUser` in `nix-daemon.cc`;
//! tried with that Nix.

use std::collections::BTreeMap;

use crate::nix_conf::{Line, lines};

/// Who asks the daemon.
#[derive(Clone, Debug, Default)]
pub struct User {
    /// The user's name.
    pub name: String,
    /// The names of the user's groups.
    pub groups: Vec<String>,
}

/// What a nix.conf says, as far as it matters here.
#[derive(Clone, Debug, Default)]
pub struct DaemonConfig(BTreeMap<String, Vec<String>>);

/// No file includes another, and that another, any deeper.
const MAX_INCLUDES: usize = 16;

impl DaemonConfig {
    /// Reads the text of a nix.conf. `include` gives the text of a file that it includes.
    pub fn parse(text: &str, include: &mut dyn FnMut(&str) -> Option<String>) -> Self {
        let mut config = Self::default();
        config.apply(text, include, 0);
        config
    }

    fn apply(&mut self, text: &str, include: &mut dyn FnMut(&str) -> Option<String>, depth: usize) {
        for line in lines(text) {
            match line {
                Line::Include { file, .. } => {
                    if let Some(text) = include(file).filter(|_| depth < MAX_INCLUDES) {
                        self.apply(&text, include, depth + 1);
                    }
                }
                Line::Setting { name, values } => {
                    let values = values.into_iter().map(str::to_owned);
                    match name.strip_prefix("extra-") {
                        Some(name) => self.0.entry(name.to_owned()).or_default().extend(values),
                        None => drop(self.0.insert(name.to_owned(), values.collect())),
                    }
                }
            }
        }
    }

    fn has(&self, setting: &str, value: &str) -> bool {
        self.0.get(setting).is_some_and(|values| values.iter().any(|one| one == value))
    }

    /// Whether the daemon trusts `user`.
    #[must_use]
    pub fn trusts(&self, user: &User) -> bool {
        let root = [String::from("root")];
        self.0.get("trusted-users").map_or(&root[..], Vec::as_slice).iter().any(|who| {
            who == "*"
                || *who == user.name
                || who.strip_prefix('@').is_some_and(|group| user.groups.iter().any(|own| own == group))
        })
    }

    /// Whether anybody may have the daemon use the substituter `url`, whose contents one of
    /// `keys` signs, if there are any.
    #[must_use]
    pub fn allows<'a>(&self, url: &str, mut keys: impl Iterator<Item = &'a str>) -> bool {
        ["substituters", "trusted-substituters"].iter().any(|setting| self.has(setting, url))
            && keys.all(|key| self.has("trusted-public-keys", key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, groups: &[&str]) -> User {
        User { name: name.to_owned(), groups: groups.iter().map(|group| (*group).to_owned()).collect() }
    }

    #[test]
    fn the_daemon_trusts_whom_its_configuration_names() {
        let parse = |text: &str| DaemonConfig::parse(text, &mut |_| None);
        assert!(parse("").trusts(&user("root", &[])) && !parse("").trusts(&user("ann", &["ann"])));
        assert!(parse("trusted-users = *").trusts(&user("ann", &[])));
        let some = parse("trusted-users = root bob\nextra-trusted-users = @wheel # and others\n");
        assert!(some.trusts(&user("bob", &[])) && some.trusts(&user("ann", &["x", "wheel"])));
        assert!(!some.trusts(&user("ann", &["bob"])) && !some.trusts(&user("wheel", &[])));
        assert!(!parse("trusted-users =").trusts(&user("root", &[])));
    }

    #[test]
    fn a_substituter_of_the_daemon_s_own_is_for_all() {
        let text = "!include more.conf\nsubstituters = file:///a\nextra-trusted-public-keys = k:1";
        let more = "trusted-substituters = file:///b\ninclude more.conf\ninclude none";
        let config = DaemonConfig::parse(text, &mut |file| (file == "more.conf").then(|| more.to_owned()));
        assert!(config.allows("file:///a", ["k:1"].into_iter()) && config.allows("file:///b", [].into_iter()));
        assert!(!config.allows("file:///a", ["k:2"].into_iter()) && !config.allows("file:///c", [].into_iter()));
    }
}
