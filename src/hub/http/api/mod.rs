//! Belongs: the JSON API, version 1, and its OpenAPI document; one file per noun.
//! Never: SQL, policy, pages.
//! Start here: the table of routes in `routes.rs`.

mod routes;
mod system;

pub(super) use routes::router;
pub use routes::{ROUTES, openapi};
