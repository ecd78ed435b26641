//! Belongs: the JSON API, version 1, and its OpenAPI document; one file per noun.
//! Never: SQL, policy, pages.
//! Start here: the table of routes in `routes.rs`.

mod agent;
mod bookings;
mod calendar;
mod events;
mod looking;
mod people;
mod reply;
mod routes;
mod servers;
mod system;
mod tokens;

pub(super) use events::watch_events;
pub(super) use routes::router;
pub use routes::{ROUTES, openapi};
