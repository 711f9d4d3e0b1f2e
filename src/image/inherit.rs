//! What the config of a parent hands on to images built on it.
//!
//! As in a Dockerfile: what an image says itself counts, variables and labels are
//! merged by name, and an entrypoint of its own drops the parent's command. What
//! nobody here knows is handed on as it is; only `OnBuild`, which is for builds
//! with Dockerfiles, ends here.
//!
//! Source: moby's `builder/dockerfile` (`dispatchers.go`) and OCI image-spec 1.1,
//! `config.md`.

use serde_json::{Map, Value};

use super::config::{self, ContainerConfig, History};
use super::user::User;
use crate::parent::Parent;

/// What the config of a parent hands on.
#[derive(Clone, Debug, Default)]
pub struct Inherited {
    /// How a container of the parent runs.
    pub container: ContainerConfig,
    /// Keys of its `config` that nobody knows.
    pub others: Map<String, Value>,
    /// Go's name of its architecture.
    pub architecture: Option<String>,
    /// The variant of that, e.g. `v7`.
    pub variant: Option<String>,
    /// Its history, with an entry for each of its layers.
    pub history: Vec<History>,
}

/// An image for other machines than its parent.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// Its programs would not run together.
    #[error(
        "the image is for {ours}, and its parent {parent} for {theirs}; name another parent, or another `architecture` in the spec"
    )]
    Architecture {
        /// The image's architecture.
        ours: String,
        /// The parent.
        parent: String,
        /// The parent's architecture.
        theirs: String,
    },
    /// Windows has layers of another form.
    #[error("the parent {parent} is for {os}; only Linux images are known")]
    System {
        /// The parent.
        parent: String,
        /// What it is for.
        os: String,
    },
}

impl Inherited {
    /// What `parent` hands on.
    ///
    /// # Errors
    /// When it is not for Linux.
    pub fn of(parent: &Parent) -> Result<Self, PlatformError> {
        let text = |key: &str| parent.config[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        if let Some(os) = text("os").filter(|os| os != "linux") {
            return Err(PlatformError::System { parent: parent.name.clone(), os });
        }
        let (container, others) = read_container(&parent.config["config"]);
        if !container.on_build.is_empty() {
            tracing::warn!("ONBUILD instructions of {} are not run, and not handed on", parent.name);
        }
        Ok(Self {
            container: ContainerConfig { on_build: Vec::new(), ..container },
            others,
            architecture: text("architecture"),
            variant: text("variant"),
            history: history(parent),
        })
    }

    /// Compares the architecture of an image, as far as it is known, with the
    /// parent's; tells which it is.
    ///
    /// # Errors
    /// When they differ.
    pub fn architecture(&self, ours: Option<String>, parent: &str) -> Result<Option<String>, PlatformError> {
        match (ours, &self.architecture) {
            (Some(ours), Some(theirs)) if ours != *theirs => {
                Err(PlatformError::Architecture { ours, parent: parent.to_owned(), theirs: theirs.clone() })
            }
            (ours, theirs) => Ok(ours.or_else(|| theirs.clone())),
        }
    }

    /// The value of a variable.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        variable(&self.container.env, name)
    }

    /// How a container of an image runs that says `spec`, and whose user is `user`;
    /// `named` says that the spec names the user, rather than the parent.
    #[must_use]
    pub fn container(&self, spec: &ContainerConfig, user: &User, named: bool) -> ContainerConfig {
        let mut container = self.container.clone();
        let is_user = spec.user.as_deref().is_none_or(|text| user.is_called(text));
        let home = Some(&*user.home).filter(|_| is_user);
        let old_home = self.variable("HOME").map(str::to_owned).filter(|old| Some(&**old) != home);
        if let Some(path) = self.variable("PATH") {
            let path = config::search_path(home, path, old_home.as_deref());
            set(&mut container.env, "PATH", &path);
        }
        if !is_user {
            container.env.retain(|entry| !matches!(name(entry), "HOME" | "USER"));
        }
        // Where the parent has them, so that they keep their places.
        for (name, value) in [("HOME", &user.home), ("USER", &user.name)] {
            if variable(&container.env, name).is_some() {
                set(&mut container.env, name, value);
            }
        }
        if named {
            container.user = None;
        }
        if old_home.is_some() && container.working_dir == old_home {
            container.working_dir = None;
        }
        config::with_defaults_of(overlay(container, spec.clone()), user, is_user)
    }
}

/// What `ours` says, and what `theirs` says of all else.
fn overlay(theirs: ContainerConfig, ours: ContainerConfig) -> ContainerConfig {
    let mut env = theirs.env;
    for entry in ours.env {
        match env.iter_mut().find(|other| name(other) == name(&entry)) {
            Some(other) => *other = entry,
            None => env.push(entry),
        }
    }
    let list = |ours: Vec<String>, theirs| if ours.is_empty() { theirs } else { ours };
    let (mut exposed_ports, mut volumes, mut labels) = (theirs.exposed_ports, theirs.volumes, theirs.labels);
    exposed_ports.extend(ours.exposed_ports);
    volumes.extend(ours.volumes);
    labels.extend(ours.labels);
    let their_cmd = theirs.cmd.filter(|_| ours.entrypoint.is_none());
    ContainerConfig {
        user: ours.user.or(theirs.user),
        exposed_ports,
        env,
        entrypoint: ours.entrypoint.or(theirs.entrypoint),
        cmd: ours.cmd.or(their_cmd),
        volumes,
        working_dir: ours.working_dir.or(theirs.working_dir),
        labels,
        stop_signal: ours.stop_signal.or(theirs.stop_signal),
        healthcheck: ours.healthcheck.or(theirs.healthcheck),
        on_build: list(ours.on_build, theirs.on_build),
        shell: list(ours.shell, theirs.shell),
        stop_timeout: ours.stop_timeout.or(theirs.stop_timeout),
    }
}

/// The config's keys, each on its own, since one that has a form of its own must
/// not hide the others; and those that have. Docker writes `null` and empty texts
/// for what is not set.
fn read_container(value: &Value) -> (ContainerConfig, Map<String, Value>) {
    let is_set = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        _ => true,
    };
    let mut known = Map::new();
    let mut others = Map::new();
    for (key, value) in value.as_object().into_iter().flatten().filter(|(_, value)| is_set(value)) {
        let alone = Map::from_iter([(key.clone(), value.clone())]);
        let is_known = serde_json::from_value::<ContainerConfig>(Value::Object(alone)).is_ok();
        if is_known { &mut known } else { &mut others }.insert(key.clone(), value.clone());
    }
    (serde_json::from_value(Value::Object(known)).unwrap_or_default(), others)
}

/// The parent's history. Some tools write none, or less than there are layers; more
/// would be refused by Docker.
fn history(parent: &Parent) -> Vec<History> {
    let entries = parent.config["history"].as_array().into_iter().flatten();
    let mut history: Vec<History> =
        entries.map(|entry| serde_json::from_value(entry.clone()).unwrap_or_default()).collect();
    let mut told = history.iter().filter(|entry| !entry.empty_layer).count();
    if told > parent.layers.len() {
        history.clear();
        told = 0;
    }
    let of_layer = |comment: &String| History { comment: Some(comment.clone()), ..History::default() };
    history.extend(parent.layers[told..].iter().map(|layer| of_layer(&layer.comment)));
    history
}

fn name(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

fn variable<'a>(env: &'a [String], wanted: &str) -> Option<&'a str> {
    env.iter().rev().find(|entry| name(entry) == wanted).and_then(|entry| Some(entry.split_once('=')?.1))
}

/// Gives a variable another value, in its place.
fn set(env: &mut [String], wanted: &str, value: &str) {
    for entry in env.iter_mut().filter(|entry| name(entry) == wanted) {
        *entry = format!("{wanted}={value}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::digest::Digest;
    use crate::image::manifest::Descriptor;
    use crate::layer::LayerRecord;
    use crate::parent::{LayerBytes, ParentLayer, Root};

    /// A parent with that config, and with two layers.
    fn parent(config: Value) -> Parent {
        let layer = |comment: &str| ParentLayer {
            record: LayerRecord { diff_id: Digest::of(b""), size: 0, architectures: Default::default() },
            blob: Descriptor { media_type: String::new(), digest: Digest::of(b""), size: 0 },
            comment: comment.to_owned(),
            paths: Vec::new(),
            bytes: LayerBytes::Blob { open: std::sync::Arc::new(|| Ok(Box::new(&b""[..]))), origin: None },
        };
        let layers = vec![layer("one"), layer("two")];
        Parent { name: "oci:base".to_owned(), config, layers, root: Root::default(), registrations: Vec::new() }
    }

    fn inherited(container: Value) -> Inherited {
        Inherited::of(&parent(json!({ "config": container }))).expect("for Linux")
    }

    fn spec(container: Value) -> ContainerConfig {
        serde_json::from_value(container).expect("valid")
    }

    fn merged(theirs: Value, ours: Value) -> ContainerConfig {
        inherited(theirs).container(&spec(ours), &User::default(), false)
    }

    #[test]
    fn what_the_image_says_counts_and_the_rest_is_the_parents() {
        let theirs = json!({
            "User": "app", "ExposedPorts": { "1/tcp": {} }, "Env": ["A=1", "B=2", "HOME=/x"], "Entrypoint": ["/e"],
            "Cmd": ["c"], "Volumes": { "/v": {} }, "WorkingDir": "/w", "Labels": { "a": "1", "b": "2" },
            "StopSignal": "SIGINT", "Healthcheck": { "Test": ["NONE"] }, "Shell": ["/bin/bash", "-c"], "StopTimeout": 3,
        });
        let same = merged(theirs.clone(), json!({}));
        assert_eq!(same.user.as_deref(), Some("app"));
        assert_eq!(
            (same.entrypoint.clone(), same.cmd.clone()),
            (Some(vec!["/e".to_owned()]), Some(vec!["c".to_owned()]))
        );
        assert_eq!(same.env[..3], ["A=1", "B=2", "HOME=/home/user"]);
        assert_eq!((same.working_dir.as_deref(), same.stop_timeout), (Some("/w"), Some(3)));
        assert_eq!(same.healthcheck.expect("handed on").test, ["NONE"]);
        let ours = json!({
            "User": "0", "ExposedPorts": { "2/tcp": {} }, "Env": ["B=3", "C=4"], "Volumes": { "/u": {} },
            "WorkingDir": "/o", "Labels": { "b": "3", "c": "4" }, "StopSignal": "SIGTERM", "Shell": ["/bin/sh"],
        });
        let both = merged(theirs, ours);
        assert_eq!(both.user.as_deref(), Some("0"));
        assert_eq!(both.env[..4], ["A=1", "B=3", "C=4", "NIX_SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"]);
        assert_eq!(both.exposed_ports.len() + both.volumes.len(), 4);
        assert_eq!(both.labels, [("a", "1"), ("b", "3"), ("c", "4")].map(|(a, b)| (a.to_owned(), b.to_owned())).into());
        assert_eq!((both.stop_signal.as_deref(), both.shell), (Some("SIGTERM"), vec!["/bin/sh".to_owned()]));
    }

    #[test]
    fn an_entrypoint_drops_the_command_below_it() {
        let theirs = json!({ "Entrypoint": ["/e"], "Cmd": ["c"] });
        let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        let container = merged(theirs.clone(), json!({ "Entrypoint": ["/f"] }));
        assert_eq!((container.entrypoint, container.cmd), (words(&["/f"]), None));
        let container = merged(theirs.clone(), json!({ "Entrypoint": ["/f"], "Cmd": ["d"] }));
        assert_eq!((container.entrypoint, container.cmd), (words(&["/f"]), words(&["d"])));
        let container = merged(theirs, json!({ "Cmd": ["d"] }));
        assert_eq!((container.entrypoint, container.cmd), (words(&["/e"]), words(&["d"])));
        assert_eq!(merged(json!({}), json!({})).cmd, words(&["/bin/sh"]));
    }

    #[test]
    fn the_search_path_is_kept_and_nix_is_found_in_it() {
        let path = |container: ContainerConfig| variable(&container.env, "PATH").expect("set").to_owned();
        let own = "/home/user/.nix-profile/bin:/nix/var/nix/profiles/default/bin";
        let debian = "/usr/local/bin:/usr/bin:/bin";
        assert_eq!(path(merged(json!({ "Env": [format!("PATH={debian}")] }), json!({}))), format!("{own}:{debian}"));
        let again = format!("PATH={own}:/bin");
        assert_eq!(path(merged(json!({ "Env": [again] }), json!({}))), format!("{own}:/bin"));
        assert_eq!(path(merged(json!({ "Env": ["PATH=/x"] }), json!({ "Env": ["PATH=/y"] }))), "/y");
        // Who runs is somebody else, neither the old user nor the new one.
        let theirs = json!({ "Env": ["HOME=/old", "PATH=/old/.nix-profile/bin:/x"] });
        assert_eq!(path(merged(theirs, json!({ "User": "0" }))), "/nix/var/nix/profiles/default/bin:/x");
        assert!(path(merged(json!({}), json!({}))).starts_with(own));
    }

    #[test]
    fn what_was_the_old_users_becomes_the_new_ones() {
        let first = config::with_defaults(ContainerConfig::default(), &User::default());
        let theirs = serde_json::to_value(&first).expect("JSON");
        let user: User = serde_json::from_value(json!({ "name": "ci", "uid": 7 })).expect("valid");
        let container = inherited(theirs.clone()).container(&ContainerConfig::default(), &user, true);
        assert_eq!(container, config::with_defaults(ContainerConfig::default(), &user));
        let container = inherited(theirs).container(&ContainerConfig::default(), &User::default(), false);
        assert_eq!(container, first);
    }

    #[test]
    fn what_nobody_knows_is_handed_on_but_what_is_not_set() {
        let inherited = inherited(json!({
            "Hostname": "", "Image": null, "ArgsEscaped": true, "Healthcheck": { "Test": ["x"], "StartInterval": 1 },
            "Env": null, "Cmd": ["x"], "OnBuild": ["RUN x"],
        }));
        assert_eq!(inherited.others.keys().collect::<Vec<_>>(), ["ArgsEscaped", "Healthcheck"]);
        assert_eq!((inherited.container.cmd.is_some(), inherited.container.on_build.len()), (true, 0));
    }

    #[test]
    fn each_layer_has_its_entry_in_the_history() {
        let comments = |history: Value| {
            let inherited = Inherited::of(&parent(json!({ "history": history }))).expect("for Linux");
            inherited.history.iter().map(|entry| entry.comment.clone().unwrap_or_default()).collect::<Vec<_>>()
        };
        let entry = |comment: &str| json!({ "comment": comment });
        let empty = json!({ "comment": "e", "empty_layer": true, "new": 1 });
        assert_eq!(comments(json!([entry("a"), empty, entry("b")])), ["a", "e", "b"]);
        assert_eq!(comments(json!([entry("a")])), ["a", "two"]);
        assert_eq!(comments(json!([entry("a"), 5, entry("c")])), ["one", "two"]);
        assert_eq!(comments(json!(null)), ["one", "two"]);
    }

    #[test]
    fn architectures_must_be_the_same_as_far_as_they_are_known() {
        let of = |config: Value| Inherited::of(&parent(config));
        let arm = of(json!({ "architecture": "arm64", "os": "linux" })).expect("for Linux");
        assert_eq!(arm.architecture(None, "x").expect("the parent's").as_deref(), Some("arm64"));
        assert_eq!(arm.architecture(Some("arm64".to_owned()), "x").expect("the same").as_deref(), Some("arm64"));
        let error = arm.architecture(Some("amd64".to_owned()), "oci:x").expect_err("another").to_string();
        assert!(error.contains("for amd64") && error.contains("oci:x for arm64"), "{error}");
        assert!(of(json!({ "os": "windows" })).expect_err("Windows").to_string().contains("windows"));
    }
}
