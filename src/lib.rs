//! stowage
pub mod cache;
pub mod digest;
pub mod nar;
pub mod store;
pub mod tree;
