//! Belongs: YAML -> Profile -> Lab; layouts and their floors; the JSON Schema.
//! Never: hosts, addresses, secrets.
//! Start here: `model.rs` (what a profile says), then `parse.rs` (how its mistakes are found).

mod model;

pub use model::{Cni, Mirror, Network, NodeSpec, Profile, Proxy, ProxyMode, Role};
