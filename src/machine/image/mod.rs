//! Belongs: the node image: what is in it, building it once, keeping it by content.
//! Never: Incus, machines.
//! Start here: `NodeImage` in `build.rs`.

mod build;
mod recipe;

pub use build::NodeImage;
pub use recipe::Recipe;
