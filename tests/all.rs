//! All integration tests in one binary: it links once.

#![allow(missing_docs)]

mod live_ssh;
mod live_ssh_login;
mod support;
