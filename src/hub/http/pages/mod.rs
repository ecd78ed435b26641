//! Belongs: pages for people, rendered on the server.
//! Never: SQL, policy, JSON.
//! Start here: `router` below.

use axum::Router;

use super::{AppState, Refused};

/// The routes of all pages.
pub fn router() -> Router<AppState> {
    Router::new()
}

/// The page that says why a request was refused.
pub fn problem_page(refused: &Refused) -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let problem = refused.problem();
    let hints: String = problem.all_hints().iter().map(|h| format!("<p>{}</p>", escape(h))).collect();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{code}</title><h1>{title}</h1><p>{what}</p>{hints}</html>",
        code = problem.code,
        title = escape(problem.code.meaning()),
        what = escape(&problem.what)
    )
}
