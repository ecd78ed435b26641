//! The API of a hub that is really served: what programs rely on.

mod access;
mod agent;
mod booking;
mod follow;
mod repeats;
mod service;
mod versions;

use kubecamp::hub::desk::BookRequest;
use serde_json::{Value, json};

use super::world::wish;

/// A wish for the server one, from and to so many minutes after now.
fn slot(from: i64, to: i64) -> Value {
    json!(BookRequest { ..wish(Some("one"), from, to) })
}
