//! stowage
pub mod build;
pub mod cli;
pub mod destination;
pub mod digest;
pub mod fs;
pub mod image;
pub mod layer;
pub mod plan;
pub mod store;
pub mod tree;
