use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::process::Command;

use super::{
    MachinesConfig,
    child::{Group, KEPT, Said, collected, last_lines},
    journal, welcome,
};
use crate::{
    core::{Code, Event, EventKind, LabName, Problem, Quiet, shell::printable},
    engine::Lock,
    hub::gate::Slot,
    machine::{Engine, EngineAt, Machine, Wanted},
    profile::{self, Lab, Mirror},
};

/// What makes labs on this server and hands them to their holders.
///
/// Every call may be repeated.
#[async_trait]
pub trait Labs: Send + Sync {
    /// The lab as it was made; none where there is none. One that cannot be read is an error: it is there, and may run.
    fn known(&self, lab: &LabName) -> Result<Option<Lab>, Problem>;

    /// Waits until nobody works on the lab, ends who does so without leave, and keeps others away while the answer
    /// lives; none where there is no lab to keep.
    async fn alone(&self, lab: &LabName) -> Result<Option<Lock>, Problem>;

    /// Brings the lab up, or finds that it is, and proves that it works; `layout` counts where there is none yet.
    async fn up(&self, lab: &LabName, layout: &str) -> Result<(), Problem>;

    /// Removes the lab with its machines; no error when there is none.
    async fn down(&self, lab: &LabName) -> Result<(), Problem>;

    /// Whether the holder asked for a fresh lab in place of the saved one.
    async fn is_unwanted(&self, slot: &Slot) -> Result<bool, Problem>;

    /// Forgets that the holder asked, since the saved lab goes now: asking counts once.
    async fn heed(&self, _slot: &Slot) -> Result<(), Problem> {
        Ok(())
    }

    /// Lets the slot's holder into the lab's machines, from the account and with the key of the plan; `trouble` says why
    /// the lab does not work as it should. Gives what the holder's home or a machine does not take, which keeps them from nothing.
    async fn hand(
        &self,
        slot: &Slot,
        lab: &LabName,
        machines: &[Machine],
        trouble: Option<&Problem>,
    ) -> Result<Vec<Problem>, Problem>;
}

/// kubecamp's own program, in a home of the gate's own.
pub struct Program {
    program: PathBuf,
    home: PathBuf,
    kind: Wanted,
    bundle: Option<PathBuf>,
    outbound: bool,
    mirrors: Vec<Mirror>,
    keep_labs: u32,
}

/// The file that this process runs, also after another one took its name.
const SELF: &str = "/proc/self/exe";
/// How long a run that was told to end may take.
const PATIENCE: Duration = Duration::from_secs(10);

impl Program {
    /// The program that the agent is.
    pub fn here(config: &MachinesConfig) -> Self {
        Self {
            program: SELF.into(),
            home: config.home.clone(),
            kind: config.kind,
            bundle: config.bundle.clone(),
            outbound: config.outbound,
            mirrors: config.mirrors.clone(),
            keep_labs: config.keep_labs,
        }
    }

    /// The folder of the private engine.
    pub fn engine(&self) -> PathBuf {
        self.home.join("data/engine")
    }

    /// The folder of node images.
    pub fn images(&self) -> PathBuf {
        self.home.join("cache/images")
    }

    /// The engine that the lab's machines are in, as `up` noted it.
    pub fn noted_engine(&self, lab: &LabName) -> Result<Option<EngineAt>, Problem> {
        #[derive(Deserialize)]
        struct Noted {
            engine: Option<EngineAt>,
        }
        let file = self.folder(lab).join("state.json");
        let Some(text) = stored(&file)? else { return Ok(None) };
        let noted: Noted = serde_json::from_str(&text).map_err(|e| unreadable(&file).because(e))?;
        Ok(noted.engine)
    }

    /// Starts the private engine, which a restart of the server has ended, with its way out.
    pub async fn start_engine(&self, lab: &LabName) -> Result<(), Problem> {
        let words = ["machine", "engine", "start", "--outbound"];
        self.run(lab, &words[..if self.outbound { 4 } else { 3 }]).await
    }

    /// Gives the private engine, where it runs, the way out that is configured, or takes it away: it may have been
    /// started with another configuration.
    pub async fn settle_way_out(&self) -> Result<(), Problem> {
        let engine = Engine::new(&self.engine());
        if !self.outbound {
            return engine.close_outbound().await;
        }
        if engine.running().await?.is_some() { engine.open_outbound(&Quiet).await } else { Ok(()) }
    }

    /// The file of a profile of this layout with the configured mirrors; none where none are. It is the lab's own: slots
    /// begin at the same moment, and two that write one file are in each other's way.
    fn mirrored(&self, lab: &LabName, layout: &str) -> Result<Option<String>, Problem> {
        if self.mirrors.is_empty() {
            return Ok(None);
        }
        let cannot = || Problem::new(Code::GateHandOver, "there is no profile with the mirrors of this server");
        let profile = profile::with_mirrors(layout, self.mirrors.clone()).map_err(|e| cannot().because(e))?;
        let file = self.home.join(format!("{lab}.yaml"));
        fs::create_dir_all(&self.home).map_err(|e| cannot().because(e))?;
        journal::replace(&file, profile::to_yaml(&profile)?.as_bytes(), 0o600)?;
        Ok(Some(file.display().to_string()))
    }

    fn folder(&self, lab: &LabName) -> PathBuf {
        self.home.join("data/labs").join(lab.as_str())
    }

    /// The program with these words, to its end; its process group ends with this call, should that be dropped.
    async fn run(&self, lab: &LabName, words: &[&str]) -> Result<(), Problem> {
        let what = format!("kubecamp {} of the lab {lab} failed", words.first().copied().unwrap_or_default());
        let cannot = |e| Problem::new(Code::GateHandOver, format!("{what}: it cannot be run")).because(e);
        let mut command = Command::new(&self.program);
        command.arg0("kubecamp").args(["--name", lab.as_str(), "--yes", "--output-events", "ndjson"]).args(words);
        command.env("KUBECAMP_HOME", &self.home).env("LC_ALL", "C");
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        for name in ["KUBECAMP_CACHE", "KUBECAMP_LAB", "INCUS_DIR", "INCUS_SOCKET"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().map_err(cannot)?;
        // The agent is spared when memory is short; labs and their engine are not to be.
        if let Some(id) = child.id() {
            let _ = fs::write(format!("/proc/{id}/oom_score_adj"), "0");
        }
        let group = Group::of(&child);
        let told = child.stdout.take().map(|out| Said::of(out, failures));
        let said = child.stderr.take().map(|out| Said::of(out, last_lines));
        let status = child.wait().await.map_err(cannot)?;
        group.leave();
        if status.success() {
            return Ok(());
        }
        let mut lines = collected(told).await;
        if lines.is_empty() {
            lines = collected(said).await;
        }
        // The program's own word, on which nothing else is tried in vain.
        let hangs = Code::EngineHangs.to_string();
        let code = if lines.iter().any(|line| line.contains(&hangs)) { Code::EngineHangs } else { Code::GateHandOver };
        Err(Problem::new(code, format!("{what}: {status}")).detail(lines))
    }
}

#[async_trait]
impl Labs for Program {
    fn known(&self, lab: &LabName) -> Result<Option<Lab>, Problem> {
        let file = self.folder(lab).join("lab.yaml");
        let Some(text) = stored(&file)? else { return Ok(None) };
        Lab::from_yaml(&text).map(Some).map_err(|problem| unreadable(&file).because(problem))
    }

    async fn alone(&self, lab: &LabName) -> Result<Option<Lock>, Problem> {
        let folder = self.folder(lab);
        if !folder.exists() {
            return Ok(None);
        }
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            match Lock::take(&folder) {
                Err(problem) if problem.code == Code::LabBusy && tokio::time::Instant::now() < end => {
                    // A run of an agent that was killed: nobody hears how it ends, and this slot is another one.
                    if let Some(pid) = holder(&folder) {
                        let _ = kill_process_group(pid, Signal::KILL);
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                other => return other.map(Some),
            }
        }
    }

    async fn up(&self, lab: &LabName, layout: &str) -> Result<(), Problem> {
        let (kind, is_new) = (self.kind.to_string(), self.known(lab)?.is_none());
        let profile = if is_new { self.mirrored(lab, layout)? } else { None };
        // The hub counts what runs at a time; `up` would count the labs that lie stopped between their slots too.
        let mut words = vec!["up", "--local", "--allow-undersized", "--machines", kind.as_str()];
        let bundle = self.bundle.as_ref().map(|file| file.display().to_string());
        if self.outbound {
            words.push("--outbound");
        }
        // A lab that exists stays what it is, and keeps the bundle that it was made from.
        if is_new {
            match &profile {
                Some(file) => words.extend(["--profile", file.as_str()]),
                None => words.extend(["--layout", layout]),
            }
            if let Some(bundle) = &bundle {
                words.extend(["--bundle", bundle.as_str()]);
            }
        }
        let ran = self.run(lab, &words).await;
        if let Some(file) = &profile {
            let _ = fs::remove_file(file);
        }
        ran
    }

    async fn down(&self, lab: &LabName) -> Result<(), Problem> {
        match self.known(lab)? {
            Some(_) => self.run(lab, &["down"]).await,
            None => Ok(()),
        }
    }

    async fn is_unwanted(&self, slot: &Slot) -> Result<bool, Problem> {
        welcome::wants_anew(slot).await
    }

    async fn heed(&self, slot: &Slot) -> Result<(), Problem> {
        welcome::heed(slot).await
    }

    async fn hand(
        &self,
        slot: &Slot,
        lab: &LabName,
        machines: &[Machine],
        trouble: Option<&Problem>,
    ) -> Result<Vec<Problem>, Problem> {
        let folder = self.folder(lab);
        let let_in = welcome::let_in(&folder.join("key"), machines, slot).await;
        // Who broke the lab may have broken that too, and is told so.
        let mut lacking = match let_in {
            Err(problem) if trouble.is_none() => return Err(problem),
            let_in => let_in.unwrap_or_default(),
        };
        lacking.extend(welcome::furnish(slot, &folder, machines, self.keep_labs, trouble).await?);
        let known = self.known(lab)?;
        welcome::kubectl(&self.home, self.bundle.as_deref(), known.as_ref())?;
        Ok(lacking)
    }
}

/// A file of a lab's folder; none where there is none.
fn stored(file: &Path) -> Result<Option<String>, Problem> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(unreadable(file).because(e)),
    }
}

/// What cannot be read is there all the same: its machines may run, and what is in them is its holder's.
fn unreadable(file: &Path) -> Problem {
    Problem::new(Code::GateHandOver, format!("what {} says of a lab cannot be read", file.display()))
        .hint("Where a newer kubecamp wrote it, enroll the server with that one again; then clear the quarantine.")
        .hint("Where it is damaged, put a copy of it back, or give the lab up as the guide of the gate says.")
}

/// The process that holds the lab's lock, when it is one of ours in a group of its own.
fn holder(folder: &Path) -> Option<Pid> {
    let pid: i32 = fs::read_to_string(folder.join("lock")).ok()?.trim().parse().ok()?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let lab = folder.file_name()?.to_string_lossy();
    let words: Vec<_> = line.split(|b| *b == 0).collect();
    let ours = words.windows(2).any(|w| w[0] == b"--name" && w[1] == lab.as_bytes());
    ours.then(|| Pid::from_raw(pid)).flatten()
}

/// Keeps the problems of a run that failed, from its events.
fn failures(kept: &mut Vec<String>, line: &str) {
    let Ok(Event { kind: EventKind::Failure { problem }, .. }) = serde_json::from_str(line) else { return };
    // The first is the cause, what follows from it comes after.
    kept.extend(problem.to_string().lines().map(|l| printable(l.trim())));
    kept.truncate(KEPT);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tokio::io::{AsyncBufReadExt, BufReader};

    use super::*;

    /// A program that notes its words and does `then`.
    fn program(dir: &Path, then: &str) -> Program {
        let file = dir.join("program");
        fs::write(&file, format!("#!/bin/sh\necho \"$KUBECAMP_HOME $*\" >> {}/ran\n{then}\n", dir.display())).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let (home, bundle) = (dir.to_owned(), Some("/b.bundle".into()));
        Program { program: file, home, kind: Wanted::Vm, bundle, outbound: false, mirrors: vec![], keep_labs: 60 }
    }

    /// What a run prints of a problem.
    fn event_of(problem: Problem) -> String {
        let run = crate::core::RunId::new("r-1");
        let at = jiff::Timestamp::UNIX_EPOCH;
        serde_json::to_string(&Event { run, seq: 1, at, kind: EventKind::Failure { problem } }).unwrap()
    }

    fn lab() -> LabName {
        "gate-amy".parse().unwrap()
    }

    fn keep(program: &Program) {
        let known = Lab::new(lab(), crate::profile::load("2x4c8g").unwrap()).unwrap();
        fs::create_dir_all(program.folder(&lab())).unwrap();
        fs::write(program.folder(&lab()).join("lab.yaml"), known.to_yaml().unwrap()).unwrap();
    }

    #[tokio::test]
    async fn a_new_lab_has_layout_and_bundle_and_an_old_one_keeps_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let program = program(dir.path(), "");
        program.down(&lab()).await.unwrap();
        program.up(&lab(), "2x4c8g").await.unwrap();
        keep(&program);
        assert_eq!(program.known(&lab()).unwrap().unwrap().layout().to_string(), "2x4c8g");
        program.up(&lab(), "2x4c8g").await.unwrap();
        program.down(&lab()).await.unwrap();
        let ran = fs::read_to_string(dir.path().join("ran")).unwrap();
        let before = format!("{} --name gate-amy --yes --output-events ndjson", dir.path().display());
        let up = format!("{before} up --local --allow-undersized --machines vm");
        assert_eq!(ran, format!("{up} --layout 2x4c8g --bundle /b.bundle\n{up}\n{before} down\n"));
    }

    #[tokio::test]
    async fn a_lab_that_cannot_be_read_is_neither_gone_nor_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let program = program(dir.path(), "");
        assert!(program.known(&lab()).unwrap().is_none() && program.noted_engine(&lab()).unwrap().is_none());
        keep(&program);
        let (file, state) = (program.folder(&lab()).join("lab.yaml"), program.folder(&lab()).join("state.json"));
        let newer = fs::read_to_string(&file).unwrap().replace("format: 1", "format: 99");
        fs::write(&file, newer).unwrap();
        for problem in [
            program.known(&lab()).unwrap_err(),
            program.down(&lab()).await.unwrap_err(),
            program.up(&lab(), "2x4c8g").await.unwrap_err(),
        ] {
            assert!(problem.code == Code::GateHandOver && problem.what.contains("gate-amy/lab.yaml"), "{problem}");
            assert!(problem.all_hints()[0].contains("enroll the server with that one again"), "{problem:?}");
        }
        assert!(!dir.path().join("ran").exists(), "nothing is run on a guess");
        fs::write(&state, r#"{"engine": {"another": "kind"}}"#).unwrap();
        assert_eq!(program.noted_engine(&lab()).unwrap_err().code, Code::GateHandOver);
    }

    #[tokio::test]
    async fn labs_have_the_way_out_and_the_mirrors_that_are_configured() {
        let dir = tempfile::tempdir().unwrap();
        // The profile is read while the program runs.
        let then = format!("cp {0}/gate-amy.yaml {0}/read.yaml 2>/dev/null; true", dir.path().display());
        let mut program = program(dir.path(), &then);
        let mirror = Mirror { registry: "docker.io".into(), endpoints: vec!["https://mirror.example".into()] };
        (program.outbound, program.mirrors) = (true, vec![mirror]);
        program.up(&lab(), "2x4c8g").await.unwrap();
        assert!(!dir.path().join("gate-amy.yaml").exists(), "nobody needs it any more");
        keep(&program);
        program.up(&lab(), "2x4c8g").await.unwrap();
        program.start_engine(&lab()).await.unwrap();
        program.outbound = false;
        program.start_engine(&lab()).await.unwrap();
        let ran = fs::read_to_string(dir.path().join("ran")).unwrap();
        let before = format!("{} --name gate-amy --yes --output-events ndjson", dir.path().display());
        let up = format!("{before} up --local --allow-undersized --machines vm --outbound");
        let (file, start) = (dir.path().join("gate-amy.yaml"), format!("{before} machine engine start"));
        let first = format!("{up} --profile {} --bundle /b.bundle", file.display());
        assert_eq!(ran, format!("{first}\n{up}\n{start} --outbound\n{start}\n"));
        let profile = profile::load(dir.path().join("read.yaml").to_str().unwrap()).unwrap();
        assert_eq!((profile.layout.to_string(), profile.mirrors), ("2x4c8g".to_owned(), program.mirrors));
    }

    #[tokio::test]
    async fn an_engine_that_hangs_is_told_from_one_that_does_not_start() {
        let dir = tempfile::tempdir().unwrap();
        for code in [Code::EngineHangs, Code::EngineStart] {
            // As the program tells it: as an event, and on the other way its log's lines, which push the code out of sight.
            let log = (0..8).map(|n| format!("line {n} of its log"));
            let line = event_of(Problem::new(code, "incusd does not answer").detail(log));
            let then = format!("echo '{line}'; for n in 1 2 3 4 5 6 7; do echo $n >&2; done; exit 6");
            let problem = program(dir.path(), &then).start_engine(&lab()).await.unwrap_err();
            let known = if code == Code::EngineHangs { code } else { Code::GateHandOver };
            assert_eq!(problem.code, known, "{problem}");
        }
    }

    /// As at the first hour of a course on a shared server.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn labs_that_begin_at_the_same_moment_have_profiles_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let mut program = program(dir.path(), "");
        let mirror = Mirror { registry: "docker.io".into(), endpoints: vec!["https://mirror.example".into()] };
        program.mirrors = vec![mirror];
        let program = std::sync::Arc::new(program);
        let up = |name: &str| {
            let (program, lab) = (std::sync::Arc::clone(&program), name.parse::<LabName>().unwrap());
            tokio::spawn(async move { program.up(&lab, "2x4c8g").await })
        };
        for task in [up("gate-amy"), up("gate-bob"), up("gate-cem")] {
            task.await.unwrap().unwrap();
        }
        let ran = fs::read_to_string(dir.path().join("ran")).unwrap();
        for name in ["gate-amy", "gate-bob", "gate-cem"] {
            let own = format!("--name {name} ");
            let line = ran.lines().find(|line| line.contains(&own)).unwrap();
            assert!(line.contains(&format!(" --profile {}/{name}.yaml", dir.path().display())), "{line}");
        }
    }

    #[tokio::test]
    async fn a_failure_says_what_the_run_said() {
        let dir = tempfile::tempdir().unwrap();
        let line = event_of(Problem::new(Code::VerifyFailed, "CoreDNS is not ready").detail(["0 of 2"]));
        let failed = program(dir.path(), &format!("echo '{line}'; printf '\\377\\n'; echo no >&2; exit 8"));
        let told = failed.up(&lab(), "2x4c8g").await.unwrap_err();
        assert_eq!((told.code, told.detail.len()), (Code::GateHandOver, 2), "{told}");
        assert!(told.detail[0].contains("CoreDNS is not ready") && told.what.contains("exit status: 8"), "{told}");
        let mute = program(dir.path(), "echo no bundle >&2; exit 5");
        assert_eq!(mute.up(&lab(), "2x4c8g").await.unwrap_err().detail, ["no bundle"]);
    }

    #[tokio::test]
    async fn a_run_ends_with_all_that_it_started_when_nobody_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let program = program(dir.path(), &format!("sleep 600 & echo $! > {}/pid; wait", dir.path().display()));
        let file = dir.path().join("pid");
        let task = tokio::spawn(async move { program.up(&lab(), "2x4c8g").await });
        let end = tokio::time::Instant::now() + PATIENCE;
        let lives = |pid: &str| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        let mut pid = String::new();
        while pid.is_empty() && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
            pid = fs::read_to_string(&file).unwrap_or_default();
        }
        assert!(lives(&pid), "it runs");
        task.abort();
        while lives(&pid) {
            assert!(tokio::time::Instant::now() < end, "its child lives on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn a_run_that_a_killed_agent_left_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let program = program(dir.path(), "");
        assert!(program.alone(&lab()).await.unwrap().is_none(), "there is no lab to keep");
        keep(&program);
        let lock = program.folder(&lab()).join("lock");
        fs::write(&lock, "").unwrap();
        let script = format!("echo $$ > {0}; exec 9>>{0}; flock 9; echo held; sleep 600", lock.display());
        let mut left = Command::new("sh");
        left.args(["-c", &script, "kubecamp", "--name", "gate-amy"]).process_group(0).stdout(Stdio::piped());
        let mut left = left.kill_on_drop(true).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(left.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
        assert!(program.alone(&lab()).await.unwrap().is_some());
        assert!(!left.wait().await.unwrap().success());
    }
}
