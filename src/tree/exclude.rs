//! What of a source tree does not go into an image.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// What is left out of a source tree: what patterns name, as in a `.gitignore` at its top, and
/// everything that is called `.git`.
#[derive(Clone, Debug)]
pub struct Exclude(Gitignore);

/// A pattern that means nothing.
#[derive(Debug, thiserror::Error)]
#[error("{pattern:?} can't be left out of a source tree: {problem}; patterns are those of .gitignore")]
pub struct ExcludeError {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Exclude {
    /// Understands patterns.
    ///
    /// # Errors
    /// When one of them means nothing.
    pub fn new(patterns: &[String]) -> Result<Self, ExcludeError> {
        let mut builder = GitignoreBuilder::new("");
        for pattern in patterns {
            let failed = |problem: String| ExcludeError { pattern: pattern.clone(), problem };
            if pattern.trim().is_empty() || pattern.starts_with('#') {
                return Err(failed("it is empty, or a comment".to_owned()));
            }
            builder.add_line(None, pattern).map_err(|error| failed(error.to_string()))?;
        }
        let built = builder.build();
        built.map(Self).map_err(|error| ExcludeError { pattern: patterns.join(" "), problem: error.to_string() })
    }

    /// Whether the entry `path`, below the tree's top, is left out; its folder is not.
    #[must_use]
    pub fn leaves_out(&self, path: &[u8], is_folder: bool) -> bool {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        name == b".git" || self.0.matched(OsStr::from_bytes(path), is_folder).is_ignore()
    }

    /// Whether `path`, below the tree's top, or a folder on the way to it is left out.
    #[must_use]
    pub fn leaves_out_within(&self, path: &Path) -> bool {
        let above = path.ancestors().filter(|path| !path.as_os_str().is_empty());
        above.into_iter().any(|path| self.leaves_out(path.as_os_str().as_bytes(), true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exclude(patterns: &[&str]) -> Result<Exclude, ExcludeError> {
        Exclude::new(&patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn patterns_are_those_of_gitignore() {
        let exclude = exclude(&["*.md", "!README.md", "/doc", "tests/", "nixos/**/*.png"]).expect("patterns");
        for (path, is_folder, expected) in [
            ("a/CHANGES.md", false, true),
            ("a/README.md", false, false),
            ("doc", true, true),
            ("lib/doc", true, false),
            ("lib/tests", true, true),
            ("lib/tests", false, false),
            ("nixos/a/b/c.png", false, true),
            ("nixos/a/b/c.svg", false, false),
        ] {
            assert_eq!(exclude.leaves_out(path.as_bytes(), is_folder), expected, "{path}");
        }
    }

    #[test]
    fn what_is_in_a_folder_that_is_left_out_is_left_out() {
        let exclude = exclude(&["/image"]).expect("a pattern");
        let is_out = |path: &str| exclude.leaves_out_within(Path::new(path));
        assert!(is_out("image") && is_out("image/blobs/x") && !is_out("other/image") && !is_out(""));
    }

    #[test]
    fn git_never_stays() {
        let exclude = exclude(&["!.git"]).expect("a pattern");
        assert!(exclude.leaves_out(b".git", true) && exclude.leaves_out(b"sub/.git", false));
        assert!(!exclude.leaves_out(b".gitignore", false));
    }

    #[test]
    fn names_need_not_be_text() {
        assert!(exclude(&["*.o"]).expect("a pattern").leaves_out(b"\xff.o", false));
    }

    #[test]
    fn what_means_nothing_is_named() {
        for pattern in ["[z-a]", " ", "# doc"] {
            let error = exclude(&["fine", pattern]).expect_err("no pattern");
            assert_eq!(error.pattern, pattern);
        }
    }
}
