//! Requests that no honest client sends: each is answered, none with a 5xx, and nothing breaks.

use hmac::{Hmac, KeyInit, Mac};
use kubecamp::hub::{
    desk::Caller,
    http::{ROUTES, pages::PAGES},
    store::TokenKind,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{
    served::{Hub, refused},
    world::{NOW, book, healthy, who},
};

/// Stands for calendars by a name of odd bytes.
const ODD: &str = "/calendar/{odd}";

const TEXTS: &[&str] = &[
    "",
    "one",
    "amy",
    "tea",
    "red",
    "k8s",
    "' OR 1=1 --",
    "\"; DROP TABLE bookings; --",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "%2e%2e%2f",
    "a\r\nSet-Cookie: x=y",
    "\u{0}",
    "\u{202e}evil",
    "BEGIN:VEVENT\r\nUID:x",
    "${jndi:ldap://x}",
    "{{7*7}}",
    "2x4c8g",
    "9999999999x9999999999c9999999999g",
    "healthy",
    "api",
    "feed",
    "Europe/Berlin",
    "mon-sun 00:00-24:00",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
];

const KEYS: &[&str] = &[
    "id",
    "person",
    "course",
    "server",
    "labels",
    "layout",
    "window",
    "reason",
    "starts",
    "ends",
    "to",
    "version",
    "first",
    "weekly",
    "zone",
    "weeks",
    "minutes",
    "slots",
    "within",
    "wishes",
    "name",
    "role",
    "active",
    "keys",
    "url",
    "kind",
    "label",
    "health",
    "title",
    "policy",
    "grid",
    "longest",
    "horizon",
    "address",
    "cores",
    "memory",
    "disk",
    "opening",
    "buffer",
    "mode",
    "challenge",
    "signature",
    "link",
    "key",
    "events",
    "seq",
    "clock",
    "revision",
    "holding",
    "start",
    "end",
    "act",
    "once",
    "seen",
    "known",
    "code",
];

/// What a query names.
const PARAMETERS: &[&str] = &[
    "from", "to", "minutes", "person", "subject", "actor", "most", "layout", "labels", "state", "at", "page", "about",
    "by", "lang", "zone", "back", "server",
];

fn number(rng: &mut StdRng) -> i64 {
    let near = 1_795_420_800;
    *[0, -1, 1, 30, i64::MAX, i64::MIN, near, near + 3600, near + 7200, 32_503_680_000, rng.random()]
        .choose(rng)
        .unwrap()
}

fn value(rng: &mut StdRng, depth: u32) -> Value {
    match rng.random_range(0..if depth == 0 { 5 } else { 8 }) {
        0 => json!(number(rng)),
        1 => json!(null),
        2 => json!(rng.random::<bool>()),
        3 => json!(rng.random::<f64>() * 1e300),
        4 => json!(TEXTS.choose(rng).unwrap()),
        5 => json!((0..rng.random_range(0..4)).map(|_| value(rng, depth - 1)).collect::<Vec<_>>()),
        6 => json!({ "starts": number(rng), "ends": number(rng) }),
        _ => object(rng, depth - 1),
    }
}

fn object(rng: &mut StdRng, depth: u32) -> Value {
    let mut map = serde_json::Map::new();
    for _ in 0..rng.random_range(0..8) {
        let value = value(rng, depth);
        map.insert((*KEYS.choose(rng).unwrap()).to_owned(), value);
    }
    Value::Object(map)
}

/// A body that is nearly right, with one thing spoilt.
fn nearly(rng: &mut StdRng) -> Value {
    let from = 1_795_420_800 + 1800 * rng.random_range(0..100);
    let mut body = match rng.random_range(0..5) {
        0 => json!({ "server": "one", "layout": "1x4c12g", "window": { "starts": from, "ends": from + 3600 } }),
        1 => json!({ "id": "new", "name": "New", "role": "student", "keys": [] }),
        2 => json!({ "id": "srv", "address": "h", "cores": 4, "memory": "16GiB", "mode": "shared", "buffer": 600 }),
        3 => json!({ "course": "k8s", "layout": "1x4c12g", "minutes": 60, "slots": 1,
            "within": { "starts": from, "ends": from + 86_400 }, "wishes": [] }),
        _ => json!({ "ends": from, "reason": "x" }),
    };
    if rng.random() {
        let map = body.as_object_mut().unwrap();
        let key = map.keys().nth(rng.random_range(0..map.len())).unwrap().clone();
        map.insert(key, value(rng, 2));
    }
    body
}

fn word(rng: &mut StdRng, known: &[String]) -> String {
    if rng.random_bool(0.5) { known.choose(rng).unwrap().clone() } else { (*TEXTS.choose(rng).unwrap()).to_owned() }
}

/// Method and path of what is asked for.
fn drawn(rng: &mut StdRng) -> (&'static str, &'static str) {
    match rng.random_range(0..10) {
        0 | 1 => *PAGES.choose(rng).unwrap(),
        2 => ("get", ODD),
        _ => *ROUTES.choose(rng).unwrap(),
    }
}

/// Any bytes, as they stand in an address.
fn odd(rng: &mut StdRng) -> String {
    (0..rng.random_range(1..12)).map(|_| format!("%{:02X}", rng.random::<u8>())).collect()
}

fn address(rng: &mut StdRng, base: &str, path: &str, known: &[String], feed: &str) -> reqwest::Url {
    let mut url = reqwest::Url::parse(base).unwrap();
    if path == ODD {
        let name = if rng.random_bool(0.5) { odd(rng) } else { feed.to_owned() };
        let rest = match rng.random_range(0..3) {
            0 => "slots.ics".to_owned(),
            1 => format!("servers/{}", odd(rng)),
            _ => odd(rng),
        };
        return url.join(&format!("/calendar/{name}/{rest}")).unwrap();
    }
    let parts: Vec<String> = path
        .split('/')
        .skip(1)
        .map(|part| if part.starts_with('{') { word(rng, known) } else { part.to_owned() })
        .collect();
    url.path_segments_mut().unwrap().clear().extend(&parts);
    for _ in 0..rng.random_range(0..4) {
        let name = *PARAMETERS.choose(rng).unwrap();
        let text = if rng.random() { number(rng).to_string() } else { word(rng, known) };
        url.query_pairs_mut().append_pair(name, &text);
    }
    url
}

/// What the forms of a token carry: whoever has it can compute that.
fn csrf(token: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(token.as_bytes()).unwrap().chain_update(b"kubecamp-csrf");
    hex::encode(mac.finalize().into_bytes())
}

/// The fields of a form, or what is none.
fn form(rng: &mut StdRng, token: &str, known: &[String]) -> String {
    if rng.random_bool(0.1) {
        return (0..40).map(|_| char::from(rng.random_range(b' '..=b'~'))).collect();
    }
    let mut body = reqwest::Url::parse("http://form/").unwrap();
    if rng.random_bool(0.8) {
        body.query_pairs_mut().append_pair("csrf", &csrf(token));
    }
    for _ in 0..rng.random_range(0..6) {
        let (name, text) = (*KEYS.choose(rng).unwrap(), word(rng, known));
        body.query_pairs_mut().append_pair(name, &text);
    }
    body.query().unwrap_or_default().to_owned()
}

/// Headers and a body of whatever kind; pages take forms.
fn filled(
    rng: &mut StdRng,
    mut request: RequestBuilder,
    is_page: bool,
    token: &str,
    known: &[String],
) -> RequestBuilder {
    if !token.is_empty() {
        request = request.header("Authorization", format!("Bearer {token}").into_bytes());
    }
    if rng.random_bool(0.3) {
        let tag = *["\"1\"", "1", "\"-1\"", "*", "\"9223372036854775807\""].choose(rng).unwrap();
        request = request.header("If-Match", tag);
    }
    if rng.random_bool(0.3) {
        request = request.header("Idempotency-Key", format!("k{}", rng.random_range(0..20)));
    }
    if rng.random_bool(if is_page { 0.8 } else { 0.05 }) {
        let body = form(rng, token, known);
        return request.header("Content-Type", "application/x-www-form-urlencoded").body(body);
    }
    match rng.random_range(0..10) {
        0 => request
            .header("Content-Type", "application/json")
            .body((0..40).map(|_| rng.random::<u8>()).collect::<Vec<_>>()),
        1 => request.header("Content-Type", "text/csv").body(word(rng, known)),
        2 => request.json(&value(rng, 3)),
        3 | 4 => request.json(&object(rng, 3)),
        _ => request.json(&nearly(rng)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_breaks_the_hub() {
    no_request_breaks(&Hub::start().await).await;
}

/// Asks a hub as no honest client does.
pub async fn no_request_breaks(hub: &Hub) {
    let booking = book(&hub.desk, "amy", 60, 120).await;
    let made = hub.desk.make_agent_token(&Caller::Console, NOW, &"one".parse().unwrap()).await.unwrap();
    let agent = made.text.expose().to_owned();
    let feed = hub.desk.make_token(&who("amy"), NOW, TokenKind::Feed, "test").await.unwrap().text;
    let tokens =
        [String::new(), hub.token("amy").await, hub.token("tea").await, hub.admin().await, agent, "kct_\u{e9}".into()];
    let known = [booking.id.to_string(), "one".into(), "amy".into(), "red".into(), "k8s".into(), "1".into()];
    let seed = 20_261_123;
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut good, mut bad) = (0, 0);
    for round in 0..1500 {
        let (method, path) = drawn(&mut rng);
        // Whoever is signed out is nobody for the rest of the rounds.
        let is_over = path.ends_with("/sign-out") && round < 1400;
        if path == "/api/v1/events" || is_over {
            continue;
        }
        let is_page = PAGES.contains(&(method, path));
        let url = address(&mut rng, &hub.base, path, &known, feed.expose());
        let method: Method = method.to_uppercase().parse().unwrap();
        let token = tokens.choose(&mut rng).unwrap();
        let request = hub.client.request(method.clone(), url.clone());
        let request = filled(&mut rng, request, is_page, token, &known);
        let answer = request.send().await.unwrap_or_else(|e| panic!("round {round} {method} {url}: {e}"));
        let status = answer.status();
        assert!(
            !status.is_server_error(),
            "seed {seed} round {round} {method} {url}: {status} {:?}",
            answer.text().await
        );
        if status.is_success() || status.is_redirection() {
            good += 1;
        } else {
            bad += 1;
            // A page may say on itself what is wrong.
            if !is_page {
                refused(answer).await;
            }
        }
    }
    assert!(good > 50 && bad > 200, "{good} good, {bad} bad: the fuzz does not reach what it should");
    healthy(&hub.desk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_text_stays_text() {
    let hub = Hub::start().await;
    let admin = hub.admin().await;
    for text in ["'; DROP TABLE people; --", "<img src=x onerror=alert(1)>", "Robert\"); --"] {
        let body = json!({ "id": format!("p{}", text.len()), "name": text, "role": "student" });
        let made: Value = hub.post("/api/v1/people", &admin, &body).await.json().await.unwrap();
        assert_eq!(made["name"], text);
    }
    assert!(hub.get("/api/v1/people", &admin).await.as_array().unwrap().len() >= 8);
    // Headers and paths.
    let page =
        hub.ask(Method::GET, "/<script>alert(1)</script>", "").header("Accept", "text/html").send().await.unwrap();
    assert!(!page.text().await.unwrap().contains("<script>alert"));
    let forged = hub.ask(Method::GET, "/api/v1/people/amy%0d%0aSet-Cookie:x=y", &admin).send().await.unwrap();
    assert!(!forged.headers().contains_key("set-cookie"));
    assert_eq!(refused(forged).await.0, 404);
    let large = "x".repeat(3 << 20);
    let answer = hub.ask(Method::POST, "/api/v1/people", &admin).header("Content-Type", "application/json").body(large);
    // A server may close before it has read all of it.
    if let Ok(answer) = answer.send().await {
        assert_eq!(answer.status(), 413);
    }
    healthy(&hub.desk).await;
}
