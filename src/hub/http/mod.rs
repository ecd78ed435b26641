//! Belongs: routes, the JSON API, its OpenAPI document, event stream, calendar feeds, sessions, pages.
//! Never: SQL, policy.
//! Start here: `app` in `app.rs`, then `api/mod.rs`; `session.rs` says who asks.

mod api;
mod app;
mod certificate;
mod extract;
mod guard;
mod limit;
mod metrics;
pub mod pages;
mod patient;
mod refusal;
mod room;
mod rounds;
mod server;
mod session;
mod state;
mod tls;

pub use api::{ROUTES, openapi};
pub use app::app;
pub use extract::{ApiJson, ApiPath, ApiQuery, ApiText, IfMatch, NoOnceKey, OnceKey};
pub use guard::Client;
pub use refusal::{Answer, ProblemBody, Refused};
pub use room::raise_open_files;
pub use server::{Listen, Serving, is_loopback, serve};
pub use session::{Form, OpenForm, Session, cookie_of, no_cookie};
pub use state::{AppState, Clock, GateKeys, Site};
