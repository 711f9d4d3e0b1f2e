//! stowage
pub mod digest;
pub mod store;
pub mod tree;
