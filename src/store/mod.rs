//! What a Nix store says about its paths: registrations and their closure.

pub mod addressed;
pub mod adopt;
pub mod closure;
pub mod content_address;
pub mod db;
pub mod derivation;
pub mod dump;
pub mod hash;
pub mod info;
pub mod json;
pub mod location;
pub mod restore;
pub mod roots;
pub mod source;

pub use closure::{Closure, ClosureError, NodeId};
pub use hash::NarHash;
pub use info::PathInfo;
pub use location::StoreLocation;
pub use nix_derivation::{StoreDir, StorePath};
