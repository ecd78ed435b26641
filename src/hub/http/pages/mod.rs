//! Belongs: pages for people: view models filled from what the desk answers, templates, style, script.
//! Never: rules of booking, SQL; nothing inline, the content security policy forbids it.
//! Start here: `router` below, then `home.rs`; `week.rs` makes the table, `words.rs` reads the sentences.

mod actions;
mod assets;
mod audit;
mod civil;
mod draw;
mod failure;
mod home;
mod keys;
mod lang;
mod row;
mod sign_in;
mod slot;
mod style;
mod teacher;
#[cfg(test)]
mod tests;
mod usage;
mod visit;
mod week;
mod wish;
mod words;

use axum::{
    Router,
    routing::{get, post},
};

pub use civil::Civil;
pub use failure::problem_page;
pub use lang::Lang;
pub use row::{Item, Row};
pub use slot::{Can, Connect, Countdown, Look, Slot};
pub use usage::Usage;
pub use visit::lang_of;
pub use week::{Day, Eyes, Hour, WeekView, window_of};
pub use wish::{Choices, WishForm};
pub use words::Words;

use super::AppState;

/// The pages' routes.
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/", get(home::show))
        .route("/book", post(actions::book))
        .route("/booking/{id}", get(home::booking))
        .route("/booking/{id}/{what}", post(actions::change))
        .route("/calendar", get(sign_in::calendar).post(sign_in::make_calendar))
        .route("/keys", get(keys::show).post(keys::save))
        .route("/sign-in", get(sign_in::show).post(sign_in::sign_in))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/settings", get(visit::settings))
        .route("/teacher", get(teacher::show))
        .route("/teacher/link", post(teacher::link))
        .route("/teacher/server/{id}", post(teacher::server))
        .route("/teacher/audit", get(audit::show))
        .route("/assets/{name}", get(assets::asset))
}
