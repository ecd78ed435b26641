use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    core::{Code, Problem},
    hub::{
        domain::{Booking, Course, Epoch, Person, Server, Window},
        http::{Answer, IfMatch, Refused},
    },
};

/// What has a version, and so an ETag.
pub(super) trait Versioned: Serialize {
    fn version(&self) -> i64;
}

macro_rules! versioned {
    ($($kind:ty),*) => {$(impl Versioned for $kind {
        fn version(&self) -> i64 {
            self.version
        }
    })*};
}
versioned!(Booking, Course, Person, Server);

/// The value with its ETag.
pub(super) fn tagged<T: Versioned>(value: &T) -> Response {
    let tag = HeaderValue::from_str(&format!("\"{}\"", value.version()));
    let mut response = Json(value).into_response();
    if let Ok(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// A new value with its ETag and where it is.
pub(super) fn created<T: Versioned>(value: &T, place: &str) -> Response {
    let mut response = tagged(value);
    *response.status_mut() = StatusCode::CREATED;
    if let Ok(place) = HeaderValue::from_str(place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}

/// Says `412` where the version came by `If-Match`.
pub(super) fn matched<T>(outcome: Result<T, Problem>, seen: IfMatch) -> Answer<T> {
    outcome.map_err(|problem| match (problem.code, seen.0) {
        (Code::BookStale, Some(_)) => Refused::with(StatusCode::PRECONDITION_FAILED, problem),
        _ => problem.into(),
    })
}

/// A value that was changed, with its ETag; `412` where it had another version than `If-Match` says.
pub(super) fn changed<T: Versioned>(outcome: Result<T, Problem>, seen: IfMatch) -> Answer<Response> {
    matched(outcome, seen).map(|value| tagged(&value))
}

/// The window of two parameters.
pub(super) fn window(from: Epoch, to: Epoch) -> Answer<Window> {
    Window::new(from, to).map_err(|why| Problem::new(Code::BookWindow, why).into())
}
