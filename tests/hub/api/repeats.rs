//! A request that is sent twice under one key: it is done once, and answered the same.

use kubecamp::hub::desk::Edit;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::hub::{
    served::{Hub, refused},
    world::{NOW, at, book, clerk, healthy, who},
};

async fn sent(hub: &Hub, token: &str, path: &str, key: &str, body: &Value) -> Response {
    hub.ask(Method::POST, path, token).header("Idempotency-Key", key).json(body).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_makes_nothing_a_second_time() {
    let hub = Hub::start().await;
    let admin = hub.admin().await;
    let person = |id: &str| json!({ "id": id, "name": "Eve", "role": "student" });
    let server =
        |id: &str| json!({ "id": id, "address": "192.0.2.2", "cores": 8, "memory": "32GiB", "mode": "exclusive" });
    let work = |why: &str| json!({ "window": { "starts": at(600), "ends": at(700) }, "reason": why });
    let away = |why: &str| json!({ "health": "away", "reason": why });
    for (n, (path, body, other)) in [
        ("hooks", json!({ "url": "http://127.0.0.1:9/a" }), json!({ "url": "http://127.0.0.1:9/b" })),
        ("people", person("eve"), person("fay")),
        ("servers", server("two"), server("six")),
        ("servers/one/maintenance", work("disk"), work("fan")),
        ("servers/one/health", away("disk"), away("fan")),
    ]
    .into_iter()
    .enumerate()
    {
        let (path, key) = (format!("/api/v1/{path}"), format!("key-{n}"));
        let first = sent(&hub, &admin, &path, &key, &body).await;
        let status = first.status();
        assert!(status.is_success(), "{path}: {:?}", first.text().await);
        let first: Value = first.json().await.unwrap();
        let again = sent(&hub, &admin, &path, &key, &body).await;
        assert_eq!(again.status(), status, "{path}");
        assert_eq!(again.json::<Value>().await.unwrap(), first, "{path}");
        let (status, code, _) = refused(sent(&hub, &admin, &path, &key, &other).await).await;
        assert_eq!((status, code.as_str()), (422, "KC-HUB-KEY-REUSED"), "{path}");
    }
    assert_eq!(hub.get("/api/v1/hooks", &admin).await.as_array().unwrap().len(), 1);
    let all = format!("/api/v1/maintenance?from={}&to={}", NOW.0, at(10_000).0);
    assert_eq!(hub.get(&all, &admin).await.as_array().unwrap().len(), 1);
    healthy(&hub.desk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roster_and_a_yes_are_answered_the_same_twice() {
    let hub = Hub::start().await;
    let (admin, bob) = (hub.admin().await, hub.token("bob").await);
    let import = async || {
        let request = hub.ask(Method::POST, "/api/v1/courses/k8s/roster", &admin).header("Idempotency-Key", "r");
        let answer = request.header("Content-Type", "text/csv").body("eve,Eve,red\n").send().await.unwrap();
        answer.json::<Value>().await.unwrap()
    };
    assert_eq!(import().await["added"], 1);
    assert_eq!(import().await["added"], 1, "not that she is there already");
    let taken = book(&hub.desk, "amy", 60, 120).await;
    let wish = json!({ "server": "one", "layout": "1x4c12g", "window": { "starts": at(60), "ends": at(120) } });
    let waits: Value = sent(&hub, &bob, "/api/v1/waits", "w", &wish).await.json().await.unwrap();
    hub.desk.cancel(&who("amy"), NOW, None, &taken.id, &Edit::default()).await.unwrap();
    clerk(&hub.desk).settle(at(1)).await.unwrap();
    hub.set_now(at(2));
    let accept = format!("/api/v1/bookings/{}/accept", waits["id"].as_str().unwrap());
    // A yes to what was seen before it was offered.
    for (tag, wanted) in [("\"1\"", (412, "KC-BOOK-STALE")), ("*", (400, "KC-HUB-REQUEST"))] {
        let stale = hub.ask(Method::POST, &accept, &bob).header("If-Match", tag).json(&json!({})).send().await.unwrap();
        let (status, code, _) = refused(stale).await;
        assert_eq!((status, code.as_str()), wanted, "{tag}");
    }
    let yes = async || sent(&hub, &bob, &accept, "a", &json!({})).await.json::<Value>().await.unwrap();
    let first = yes().await;
    assert_eq!(first["state"], "booked");
    let gone = hub.post(&accept.replace("accept", "cancel"), &bob, &json!({})).await;
    assert!(gone.status().is_success());
    assert_eq!(yes().await, first, "the first answer, whatever came of it since");
    healthy(&hub.desk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_a_recurrence_is_not_ignored() {
    let hub = Hub::start().await;
    let amy = hub.token("amy").await;
    let cancel = hub.ask(Method::POST, "/api/v1/series/s1/cancel", &amy).header("If-Match", "\"1\"");
    let (_, code, body) = refused(cancel.json(&json!({})).send().await.unwrap()).await;
    assert_eq!(code, "KC-HUB-INVALID", "{body}");
    assert!(body["detail"].as_str().unwrap().contains("has no version"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_a_token_is_not_kept_and_says_so() {
    let hub = Hub::start().await;
    let admin = hub.admin().await;
    for (path, body) in [
        ("/api/v1/tokens", json!({ "kind": "api" })),
        ("/api/v1/people/amy/link", json!({})),
        ("/api/v1/servers/one/agent-token", json!({})),
        ("/api/v1/sign-in/link", json!({ "link": "kct_x" })),
        ("/api/v1/sign-in/answer", json!({ "challenge": "x", "signature": "x" })),
    ] {
        let (status, code, body) = refused(sent(&hub, &admin, path, "k", &body).await).await;
        assert_eq!((status, code.as_str()), (400, "KC-HUB-REQUEST"), "{path}");
        assert!(body["detail"].as_str().unwrap().contains("takes no Idempotency-Key"), "{body}");
    }
    let made = hub.post("/api/v1/tokens", &admin, &json!({ "kind": "api" })).await;
    assert_eq!(made.status(), 201);
}
