//! Belongs: fixtures that several test files share.
//! Never: tests.
//! Start here: `sshd.rs`.

pub mod gate;
pub mod postgres;
pub mod sandbox;
pub mod simhost;
pub mod sshd;
pub mod tiny_bundle;
