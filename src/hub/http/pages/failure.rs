use axum::{
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{
    super::Refused,
    Lang, Words, draw,
    visit::{Frame, html, lang_of},
};
use crate::{
    core::{Code, Problem},
    hub::domain::Epoch,
};

/// A problem as pages show it: what the code means in the viewer's language, and the exact sentence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Trouble {
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: String,
    /// What it means.
    pub meaning: String,
    /// What failed; English.
    pub what: String,
    /// Evidence.
    pub lines: Vec<String>,
    /// What to do.
    pub hints: Vec<String>,
    /// Whether signing in helps.
    pub sign_in: bool,
}

impl Trouble {
    pub fn new(problem: &Problem, status: u16, lang: Lang) -> Self {
        let words = Words::of(lang);
        let private = matches!(problem.code, Code::HubDatabase | Code::Internal);
        let mut hints = vec![words.hint(problem.code)];
        // Hints of their own are English and exact: they stand beside the translated one.
        hints.extend(problem.hints.iter().map(|h| h.0.clone()));
        Self {
            status,
            code: problem.code.to_string(),
            meaning: words.meaning(problem.code),
            what: problem.what.clone(),
            lines: if private { vec![] } else { problem.detail.clone() },
            hints,
            sign_in: problem.code == Code::HubSignIn,
        }
    }
}

/// The page of a refusal, for browsers.
pub fn refused_page(refused: &Refused, headers: &HeaderMap, now: Epoch) -> Response {
    let (lang, status) = (lang_of(headers), refused.status());
    let troubles: Vec<Trouble> =
        refused.problems.iter().map(|p| Trouble::new(p, status.as_u16(), lang)).collect();
    let frame = Frame::open(lang, "/", now);
    let page = draw::draw("problem.html", Words::of(lang), &frame, &troubles);
    // The last resort cannot fail: it is plain text.
    let mut response = match page {
        Ok(text) => (status, html(text)).into_response(),
        Err(problem) => (status, problem.to_string()).into_response(),
    };
    if let Some(seconds) = refused.retry {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
