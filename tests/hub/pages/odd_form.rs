//! Forms and addresses that no honest browser sends: nothing of ours breaks, and foreign text stays text.

use kubecamp::hub::http::pages::PAGES;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use reqwest::{Method, Response, header};

use crate::hub::{
    browser::Browser,
    served::Hub,
    world::{book, healthy},
};

const TEXTS: &[&str] = &[
    "",
    "one",
    "amy",
    "tea",
    "k8s",
    "1",
    "-1",
    "9223372036854775807",
    "1795424400",
    "1795428000",
    "99999999999999999999",
    "2026-11-24T14:00",
    "2026-11-24T15:00",
    "2026-11-24T14:07",
    "2026-11-24",
    "0000-00-00T00:00",
    "9999-12-31T23:59",
    "book",
    "wait",
    "plan",
    "healthy",
    "1x4c12g",
    "2x4c8g",
    "' OR 1=1 --",
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}",
    "{% include \"base.html\" %}",
    "../../etc/passwd",
    "//evil.example",
    "a\r\nSet-Cookie: x=y",
    "\u{202e}evil",
    "\u{0}",
    "zh",
    "Asia/Shanghai",
    "amy: 2026-11-24T14:00/18:00",
    "ssh-ed25519 AAAA",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
];

/// Every field that a form or an address of the pages has.
const FIELDS: &[&str] = &[
    "server",
    "start",
    "end",
    "starts_at",
    "ends_at",
    "layout",
    "person",
    "reason",
    "act",
    "once",
    "version",
    "ends",
    "to",
    "course",
    "minutes",
    "slots",
    "wishes",
    "seen",
    "keys",
    "key",
    "known",
    "health",
    "code",
    "from",
    "at",
    "page",
    "about",
    "by",
    "lang",
    "zone",
    "back",
];

fn text(rng: &mut StdRng, known: &[&str]) -> String {
    let from = if rng.random_bool(0.3) { known } else { TEXTS };
    (*from.choose(rng).unwrap()).to_owned()
}

/// A form that is nearly right for its route, with some fields spoilt.
fn form(rng: &mut StdRng, path: &str, known: &[&str]) -> Vec<(&'static str, String)> {
    let right: &[(&'static str, &str)] = match path {
        "/book" => &[
            ("server", "one"),
            ("start", "2026-11-24T14:00"),
            ("end", "2026-11-24T15:00"),
            ("layout", "1x4c12g"),
            ("act", "book"),
        ],
        "/teacher/class" => &[
            ("course", "k8s"),
            ("layout", "1x4c12g"),
            ("minutes", "60"),
            ("slots", "1"),
            ("start", "2026-11-24T08:00"),
            ("end", "2026-11-25T20:00"),
            ("act", "plan"),
        ],
        "/teacher/server/{id}" => &[("health", "away"), ("reason", "x")],
        "/teacher/link" => &[("person", "amy")],
        "/booking/{id}/{what}" => &[("reason", "x"), ("ends", "1795428000"), ("to", "bob")],
        _ => &[],
    };
    let mut fields: Vec<(&'static str, String)> = right.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
    for _ in 0..rng.random_range(0..3) {
        match fields.len() {
            0 => {}
            n => fields[rng.random_range(0..n)].1 = text(rng, known),
        }
    }
    for _ in 0..rng.random_range(0..3) {
        fields.push((*FIELDS.choose(rng).unwrap(), text(rng, known)));
    }
    fields
}

fn filled(rng: &mut StdRng, path: &str, known: &[&str]) -> reqwest::Url {
    let mut url = reqwest::Url::parse("http://hub/").unwrap();
    let parts: Vec<String> = path
        .split('/')
        .skip(1)
        .map(|part| match part {
            "{what}" if rng.random_bool(0.8) => {
                (*["cancel", "cancel-series", "release", "accept", "extend", "give"].choose(rng).unwrap()).to_owned()
            }
            "{name}" if rng.random_bool(0.5) => "hub.css".to_owned(),
            part if part.starts_with('{') => text(rng, known),
            part => part.to_owned(),
        })
        .collect();
    url.path_segments_mut().unwrap().clear().extend(&parts);
    for _ in 0..rng.random_range(0..4) {
        let value = text(rng, known);
        url.query_pairs_mut().append_pair(FIELDS.choose(rng).unwrap(), &value);
    }
    url
}

/// What every answer of a page must be, whatever was asked.
async fn sound(answer: Response, what: &str) -> bool {
    let status = answer.status();
    assert!(!status.is_server_error(), "{what}: {status} {:?}", answer.text().await);
    let headers = answer.headers().clone();
    for cookie in headers.get_all(header::SET_COOKIE) {
        assert!(cookie.to_str().unwrap().starts_with("kubecamp"), "{what}: {cookie:?}");
    }
    if status.is_redirection() {
        let to = headers[header::LOCATION].to_str().unwrap();
        assert!(to.starts_with('/') && !to.starts_with("//"), "{what} leads to {to}");
        return true;
    }
    let kind = headers[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    let asset = what.contains("/assets/") && status.is_success();
    assert!(asset || kind == "text/html; charset=utf-8", "{what}: {kind}");
    let text = answer.text().await.unwrap();
    for bad in ["<script>alert", "<img src=x", "<b>x"] {
        assert!(!text.contains(bad), "{what}: {bad} in {text}");
    }
    assert!(asset || text.trim_end().ends_with("</html>"), "{what}: {text}");
    status.is_success()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_form_breaks_a_page() {
    no_form_breaks(&Hub::start().await).await;
}

/// Fills in the pages of a hub as no honest browser does.
pub async fn no_form_breaks(hub: &Hub) {
    let booking = book(&hub.desk, "amy", 60, 120).await.id.to_string();
    hub.admin().await;
    let (amy, tea, ann) = (
        Browser::sign_in(hub, "amy").await,
        Browser::sign_in(hub, "tea").await,
        Browser::sign_in(hub, "root-ann").await,
    );
    let nobody = Browser { hub, cookie: "kubecamp=kct_wrong".into(), csrf: "0".into() };
    let known = [booking.as_str(), "one", "amy", "bob", "k8s", "red"];
    let seed = 20_261_125;
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut good, mut bad) = (0, 0);
    for round in 0..1500 {
        let (method, path) = *PAGES.choose(&mut rng).unwrap();
        let who = *[&amy, &tea, &ann, &nobody].choose(&mut rng).unwrap();
        let url = filled(&mut rng, path, &known);
        let place = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        let what = format!("seed {seed} round {round} {method} {place}");
        let answer = if method == "get" {
            who.ask(Method::GET, &place).send().await.unwrap()
        } else if path == "/sign-out" || rng.random_bool(0.1) {
            // Whoever is signed out would be nobody for the rest of the rounds.
            who.send(&place, &[("csrf", "wrong")]).await
        } else {
            let fields = form(&mut rng, path, &known);
            let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
            who.post(&place, &fields).await
        };
        if sound(answer, &what).await { good += 1 } else { bad += 1 }
    }
    assert!(good > 200 && bad > 200, "{good} good, {bad} bad: the fuzz does not reach what it should");
    healthy(&hub.desk).await;
}
