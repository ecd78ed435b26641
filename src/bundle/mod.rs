//! Belongs: the bundle file (build, read, verify) and its sources: release sites and Go modules.
//! Never: hosts, phases, what is done with the members on a node.
//! Start here: `manifest.rs` (what a bundle is), `file.rs` (reading one), then `build.rs` (making one).

mod build;
mod cache;
mod catalogue;
mod file;
mod image;
mod layer;
mod layout;
mod manifest;
mod modules;
mod slice;
#[cfg(test)]
mod tests;
mod upstream;
mod verify;
mod versions;
mod write;

pub use build::{Asked, BuildRequest, Built, Source, build, lacking_packages, silent_sites};
pub use cache::Cache;
pub use file::Bundle;
pub use manifest::{Audience, Content, FORMAT, Kind, Manifest, Member, Origins, Stored};
pub use modules::{check_go, missing_tools};
pub use upstream::Mirrors;
pub use versions::{DEFAULT_KUBERNETES, known_versions};
pub use write::{Packed, Part, Title, write};
