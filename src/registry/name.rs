//! Names of images in registries, as `docker://HOST/REPOSITORY:TAG` has them.
//!
//! Source: distribution's `reference/normalize.go`: a name without a host is one
//! of Docker Hub's.

use std::fmt;

use crate::digest::Digest;
use crate::image::ImageName;

/// Docker Hub, as names have it.
pub const DOCKER_HUB: &str = "docker.io";

/// A repository of a registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName {
    /// The registry's host, perhaps with a port.
    pub registry: String,
    /// The repository, as the registry calls it.
    pub repository: String,
}

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryImage {
    /// Where it is.
    pub at: RepositoryName,
    /// Its tag, if it has one.
    pub tag: Option<String>,
    /// Its manifest's digest, if it has to be that one.
    pub digest: Option<Digest>,
}

impl RepositoryName {
    /// The host that answers for the registry.
    #[must_use]
    pub fn host(&self) -> &str {
        if self.registry == DOCKER_HUB { "registry-1.docker.io" } else { &self.registry }
    }
}

impl RegistryImage {
    /// Parses `[HOST/]REPOSITORY[:TAG][@DIGEST]`; without a tag and a digest the tag is
    /// `latest`.
    ///
    /// # Errors
    /// When no registry takes such a name; says why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
        let digest = digest.map(Digest::parse).transpose().map_err(|error| error.to_string())?;
        let is_tagged = name.rsplit_once(':').is_some_and(|(_, tag)| !tag.contains('/'));
        let ImageName { repository, tag } = ImageName::parse(name).map_err(|error| error.to_string())?;
        let tag = (is_tagged || digest.is_none()).then_some(tag);
        let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
        let (registry, repository) = match repository.split_once('/') {
            Some((host, rest)) if is_host(host) => (host.to_owned(), rest.to_owned()),
            _ => (DOCKER_HUB.to_owned(), repository),
        };
        let registry = if registry == "index.docker.io" { DOCKER_HUB.to_owned() } else { registry };
        let is_official = registry == DOCKER_HUB && !repository.contains('/');
        let repository = if is_official { format!("library/{repository}") } else { repository };
        Ok(Self { at: RepositoryName { registry, repository }, tag, digest })
    }

    /// What a registry's API calls it where it is put: its tag, or else its digest. One that has
    /// both is to be that digest, and to be found by the tag.
    #[must_use]
    pub fn target(&self) -> String {
        self.tag.clone().unwrap_or_else(|| self.reference())
    }

    /// What a registry's API calls it where it is read: its digest, or else its tag.
    #[must_use]
    pub fn reference(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.registry, self.repository)
    }
}

impl fmt::Display for RegistryImage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.at)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(formatter, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str) -> String {
        RegistryImage::parse(text).expect(text).to_string()
    }

    #[test]
    fn names_are_those_of_docker_hub_unless_they_have_a_host() {
        for (text, expected) in [
            ("debian", "docker.io/library/debian:latest"),
            ("team/app:1", "docker.io/team/app:1"),
            ("index.docker.io/team/app", "docker.io/team/app:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
            ("127.0.0.1:5000/a:c", "127.0.0.1:5000/a:c"),
            ("[::1]:5000/a:c", "[::1]:5000/a:c"),
            ("[fd00::1]/a", "[fd00::1]/a:latest"),
        ] {
            assert_eq!(printed(text), expected);
        }
    }

    #[test]
    fn a_digest_stands_for_a_tag() {
        let digest = Digest::of(b"manifest");
        let image = RegistryImage::parse(&format!("r.example/a@{digest}")).expect("a name");
        assert_eq!((image.tag.as_deref(), image.reference()), (None, digest.to_string()));
        let text = format!("r.example/a:b@{digest}");
        assert_eq!(printed(&text), text);
        let image = RegistryImage::parse(&text).expect("a name");
        assert_eq!((image.reference(), image.target().as_str()), (digest.to_string(), "b"));
        for wrong in [
            "",
            "A",
            "r.example/",
            "r.example/a:",
            "r.example/a@sha256:12",
            "r.example/a:b c",
            "[::1/a",
            "[::1]x/a",
            "[]/a",
            "[::1]:/a",
        ] {
            RegistryImage::parse(wrong).expect_err(wrong);
        }
    }

    #[test]
    fn docker_hub_answers_at_another_host() {
        assert_eq!(RegistryImage::parse("debian").expect("a name").at.host(), "registry-1.docker.io");
        assert_eq!(RegistryImage::parse("localhost:5000/a").expect("a name").at.host(), "localhost:5000");
    }
}
