//! Who may ask for what: tokens, roles, cookies and certificates.

use kubecamp::hub::{
    desk::{Caller, Report, Step},
    gate::HubKey,
    http::ROUTES,
};
use reqwest::{Method, StatusCode, header};
use russh::keys::Certificate;
use serde_json::{Value, json};

use super::slot;
use crate::hub::{
    served::{Hub, refused},
    world::{NOW, agent, book},
};

#[tokio::test(flavor = "multi_thread")]
async fn each_route_that_is_not_open_needs_a_token() {
    let hub = Hub::start().await;
    let open = ["/healthz", "/metrics", "/api/v1/sign-in/challenge", "/api/v1/sign-in/answer", "/api/v1/sign-in/link"];
    assert!(open.iter().all(|path| ROUTES.iter().any(|(_, route)| route == path)), "a route of these is gone");
    for (method, path) in ROUTES {
        let filled = path.replace("{feed}", "kct_x").replace(['{', '}'], "");
        let method: Method = method.to_uppercase().parse().unwrap();
        let answer = hub.ask(method.clone(), &filled, "").json(&json!({})).send().await.unwrap();
        let want = match () {
            () if open.contains(path) => continue,
            () if path.starts_with("/calendar/") => StatusCode::NOT_FOUND,
            () => StatusCode::UNAUTHORIZED,
        };
        assert_eq!(answer.status(), want, "{method} {path}");
        let wrong = hub.ask(method.clone(), &filled, "kct_wrong").json(&json!({})).send().await.unwrap();
        assert_eq!(wrong.status(), want, "{method} {path}");
    }
    let document = hub.get("/api/v1/openapi.json", "").await;
    assert!(document["paths"].as_object().unwrap().len() > 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn students_cannot_do_what_is_a_teachers_or_an_admins() {
    let hub = Hub::start().await;
    let (amy, bob) = (hub.token("amy").await, hub.token("bob").await);
    let theirs = book(&hub.desk, "bob", 60, 120).await.id;
    for (path, body) in [
        (format!("/api/v1/bookings/{theirs}/cancel"), json!({ "reason": "mine now" })),
        ("/api/v1/people".into(), json!({ "id": "eve", "name": "Eve", "role": "admin" })),
        ("/api/v1/people/bob/link".into(), json!({})),
        ("/api/v1/servers/one/health".into(), json!({ "health": "away", "reason": "x" })),
        ("/api/v1/servers/one/agent-token".into(), json!({})),
        ("/api/v1/hooks".into(), json!({ "url": "https://example.org" })),
        (format!("/api/v1/bookings/{theirs}/certificate"), json!({ "key": "ssh-ed25519 AAAA" })),
    ] {
        assert_eq!(refused(hub.post(&path, &amy, &body).await).await.0, 403, "{path}");
    }
    for path in ["/api/v1/people", "/api/v1/people/bob", "/api/v1/doctor", "/api/v1/hooks", "/api/v1/agent/plan"] {
        let answer = hub.ask(Method::GET, path, &amy).send().await.unwrap();
        assert_eq!(refused(answer).await.0, 403, "{path}");
    }
    assert_eq!(hub.get(&format!("/api/v1/bookings/{theirs}"), &bob).await["state"], "booked");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_token_reaches_its_plan_and_reports_and_nothing_else() {
    let hub = Hub::start().await;
    let agent = &hub.agent("one").await;
    assert!(hub.get("/api/v1/agent/plan", agent).await["plan"].is_string());
    for path in ["/api/v1/bookings", "/api/v1/groups", "/api/v1/servers", "/api/v1/events", "/"] {
        let answer = hub.ask(Method::GET, path, agent).send().await.unwrap();
        let (status, code, _) = refused(answer).await;
        assert_eq!((status, code.as_str()), (403, "KC-HUB-DENIED"), "{path}");
    }
    for path in ["/book", "/keys", "/sign-out"] {
        let form = hub.ask(Method::POST, path, agent).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let (status, code, _) = refused(form.body("csrf=x").send().await.unwrap()).await;
        assert_eq!((status, code.as_str()), (403, "KC-HUB-DENIED"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_alone_only_read() {
    let hub = Hub::start().await;
    let console = Caller::Console;
    let link = hub.desk.make_link(&console, NOW, &"amy".parse().unwrap()).await.unwrap();
    let body = json!({ "link": link.text.expose() });
    let made: Value = hub.post("/api/v1/sign-in/link", "", &body).await.json().await.unwrap();
    assert_eq!(refused(hub.post("/api/v1/sign-in/link", "", &body).await).await.0, 401, "a link is good once");
    let cookie = format!("kubecamp={}", made["token"].as_str().unwrap());
    let with = |method, path: &str| hub.ask(method, path, "").header(header::COOKIE, &cookie);
    assert!(with(Method::GET, "/api/v1/me").send().await.unwrap().status().is_success());
    let forged = with(Method::POST, "/api/v1/bookings").json(&slot(60, 120)).send().await.unwrap();
    assert_eq!(refused(forged).await.1, "KC-HUB-FORGED");
    let wrong = with(Method::POST, "/api/v1/bookings").header("X-CSRF-Token", "0").json(&slot(60, 120));
    assert_eq!(refused(wrong.send().await.unwrap()).await.1, "KC-HUB-FORGED");
    let amy = hub.token("amy").await;
    let foreign = hub.ask(Method::POST, "/api/v1/bookings", &amy).header(header::ORIGIN, "https://evil.example");
    assert_eq!(refused(foreign.json(&slot(60, 120)).send().await.unwrap()).await.1, "KC-HUB-FORGED");
    assert_eq!(hub.get("/api/v1/bookings", &amy).await, json!([]));
    let out = hub.ask(Method::POST, "/api/v1/sign-out", made["token"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(out.status(), StatusCode::NO_CONTENT);
    assert_eq!(with(Method::GET, "/api/v1/me").send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_server_in_quarantine_is_for_teachers() {
    let hub = Hub::start().await;
    let (bob, tea) = (hub.token("bob").await, hub.token("tea").await);
    let (one, found) = ("one".parse().unwrap(), "/tmp/essay-of-amy is left");
    let slot_of_amy = book(&hub.desk, "amy", 0, 60).await;
    for (number, step) in [(1, Step::Arming), (2, Step::Quarantined)] {
        let (booking, note) = (slot_of_amy.id.clone(), (number == 2).then(|| found.to_owned()));
        let report = Report { number, booking, step, moment: NOW, note, account: None };
        hub.desk.report(&agent("one"), NOW, &one, &[report]).await.unwrap();
    }
    for (token, told) in [(&bob, Value::Null), (&tea, found.into())] {
        let all = hub.get("/api/v1/servers", token).await;
        let alone = hub.get("/api/v1/servers/one", token).await;
        for shown in [&all[0], &alone] {
            assert_eq!((&shown["health"], &shown["health_note"]), (&"quarantined".into(), &told), "{shown}");
        }
    }
    let (_, code, body) = refused(hub.post("/api/v1/bookings", &bob, &slot(120, 180)).await).await;
    let text = body.to_string();
    assert_eq!(code, "KC-SERVER-AWAY");
    assert!(text.contains("server one is quarantined") && !text.contains("essay"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_says_who_the_server_is() {
    let hub = Hub::start().await;
    let (amy, admin) = (hub.token("amy").await, hub.admin().await);
    let line = |comment: &str| HubKey::generate(comment).unwrap().public_line().unwrap();
    let booking = book(&hub.desk, "amy", 0, 60).await;
    let certificate = async || -> Value {
        let path = format!("/api/v1/bookings/{}/certificate", booking.id);
        let answer = hub.post(&path, &amy, &json!({ "key": line("amy") })).await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.unwrap()
    };
    assert_eq!(certificate().await["host_keys"], json!([]));
    let key = line("root@server");
    let put = |token: &str, keys: Value| {
        let request = hub.ask(Method::PUT, "/api/v1/servers/one/host-keys", token);
        request.json(&json!({ "keys": keys })).send()
    };
    assert_eq!(refused(put(&amy, json!([key])).await.unwrap()).await.0, 403);
    assert_eq!(refused(put(&admin, json!(["nonsense"])).await.unwrap()).await.0, 422);
    let told: Value = put(&admin, json!([key])).await.unwrap().json().await.unwrap();
    let bare = key.split(' ').take(2).collect::<Vec<_>>().join(" ");
    assert_eq!(told["keys"], json!([bare]), "without the comment");
    assert_eq!(certificate().await["host_keys"], json!([bare]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_given_away_asks_for_another_certificate() {
    let hub = Hub::start().await;
    let (amy, bob) = (hub.token("amy").await, hub.token("bob").await);
    let key = HubKey::generate("x").unwrap().public_line().unwrap();
    let path = format!("/api/v1/bookings/{}", book(&hub.desk, "amy", 60, 120).await.id);
    let principals = async |token: &str| {
        let answer = hub.post(&format!("{path}/certificate"), token, &json!({ "key": key })).await;
        let told: Value = answer.json().await.unwrap();
        let certificate = Certificate::from_openssh(told["certificate"].as_str().unwrap()).unwrap();
        certificate.valid_principals().to_vec()
    };
    let before = principals(&amy).await;
    let given = hub.post(&format!("{path}/give"), &amy, &json!({ "to": "bob" })).await;
    assert_eq!(given.status(), StatusCode::OK);
    let after = principals(&bob).await;
    assert!(before.len() == 1 && after.len() == 1, "{before:?} {after:?}");
    assert_ne!(before, after, "amy's certificate would open bob's account");
}
