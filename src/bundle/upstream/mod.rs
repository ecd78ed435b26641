//! Belongs: fetching every part of a bundle from release sites and registries, or mirrors of them.
//! Never: building anything, the bundle file.
//! Start here: `parts.rs` (what is fetched), then `download.rs` (how it resumes and is checked).

mod archive;
mod download;
#[cfg(test)]
pub(super) mod fake;
mod login;
mod mirrors;
mod parts;
mod probe;
mod registry;
mod releases;
#[cfg(test)]
mod tests;

pub use mirrors::Mirrors;
pub use parts::{Job, make};
pub use probe::{Silence, silent};
