//! Belongs: fixtures that several test files share.
//! Never: tests.
//! Start here: `sshd.rs`.

pub mod sandbox;
pub mod sshd;
