//! Belongs: pages for people: view models filled from what the desk answers, templates, style, script.
//! Never: rules of booking, SQL; nothing inline, the content security policy forbids it.
//! Start here: `router` below, then `home.rs`; `week.rs` makes the table, `words.rs` reads the sentences.

mod actions;
mod assets;
mod audit;
mod civil;
mod class;
mod draw;
mod entry;
mod failure;
mod home;
mod keys;
mod lang;
mod reasons;
mod refusals;
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

use axum::{Router, routing};

pub use civil::Civil;
pub use failure::problem_page;
pub use lang::Lang;
pub use row::{Item, Row};
pub use slot::{Can, Connect, Countdown, Look, Slot};
pub use usage::Usage;
pub use visit::reader_of;
pub use week::{Day, Eyes, Hour, WeekView, window_of};
pub use wish::{Choice, Choices, WishForm};
pub use words::Words;

use super::AppState;

/// One table makes the routes and their list, so that what is tested is what is served.
macro_rules! table {
    ($($method:ident $path:literal => $file:ident :: $handler:ident),* $(,)?) => {
        /// Every route of the pages: method and path.
        pub const PAGES: &[(&str, &str)] = &[$((stringify!($method), $path)),*];

        /// The pages' routes.
        pub fn router() -> Router<AppState> {
            Router::new()$(.route($path, routing::$method($file::$handler)))*
        }
    };
}

table! {
    get "/" => home::show,
    post "/book" => actions::book,
    get "/booking/{id}" => home::booking,
    post "/booking/{id}/certificate" => entry::certificate,
    post "/booking/{id}/{what}" => actions::change,
    get "/calendar" => sign_in::calendar,
    post "/calendar" => sign_in::make_calendar,
    get "/keys" => keys::show,
    post "/keys" => keys::save,
    get "/sign-in" => sign_in::show,
    post "/sign-in" => sign_in::sign_in,
    post "/sign-out" => sign_in::sign_out,
    get "/settings" => visit::settings,
    get "/teacher" => teacher::show,
    get "/teacher/class" => class::show,
    post "/teacher/class" => class::plan,
    post "/teacher/link" => teacher::link,
    post "/teacher/server/{id}" => teacher::server,
    get "/teacher/audit" => audit::show,
    get "/assets/{name}" => assets::asset,
}
