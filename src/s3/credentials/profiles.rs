//! Reads `~/.aws/credentials` and `~/.aws/config`.
//!
//! Source: AWS SDKs and Tools Reference Guide, "Shared config and credentials files".

use std::collections::BTreeMap;

/// The profile that counts where nobody names one.
pub const DEFAULT: &str = "default";

/// What a profile may have instead of keys, and needs a program or a browser.
const UNKNOWN: [&str; 5] =
    ["sso_session", "sso_start_url", "credential_process", "source_profile", "credential_source"];

/// Which of the files a text is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `credentials`: a section is a profile.
    Credentials,
    /// `config`: a section is called `profile NAME`, or `default`.
    Config,
}

/// The profiles of both files.
#[derive(Clone, Default)]
pub struct Profiles(BTreeMap<String, BTreeMap<String, String>>);

/// A profile.
#[derive(Clone, Default)]
pub struct Profile {
    /// `aws_access_key_id`.
    pub key: Option<String>,
    /// `aws_secret_access_key`.
    pub secret: Option<String>,
    /// `aws_session_token`.
    pub token: Option<String>,
    /// `region`.
    pub region: Option<String>,
    /// `web_identity_token_file`.
    pub web_identity_file: Option<String>,
    /// `role_arn`.
    pub role: Option<String>,
    /// A setting that says how to get credentials, in a way that is not known here.
    pub unknown: Option<&'static str>,
}

impl Profile {
    /// Whether it says, in any way, whose credentials to use.
    #[must_use]
    pub fn names_somebody(&self) -> bool {
        self.key.is_some() || self.web_identity_file.is_some() || self.unknown.is_some()
    }
}

impl Profiles {
    /// Adds the profiles of a file; what it says comes before what was added earlier.
    pub fn add(&mut self, text: &str, kind: Kind) {
        let mut section = None;
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[') {
                let name = name.split(']').next().unwrap_or_default().trim();
                section = match (kind, name.strip_prefix("profile").map(|name| unquoted(name.trim()))) {
                    (Kind::Config, Some(name)) if !name.is_empty() => Some(name.to_owned()),
                    (Kind::Config, _) => Some(name.to_owned()).filter(|name| name == DEFAULT),
                    (Kind::Credentials, _) => Some(name.to_owned()),
                };
                continue;
            }
            if let (Some(section), Some((key, value))) = (&section, line.split_once('=')) {
                // A comment begins with a space before it.
                let value = value.split(" #").next().unwrap_or_default().split(" ;").next().unwrap_or_default().trim();
                if !value.is_empty() {
                    let settings = self.0.entry(section.clone()).or_default();
                    settings.insert(key.trim().to_ascii_lowercase(), value.to_owned());
                }
            }
        }
    }

    /// The profile `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Profile> {
        let settings = self.0.get(name)?;
        let value = |key: &str| settings.get(key).cloned();
        Some(Profile {
            key: value("aws_access_key_id"),
            secret: value("aws_secret_access_key"),
            token: value("aws_session_token"),
            region: value("region"),
            web_identity_file: value("web_identity_token_file"),
            role: value("role_arn"),
            unknown: UNKNOWN.into_iter().find(|key| settings.contains_key(*key)),
        })
    }
}

/// A name without the quotes that one with a space has to have.
fn unquoted(name: &str) -> &str {
    let inner = |quote: char| name.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_are_read_and_the_one_with_credentials_comes_first() {
        let mut profiles = Profiles::default();
        let config = "# x\n[default]\nregion=eu-west-1 # here\n[profile ci]\naws_access_key_id = old\nrole_arn=arn:x\nweb_identity_token_file = /t\n[services x]\ns3 =\n  endpoint_url = x\n[sso-session y]\nsso_start_url = z\n";
        profiles.add(config, Kind::Config);
        profiles.add("[ci]\nAWS_ACCESS_KEY_ID=new\naws_secret_access_key = a+b/c==\n", Kind::Credentials);
        let ci = profiles.get("ci").expect("there");
        assert_eq!((ci.key.as_deref(), ci.secret.as_deref()), (Some("new"), Some("a+b/c==")));
        assert_eq!((ci.role.as_deref(), ci.web_identity_file.as_deref()), (Some("arn:x"), Some("/t")));
        let default = profiles.get(DEFAULT).expect("there");
        assert_eq!(default.region.as_deref(), Some("eu-west-1"));
        assert!(!default.names_somebody() && ci.names_somebody());
        profiles.add("[profile \"my ci\"]\nregion = r\n[profile 'b']\nregion = r\n", Kind::Config);
        assert!(profiles.get("my ci").is_some() && profiles.get("b").is_some());
        assert!(profiles.get("y").is_none() && profiles.get("services x").is_none());
    }
}
