//! Names of places for images, as skopeo writes them.

use std::fmt;
use std::path::PathBuf;

use crate::image::ImageName;
use crate::registry::RegistryImage;

/// A place for an image, by its kind and path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageReference {
    /// `docker-archive:FILE[:NAME:TAG]`; the file `-` is standard output.
    DockerArchive {
        /// The archive.
        file: PathBuf,
        /// What the image is called in it, if not as it is called anyway.
        name: Option<ImageName>,
    },
    /// `oci:DIR[:TAG]`.
    Oci {
        /// The layout's folder.
        folder: PathBuf,
        /// What the image is called in it, if not by its own tag.
        tag: Option<String>,
    },
    /// `oci-archive:FILE[:TAG]`; the file `-` is standard output.
    OciArchive {
        /// The archive.
        file: PathBuf,
        /// What the image is called in it, if not the only one.
        tag: Option<String>,
    },
    /// `docker-daemon:NAME[:TAG]`, in the Docker daemon.
    Daemon(ImageName),
    /// `docker://[HOST/]REPOSITORY[:TAG][@DIGEST]`, in a registry.
    Registry(RegistryImage),
    /// `stowage:DIR`.
    Folder {
        /// The image folder.
        folder: PathBuf,
    },
}

impl ImageReference {
    /// Whether an image goes there, or comes from there, through a pipe.
    #[must_use]
    pub fn is_stdout(&self) -> bool {
        matches!(self, Self::DockerArchive { file, .. } | Self::OciArchive { file, .. } if file.as_os_str() == "-")
    }

    /// Whether all bytes of an image go there in a row, and none can be taken back.
    #[must_use]
    pub fn is_archive(&self) -> bool {
        matches!(self, Self::DockerArchive { .. } | Self::OciArchive { .. } | Self::Daemon(_))
    }
}

/// A text that names no place for an image.
#[derive(Debug, thiserror::Error)]
#[error(
    "{text:?} names no place for an image: {problem}; there are docker://HOST/REPOSITORY[:TAG], docker-daemon:NAME[:TAG], docker-archive:FILE[:NAME:TAG], oci:DIR[:TAG], oci-archive:FILE[:TAG] and stowage:DIR"
)]
pub struct ReferenceError {
    text: String,
    problem: String,
}

impl ImageReference {
    /// Whether an index of several images can be there.
    #[must_use]
    pub fn takes_index(&self) -> bool {
        match self {
            Self::Oci { .. } | Self::OciArchive { .. } | Self::Registry(_) => true,
            Self::DockerArchive { .. } | Self::Daemon(_) | Self::Folder { .. } => false,
        }
    }
}

/// The kinds of places that later versions will know.
const LATER: [&str; 1] = ["containers-storage"];

impl std::str::FromStr for ImageReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let error = |problem: String| ReferenceError { text: text.to_owned(), problem };
        let (kind, rest) = text.split_once(':').ok_or_else(|| error("it has no kind, as in `oci:DIR`".to_owned()))?;
        if kind == "docker" {
            let image = rest.strip_prefix("//").ok_or_else(|| error("it has no `//` after `docker:`".to_owned()))?;
            return Ok(Self::Registry(RegistryImage::parse(image).map_err(error)?));
        }
        if kind == "docker-daemon" {
            return Ok(Self::Daemon(ImageName::parse(rest).map_err(|problem| error(problem.to_string()))?));
        }
        let (path, name) = rest.split_once(':').map_or((rest, None), |(path, name)| (path, Some(name)));
        if path.is_empty() {
            return Err(error("it has no path".to_owned()));
        }
        match kind {
            "docker-archive" => {
                let name = name.map(ImageName::parse).transpose().map_err(|problem| error(problem.to_string()))?;
                Ok(Self::DockerArchive { file: path.into(), name })
            }
            "oci" | "oci-archive" if name == Some("") => Err(error("its tag is empty".to_owned())),
            "oci" => Ok(Self::Oci { folder: path.into(), tag: name.map(str::to_owned) }),
            "oci-archive" => Ok(Self::OciArchive { file: path.into(), tag: name.map(str::to_owned) }),
            "stowage" => Ok(Self::Folder { folder: rest.into() }),
            later if LATER.contains(&later) => {
                Err(error(format!("{later}: is not built yet in this version of stowage")))
            }
            other => Err(error(format!("there is no kind {other:?}"))),
        }
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DockerArchive { file, name: None } => write!(formatter, "docker-archive:{}", file.display()),
            Self::DockerArchive { file, name: Some(name) } => {
                write!(formatter, "docker-archive:{}:{name}", file.display())
            }
            Self::Oci { folder, tag: None } => write!(formatter, "oci:{}", folder.display()),
            Self::Oci { folder, tag: Some(tag) } => write!(formatter, "oci:{}:{tag}", folder.display()),
            Self::OciArchive { file, tag: None } => write!(formatter, "oci-archive:{}", file.display()),
            Self::OciArchive { file, tag: Some(tag) } => write!(formatter, "oci-archive:{}:{tag}", file.display()),
            Self::Daemon(name) => write!(formatter, "docker-daemon:{name}"),
            Self::Registry(image) => write!(formatter, "docker://{image}"),
            Self::Folder { folder } => write!(formatter, "stowage:{}", folder.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ImageReference;

    #[test]
    fn references_come_back_as_they_were_written() {
        for text in [
            "docker-archive:-",
            "docker-archive:a/b.tar:ci:1",
            "oci:dir",
            "oci:/d/e:tag",
            "oci-archive:a.tar",
            "oci-archive:a.tar:tag",
            "stowage:./image",
            "docker://localhost:5000/team/ci:1",
            "docker-daemon:localhost:5000/team/ci:1",
        ] {
            assert_eq!(text.parse::<ImageReference>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn every_message_names_its_cause() {
        for (text, message) in [
            ("image", "no kind, as in"),
            ("oci:", "no path"),
            ("oci:dir:", "tag is empty"),
            ("oci-archive:f:", "tag is empty"),
            ("docker-archive:f:A B", "not an image name"),
            ("docker:host/repo:tag", "no `//`"),
            ("docker://r.example/A:b", "not an image name"),
            ("containers-storage:x", "is not built yet"),
            ("tarball:x", "no kind \"tarball\""),
        ] {
            let error = text.parse::<ImageReference>().expect_err(text).to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
