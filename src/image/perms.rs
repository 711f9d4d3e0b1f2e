//! Owners and modes of files at `/`, by their paths.

use super::items::{Item, Node};

/// What a spec says of the owner and the mode of some files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Perm {
    /// Which files.
    pub path: PermGlob,
    /// Their permissions; links have none.
    pub mode: Option<u32>,
    /// Their owner's number.
    pub uid: Option<u32>,
    /// Their group's number.
    pub gid: Option<u32>,
    /// Their owner's name.
    pub uname: Option<String>,
    /// Their group's name.
    pub gname: Option<String>,
}

/// A path in the image, in which `*`, `?`, `[…]` stand for parts of a name, and `**` for any
/// number of folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermGlob(glob::Pattern);

/// How names match: a `*` is no `/`.
const OPTIONS: glob::MatchOptions =
    glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

impl PermGlob {
    /// Understands a pattern; it may begin with a `/`.
    ///
    /// # Errors
    /// When its brackets or asterisks make no sense.
    pub fn new(text: &str) -> Result<Self, glob::PatternError> {
        let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        glob::Pattern::new(&parts.join("/")).map(Self)
    }

    /// Whether it means what is at `path` in the image.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        self.0.matches_with(&String::from_utf8_lossy(path), OPTIONS)
    }

    /// The pattern, without a leading `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl Perm {
    /// Gives `item`, which it is about, what is said of it.
    pub fn apply(&self, item: &mut Item) {
        if let Some(mode) = self.mode.filter(|_| !matches!(item.node, Node::Link(_))) {
            item.mode = mode;
        }
        item.owner.uid = self.uid.unwrap_or(item.owner.uid);
        item.owner.gid = self.gid.unwrap_or(item.owner.gid);
        if let Some(name) = &self.uname {
            item.owner.uname.clone_from(name);
        }
        if let Some(name) = &self.gname {
            item.owner.gname.clone_from(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_no_slash_and_links_keep_their_mode() {
        let perm = |path: &str| Perm {
            path: PermGlob::new(path).expect("a pattern"),
            mode: Some(0o600),
            uid: Some(7),
            gid: None,
            uname: None,
            gname: Some("staff".to_owned()),
        };
        let changed = |pattern: &str, path: &str| {
            let mut item = Item::of_root(Node::File(Vec::new()));
            if perm(pattern).path.matches(path.as_bytes()) {
                perm(pattern).apply(&mut item);
            }
            item.mode == 0o600 && item.owner.uid == 7 && item.owner.gid == 0 && item.owner.gname == "staff"
        };
        assert!(changed("/etc/*", "etc/secret") && changed("etc/secret", "etc/secret"));
        assert!(!changed("/etc/*", "etc/ssl/secret") && changed("/etc/**/secret", "etc/ssl/a/secret"));
        assert!(changed("/home/**", "home/user/.profile") && changed("//srv/./x/", "srv/x"));
        let mut link = Item::of_root(Node::Link(b"x".to_vec()));
        perm("*").apply(&mut link);
        assert_eq!((link.mode, link.owner.uid), (0o777, 7));
        assert!(PermGlob::new("/etc/***").is_err());
    }
}
