//! What a job sets so that Nix takes what it can from a cache.
//!
//! `NIX_CONFIG` is read by every Nix since 2.4, line by line after the
//! configuration files; `extra-substituters` adds to the others, each time it
//! is there. `?trusted=1` has Nix take paths without signatures from this one
//! store only. A daemon asks for more: see [`trust`](super::trust).

use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::s3::Address;
use crate::url;

/// How the setting is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `export NIX_CONFIG='…'`, for `eval "$(…)"` in any POSIX shell.
    Shell,
    /// `NIX_CONFIG=…` on one line, for GitLab's dotenv reports and
    /// `docker run --env-file`.
    Dotenv,
    /// A line of nix.conf.
    NixConf,
}

/// Why a cache can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A relative path would mean another folder in the next job.
    #[error("the path of the cache is relative: {0}")]
    Relative(PathBuf),
    /// A dotenv file has one line for each variable, and no way around that.
    #[error(
        "NIX_CONFIG would have more than one line, which a dotenv file can't hold; write the form nix.conf to a file, and set NIX_USER_CONF_FILES to its path, or use the form for shells"
    )]
    Multiline,
    /// E.g. a file's name.
    #[error("{0:?} is no public key NAME:BASE64, as `nix-store --generate-binary-cache-key` writes them")]
    Key(String),
    /// Another word than those known.
    #[error("{0:?} is not one of shell, dotenv, nix.conf")]
    UnknownFormat(String),
}

/// The store URL of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUrl {
    text: String,
    portable: bool,
}

impl StoreUrl {
    /// The URL of the cache in the folder `path`, which is `trusted` without signatures.
    ///
    /// # Errors
    /// When the path is relative.
    pub fn of_folder(path: &Path, trusted: bool, priority: Option<u32>) -> Result<Self, SetupError> {
        if !path.is_absolute() {
            return Err(SetupError::Relative(path.to_owned()));
        }
        let mut parameters = parameters(trusted, priority);
        for (number, parameter) in parameters.iter_mut().enumerate() {
            parameter.insert(0, if number == 0 { '?' } else { '&' });
        }
        let is_portable = |byte: &u8| byte.is_ascii_alphanumeric() || b"/.-_~".contains(byte);
        Ok(Self {
            text: format!("file://{}{}", url::encode(path), parameters.concat()),
            portable: path.as_os_str().as_bytes().iter().all(is_portable),
        })
    }

    /// The URL of the cache in the bucket at `address`, which is asked in `region`, and `trusted`
    /// without signatures.
    #[must_use]
    pub fn of_bucket(address: &Address, region: &str, trusted: bool, priority: Option<u32>) -> Self {
        Self { text: address.to_nix(region, &parameters(trusted, priority)), portable: true }
    }

    /// Whether every version of Nix takes it for the same folder. Only letters,
    /// digits and `/.-_~` are safe: Nix 2.8 does not decode `%20`, and some
    /// versions before 2.34 looked for `a+b` in the folder `a%2Bb`.
    #[must_use]
    pub fn is_portable(&self) -> bool {
        self.portable
    }
}

/// What `NIX_REMOTE` is where `/nix` leads into the folder `dir`. Nix from 2.20 on refuses links on
/// the way to a derivation ("path '//nix' is a symlink", tried with 2.26 and 2.34), so it is told
/// where the files really are. It would have a sandbox for such a store, and does without where
/// it may make no namespaces; builders find their store in `/nix` then, by the link.
#[must_use]
pub fn of_linked(dir: &Path) -> String {
    let dir = url::encode(dir);
    format!("local?real={dir}/nix/store&state={dir}/nix/var/nix")
}

fn parameters(trusted: bool, priority: Option<u32>) -> Vec<String> {
    let trust = trusted.then(|| "trusted=1".to_owned());
    trust.into_iter().chain(priority.map(|number| format!("priority={number}"))).collect()
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl FromStr for Format {
    type Err = SetupError;

    fn from_str(text: &str) -> Result<Self, SetupError> {
        match text {
            "shell" => Ok(Self::Shell),
            "dotenv" => Ok(Self::Dotenv),
            "nix.conf" => Ok(Self::NixConf),
            _ => Err(SetupError::UnknownFormat(text.to_owned())),
        }
    }
}

/// What makes Nix use a cache: the lines of nix.conf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    url: StoreUrl,
    /// Whose signatures to believe. Where nobody is named, the cache itself is believed.
    keys: Vec<PublicKey>,
}

impl Setup {
    /// The cache in the folder `path`, whose contents `keys` have signed, or which is trusted
    /// where there are none. Lower priorities are asked first; without one, the cache says.
    ///
    /// # Errors
    /// When the path is relative.
    pub fn new(path: &Path, keys: Vec<PublicKey>, priority: Option<u32>) -> Result<Self, SetupError> {
        Ok(Self { url: StoreUrl::of_folder(path, keys.is_empty(), priority)?, keys })
    }

    /// The store in the folder `path`, as [`Self::new`] has it for a cache.
    ///
    /// # Errors
    /// When the path is relative.
    pub fn of_store(path: &Path, keys: Vec<PublicKey>, priority: Option<u32>) -> Result<Self, SetupError> {
        let mut url = StoreUrl::of_folder(path, keys.is_empty(), priority)?;
        url.text = url.text.trim_start_matches("file://").to_owned();
        Ok(Self { url, keys })
    }

    /// What to write, in `format`, for Nix to build in the store in the folder `path`.
    ///
    /// # Errors
    /// When the form can't hold that.
    pub fn remote(path: &Path, format: Format) -> Result<String, SetupError> {
        let text = path.display().to_string();
        match format {
            Format::Shell => Ok(format!("export NIX_REMOTE={}\n", quote(&text))),
            Format::Dotenv => Ok(format!("NIX_REMOTE={text}\n")),
            Format::NixConf => Ok(format!("store = {text}\n")),
        }
    }

    /// The cache in the bucket at `address`, as [`Self::new`] has it for a folder.
    #[must_use]
    pub fn of_bucket(address: &Address, region: &str, keys: Vec<PublicKey>, priority: Option<u32>) -> Self {
        Self { url: StoreUrl::of_bucket(address, region, keys.is_empty(), priority), keys }
    }

    /// The cache's URL.
    #[must_use]
    pub fn url(&self) -> &StoreUrl {
        &self.url
    }

    /// The settings, as a client has them.
    fn lines(&self) -> Vec<String> {
        self.lines_for("extra-substituters")
    }

    /// What root adds to a daemon's nix.conf, so that its users may use the cache.
    #[must_use]
    pub fn lines_of_daemon(&self) -> Vec<String> {
        self.lines_for("extra-trusted-substituters")
    }

    /// Whose signatures are to be believed.
    #[must_use]
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    fn lines_for(&self, setting: &str) -> Vec<String> {
        let mut lines = vec![format!("{setting} = {}", self.url)];
        if !self.keys.is_empty() {
            let keys: Vec<&str> = self.keys.iter().map(|key| &key.0[..]).collect();
            lines.push(format!("extra-trusted-public-keys = {}", keys.join(" ")));
        }
        lines
    }

    /// What to write, in `format`, for a job to use the cache. `existing` is what `NIX_CONFIG`
    /// holds by now, empty where it is not set; it is kept.
    ///
    /// # Errors
    /// When the form can't hold what has to be in it.
    pub fn render(&self, format: Format, existing: &str) -> Result<String, SetupError> {
        let lines = self.lines();
        let config = lines.iter().fold(existing.to_owned(), |config, line| merge(&config, line));
        match format {
            Format::NixConf => Ok(lines.join("\n") + "\n"),
            Format::Shell => Ok(format!("export NIX_CONFIG={}\n", quote(&config))),
            Format::Dotenv if config.contains('\n') => Err(SetupError::Multiline),
            Format::Dotenv => Ok(format!("NIX_CONFIG={config}\n")),
        }
    }
}

/// A key that signatures are checked with: `NAME:BASE64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(String);

/// How long an ed25519 public key is, in bytes.
const KEY_LENGTH: usize = 32;

impl PublicKey {
    /// As nix.conf has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PublicKey {
    type Err = SetupError;

    fn from_str(text: &str) -> Result<Self, SetupError> {
        use base64::Engine as _;
        let text = text.trim();
        let is_key = text.split_once(':').is_some_and(|(name, key)| {
            let bytes = base64::engine::general_purpose::STANDARD.decode(key);
            !name.is_empty() && !text.contains(char::is_whitespace) && bytes.is_ok_and(|key| key.len() == KEY_LENGTH)
        });
        if is_key { Ok(Self(text.to_owned())) } else { Err(SetupError::Key(text.to_owned())) }
    }
}

/// `existing` with the line `setting`, once.
fn merge(existing: &str, setting: &str) -> String {
    let existing = existing.trim_end();
    if existing.is_empty() {
        return setting.to_owned();
    }
    if existing.lines().any(|line| line.trim() == setting) {
        return existing.to_owned();
    }
    format!("{existing}\n{setting}")
}

/// `text` as one word of a POSIX shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ci-1:Ybsq/gjGuRSUFI5fHm3mdCdpwDnOl5L4pn61mbGXEJQ=";

    fn setup(path: &str) -> Setup {
        Setup::new(Path::new(path), Vec::new(), None).expect("absolute")
    }

    #[test]
    fn urls_encode_what_would_end_or_split_them() {
        let url = |path: &str| setup(path).url;
        assert_eq!(url("/builds/g/p/cache").to_string(), "file:///builds/g/p/cache?trusted=1");
        assert_eq!(url("/a b/c#d?e%f/ü").to_string(), "file:///a%20b/c%23d%3Fe%25f/%C3%BC?trusted=1");
        assert_eq!(url("/a+b/c=d").to_string(), "file:///a+b/c=d?trusted=1");
        assert!(url("/a-b/c_d.e~/F9").is_portable());
        for path in ["/a b", "/a+b", "/ü"] {
            assert!(!url(path).is_portable(), "{path}");
        }
        assert!(Setup::new(Path::new("cache"), Vec::new(), None).is_err());
    }

    #[test]
    fn each_form_says_the_same() {
        let line = "extra-substituters = file:///c?trusted=1";
        let render = |format| setup("/c").render(format, "").expect("renders");
        assert_eq!(render(Format::NixConf), format!("{line}\n"));
        assert_eq!(render(Format::Dotenv), format!("NIX_CONFIG={line}\n"));
        assert_eq!(render(Format::Shell), format!("export NIX_CONFIG='{line}'\n"));
    }

    #[test]
    fn what_nix_config_held_is_kept() {
        let line = "extra-substituters = file:///c?trusted=1";
        let setup = setup("/c");
        let shell = |existing: &str| setup.render(Format::Shell, existing).expect("renders");
        assert_eq!(shell("cores = 2\n"), format!("export NIX_CONFIG='cores = 2\n{line}'\n"));
        assert_eq!(shell("x = it's"), format!("export NIX_CONFIG='x = it'\\''s\n{line}'\n"));
        assert_eq!(shell(line), format!("export NIX_CONFIG='{line}'\n"));
        assert!(matches!(setup.render(Format::Dotenv, "cores = 2"), Err(SetupError::Multiline)));
        assert!(setup.render(Format::Dotenv, line).is_ok());
    }

    #[test]
    fn keys_stand_in_for_trust() {
        let key = || KEY.parse::<PublicKey>().expect("a key");
        let setup = |keys, priority| Setup::new(Path::new("/c"), keys, priority).expect("absolute");
        let text = format!("extra-substituters = file:///c\nextra-trusted-public-keys = {KEY}\n");
        assert_eq!(setup(vec![key()], None).render(Format::NixConf, "").expect("renders"), text);
        assert_eq!(setup(vec![key()], Some(30)).url.to_string(), "file:///c?priority=30");
        assert_eq!(setup(Vec::new(), Some(30)).url.to_string(), "file:///c?trusted=1&priority=30");
        let address: Address = "s3://cache?endpoint=h:1&scheme=http".parse().expect("an address");
        let bucket = |keys| Setup::of_bucket(&address, "r", keys, Some(30)).url.to_string();
        assert_eq!(bucket(Vec::new()), "s3://cache?endpoint=h:1&region=r&scheme=http&trusted=1&priority=30");
        assert_eq!(bucket(vec![key()]), "s3://cache?endpoint=h:1&region=r&scheme=http&priority=30");
        let of_daemon = setup(vec![key()], None).lines_of_daemon();
        assert_eq!(of_daemon[0], "extra-trusted-substituters = file:///c");
        for bad in ["", "ci-1", "ci-1:", ":Ybsq", "ci-1:Ybsq", "/etc/key.pub", &format!("{KEY} {KEY}")] {
            assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
        }
    }
}
