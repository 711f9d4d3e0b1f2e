//! Reads secret keys from files.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::sign::{KeyError, SecretKey};
use crate::fs;

/// No file with a key is longer.
const SIZE_LIMIT: u64 = 64 * 1024;

/// Those who are not its owner and may read a file.
const OTHERS: u32 = 0o044;

/// Why a file gives no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It can't be read.
    #[error("reading the secret key {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It holds something else.
    #[error(
        "{path} holds no secret key: {source}; `nix-store --generate-binary-cache-key NAME SECRET PUBLIC` makes one"
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeyError,
    },
}

/// Reads the key in the file `path`. One that others may read, too, gives a warning.
///
/// # Errors
/// When it can't be read, or holds none.
pub fn read(path: &Path) -> Result<SecretKey, KeyFileError> {
    let io = |source| KeyFileError::Io { path: path.to_owned(), source };
    let file = fs::open_regular(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.permissions().mode();
    let mut text = Vec::new();
    file.take(SIZE_LIMIT).read_to_end(&mut text).map_err(io)?;
    let key = SecretKey::parse(&String::from_utf8_lossy(&text))
        .map_err(|source| KeyFileError::Key { path: path.to_owned(), source })?;
    if mode & OTHERS != 0 {
        tracing::warn!(
            "others than its owner may read the secret key {0}, and sign with it; `chmod 600 {0}` keeps it secret",
            path.display()
        );
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::sign::tests::KEY;

    #[test]
    fn a_file_holds_one_key_and_errors_do_not_tell_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        for (contents, is_key) in [
            (KEY.to_owned(), true),
            (format!("{KEY}\n"), true),
            (format!("{KEY}\n{KEY}"), false),
            (String::new(), false),
        ] {
            std::fs::write(&path, contents).expect("written");
            match read(&path) {
                Ok(key) => assert!(is_key && key.name() == "key-1"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(!is_key && text.contains("holds no secret key") && !text.contains(&KEY[6..20]), "{text}");
                }
            }
        }
        assert!(matches!(read(folder.path()), Err(KeyFileError::Io { .. })));
        assert!(matches!(read(&folder.path().join("none")), Err(KeyFileError::Io { .. })));
    }
}
