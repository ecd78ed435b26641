//! All integration tests in one binary: it links once.

#![allow(missing_docs)]

mod live_machine;
mod live_ssh;
mod support;
