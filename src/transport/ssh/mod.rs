//! Belongs: SSH with russh: which host, its key, our keys, commands, tunnels; all of russh but its keys and
//! certificates stays in this folder.
//! Never: what a command means; asking the user other than through `Ask`.
//! Start here: `SshTarget` in `target.rs`, then `SshTransport` in `transport.rs`.

mod auth;
mod config;
mod connect;
mod exec;
mod hostkey;
mod key;
mod known;
mod spec;
mod target;
mod transport;
mod tunnel;

pub use config::{Resolved, Resolver, resolve};
pub use key::{KeyPair, must_be_readable, public_line};
pub use known::known_keys;
pub use spec::Spec;
pub use target::{HostKeyPolicy, Identity, SshTarget, Unknown};
pub use transport::{Duplex, SshTransport};
pub use tunnel::Tunnel;
