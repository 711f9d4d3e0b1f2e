//! Image names, as Docker takes them.
//!
//! Source: distribution's `reference/reference.go` and `regexp.go`, the grammar
//! that Docker, podman and registries share.

use std::fmt;

/// A repository and a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    /// The repository, with its registry if it has one.
    pub repository: String,
    /// The tag.
    pub tag: String,
}

/// A name that Docker refuses.
#[derive(Debug, thiserror::Error)]
#[error("{name:?} is not an image name that Docker takes: {problem}")]
pub struct NameError {
    name: String,
    problem: &'static str,
}

impl ImageName {
    /// Parses `NAME` or `NAME:TAG`; without a tag it is `latest`.
    ///
    /// # Errors
    /// When Docker would refuse it.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        // A colon before a slash is a registry's port.
        match text.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
            Some((repository, tag)) => Self::new(repository, tag),
            None => Self::new(text, "latest"),
        }
    }

    /// Checks a repository and a tag.
    ///
    /// # Errors
    /// When Docker would refuse one of them.
    pub fn new(repository: &str, tag: &str) -> Result<Self, NameError> {
        let error = |name: &str, problem| Err(NameError { name: name.to_owned(), problem });
        if repository.len() > 255 {
            return error(repository, "it is longer than 255 characters");
        }
        let mut components = repository.split('/');
        let first = components.next().unwrap_or_default();
        let has_domain = repository.contains('/') && (first.contains(['.', ':']) || first == "localhost");
        let domain_is_right = !has_domain || is_domain(first);
        let path_is_right = (has_domain || is_path_component(first)) && components.all(is_path_component);
        if !domain_is_right || !path_is_right {
            return error(
                repository,
                "use lower-case letters, digits, and between them single `.`, one or two `_`, or `-`, in parts separated by `/`",
            );
        }
        if !is_tag(tag) {
            return error(
                tag,
                "a tag has up to 128 letters, digits, `_`, `.` and `-`, and begins with none of the last two",
            );
        }
        Ok(Self { repository: repository.to_owned(), tag: tag.to_owned() })
    }

    /// The nearest valid name to that of a store path.
    #[must_use]
    pub fn from_store_name(name: &str) -> Self {
        let mut repository = String::new();
        for letter in name.to_ascii_lowercase().chars() {
            match letter {
                'a'..='z' | '0'..='9' => repository.push(letter),
                // Separators neither begin a name nor follow each other.
                _ if repository.ends_with('-') || repository.is_empty() => {}
                _ => repository.push('-'),
            }
        }
        let repository = repository.trim_end_matches('-');
        Self {
            repository: if repository.is_empty() { "image" } else { repository }.to_owned(),
            tag: "latest".to_owned(),
        }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.repository, self.tag)
    }
}

/// `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends_are_right = [text.bytes().next(), text.bytes().next_back()].iter().all(|end| end.is_some_and(is_word));
    let separators = text.split(|letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit());
    ends_are_right
        && separators
            .filter(|separator| !separator.is_empty())
            .all(|separator| matches!(separator, "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-'))
}

/// A host name or address, perhaps with a port; an IPv6 address is in brackets.
fn is_domain(text: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((address, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let is_address = !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':');
        return is_address && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "0"));
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    is_port(port) && host.split('.').all(is_label)
}

/// `[\w][\w.-]{0,127}`
fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::ImageName;

    #[test]
    fn names_that_docker_takes_are_taken() {
        for (text, repository, tag) in [
            ("ci", "ci", "latest"),
            ("ci:1.0", "ci", "1.0"),
            ("group/sub.group/a__b---c:_x", "group/sub.group/a__b---c", "_x"),
            ("localhost:5000/ci", "localhost:5000/ci", "latest"),
            ("Registry.example.org/team/ci:v1", "Registry.example.org/team/ci", "v1"),
        ] {
            let name = ImageName::parse(text).expect(text);
            assert_eq!((name.repository.as_str(), name.tag.as_str()), (repository, tag));
        }
    }

    #[test]
    fn names_that_docker_refuses_are_refused() {
        let long = "a".repeat(256);
        for text in [
            "", "CI", "a//b", "/a", "a/", "-a", "a-", "a___b", "a._b", "a:", "a:-x", "a b", "a:b c", "ä", &long,
            "Team/ci",
        ] {
            assert!(ImageName::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn any_store_name_becomes_a_valid_name() {
        for (name, expected) in [
            ("debnix-ci", "debnix-ci"),
            ("Foo_bar-1.0", "foo-bar-1-0"),
            ("+=?", "image"),
            ("g++-12", "g-12"),
            ("-x-", "x"),
        ] {
            let name = ImageName::from_store_name(name);
            assert_eq!(name.repository, expected);
            ImageName::parse(&name.to_string()).expect("valid");
        }
    }
}
