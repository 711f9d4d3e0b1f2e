//! What can be wrong with a spec.

use crate::image::keys;
use crate::image::name::NameError;

/// What is wrong with a spec.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Neither JSON nor TOML.
    #[error("the spec is no JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// Likewise, in a file named `.toml`.
    #[error("the spec is no TOML: {0}")]
    Toml(#[source] Box<toml::de::Error>),
    /// A key that nobody knows: often a typing error, whose effect would be missed.
    #[error("unknown key {key:?} in {place}{}", keys::suggest(nearest))]
    UnknownKey {
        /// The key.
        key: String,
        /// Where it is.
        place: &'static str,
        /// The known key that is most like it.
        nearest: Option<&'static str>,
    },
    /// A key of dockerTools or of a later version.
    #[error("the spec's {0:?} is not built yet in this version of stowage; leave it out")]
    NotBuilt(String),
    /// A key of dockerTools that only Nix functions can have.
    #[error(
        "the spec's {0:?} runs commands, so that the image would depend on this machine; run them in a Nix build, as the functions in nix/ do, and name the tar of what they have made as \"root\""
    )]
    Commands(String),
    /// A value of another kind than the key asks for.
    #[error("the spec{}{key} must be {expected}", if key.is_empty() { "" } else { "'s " })]
    Kind {
        /// The key, after those that it is in; of the spec itself none.
        key: String,
        /// What its value has to be.
        expected: &'static str,
    },
    /// A value that makes no sense.
    #[error("the spec's {key}: {problem}")]
    Nonsense {
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
    /// A name that Docker refuses.
    #[error(transparent)]
    Name(#[from] NameError),
}
