//! Belongs: getting commands and bytes to a host and back: the trait, ssh, local, scripted (tests).
//! Never: Kubernetes, sudo, what a command means.
//! Start here: `Transport` in `link.rs`, then `ssh/mod.rs`.

mod ask;
mod dial;
mod feed;
mod link;
mod local;
mod output;
mod put;
mod scripted;
pub mod ssh;

pub use ask::{Ask, Keyring};
pub use dial::dial;
pub use link::{Cmd, Exit, Input, Io, LinkError, Transport};
pub use local::LocalTransport;
pub use put::{put_as, send_as, there};
pub use scripted::{Ran, Reply, ScriptedTransport};
pub use ssh::{HostKeyPolicy, Identity, SshTarget, SshTransport, Tunnel, Unknown};
