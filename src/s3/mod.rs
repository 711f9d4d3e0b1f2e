//! Buckets of S3, and of all that speaks as it does.
//!
//! `rusty-s3` signs requests and reads lists; requests are sent as those to registries are, with
//! the same trust and the same proxies. (`object_store` needs tokio and knows no profiles.)
//!
//! Requests are signed in their URLs. What is sent is not part of that, so TLS has to keep it
//! whole; where there is none, whoever is on the way can change it, as with any HTTP.

pub mod address;
pub mod client;
pub mod credentials;
pub mod download;
pub mod error;
mod redact;
#[cfg(test)]
pub(crate) mod tests;
pub mod upload;

pub use address::Address;
pub use client::{Client, Condition, Written};
pub use error::S3Error;

use crate::registry::proxy::Proxies;
use crate::registry::trust::Trust;

/// By which ways buckets are reached, and as whom.
#[derive(Clone, Default)]
pub struct Access {
    /// Whom to trust.
    pub trust: Trust,
    /// The proxies in between.
    pub proxies: Proxies,
    /// Where credentials come from.
    pub sources: credentials::Sources,
}
