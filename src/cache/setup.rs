//! What a job sets so that Nix takes what it can from a cache's folder.
//!
//! `NIX_CONFIG` is read by every Nix since 2.4, line by line after the
//! configuration files; `extra-substituters` adds to the others, each time it
//! is there. `?trusted=1` has Nix take paths without signatures from this one
//! store only. A daemon asks for more: only for a user that it trusts does it
//! take a substituter from the client, so there the line belongs in its own
//! nix.conf.

use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

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
        "NIX_CONFIG is set already, and a dotenv file can't hold two lines of it; put the other settings in nix.conf, or use the form for shells"
    )]
    Multiline,
    /// Another word than those known.
    #[error("{0:?} is not one of shell, dotenv, nix.conf")]
    UnknownFormat(String),
}

/// The store URL of a cache's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUrl {
    text: String,
    portable: bool,
}

impl StoreUrl {
    /// The URL of the cache in the folder `path`.
    ///
    /// # Errors
    /// When the path is relative.
    pub fn of_folder(path: &Path) -> Result<Self, SetupError> {
        if !path.is_absolute() {
            return Err(SetupError::Relative(path.to_owned()));
        }
        let is_portable = |byte: &u8| byte.is_ascii_alphanumeric() || b"/.-_~".contains(byte);
        Ok(Self {
            text: format!("file://{}?trusted=1", url::encode(path)),
            portable: path.as_os_str().as_bytes().iter().all(is_portable),
        })
    }

    /// Whether every version of Nix takes it for the same folder. Only letters,
    /// digits and `/.-_~` are safe: Nix 2.8 does not decode `%20`, and some
    /// versions before 2.34 looked for `a+b` in the folder `a%2Bb`.
    #[must_use]
    pub fn is_portable(&self) -> bool {
        self.portable
    }
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

/// What to write, in `format`, for a job to use the cache at `url`. `existing`
/// is what `NIX_CONFIG` holds by now, empty where it is not set; it is kept.
///
/// # Errors
/// When the form can't hold what has to be in it.
pub fn render(url: &StoreUrl, format: Format, existing: &str) -> Result<String, SetupError> {
    let setting = format!("extra-substituters = {url}");
    let config = merge(existing, &setting);
    match format {
        Format::NixConf => Ok(format!("{setting}\n")),
        Format::Shell => Ok(format!("export NIX_CONFIG={}\n", quote(&config))),
        Format::Dotenv if config.contains('\n') => Err(SetupError::Multiline),
        Format::Dotenv => Ok(format!("NIX_CONFIG={config}\n")),
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

    fn url(path: &str) -> StoreUrl {
        StoreUrl::of_folder(Path::new(path)).expect("absolute")
    }

    #[test]
    fn urls_encode_what_would_end_or_split_them() {
        assert_eq!(url("/builds/g/p/cache").to_string(), "file:///builds/g/p/cache?trusted=1");
        assert_eq!(url("/a b/c#d?e%f/ü").to_string(), "file:///a%20b/c%23d%3Fe%25f/%C3%BC?trusted=1");
        assert_eq!(url("/a+b/c=d").to_string(), "file:///a+b/c=d?trusted=1");
        assert!(url("/a-b/c_d.e~/F9").is_portable());
        for path in ["/a b", "/a+b", "/ü"] {
            assert!(!url(path).is_portable(), "{path}");
        }
        assert!(StoreUrl::of_folder(Path::new("cache")).is_err());
    }

    #[test]
    fn each_form_says_the_same() {
        let url = url("/c");
        let line = "extra-substituters = file:///c?trusted=1";
        let render = |format| render(&url, format, "").expect("renders");
        assert_eq!(render(Format::NixConf), format!("{line}\n"));
        assert_eq!(render(Format::Dotenv), format!("NIX_CONFIG={line}\n"));
        assert_eq!(render(Format::Shell), format!("export NIX_CONFIG='{line}'\n"));
    }

    #[test]
    fn what_nix_config_held_is_kept() {
        let url = url("/c");
        let line = "extra-substituters = file:///c?trusted=1";
        let shell = |existing: &str| render(&url, Format::Shell, existing).expect("renders");
        assert_eq!(shell("cores = 2\n"), format!("export NIX_CONFIG='cores = 2\n{line}'\n"));
        assert_eq!(shell("x = it's"), format!("export NIX_CONFIG='x = it'\\''s\n{line}'\n"));
        assert_eq!(shell(line), format!("export NIX_CONFIG='{line}'\n"));
        assert!(matches!(render(&url, Format::Dotenv, "cores = 2"), Err(SetupError::Multiline)));
        assert!(render(&url, Format::Dotenv, line).is_ok());
    }
}
