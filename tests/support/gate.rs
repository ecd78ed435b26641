//! A server behind the gate: real accounts, a real sshd in a network of its own, the real agent, a hub of a few lines.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{Json, Router, extract::State, http::HeaderMap, routing};
use kubecamp::{
    hub::gate::{
        Accepted, Events, Extras, Heartbeat, HeartbeatAnswer, HubKey, Plan, Report, ReportKind, SignedPlan, Slot,
        SlotState, issue,
    },
    phases::sshd_drop_in,
};

use super::sshd::{Setup, Sshd, must, write_private};

/// Seconds since 1970, with parts.
pub fn wall() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// The next whole second that is at least so far ahead.
pub fn soon(seconds: f64) -> i64 {
    (wall() + seconds).ceil() as i64
}

/// Who has an account on a test's server.
const STUDENTS: [&str; 3] = ["a", "b", "c"];

/// What the hub has and heard.
#[derive(Default)]
pub struct Desk {
    pub plan: Option<(u64, SignedPlan)>,
    pub heard: Vec<Report>,
    pub heartbeats: Vec<Heartbeat>,
}

/// One test's server.
///
/// Accounts and group carry the test's name, so that left-overs of a killed run are its own.
pub struct Gate {
    pub name: &'static str,
    pub sshd: Sshd,
    pub ca: HubKey,
    pub plan_key: HubKey,
    pub desk: Arc<Mutex<Desk>>,
    pub dir: tempfile::TempDir,
    agent: Option<Child>,
    hub: Option<tokio::task::JoinHandle<()>>,
}

impl Gate {
    /// A server; its accounts are `kct-NAME-a`, `-b` and `-c`.
    pub fn new(name: &'static str) -> Self {
        Self::beside(name, "")
    }

    /// A server whose sshd has lines of its own before the gate's.
    pub fn beside(name: &'static str, own: &str) -> Self {
        clean(name);
        let dir = tempfile::tempdir().unwrap();
        // sshd reads principals as the one who comes.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let at = |file: &str| dir.path().join(file).display().to_string();
        fs::create_dir(at("principals")).unwrap();
        let (ca, plan_key) = (HubKey::generate("ca").unwrap(), HubKey::generate("plan").unwrap());
        fs::write(at("ca.pub"), ca.public_line().unwrap()).unwrap();
        let open = ["127.0.0.1:*".to_owned()];
        let drop_in = sshd_drop_in(&group(name), &at("ca.pub"), &at("principals"), &open, &[], (9, 2)).unwrap();
        fs::write(at("50-kubecamp.conf"), drop_in).unwrap();
        // Without the gate, what a student plants in the home folder would count.
        let config =
            format!("{own}Include {}\nAuthorizedKeysFile .ssh/authorized_keys {}", at("50-kubecamp.conf"), at("admin"));
        must("groupadd", &["--force", &group(name)]);
        for who in STUDENTS {
            let account = format!("kct-{name}-{who}");
            must("useradd", &["-m", "-s", "/bin/bash", "-p", "*", "-G", &group(name), &account]);
            let file = dir.path().join(&account);
            must("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &file.display().to_string()]);
        }
        let sshd = Sshd::with(Setup { config, netns: true, ..Setup::default() });
        fs::copy(sshd.file("authorized"), at("admin")).unwrap();
        fs::write(at("known"), format!("[127.0.0.1]:{} {}\n", sshd.port, sshd.host_key())).unwrap();
        write_private(&dir.path().join("token"), "kct_test");
        Self { name, sshd, ca, plan_key, desk: Arc::default(), dir, agent: None, hub: None }
    }

    pub fn account(&self, who: &str) -> String {
        format!("kct-{}-{who}", self.name)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A slot of one of them.
    pub fn slot(&self, booking: &str, who: &str, starts: i64, ends: i64) -> Slot {
        Slot::new(booking, &self.account(who), starts, ends)
    }

    pub fn sign(&self, revision: u64, slots: &[Slot]) -> SignedPlan {
        let now = wall() as i64;
        let mut plan = Plan::new("s1", revision, now, now + 3600);
        plan.slots = slots.to_vec();
        plan.sign(&self.plan_key).unwrap()
    }

    /// The hub's plan from now on.
    pub fn plan(&self, revision: u64, slots: &[Slot]) {
        self.desk.lock().unwrap().plan = Some((revision, self.sign(revision, slots)));
    }

    /// The plan that the agent had before the hub went away.
    pub fn plan_at_hand(&self, revision: u64, slots: &[Slot]) {
        fs::create_dir_all(self.file("state")).unwrap();
        fs::write(self.file("state/plan.json"), serde_json::to_vec(&self.sign(revision, slots)).unwrap()).unwrap();
    }

    /// The certificate of a slot, in the file `CERT` for its holder's key.
    pub fn certify(&self, slot: &Slot, cert: &str) {
        let key = fs::read_to_string(self.file(&format!("{}.pub", slot.account))).unwrap();
        let extras = Extras { forwarding: true, sources: vec![] };
        let line = issue(&self.ca, "s1", slot, &key, 1, &extras).unwrap();
        fs::write(self.file(cert), line).unwrap();
    }

    /// The hub answers on a socket.
    pub fn start_hub(&mut self) {
        let socket = self.file("hub.sock");
        let _ = fs::remove_file(&socket);
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let app = Router::new()
            .route("/api/v1/agent/plan", routing::get(plan))
            .route("/api/v1/agent/events", routing::post(events))
            .route("/api/v1/agent/heartbeat", routing::post(heartbeat))
            .with_state(Arc::clone(&self.desk));
        self.hub = Some(tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }));
    }

    /// The agent's process in sshd's network.
    pub fn start_agent(&mut self) {
        let at = |file: &str| self.file(file).display().to_string();
        let config = format!(
            "server: s1\nhub: 'unix:{}'\ntoken-file: {}\nplan-key: {}\nstate: {}\nprincipals: {}\ngroup: {}\n\
             expiry-time: true\nlead: 2\npoll: 1\n",
            at("hub.sock"),
            at("token"),
            self.plan_key.public_line().unwrap(),
            at("state"),
            at("principals"),
            group(self.name)
        );
        fs::write(self.file("agent.yaml"), config).unwrap();
        let log = File::options().create(true).append(true).open(self.file("agent.log")).unwrap();
        let mut child = self.inside(env!("CARGO_BIN_EXE_kubecamp"));
        let child = child.args(["agent", "--config", &at("agent.yaml")]).stdin(Stdio::null()).stderr(log).spawn();
        self.agent = Some(child.unwrap());
    }

    /// kill -9.
    pub fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }

    /// A program in sshd's network.
    ///
    /// `nsenter` becomes the program, so its process id is the program's.
    pub fn inside(&self, program: &str) -> Command {
        let netns = self.sshd.target().netns.unwrap();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", netns.display())).arg(program);
        command
    }

    /// The student's own ssh, with a certificate.
    pub fn ssh(&self, who: &str, cert: Option<&str>, options: &[&str], line: &[&str]) -> Command {
        let account = self.account(who);
        let mut command = self.inside("ssh");
        command.args(["-F", "none", "-p", &self.sshd.port.to_string(), "-i"]).arg(self.file(&account));
        if let Some(cert) = cert {
            command.arg("-o").arg(format!("CertificateFile={}", self.file(cert).display()));
        }
        command.arg("-o").arg(format!("UserKnownHostsFile={}", self.file("known").display()));
        command.args(["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=10"]).args(options);
        command.arg(format!("{account}@127.0.0.1")).args(line);
        command.stdin(Stdio::null());
        command
    }

    /// Whether a login works.
    pub fn gets_in(&self, who: &str, cert: Option<&str>) -> bool {
        self.run(who, cert, "true").status.success()
    }

    pub fn run(&self, who: &str, cert: Option<&str>, line: &str) -> Output {
        self.ssh(who, cert, &[], &[line]).output().unwrap()
    }

    /// Processes of an account that live, by name.
    pub fn processes(&self, who: &str) -> Vec<String> {
        let out = Command::new("ps").args(["-o", "stat=,comm=", "-U", &self.account(who)]).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        text.lines().map(str::trim).filter(|l| !l.starts_with('Z')).map(str::to_owned).collect()
    }

    /// Command lines of an account's processes.
    pub fn commands(&self, who: &str) -> Vec<String> {
        let out = Command::new("ps").args(["-ww", "-o", "args=", "-U", &self.account(who)]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).lines().map(|l| l.trim().to_owned()).collect()
    }

    /// Lines in the agent's journal.
    pub fn journaled(&self) -> usize {
        fs::read_to_string(self.file("state/journal.ndjson")).unwrap_or_default().lines().count()
    }

    /// The states of a booking that the hub heard.
    pub fn states(&self, wanted: &str) -> Vec<SlotState> {
        let state = |report: &Report| match &report.kind {
            ReportKind::State { booking, state, .. } if booking == wanted => Some(*state),
            _ => None,
        };
        self.desk.lock().unwrap().heard.iter().filter_map(state).collect()
    }

    /// What sshd and agent said, for a failure.
    pub fn logs(&self) -> String {
        let agent = fs::read_to_string(self.file("agent.log")).unwrap_or_default();
        let journal = fs::read_to_string(self.file("state/journal.ndjson")).unwrap_or_default();
        format!("sshd:\n{}\nagent:\n{agent}\njournal:\n{journal}", self.sshd.log())
    }

    /// Waits until `done`, at most until this time; gives the time when it was.
    pub fn by(&self, what: &str, limit: f64, mut done: impl FnMut(&Self) -> bool) -> f64 {
        loop {
            if done(self) {
                return wall();
            }
            assert!(wall() < limit, "{what} did not happen in time\n{}", self.logs());
            std::thread::yield_now();
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.kill_agent();
        if let Some(hub) = self.hub.take() {
            hub.abort();
        }
        clean(self.name);
    }
}

/// The group of a test's students.
pub fn group(name: &str) -> String {
    format!("kct-{name}")
}

/// Removes the accounts of a test, also those that a killed run left.
fn clean(name: &str) {
    for who in STUDENTS {
        let account = format!("kct-{name}-{who}");
        let exists = || Command::new("id").arg(&account).output().unwrap().status.success();
        let began = Instant::now();
        while exists() && began.elapsed() < Duration::from_secs(10) {
            let quiet = |program: &str, args: &[&str]| drop(Command::new(program).args(args).output());
            quiet("pkill", &["-KILL", "-U", &account]);
            quiet("userdel", &["-r", "-f", &account]);
        }
        let _ = fs::remove_file(format!("/var/spool/cron/crontabs/{account}"));
    }
    let _ = Command::new("groupdel").arg(group(name)).output();
}

type Shared = State<Arc<Mutex<Desk>>>;

fn is_known(headers: &HeaderMap) -> bool {
    headers.get("authorization").is_some_and(|v| v == "Bearer kct_test")
}

async fn plan(State(desk): Shared, headers: HeaderMap) -> Result<Json<SignedPlan>, axum::http::StatusCode> {
    let plan = desk.lock().unwrap().plan.clone();
    plan.filter(|_| is_known(&headers)).map(|(_, plan)| Json(plan)).ok_or(axum::http::StatusCode::NOT_FOUND)
}

async fn events(State(desk): Shared, headers: HeaderMap, Json(new): Json<Events>) -> Json<Accepted> {
    assert!(is_known(&headers));
    let mut desk = desk.lock().unwrap();
    let known = desk.heard.last().map_or(0, |r| r.seq);
    desk.heard.extend(new.events.into_iter().filter(|r| r.seq > known));
    Json(Accepted { accepted: desk.heard.last().map_or(0, |r| r.seq) })
}

async fn heartbeat(State(desk): Shared, Json(beat): Json<Heartbeat>) -> Json<HeartbeatAnswer> {
    let mut desk = desk.lock().unwrap();
    desk.heartbeats.push(beat);
    let revision = desk.plan.as_ref().map_or(0, |(revision, _)| *revision);
    Json(HeartbeatAnswer { clock: (wall() * 1000.0) as i64, revision })
}

/// A path as text.
pub fn text(path: &Path) -> String {
    path.display().to_string()
}
