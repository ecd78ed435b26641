use std::{
    fs::{self, TryLockError},
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use rustix::process::{Signal, geteuid};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::{
    locate::{EngineAt, Place, managed},
    outbound::CLOSED,
    process::{Process, end_with_children},
    residue::Residue,
    subnet::{self, Route},
};
use crate::{
    core::{Code, NodeId, Problem, Report},
    machine::{Capacity, incus::Incus},
};

const START: &str = include_str!("../../../templates/machine/engine-start.sh");
/// Where Debian, Ubuntu and Zabbly put the daemon.
pub(super) const DAEMONS: [&str; 3] = ["/usr/libexec/incus/incusd", "/usr/lib/incus/incusd", "/opt/incus/bin/incusd"];
const POOL: &str = "kubecamp";
pub(super) const BRIDGE: &str = "kcbr0";
/// The longest path that a Unix socket can have, less `/incus/unix.socket`.
const LONGEST: usize = 85;
/// How long machines get to end by themselves, in whole seconds.
const GRACE: Duration = Duration::from_secs(10);
/// How long the daemon may take until it answers.
const READY: Duration = Duration::from_secs(60);
/// How long a start may take from its turn on: what a slow computer needs to clear what is half-started, for [`READY`],
/// and for storage and network. Who wants a machine here meanwhile waits for it, so one that hangs must have an end.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long it may take to clear away a start that hung: what hung may hang here too, and others wait for their turn.
const CLEAR_LIMIT: Duration = Duration::from_secs(30);
/// How long a start or stop waits for its turn: others that wait too have theirs before, each with an end of its own.
const TURN_LIMIT: Duration = Duration::from_secs(600);
/// Pause between two tries to get it.
const TURN_PAUSE: Duration = Duration::from_millis(50);

/// The private engine in one folder: an Incus with its own network namespace, storage and bridge.
///
/// It touches neither the user's Incus nor the host's firewall, interfaces or mounts.
#[derive(Debug, Clone)]
pub struct Engine {
    dir: PathBuf,
    netns: PathBuf,
}

/// The turn to start or stop an engine: its folder's lock; `None` where there is no folder.
type Turn = Option<Arc<fs::File>>;

/// What a start has begun.
struct Begun {
    /// The script that starts the daemon.
    script: Option<Process>,
    /// Whether machines ran on, whose namespaces the daemon joins.
    joins: bool,
}

/// How a private engine is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EngineStatus {
    /// Whether its daemon runs and answers.
    pub running: bool,
    /// Whether its machines reach what this computer reaches.
    pub outbound: bool,
    /// Its folder.
    pub dir: PathBuf,
    /// Its network namespace.
    pub netns: PathBuf,
    /// The daemon's process.
    pub pid: Option<i32>,
    /// Incus's version.
    pub version: Option<String>,
    /// What it has on this computer now besides its folder: processes, loop devices, mounts, the namespace.
    pub traces: Vec<String>,
}

impl Engine {
    /// The engine in `dir`; nothing is started.
    ///
    /// Engines in different folders do not meet.
    pub fn new(dir: &Path) -> Self {
        let dir = fs::canonicalize(dir).or_else(|_| std::path::absolute(dir)).unwrap_or_else(|_| dir.to_owned());
        let digest = hex::encode(Sha256::digest(dir.as_os_str().as_encoded_bytes()));
        let netns = Path::new("/run/netns").join(format!("kubecamp-{}", &digest[..8]));
        Self { dir, netns }
    }

    /// How it is found again.
    pub fn at(&self) -> EngineAt {
        EngineAt::Private(self.dir.clone())
    }

    /// Whether it ever ran, so that it may hold disks: until then there are none, and no room is set aside for them.
    pub fn has_disks(&self) -> bool {
        self.dir.join("incus/disks").exists()
    }

    /// What tells one run of its machines from the next: with what holds their namespaces they end, all of them.
    ///
    /// None where none runs.
    pub fn era(&self) -> Option<String> {
        fs::read_to_string(self.dir.join("holder.pid")).ok()
    }

    /// The network namespace that its machines live in.
    pub fn netns(&self) -> &Path {
        &self.netns
    }

    /// Its API, which answers only while it runs.
    pub fn incus(&self) -> Result<Incus, Problem> {
        Incus::new(&self.dir.join("incus/unix.socket"))
    }

    /// Starts it unless it runs, with storage and network ready.
    ///
    /// A half-started one is cleared first.
    ///
    /// # Errors
    /// `KC-ENGINE-START` where it does not start; `KC-ENGINE-HANGS` where that comes to no end: after two minutes what it
    /// began is ended. A daemon that does not answer after one runs on; the next start clears it, with its machines.
    pub async fn start(&self, report: &dyn Report) -> Result<Place, Problem> {
        self.check()?;
        fs::create_dir_all(&self.dir)
            .map_err(|e| Problem::new(Code::LocalFile, format!("{} cannot be made", self.dir.display())).because(e))?;
        let turn = Some(Arc::new(self.lock().await?));
        let begun = OnceLock::new();
        self.within(START_LIMIT, &begun, &turn, self.begin(report, &begun, &turn)).await
    }

    async fn begin(&self, report: &dyn Report, begun: &OnceLock<Begun>, turn: &Turn) -> Result<Place, Problem> {
        let incus = self.incus()?;
        if self.daemon().is_none() || incus.server().await.is_err() {
            report.note(&NodeId::here(), &format!("starting the private machine engine in {}", self.dir.display()));
            self.launch(begun, turn).await?;
            self.until_ready(&incus).await?;
        }
        let place = self.place(incus).await?;
        if !self.outbound() {
            self.names(CLOSED).await?;
        }
        Ok(place)
    }

    /// A start, for so long at most. Of one that takes longer is ended what it has begun, and nothing else: machines that
    /// ran before it run on, and the next start joins them.
    async fn within(
        &self,
        limit: Duration,
        begun: &OnceLock<Begun>,
        turn: &Turn,
        start: impl Future<Output = Result<Place, Problem>>,
    ) -> Result<Place, Problem> {
        if let Ok(done) = tokio::time::timeout(limit, start).await {
            return done;
        }
        let mut left = vec![];
        if let Some(begun) = begun.get() {
            // First the script: it would start more.
            end_with_children(begun.script);
            if begun.joins {
                end_with_children(self.daemon());
            } else {
                let cleared = tokio::time::timeout(CLEAR_LIMIT, self.clear(turn)).await;
                left = cleared.unwrap_or_else(|_| Ok(vec!["clearing it away did not end either".to_owned()]))?;
            }
        }
        let (seconds, log) = (limit.as_secs(), self.dir.join("daemon.log").display().to_string());
        let what = format!("the private machine engine did not start within {seconds} s; its log is {log}");
        Err(Problem::new(Code::EngineHangs, what).detail(left))
    }

    /// The running engine; `None` when it does not run.
    pub async fn running(&self) -> Result<Option<Place>, Problem> {
        let incus = self.incus()?;
        if self.daemon().is_none() || incus.server().await.is_err() {
            return Ok(None);
        }
        self.place(incus).await.map(Some)
    }

    /// Ends its machines, daemon, helpers, namespace, mounts and loop device, whatever state they are in.
    ///
    /// Disks and database stay in the folder; a later start finds the machines again, stopped.
    pub async fn stop(&self, report: &dyn Report) -> Result<(), Problem> {
        if !self.dir.exists() && !self.netns.exists() {
            return Ok(());
        }
        self.check_root()?;
        let turn = if self.dir.exists() { Some(Arc::new(self.lock().await?)) } else { None };
        if let Some(daemon) = self.daemon() {
            report.note(&NodeId::here(), "stopping the machines and their engine");
            self.stop_machines().await;
            daemon.signal(Signal::TERM).ok();
            let end = Instant::now() + Duration::from_secs(10);
            while daemon.alive() && Instant::now() < end {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let left = self.clear(&turn).await?;
        if left.is_empty() {
            return Ok(());
        }
        Err(Problem::new(Code::EngineStart, "the private machine engine could not be cleared away whole")
            .detail(left)
            .hint("End what still uses it, then run kubecamp machine engine stop again."))
    }

    /// Removes a stopped engine's folder with every machine and image in it.
    pub async fn erase(&self, report: &dyn Report) -> Result<(), Problem> {
        self.stop(report).await?;
        match fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(Problem::new(Code::LocalFile, format!("{} cannot be removed", self.dir.display())).because(e))
            }
            _ => Ok(()),
        }
    }

    /// How it is now; never fails.
    pub async fn status(&self) -> EngineStatus {
        let server = match self.incus() {
            Ok(incus) => incus.server().await.ok(),
            Err(_) => None,
        };
        let pid = self.daemon().map(|d| d.pid);
        EngineStatus {
            running: pid.is_some() && server.is_some(),
            outbound: self.outbound(),
            dir: self.dir.clone(),
            netns: self.netns.clone(),
            pid,
            version: server.map(|s| s.environment.server_version),
            traces: self.residue().find(),
        }
    }

    fn residue(&self) -> Residue {
        Residue::new(&self.dir, &self.netns)
    }

    fn daemon(&self) -> Option<Process> {
        Process::from_file(&self.dir.join("daemon.pid"))
    }

    fn check_root(&self) -> Result<(), Problem> {
        if geteuid().is_root() {
            return Ok(());
        }
        Err(Problem::new(Code::LocalRoot, "the private machine engine makes namespaces and mounts, which needs root"))
    }

    fn check(&self) -> Result<(), Problem> {
        self.check_root()?;
        if self.dir.as_os_str().len() > LONGEST || self.dir.to_str().is_none_or(|d| d.contains([' ', '\n', '\\'])) {
            let what = format!("{} cannot be the engine's folder", self.dir.display());
            return Err(Problem::new(Code::LocalFile, what)
                .detail([format!("the path may have {LONGEST} bytes and no blanks: it holds a Unix socket")]));
        }
        Ok(())
    }

    /// One start or stop at a time in a folder.
    async fn lock(&self) -> Result<fs::File, Problem> {
        let failed = |e: std::io::Error| {
            Problem::new(Code::LocalFile, format!("{} cannot be locked", self.dir.display())).because(e)
        };
        let file = fs::File::options().create(true).append(true).open(self.dir.join("lock")).map_err(failed)?;
        let end = Instant::now() + TURN_LIMIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < end => tokio::time::sleep(TURN_PAUSE).await,
                Err(TryLockError::WouldBlock) => {
                    let log = self.dir.join("daemon.log");
                    let what = "another start or stop of the private machine engine comes to no end; its log is";
                    let what = format!("{what} {}", log.display());
                    return Err(Problem::new(Code::EngineHangs, what));
                }
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }
        }
    }

    /// It holds the turn for as long as it goes on, even where nobody waits for its end any more: what it removes could be of
    /// the next start by then.
    async fn clear(&self, turn: &Turn) -> Result<Vec<String>, Problem> {
        let (residue, turn) = (self.residue(), turn.clone());
        let clear = move || {
            let left = residue.clear();
            drop(turn);
            left
        };
        tokio::task::spawn_blocking(clear)
            .await
            .map_err(|e| Problem::new(Code::Internal, "clearing the engine was cut off").because(e))
    }

    /// Starts the daemon. Machines that outlived a killed daemon keep running: it joins them in their namespaces.
    async fn launch(&self, begun: &OnceLock<Begun>, turn: &Turn) -> Result<(), Problem> {
        let program = DAEMONS.iter().find(|p| Path::new(p).exists()).ok_or_else(|| {
            Problem::new(Code::LocalTools, "the program incusd is not installed")
                .detail(["package incus-base"])
                .hint("kubecamp up --local --yes installs it.")
        })?;
        let holder = Process::from_file(&self.dir.join("holder.pid")).filter(|_| self.netns.exists());
        match (holder, self.daemon()) {
            (Some(_), None) => {}
            // A daemon that runs but does not answer, or machines without the namespaces to join: begin anew.
            _ => drop(self.clear(turn).await?),
        }
        let mut command = Command::new("sh");
        command.arg("-c").arg(START).arg("engine-start").arg(&self.dir).arg(self.netns_name()).arg(program);
        let holder = holder.filter(|h| h.alive());
        if let Some(holder) = holder {
            command.env("KC_HOLDER", holder.pid.to_string());
        }
        let cannot = |e| Problem::new(Code::EngineStart, "sh could not be run").because(e);
        command.stdin(held(turn)).stdout(Stdio::piped()).stderr(Stdio::piped());
        let script = command.spawn().map_err(cannot)?;
        let pid = script.id().and_then(|pid| i32::try_from(pid).ok());
        begun.get_or_init(|| Begun { script: pid.and_then(Process::now), joins: holder.is_some() });
        let out = script.wait_with_output().await.map_err(cannot)?;
        if out.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&out.stderr).lines().map(str::to_owned).collect::<Vec<_>>();
        Err(Problem::new(Code::EngineStart, "the private machine engine did not start").detail(words))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn netns_name(&self) -> String {
        self.netns.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    async fn until_ready(&self, incus: &Incus) -> Result<(), Problem> {
        let end = Instant::now() + READY;
        loop {
            let answer = incus.server().await;
            match answer {
                Ok(_) => return Ok(()),
                Err(problem) if self.daemon().is_none() || Instant::now() > end => {
                    let log = self.dir.join("daemon.log");
                    let text = fs::read_to_string(&log).unwrap_or_default();
                    let lines: Vec<_> = text.lines().rev().take(5).map(str::to_owned).collect();
                    let what = format!("incusd ended or does not answer; its log is {}", log.display());
                    let words = lines.into_iter().rev().chain(problem.detail);
                    let code = if self.daemon().is_some() { Code::EngineHangs } else { Code::EngineStart };
                    return Err(Problem::new(code, what).detail(words));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Storage and network, made where missing.
    async fn place(&self, incus: Incus) -> Result<Place, Problem> {
        let text = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        if !incus.pools().await?.iter().any(|p| p.name == POOL) {
            let size = Capacity::here(&self.dir).pool().to_string();
            incus.make_pool(POOL, "btrfs", &text(&[("size", &size)])).await?;
        }
        let network = match incus.network(BRIDGE).await? {
            Some(network) => network.config,
            None => {
                // Nothing beyond this bridge can be reached unless a way out is opened, and that does not need Incus
                // to translate anything: no firewall rule is its own.
                let config = text(&[
                    ("ipv4.address", &subnet::bridge_address(&Route::here())),
                    ("ipv4.nat", "false"),
                    ("ipv4.firewall", "false"),
                    ("ipv6.address", "none"),
                    ("dns.mode", "none"),
                    ("raw.dnsmasq", CLOSED),
                ]);
                incus.make_bridge(BRIDGE, &config).await?;
                config
            }
        };
        let nic = managed(BRIDGE, &network)
            .ok_or_else(|| Problem::new(Code::EngineStart, format!("the bridge {BRIDGE} has no IPv4 address")))?;
        let version = incus.server().await?.environment.server_version;
        let title = format!("kubecamp's private Incus {version} in {}", self.dir.display());
        Ok(Place { incus, pool: POOL.to_owned(), nic, netns: Some(self.netns.clone()), title })
    }

    /// Stops the machines side by side, with a short grace; whatever stays is killed with the engine.
    async fn stop_machines(&self) {
        let Ok(incus) = self.incus() else { return };
        let Ok(machines) = incus.instances().await else { return };
        let running = machines.iter().filter(|m| m.status != "Stopped");
        let all = futures::future::join_all(running.map(|m| incus.stop(&m.name, Some(GRACE))));
        // An Incus that hangs must not hold up the end of everything.
        tokio::time::timeout(2 * GRACE, all).await.ok();
    }
}

/// The turn as a script's standard input, so that the script has it too: where this process is killed, the next start waits
/// for what the script still begins. Two daemons in one folder would end each other.
fn held(turn: &Turn) -> Stdio {
    let copy = turn.as_ref().and_then(|file| file.try_clone().ok());
    copy.map_or_else(Stdio::null, Stdio::from)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

    use super::*;

    #[tokio::test]
    async fn a_start_that_hangs_ends_with_what_it_began() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::new(dir.path());
        let mut script = Command::new("sh");
        script.args(["-c", "sleep 600 & echo begun; wait"]).stdout(Stdio::piped()).kill_on_drop(true);
        let mut script = script.spawn().unwrap();
        let mut out = BufReader::new(script.stdout.take().unwrap());
        let mut said = String::new();
        out.read_line(&mut said).await.unwrap();
        assert_eq!(said, "begun\n");
        let begun = OnceLock::new();
        let process = Process::now(script.id().unwrap() as i32);
        begun.get_or_init(|| Begun { script: process, joins: true });
        let hung = engine.within(Duration::from_millis(1), &begun, &None, std::future::pending()).await.unwrap_err();
        assert!(hung.code == Code::EngineHangs && hung.what.contains("daemon.log"), "{hung}");
        assert!(!script.wait().await.unwrap().success());
        // What it ran writes there too, so this ends with the last of it.
        assert_eq!(out.read_to_string(&mut said).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_script_that_outlives_its_run_keeps_the_turn() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::new(dir.path());
        let turn: Turn = Some(Arc::new(engine.lock().await.unwrap()));
        let mut script = Command::new("sleep").arg("600").stdin(held(&turn)).kill_on_drop(true).spawn().unwrap();
        // As the kernel does where the run is killed.
        drop(turn);
        let next = fs::File::options().append(true).open(dir.path().join("lock")).unwrap();
        assert!(matches!(next.try_lock(), Err(TryLockError::WouldBlock)));
        script.kill().await.unwrap();
        drop(engine.lock().await.unwrap());
    }

    #[tokio::test]
    async fn what_a_start_says_is_its_own_word() {
        let engine = Engine::new(tempfile::tempdir().unwrap().path());
        let no = async { Err(Problem::new(Code::LocalTools, "no incusd")) };
        let problem = engine.within(START_LIMIT, &OnceLock::new(), &None, no).await.unwrap_err();
        assert_eq!((problem.code, problem.what.as_str()), (Code::LocalTools, "no incusd"));
    }
}
