//! All integration tests in one binary: it links once, so the loop stays short.

#![allow(missing_docs)]

mod live_bundle;
mod live_machine;
mod live_reset;
mod live_ssh;
mod support;
