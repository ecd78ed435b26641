//! Booking by the API: what is free, conflicts, versions, keys of requests, recurrences and waits.

use kubecamp::hub::{
    desk::{Caller, Edit},
    domain::{Booking, Epoch, Policy},
};
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::slot;
use crate::hub::{
    served::{Hub, refused},
    world::{NOW, at, book, clerk, generous, who},
};

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
