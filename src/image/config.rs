//! The image's config: how a container of it runs, and what its layers are.
//!
//! Source: OCI image-spec 1.1, `config.md`, and moby's `image/spec/v1.2.md`. The
//! fields stand in the order that Go's libraries write them in, without white
//! space, so that tools which read a config and write it again (skopeo, between
//! manifest formats) come to the same bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ImageLayer;
use super::inherit::Inherited;
use super::spec::SpecError;
use super::trees::{self, Tree};
use super::user::User;
use crate::digest::Digest;
use crate::store::StoreDir;

/// How a container runs: the part of the config that a spec gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
#[allow(missing_docs, reason = "the names are those of OCI's image-spec, which explains them")]
pub struct ContainerConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<u64>,
}

/// Where programs are that are none of Nix's profiles; what runs containers looks there, too, where an
/// image says nothing.
const PROGRAMS: &str = "/bin:/usr/bin:/sbin:/usr/sbin:/usr/local/bin:/usr/local/sbin";

impl ContainerConfig {
    /// Sets the variable `name`, unless it is set.
    pub fn set_default(&mut self, name: &str, value: &str) {
        let is_set = |entry: &String| entry.split_once('=').map_or(entry.as_str(), |(set, _)| set) == name;
        if !self.env.iter().any(is_set) {
            self.env.push(format!("{name}={value}"));
        }
    }

    /// Has `NIX_PATH` lead to `trees`, unless `own` says where it leads; what a parent says of
    /// others stays.
    pub fn lead_to(&mut self, trees: &BTreeMap<String, Tree>, store_dir: &StoreDir, own: &Self) {
        let value = |entry: &String| entry.strip_prefix("NIX_PATH=").map(str::to_owned);
        if own.env.iter().any(|entry| value(entry).is_some()) {
            tracing::warn!("the config sets NIX_PATH, so it does not lead to the source trees");
            return;
        }
        let before = self.env.iter().find_map(value).unwrap_or_default();
        self.env.retain(|entry| value(entry).is_none());
        self.env.push(format!("NIX_PATH={}", trees::nix_path(trees, store_dir, &before)));
    }

    /// Has `program` start what would be started otherwise.
    pub fn enter_by(&mut self, program: &[&str]) {
        let rest = self.entrypoint.take().unwrap_or_default();
        self.entrypoint = Some(program.iter().map(|word| (*word).to_owned()).chain(rest).collect());
    }

    /// The keys that a spec's `config` may have.
    pub const KEYS: [&str; 13] = [
        "User",
        "ExposedPorts",
        "Env",
        "Entrypoint",
        "Cmd",
        "Volumes",
        "WorkingDir",
        "Labels",
        "StopSignal",
        "Healthcheck",
        "OnBuild",
        "Shell",
        "StopTimeout",
    ];
}

/// Keys of Docker's own container configs that OCI has not, and that say nothing about an image, with a
/// text each; some write them, and they are handed on.
///
/// Source: moby's `api/types/container/config.go` and `image/spec/v1.2.md`.
const DOCKERS_TEXTS: [&str; 4] = ["Hostname", "Domainname", "Image", "MacAddress"];
/// Likewise, those that are true or false.
const DOCKERS_SWITCHES: [&str; 8] =
    ["AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce", "ArgsEscaped", "NetworkDisabled"];
/// Likewise, those that are numbers.
const DOCKERS_NUMBERS: [&str; 3] = ["Memory", "MemorySwap", "CpuShares"];

/// Takes Docker's own keys out of a spec's `config`, in which `null` is for what is not set.
///
/// # Errors
/// When one has a value of another kind than it has to have.
pub fn take_dockers(config: &mut Map<String, Value>) -> Result<Map<String, Value>, SpecError> {
    let is_known = |key: &str| {
        let ours = ContainerConfig::KEYS.iter().chain(&DOCKERS_TEXTS).chain(&DOCKERS_SWITCHES).chain(&DOCKERS_NUMBERS);
        ours.clone().any(|known| *known == key)
    };
    config.retain(|key, value| !value.is_null() || !is_known(key));
    let mut dockers = Map::new();
    let keys = DOCKERS_TEXTS.iter().chain(&DOCKERS_SWITCHES).chain(&DOCKERS_NUMBERS);
    for (key, value) in keys.filter_map(|key| config.remove_entry(*key)) {
        let (is_right, expected) = match &*key {
            key if DOCKERS_TEXTS.contains(&key) => (value.is_string(), "a text"),
            key if DOCKERS_SWITCHES.contains(&key) => (value.is_boolean(), "true or false"),
            _ => (value.is_i64(), "a whole number"),
        };
        if !is_right {
            return Err(SpecError::Kind { key: format!("config.{key}"), expected });
        }
        dockers.insert(key, value);
    }
    Ok(dockers)
}

/// Go's `struct{}`, the value of sets in the config.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// Docker's own check of a container's health; times are in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
#[allow(missing_docs, reason = "the names are those of moby's image spec, which explains them")]
pub struct Healthcheck {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u64>,
}

#[derive(Serialize)]
struct Config<'a> {
    created: &'a str,
    architecture: &'a str,
    os: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'a str>,
    config: Whole<'a>,
    rootfs: RootFs,
    history: Vec<History>,
}

/// What is known of the config, and then what is not.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    container: &'a ContainerConfig,
    #[serde(flatten)]
    others: &'a Map<String, Value>,
}

#[derive(Serialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: Vec<Digest>,
}

/// What was done, and whether that made a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are those of OCI's image-spec, which explains them")]
pub struct History {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// What nobody knows.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// The config's bytes. `created` is a date of RFC 3339. Of `layers`, the first are the
/// parent's, of which `inherited` tells, if there is one; `plan` is what the next plan
/// should know, in the form of [`crate::plan::saved`].
#[must_use]
pub fn serialise(
    created: &str,
    architecture: &str,
    container: &ContainerConfig,
    layers: &[ImageLayer],
    inherited: &Inherited,
    plan: Option<&str>,
) -> Vec<u8> {
    let told = inherited.history.iter().filter(|entry| !entry.empty_layer).count();
    let entry = |comment: &str, empty_layer| History {
        created: Some(created.to_owned()),
        created_by: Some("stowage".to_owned()),
        comment: Some(comment.to_owned()),
        empty_layer,
        ..History::default()
    };
    let plan = plan.map(|plan| entry(plan, true));
    let own = layers.iter().skip(told).map(|layer| entry(&layer.comment, false));
    // A key may be in both, where the parent's value is of a form that nobody knows.
    let known = serde_json::to_value(container).unwrap_or_default();
    let others = inherited.others.iter().filter(|(key, _)| known.get(key).is_none());
    let others = others.map(|(key, value)| (key.clone(), value.clone())).collect();
    let config = Config {
        created,
        architecture,
        os: "linux",
        variant: inherited.variant.as_deref(),
        config: Whole { container, others: &others },
        rootfs: RootFs { kind: "layers", diff_ids: layers.iter().map(|layer| layer.record.diff_id).collect() },
        history: inherited.history.iter().cloned().chain(plan).chain(own).collect(),
    };
    super::manifest::to_json(&config)
}

/// `path`, and before it those of the places for programs that are Nix's and not in it, also of
/// the user with the folder `home`; but not those of a user whose home is `old_home`.
#[must_use]
pub fn search_path(home: Option<&str>, path: &str, old_home: Option<&str>) -> String {
    let of_old = old_home.map(profile);
    let mut folders: Vec<String> = home.map(profile).into_iter().collect();
    folders.push("/nix/var/nix/profiles/default/bin".to_owned());
    folders.retain(|folder| !path.split(':').any(|other| other == folder));
    folders.extend(path.split(':').filter(|folder| Some(*folder) != of_old.as_deref()).map(str::to_owned));
    folders.join(":")
}

/// Where the programs are that the user with the folder `home` has installed.
fn profile(home: &str) -> String {
    format!("{home}/.nix-profile/bin")
}

/// `container` with what Nix needs to find its way as `user`: home, user, search
/// path, certificates. What the spec sets stays; where that is another `User`, what is that one's
/// is left to who runs the image, and finds it in `/etc/passwd`.
#[must_use]
pub fn with_defaults(container: ContainerConfig, user: &User) -> ContainerConfig {
    let is_user = container.user.as_deref().is_none_or(|text| user.is_called(text));
    with_defaults_of(container, user, is_user)
}

/// Likewise; `is_user` says whether containers run as `user`.
#[must_use]
pub fn with_defaults_of(mut container: ContainerConfig, user: &User, is_user: bool) -> ContainerConfig {
    let home = Some(&user.home).filter(|_| is_user);
    let path = search_path(home.map(String::as_str), PROGRAMS, None);
    let defaults = [
        ("HOME", home.cloned()),
        ("NIX_SSL_CERT_FILE", Some(format!("/{}", super::contents::CERTIFICATES))),
        ("PATH", Some(path)),
        ("USER", Some(user.name.clone()).filter(|_| is_user)),
    ];
    for (name, value) in defaults {
        if let Some(value) = value {
            container.set_default(name, &value);
        }
    }
    container.user.get_or_insert_with(|| format!("{}:{}", user.uid, user.gid));
    container.working_dir = container.working_dir.or(home.cloned());
    if container.entrypoint.is_none() {
        container.cmd.get_or_insert_with(|| vec![user.login_shell().to_owned()]);
    }
    container
}

/// The architecture that most programs and libraries are for.
#[must_use]
pub fn architecture<'a>(layers: impl IntoIterator<Item = &'a crate::layer::LayerRecord>) -> Option<String> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for record in layers {
        for (architecture, count) in &record.architectures {
            *counts.entry(architecture).or_default() += count;
        }
    }
    let most = counts.values().max()?;
    counts.iter().find(|(_, count)| *count == most).map(|(architecture, _)| (*architecture).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::LayerRecord;

    fn layer() -> ImageLayer {
        let architectures = [("386".to_owned(), 1), ("amd64".to_owned(), 2)].into();
        let record = LayerRecord { diff_id: Digest::of(b""), size: 0, architectures };
        ImageLayer::plain(record, "store paths: x".to_owned())
    }

    #[test]
    fn the_bytes_are_these() {
        let container = ContainerConfig { cmd: Some(vec!["/bin/sh".to_owned()]), ..ContainerConfig::default() };
        let bytes = serialise("1970-01-01T00:00:01Z", "amd64", &container, &[layer()], &Inherited::default(), None);
        let expected = concat!(
            r#"{"created":"1970-01-01T00:00:01Z","architecture":"amd64","os":"linux","config":{"Cmd":["/bin/sh"]},"#,
            r#""rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},"#,
            r#""history":[{"created":"1970-01-01T00:00:01Z","created_by":"stowage","comment":"store paths: x"}]}"#
        );
        assert_eq!(String::from_utf8(bytes).expect("JSON"), expected);
    }

    #[test]
    fn oci_spec_reads_what_is_written() {
        let container = with_defaults(ContainerConfig::default(), &User::default());
        let bytes = serialise("1970-01-01T00:00:01Z", "amd64", &container, &[layer()], &Inherited::default(), None);
        let read: oci_spec::image::ImageConfiguration = serde_json::from_slice(&bytes).expect("valid");
        let config = read.config().clone().expect("there");
        assert_eq!(config.user().as_deref(), Some("1000:1000"));
        assert_eq!(config.env().clone().expect("there"), container.env);
    }

    #[test]
    fn what_the_spec_sets_stays() {
        let container = ContainerConfig {
            env: vec!["HOME=/root".to_owned(), "A=1".to_owned()],
            user: Some("0".to_owned()),
            ..ContainerConfig::default()
        };
        let container = with_defaults(container, &User::default());
        assert_eq!(container.env.iter().filter(|entry| entry.starts_with("HOME=")).count(), 1);
        assert_eq!((container.env[0].as_str(), container.user.as_deref()), ("HOME=/root", Some("0")));
    }

    #[test]
    fn home_and_name_are_not_those_of_another_user() {
        let of = |user: &str| {
            let container = ContainerConfig { user: Some(user.to_owned()), ..ContainerConfig::default() };
            with_defaults(container, &User::default())
        };
        for own in ["1000", "1000:1000", "user", "user:users"] {
            let container = of(own);
            let is_set = |name: &str| container.env.iter().any(|entry| entry.starts_with(name));
            assert!(is_set("HOME=/home/user") && is_set("USER=user"), "{own}: {:?}", container.env);
            assert_eq!(container.working_dir.as_deref(), Some("/home/user"), "{own}");
        }
        for other in ["0", "", "bob", "5:1000", "users"] {
            let container = of(other);
            assert!(container.env.iter().all(|entry| !entry.contains("user")), "{other}: {:?}", container.env);
            assert!(!container.env.iter().any(|entry| entry.starts_with("HOME=") || entry.starts_with("USER=")));
            assert_eq!(container.working_dir, None, "{other}");
        }
        let root = User { name: "root".to_owned(), uid: 0, home: "/root".to_owned(), ..User::default() };
        let unnamed = ContainerConfig { user: Some(String::new()), ..ContainerConfig::default() };
        assert_eq!(with_defaults(unnamed, &root).working_dir.as_deref(), Some("/root"));
    }

    #[test]
    fn go_marshals_html_letters_as_escapes_and_so_do_we() {
        let container = ContainerConfig { env: vec!["A=<&>".to_owned()], ..ContainerConfig::default() };
        let bytes = serialise("1970-01-01T00:00:01Z", "amd64", &container, &[], &Inherited::default(), None);
        assert!(String::from_utf8(bytes).expect("JSON").contains(r"A=\u003c\u0026\u003e"));
    }

    #[test]
    fn the_architecture_is_that_of_most_files() {
        assert_eq!(architecture([&layer().record]).as_deref(), Some("amd64"));
        assert_eq!(architecture([]), None);
    }
}
