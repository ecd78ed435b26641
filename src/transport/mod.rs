//! Belongs: getting commands and bytes to a host and back: the trait, ssh, incus, local, scripted (tests).
//! Never: Kubernetes, sudo, what a command means.
//! Start here: `Transport` in `link.rs`.

mod link;
mod put;

pub use link::{Cmd, Exit, Input, Io, LinkError, Transport};
pub use put::put;
