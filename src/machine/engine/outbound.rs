//! The private engine's way out, off unless asked for: a NAT in user space at the engine's network namespace.

use std::{
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokio::process::Command;

use super::{private::Engine, process::Process};
use crate::core::{Code, NodeId, Problem, Report};

const SCRIPT: &str = include_str!("../../../templates/machine/outbound.sh");
/// The device in the namespace that the NAT is behind.
const DEVICE: &str = "kcout0";
/// The file in the engine's folder that names its process.
pub(super) const PID: &str = "outbound.pid";
/// How long it may take to end.
const GRACE: Duration = Duration::from_secs(3);
/// Programs that it needs.
const PROGRAMS: [&str; 2] = ["slirp4netns", "nft"];

/// The bridge's name server when there is no way out: a name that nobody here knows must fail at once, not after a
/// resolver's patience.
pub(super) const CLOSED: &str = "no-resolv\nno-ping";
/// The same with a way out: the NAT passes questions on to this computer's own name servers.
const OPEN: &str = "no-resolv\nno-ping\nserver=10.0.2.3";

impl Engine {
    /// The packages that [`Engine::open_outbound`] needs.
    pub fn outbound_packages() -> [String; 2] {
        ["slirp4netns", "nftables"].map(str::to_owned)
    }

    /// Whether the machines reach what this computer reaches.
    pub fn outbound(&self) -> bool {
        self.nat().is_some()
    }

    /// Lets the machines of the running engine reach what this computer reaches, until the engine stops.
    ///
    /// What listens on this computer's loopback stays out of their reach, and its firewall is not touched.
    pub async fn open_outbound(&self, report: &dyn Report) -> Result<(), Problem> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let there = |program: &&str| std::env::split_paths(&path).any(|d| d.join(program).is_file());
        let missing: Vec<_> = PROGRAMS.iter().filter(|p| !there(p)).collect();
        if !missing.is_empty() {
            let names: Vec<_> = missing.into_iter().map(|p| format!("program {p}")).collect();
            return Err(Problem::new(Code::LocalTools, "a way out for the machines needs programs that are missing")
                .detail(names)
                .hint(format!("apt-get install -y {}", Self::outbound_packages().join(" "))));
        }
        if self.nat().is_none() {
            report.note(&NodeId::here(), "giving the machines a way out of their network");
            let mut command = Command::new("sh");
            command.arg("-c").arg(SCRIPT).arg("outbound").arg(self.dir()).arg(self.netns_name()).arg(DEVICE);
            let out = command.stdin(Stdio::null()).output().await;
            let out = out.map_err(|e| Problem::new(Code::EngineStart, "sh could not be run").because(e))?;
            if !out.status.success() {
                let words = String::from_utf8_lossy(&out.stderr).lines().map(str::to_owned).collect::<Vec<_>>();
                return Err(Problem::new(Code::EngineStart, "the machines' way out did not start").detail(words));
            }
        }
        self.names(OPEN).await
    }

    /// Takes the way out away again, if there is one; the engine and its machines go on.
    pub async fn close_outbound(&self) -> Result<(), Problem> {
        let Some(nat) = self.nat() else { return Ok(()) };
        for signal in [Signal::TERM, Signal::KILL] {
            nat.signal(signal).ok();
            let end = Instant::now() + GRACE;
            while nat.alive() && Instant::now() < end {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        if nat.alive() {
            return Err(Problem::new(Code::EngineStart, "the machines' way out does not end")
                .detail([format!("process {} of slirp4netns", nat.pid)]));
        }
        fs::remove_file(self.dir().join(PID)).ok();
        if self.running().await?.is_some() { self.names(CLOSED).await } else { Ok(()) }
    }

    /// Tells the bridge's name server whom to ask.
    pub(super) async fn names(&self, words: &str) -> Result<(), Problem> {
        let (incus, bridge) = (self.incus()?, super::private::BRIDGE);
        let config = incus.network(bridge).await?.map(|n| n.config).unwrap_or_default();
        if config.get("raw.dnsmasq").is_some_and(|now| now == words) {
            return Ok(());
        }
        incus.patch_network(bridge, &[("raw.dnsmasq".to_owned(), words.to_owned())].into()).await
    }

    fn nat(&self) -> Option<Process> {
        process(self.dir())
    }
}

/// The NAT's process, which lives outside of the engine's namespaces.
pub(super) fn process(dir: &Path) -> Option<Process> {
    Process::from_file(&dir.join(PID))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_way_out_that_is_closed_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::new(dir.path());
        engine.close_outbound().await.unwrap();
        let mut nat = Command::new("sleep").arg("600").kill_on_drop(true).spawn().unwrap();
        let pid = nat.id().unwrap();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let started = stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap();
        fs::write(dir.path().join(PID), format!("{pid} {started}")).unwrap();
        assert!(engine.outbound());
        engine.close_outbound().await.unwrap();
        assert!(!engine.outbound() && !dir.path().join(PID).exists());
        assert!(!nat.wait().await.unwrap().success());
    }
}
