use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, OptionalFromRequestParts, Request},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, de::DeserializeOwned};
use sha2::Sha256;

use super::{AppState, Refused, Site};
use crate::{
    core::{Code, Problem, Secret},
    hub::{
        desk::{Caller, MadeToken},
        domain::{Epoch, PersonId},
    },
};

/// The header that carries the session's token in requests of the page's own script.
pub const CSRF_HEADER: &str = "x-csrf-token";
/// Where agents ask and tell.
const FOR_AGENTS: &str = "/api/v1/agent/";

/// Who asks: by `Authorization: Bearer` or by the session cookie.
///
/// As an extractor it also keeps forged requests out: a cookie alone only reads. Whoever changes something with a
/// cookie sends [`Session::csrf`] too: in the header `X-CSRF-Token`, or in a form read by [`Form`].
/// `Option<Session>` is none for somebody who is not signed in.
#[derive(Debug, Clone)]
pub struct Session {
    /// Who.
    pub caller: Caller,
    /// What forms carry in their field `csrf`; bound to this session.
    pub csrf: String,
    /// What signed them in; for signing out.
    pub token: Secret,
    /// Whether it came by cookie.
    pub by_cookie: bool,
}

impl Session {
    /// The person; an agent is none.
    pub fn person(&self) -> Result<&PersonId, Refused> {
        self.caller.person().ok_or_else(|| Problem::new(Code::HubDenied, "this is for people only").into())
    }

    /// Refuses the token of an agent. It lies on a server where others work: whoever takes it from there learns nothing of
    /// the rest of the camp.
    fn is_no_agent(&self) -> Result<(), Refused> {
        if matches!(self.caller, Caller::Agent(_)) {
            let what = "the token of an agent is for the plan and the reports of its server";
            return Err(Problem::new(Code::HubDenied, what).into());
        }
        Ok(())
    }

    fn check(&self, sent: Option<&str>) -> Result<(), Refused> {
        // Both are digests of a secret, so that comparing them byte by byte tells nothing of use about it.
        let good = sent.is_some_and(|s| tag(s.as_bytes(), b"compare") == tag(self.csrf.as_bytes(), b"compare"));
        if good { Ok(()) } else { Err(Problem::new(Code::HubForged, "the form's token is not this session's").into()) }
    }
}

fn tag(key: &[u8], text: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(key).map(|mac| mac.chain_update(text).finalize());
    mac.map(|m| hex::encode(m.into_bytes())).unwrap_or_default()
}

/// The form token of a session: any hub can compute it, and it does not tell the session's own token.
fn csrf_of(token: &Secret) -> String {
    tag(token.expose().as_bytes(), b"kubecamp-csrf")
}

/// `Set-Cookie` that signs a browser in.
pub fn cookie_of(site: &Site, made: &MadeToken, now: Epoch) -> HeaderValue {
    let age = made.row.expires.map_or(0, |end| (end - now).max(0));
    set_cookie(site, made.text.expose(), age)
}

/// `Set-Cookie` that signs a browser out.
pub fn no_cookie(site: &Site) -> HeaderValue {
    set_cookie(site, "", 0)
}

fn set_cookie(site: &Site, value: &str, age: i64) -> HeaderValue {
    let secure = if site.secure { "; Secure" } else { "" };
    let text = format!("{}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age}{secure}", site.cookie());
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The token of a request and whether it came by cookie.
pub(super) fn token_of(headers: &HeaderMap, site: &Site) -> Option<(Secret, bool)> {
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    if let Some(value) = headers.get(header::AUTHORIZATION).and_then(text) {
        let (scheme, token) = value.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| (Secret::new(token.trim()), false));
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(text);
    let all: Vec<String> = cookies.collect();
    let own = all.iter().flat_map(|line| line.split(';')).find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == site.cookie() && !value.is_empty()).then(|| Secret::new(value))
    });
    own.map(|token| (token, true))
}

fn unknown() -> Refused {
    Problem::new(Code::HubSignIn, "sign in first").into()
}

/// The session of a request, by its headers.
pub(super) async fn session_of(headers: &HeaderMap, state: &AppState) -> Result<Session, Refused> {
    let (token, by_cookie) = token_of(headers, &state.site).ok_or_else(unknown)?;
    let caller = state.desk.caller_of(state.now(), &token).await?;
    Ok(Session { caller, csrf: csrf_of(&token), token, by_cookie })
}

fn only_reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

impl FromRequestParts<AppState> for Session {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Refused> {
        let session = session_of(&parts.headers, state).await?;
        if !parts.uri.path().starts_with(FOR_AGENTS) {
            session.is_no_agent()?;
        }
        if session.by_cookie && !only_reads(&parts.method) {
            session.check(parts.headers.get(CSRF_HEADER).and_then(|v| v.to_str().ok()))?;
        }
        Ok(session)
    }
}

impl OptionalFromRequestParts<AppState> for Session {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Option<Self>, Refused> {
        match <Self as FromRequestParts<AppState>>::from_request_parts(parts, state).await {
            Ok(session) => Ok(Some(session)),
            Err(refused) if refused.problem().code == Code::HubSignIn => Ok(None),
            Err(refused) => Err(refused),
        }
    }
}

/// A form of a page: who sent it, and its fields.
///
/// The field `csrf` must be the session's.
#[derive(Debug, Clone)]
pub struct Form<T>(pub Session, pub T);

/// A form of somebody who is not signed in yet.
#[derive(Debug, Clone)]
pub struct OpenForm<T>(pub T);

#[derive(Deserialize)]
struct Csrf {
    csrf: Option<String>,
}

async fn fields<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Refused> {
    if bytes.contains(&0) || memchr_percent_zero(bytes) {
        return Err(Refused::request(StatusCode::BAD_REQUEST, "a field holds a character that no text has"));
    }
    let bad = |e: String| Problem::new(Code::HubInvalid, format!("the form cannot be read: {e}")).into();
    let request = Request::builder()
        .method(Method::POST)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(axum::body::Body::from(bytes.clone()))
        .map_err(|e| bad(e.to_string()))?;
    let read = axum::Form::<T>::from_request(request, &()).await;
    read.map(|form| form.0).map_err(|e| bad(e.body_text()))
}

fn memchr_percent_zero(bytes: &[u8]) -> bool {
    bytes.windows(3).any(|w| w == b"%00")
}

async fn form_bytes(request: Request, state: &AppState) -> Result<Bytes, Refused> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return Err(Refused::request(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the form has another type of content"));
    }
    Bytes::from_request(request, state).await.map_err(|e| Refused::request(e.status(), e.body_text()))
}

impl<T: DeserializeOwned> FromRequest<AppState> for Form<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Refused> {
        let session = session_of(request.headers(), state).await?;
        // Who has a token can compute what its forms carry.
        session.is_no_agent()?;
        let bytes = form_bytes(request, state).await?;
        session.check(fields::<Csrf>(&bytes).await?.csrf.as_deref())?;
        Ok(Self(session, fields(&bytes).await?))
    }
}

impl<T: DeserializeOwned> FromRequest<AppState> for OpenForm<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Refused> {
        let bytes = form_bytes(request, state).await?;
        Ok(Self(fields(&bytes).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_in_header_and_cookie() {
        let (plain, secure) = (Site::new(None, false, false, 0), Site::new(None, true, false, 0));
        let headers = |rows: &[(header::HeaderName, &str)]| {
            rows.iter().map(|(n, v)| (n.clone(), HeaderValue::from_str(v).unwrap())).collect::<HeaderMap>()
        };
        let found = |h: &HeaderMap, site: &Site| token_of(h, site).map(|(t, c)| (t.expose().to_owned(), c));
        let cookie = headers(&[(header::COOKIE, "a=b; kubecamp=kct_x; __Host-kubecamp=kct_y")]);
        assert_eq!(found(&cookie, &plain), Some(("kct_x".into(), true)));
        assert_eq!(found(&cookie, &secure), Some(("kct_y".into(), true)));
        let both = headers(&[(header::COOKIE, "kubecamp=kct_x"), (header::AUTHORIZATION, "bearer kct_z")]);
        assert_eq!(found(&both, &plain), Some(("kct_z".into(), false)));
        assert_eq!(found(&headers(&[(header::AUTHORIZATION, "Basic kct_z")]), &plain), None);
        assert_eq!(found(&headers(&[(header::COOKIE, "kubecamp=")]), &plain), None);
    }

    #[test]
    fn a_form_token_is_the_sessions_own() {
        let session = |text: &str| {
            let token = Secret::new(text);
            Session { caller: Caller::Clerk, csrf: csrf_of(&token), token, by_cookie: true }
        };
        let (one, two) = (session("kct_1"), session("kct_2"));
        assert!(one.check(Some(&one.csrf)).is_ok());
        assert_eq!(one.check(Some(&two.csrf)).unwrap_err().problem().code, Code::HubForged);
        assert!(one.check(None).is_err() && one.check(Some("")).is_err());
        assert!(!one.csrf.contains("kct_1"));
    }
}
