//! Belongs: YAML -> Profile -> Lab; layouts and their floors; the JSON Schema.
//! Never: hosts, addresses, secrets.
//! Start here: `model.rs` (what a profile says), then `draft.rs` and `rules.rs` (how its mistakes are found).

mod cidr;
mod draft;
mod lab;
mod layout;
mod load;
mod model;
mod rules;
mod schema;
#[cfg(test)]
mod tests;
mod version;

pub use cidr::Cidr;
pub use lab::{Format, Lab};
pub use layout::{DISK_FLOOR, DISK_SHOWN, HOST_KEEPS, Layout, MEMORY_SHOWN, Resource, Shortfall, Size, shortfalls};
pub use load::{load, parse, shipped, shipped_text, to_yaml, with_mirrors};
pub use model::{Cni, Mirror, Network, NodeSpec, Profile, Proxy, ProxyMode, Role};
pub use schema::schema;
pub use version::Version;
