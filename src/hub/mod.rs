//! Belongs: booking of shared servers: who may use which one when, and the gate on the server that enforces it.
//! Never: SQL outside `store`, axum outside `http`, terminals.
//! Start here: `domain/state.rs`, then docs/design/0006-hub.md.

pub mod clerk;
pub mod desk;
pub mod domain;
pub mod gate;
pub mod http;
pub mod private;
pub mod store;
