//! A hub in trouble: what stands still, what goes on, and that it comes back by itself.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use futures::StreamExt;
use kubecamp::hub::{
    desk::{Caller, Desk},
    http::Clock,
};
use reqwest::{Client, Method, Response, StatusCode};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use super::{
    processes::{Process, ask, slot, token},
    served::{Hub, refused},
    world::{book, camp, generous, healthy},
};

/// Asks until the hub's health is told by this status.
async fn health(client: &Client, want: u16) {
    let began = Instant::now();
    loop {
        let (status, body) = ask(client, Method::GET, "/healthz", "", None).await.unwrap();
        if status == want {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{status} {body}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// No file may grow, also not the log: a write fails as on a disk without space, though not by that name.
///
/// What is really told as full stands in `store/error.rs`.
pub async fn a_full_disk_is_over_when_there_is_space(desk: &Desk, url: &str) {
    camp(desk, &generous()).await;
    let folder = tempfile::tempdir().unwrap();
    let now = Clock::system().now();
    let (amy, bob) = (token(desk, "amy", now).await, token(desk, "bob", now).await);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; exec \"$@\"", "hub", env!("CARGO_BIN_EXE_kubecamp")]);
    let hub = Process::run(shell, folder.path(), "hub", url);
    let client = hub.client();
    let book = async |hour: i64| {
        let body = slot(now, hour);
        let key = format!("h{hour}");
        ask(&client, Method::POST, "/api/v1/bookings", &amy, Some((key.as_str(), &body))).await.unwrap()
    };
    assert_eq!(book(0).await.0, 201);
    health(&client, 200).await;
    for round in 1..3 {
        let no_space = Rlimit { current: Some(1), ..getrlimit(Resource::Fsize) };
        let before = prlimit(Some(hub.id()), Resource::Fsize, no_space).unwrap();
        for _ in 0..3 {
            let (status, body) = book(round).await;
            assert_eq!((status, body["code"].as_str()), (500, Some("KC-HUB-DATABASE")), "{body}");
        }
        health(&client, 503).await;
        // Also by a token that was not used before.
        let (status, body) = ask(&client, Method::GET, "/api/v1/me", &bob, None).await.unwrap();
        assert_eq!((status, body["id"].as_str()), (200, Some("bob")), "all can be read: {body}");
        prlimit(Some(hub.id()), Resource::Fsize, before).unwrap();
        let (status, body) = book(round).await;
        assert_eq!(status, 201, "the slot is free as if nothing had been, and no restart was needed: {body}");
        health(&client, 200).await;
    }
    healthy(desk).await;
}

/// A webhook's other side that takes connections and never answers keeps neither the clerk nor the end waiting.
pub async fn a_silent_webhook_delays_nobody(desk: &Desk, url: &str) {
    camp(desk, &generous()).await;
    let folder = tempfile::tempdir().unwrap();
    let now = Clock::system().now();
    let amy = token(desk, "amy", now).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hook = format!("http://{}/", silent.local_addr().unwrap());
    for _ in 0..2 {
        desk.add_hook(&Caller::Console, now, None, &hook).await.unwrap();
    }
    let mut hub = Process::start(folder.path(), "hub", url);
    let client = hub.client();
    for hour in 0..30 {
        let (key, body) = (format!("h{hour}"), slot(now, hour));
        let made = ask(&client, Method::POST, "/api/v1/bookings", &amy, Some((key.as_str(), &body))).await.unwrap();
        assert_eq!(made.0, 201, "{}", made.1);
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    let counters = client.get("http://hub/metrics").send().await.unwrap().text().await.unwrap();
    let last = counters.lines().find_map(|l| l.strip_prefix("kubecamp_clerk_last_tick_seconds ")).unwrap();
    let since = Clock::system().now().0 - last.parse::<i64>().unwrap();
    assert!(since <= 3, "the clerk stands still for {since} s");
    let began = Instant::now();
    kill_process(hub.id(), Signal::TERM).unwrap();
    while !hub.has_ended() {
        assert!(began.elapsed() < Duration::from_secs(9), "it waits for the webhook");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    healthy(desk).await;
}

/// Reads what a stream tells until `want` is in it.
async fn hear(stream: Response, want: &str) {
    let mut stream = stream.bytes_stream();
    let mut heard = String::new();
    let hearing = async {
        while !heard.contains(want) {
            heard.push_str(&String::from_utf8_lossy(&stream.next().await.unwrap().unwrap()));
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(10), hearing).await;
    assert!(in_time.is_ok(), "no {want}: {heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_does_not_take_all_event_streams() {
    let hub = Hub::start().await;
    let (amy, bob) = (hub.token("amy").await, hub.token("bob").await);
    let open = |token: &str| hub.ask(Method::GET, "/api/v1/events", token).send();
    let mut mine = vec![];
    for _ in 0..16 {
        mine.push(open(&bob).await.unwrap());
    }
    assert!(mine.iter().all(|stream| stream.status() == StatusCode::OK));
    let (status, code, _) = refused(open(&bob).await.unwrap()).await;
    assert_eq!((status, code.as_str()), (429, "KC-HUB-TOO-MANY"));
    assert_eq!(open(&amy).await.unwrap().status(), StatusCode::OK, "others listen");
    mine.pop();
    let began = Instant::now();
    while open(&bob).await.unwrap().status() != StatusCode::OK {
        assert!(began.elapsed() < Duration::from_secs(10), "a stream that ended is still counted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// As after the database was put back from a copy: the numbers begin again further down.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_from_a_number_that_is_yet_to_come_goes_on_from_the_newest() {
    let hub = Hub::start().await;
    let amy = hub.token("amy").await;
    let request = hub.ask(Method::GET, "/api/v1/events", &amy).header("Last-Event-ID", "99999999");
    let stream = request.send().await.unwrap();
    book(&hub.desk, "amy", 60, 120).await;
    hear(stream, "event: booking.booked").await;
}
