//! Belongs: literal lists of phases, readable on one screen.
//! Never: logic; a phase's inside.
//! Start here: `up.rs`.

mod enroll;
mod local;
mod prepared;
mod reset;
mod up;

pub use enroll::{enroll, unenroll};
pub use local::{Local, LocalResult, bare_machines, local};
pub use prepared::{is_prepared, prepared};
pub use reset::reset;
pub use up::{UP, Up, up};
