//! kubecamp brings up Kubernetes training labs over SSH or on local machines, and gives the machines back clean.
//!
//! The rooms; each imports only those of a smaller number (`docs/design/0001-house.md`; `tests/rooms.rs` checks it).

pub mod bundle;
pub mod cli;
pub mod core;
pub mod engine;
pub mod flows;
pub mod host;
pub mod hub;
pub mod inventory;
pub mod machine;
pub mod phases;
pub mod profile;
pub mod render;
pub mod transport;
