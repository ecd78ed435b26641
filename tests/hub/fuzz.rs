//! Requests that no honest client sends: each is answered, none with a 5xx, and nothing breaks.

use kubecamp::hub::http::ROUTES;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    served::{Hub, refused},
    world::{book, healthy},
};

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

#[tokio::test(flavor = "multi_thread")]
async fn no_request_breaks_the_hub() {
    let hub = Hub::start().await;
    let booking = book(&hub.desk, "amy", 60, 120).await;
    let one = "one".parse().unwrap();
    let made = hub.desk.make_agent_token(&kubecamp::hub::desk::Caller::Console, super::world::NOW, &one).await.unwrap();
    let agent = made.text.expose().to_owned();
    let tokens =
        [String::new(), hub.token("amy").await, hub.token("tea").await, hub.admin().await, agent, "kct_\u{e9}".into()];
    let known = [booking.id.to_string(), "one".into(), "amy".into(), "red".into(), "k8s".into(), "1".into()];
    let seed = 20_261_123;
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut good, mut bad) = (0, 0);
    for round in 0..1500 {
        let (method, path) = *ROUTES.choose(&mut rng).unwrap();
        if path == "/api/v1/events" {
            continue;
        }
        let mut url = reqwest::Url::parse(&hub.base).unwrap();
        let parts: Vec<String> = path
            .split('/')
            .skip(1)
            .map(|part| if part.starts_with('{') { word(&mut rng, &known) } else { part.to_owned() })
            .collect();
        url.path_segments_mut().unwrap().clear().extend(&parts);
        for _ in 0..rng.random_range(0..4) {
            let name = *["from", "to", "minutes", "person", "subject", "actor", "most", "layout", "labels", "state"]
                .choose(&mut rng)
                .unwrap();
            let text = if rng.random() { number(&mut rng).to_string() } else { word(&mut rng, &known) };
            url.query_pairs_mut().append_pair(name, &text);
        }
        let method: Method = method.to_uppercase().parse().unwrap();
        let mut request = hub.client.request(method.clone(), url.clone());
        let token = tokens.choose(&mut rng).unwrap();
        if !token.is_empty() {
            request = request.header("Authorization", format!("Bearer {token}").into_bytes());
        }
        if rng.random_bool(0.3) {
            request = request.header(
                "If-Match",
                *["\"1\"", "1", "\"-1\"", "*", "\"9223372036854775807\""].choose(&mut rng).unwrap(),
            );
        }
        if rng.random_bool(0.3) {
            request = request.header("Idempotency-Key", format!("k{}", rng.random_range(0..20)));
        }
        request = match rng.random_range(0..10) {
            0 => request
                .header("Content-Type", "application/json")
                .body((0..40).map(|_| rng.random::<u8>()).collect::<Vec<_>>()),
            1 => request.header("Content-Type", "text/csv").body(word(&mut rng, &known)),
            2 => request.json(&value(&mut rng, 3)),
            3 | 4 => request.json(&object(&mut rng, 3)),
            _ => request.json(&nearly(&mut rng)),
        };
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
            refused(answer).await;
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
