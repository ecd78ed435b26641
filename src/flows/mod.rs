//! Belongs: literal lists of phases, readable on one screen.
//! Never: logic; a phase's inside.
//! Start here: `up.rs`.

mod up;

pub use up::{Up, up};
