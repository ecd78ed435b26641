//! What any answer is like, and how the hub does: headers, health, limits.

use kubecamp::hub::domain::Policy;
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::hub::{
    served::{Hub, refused},
    world::NOW,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_the_headers_that_browsers_heed() {
    let hub = Hub::start().await;
    for (path, want) in [
        ("/healthz", "application/json"),
        ("/nothing", "text/html; charset=utf-8"),
        ("/api/v1/me", "application/problem+json"),
    ] {
        let answer = hub.ask(Method::GET, path, "").header(header::ACCEPT, "text/html").send().await.unwrap();
        let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(answer.headers()[header::CONTENT_TYPE], want, "{path}: people get a page, programs a problem");
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
