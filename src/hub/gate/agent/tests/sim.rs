use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock, Mutex, MutexGuard},
};

use async_trait::async_trait;

use crate::{
    core::{Code, Problem},
    hub::gate::{
        HubKey, Plan, ReportKind, Slot, SlotState,
        agent::{
            Agent, Cleared, Entry, Halted, HandOver, Ink, InkError, Journal, Kept, Limits, Reach, Reading, Remains,
            World, principals_line,
        },
    },
};

/// When the tests begin, in seconds since 1970.
pub const T0: i64 = 1_790_000_000;

/// How long labs are kept unused, in seconds.
pub const KEEP: i64 = 3000;

static KEY: LazyLock<HubKey> = LazyLock::new(|| HubKey::generate("plan").unwrap());

/// The server.
///
/// True time is that of the boot clock; the wall clock is what somebody made of it.
#[derive(Default)]
pub struct Server {
    pub boot: i64,
    pub boot_at: i64,
    pub boot_id: u32,
    pub wall_ahead: i64,
    pub doors: BTreeMap<String, String>,
    pub processes: BTreeMap<String, u32>,
    pub cron: BTreeSet<String>,
    /// Whose files lie in /tmp.
    pub files: BTreeSet<String>,
    /// Whose holders stay away.
    pub absent: BTreeSet<String>,
    /// Principals by which somebody came in, and was gone at once.
    pub let_in: BTreeSet<String>,
    /// Labs that run, by account, and the place of each.
    pub labs: BTreeMap<String, u32>,
    pub saved: BTreeSet<String>,
    /// Labs whose machines were stopped since their slots could not be ended.
    pub stopped: BTreeSet<String>,
    /// Labs that are kept between slots, by account.
    pub kept: BTreeMap<String, Option<Kept>>,
    /// The run of all machines.
    pub era: Option<String>,
    /// Accounts that reach the machines of their labs.
    pub reaching: BTreeSet<String>,
    pub warned: Vec<String>,
    /// What fails, as `save kct-a`, or `ask kct-a`: what says whose an account is; with `hang`, making one comes to no end.
    pub broken: BTreeSet<String>,
    /// Effects in order.
    pub did: Vec<String>,
    /// Doors that may be open now, by true time.
    pub rights: Vec<Slot>,
    pub wrongs: Vec<String>,
}

impl Server {
    /// True time in milliseconds.
    pub fn truth(&self) -> i64 {
        self.boot_at + self.boot
    }

    fn check(&mut self) {
        let now = self.truth();
        let doors = self.doors.clone();
        for (account, line) in doors.iter().filter(|(_, line)| !line.is_empty()) {
            let right = |s: &&Slot| {
                s.account == *account
                    && line.ends_with(&s.principal)
                    && s.starts * 1000 <= now
                    && now < s.ends * 1000 + 1100
            };
            if !self.rights.iter().any(|s| right(&s)) {
                self.wrongs.push(format!("{account} had {line} at {}", now - T0 * 1000));
            }
        }
        for account in self.reaching.clone() {
            let right = |s: &Slot| s.account == account && s.starts * 1000 <= now && now < s.ends * 1000 + 1100;
            if !self.rights.iter().any(right) {
                self.wrongs.push(format!("{account} reached a lab at {}", now - T0 * 1000));
            }
        }
    }
}

/// The server as the agent sees it.
#[derive(Clone, Default)]
pub struct Sim(pub Arc<Mutex<Server>>);

impl Sim {
    pub fn new() -> Self {
        let sim = Self::default();
        (sim.at().boot_at, sim.at().boot) = (T0 * 1000 - 5_000, 5_000);
        sim
    }

    pub fn at(&self) -> MutexGuard<'_, Server> {
        self.0.lock().unwrap()
    }

    /// Lets time pass: whoever has an open door is in, and cron does what it was told.
    pub fn pass(&self, millis: i64) {
        let mut server = self.at();
        server.boot += millis;
        let comes = |(account, line): &(&String, &String)| !line.is_empty() && !server.absent.contains(*account);
        let open: Vec<_> = server.doors.iter().filter(comes).map(|(a, _)| a.clone()).collect();
        for account in open {
            server.cron.insert(account.clone());
            server.files.insert(account.clone());
            *server.processes.entry(account).or_default() = 3;
        }
        for account in server.cron.clone() {
            *server.processes.entry(account).or_default() += 1;
        }
        server.check();
    }

    /// The machine restarts; files stay, processes and labs do not.
    pub fn restart(&self, down: i64) {
        let mut server = self.at();
        let now = server.truth() + down;
        (server.boot_at, server.boot) = (now, 0);
        server.boot_id += 1;
        server.processes.clear();
        server.reaching.clear();
    }

    fn does(&self, what: &str, account: &str) -> Result<(), Problem> {
        let mut server = self.at();
        let text = format!("{what} {account}");
        let broken = server.broken.contains(&text);
        server.did.push(text);
        if broken { Err(Problem::new(Code::GateHandOver, format!("{what} is broken"))) } else { Ok(()) }
    }
}

#[async_trait]
impl World for Sim {
    fn read_clocks(&self) -> Reading {
        let server = self.at();
        Reading {
            wall: server.truth() + server.wall_ahead,
            boot: server.boot,
            boot_id: server.boot_id.to_string(),
            up: server.boot,
        }
    }

    fn principals(&self) -> Result<BTreeMap<String, String>, Problem> {
        Ok(self.at().doors.clone().into_iter().filter(|(_, line)| !line.is_empty()).collect())
    }

    fn set_principals(&self, account: &str, line: &str) -> Result<(), Problem> {
        self.does(if line.is_empty() { "shut" } else { "open" }, account)?;
        let mut server = self.at();
        server.doors.insert(account.into(), line.into());
        // Of two that a restart left open, one is shut before the other, at the same time.
        if !line.is_empty() {
            server.check();
        }
        Ok(())
    }

    fn principals_line(&self, slot: &Slot) -> String {
        principals_line(slot, true)
    }

    async fn ensure_account(&self, account: &str) -> Result<(), Problem> {
        self.does("account", account)?;
        if self.at().broken.contains(&format!("ask {account}")) {
            return Err(Problem::new(Code::GateProgram, "id failed: it took too long"));
        }
        let hangs = self.at().broken.contains("hang");
        if hangs { std::future::pending().await } else { Ok(()) }
    }

    fn remember(&self, _: &str) {}

    async fn warn(&self, account: &str, text: &str) {
        self.at().warned.push(format!("{account}: {text}"));
    }

    async fn evict(&self, account: &str) -> Result<(), Problem> {
        self.does("evict", account)?;
        self.at().processes.remove(account);
        Ok(())
    }

    async fn clear(&self, account: &str) -> Result<Cleared, Problem> {
        self.does("clear", account)?;
        let mut server = self.at();
        if server.broken.contains(&format!("more {account}")) {
            return Ok(Cleared::Partly);
        }
        server.cron.remove(account);
        if !server.broken.contains(&format!("files {account}")) {
            server.files.remove(account);
        }
        Ok(Cleared::Whole)
    }

    async fn left_behind(&self, account: &str) -> Result<Vec<String>, Problem> {
        Ok(self.at().files.get(account).map(|whose| format!("file /tmp/{whose}")).into_iter().collect())
    }

    async fn cut_flows(&self, account: &str) -> Result<(), Problem> {
        self.does("cut", account)
    }

    async fn set_reach(&self, labs: &BTreeMap<String, Reach>, open: &BTreeSet<String>) -> Result<(), Problem> {
        let mut server = self.at();
        if server.broken.contains("reach") {
            return Err(Problem::new(Code::GateNotEmpty, "reach is broken"));
        }
        server.reaching = open.iter().filter(|account| labs.contains_key(*account)).cloned().collect();
        server.check();
        Ok(())
    }

    fn remains(&self, accounts: &[String]) -> Result<BTreeMap<String, Remains>, Problem> {
        let server = self.at();
        let left = |account: &String| {
            let mut count = server.processes.get(account).copied().unwrap_or_default();
            // An account whose processes nothing can end.
            count += u32::from(server.broken.contains(&format!("evict {account}")));
            let processes = (0..count).map(|n| format!("{n} sh")).collect();
            (count > 0).then(|| (account.clone(), Remains { processes, ..Remains::default() }))
        };
        Ok(accounts.iter().filter_map(left).collect())
    }

    async fn was_let_in(&self, principal: &str) -> bool {
        self.at().let_in.contains(principal)
    }

    fn accounts(&self) -> Vec<String> {
        vec!["kct-a".into(), "kct-b".into()]
    }
}

#[async_trait]
impl HandOver for Sim {
    fn fit(&self, slot: &Slot) -> Result<(), Problem> {
        match self.at().broken.contains(&format!("fit {}", slot.account)) {
            true => Err(Problem::new(Code::GateHandOver, format!("no lab can be made for {}", slot.account))),
            false => Ok(()),
        }
    }

    fn saves(&self, slot: &Slot) -> bool {
        self.at().labs.contains_key(&slot.account)
    }

    async fn save(&self, slot: &Slot) -> Result<(), Problem> {
        self.does("save", &slot.account)?;
        let mut server = self.at();
        if server.processes.get(&slot.account).is_some_and(|n| *n > 0) {
            server.wrongs.push(format!("{} was saved while it ran", slot.account));
        }
        server.saved.insert(slot.account.clone());
        Ok(())
    }

    async fn reset(&self, slot: &Slot) -> Result<(), Problem> {
        self.does("reset", &slot.account)?;
        self.at().labs.remove(&slot.account);
        Ok(())
    }

    async fn prove(&self, slot: &Slot) -> Result<(), Problem> {
        self.does("prove", &slot.account)
    }

    async fn halt(&self, slot: &Slot) -> Result<(), Problem> {
        self.does("halt", &slot.account)?;
        self.at().stopped.insert(slot.account.clone());
        Ok(())
    }

    async fn arm(&self, slot: &Slot) -> Result<(), Problem> {
        self.does("arm", &slot.account)?;
        let mut server = self.at();
        server.stopped.remove(&slot.account);
        let other = server.labs.iter().find(|(account, place)| **account != slot.account && **place == slot.place);
        if let Some(other) = other.map(|(account, _)| account.clone()) {
            server.wrongs.push(format!("{} was armed in the place of {other}", slot.account));
        }
        server.labs.insert(slot.account.clone(), slot.place);
        Ok(())
    }

    async fn revive(&self, slot: &Slot) -> Result<(), Problem> {
        self.does("revive", &slot.account)
    }

    fn era(&self) -> Option<String> {
        self.at().era.clone()
    }

    async fn retire(&self, account: &str) -> Result<(), Problem> {
        self.does("retire", account)?;
        self.at().kept.remove(account);
        Ok(())
    }

    fn reach(&self) -> BTreeMap<String, Reach> {
        self.at().labs.keys().map(|account| (account.clone(), Reach::default())).collect()
    }

    fn kept(&self) -> BTreeMap<String, Option<Kept>> {
        self.at().kept.clone()
    }
}

/// How the journal dies at its last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    Before,
    Torn,
    After,
}

struct Mortal {
    ink: Box<dyn Ink>,
    left: usize,
    death: Death,
}

impl Ink for Mortal {
    fn write(&mut self, line: &[u8]) -> Result<(), InkError> {
        if self.left > 0 {
            self.left -= 1;
            return self.ink.write(line);
        }
        match self.death {
            Death::Before => {}
            Death::Torn => self.ink.write(&line[..line.len() / 2])?,
            Death::After => self.ink.write(line)?,
        }
        Err(InkError::Halted)
    }
}

/// An agent on the server, with its folder.
pub struct Post {
    pub sim: Sim,
    pub agent: Agent,
    pub told: Vec<ReportKind>,
    known: u64,
    folder: tempfile::TempDir,
}

impl Post {
    pub fn new() -> Self {
        // In memory where there is such a folder: thousands of lines are synced here.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let sim = Sim::new();
        let agent = agent(&folder, &sim, None);
        Self { sim, agent, told: vec![], known: 0, folder }
    }

    /// The disk has no room for a plan, or has it again.
    pub fn refuse_plans(&self, refuse: bool) {
        // What is written first is this file, and a folder of its name cannot be replaced.
        let part = self.folder.path().join("plan.part");
        if refuse { std::fs::create_dir(part).unwrap() } else { std::fs::remove_dir(part).unwrap() }
    }

    /// The process ends and another begins, which lives for so many lines.
    pub fn reborn(&mut self, mortal: Option<(usize, Death)>) -> Result<(), Halted> {
        self.agent = agent(&self.folder, &self.sim, mortal);
        self.agent.recall_plan().map(|problem| assert!(problem.is_none_or(|p| p.code == Code::GatePlan)))
    }

    /// The same agent over a journal that is changed first.
    pub fn rewire(&mut self, change: impl FnOnce(Journal) -> Journal) {
        let journal = change(Journal::open(self.folder.path()).unwrap());
        self.agent = over(&self.folder, &self.sim, journal);
    }

    /// The hub's next plan, good for three days.
    pub fn plan(&mut self, revision: u64, slots: &[Slot]) -> Result<Result<(), Problem>, Halted> {
        let now = self.sim.at().truth() / 1000;
        let mut plan = Plan::new("s1", revision, now, now + 72 * 3600);
        plan.slots = slots.to_vec();
        self.give(&plan)
    }

    pub fn give(&mut self, plan: &Plan) -> Result<Result<(), Problem>, Halted> {
        let signed = plan.sign(&KEY).unwrap();
        let taken = self.agent.accept(&signed);
        let mut server = self.sim.at();
        let now = server.truth() / 1000;
        let mut old = std::mem::take(&mut server.rights);
        server.rights = plan.slots.iter().filter(|s| s.wanted == crate::hub::gate::Wanted::Open).cloned().collect();
        // Until the agent has accepted it, the hub sells nothing again; then until its next tick.
        if matches!(taken, Ok(Ok(()))) {
            old.iter_mut().for_each(|s| s.ends = s.ends.min(now));
        }
        server.rights.extend(old);
        drop(server);
        taken
    }

    /// Ticks until true time is `second` after the start of the test.
    pub async fn until(&mut self, second: i64) -> Result<(), Halted> {
        while self.sim.at().truth() < (T0 + second) * 1000 {
            let wait = self.agent.tick().await?;
            let left = (T0 + second) * 1000 - self.sim.at().truth();
            self.sim.pass(left.min(wait.as_millis() as i64));
        }
        self.agent.tick().await.map(drop)
    }

    /// The hub takes every report.
    pub fn hear(&mut self) -> Result<(), Halted> {
        let queue = self.agent.queue();
        if let Some(last) = queue.last() {
            let (seq, known) = (last.seq, self.known);
            assert!(queue.windows(2).all(|w| w[0].seq < w[1].seq));
            // The hub has it before the agent knows that it has.
            self.told.extend(queue.into_iter().filter(|r| r.seq > known).map(|r| r.kind));
            self.known = seq;
            self.agent.acknowledged(seq)?;
        }
        Ok(())
    }

    /// The states of a booking that the hub heard.
    pub fn states(&self, wanted: &str) -> Vec<SlotState> {
        let state = |kind: &ReportKind| match kind {
            ReportKind::State { booking, state, .. } if booking == wanted => Some(*state),
            _ => None,
        };
        self.told.iter().filter_map(state).collect()
    }

    pub fn is_open(&self, account: &str) -> bool {
        self.sim.at().doors.get(account).is_some_and(|line| !line.is_empty())
    }

    /// Panics if anybody had what was not theirs.
    pub fn right(&self) {
        let server = self.sim.at();
        assert!(server.wrongs.is_empty(), "{:#?}", server.wrongs);
    }
}

fn agent(folder: &tempfile::TempDir, sim: &Sim, mortal: Option<(usize, Death)>) -> Agent {
    let mut journal = Journal::open(folder.path()).unwrap();
    if let Some((left, death)) = mortal {
        journal = journal.through(|ink| Box::new(Mortal { ink, left, death }));
    }
    over(folder, sim, journal)
}

fn over(folder: &tempfile::TempDir, sim: &Sim, journal: Journal) -> Agent {
    let (world, hand) = (Arc::new(sim.clone()), Arc::new(sim.clone()));
    let limits = Limits { lead: 30, evict: 5, keep: KEEP };
    Agent::new(folder.path(), "s1", KEY.public().clone(), journal, world, hand, limits)
}

/// A slot of so many seconds after the start of the test.
pub fn slot(booking: &str, account: &str, starts: i64, ends: i64) -> Slot {
    Slot::new(booking, account, T0 + starts, T0 + ends)
}

/// Lines in a journal's file.
pub fn journaled(post: &Post) -> usize {
    let text = std::fs::read_to_string(post.folder.path().join("journal.ndjson")).unwrap_or_default();
    let lines = text.lines().count();
    assert!(text.lines().all(|l| {
        serde_json::from_str::<crate::hub::gate::agent::Line>(l)
            .is_ok_and(|l| !matches!(l.entry, Entry::Cleared { .. }))
    }));
    lines
}
