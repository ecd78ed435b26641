//! What follows a slot through its life: the stream of events and the calendars.

use futures::StreamExt;
use kubecamp::hub::{
    desk::Caller,
    domain::{Health, Mode},
};
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::hub::{
    served::Hub,
    world::{NOW, at, book, clerk, server},
};

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
