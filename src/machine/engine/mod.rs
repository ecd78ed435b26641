//! Belongs: which Incus makes the machines: the user's, or a private one that kubecamp starts, stops and clears away.
//! Never: machines, images.
//! Start here: `Engine` in `private.rs`, then `locate.rs`.

mod apt;
mod locate;
mod outbound;
mod packages;
mod private;
mod process;
mod residue;
mod subnet;
mod way;

pub use apt::{Source as AptSource, Sources as AptSources};
pub use locate::{EngineAt, Nic, Place, check_environment, users_incus};
pub use packages::{OsRelease, Packages};
pub use private::{Engine, EngineStatus};
