//! Belongs: hosts that the user names: the hosts file, `--host` texts, which host becomes which node.
//! Never: connections, keys' contents, passwords.
//! Start here: `entry.rs` (what is said about a host), then `file.rs` and `assign.rs`.

mod assign;
mod entry;
mod file;
mod spec;

pub use assign::assign;
pub use entry::{HostEntry, HostsFile};
pub use file::{load, parse};
pub use spec::{Spec, entries};
