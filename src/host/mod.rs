//! Belongs: facts, root, files and services of one host.
//! Never: the order of work, other hosts.
//! Start here: `Host` in `session.rs`, then `facts.rs`.

pub mod fact;
mod facts;
pub mod scan;
pub mod script;
mod session;
mod sudo;
/// Texts that are sent to hosts, rendered or as they are.
pub mod template;
mod traces;
mod viewer;

pub use facts::{Address, Cgroup, Facts};
pub use session::{Hold, Host};
pub use sudo::{Sudo, SudoPassword};
pub use traces::Traces;
pub use viewer::Viewer;
