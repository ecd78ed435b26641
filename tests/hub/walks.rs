//! A real agent walks bookings through their life, and the hub's process is killed around each single report: before it
//! arrives, while it is under way, and after it was applied but not answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use kubecamp::{
    core::{Code, Problem},
    hub::{
        desk::{Caller, Desk},
        domain::{Booking, Grid, Policy, State},
        gate::{
            Accepted, Events, Heartbeat, HeartbeatAnswer, Report, ReportKind, SignedPlan, Slot, SlotState,
            agent::{
                Agent, Cleared, Commands, Config, HttpLink, HubLink, Journal, Ledger, Line, Link, Reach, Reading,
                Remains, World, principals_line, serve,
            },
        },
        http::Clock,
        store::AuditRow,
    },
};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    processes::{Process, ask, token},
    world::{camp, generous, healthy},
};

/// What the hub can be killed around, in the order of a slot's life: the plan is fetched, the rest is reported.
const MARKS: [&str; 8] = ["plan", "arming", "active", "seen", "ending", "saving", "resetting", "done"];

/// What the audit of a booking says after such a life: each change once.
const ACTIONS: [&str; 9] = [
    "booking.new",
    "agent.arming",
    "agent.active",
    "booking.logged-in",
    "booking.release",
    "agent.ending",
    "agent.saving",
    "agent.resetting",
    "agent.done",
];

/// A slot is the whole day that runs, seconds: no full half hour comes in between.
const DAY: i64 = 86_400;

/// Whatever is waited for has come by then, on a slow machine too.
const LIMIT: Duration = Duration::from_secs(60);

/// When the hub is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// The request never reaches it.
    Before,
    /// The request is under way.
    Amidst,
    /// It has done what was asked, but nobody hears of it.
    After,
}

/// A server on which nothing is real but the clock: who has an open door is in, and goes when put out.
struct Bare {
    since: Instant,
    doors: Mutex<BTreeMap<String, String>>,
}

impl Bare {
    fn open(&self) -> BTreeMap<String, String> {
        self.doors.lock().unwrap().clone().into_iter().filter(|(_, line)| !line.is_empty()).collect()
    }
}

#[async_trait]
impl World for Bare {
    fn read_clocks(&self) -> Reading {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        Reading {
            wall,
            boot: self.since.elapsed().as_millis() as i64,
            boot_id: "first".into(),
            up: self.since.elapsed().as_millis() as i64,
        }
    }

    fn principals(&self) -> Result<BTreeMap<String, String>, Problem> {
        Ok(self.open())
    }

    fn set_principals(&self, account: &str, line: &str) -> Result<(), Problem> {
        self.doors.lock().unwrap().insert(account.to_owned(), line.to_owned());
        Ok(())
    }

    fn principals_line(&self, slot: &Slot) -> String {
        principals_line(slot, true)
    }

    async fn ensure_account(&self, _: &str) -> Result<(), Problem> {
        Ok(())
    }

    fn remember(&self, _: &str) {}

    async fn warn(&self, _: &str, _: &str) {}

    async fn evict(&self, _: &str) -> Result<(), Problem> {
        Ok(())
    }

    async fn clear(&self, _: &str) -> Result<Cleared, Problem> {
        Ok(Cleared::Whole)
    }

    async fn cut_flows(&self, _: &str) -> Result<(), Problem> {
        Ok(())
    }

    async fn set_reach(&self, _: &BTreeMap<String, Reach>, _: &BTreeSet<String>) -> Result<(), Problem> {
        Ok(())
    }

    fn remains(&self, accounts: &[String]) -> Result<BTreeMap<String, Remains>, Problem> {
        let mut inside = self.open();
        inside.retain(|account, _| accounts.contains(account));
        let shell = || Remains { processes: vec!["1 sh".into()], ..Remains::default() };
        Ok(inside.into_keys().map(|account| (account, shell())).collect())
    }

    fn accounts(&self) -> Vec<String> {
        vec![]
    }
}

/// What is still to be done to the hub while one booking lives.
#[derive(Default)]
struct Round {
    when: Option<When>,
    left: Vec<&'static str>,
    /// Bookings of the rounds before, of which the agent may still tell.
    over: BTreeSet<String>,
}

/// The hub, and the agent's way to it that loses it again and again.
struct Shaky {
    folder: PathBuf,
    database: String,
    hub: Mutex<Process>,
    link: HttpLink,
    round: Mutex<Round>,
}

impl Shaky {
    /// kill -9, and the hub begins anew.
    fn kill(&self) {
        let mut hub = self.hub.lock().unwrap();
        hub.kill();
        *hub = Process::start(&self.folder, "hub", &self.database);
    }

    /// Whether the hub is to be killed around this, and when; only once for each mark of a round.
    fn strikes(&self, mark: &str) -> Option<When> {
        let mut round = self.round.lock().unwrap();
        let at = round.left.iter().position(|left| *left == mark)?;
        round.left.remove(at);
        round.when
    }

    /// The first report around which the hub is to be killed, by its place, and when.
    fn target(&self, reports: &[Report]) -> Option<(usize, When)> {
        for (at, report) in reports.iter().enumerate() {
            let Some((booking, mark)) = mark_of(report) else { continue };
            let is_over = self.round.lock().unwrap().over.contains(booking);
            if !is_over && let Some(when) = self.strikes(mark) {
                return Some((at, when));
            }
        }
        None
    }
}

/// Which booking a report tells of, and what.
fn mark_of(report: &Report) -> Option<(&str, &'static str)> {
    match &report.kind {
        ReportKind::State { booking, state, .. } => Some((booking.as_str(), word(*state))),
        ReportKind::Seen { booking, .. } => Some((booking.as_str(), "seen")),
        _ => None,
    }
}

fn word(state: SlotState) -> &'static str {
    match state {
        SlotState::Arming => "arming",
        SlotState::Active => "active",
        SlotState::Ending => "ending",
        SlotState::Saving => "saving",
        SlotState::Resetting => "resetting",
        SlotState::Done => "done",
        SlotState::Quarantined => "quarantined",
    }
}

fn lost() -> Problem {
    Problem::new(Code::GateLink, "the hub was killed")
}

#[async_trait]
impl HubLink for Shaky {
    async fn plan(&self) -> Result<SignedPlan, Problem> {
        let Some(when) = self.strikes("plan") else { return self.link.plan().await };
        if when == When::Before {
            self.kill();
        } else {
            self.link.plan().await?;
            self.kill();
        }
        Err(lost())
    }

    async fn events(&self, events: &Events) -> Result<Accepted, Problem> {
        let Some((at, when)) = self.target(&events.events) else { return self.link.events(events).await };
        // Up to this report and no further, so that nothing else is lost with its answer.
        let upto = Events { server: events.server.clone(), events: events.events[..=at].to_vec() };
        match when {
            When::Before => {
                self.kill();
                Err(lost())
            }
            When::Amidst => {
                let death = async {
                    tokio::task::yield_now().await;
                    self.kill();
                };
                tokio::join!(self.link.events(&upto), death).0
            }
            When::After => {
                self.link.events(&upto).await?;
                self.kill();
                Err(lost())
            }
        }
    }

    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatAnswer, Problem> {
        self.link.heartbeat(heartbeat).await
    }
}

/// Who books, who would like to have the same slot, and who looks on.
struct People {
    shaky: Arc<Shaky>,
    client: Client,
    amy: String,
    bob: String,
    teacher: String,
}

impl People {
    /// Asks until the answer is good: a hub that is away is asked again.
    async fn until(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<(&str, &Value)>,
        good: impl Fn(u16, &Value) -> bool,
    ) -> Value {
        let began = Instant::now();
        loop {
            let answer = ask(&self.client, method.clone(), path, token, body).await;
            if let Ok((status, value)) = &answer
                && good(*status, value)
            {
                return value.clone();
            }
            assert!(began.elapsed() < LIMIT, "{method} {path}: {answer:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// One wish of amy's, with the hub killed around it; she asks again under the same key.
    async fn wants(&self, when: When, path: &str, key: &str, body: &Value, status: u16) -> Value {
        if when == When::Before {
            self.shaky.kill();
        }
        let good = |got: u16, _: &Value| got == status;
        let first = async { self.until(Method::POST, path, &self.amy, Some((key, body)), good).await };
        let death = async {
            tokio::task::yield_now().await;
            if when == When::Amidst {
                self.shaky.kill();
            }
        };
        let (first, ()) = tokio::join!(first, death);
        if when != When::After {
            return first;
        }
        self.shaky.kill();
        let again = self.until(Method::POST, path, &self.amy, Some((key, body)), good).await;
        assert_eq!(again["id"], first["id"], "asked twice, done once");
        again
    }

    /// A booking from its wish to its end, with the hub killed around each step.
    async fn walk(&self, number: usize, when: When) -> String {
        {
            let mut round = self.shaky.round.lock().unwrap();
            (round.when, round.left) = (Some(when), MARKS.to_vec());
        }
        let now = Clock::system().now().0;
        let starts = now - now.rem_euclid(DAY);
        let wish =
            json!({ "server": "one", "layout": "1x4c12g", "window": { "starts": starts, "ends": starts + DAY } });
        // The place is free again as soon as the agent has told that it works by a plan without the slot before.
        let made = self.wants(when, "/api/v1/bookings", &format!("book-{number}"), &wish, 201).await;
        let id = made["id"].as_str().unwrap().to_owned();
        let path = format!("/api/v1/bookings/{id}");
        let came = |_: u16, b: &Value| b["state"] == "active" && !b["came"].is_null();
        self.until(Method::GET, &path, &self.amy, None, came).await;
        // Killed four times by now, or five: a heartbeat says too who came. The slot is still nobody else's.
        let (key, taken) = (format!("rival-{number}"), |status: u16, _: &Value| status != 503);
        let rival = self.until(Method::POST, "/api/v1/bookings", &self.bob, Some((key.as_str(), &wish)), taken).await;
        assert_eq!(rival["status"], 409, "{rival}");
        self.apart().await;
        self.wants(when, &format!("{path}/release"), &format!("release-{number}"), &json!({}), 200).await;
        self.until(Method::GET, &path, &self.amy, None, |_, b| b["state"] == "done").await;
        self.apart().await;
        let mut round = self.shaky.round.lock().unwrap();
        assert!(round.left.is_empty(), "the hub was not killed around {:?}", round.left);
        round.over.insert(id.clone());
        id
    }

    /// No two live bookings have one place at a time, as everybody sees it.
    async fn apart(&self) {
        let all = self.until(Method::GET, "/api/v1/bookings", &self.bob, None, |status, _| status == 200).await;
        let mut live: Vec<Booking> = serde_json::from_value(all).unwrap();
        live.retain(|b| b.state.is_live());
        for (n, a) in live.iter().enumerate() {
            let twice = |b: &&Booking| (&a.server, a.place) == (&b.server, b.place) && a.busy().overlaps(b.busy());
            let other = live[n + 1..].iter().find(twice);
            assert!(other.is_none(), "{a:?} {other:?}");
        }
    }

    /// Each change of a booking is there once, in a legal order, and no report was set aside.
    async fn once(&self, id: &str) {
        let path = format!("/api/v1/audit?subject=booking:{id}");
        let rows = self.until(Method::GET, &path, &self.teacher, None, |status, _| status == 200).await;
        let mut rows: Vec<AuditRow> = serde_json::from_value(rows).unwrap();
        rows.reverse();
        let actions: Vec<&str> = rows.iter().map(|row| row.action.as_str()).collect();
        assert_eq!(actions, ACTIONS, "{id}");
        let state = |text: &Option<String>| text.as_deref().map(|t| t.parse::<State>().unwrap());
        for (row, version) in rows.iter().zip(1..) {
            assert_eq!(row.version, Some(version), "{id}");
            let (from, to) = (state(&row.from_state), state(&row.to_state).unwrap());
            assert!(from.is_none_or(|from| from == to || from.may_become(to)), "{id}: {from:?} to {to}");
        }
    }
}

/// The agent of the server `one`, as its configuration makes it.
fn agent(folder: &Path, plan_key: &str, token: &str) -> (Config, HttpLink) {
    use std::os::unix::fs::PermissionsExt;
    let at = |name: &str| folder.join(name).display().to_string();
    std::fs::write(at("token"), format!("{token}\n")).unwrap();
    std::fs::set_permissions(at("token"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = format!(
        "server: one\nhub: 'unix:{}'\ntoken-file: {}\nplan-key: {plan_key}\nstate: {}\n",
        at("hub.sock"),
        at("token"),
        at("state"),
    );
    std::fs::write(at("agent.yaml"), config).unwrap();
    let config = Config::load(Path::new(&at("agent.yaml"))).unwrap();
    let link = HttpLink::of(&config).unwrap().unwrap();
    (config, link)
}

/// Reports that the hub has not acknowledged, by the journal of the agent that writes it: it is only read here.
fn untold(state: &Path) -> Vec<Report> {
    let mut ledger = Ledger::default();
    let text = std::fs::read_to_string(state.join("journal.ndjson")).unwrap();
    text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()).for_each(|line| ledger.apply(&line));
    ledger.queue
}

/// kill -9 of the hub around the wish, the plan, each report and the release: every booking ends `done`, each report
/// was applied once, and nothing was sold twice.
pub async fn killed_around_every_report(desk: &Desk, url: &str) {
    let daily = Policy { grid: Grid::try_from(1440).unwrap(), longest: 1440, ..generous() };
    camp(desk, &daily).await;
    let folder = tempfile::tempdir().unwrap();
    let now = Clock::system().now();
    let server = "one".parse().unwrap();
    let secret = desk.make_agent_token(&Caller::Console, now, &server).await.unwrap().text.expose().to_owned();
    let (amy, bob) = (token(desk, "amy", now).await, token(desk, "bob", now).await);
    let teacher = token(desk, "tea", now).await;
    let hub = Process::start(folder.path(), "hub", url);
    let client = hub.client();
    let (status, keys) = ask(&client, Method::GET, "/api/v1/gate", &amy, None).await.unwrap();
    assert_eq!(status, 200, "{keys}");
    let (config, link) = agent(folder.path(), keys["plan_key"].as_str().unwrap(), &secret);

    let world = Arc::new(Bare { since: Instant::now(), doors: Mutex::default() });
    let journal = Journal::open(&config.state).unwrap();
    let (key, hand) = (config.plan_key().unwrap(), Arc::new(Commands::default()));
    let keeper = Agent::new(&config.state, "one", key, journal, world.clone(), hand, config.limits());
    let shaky = Arc::new(Shaky {
        folder: folder.path().to_owned(),
        database: url.to_owned(),
        hub: Mutex::new(hub),
        link,
        round: Mutex::default(),
    });
    let way = Link { hub: shaky.clone(), poll: Duration::from_millis(20), server: "one".into() };
    let people = People { shaky, client, amy, bob, teacher };

    let stop = CancellationToken::new();
    let mut walked = vec![];
    let story = async {
        for (number, when) in [When::Before, When::Amidst, When::After].into_iter().enumerate() {
            walked.push(people.walk(number, when).await);
            healthy(desk).await;
        }
        // What the agent has not been answered yet it tells once more.
        let began = Instant::now();
        while !untold(&config.state).is_empty() {
            assert!(began.elapsed() < LIMIT, "{:?}", untold(&config.state));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
    };
    let say = |_: &str| {};
    let (served, ()) = tokio::join!(serve(keeper, world, Some(way), &say, &stop), story);
    served.unwrap();

    assert_eq!(walked.len(), 3);
    for id in &walked {
        people.once(id).await;
        let booking = desk.booking(&Caller::Console, now, &id.parse().unwrap()).await.unwrap();
        assert_eq!((booking.state, booking.place), (State::Done, Some(0)), "{id}");
    }
    assert_eq!(desk.server(&Caller::Console, now, &server).await.unwrap().occupant, None);
    healthy(desk).await;
}
