//! The hub as the process that it is: two of them on one database, and one that is killed at each step of an agent.

use std::{
    fs::File,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use futures::StreamExt;
use kubecamp::hub::{
    desk::{Caller, Desk},
    domain::{Epoch, State},
    http::Clock,
    store::TokenKind,
};
use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::world::{camp, generous, healthy, who};

/// What an agent tells of one slot, in order.
const LIFE: [&str; 7] = ["arming", "active", "seen", "ending", "saving", "resetting", "done"];

/// `kubecamp hub serve` on a Unix socket; it is killed when dropped.
pub(super) struct Process {
    child: Child,
    socket: PathBuf,
}

impl Process {
    /// Starts one and waits until it listens.
    ///
    /// All of a folder have the same keys.
    pub(super) fn start(folder: &Path, name: &str, database: &str) -> Self {
        Self::run(Command::new(env!("CARGO_BIN_EXE_kubecamp")), folder, name, database)
    }

    /// Starts one by a command that runs what it is given more.
    pub(super) fn run(mut hub: Command, folder: &Path, name: &str, database: &str) -> Self {
        let socket = folder.join(format!("{name}.sock"));
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        hub.args(["hub", "serve", "--rate", "0", "--database", database]);
        hub.arg("--listen").arg(format!("unix:{}", socket.display())).arg("--keys").arg(folder.join("keys"));
        hub.env("KUBECAMP_HOME", folder.join(name)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let mut process = Self { child: hub.spawn().unwrap(), socket };
        let began = Instant::now();
        while UnixStream::connect(&process.socket).is_err() {
            let ended = process.child.try_wait().unwrap();
            let late = began.elapsed() > Duration::from_secs(60);
            assert!(ended.is_none() && !late, "{ended:?} {}", std::fs::read_to_string(&log).unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
        process
    }

    /// Ends it without letting it finish anything.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its number among the processes.
    pub(super) fn id(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Whether it has ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(super) fn client(&self) -> Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = Client::builder().unix_socket(self.socket.clone()).no_proxy();
        builder.timeout(Duration::from_secs(60)).build().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The status and the answer; an error is a hub that went away.
pub(super) async fn ask(
    client: &Client,
    method: Method,
    path: &str,
    token: &str,
    body: Option<(&str, &Value)>,
) -> Result<(u16, Value), reqwest::Error> {
    let mut request = client.request(method, format!("http://hub{path}")).bearer_auth(token);
    if let Some((key, body)) = body {
        request = request.header("Idempotency-Key", key).json(body);
    }
    let answer = request.send().await?;
    let status = answer.status().as_u16();
    Ok((status, answer.json().await?))
}

pub(super) async fn token(desk: &Desk, login: &str, now: Epoch) -> String {
    desk.make_token(&who(login), now, TokenKind::Api, "test").await.unwrap().text.expose().to_owned()
}

/// The newest row of the audit.
async fn newest(desk: &Desk) -> i64 {
    desk.audit(&Caller::Console, Clock::system().now(), None, None, 1).await.unwrap()[0].id
}

/// The half hour that begins `hour` hours after the next one; the program goes by the computer's clock.
pub(super) fn slot(now: Epoch, hour: i64) -> Value {
    let starts = (now.0 / 3600 + 2 + hour) * 3600;
    json!({ "server": "one", "layout": "1x4c12g", "window": { "starts": starts, "ends": starts + 1800 } })
}

/// Books hour after hour until the hub goes away; whoever else does so too takes some of them.
async fn book_on(client: Client, token: String, now: Epoch, hours: std::ops::Range<i64>) -> Vec<String> {
    let mut made = vec![];
    for hour in hours {
        let body = slot(now, hour);
        match ask(&client, Method::POST, "/api/v1/bookings", &token, Some((format!("h{hour}").as_str(), &body))).await {
            Ok((201, booking)) => made.push(booking["id"].as_str().unwrap().to_owned()),
            Ok((409, _)) => {}
            Ok((status, answer)) => panic!("{status} {answer}"),
            Err(_) => break,
        }
    }
    made
}

pub async fn two_are_one(desk: &Desk, url: &str) {
    camp(desk, &generous()).await;
    let folder = tempfile::tempdir().unwrap();
    let now = Clock::system().now();
    let (amy, bob) = (token(desk, "amy", now).await, token(desk, "bob", now).await);
    let mut one = Process::start(folder.path(), "one", url);
    let other = Process::start(folder.path(), "other", url);
    let (left, right) = (one.client(), other.client());
    let keys = ask(&left, Method::GET, "/api/v1/gate", &amy, None).await.unwrap();
    assert_eq!((keys.0, &keys), (200, &ask(&right, Method::GET, "/api/v1/gate", &bob, None).await.unwrap()));

    // Who listens at one of them hears what happens at the other.
    let stream = right.get("http://hub/api/v1/events").bearer_auth(&bob).send().await.unwrap();
    let mut stream = stream.bytes_stream();
    let mut heard = String::new();
    for hour in 0..20 {
        let (key, body) = (format!("h{hour}"), slot(now, hour));
        let both = tokio::join!(
            ask(&left, Method::POST, "/api/v1/bookings", &amy, Some((key.as_str(), &body))),
            ask(&right, Method::POST, "/api/v1/bookings", &bob, Some((key.as_str(), &body))),
        );
        let mut statuses = [both.0.unwrap().0, both.1.unwrap().0];
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409], "hour {hour}");
    }
    let hearing = async {
        while !heard.contains("event: booking.booked") {
            heard.push_str(&String::from_utf8_lossy(&stream.next().await.unwrap().unwrap()));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), hearing).await.expect("the other hub's event");

    // One is killed while both sell the same hours: what it answered is kept, and the other goes on.
    let before = newest(desk).await;
    let (lost, kept) = (
        tokio::spawn(book_on(left, amy.clone(), now, 30..600)),
        tokio::spawn(book_on(right.clone(), bob.clone(), now, 30..90)),
    );
    while newest(desk).await < before + 12 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    one.kill();
    let (lost, kept) = (lost.await.unwrap(), kept.await.unwrap());
    assert!(!kept.is_empty() && lost.len() < 570, "{} {}", lost.len(), kept.len());
    for id in lost.iter().chain(&kept) {
        let booking = desk.booking(&Caller::Console, now, &id.parse().unwrap()).await.unwrap();
        assert_eq!(booking.state, State::Booked);
    }
    let (status, _) = ask(&right, Method::GET, "/healthz", &bob, None).await.unwrap();
    assert_eq!(status, 200);
    healthy(desk).await;
}

/// Somebody who books, and the agent of the server: what they have not been answered they send again.
struct Outside {
    now: Epoch,
    amy: String,
    agent: String,
    hour: i64,
    booking: Option<(String, usize)>,
    seq: u64,
    queue: Vec<Value>,
    over: Vec<String>,
}

impl Outside {
    /// Goes on until the hub goes away.
    async fn go_on(&mut self, client: &Client) {
        while self.step(client).await.is_ok() {}
    }

    async fn step(&mut self, client: &Client) -> Result<(), reqwest::Error> {
        if !self.queue.is_empty() {
            return self.report(client).await;
        }
        let Some((id, at)) = self.booking.take() else { return self.book(client).await };
        if at == 0 {
            self.booking = Some((id.clone(), at));
            let (status, plan) = ask(client, Method::GET, "/api/v1/agent/plan", &self.agent, None).await?;
            assert!(status == 200 && plan["signature"].is_string(), "{status} {plan}");
        }
        // One report in a request, or all that are left: then it is killed between two of one request.
        let upto = if self.hour % 2 == 0 { at + 1 } else { LIFE.len() };
        for step in &LIFE[at..upto] {
            self.seq += 1;
            let what = match *step {
                "seen" => json!({ "seq": self.seq, "at": self.now, "kind": "seen", "booking": id }),
                state => json!({ "seq": self.seq, "at": self.now, "kind": "state", "booking": id, "state": state }),
            };
            self.queue.push(what);
        }
        self.booking = (upto < LIFE.len()).then(|| (id.clone(), upto));
        if upto == LIFE.len() {
            self.over.push(id);
        }
        Ok(())
    }

    async fn book(&mut self, client: &Client) -> Result<(), reqwest::Error> {
        let (key, body) = (format!("hour-{}", self.hour), slot(self.now, self.hour));
        let (status, made) =
            ask(client, Method::POST, "/api/v1/bookings", &self.amy, Some((key.as_str(), &body))).await?;
        assert_eq!(status, 201, "{made}");
        let id = made["id"].as_str().unwrap().to_owned();
        assert!(!self.over.contains(&id));
        self.booking = Some((id, 0));
        self.hour += 1;
        Ok(())
    }

    async fn report(&mut self, client: &Client) -> Result<(), reqwest::Error> {
        let body = json!({ "server": "one", "events": self.queue });
        let sent = Some(("unused", &body));
        let (status, answer) = ask(client, Method::POST, "/api/v1/agent/events", &self.agent, sent).await?;
        assert_eq!(status, 200, "{answer}");
        let accepted = answer["accepted"].as_u64().unwrap();
        self.queue.retain(|e| e["seq"].as_u64().unwrap() > accepted);
        Ok(())
    }
}

/// kill -9 after the first, the second, the third line of the audit and so on: nothing is sold twice or forgotten, and
/// the agent's queue drains to the end.
pub async fn killed_at_any_step(desk: &Desk, url: &str, rounds: i64) {
    camp(desk, &generous()).await;
    let folder = tempfile::tempdir().unwrap();
    let now = Clock::system().now();
    let server = "one".parse().unwrap();
    let agent = desk.make_agent_token(&Caller::Console, now, &server).await.unwrap().text.expose().to_owned();
    let amy = token(desk, "amy", now).await;
    let mut outside = Outside { now, amy, agent, hour: 0, booking: None, seq: 0, queue: vec![], over: vec![] };
    for lines in 1..=rounds {
        let mut hub = Process::start(folder.path(), "hub", url);
        let client = hub.client();
        let before = newest(desk).await;
        let killer = async {
            while newest(desk).await < before + lines {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            hub.kill();
        };
        tokio::join!(killer, outside.go_on(&client));
        healthy(desk).await;
    }
    let hub = Process::start(folder.path(), "hub", url);
    while !outside.queue.is_empty() || outside.booking.is_some() {
        outside.step(&hub.client()).await.unwrap();
    }
    assert!(outside.over.len() as i64 > rounds / 8, "{} slots in {rounds} rounds", outside.over.len());
    for id in &outside.over {
        let booking = desk.booking(&Caller::Console, now, &id.parse().unwrap()).await.unwrap();
        assert_eq!(booking.state, State::Done, "{id}");
    }
    assert_eq!(desk.server(&Caller::Console, now, &server).await.unwrap().occupant, None);
    healthy(desk).await;
}
