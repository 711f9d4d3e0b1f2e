//! stowage
pub mod cache;
pub mod digest;
pub mod hook;
pub mod nar;
pub mod store;
pub mod tree;
