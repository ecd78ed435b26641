use std::{
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{Html, IntoResponse, Response},
};
use futures::FutureExt;

use super::{AppState, Refused, pages};
use crate::core::{Code, Problem};

/// A request that takes longer than this is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Both ends of a connection; those of a Unix socket have no address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// Where it comes from.
    pub from: Option<IpAddr>,
    /// Which of this computer's addresses it came to.
    pub to: Option<IpAddr>,
}

impl Peer {
    /// Whether it is on this computer, as far as the connection itself tells.
    ///
    /// Whoever calls an address of the same computer calls from that address, unless they choose another one.
    pub fn is_here(self) -> bool {
        // On a socket for both families an IPv4 address is written as an IPv6 one.
        let to = self.to.map(|ip| ip.to_canonical());
        self.from.map(|ip| ip.to_canonical()).is_none_or(|from| from.is_loopback() || to == Some(from))
    }
}

/// What a page may load and do: only what the hub itself serves, and no inline script or style.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
                      connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; \
                      frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

/// Stands around every route: limits, time, defects, log, counters, headers.
///
/// It logs the route and never the path, since a path may hold a calendar's token.
pub(super) async fn guard(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("none".to_owned(), |p| p.as_str().to_owned());
    let client = client_of(&request, state.site.behind_proxy);
    request.extensions_mut().insert(Client(client.clone()));
    let page = wants_page(request.headers(), &route).then(|| request.headers().clone());
    let mut response = match admitted(&state, &request, &client) {
        Ok(()) => answer(request, next).await,
        Err(refused) => refused.into_response(),
    };
    let refused = response.extensions_mut().remove::<Arc<Refused>>();
    let took = began.elapsed();
    note(&method, &route, &client, response.status(), took, refused.as_deref());
    state.site.metrics.request(&method, &route, response.status(), took);
    if let (Some(headers), Some(refused)) = (page, refused) {
        let reader = pages::reader_of(&state, &headers, &refused).await;
        let (mut parts, _) = response.into_parts();
        parts.headers.remove(header::CONTENT_TYPE);
        parts.headers.remove(header::CONTENT_LENGTH);
        response = (parts, Html(pages::problem_page(&refused, &reader, state.now()))).into_response();
    }
    finish(response, state.site.secure)
}

async fn answer(request: Request, next: Next) -> Response {
    let running = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(PATIENCE, running).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Refused::from(Problem::new(Code::Internal, "the hub failed in this request")).into_response(),
        Err(_) => Refused::from(Problem::new(Code::HubBusy, "the request took too long")).into_response(),
    }
}

/// Keeps out who asks too much, and forms of other sites.
fn admitted(state: &AppState, request: &Request, client: &str) -> Result<(), Refused> {
    if let Err(seconds) = state.site.limiter.take(client) {
        let problem = Problem::new(Code::HubTooMany, format!("try again in {seconds} s"));
        return Err(Refused { retry: Some(seconds), ..problem.into() });
    }
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let text = |name| request.headers().get(name).and_then(|v| v.to_str().ok());
    let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
    let host = |url: &str| url.split_once("://").map(|(_, rest)| rest.to_ascii_lowercase());
    let origin_host = host(origin);
    let own = origin_host.is_some()
        && (origin_host == text(header::HOST).map(str::to_ascii_lowercase)
            || origin_host == state.site.public_url.as_deref().and_then(host));
    if own { Ok(()) } else { Err(Problem::new(Code::HubForged, "the request comes from another site").into()) }
}

/// Who is counted: an address, or the network of an IPv6 one, since one subscriber has all of it.
pub(super) fn client_of(request: &Request, behind_proxy: bool) -> String {
    let peer = request.extensions().get::<Peer>().and_then(|p| p.from);
    let forwarded = request.headers().get_all("x-forwarded-for").iter().next_back();
    let forwarded = forwarded.and_then(|v| v.to_str().ok()?.rsplit(',').next()?.trim().parse::<IpAddr>().ok());
    forwarded.filter(|_| behind_proxy).or(peer).map_or("unix".to_owned(), network_of)
}

/// An address, or the network of an IPv6 one.
pub(super) fn network_of(ip: IpAddr) -> String {
    match ip {
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => ip.to_string(),
            None => {
                format!("{:x}:{:x}:{:x}:{:x}::", ip.segments()[0], ip.segments()[1], ip.segments()[2], ip.segments()[3])
            }
        },
        IpAddr::V4(ip) => ip.to_string(),
    }
}

/// The client of a request, as an extractor: for limits of its own.
#[derive(Debug, Clone)]
pub struct Client(pub String);

impl axum::extract::FromRequestParts<AppState> for Client {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, _: &AppState) -> Result<Self, Refused> {
        let found = parts.extensions.get::<Self>().cloned();
        found.ok_or_else(|| Problem::new(Code::Internal, "a request came past the guard").into())
    }
}

fn wants_page(headers: &HeaderMap, route: &str) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    !route.starts_with("/api/") && accept.contains("text/html")
}

fn note(method: &Method, route: &str, client: &str, status: StatusCode, took: Duration, refused: Option<&Refused>) {
    let ms = took.as_millis() as u64;
    let (status, code) = (status.as_u16(), refused.map(|r| r.problem().code.as_str()));
    if status >= 500 {
        let why = refused.map(|r| r.problem().to_string());
        tracing::error!(%method, route, client, status, ms, code, why, "request");
    } else {
        tracing::info!(%method, route, client, status, ms, code, "request");
    }
}

fn finish(mut response: Response, secure: bool) -> Response {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if secure {
        let year = HeaderValue::from_static("max-age=31536000");
        headers.entry(header::STRICT_TRANSPORT_SECURITY).or_insert(year);
    }
    response
}

/// A path that the hub does not have.
pub(super) async fn not_found() -> Refused {
    Refused::with(StatusCode::NOT_FOUND, Problem::new(Code::HubRequest, "there is nothing at this address"))
}

/// A method that a route does not have.
pub(super) async fn wrong_method() -> Refused {
    Refused::request(StatusCode::METHOD_NOT_ALLOWED, "this address does not take this method")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(peer: Option<&str>, forwarded: Option<&str>) -> Request {
        let mut request = Request::new(axum::body::Body::empty());
        request.extensions_mut().insert(Peer { from: peer.map(|p| p.parse().unwrap()), to: None });
        if let Some(text) = forwarded {
            request.headers_mut().insert("x-forwarded-for", HeaderValue::from_str(text).unwrap());
        }
        request
    }

    #[test]
    fn this_computer_is_known_by_whichever_of_its_addresses_it_calls() {
        for (from, to, here) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("::1", "::1", true),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1", true),
            ("192.0.2.2", "192.0.2.2", true),
            ("::ffff:192.0.2.2", "::ffff:192.0.2.2", true),
            ("2001:db8::2", "2001:db8::2", true),
            ("192.0.2.3", "192.0.2.2", false),
            ("::ffff:192.0.2.3", "::ffff:192.0.2.2", false),
            ("2001:db8::3", "2001:db8::2", false),
        ] {
            let peer = Peer { from: Some(from.parse().unwrap()), to: Some(to.parse().unwrap()) };
            assert_eq!(peer.is_here(), here, "{from} to {to}");
        }
        assert!(Peer { from: None, to: None }.is_here(), "a Unix socket");
        assert!(!Peer { from: Some("192.0.2.2".parse().unwrap()), to: None }.is_here());
    }

    #[test]
    fn a_client_is_who_connects_unless_a_proxy_is_declared() {
        assert_eq!(client_of(&from(Some("192.0.2.1"), Some("10.0.0.1")), false), "192.0.2.1");
        assert_eq!(client_of(&from(Some("127.0.0.1"), Some("1.1.1.1, 10.0.0.1")), true), "10.0.0.1");
        assert_eq!(client_of(&from(Some("127.0.0.1"), Some("nonsense")), true), "127.0.0.1");
        assert_eq!(client_of(&from(Some("2001:db8:1:2:3::4"), None), false), "2001:db8:1:2::");
        assert_eq!(client_of(&from(Some("::ffff:192.0.2.1"), None), false), "192.0.2.1");
        assert_eq!(client_of(&from(None, None), false), "unix");
    }
}
