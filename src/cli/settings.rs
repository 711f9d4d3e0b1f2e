//! What the command line and the environment mean: the only reader of the
//! environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::args::{JobsArguments, SourceArguments};
use super::env::NixClient;
use super::exit::UsageError;
use crate::cache::Place;
use crate::cache::sign::Keys;
use crate::daemon::DaemonAddress;
use crate::layer::index::LayerIndex;
use crate::registry::Registries;
use crate::registry::connection::Access;
use crate::registry::credentials::{Credentials, DOCKER_TEXT, Sources};
use crate::registry::proxy::Proxies;
use crate::registry::trust::Trust;
use crate::s3::credentials::Sources as BucketSources;
use crate::s3::{self, S3Error, address};
use crate::store::source::RegistrationSource;
use crate::store::{StoreDir, StoreLocation};

/// What the environment says.
pub struct Settings {
    /// Whether to say nothing but errors and results.
    pub quiet: bool,
    store_dir: StoreDir,
    state_dir: PathBuf,
    log_dir: PathBuf,
    /// What is known of layers made before, on this machine.
    pub index: LayerIndex,
    /// How to reach registries.
    pub registries: Registries,
    /// How to reach buckets, and as whom.
    buckets: s3::Access,
    /// Who else knows layers, unless the command line says so: `$STOWAGE_LAYER_INDEX`.
    pub layer_index: Option<String>,
    /// The user's own state folder: `$XDG_STATE_HOME`, else `~/.local/state`.
    pub state_home: Option<PathBuf>,
    /// The image spec whose `precompute` the hook obeys: `$STOWAGE_SPEC`.
    pub hook_spec: Option<PathBuf>,
    /// Keys to sign what goes into caches with: `$STOWAGE_SECRET_KEY`.
    secret_keys: Option<String>,
    /// Keys whose signatures are believed, unless the command line says so: `$STOWAGE_PUBLIC_KEY`.
    pub public_keys: Option<String>,
    /// Whether this is a Nix build, whose output Nix holds, and which may not
    /// write Nix's state.
    pub in_nix_build: bool,
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    /// When `NIX_STORE_DIR` is no absolute path.
    pub fn read(quiet: bool, plain_http: Vec<String>) -> Result<Self, UsageError> {
        let store_dir = std::env::var("NIX_STORE_DIR").unwrap_or_else(|_| "/nix/store".to_owned());
        let store_dir = StoreDir::new(store_dir).map_err(|error| UsageError(format!("NIX_STORE_DIR: {error}")))?;
        Ok(Self {
            quiet,
            store_dir,
            state_dir: folder_variable("NIX_STATE_DIR").unwrap_or_else(|| "/nix/var/nix".into()),
            log_dir: folder_variable("NIX_LOG_DIR").unwrap_or_else(|| "/nix/var/log/nix".into()),
            index: LayerIndex::new(&cache_folder().join("layers")),
            registries: Registries::new(
                credentials(),
                Access { trust: trust(), plain_http, proxies: proxies() },
                daemon(),
            ),
            buckets: s3::Access {
                trust: trust(),
                proxies: proxies(),
                sources: BucketSources::from_variables(&variables()),
            },
            layer_index: text_variable("STOWAGE_LAYER_INDEX")?,
            state_home: folder_variable("XDG_STATE_HOME")
                .or_else(|| folder_variable("HOME").map(|home| home.join(".local/state"))),
            hook_spec: text_variable("STOWAGE_SPEC")?.map(PathBuf::from),
            secret_keys: text_variable("STOWAGE_SECRET_KEY")?,
            public_keys: text_variable("STOWAGE_PUBLIC_KEY")?,
            in_nix_build: in_nix_build(),
        })
    }

    /// The hook's configuration: `$STOWAGE_CONFIG`, else the first that is there of the
    /// user's own and the system's.
    #[must_use]
    pub fn hook_configuration(&self) -> Option<PathBuf> {
        let named = std::env::var_os("STOWAGE_CONFIG").map(PathBuf::from).filter(|path| !path.as_os_str().is_empty());
        named.or_else(|| {
            let home = || folder_variable("HOME").map(|home| home.join(".config"));
            let own = folder_variable("XDG_CONFIG_HOME").or_else(home);
            let folders = own.into_iter().chain([PathBuf::from("/etc")]);
            folders.map(|folder| folder.join("stowage/config.toml")).find(|path| path.exists())
        })
    }

    /// The cache that is called `name`: a folder, or a bucket by its address.
    ///
    /// # Errors
    /// When the address is none.
    pub fn place(&self, name: &Path) -> Result<Place, S3Error> {
        match name.to_str().filter(|text| address::is_address(text)) {
            Some(text) => Ok(Place::Bucket(s3::Client::new(&text.parse()?, &self.buckets)?)),
            None => Ok(Place::from(name)),
        }
    }

    /// The keys in `$STOWAGE_SECRET_KEY`.
    ///
    /// # Errors
    /// When one of them is none.
    pub fn keys(&self) -> Result<Keys, UsageError> {
        Keys::parse_all(self.secret_keys.as_deref().unwrap_or_default())
            .map_err(|(place, error)| UsageError(format!("key {place} in STOWAGE_SECRET_KEY: {error}")))
    }

    /// The store below `root`, or this system's.
    #[must_use]
    pub fn location(&self, root: Option<&Path>) -> StoreLocation {
        StoreLocation::new(root, self.store_dir.clone(), &self.state_dir)
    }

    /// How Nix reaches the store here.
    #[must_use]
    pub fn nix_client(&self) -> NixClient {
        let socket = folder_variable("NIX_DAEMON_SOCKET_PATH");
        NixClient {
            remote: std::env::var("NIX_REMOTE").unwrap_or_default(),
            state: self.state_dir.clone(),
            socket: socket.unwrap_or_else(|| self.state_dir.join("daemon-socket/socket")),
            configuration: folder_variable("NIX_CONF_DIR").unwrap_or_else(|| "/etc/nix".into()),
        }
    }

    /// Where Nix keeps the logs of builds in the store below `root`, or in this system's.
    #[must_use]
    pub fn log_dir(&self, root: Option<&Path>) -> PathBuf {
        root.map_or_else(|| self.log_dir.clone(), |root| root.join("nix/var/log/nix"))
    }
}

impl SourceArguments {
    /// Where registrations come from.
    #[must_use]
    pub fn registrations(&self) -> RegistrationSource {
        match (&self.registration, &self.closure) {
            (Some(file), _) => RegistrationSource::Dump(file.clone()),
            (None, Some(file)) => RegistrationSource::Json(file.clone()),
            (None, None) => RegistrationSource::Database,
        }
    }
}

impl JobsArguments {
    /// How many threads to use: as many as were asked for, or as there are processors.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.jobs.map_or_else(processors, usize::from)
    }
}

/// Whether the program was started under its hook's name, as from nix.conf.
#[must_use]
pub fn is_called_as_hook() -> bool {
    let name = std::env::args_os().next().map(PathBuf::from);
    name.as_deref().and_then(Path::file_name).is_some_and(|name| name == "stowage-hook")
}

/// Whether this is a job of GitLab's; its runner says so to all of them.
#[must_use]
pub fn is_in_gitlab() -> bool {
    std::env::var_os("GITLAB_CI").is_some()
}

/// Whether a hook that fails is to stop Nix: `$STOWAGE_STRICT` is 1.
#[must_use]
pub fn is_strict() -> bool {
    std::env::var_os("STOWAGE_STRICT").is_some_and(|value| value == "1")
}

/// Where the hook's script is put, unless somebody says so: beside the system's
/// configuration, or the user's programs.
#[must_use]
pub fn script_folder() -> PathBuf {
    let home = folder_variable("HOME").filter(|_| !rustix::process::geteuid().is_root());
    home.map_or_else(|| "/etc/stowage".into(), |home| home.join(".local/bin"))
}

/// All variables, for the hook, which is told everything by them.
#[must_use]
pub fn variables() -> BTreeMap<OsString, OsString> {
    std::env::vars_os().collect()
}

/// What `NIX_CONFIG` holds.
///
/// # Errors
/// When it is no UTF-8, so that nothing can be added to it.
pub fn nix_config() -> Result<String, UsageError> {
    match std::env::var("NIX_CONFIG") {
        Err(std::env::VarError::NotUnicode(_)) => Err(UsageError("NIX_CONFIG is no UTF-8; set it anew".to_owned())),
        value => Ok(value.unwrap_or_default()),
    }
}

/// The current folder.
///
/// # Errors
/// When it is gone.
pub fn current_folder() -> std::io::Result<PathBuf> {
    std::env::current_dir()
}

fn in_nix_build() -> bool {
    std::env::var_os("NIX_BUILD_TOP").is_some() && std::env::var_os("IN_NIX_SHELL").is_none()
}

/// `$XDG_CACHE_HOME/stowage`; without it, root's is in `/var/cache`, and a user's
/// in `~/.cache`. A Nix build remembers nothing: where it has no sandbox, it would share that with
/// others, and Nix refuses to build once its HOME is there.
fn cache_folder() -> PathBuf {
    if in_nix_build() {
        return std::env::temp_dir().join("stowage");
    }
    let base = folder_variable("XDG_CACHE_HOME").or_else(|| {
        if rustix::process::geteuid().is_root() {
            return Some("/var/cache".into());
        }
        folder_variable("HOME").map(|home| home.join(".cache"))
    });
    base.unwrap_or_else(|| "/var/cache".into()).join("stowage")
}

/// Where docker and podman keep credentials, and what CI gives; `containers-auth.json(5)` has
/// the order.
fn credentials() -> Sources {
    let named = std::env::var_os("REGISTRY_AUTH_FILE").map(PathBuf::from).filter(|path| !path.as_os_str().is_empty());
    let first_is_named = named.is_some();
    let home = folder_variable("HOME");
    let podman = |folder: PathBuf| folder.join("containers/auth.json");
    let runtime = folder_variable("XDG_RUNTIME_DIR")
        .unwrap_or_else(|| format!("/run/containers/{}", rustix::process::getuid().as_raw()).into());
    let config = folder_variable("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    let docker = folder_variable("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
    let docker = docker.map(|folder| folder.join("config.json"));
    let usual = [Some(podman(runtime)), config.map(podman), docker].into_iter().flatten();
    let files = if let Some(named) = named { vec![named] } else { usual.collect() };
    let text = |name: &'static str| Some((std::env::var(name).ok().filter(|text| !text.is_empty())?, name));
    let ci = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let given = ci("CI_REGISTRY").and_then(|registry| {
        let (name, password) = (ci("CI_REGISTRY_USER")?, ci("CI_REGISTRY_PASSWORD")?);
        Some((registry, Credentials::User { name, password }))
    });
    Sources { text: text(DOCKER_TEXT), files, first_is_named, given }
}

/// Where the Docker daemon listens, as the `docker` command finds it.
fn daemon() -> DaemonAddress {
    let text = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let usual = || folder_variable("HOME").map(|home| home.join(".docker"));
    let certificates = text("DOCKER_TLS_VERIFY").and_then(|_| folder_variable("DOCKER_CERT_PATH").or_else(usual));
    text("DOCKER_HOST").map_or_else(DaemonAddress::default, |host| DaemonAddress::parse(&host, certificates))
}

/// Where docker and podman have certificates of registries.
fn trust() -> Trust {
    let mut folders: Vec<PathBuf> = vec!["/etc/docker/certs.d".into(), "/etc/containers/certs.d".into()];
    // Docker's own, when it runs without root, and podman's.
    let of_home = [".config/docker/certs.d", ".config/containers/certs.d"];
    folders.extend(folder_variable("HOME").iter().flat_map(|home| of_home.map(|folder| home.join(folder))));
    // SSL_CERT_FILE is understood anyway.
    let is_usual = std::env::var_os("SSL_CERT_FILE").is_some_and(|file| !file.is_empty());
    Trust { folders, authorities: folder_variable("NIX_SSL_CERT_FILE").filter(|_| !is_usual) }
}

/// The proxies that others use, too. As in Go, the name in capitals comes first.
fn proxies() -> Proxies {
    let named = |name: &str| {
        let value = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        value(&name.to_ascii_uppercase()).or_else(|| value(name))
    };
    Proxies {
        http: named("http_proxy"),
        https: named("https_proxy"),
        all: named("all_proxy"),
        none_for: named("no_proxy"),
    }
}

/// A variable with a text, unless it is empty.
fn text_variable(name: &str) -> Result<Option<String>, UsageError> {
    match std::env::var(name) {
        Err(std::env::VarError::NotUnicode(_)) => Err(UsageError(format!("{name} is no UTF-8"))),
        value => Ok(value.ok().filter(|text| !text.is_empty())),
    }
}

/// A variable with an absolute path.
fn folder_variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// How many processors there are.
#[must_use]
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
