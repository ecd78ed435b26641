use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{self, ContentBuilder, Ref, RefOr, ResponseBuilder},
};

use crate::{
    core::{Class, Code, Problem, Problems},
    hub::{desk::Refusal, domain::Free},
};

/// The media type of a refusal (RFC 9457).
const MEDIA_TYPE: &str = "application/problem+json";

/// What handlers answer with.
pub type Answer<T> = Result<T, Refused>;

/// A request that was refused: a [`ProblemBody`] for programs, a page for people (`guard.rs` decides).
#[derive(Debug, Clone)]
pub struct Refused {
    /// Why; several where a file has several wrong lines.
    pub problems: Vec<Problem>,
    /// Free slots near the one that was asked for.
    pub alternatives: Vec<Free>,
    /// The status, where the code's own does not fit.
    pub status: Option<StatusCode>,
    /// After how many seconds another try makes sense.
    pub retry: Option<u64>,
}

/// An error, as RFC 9457 has it, with the stable code and hints.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ProblemBody {
    /// `urn:kubecamp:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the code means.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What failed this time.
    pub detail: String,
    /// The stable code.
    #[schema(value_type = String, example = "KC-BOOK-CONFLICT")]
    pub code: Code,
    /// What to do.
    pub hints: Vec<String>,
    /// Evidence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
    /// The line of an uploaded file, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Up to three free slots of the same length, nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<Free>,
    /// All that was found wrong, where it is more than one thing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(no_recursion)]
    pub others: Vec<ProblemBody>,
}

impl Refused {
    /// A refusal with a status that the code alone does not say.
    pub fn with(status: StatusCode, problem: Problem) -> Self {
        Self { status: Some(status), ..Self::from(problem) }
    }

    /// A request that cannot be read.
    pub fn request(status: StatusCode, what: impl Into<String>) -> Self {
        Self::with(status, Problem::new(Code::HubRequest, what))
    }

    /// The first problem.
    pub fn problem(&self) -> Problem {
        self.problems.first().cloned().unwrap_or_else(|| Problem::new(Code::Internal, "a refusal without a reason"))
    }

    /// Its HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status.unwrap_or_else(|| status_of(self.problem().code))
    }

    /// Its body for programs.
    ///
    /// What databases say stays in the log.
    pub fn body(&self) -> ProblemBody {
        let mut all = self.problems.iter().map(|p| body_of(p, self.status()));
        let mut first = all.next().unwrap_or_else(|| body_of(&self.problem(), self.status()));
        first.alternatives.clone_from(&self.alternatives);
        first.others = all.collect();
        first
    }
}

/// Whether the evidence of such a problem is for the log only: it is what a database or a defect says.
pub(super) fn is_private(code: Code) -> bool {
    matches!(code, Code::HubDatabase | Code::HubFull | Code::Internal)
}

fn body_of(problem: &Problem, status: StatusCode) -> ProblemBody {
    ProblemBody {
        kind: format!("urn:kubecamp:{}", problem.code),
        title: problem.code.meaning().to_owned(),
        status: status.as_u16(),
        detail: problem.what.clone(),
        code: problem.code,
        hints: problem.all_hints(),
        lines: if is_private(problem.code) { vec![] } else { problem.detail.clone() },
        line: problem.at.as_ref().map(|at| at.line),
        alternatives: vec![],
        others: vec![],
    }
}

/// The HTTP status of each code.
fn status_of(code: Code) -> StatusCode {
    match code {
        Code::HubUnknown => StatusCode::NOT_FOUND,
        Code::HubExists => StatusCode::CONFLICT,
        Code::HubRequest => StatusCode::BAD_REQUEST,
        Code::HubSignIn => StatusCode::UNAUTHORIZED,
        Code::HubLocked | Code::HubTooMany => StatusCode::TOO_MANY_REQUESTS,
        Code::HubBusy => StatusCode::SERVICE_UNAVAILABLE,
        Code::HubFull => StatusCode::INSUFFICIENT_STORAGE,
        _ => match code.class() {
            Class::Input => StatusCode::UNPROCESSABLE_ENTITY,
            Class::Conflict | Class::Closed => StatusCode::CONFLICT,
            Class::Quota | Class::Denied => StatusCode::FORBIDDEN,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        },
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem], alternatives: vec![], status: None, retry: None }
    }
}

impl From<Problems> for Refused {
    fn from(problems: Problems) -> Self {
        Self { problems: problems.into_vec(), alternatives: vec![], status: None, retry: None }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { alternatives: refusal.alternatives, ..Self::from(refusal.problem) }
    }
}

/// As the document of the API has it, for each route that may refuse.
impl IntoResponses for Refused {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        let body = ContentBuilder::new().schema(Some(Ref::from_schema_name(ProblemBody::name())));
        let response = ResponseBuilder::new().content(MEDIA_TYPE, body).build();
        BTreeMap::from([("4XX".to_owned(), RefOr::T(response))])
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = (status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let retry = self.retry.or((status == StatusCode::SERVICE_UNAVAILABLE).then_some(1));
        if let Some(seconds) = retry {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // The guard turns it into a page where a browser asked, and logs it.
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_of_the_document_is_a_problem() {
        let schema = json!({ "$ref": "#/components/schemas/ProblemBody" });
        let written = serde_json::to_value(Refused::responses()).unwrap();
        assert_eq!(written, json!({ "4XX": { "content": { "application/problem+json": { "schema": schema } } } }));
    }

    #[test]
    fn a_full_disk_has_a_status_of_its_own_and_keeps_its_evidence() {
        let problem = Problem::new(Code::HubFull, "the database has no space left").detail(["/var/lib/hub"]);
        let body = Refused::from(problem).body();
        assert_eq!((body.status, body.code), (507, Code::HubFull));
        assert!(body.lines.is_empty() && !body.hints.is_empty(), "{body:?}");
    }
}
