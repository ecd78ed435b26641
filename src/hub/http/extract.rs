use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{AppState, Refused};
use crate::core::{Code, Problem};

/// A JSON body.
///
/// Text with a NUL is refused: no text has one, and PostgreSQL cannot keep it.
#[derive(Debug, Clone)]
pub struct ApiJson<T>(pub T);

/// A body of plain text or CSV.
#[derive(Debug, Clone)]
pub struct ApiText(pub String);

/// Parameters after `?`.
#[derive(Debug, Clone)]
pub struct ApiQuery<T>(pub T);

/// Parts of the path; one that is not an id is not found.
#[derive(Debug, Clone)]
pub struct ApiPath<T>(pub T);

/// The version in `If-Match`; none when there is no such header.
///
/// `*` is refused: it would be no condition where a row has to be there.
#[derive(Debug, Clone, Copy)]
pub struct IfMatch(pub Option<i64>);

/// The `Idempotency-Key`.
#[derive(Debug, Clone)]
pub struct OnceKey(pub Option<String>);

/// That there is no `Idempotency-Key`: the answer holds a secret, which is kept nowhere and so cannot be given twice.
#[derive(Debug, Clone, Copy)]
pub struct NoOnceKey;

impl<T: DeserializeOwned> FromRequest<AppState> for ApiJson<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Refused> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if kind != "application/json" {
            return Err(Refused::request(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send JSON: application/json"));
        }
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|e| Refused::request(e.status(), format!("the body cannot be read: {}", e.body_text())))?;
        read_json(&bytes).map(Self)
    }
}

impl FromRequest<AppState> for ApiText {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Refused> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("text/") {
            return Err(Refused::request(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send text: text/csv"));
        }
        let text = String::from_request(request, state)
            .await
            .map_err(|e| Refused::request(e.status(), format!("the body cannot be read: {}", e.body_text())))?;
        if text.contains('\0') {
            return Err(Refused::request(StatusCode::BAD_REQUEST, "the text holds the character U+0000"));
        }
        Ok(Self(text))
    }
}

fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refused> {
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|e| Refused::request(StatusCode::BAD_REQUEST, format!("the body is not JSON: {e}")))?;
    if has_nul(&value) {
        return Err(Refused::request(StatusCode::BAD_REQUEST, "a text of the body holds the character U+0000"));
    }
    serde_json::from_value(value)
        .map_err(|e| Problem::new(Code::HubInvalid, format!("the body is not as expected: {e}")).into())
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(all) => all.iter().any(has_nul),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        _ => false,
    }
}

impl<T: DeserializeOwned> FromRequestParts<AppState> for ApiQuery<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Refused> {
        if parts.uri.query().is_some_and(|q| q.contains("%00")) {
            return Err(Refused::request(StatusCode::BAD_REQUEST, "a parameter holds the character U+0000"));
        }
        let read = Query::<T>::from_request_parts(parts, state).await;
        read.map(|q| Self(q.0)).map_err(|e| Problem::new(Code::HubInvalid, e.body_text()).into())
    }
}

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for ApiPath<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Refused> {
        let read = Path::<T>::from_request_parts(parts, state).await;
        read.map(|p| Self(p.0)).map_err(|e| Problem::new(Code::HubUnknown, e.body_text()).into())
    }
}

impl FromRequestParts<AppState> for IfMatch {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _state: &AppState) -> Result<Self, Refused> {
        version(&parts.headers).map(Self)
    }
}

fn version(headers: &HeaderMap) -> Result<Option<i64>, Refused> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let number = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).and_then(|t| t.parse().ok());
    let bad = || Refused::request(StatusCode::BAD_REQUEST, "If-Match is one ETag that the hub gave, as \"3\"");
    number.map(Some).ok_or_else(bad)
}

impl FromRequestParts<AppState> for OnceKey {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _state: &AppState) -> Result<Self, Refused> {
        let Some(value) = parts.headers.get("idempotency-key") else { return Ok(Self(None)) };
        let text = value.to_str().unwrap_or_default().trim().to_owned();
        if text.is_empty() || text.len() > 200 {
            let what = "an Idempotency-Key has 1 to 200 printable characters";
            return Err(Refused::request(StatusCode::BAD_REQUEST, what));
        }
        Ok(Self(Some(text)))
    }
}

impl FromRequestParts<AppState> for NoOnceKey {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _state: &AppState) -> Result<Self, Refused> {
        if !parts.headers.contains_key("idempotency-key") {
            return Ok(Self);
        }
        let what = "this address takes no Idempotency-Key: its answer holds a secret, which is not kept";
        let problem = Problem::new(Code::HubRequest, what)
            .hint("Send it without one; where an answer was lost, ask again and revoke what was made before.");
        Err(Refused::with(StatusCode::BAD_REQUEST, problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_or_refused() {
        let of = |text: &str| {
            let value = axum::http::HeaderValue::from_str(text).unwrap();
            version(&[(header::IF_MATCH, value)].into_iter().collect()).ok()
        };
        assert_eq!(of("\"3\""), Some(Some(3)));
        assert_eq!(version(&HeaderMap::new()).ok(), Some(None));
        for bad in ["*", "3", "W/\"3\"", "\"x\"", "\"1\", \"2\"", "\"99999999999999999999\"", ""] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn nul_is_refused_wherever_it_hides() {
        for text in [r#"{"a":"\u0000"}"#, r#"[["x\u0000"]]"#, r#"{"a\u0000":1}"#] {
            assert!(read_json::<Value>(text.as_bytes()).is_err(), "{text}");
        }
        assert!(read_json::<Value>(br#"{"a":"b"}"#).is_ok());
        let deep = "[".repeat(5000);
        assert!(read_json::<Value>(deep.as_bytes()).is_err());
    }
}
