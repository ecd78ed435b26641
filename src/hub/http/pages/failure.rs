use serde::Serialize;

use super::{super::Refused, Civil, Lang, Words, draw, visit::Frame};
use crate::{
    core::{Code, Problem},
    hub::domain::{Epoch, Zone},
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
    /// Moments are told by the viewer's clock.
    pub fn new(problem: &Problem, status: u16, civil: &Civil) -> Self {
        let words = Words::of(civil.lang);
        let private = matches!(problem.code, Code::HubDatabase | Code::Internal);
        let mut hints = vec![words.hint(problem.code)];
        // Hints of their own are English and exact: they stand beside the translated one.
        hints.extend(problem.hints.iter().map(|h| h.0.clone()));
        Self {
            status,
            code: problem.code.to_string(),
            meaning: words.meaning(problem.code),
            what: civil.zone.told(&problem.what),
            lines: if private { vec![] } else { problem.detail.iter().map(|line| civil.zone.told(line)).collect() },
            hints,
            sign_in: problem.code == Code::HubSignIn,
        }
    }
}

/// The page that says why a request was refused.
pub fn problem_page(refused: &Refused, lang: Lang, now: Epoch) -> String {
    let status = refused.status().as_u16();
    // Whose page it would be is not known here.
    let civil = Civil { zone: Zone::utc(), lang };
    let troubles: Vec<Trouble> = refused.problems.iter().map(|p| Trouble::new(p, status, &civil)).collect();
    let page = draw::draw("problem.html", Words::of(lang), &Frame::open(lang, "/", now), &troubles);
    // The last resort cannot fail, and holds nothing of the request.
    page.unwrap_or_else(|_| format!("<!doctype html><title>kubecamp</title><h1>{}</h1>", refused.problem().code))
}
