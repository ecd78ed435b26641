//! Belongs: what happens by itself: offers, no-shows, delayed starts, moves off a server that takes nobody, webhooks.
//! Never: HTTP routes, SQL.
//! Start here: `Clerk::settle` in `tick.rs`.

mod hooks;
mod tick;

pub use hooks::signature;
pub use tick::{Clerk, Ticked};
