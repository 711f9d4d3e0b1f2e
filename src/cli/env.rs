//! `stowage env`: what a job sets to use a cache.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{Access, access};

use super::args::EnvArguments;
use super::settings::{self, Settings};
use super::{cache_store, output};
use crate::cache::Place;
use crate::cache::setup::{PublicKey, Setup};
use crate::cache::trust::{DaemonConfig, User};

/// How Nix reaches the store.
#[derive(Clone, Debug)]
pub struct NixClient {
    /// `NIX_REMOTE`.
    pub remote: String,
    /// Nix's state.
    pub state: PathBuf,
    /// The daemon's socket.
    pub socket: PathBuf,
    /// The folder of nix.conf.
    pub configuration: PathBuf,
}

impl NixClient {
    /// Whether that is by way of a daemon, as Nix decides it (`openUncachedStore` in
    /// `store-api.cc`).
    #[must_use]
    pub fn uses_daemon(&self) -> bool {
        match &self.remote[..] {
            "" | "auto" => access(&self.state, Access::READ_OK | Access::WRITE_OK).is_err() && self.socket.exists(),
            remote => remote == "daemon" || remote.starts_with("unix://"),
        }
    }
}

/// Prints it, and notices where a daemon would not do it.
///
/// # Errors
/// When the form can't hold it, a key is none, or the current folder is gone.
pub fn run(settings: &Settings, arguments: &EnvArguments) -> anyhow::Result<()> {
    let keys = keys(settings, arguments)?;
    if let Some(store) = cache_store::at(settings, &arguments.dir)? {
        let setup = |dir: &Path| Ok(Setup::of_store(dir, keys, arguments.priority)?);
        return cache_store::print_env(&store, setup, arguments);
    }
    let setup = match settings.place(&arguments.dir)? {
        Place::Bucket(client) => Setup::of_bucket(client.address(), client.region(), keys, arguments.priority),
        Place::Folder(dir) => {
            let dir = std::path::absolute(&dir).with_context(|| format!("finding {}", dir.display()))?;
            let setup = Setup::new(&dir, keys, arguments.priority)?;
            if !setup.url().is_portable() {
                tracing::warn!(
                    "not every version of Nix finds {}; only letters, digits and /.-_~ are safe in a cache's path",
                    dir.display()
                );
            }
            setup
        }
    };
    let text = setup.render(arguments.format, &settings::nix_config()?)?;
    if let Some(notice) = notice(&settings.nix_client(), &setup) {
        tracing::warn!("{notice}");
    }
    Ok(output::print(&text)?)
}

/// Whose signatures are to be believed.
fn keys(settings: &Settings, arguments: &EnvArguments) -> anyhow::Result<Vec<PublicKey>> {
    if arguments.public_key.is_empty() {
        let keys = settings.public_keys.as_deref().unwrap_or_default().split_whitespace();
        return keys.map(|text| text.parse().context("STOWAGE_PUBLIC_KEY")).collect();
    }
    arguments.public_key.iter().map(|text| key(text)).collect()
}

/// A key, or what is in the file of that name.
fn key(text: &str) -> anyhow::Result<PublicKey> {
    let file = Path::new(text);
    if text.contains('/') || file.exists() {
        let contents = std::fs::read_to_string(file).with_context(|| format!("reading the public key {text}"))?;
        return contents.parse().with_context(|| text.to_owned());
    }
    Ok(text.parse()?)
}

/// What root must do first, where Nix here goes through a daemon that would take no notice.
fn notice(client: &NixClient, setup: &Setup) -> Option<String> {
    if !client.uses_daemon() {
        return None;
    }
    let file = client.configuration.join("nix.conf");
    let read = |name: &Path| std::fs::read_to_string(client.configuration.join(name)).ok();
    let config = DaemonConfig::parse(&read(&file)?, &mut |name| read(Path::new(name)));
    let user = user();
    if config.trusts(&user) || config.allows(&setup.url().to_string(), setup.keys().iter().map(PublicKey::as_str)) {
        return None;
    }
    let mut text = format!(
        "the Nix daemon does not trust {}, and takes no notice of this; as root, add to {}, and restart the daemon:\n\n",
        user.name,
        file.display()
    );
    for line in setup.lines_of_daemon() {
        text += &format!("    {line}\n");
    }
    if setup.keys().is_empty() {
        text += "\nThen whoever can write to that folder decides what all users get of it; sign it and name --public-key to prevent that.\n";
    }
    Some(text + "A post-build-hook, too, must be in that file.")
}

/// Who runs this, as a daemon sees it.
fn user() -> User {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let lines = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let has_id = |fields: &[String], id: u32| fields.get(2).is_some_and(|field| *field == id.to_string());
    let name = lines("/etc/passwd").lines().map(fields).find(|fields| has_id(fields, uid));
    let name = name.map_or_else(|| uid.to_string(), |fields| fields[0].clone());
    let is_member = |fields: &Vec<String>| {
        has_id(fields, gid) || fields.get(3).is_some_and(|members| members.split(',').any(|member| member == name))
    };
    let groups = lines("/etc/group").lines().map(fields).filter(is_member).map(|fields| fields[0].clone()).collect();
    User { name, groups }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(folder: &Path, remote: &str) -> NixClient {
        NixClient {
            remote: remote.to_owned(),
            state: folder.to_owned(),
            socket: folder.join("socket"),
            configuration: folder.to_owned(),
        }
    }

    #[test]
    fn a_daemon_that_would_not_listen_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let conf = folder.path().join("nix.conf");
        let setup = Setup::new(Path::new("/c"), Vec::new(), None).expect("absolute");
        let of = |remote: &str, text: &str| {
            std::fs::write(&conf, text).expect("written");
            notice(&client(folder.path(), remote), &setup)
        };
        // Whoever may write the state needs no daemon.
        assert_eq!(of("", "trusted-users = nobody-here"), None);
        let said = of("daemon", "trusted-users = nobody-here").expect("noticed");
        assert!(said.contains("    extra-trusted-substituters = file:///c?trusted=1\n"), "{said}");
        assert_eq!(of("daemon", "trusted-users = *"), None);
        assert_eq!(of("daemon", "trusted-users =\ntrusted-substituters = file:///c?trusted=1"), None);
        std::fs::write(folder.path().join("more.conf"), "trusted-users = *").expect("written");
        assert_eq!(of("daemon", "!include more.conf"), None);
    }

    #[test]
    fn keys_are_given_or_in_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("key.pub");
        let text = "ci-1:Ybsq/gjGuRSUFI5fHm3mdCdpwDnOl5L4pn61mbGXEJQ=";
        std::fs::write(&file, text).expect("written");
        let file = file.to_str().expect("ASCII");
        assert_eq!(key(file).expect("a key"), text.parse::<PublicKey>().expect("a key"));
        assert!(key("nothing").is_err() && key("/none/key.pub").is_err());
    }
}
