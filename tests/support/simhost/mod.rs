//! A host that exists only in a test: it knows our steps by words of their scripts, remembers which were done, and
//! answers checks and facts by that. What it was asked is kept, in the order of all hosts of one world.

mod answers;
mod steps;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard},
};

use kubecamp::{core::NodeId, transport::ScriptedTransport};
use tokio_util::sync::CancellationToken;

/// What the simulated kubeadm gives; a join without both is refused.
pub const IDENTITIES: &str = "worker-1=bWluZSBhbG9uZSBtaW5lIGFsb25lIG1pbmUgYWxvbmUgbWluZSBhbG9uZSBtaW5lIGFsb25lIG1pbmUgYWxvbmUg worker-2=b3RoZXJzIG90aGVycyBvdGhlcnMgb3RoZXJzIG90aGVycyBvdGhlcnMgb3RoZXJzIG90aGVycyBvdGhlcnMgb3RoZXJzIA==";

pub const CA: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t";

/// What a host was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Did {
    /// It was looked at: facts, checks, a file.
    Look,
    /// A change of this step.
    Change(&'static str),
    /// An upload to this path, where it was not yet.
    Put(String),
}

/// What all hosts of a test share.
#[derive(Clone, Default)]
pub struct World(Arc<Mutex<Vec<(NodeId, Did)>>>);

impl World {
    /// What was changed on which host, in order.
    pub fn changes(&self) -> Vec<(NodeId, Did)> {
        let all = self.0.lock().unwrap();
        all.iter().filter(|(_, did)| *did != Did::Look).cloned().collect()
    }

    /// The place of a step's change in the order of all.
    pub fn when(&self, on: &str, step: &str) -> usize {
        let changes = self.changes();
        let at = changes.iter().position(|(n, did)| n.as_str() == on && matches!(did, Did::Change(s) if *s == step));
        at.unwrap_or_else(|| panic!("{on} never did {step}: {changes:?}"))
    }

    /// Forgets what was done so far, for a second run.
    pub fn forget(&self) {
        self.0.lock().unwrap().clear();
    }
}

/// Distributions as their facts show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    Debian12,
    Debian13,
    Ubuntu2404,
    Rocky9,
    OpenEuler2403,
}

impl System {
    fn facts(self) -> &'static str {
        match self {
            Self::Debian12 => "os.id=debian\nos.version=12\nos.name=Debian GNU/Linux 12\nkernel=6.1.0-40-amd64\n",
            Self::Debian13 => "os.id=debian\nos.version=13\nos.name=Debian GNU/Linux 13\nkernel=6.12.48-amd64\n",
            Self::Ubuntu2404 => {
                "os.id=ubuntu\nos.like=debian\nos.version=24.04\nos.name=Ubuntu 24.04 LTS\nkernel=6.8.0-85-generic\n"
            }
            Self::Rocky9 => {
                "os.id=rocky\nos.like=rhel centos fedora\nos.version=9.6\nos.name=Rocky Linux 9.6\nkernel=5.14.0-570.el9.x86_64\n"
            }
            Self::OpenEuler2403 => {
                "os.id=openEuler\nos.version=24.03\nos.name=openEuler 24.03 (LTS)\nkernel=6.6.0-28.oe2403.x86_64\n"
            }
        }
    }
}

/// How one becomes root on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    Root,
    FreeSudo,
    Sudo(&'static str),
    NoSudo,
    /// The key is there to tell whom to log in as, and runs nothing.
    Forced,
}

/// What goes wrong with a step, once.
#[derive(Clone)]
pub enum Trouble {
    /// It fails with this status and standard error, and changes nothing.
    Fail(i32, String),
    /// It fails only after it printed what it gives.
    FailAfterOutput,
    /// The link breaks while it goes on to its end.
    LinkLost,
    /// It takes longer than its limit, and changes nothing.
    TooSlow,
    /// It ends well, and prints these lines too.
    Prints(String),
    /// The user presses Ctrl-C while it runs, and it never ends.
    Cancel(CancellationToken),
}

struct State {
    node: NodeId,
    number: u8,
    system: System,
    login: Login,
    world: World,
    done: BTreeSet<String>,
    /// Marks of images that somebody removed after they were imported.
    removed: BTreeSet<String>,
    troubles: Vec<(&'static str, Trouble)>,
    facts: String,
    /// Ports of other nodes that it does not reach, and what a try says.
    shut: Vec<(&'static str, u16, &'static str)>,
    /// How many times its kube-proxy was started anew.
    restarts: u32,
    /// What a scan finds beside what was there before.
    residues: Vec<&'static str>,
    /// Words of checks that do not come to an end.
    hanging: Vec<&'static str>,
}

/// The host; clones are the same one.
#[derive(Clone)]
pub struct SimHost {
    state: Arc<Mutex<State>>,
    /// What it is reached by.
    pub link: ScriptedTransport,
}

impl SimHost {
    /// A clean host; `number` gives its addresses.
    pub fn new(world: &World, node: &NodeId, number: u8, system: System, login: Login) -> Self {
        let state = Arc::new(Mutex::new(State {
            node: node.clone(),
            number,
            system,
            login,
            world: world.clone(),
            done: BTreeSet::new(),
            removed: BTreeSet::new(),
            troubles: vec![],
            facts: String::new(),
            shut: vec![],
            restarts: 0,
            residues: vec![],
            hanging: vec![],
        }));
        let player = Arc::clone(&state);
        Self { state, link: ScriptedTransport::new().played_by(move |ran| player.lock().unwrap().answer(ran)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Lets the step go wrong the next time.
    pub fn trouble(&self, step: &'static str, trouble: Trouble) {
        steps::must_be_known(step);
        self.state().troubles.push((step, trouble));
    }

    /// Facts that win over the host's own.
    pub fn more_facts(&self, lines: &str) {
        self.state().facts.push_str(lines);
    }

    /// Lets a port of another node be out of its reach.
    pub fn shut(&self, node: &'static str, port: u16, says: &'static str) {
        self.state().shut.push((node, port, says));
    }

    /// What stays after a reset, as a scan's lines; nothing any more when empty.
    pub fn residues(&self, lines: &[&'static str]) {
        self.state().residues = lines.to_vec();
    }

    /// Lets a check with these words never end.
    pub fn hang(&self, words: &'static str) {
        self.state().hanging.push(words);
    }

    /// Lets one image be gone, as if a run had been stopped before it came to it.
    pub fn lose_an_image(&self) {
        let mut state = self.state();
        let mark = state.done.iter().find(|d| d.starts_with("/var/lib/kubecamp/images/")).cloned();
        state.done.remove(&mark.expect("an image is there"));
    }

    /// Lets somebody remove one image from containerd: that it was imported stays noted.
    pub fn remove_an_image(&self) {
        let mut state = self.state();
        let mark = state.done.iter().find(|d| d.starts_with("/var/lib/kubecamp/images/")).cloned();
        state.removed.insert(mark.expect("an image is there"));
    }

    /// Takes a step's effect back without a trace in the facts, as if it happened since they were gathered.
    pub fn undo(&self, effect: &str) {
        steps::must_be_known(effect);
        self.state().done.remove(effect);
    }

    /// Stops the kubelet: its node is still there, and the facts tell.
    pub fn stop_kubelet(&self) {
        let mut state = self.state();
        state.facts = state.facts.replace("unit.kubelet=active\n", "");
        state.done.retain(|step| step != "init" && step != "join");
    }

    /// Lets the kubelet end whenever systemd starts it: its unit is never up, and never down.
    pub fn crash_kubelet(&self) {
        let mut state = self.state();
        state.facts.push_str("unit.kubelet=activating\n");
        state.done.retain(|step| step != "init" && step != "join");
    }

    /// Starts kube-proxy anew, as after a change of its mode: what was proven was so with another.
    pub fn restart_kube_proxy(&self) {
        let mut state = self.state();
        state.restarts += 1;
        state.done.remove("reach");
    }

    /// Lets somebody flush the rules of its kube-proxy, which does not notice.
    pub fn flush_rules(&self) {
        self.state().facts.push_str("rules.missing=yes\n");
    }

    /// Lets somebody delete the bridge of its pods.
    pub fn delete_bridge(&self) {
        self.state().facts.push_str("bridge.missing=yes\n");
    }

    /// Restarts the host: what was in /run is gone.
    pub fn reboot(&self) {
        let mut state = self.state();
        state.facts = state.facts.lines().filter(|l| !l.starts_with("verified=")).map(|l| format!("{l}\n")).collect();
        state.done.remove("reach");
    }

    /// Removes a control plane's /etc/kubernetes: what etcd holds stays.
    pub fn lose_authority(&self) {
        let mut state = self.state();
        state.facts = state.facts.lines().filter(|l| !l.starts_with("ca")).map(|l| format!("{l}\n")).collect();
        state.facts.push_str("leftover=/var/lib/etcd/member\n");
        state.done.retain(|step| step != "ca" && step != "init");
    }

    /// Cuts the kubelet's configuration off while it runs.
    pub fn empty_kubelet_conf(&self) {
        let mut state = self.state();
        state.facts = state.facts.replace("joined=yes\n", "");
        state.done.remove("join");
    }

    /// Whether a step's effect is there.
    pub fn has(&self, effect: &str) -> bool {
        steps::must_be_known(effect);
        self.state().done.contains(effect)
    }
}
