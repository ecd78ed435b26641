use std::{collections::BTreeMap, process::Stdio, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::{
    Reach,
    child::{Group, Said, collected, last_lines},
    welcome,
};
use crate::{
    core::{Code, Problem},
    hub::gate::Slot,
};

/// A lab that a server keeps for an account between its slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its name on the server.
    pub lab: String,
    /// Its layout, as `2x4c8g`: a slot of another one begins anew, in its place.
    pub layout: String,
}

/// What happens to the lab between two holders.
///
/// Every call may be repeated, also after it was killed midway.
#[async_trait]
pub trait HandOver: Send + Sync {
    /// Whether a lab can be brought up for this slot at all, without touching anything: what is only its holder's
    /// matter costs the slot before anything has begun.
    fn fit(&self, _slot: &Slot) -> Result<(), Problem> {
        Ok(())
    }

    /// Whether holders find a lab at all: else a slot is a login, and the hub calls it so.
    fn makes_labs(&self) -> bool {
        true
    }

    /// Whether there is a lab of the holder that [`HandOver::save`] keeps; nobody is told so where there is none.
    fn saves(&self, _slot: &Slot) -> bool {
        false
    }

    /// Keeps the holder's lab so that it can be brought back in a later slot.
    async fn save(&self, slot: &Slot) -> Result<(), Problem>;

    /// Frees the place of everything of the holder.
    async fn reset(&self, slot: &Slot) -> Result<(), Problem>;

    /// Succeeds only if nothing of the holder is left.
    async fn prove(&self, slot: &Slot) -> Result<(), Problem>;

    /// Stops what runs of the holder's lab, whose slot could not be ended as it must; nothing is thrown away.
    async fn halt(&self, _slot: &Slot) -> Result<(), Problem> {
        Ok(())
    }

    /// Brings the holder's saved lab back, or a fresh one up.
    async fn arm(&self, slot: &Slot) -> Result<(), Problem>;

    /// Brings a lab up again that was up for its slot before: a restart of the server stopped it.
    async fn revive(&self, _slot: &Slot) -> Result<(), Problem> {
        Ok(())
    }

    /// What could not be put into a holder's home as their lab was handed over, if anything: they have the lab all the same.
    fn lacking(&self, _account: &str) -> Option<String> {
        None
    }

    /// What tells one run of all machines here from the next: where it has changed they were ended, whoever's they are. Asked
    /// often; none where nothing runs, or nobody can tell.
    fn era(&self) -> Option<String> {
        None
    }

    /// Removes the lab that is kept for an account, whose holder has not come for long.
    async fn retire(&self, _account: &str) -> Result<(), Problem> {
        Ok(())
    }

    /// The ways to the labs of this server, by account; asked often, so it only looks at what is known.
    fn reach(&self) -> BTreeMap<String, Reach> {
        BTreeMap::new()
    }

    /// The labs that this server keeps, by account; no account where only its own commands know of any. One that is there
    /// and cannot be read is none in its account's place.
    fn kept(&self) -> BTreeMap<String, Option<Kept>> {
        BTreeMap::new()
    }
}

/// Runs configured commands, for servers without machines of kubecamp's own.
///
/// A command is a program and its words; it gets `KUBECAMP_BOOKING`, `KUBECAMP_ACCOUNT`, `KUBECAMP_PLACE` and
/// `KUBECAMP_LAYOUT` in its environment and nothing else but a PATH. One that is not configured succeeds. One that takes too
/// long, or whose slot ends meanwhile, is ended with all that it started; what it leaves running at its own end stays.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Commands {
    /// Saves.
    pub save: Vec<String>,
    /// Cleans.
    pub reset: Vec<String>,
    /// Proves.
    pub prove: Vec<String>,
    /// Brings up.
    pub arm: Vec<String>,
    /// How long each may take, in seconds; 0 is ten minutes.
    pub limit: u64,
}

#[async_trait]
impl HandOver for Commands {
    fn makes_labs(&self) -> bool {
        !self.arm.is_empty()
    }

    fn saves(&self, _slot: &Slot) -> bool {
        !self.save.is_empty()
    }

    async fn save(&self, slot: &Slot) -> Result<(), Problem> {
        self.run("save", &self.save, slot).await
    }

    async fn reset(&self, slot: &Slot) -> Result<(), Problem> {
        self.run("reset", &self.reset, slot).await
    }

    async fn prove(&self, slot: &Slot) -> Result<(), Problem> {
        self.run("prove", &self.prove, slot).await
    }

    async fn arm(&self, slot: &Slot) -> Result<(), Problem> {
        if !self.makes_labs() {
            welcome::without_lab(slot).await;
        }
        self.run("arm", &self.arm, slot).await
    }
}

impl Commands {
    async fn run(&self, what: &str, words: &[String], slot: &Slot) -> Result<(), Problem> {
        let Some((program, rest)) = words.split_first() else { return Ok(()) };
        let failed =
            |why: String| Problem::new(Code::GateHandOver, format!("{what} of booking {} failed: {why}", slot.booking));
        let mut command = Command::new(program);
        command
            .args(rest)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("KUBECAMP_BOOKING", &slot.booking)
            .env("KUBECAMP_ACCOUNT", &slot.account)
            .env("KUBECAMP_PLACE", slot.place.to_string())
            .env("KUBECAMP_LAYOUT", slot.layout.as_deref().unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        let cannot = |e| failed(format!("{program} cannot be run")).because(e);
        let mut child = command.spawn().map_err(cannot)?;
        let group = Group::of(&child);
        let said = child.stderr.take().map(|err| Said::of(err, last_lines));
        let limit = Duration::from_secs(if self.limit == 0 { 600 } else { self.limit });
        // Its exit counts, not the end of its output: what it leaves running may hold that open.
        let status = match tokio::time::timeout(limit, child.wait()).await {
            Err(_) => return Err(failed(format!("it took longer than {} s", limit.as_secs()))),
            Ok(ended) => ended.map_err(cannot)?,
        };
        group.leave();
        if status.success() {
            return Ok(());
        }
        Err(failed(status.to_string()).detail(collected(said).await))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn commands_know_their_slot_and_are_held_to_their_limit() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out").display().to_string();
        let commands = Commands {
            save: sh(&format!("echo $KUBECAMP_BOOKING $KUBECAMP_ACCOUNT $KUBECAMP_LAYOUT > {out}")),
            reset: sh("echo no room >&2; exit 3"),
            prove: sh("exec sleep 100"),
            arm: vec![],
            limit: 1,
        };
        let slot = Slot { layout: Some("2x4c8g".into()), ..Slot::new("42", "kct-a", 1, 2) };
        commands.save(&slot).await.unwrap();
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "42 kct-a 2x4c8g\n");
        let problem = commands.reset(&slot).await.unwrap_err();
        assert_eq!((problem.code, problem.detail), (Code::GateHandOver, vec!["no room".to_owned()]));
        assert!(commands.prove(&slot).await.unwrap_err().what.contains("longer than 1 s"));
        commands.arm(&slot).await.unwrap();
        assert!(!commands.makes_labs() && Commands { arm: sh("true"), ..commands.clone() }.makes_labs());
        assert!(commands.saves(&slot) && !Commands::default().saves(&slot), "without a command nothing is saved");
    }

    fn sh(text: &str) -> Vec<String> {
        ["sh", "-c", text].map(str::to_owned).into()
    }

    fn lives(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    }

    /// Waits for what another process does.
    async fn until(done: impl Fn() -> bool) {
        let end = tokio::time::Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(tokio::time::Instant::now() < end, "it does not come");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn what_a_command_started_ends_with_its_slot_and_at_its_limit() {
        for limit in [600, 2] {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("pid");
            let text = format!("sleep 600 & echo $! > {}; wait", file.display());
            let commands = Commands { arm: sh(&text), limit, ..Commands::default() };
            let task = tokio::spawn(async move { commands.arm(&Slot::new("42", "kct-a", 1, 2)).await });
            let pid = || std::fs::read_to_string(&file).unwrap_or_default();
            until(|| !pid().trim().is_empty()).await;
            if limit == 600 {
                assert!(lives(&pid()), "it runs");
                task.abort();
            }
            until(|| !lives(&pid())).await;
            let _ = task.await;
        }
    }

    #[tokio::test]
    async fn a_command_has_ended_when_it_exits_whatever_it_leaves_running() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let daemon = format!("sleep 600 & echo $! > {}", file.display());
        let (arm, reset) = (sh(&daemon), sh(&format!("{daemon}; echo no room >&2; exit 3")));
        let commands = Commands { arm, reset, limit: 60, ..Commands::default() };
        let slot = Slot::new("42", "kct-a", 1, 2);
        let end = || {
            let pid = std::fs::read_to_string(&file).unwrap();
            assert!(lives(&pid), "what it leaves stays");
            let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        };
        let soon = Duration::from_secs(30);
        tokio::time::timeout(soon, commands.arm(&slot)).await.expect("it has exited").unwrap();
        end();
        let problem = tokio::time::timeout(soon, commands.reset(&slot)).await.expect("it has exited").unwrap_err();
        assert_eq!(problem.detail, ["no room"]);
        end();
    }
}
