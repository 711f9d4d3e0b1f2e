//! Paths in URLs.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// `path` as RFC 3986 has it in a URL. Only what would end or split it, or is no
/// ASCII, is encoded: Nix 2.8 decodes nothing, and knows all else only as it is.
#[must_use]
pub fn encode(path: &Path) -> String {
    let mut encoded = String::new();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/.-_~!$&'()*+,;=:@".contains(byte) {
            encoded.push(char::from(*byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_or_split_a_path_is_encoded() {
        let encoded = |path: &str| encode(Path::new(path));
        assert_eq!(encoded("/a b/c#d?e%f/ü"), "/a%20b/c%23d%3Fe%25f/%C3%BC");
        assert_eq!(encoded("/a+b/c=d;e:f@g~"), "/a+b/c=d;e:f@g~");
    }
}
