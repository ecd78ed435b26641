//! Belongs: Incus's REST API over its Unix socket: requests, operations, the few objects that machines need.
//! Never: which Incus it is, what a machine is for.
//! Start here: `Incus` in `client.rs`.

mod client;
mod exec;
mod images;
mod instances;
mod objects;
mod setup;

pub use client::Incus;
pub use objects::{Instance, NewInstance, Server, Source};
