//! Load on a hub that runs already, from a process of its own; `hub.sh` starts the hub and tells where it is.
//!
//! 64 clients, each with a connection and a token, ask 1,000 times for slots that overlap; then 10,000 bookings lie in
//! one week, and that week is asked for. Prints one JSON line.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "figures are what it is for; a failure may just end it")]

use std::{
    collections::BTreeMap,
    env, fs,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use reqwest::{Client, Method};
use serde_json::{Value, json};

const CLIENTS: usize = 64;
const HOUR: i64 = 3600;

fn number(name: &str, default: usize) -> usize {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// One person at one connection.
#[derive(Clone)]
struct Person {
    client: Client,
    base: String,
    token: String,
}

impl Person {
    fn new(base: &str, token: &str) -> Self {
        let client = Client::builder().no_proxy().pool_max_idle_per_host(1).build().unwrap();
        Self { client, base: base.to_owned(), token: token.to_owned() }
    }

    /// The status and the answer; status 0 is a request that was lost.
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Vec<u8>) {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        match request.send().await {
            Err(_) => (0, vec![]),
            Ok(answer) => (answer.status().as_u16(), answer.bytes().await.map(Into::into).unwrap_or_default()),
        }
    }

    async fn made(&self, path: &str, body: &Value) -> Value {
        let (status, bytes) = self.ask(Method::POST, path, Some(body)).await;
        assert!((200..300).contains(&status), "{path}: {status} {}", String::from_utf8_lossy(&bytes));
        serde_json::from_slice(&bytes).unwrap()
    }
}

fn wish(server: &str, starts: i64, length: i64) -> Value {
    json!({ "server": server, "layout": "1x4c12g", "window": { "starts": starts, "ends": starts + length } })
}

fn at(sorted: &[Duration], share: f64) -> f64 {
    let rank = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len());
    (sorted[rank - 1].as_secs_f64() * 10_000.0).round() / 10.0
}

fn mib(pid: &str, what: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|l| l.strip_prefix(what)?.split_whitespace().next()?.parse::<f64>().ok());
    (kib.unwrap_or(0.0) / 102.4).round() / 10.0
}

#[tokio::main]
async fn main() {
    let Ok(base) = env::var("URL") else { return println!("start it by benches/hub.sh") };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (admin, pid) = (Person::new(&base, &env::var("TOKEN").unwrap()), env::var("PID").unwrap_or_default());
    let nobody = Person::new(&base, "");
    let mut people = vec![];
    for n in 1..=CLIENTS {
        let link = admin.made(&format!("/api/v1/people/p{n}/link"), &json!({})).await;
        let made = nobody.made("/api/v1/sign-in/link", &json!({ "link": link["token"] })).await;
        people.push(Person::new(&base, made["token"].as_str().unwrap()));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let first = (now / HOUR + 2) * HOUR;
    let mut out = json!({});
    out["idle_mib"] = mib(&pid, "VmRSS:").into();
    hammer(&people, first, &mut out).await;
    week(&people, &admin, now, &mut out).await;
    out["hub_mib"] = mib(&pid, "VmRSS:").into();
    out["hub_peak_mib"] = mib(&pid, "VmHWM:").into();
    println!("{out}");
}

async fn hammer(people: &[Person], first: i64, out: &mut Value) {
    let rounds = number("ROUNDS", 1000);
    let began = Instant::now();
    let tasks: Vec<_> = people
        .iter()
        .cloned()
        .map(|person| {
            tokio::spawn(async move {
                let (mut took, mut statuses, mut won) = (vec![], BTreeMap::<u16, usize>::new(), vec![]);
                for round in 0..rounds {
                    let starts = first + (round % 300) as i64 * HOUR;
                    let began = Instant::now();
                    let (status, _) =
                        person.ask(Method::POST, "/api/v1/bookings", Some(&wish("one", starts, 1800))).await;
                    took.push(began.elapsed());
                    *statuses.entry(status).or_default() += 1;
                    if status == 201 {
                        won.push(starts);
                    }
                }
                (took, statuses, won)
            })
        })
        .collect();
    let (mut took, mut statuses, mut winners) = (vec![], BTreeMap::<u16, usize>::new(), BTreeMap::<i64, usize>::new());
    for task in tasks {
        let (times, codes, won) = task.await.unwrap();
        took.extend(times);
        codes.into_iter().for_each(|(code, n)| *statuses.entry(code).or_default() += n);
        won.into_iter().for_each(|starts| *winners.entry(starts).or_default() += 1);
    }
    let all = began.elapsed();
    took.sort();
    out["requests"] = took.len().into();
    out["per_second"] = ((took.len() as f64 / all.as_secs_f64()).round() as u64).into();
    out["lost"] = statuses.get(&0).copied().unwrap_or(0).into();
    out["statuses"] = json!(statuses);
    out["windows_won"] = winners.len().into();
    out["most_winners"] = winners.values().copied().max().unwrap_or(0).into();
    out["p50_ms"] = at(&took, 0.5).into();
    out["p99_ms"] = at(&took, 0.99).into();
    out["most_ms"] = at(&took, 1.0).into();
}

/// Thirty servers whose every half hour of a week is somebody's.
async fn week(people: &[Person], admin: &Person, now: i64, out: &mut Value) {
    let servers = number("SERVERS", 30);
    // A Monday after all that the hammer booked, since the page shows whole weeks; day 4 was one.
    let begins = ((now / 86_400 + 23) / 7 * 7 - 3) * 86_400;
    for n in 0..servers {
        let server = json!({ "id": format!("w{n}"), "address": "192.0.2.2", "cores": 8, "memory": "32GiB", "buffer": 0,
            "opening": "always", "zone": "UTC", "mode": "exclusive" });
        admin.made("/api/v1/servers", &server).await;
    }
    let mut booked = 0;
    for slot in 0..336 {
        let starts = begins + slot * 1800;
        let half = people.len() / 2 * (slot % 2) as usize;
        let asks =
            (0..servers).map(|n| {
                let person = &people[(half + n) % people.len()];
                async move {
                    person.ask(Method::POST, "/api/v1/bookings", Some(&wish(&format!("w{n}"), starts, 1800))).await
                }
            });
        let answers = futures::future::join_all(asks).await;
        booked += answers.iter().filter(|(status, _)| *status == 201).count();
    }
    out["week_bookings"] = booked.into();
    let monday = jiff::Timestamp::from_second(begins).unwrap().strftime("%Y-%m-%d").to_string();
    let json = format!("/api/v1/week?from={begins}&to={}", begins + 7 * 86_400);
    for (name, path) in [("week_page", format!("/?from={monday}")), ("week_json", json)] {
        let (mut took, mut size) = (vec![], 0);
        for _ in 0..20 {
            let began = Instant::now();
            let (status, bytes) = admin.ask(Method::GET, &path, None).await;
            took.push(began.elapsed());
            assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&bytes[..bytes.len().min(400)]));
            let shown = String::from_utf8_lossy(&bytes).matches("class=\"taken ").count();
            assert!(name != "week_page" || shown >= booked, "the page shows {shown} of {booked} bookings");
            size = bytes.len();
        }
        took.sort();
        out[format!("{name}_ms")] = at(&took, 0.5).into();
        out[format!("{name}_most_ms")] = at(&took, 1.0).into();
        out[format!("{name}_kib")] = (size / 1024).into();
    }
}
