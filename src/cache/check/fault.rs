//! What can be wrong with a file of a cache.

/// Why a file is put into quarantine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A link, a folder or a pipe in place of a file.
    #[error("it is no ordinary file")]
    NotAFile,
    /// A file or a link in place of a folder.
    #[error("it is no folder")]
    NotAFolder,
    /// Cut off to nothing.
    #[error("it is empty")]
    Empty,
    /// More than it can be.
    #[error("it is too large")]
    TooLarge,
    /// The system says no.
    #[error("it can't be read: {0}")]
    Unreadable(String),
    /// Nix can't read it, or should not.
    #[error("{0}")]
    Malformed(String),
    /// It is about another path than its name says.
    #[error("it belongs at {expected}")]
    Misnamed {
        /// The name that it should have.
        expected: String,
    },
    /// Its NAR would be elsewhere than in `nar/`.
    #[error("its URL leads out of nar/: {0:?}")]
    Url(String),
    /// No Nix writes that.
    #[error("its NAR is compressed in a way that Nix does not know: {0:?}")]
    Compression(String),
    /// The store path would be another one.
    #[error("its content address does not belong to its store path")]
    ContentAddress,
    /// Nobody can have built it, and Nix crashes over it.
    #[error("it refers to itself by way of other paths")]
    Cycle,
    /// There is no NAR.
    #[error("its NAR, nar/{0}, is missing")]
    NarMissing(String),
    /// A link, a folder or a pipe in place of the NAR.
    #[error("its NAR, nar/{0}, is no ordinary file")]
    NarNotAFile(String),
    /// A NAR cut off to nothing.
    #[error("its NAR, nar/{0}, is empty")]
    NarEmpty(String),
    /// A NAR cut off, or another one.
    #[error("its NAR is {found} bytes long when compressed, where {expected} were said")]
    NarFileSize {
        /// What the narinfo says.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// Damaged when compressed.
    #[error("its NAR can't be read: {0}")]
    NarUnreadable(String),
    /// Shorter or longer than said. A bomb is not unpacked further than to here.
    #[error("its NAR is not {0} bytes long")]
    NarSize(u64),
    /// Damaged, or another one.
    #[error("its NAR has the hash sha256:{found}, and not sha256:{expected}")]
    NarHash {
        /// What the narinfo says.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A reference that is none.
    #[error("it says that it refers to {0}, and does not")]
    Reference(String),
    /// A reference to a path that has another name.
    #[error("it says that it refers to {0}, and what has that hash part here is called otherwise")]
    OtherName(String),
    /// Nix would fail to build what needs both.
    #[error("{0} is lost, which the same derivation makes, and Nix fails where only one is there")]
    Sibling(String),
    /// A realisation of something that is not there.
    #[error("it depends on {0}, which is not there, or not so")]
    Dependency(String),
}

impl Fault {
    /// A fault in words.
    pub fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed(what.into())
    }

    /// Whether the NAR is to blame, as far as one can tell.
    #[must_use]
    pub fn is_of_nar(&self) -> bool {
        matches!(
            self,
            Self::NarNotAFile(_)
                | Self::NarEmpty(_)
                | Self::NarFileSize { .. }
                | Self::NarUnreadable(_)
                | Self::NarSize(_)
                | Self::NarHash { .. }
        )
    }

    /// A word for scripts.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotAFile => "not-a-file",
            Self::NotAFolder => "not-a-folder",
            Self::Empty => "empty",
            Self::TooLarge => "too-large",
            Self::Unreadable(_) => "unreadable",
            Self::Malformed(_) => "malformed",
            Self::Misnamed { .. } => "misnamed",
            Self::Url(_) => "url",
            Self::Compression(_) => "compression",
            Self::ContentAddress => "content-address",
            Self::Cycle => "cycle",
            Self::NarMissing(_) => "nar-missing",
            Self::NarNotAFile(_) => "nar-not-a-file",
            Self::NarEmpty(_) => "nar-empty",
            Self::NarFileSize { .. } => "nar-file-size",
            Self::NarUnreadable(_) => "nar-unreadable",
            Self::NarSize(_) => "nar-size",
            Self::NarHash { .. } => "nar-hash",
            Self::Reference(_) => "reference",
            Self::OtherName(_) => "other-name",
            Self::Sibling(_) => "sibling",
            Self::Dependency(_) => "dependency",
        }
    }
}
