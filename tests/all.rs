//! All integration tests in one binary: it links once, so the loop stays short.

#![allow(missing_docs, clippy::unwrap_used)]

mod any_bytes;
mod cli;
mod flows;
mod hub;
mod live_bundle;
mod live_enroll;
mod live_gate;
mod live_gate_ends;
mod live_hub;
mod live_hub_store;
mod live_hub_store_hubs;
mod live_machine;
mod live_reset;
mod live_ssh;
mod live_ssh_login;
mod live_ssh_tunnel;
mod live_vm_image;
mod readme;
mod rooms;
mod stop;
mod support;
