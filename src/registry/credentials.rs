//! Users and passwords for registries, as docker and podman keep them.
//!
//! Sources: docker's `cli/config/configfile` and `docker-credential-helpers`;
//! `containers-auth.json(5)`; GitLab's `DOCKER_AUTH_CONFIG`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

use super::error::{RegistryError, plain};
use super::name::{DOCKER_HUB, RepositoryName};

/// Docker Hub, as Docker's configuration has it.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// The variable with a configuration of docker's.
pub const DOCKER_TEXT: &str = "DOCKER_AUTH_CONFIG";

/// What a helper says for a user when its secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user.
    User {
        /// Their name.
        name: String,
        /// Their password, or a token in its place.
        password: String,
    },
    /// An identity token, for which the registry's token server gives others.
    Identity(String),
}

// Secrets have no business in logs.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Credentials")
    }
}

impl Credentials {
    /// The value of an `Authorization` header, where they are a user's.
    #[must_use]
    pub fn basic(&self) -> Option<String> {
        match self {
            Self::User { name, password } => Some(format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))),
            Self::Identity(_) => None,
        }
    }
}

/// Where credentials are looked for, the first place first.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The text of a configuration, and what it is called.
    pub text: Option<(String, &'static str)>,
    /// Files; those that are not there have none.
    pub files: Vec<PathBuf>,
    /// Whether the first of the files has to be there, since somebody named it.
    pub first_is_named: bool,
    /// What CI gives its jobs for one registry, where nothing else is said of it.
    pub given: Option<(String, Credentials)>,
}

/// `config.json` of docker, `auth.json` of podman.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// What a helper prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

impl Sources {
    /// The credentials for `repository`, if there are any.
    ///
    /// # Errors
    /// When a file is damaged, or a helper fails.
    pub fn find(&self, repository: &RepositoryName) -> Result<Option<Credentials>, RegistryError> {
        if let Some((text, name)) = &self.text {
            let found = parse(text, Path::new(name))?.find(repository, Path::new(name))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        for (number, path) in self.files.iter().enumerate() {
            let error = |problem: String| RegistryError::Settings { path: path.clone(), problem };
            let text = match std::fs::read_to_string(path) {
                Ok(text) => text,
                Err(error) if is_absent(&error) && !(self.first_is_named && number == 0) => continue,
                Err(problem) => return Err(error(format!("can't be read: {problem}"))),
            };
            let found = parse(&text, path)?.find(repository, path)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        let given = self.given.as_ref().filter(|(registry, _)| *registry == repository.registry);
        Ok(given.map(|(_, credentials)| credentials.clone()))
    }
}

/// Whether a file of credentials is simply not this user's. A home that can't be looked into
/// is such, as under `sudo -u`.
fn is_absent(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied)
}

fn parse(text: &str, path: &Path) -> Result<Config, RegistryError> {
    if text.trim().is_empty() {
        return Ok(Config::default());
    }
    serde_json::from_str(text).map_err(|error| RegistryError::Settings {
        path: path.to_owned(),
        problem: format!("is no configuration with credentials: {error}; log in again, or delete it"),
    })
}

impl Config {
    fn find(&self, repository: &RepositoryName, path: &Path) -> Result<Option<Credentials>, RegistryError> {
        let registry = &repository.registry;
        let helper = self.cred_helpers.get(registry);
        let helper = helper
            .or_else(|| self.cred_helpers.iter().find(|(key, _)| is_for(key, registry)).map(|(_, helper)| helper));
        if let Some(helper) = helper.filter(|helper| !helper.is_empty()) {
            return ask(helper, registry);
        }
        let listed = || self.listed(repository, path);
        // Where docker has a store, that counts; but a file that was brought along may name one
        // that is not here.
        match self.creds_store.as_ref().filter(|helper| !helper.is_empty()) {
            None => listed(),
            Some(helper) => match ask(helper, registry) {
                Ok(None) => listed(),
                Err(error) => listed()?.map_or(Err(error), |found| Ok(Some(found))),
                found => found,
            },
        }
    }

    /// The credentials that are in the file itself.
    fn listed(&self, repository: &RepositoryName, path: &Path) -> Result<Option<Credentials>, RegistryError> {
        // auth.json may have an entry for a part of a registry: the longest is meant.
        let whole = repository.to_string();
        let parts = std::iter::successors(Some(whole.as_str()), |name| name.rsplit_once('/').map(|(parent, _)| parent));
        let exact = parts.filter_map(|part| self.auths.get_key_value(part));
        let fitting = self.auths.iter().filter(|(key, _)| is_for(key, &repository.registry));
        // Docker has none for a part, and cuts a path off.
        let is_docker = matches!(path.file_name().and_then(|name| name.to_str()), Some("config.json" | DOCKER_TEXT));
        let cut = self.auths.iter().filter(|(key, _)| {
            is_docker && !key.contains("://") && key.split('/').next() == Some(repository.registry.as_str())
        });
        for (key, entry) in exact.chain(fitting).chain(cut) {
            let found = entry.credentials().map_err(|problem| RegistryError::Settings {
                path: path.to_owned(),
                problem: format!("has for {key} {problem}"),
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// Whether a key of `auths` means that registry: Docker wrote URLs once.
fn is_for(key: &str, registry: &str) -> bool {
    let host = key.trim_start_matches("https://").trim_start_matches("http://");
    let host = if host == key { key } else { host.split('/').next().unwrap_or_default() };
    let host = if matches!(host, "index.docker.io" | "registry-1.docker.io") { DOCKER_HUB } else { host };
    host == registry
}

impl Entry {
    fn credentials(&self) -> Result<Option<Credentials>, String> {
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            return Ok(Some(Credentials::Identity(token.clone())));
        }
        if let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) {
            let auth = auth.trim();
            let bytes = STANDARD.decode(auth).or_else(|_| STANDARD_NO_PAD.decode(auth));
            let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let text = text.ok_or("an `auth` that is no base64; log in again")?;
            // Old versions of docker ended it with a NUL.
            let (name, password) =
                text.trim_end_matches('\0').split_once(':').ok_or("an `auth` without a colon; log in again")?;
            return Ok(Some(Credentials::User { name: name.to_owned(), password: password.to_owned() }));
        }
        match (&self.username, &self.password) {
            (Some(name), Some(password)) => {
                Ok(Some(Credentials::User { name: name.clone(), password: password.clone() }))
            }
            _ => Ok(None),
        }
    }
}

/// Asks `docker-credential-HELPER`.
fn ask(helper: &str, registry: &str) -> Result<Option<Credentials>, RegistryError> {
    let program = format!("docker-credential-{helper}");
    let error = |problem: String| RegistryError::Settings { path: program.clone().into(), problem };
    if helper.contains(['/', '\0']) {
        return Err(error("is no name of a credential helper".to_owned()));
    }
    let key = if registry == DOCKER_HUB { HUB_KEY } else { registry };
    let mut command = Command::new(&program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|problem| error(format!("can't be run: {problem}; install it")))?;
    // One that asks nothing may be gone already.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(key.as_bytes()));
    let output = child.wait_with_output().map_err(|problem| error(format!("can't be run: {problem}")))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = plain(&said);
        // The helpers' library has no other sign for it.
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(error(format!("fails for {registry}: {said}")));
    }
    let Helped { username, secret } =
        serde_json::from_slice(&output.stdout).map_err(|_| error(format!("says no credentials for {registry}")))?;
    Ok(match username.as_str() {
        TOKEN_USER => Some(Credentials::Identity(secret)),
        "" if secret.is_empty() => None,
        _ => Some(Credentials::User { name: username, password: secret }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::name::RegistryImage;

    fn find(config: &str, image: &str) -> Result<Option<Credentials>, RegistryError> {
        let image = RegistryImage::parse(image).expect("a name");
        parse(config, Path::new("config.json"))?.find(&image.at, Path::new("config.json"))
    }

    fn user(config: &str, image: &str) -> Option<String> {
        find(config, image).expect("readable").map(|found| match found {
            Credentials::User { name, password } => format!("{name} {password}"),
            Credentials::Identity(token) => token,
        })
    }

    #[test]
    fn credentials_are_found_as_docker_writes_them() {
        // echo -n 'ann:se:cret' | base64
        let config = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "YW5uOnNlOmNyZXQ="},
            "r.example:5000": {"auth": "YW5uOnNlOmNyZXQ"},
            "https://old.example/v2/": {"username": "bob", "password": "x"},
            "id.example": {"auth": "", "identitytoken": "token"},
            "none.example": {}
        }}"#;
        assert_eq!(user(config, "debian").as_deref(), Some("ann se:cret"));
        assert_eq!(user(config, "r.example:5000/a").as_deref(), Some("ann se:cret"));
        assert_eq!(user(config, "old.example/a").as_deref(), Some("bob x"));
        assert_eq!(user(config, "id.example/a").as_deref(), Some("token"));
        for none in ["none.example/a", "r.example/a", "other.example/a"] {
            assert_eq!(user(config, none), None, "{none}");
        }
    }

    #[test]
    fn the_longest_part_of_a_name_is_meant_as_podman_has_it() {
        // Of `a:a`, `b:b`, `c:c`.
        let config = r#"{"auths": {"r.example": {"auth": "YTph"}, "r.example/team": {"auth": "Yjpi"},
            "r.example/team/app": {"auth": "Yzpj"}}}"#;
        for (image, expected) in [
            ("r.example/x", "a a"),
            ("r.example/team/x", "b b"),
            ("r.example/team/app", "c c"),
            ("r.example/teams/x", "a a"),
        ] {
            assert_eq!(user(config, image).as_deref(), Some(expected), "{image}");
        }
    }

    #[test]
    fn the_entry_of_that_name_comes_before_one_that_fits() {
        let config = r#"{"auths": {"http://r.example/v1": {"auth": "YTph"}, "r.example": {"auth": "Yjpi"}},
            "credHelpers": {"https://s.example": "there-is-one", "s.example": ""}}"#;
        assert_eq!(user(config, "r.example/x").as_deref(), Some("b b"));
        // No helper on purpose.
        assert_eq!(user(config, "s.example/x"), None);
    }

    #[test]
    fn docker_cuts_paths_off_and_podman_does_not() {
        let config = r#"{"auths": {"r.example/v1/": {"auth": "YTph"}}}"#;
        assert_eq!(user(config, "r.example/x").as_deref(), Some("a a"));
        let image = RegistryImage::parse("r.example/x").expect("a name");
        let path = Path::new("auth.json");
        assert!(parse(config, path).expect("JSON").find(&image.at, path).expect("readable").is_none());
    }

    #[test]
    fn a_store_that_is_not_here_is_worth_what_is_listed() {
        let config = r#"{"auths": {"r.example": {"auth": "YTph"}}, "credsStore": "there-is-none"}"#;
        assert_eq!(user(config, "r.example/x").as_deref(), Some("a a"));
        find(config, "s.example/x").expect_err("no helper");
    }

    #[test]
    fn what_is_damaged_is_named() {
        for (config, part) in [
            ("{", "config.json: is no configuration"),
            (r#"{"auths": {"r.example": {"auth": "%"}}}"#, "for r.example an `auth` that is no base64"),
            (r#"{"auths": {"r.example": {"auth": "YQ=="}}}"#, "without a colon"),
            (r#"{"credHelpers": {"r.example": "../x"}}"#, "is no name of a credential helper"),
            (r#"{"credHelpers": {"r.example": "there-is-none"}}"#, "docker-credential-there-is-none: can't be run"),
        ] {
            let error = find(config, "r.example/a").expect_err(config).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn files_that_are_not_there_have_no_credentials_unless_somebody_names_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let image = RegistryImage::parse("r.example/a").expect("a name");
        let second = folder.path().join("config.json");
        std::fs::write(&second, r#"{"auths": {"r.example": {"auth": "YTph"}}}"#).expect("writable");
        let mut sources = Sources { files: vec![folder.path().join("none"), second], ..Sources::default() };
        assert!(sources.find(&image.at).expect("readable").is_some());
        sources.first_is_named = true;
        sources.find(&image.at).expect_err("named, and not there");
        sources.text = Some((r#"{"auths": {"r.example": {"auth": "Yjpi"}}}"#.to_owned(), "DOCKER_AUTH_CONFIG"));
        let found = sources.find(&image.at).expect("readable").expect("credentials");
        assert_eq!(found.basic().as_deref(), Some("Basic Yjpi"));
        assert_eq!(format!("{found:?}"), "Credentials");
    }
}
