//! The API of a hub that is really served: what programs rely on.

use futures::StreamExt;
use kubecamp::hub::{
    desk::{BookRequest, Caller, Edit, Report, Step},
    domain::{Booking, BookingId, Epoch, Health, Mode, Policy, State},
    gate::HubKey,
    http::ROUTES,
};
use reqwest::{Method, StatusCode, header};
use russh::keys::Certificate;
use serde_json::{Value, json};

use super::{
    served::{Hub, refused},
    world::{NOW, agent, at, book, clerk, generous, server, who, wish},
};

fn slot(from: i64, to: i64) -> Value {
    json!(BookRequest { ..wish(Some("one"), from, to) })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_booked_once_and_a_conflict_names_three_others() {
    let hub = Hub::start().await;
    let (amy, bob) = (hub.token("amy").await, hub.token("bob").await);
    let first = hub.post("/api/v1/bookings", &amy, &slot(60, 120)).await;
    assert_eq!(first.status(), StatusCode::CREATED);
    assert_eq!(first.headers()[header::ETAG], "\"1\"");
    let place = first.headers()[header::LOCATION].to_str().unwrap().to_owned();
    let made: Booking = first.json().await.unwrap();
    assert_eq!(hub.get(&place, &bob).await["id"], made.id.as_str());
    let (status, code, body) = refused(hub.post("/api/v1/bookings", &bob, &slot(60, 120)).await).await;
    assert_eq!((status, code.as_str()), (409, "KC-BOOK-CONFLICT"));
    let others = body["alternatives"].as_array().unwrap();
    assert_eq!(others.len(), 3, "{body}");
    for free in others {
        let wish = json!({ "server": free["server"], "layout": "1x4c12g", "window": free["window"] });
        // Each one is free in truth; they may overlap each other, so each is given back.
        let answer = hub.post("/api/v1/bookings", &bob, &wish).await;
        assert_eq!(answer.status(), StatusCode::CREATED, "{free}");
        let id = answer.json::<Booking>().await.unwrap().id;
        assert!(hub.post(&format!("/api/v1/bookings/{id}/cancel"), &bob, &json!({})).await.status().is_success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_free_begins_with_the_step_that_runs() {
    for (notice, starts) in [(0, 0), (30, 60)] {
        let hub = Hub::with(&Policy { notice, ..generous() }, 0).await;
        let amy = hub.token("amy").await;
        hub.set_now(at(7));
        let first = async |more: &str| -> Epoch {
            let free = hub.get(&format!("/api/v1/free?minutes=30&most=1{more}"), &amy).await;
            Epoch(free[0]["window"]["starts"].as_i64().unwrap())
        };
        assert_eq!(first("").await, at(starts), "{notice}");
        let named = if notice == 0 { 30 } else { 60 };
        assert_eq!(first(&format!("&from={}", at(7).0)).await, at(named), "from then on: {notice}");
        let made = hub.post("/api/v1/bookings", &amy, &slot(starts, starts + 30)).await;
        assert_eq!(made.status(), StatusCode::CREATED, "{notice}");
        assert_eq!(first("").await, at(starts + 60), "{notice}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bookings_of_a_server_that_there_is_not_are_refused() {
    let hub = Hub::start().await;
    let amy = hub.token("amy").await;
    let list = async |query: &str| {
        let path = format!("/api/v1/bookings?{query}");
        let answer = hub.ask(Method::GET, &path, &amy).send().await.unwrap();
        match answer.status() {
            StatusCode::OK => Ok(answer.json::<Vec<Booking>>().await.unwrap().len()),
            _ => Err(refused(answer).await.1),
        }
    };
    let unknown: Result<usize, String> = Err("KC-HUB-UNKNOWN".to_owned());
    assert_eq!((list("server=one").await, list("server=nope").await), (Ok(0), unknown.clone()));
    let made = book(&hub.desk, "amy", 60, 120).await;
    assert_eq!(list("server=one&open=true").await, Ok(1));
    hub.desk.cancel(&who("amy"), NOW, None, &made.id, &Edit::default()).await.unwrap();
    hub.desk.remove_server(&Caller::Console, NOW, &"one".parse().unwrap(), None).await.unwrap();
    // What took place there stays in the records, also of a server that is gone: it is known, and nothing there is open.
    assert_eq!((list("server=one").await, list("server=one&open=true").await), (Ok(1), Ok(0)));
    assert_eq!(list("server=nope&open=true").await, unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_overtaken_hears_412_and_a_repeat_changes_nothing() {
    let hub = Hub::start().await;
    let amy = hub.token("amy").await;
    let send = |key: &'static str, body: Value| {
        hub.ask(Method::POST, "/api/v1/bookings", &amy).header("Idempotency-Key", key).json(&body).send()
    };
    let all = futures::future::join_all((0..50).map(|_| send("k1", slot(60, 120)))).await;
    let mut ids = std::collections::BTreeSet::new();
    for answer in all {
        let answer = answer.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        ids.insert(answer.json::<Booking>().await.unwrap().id);
    }
    assert_eq!(ids.len(), 1);
    let (status, code, _) = refused(send("k1", slot(180, 240)).await.unwrap()).await;
    assert_eq!((status, code.as_str()), (422, "KC-HUB-KEY-REUSED"));
    let path = format!("/api/v1/bookings/{}", ids.first().unwrap());
    let extend = |tag: &'static str, to: i64| {
        let body = json!({ "ends": at(to) });
        hub.ask(Method::POST, &format!("{path}/extend"), &amy).header(header::IF_MATCH, tag).json(&body).send()
    };
    let longer = extend("\"1\"", 150).await.unwrap();
    assert_eq!((longer.status(), longer.headers()[header::ETAG].to_str().unwrap()), (StatusCode::OK, "\"2\""));
    let (status, code, _) = refused(extend("\"1\"", 180).await.unwrap()).await;
    assert_eq!((status, code.as_str()), (412, "KC-BOOK-STALE"));
    assert_eq!(refused(extend("\"x\"", 180).await.unwrap()).await.0, 400);
    assert_eq!(hub.get(&path, &amy).await["version"], 2);
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
async fn a_course_is_changed_only_as_it_was_seen() {
    let hub = Hub::start().await;
    let (amy, admin) = (hub.token("amy").await, hub.admin().await);
    let path = "/api/v1/courses/k8s";
    let seen = hub.ask(Method::GET, path, &amy).send().await.unwrap();
    assert_eq!((seen.status(), seen.headers()[header::ETAG].to_str().unwrap()), (StatusCode::OK, "\"1\""));
    let put = |path: &str, token: &str, tag: &str, title: &str| {
        let request = hub.ask(Method::PUT, path, token).json(&json!({ "title": title }));
        if tag.is_empty() { request.send() } else { request.header(header::IF_MATCH, tag).send() }
    };
    for (token, tag, status, code) in [
        (&amy, "\"1\"", 403, "KC-HUB-DENIED"),
        (&admin, "", 409, "KC-HUB-EXISTS"),
        (&admin, "\"7\"", 412, "KC-BOOK-STALE"),
        (&admin, "\"x\"", 400, "KC-HUB-REQUEST"),
    ] {
        let (had, why, _) = refused(put(path, token, tag, "Kubernetes II").await.unwrap()).await;
        assert_eq!((had, why.as_str()), (status, code), "{tag}");
    }
    assert_eq!(hub.get(path, &amy).await["title"], "Kubernetes");
    let next = put(path, &admin, "\"1\"", "Kubernetes II").await.unwrap();
    assert_eq!((next.status(), next.headers()[header::ETAG].to_str().unwrap()), (StatusCode::OK, "\"2\""));
    assert_eq!(refused(put(path, &admin, "\"1\"", "Kubernetes III").await.unwrap()).await.0, 412);
    assert_eq!(hub.get(path, &amy).await["title"], "Kubernetes II");
    let other = put("/api/v1/courses/linux", &admin, "", "Linux").await.unwrap();
    assert_eq!((other.status(), other.headers()[header::ETAG].to_str().unwrap()), (StatusCode::OK, "\"1\""));
    let none = hub.ask(Method::GET, "/api/v1/courses/none", &amy).send().await.unwrap();
    assert_eq!(refused(none).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_route_that_is_not_open_needs_a_token() {
    let hub = Hub::start().await;
    let open = ["/healthz", "/metrics", "/api/v1/sign-in/challenge", "/api/v1/sign-in/answer", "/api/v1/sign-in/link"];
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
    let made = hub.desk.make_agent_token(&Caller::Console, NOW, &"one".parse().unwrap()).await.unwrap();
    let agent = made.text.expose();
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
async fn every_answer_has_the_headers_that_browsers_heed() {
    let hub = Hub::start().await;
    for path in ["/healthz", "/nothing", "/api/v1/me"] {
        let answer = hub.ask(Method::GET, path, "").header(header::ACCEPT, "text/html").send().await.unwrap();
        let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        let kind = answer.headers()[header::CONTENT_TYPE].to_str().unwrap();
        let want = if path == "/nothing" { "text/html; charset=utf-8" } else { kind };
        assert_eq!(kind, want, "people get a page, programs a problem");
    }
    let (status, code, body) = refused(hub.ask(Method::PATCH, "/api/v1/me", "").send().await.unwrap()).await;
    assert_eq!((status, code.as_str()), (405, "KC-HUB-REQUEST"));
    assert!(body["hints"][0].as_str().unwrap().contains("docs/guide/api.md"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_without_its_database_is_not_healthy() {
    let hub = Hub::start().await;
    assert_eq!(hub.get("/healthz", "").await["status"], "ok");
    hub.desk.close().await;
    let answer = hub.ask(Method::GET, "/healthz", "").send().await.unwrap();
    assert!(answer.headers().contains_key(header::RETRY_AFTER));
    let (status, code, body) = refused(answer).await;
    assert_eq!((status, code.as_str()), (503, "KC-HUB-DATABASE"));
    assert!(body.get("lines").is_none(), "what the database says stays in the log: {body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_may_not_go_by_its_clock_is_not_healthy() {
    let hub = Hub::start().await;
    assert_eq!(hub.desk.clock(NOW).await.unwrap(), None, "a file has no other clock than the hub");
    hub.site.rounds.begin();
    assert_eq!(hub.get("/healthz", "").await["status"], "ok");
    assert!(!hub.site.rounds.compare(NOW, NOW - 2400, NOW));
    let (status, code, body) = refused(hub.ask(Method::GET, "/healthz", "").send().await.unwrap()).await;
    assert_eq!((status, code.as_str()), (503, "KC-HUB-CLOCK"));
    assert_eq!(body["detail"], "the hub's clock is 2400 s ahead of its database's");
    assert!(hub.site.rounds.compare(NOW, NOW, NOW));
    assert_eq!(hub.get("/healthz", "").await["status"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_much_waits() {
    let hub = Hub::with(&Policy::default(), 2).await;
    let mut codes = vec![];
    for _ in 0..40 {
        codes.push(hub.ask(Method::GET, "/healthz", "").send().await.unwrap());
    }
    let limited = codes.into_iter().find(|a| a.status() == StatusCode::TOO_MANY_REQUESTS).unwrap();
    assert!(limited.headers().contains_key(header::RETRY_AFTER));
    assert_eq!(refused(limited).await.1, "KC-HUB-TOO-MANY");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_behind_one_address_signs_in_at_once() {
    let hub = Hub::with(&Policy::default(), 50).await;
    for n in 0..60 {
        let asked = hub.post("/api/v1/sign-in/challenge", "", &json!({ "person": format!("p{n}") })).await;
        assert_eq!(asked.status(), StatusCode::OK, "{n}");
        let text = asked.json::<Value>().await.unwrap()["text"].clone();
        let body = json!({ "challenge": text, "signature": "none" });
        assert_eq!(refused(hub.post("/api/v1/sign-in/answer", "", &body).await).await.0, 401, "{n}");
    }
}

/// Reads events until `want` of them are there.
async fn events(hub: &Hub, token: &str, last: Option<&str>, want: usize) -> Vec<(String, String)> {
    let mut request = hub.ask(Method::GET, "/api/v1/events", token);
    if let Some(last) = last {
        request = request.header("Last-Event-ID", last);
    }
    let mut stream = request.send().await.unwrap().bytes_stream();
    let mut text = String::new();
    let reading = async {
        while text.matches("event: ").count() < want || !text.ends_with("\n\n") {
            text.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), reading).await.unwrap();
    let field = |block: &str, name: &str| {
        block.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned)).unwrap_or_default()
    };
    text.split("\n\n").filter(|b| b.contains("event: ")).map(|b| (field(b, "id"), field(b, "event"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_where_it_was_cut_off() {
    let hub = Hub::start().await;
    let amy = hub.token("amy").await;
    let hello = events(&hub, &amy, None, 1).await;
    assert_eq!(hello[0].1, "hello");
    let mut made = vec![];
    for n in 0..3 {
        made.push(book(&hub.desk, "amy", 60 + n * 120, 120 + n * 120).await);
    }
    let seen = events(&hub, &amy, Some(&hello[0].0), 4).await;
    assert_eq!(seen.len(), 4, "{seen:?}");
    let rest = events(&hub, &amy, Some(&seen[1].0), 3).await;
    assert_eq!(rest[1..], seen[2..], "nothing twice, nothing lost");
    // A change while somebody listens arrives by itself.
    let token = amy.clone();
    let last = seen[3].0.clone();
    let (listening, _) = tokio::join!(events(&hub, &token, Some(&last), 2), async {
        hub.post(&format!("/api/v1/bookings/{}/cancel", made[0].id), &amy, &json!({})).await
    });
    assert_eq!(listening[1].1, "booking.cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_calendar_follows_a_booking_through_its_life() {
    let hub = Hub::start().await;
    let amy = hub.token("amy").await;
    let made = book(&hub.desk, "amy", 60, 120).await;
    let feed: Value = hub.post("/api/v1/tokens", &amy, &json!({ "kind": "feed" })).await.json().await.unwrap();
    let path = feed["url"].as_str().unwrap().to_owned();
    let hub = &hub;
    let read = |path: String| async move {
        let answer = hub.ask(Method::GET, &path, "").send().await.unwrap();
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/calendar; charset=utf-8");
        let tag = answer.headers()[header::ETAG].to_str().unwrap().to_owned();
        (answer.text().await.unwrap().replace("\r\n ", ""), tag)
    };
    let (first, tag) = read(path.clone()).await;
    let uid = format!("UID:{}@hub.kubecamp\r\n", made.id);
    assert!(first.contains(&uid) && first.contains("SEQUENCE:1\r\n") && first.contains("STATUS:CONFIRMED"), "{first}");
    assert!(
        first.contains("DTSTART:20261123T090000Z\r\n") && first.contains("DTSTAMP:20261123T080000Z\r\n"),
        "{first}"
    );
    let same = hub.ask(Method::GET, &path, "").header(header::IF_NONE_MATCH, &tag).send().await.unwrap();
    assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
    hub.set_now(at(10));
    assert!(hub.post(&format!("/api/v1/bookings/{}/cancel", made.id), &amy, &json!({})).await.status().is_success());
    let (second, _) = read(path.clone()).await;
    assert!(
        second.contains(&uid) && second.contains("SEQUENCE:2\r\n") && second.contains("STATUS:CANCELLED"),
        "{second}"
    );
    assert!(second.contains("DTSTAMP:20261123T081000Z\r\n"), "{second}");
    let (server, _) = read(path.replace("slots.ics", "servers/one.ics")).await;
    assert!(server.contains(&uid), "{server}");
    // A feed's token reads the feed and nothing else, and the one before is revoked by the next.
    assert_eq!(hub.ask(Method::GET, "/api/v1/me", feed["token"].as_str().unwrap()).send().await.unwrap().status(), 401);
    hub.post("/api/v1/tokens", &amy, &json!({ "kind": "feed" })).await;
    assert_eq!(hub.ask(Method::GET, &path, "").send().await.unwrap().status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_calendar_that_is_read_is_told_as_used() {
    let hub = Hub::start().await;
    let amy = hub.token("amy").await;
    let feed: Value = hub.post("/api/v1/tokens", &amy, &json!({ "kind": "feed" })).await.json().await.unwrap();
    let path = feed["url"].as_str().unwrap();
    let used = async || {
        let all = hub.get("/api/v1/tokens", &amy).await;
        all.as_array().unwrap().iter().find(|t| t["kind"] == "feed").unwrap()["used"].as_i64()
    };
    assert_eq!(used().await, None);
    // As with other tokens once an hour is enough.
    for (minute, told) in [(5, 5), (65, 5), (66, 66)] {
        hub.set_now(at(minute));
        assert!(hub.ask(Method::GET, path, "").send().await.unwrap().status().is_success());
        assert_eq!(used().await, Some(at(told).0), "{minute}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_calendar_drops_what_was_given_away_or_moved() {
    let hub = Hub::start().await;
    let (amy, bob) = (hub.token("amy").await, hub.token("bob").await);
    let made = book(&hub.desk, "amy", 60, 120).await;
    let feed = async |token: &str| -> String {
        let made = hub.post("/api/v1/tokens", token, &json!({ "kind": "feed" })).await;
        made.json::<Value>().await.unwrap()["url"].as_str().unwrap().to_owned()
    };
    let (hers, his) = (feed(&amy).await, feed(&bob).await);
    let (first, second) = (hers.replace("slots.ics", "servers/one.ics"), hers.replace("slots.ics", "servers/two.ics"));
    // The one entry of a feed: its version and whether it takes place.
    let entry = async |path: &str| -> Option<(u32, bool)> {
        let text = hub.ask(Method::GET, path, "").send().await.unwrap().text().await.unwrap().replace("\r\n ", "");
        let of = |name: &str| text.lines().filter_map(|l| l.strip_prefix(name)).map(str::to_owned).collect::<Vec<_>>();
        let (uids, status) = (of("UID:"), of("STATUS:"));
        assert!(uids.len() <= 1 && uids.iter().all(|uid| *uid == format!("{}@hub.kubecamp", made.id)), "{text}");
        Some((of("SEQUENCE:").first()?.parse().unwrap(), status[0] == "CONFIRMED"))
    };
    assert_eq!((entry(&hers).await, entry(&his).await, entry(&first).await), (Some((1, true)), None, Some((1, true))));
    let give = async |token: &str, to: &str| {
        let path = format!("/api/v1/bookings/{}/give", made.id);
        assert_eq!(hub.post(&path, token, &json!({ "to": to })).await.status(), StatusCode::OK);
    };
    give(&amy, "bob").await;
    assert_eq!((entry(&hers).await, entry(&his).await), (Some((2, false)), Some((2, true))));
    give(&bob, "amy").await;
    assert_eq!((entry(&hers).await, entry(&his).await), (Some((3, true)), Some((3, false))));
    server(&hub.desk, "two", Mode::Exclusive, 8, 32).await;
    let one = "one".parse().unwrap();
    hub.desk.set_health(&Caller::Console, NOW, None, &one, Health::Away, "new disk").await.unwrap();
    assert_eq!(clerk(&hub.desk).settle(at(1)).await.unwrap().moved, 1);
    assert_eq!((entry(&first).await, entry(&second).await), (Some((4, false)), Some((4, true))));
    assert_eq!(entry(&hers).await, Some((4, true)), "at another place it is hers still");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weekly_slot_keeps_its_local_time_when_clocks_change() {
    let hub = Hub::start().await;
    let amy = hub.token("amy").await;
    hub.set_now("2026-03-20T08:00:00Z".parse::<Epoch>().unwrap());
    let mut body = json!({ "first": slot(60, 120), "weekly": {
        "zone": "Europe/Berlin", "starts": "2026-03-22T10:00:00", "ends": "2026-03-22T12:00:00", "weeks": 2 } });
    let made = hub.post("/api/v1/series", &amy, &body).await;
    let text = made.text().await.unwrap();
    let made: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
    let start = |n: usize| made[n]["booking"]["window"]["starts"].as_i64().unwrap();
    assert_eq!(start(1) - start(0), 7 * 86_400 - 3600, "the week of the change has an hour less");
    body["weekly"]["starts"] = json!("2026-03-22T02:30:00");
    body["weekly"]["ends"] = json!("2026-03-22T03:30:00");
    let (status, code, _) = refused(hub.post("/api/v1/series", &amy, &body).await).await;
    assert_eq!((status, code.as_str()), (422, "KC-BOOK-GAP"));
    assert_eq!(hub.get("/api/v1/bookings", &amy).await.as_array().unwrap().len(), 2, "all or none");
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

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_hears_that_its_quarantine_was_cleared() {
    let hub = Hub::start().await;
    let (one, console) = ("one".parse().unwrap(), Caller::Console);
    let agent = hub.desk.make_agent_token(&console, NOW, &one).await.unwrap().text.expose().to_owned();
    let booking = book(&hub.desk, "amy", 0, 60).await;
    for (n, state) in ["arming", "quarantined"].into_iter().enumerate() {
        let event = json!({ "seq": n + 1, "at": NOW, "kind": "state", "booking": booking.id, "state": state });
        let told = hub.post("/api/v1/agent/events", &agent, &json!({ "server": "one", "events": [event] })).await;
        assert_eq!(told.json::<Value>().await.unwrap()["accepted"], n + 1);
    }
    let plan = async || -> Value {
        let signed = hub.get("/api/v1/agent/plan", &agent).await;
        serde_json::from_str(signed["plan"].as_str().unwrap()).unwrap()
    };
    assert!(plan().await.get("cleared").is_none());
    hub.desk.set_health(&console, NOW, None, &one, Health::Healthy, "looked after").await.unwrap();
    assert_eq!(plan().await["cleared"], json!([booking.id]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_hears_so_of_bookings_that_were_over_too() {
    let hub = Hub::start().await;
    let (one, console) = ("one".parse().unwrap(), Caller::Console);
    let agent = hub.desk.make_agent_token(&console, NOW, &one).await.unwrap().text.expose().to_owned();
    let (absent, given_up) = (book(&hub.desk, "amy", 0, 60).await.id, book(&hub.desk, "bob", 90, 150).await.id);
    let tell = async |seq: u64, booking: &BookingId, state: &str| {
        let event = json!({ "seq": seq, "at": NOW, "kind": "state", "booking": booking, "state": state });
        let told = hub.post("/api/v1/agent/events", &agent, &json!({ "server": "one", "events": [event] })).await;
        assert_eq!(told.json::<Value>().await.unwrap()["accepted"], seq);
    };
    tell(1, &absent, "arming").await;
    tell(2, &absent, "active").await;
    clerk(&hub.desk).settle(at(15)).await.unwrap();
    assert_eq!(hub.desk.booking(&console, at(15), &absent).await.unwrap().state, State::NoShow);
    // The agent has begun this one, and the hub hears of it when it is cancelled already.
    hub.desk.cancel(&who("bob"), at(86), None, &given_up, &Edit::default()).await.unwrap();
    // Nor does anybody forget the place of what this database does not know.
    let unknown = BookingId::from_random([7; 8]);
    let plan = async || -> Value {
        let signed = hub.get("/api/v1/agent/plan", &agent).await;
        serde_json::from_str(signed["plan"].as_str().unwrap()).unwrap()
    };
    for (seq, booking) in [&absent, &given_up, &unknown].into_iter().enumerate() {
        hub.desk.set_health(&console, NOW, None, &one, Health::Healthy, "fit").await.unwrap();
        tell(seq as u64 + 3, booking, "quarantined").await;
        let health = hub.desk.server(&console, NOW, &one).await.unwrap().health;
        assert_eq!((health, plan().await.get("cleared")), (Health::Quarantined, None), "{booking}");
    }
    hub.desk.set_health(&console, NOW, None, &one, Health::Healthy, "looked after").await.unwrap();
    let mut all = [absent, given_up, unknown];
    all.sort();
    assert_eq!(plan().await["cleared"], json!(all));
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_count_and_a_wait_becomes_an_offer() {
    let hub = Hub::start().await;
    let (amy, bob) = (hub.token("amy").await, hub.token("bob").await);
    let taken = book(&hub.desk, "amy", 60, 120).await;
    let waiting: Booking = hub.post("/api/v1/waits", &bob, &slot(60, 120)).await.json().await.unwrap();
    hub.post(&format!("/api/v1/bookings/{}/cancel", taken.id), &amy, &json!({})).await;
    clerk(&hub.desk).settle(at(1)).await.unwrap();
    hub.set_now(at(2));
    let accept = format!("/api/v1/bookings/{}/accept", waiting.id);
    assert_eq!(hub.post(&accept, &bob, &json!({})).await.json::<Value>().await.unwrap()["state"], "booked");
    let text = hub.ask(Method::GET, "/metrics", "").send().await.unwrap().text().await.unwrap();
    assert!(text.contains("kubecamp_bookings{state=\"booked\"} 1\n"), "{text}");
    assert!(text.contains("route=\"/api/v1/bookings/{id}/accept\""), "{text}");
    let behind = hub.ask(Method::GET, "/metrics", "").header("x-forwarded-for", "192.0.2.1").send().await.unwrap();
    assert_eq!(refused(behind).await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_saved_lab_hears_where_it_is() {
    let hub = Hub::start().await;
    let one = "one".parse().unwrap();
    let made = hub.desk.make_agent_token(&Caller::Console, NOW, &one).await.unwrap();
    let agent = made.text.expose();
    let kept = |seq: u64, account: &str| {
        let (kind, lab) = ("lab-kept", "gate-lab");
        json!({ "seq": seq, "at": NOW, "kind": kind, "account": account, "lab": lab, "layout": "2x4c8g" })
    };
    let events = json!({ "server": "one", "events": [kept(1, "amy"), kept(2, "stranger")] });
    let told = hub.post("/api/v1/agent/events", agent, &events).await.json::<Value>().await.unwrap();
    assert_eq!(told["accepted"], 2, "{told}");
    let (amy, bob) = (hub.token("amy").await, hub.token("bob").await);
    let labs = hub.get("/api/v1/labs", &amy).await;
    assert_eq!(
        (labs.as_array().unwrap().len(), &labs[0]["server"], &labs[0]["layout"]),
        (1, &json!("one"), &json!("2x4c8g"))
    );
    for (layout, begins) in [
        ("2x4c8g", json!({ "begins": "saved" })),
        ("1x4c12g", json!({ "begins": "anew", "instead_of": "2x4c8g" })),
        ("3x2c4g", json!({ "begins": "anew", "instead_of": "2x4c8g" })),
    ] {
        let path = format!("/api/v1/free?minutes=60&most=1&layout={layout}");
        assert_eq!(hub.get(&path, &amy).await[0]["lab"], begins, "{layout}");
        assert_eq!(hub.get(&path, &bob).await[0]["lab"], Value::Null, "{layout}");
    }
    let (status, code, _) = refused(hub.ask(Method::GET, "/api/v1/labs?person=amy", &bob).send().await.unwrap()).await;
    assert_eq!((status, code.as_str()), (403, "KC-HUB-DENIED"));
    let gone = json!({ "seq": 3, "at": NOW, "kind": "lab-dropped", "account": "amy" });
    let told = hub.post("/api/v1/agent/events", agent, &json!({ "server": "one", "events": [gone] })).await;
    assert!(told.status().is_success());
    assert_eq!(hub.get("/api/v1/labs", &amy).await, json!([]));
}
