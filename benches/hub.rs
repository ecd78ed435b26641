//! Load on a hub that runs already, from a process of its own; `hub.sh` starts the hub and tells where it is.
//!
//! 64 clients, each with a connection and a token, ask 1,000 times for slots that overlap, each time half an hour later, so
//! that in most rounds somebody gets one; then 10,000 bookings lie in one week, and that week is asked for, as it is and
//! after a change. Prints one JSON line.

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
const HALF_HOUR: i64 = 1800;
const DAY: i64 = 86_400;

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

/// Milliseconds that this share of some took at most; 0 of none.
fn at(sorted: &[Duration], share: f64) -> f64 {
    if sorted.is_empty() {
        return 0.0;
    }
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
    let after = hammer(&people, first, &mut out).await;
    week(&people, &admin, after, &mut out).await;
    out["hub_mib"] = mib(&pid, "VmRSS:").into();
    out["hub_peak_mib"] = mib(&pid, "VmHWM:").into();
    println!("{out}");
}

/// What one client saw: how long all and those that got a slot took, the statuses, and the half hours it has.
#[derive(Default)]
struct Seen {
    took: Vec<Duration>,
    won: Vec<Duration>,
    statuses: BTreeMap<u16, usize>,
    sold: BTreeMap<i64, usize>,
}

impl Seen {
    /// Asks for a slot of this length in each round.
    async fn asked(person: Person, first: i64, rounds: usize, length: i64) -> Self {
        let mut seen = Self::default();
        for round in 0..rounds {
            let starts = first + round as i64 * HALF_HOUR;
            let began = Instant::now();
            let (status, _) = person.ask(Method::POST, "/api/v1/bookings", Some(&wish("one", starts, length))).await;
            let took = began.elapsed();
            seen.took.push(took);
            *seen.statuses.entry(status).or_default() += 1;
            if status == 201 {
                seen.won.push(took);
                (0..length / HALF_HOUR).for_each(|n| *seen.sold.entry(starts + n * HALF_HOUR).or_default() += 1);
            }
        }
        seen
    }

    fn add(&mut self, other: Self) {
        self.took.extend(other.took);
        self.won.extend(other.won);
        other.statuses.into_iter().for_each(|(status, n)| *self.statuses.entry(status).or_default() += n);
        other.sold.into_iter().for_each(|(starts, n)| *self.sold.entry(starts).or_default() += n);
    }
}

/// All at once for the same half hour, and a third of them for the next one too. Who asks for a half hour alone is refused
/// only when it is sold, so after all rounds each of them is, once. Gives the end of what was booked.
async fn hammer(people: &[Person], first: i64, out: &mut Value) -> i64 {
    let rounds = number("ROUNDS", 1000);
    let began = Instant::now();
    let tasks: Vec<_> = people
        .iter()
        .cloned()
        .enumerate()
        .map(|(n, person)| {
            let length = if n % 3 == 0 { 2 * HALF_HOUR } else { HALF_HOUR };
            tokio::spawn(Seen::asked(person, first, rounds, length))
        })
        .collect();
    let mut all = Seen::default();
    for task in tasks {
        all.add(task.await.unwrap());
    }
    let lasted = began.elapsed();
    all.took.sort();
    all.won.sort();
    let lost = all.statuses.get(&0).copied().unwrap_or(0);
    out["requests"] = all.took.len().into();
    out["per_second"] = ((all.took.len() as f64 / lasted.as_secs_f64()).round() as u64).into();
    out["lost"] = lost.into();
    out["answered"] = (all.statuses.values().sum::<usize>() - lost).into();
    out["statuses"] = json!(all.statuses);
    out["bookings"] = all.won.len().into();
    out["windows_won"] = all.sold.len().into();
    out["most_winners"] = all.sold.values().copied().max().unwrap_or(0).into();
    out["p50_ms"] = at(&all.took, 0.5).into();
    out["p99_ms"] = at(&all.took, 0.99).into();
    out["most_ms"] = at(&all.took, 1.0).into();
    out["won_p99_ms"] = at(&all.won, 0.99).into();
    first + (rounds as i64 + 1) * HALF_HOUR
}

/// Thirty servers whose every half hour of a week is somebody's.
async fn week(people: &[Person], admin: &Person, after: i64, out: &mut Value) {
    let servers = number("SERVERS", 30);
    // A Monday after all that the hammer booked, since the page shows whole weeks and nobody has two slots at a time; day 4
    // was one.
    let begins = ((after / DAY + 3) / 7 * 7 + 4) * DAY;
    for n in 0..servers {
        let server = json!({ "id": format!("w{n}"), "address": "192.0.2.2", "cores": 8, "memory": "32GiB", "buffer": 0,
            "opening": "always", "zone": "UTC", "mode": "exclusive" });
        admin.made("/api/v1/servers", &server).await;
    }
    let (mut booked, mut last) = (0, vec![]);
    for slot in 0..336 {
        let starts = begins + slot * HALF_HOUR;
        let half = people.len() / 2 * (slot % 2) as usize;
        let asks = (0..servers).map(|n| {
            let person = &people[(half + n) % people.len()];
            async move {
                let wish = wish(&format!("w{n}"), starts, HALF_HOUR);
                (person, person.ask(Method::POST, "/api/v1/bookings", Some(&wish)).await)
            }
        });
        last = futures::future::join_all(asks).await;
        last.retain(|(_, (status, _))| *status == 201);
        booked += last.len();
    }
    out["week_bookings"] = booked.into();
    let monday = jiff::Timestamp::from_second(begins).unwrap().strftime("%Y-%m-%d").to_string();
    let page = format!("/?from={monday}");
    let json = format!("/api/v1/week?from={begins}&to={}", begins + 7 * DAY);
    for (name, path) in [("week_page", &page), ("week_json", &json)] {
        let (mut took, mut size) = (vec![], 0);
        for _ in 0..20 {
            let (lasted, bytes) = shown(admin, path, if name == "week_page" { booked } else { 0 }).await;
            took.push(lasted);
            size = bytes;
        }
        took.sort();
        out[format!("{name}_ms")] = at(&took, 0.5).into();
        out[format!("{name}_most_ms")] = at(&took, 1.0).into();
        out[format!("{name}_kib")] = (size / 1024).into();
    }
    // What is kept of a page is right until somebody books or cancels.
    let mut took = vec![];
    for (person, (_, bytes)) in last.iter().take(20) {
        let made: Value = serde_json::from_slice(bytes).unwrap();
        let id = made["id"].as_str().unwrap();
        person.made(&format!("/api/v1/bookings/{id}/cancel"), &json!({})).await;
        booked -= 1;
        took.push(shown(admin, &page, booked).await.0);
    }
    took.sort();
    out["week_page_changed_ms"] = at(&took, 0.5).into();
    out["week_page_changed_most_ms"] = at(&took, 1.0).into();
}

/// How long a page or value took, and its length in bytes; so many bookings are on it at least.
async fn shown(admin: &Person, path: &str, bookings: usize) -> (Duration, usize) {
    let began = Instant::now();
    let (status, bytes) = admin.ask(Method::GET, path, None).await;
    let took = began.elapsed();
    assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&bytes[..bytes.len().min(400)]));
    let shown = String::from_utf8_lossy(&bytes).matches("class=\"taken ").count();
    assert!(shown >= bookings, "the page shows {shown} of {bookings} bookings");
    (took, bytes.len())
}
