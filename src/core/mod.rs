//! Belongs: ids, secrets, problems, events, shell quoting: the words that every room speaks.
//! Never: async, the network, anything that knows a host; of files only reading what a `Blob` or a YAML text is.
//! Start here: `problem.rs`, then `event.rs`.

mod arch;
#[cfg(test)]
pub(crate) mod bless;
mod blob;
mod code;
mod event;
#[cfg(test)]
mod event_page;
mod host_spec;
mod ids;
mod nearest;
mod problem;
mod secret;
pub mod shell;
mod size;
pub mod yaml;

pub use arch::Arch;
pub use blob::{Blob, digest};
pub use code::{Class, Code};
pub use event::{Event, EventKind, Outcome, Quiet, Report, Timestamp};
pub use host_spec::{BadPort, HostForm, HostSpec, bracketed};
pub use ids::{BadId, LabId, LabName, NodeId, PhaseId, RunId, StepId, is_label};
pub use nearest::nearest;
pub use problem::{At, Hint, Problem, Problems};
pub use secret::Secret;
pub use size::{Bytes, GIB, MIB};
