//! A host that exists only in a test: it knows our steps by words of their scripts, remembers which were done, and
//! answers checks and facts by that. What it was asked is kept, in the order of all hosts of one world.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use kubecamp::{
    core::NodeId,
    transport::{LinkError, Ran, Reply, ScriptedTransport},
};
use tokio_util::sync::CancellationToken;

/// The functions that come before every change; their words say nothing about the step.
const LIB: &str = include_str!("../../templates/host/lib.sh");

/// What the simulated kubeadm gives; a join without both is refused.
pub const IDENTITIES: &str = "worker-1=bWluZSBhbG9uZSBtaW5lIGFsb25lIG1pbmUgYWxvbmUgbWluZSBhbG9uZSBtaW5lIGFsb25lIG1pbmUgYWxvbmUg worker-2=b3RoZXJzIG90aGVycyBvdGhlcnMgb3RoZXJzIG90aGVycyBvdGhlcnMgb3RoZXJzIG90aGVycyBvdGhlcnMgb3RoZXJzIA==";
pub const CA: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t";

/// A certificate and a key in admin.conf, as base64 of PEM.
const CERTIFICATE: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tClRVbEoKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=";
const KEY: &str = "LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQpUVWxKCi0tLS0tRU5EIFJTQSBQUklWQVRFIEtFWS0tLS0tCg==";

/// A step as a host sees it: its name, words of its change, words of its check.
type Known = (&'static str, &'static str, &'static str);

/// The steps of `up`, in no order that matters.
const UP: &[Known] = &[
    ("baseline", "/var/lib/kubecamp/lab.part", "[ -s /var/lib/kubecamp/before ] && echo"),
    ("etc-hosts", "kc_block /etc/hosts", "/^# kubecamp begin$/"),
    ("modules", "modprobe $m", "/etc/modules-load.d/kubecamp.conf"),
    ("sysctls", "kc_sysctl net.ipv4.ip_forward", "/etc/sysctl.d/99-zz-kubecamp.conf"),
    ("keep", "kc_keep \"$path\"", "!($0 in known)"),
    ("install", "> /var/lib/kubecamp/binaries.part", "case $known in"),
    ("containerd", "systemctl restart kubecamp-containerd", "systemctl is-active -q kubecamp-containerd"),
    ("cni-config", "FLANNEL_NETWORK=", "/run/flannel/subnet.env"),
    ("image", "images import", "images ls -q"),
    ("ca", "kubeadm init phase certs ca", "[ -s /etc/kubernetes/pki/ca.crt ]"),
    ("init", "kubeadm init --config", "kube-public/cluster-info"),
    ("kube-proxy", "kubeadm init phase addon kube-proxy", "get cm/kube-proxy ds/kube-proxy"),
    ("rules", "until_true rules_are_there", "|| ! mode_is"),
    ("bridge", "stopp \"$id\"", "pods -q --state ready"),
    ("coredns", "kubeadm init phase addon coredns", "svc/kube-dns -o name"),
    ("admit", "kubeconfig user", "(never)"),
    // Before the join, whose words its check has too.
    ("quiet", "systemctl stop kubelet.service", "! systemctl -q is-active kubelet"),
    ("join", "kubeadm join", "kubelet-client-current.pem"),
    ("daemonset", "apply --server-side", "get ds kube-flannel-ds"),
    ("mode", "rollout restart ds/kube-proxy", "get cm kube-proxy -o 'jsonpath"),
    ("probes", "KC-OUT probes", "(never)"),
    ("clear", "delete ns kubecamp-verify --wait=false", "(never)"),
    ("ready", "get nodes,pods -A", "get nodes,daemonsets,deployments"),
    ("reach", "> /run/kubecamp/verified", "cat /run/kubecamp/verified"),
    ("answers", "until_true names_answer", "mode_is && answer_dns"),
];

/// The steps of `reset`: only the last words of their texts differ, since all functions come before.
const RESET: &[Known] = &[
    ("drain", "nobody ends the pods", "! command -v kubectl"),
    ("begin", "\nscan_begun\ntrue", "[ -e $KC/resetting ]"),
    ("kubelet", "stop_kubelet\ntrue", "! kubelet_left"),
    ("kubeadm", "run_kubeadm\ntrue", "! kubeadm_helps"),
    ("containers", "stop_containers\ntrue", "! containers_left"),
    ("mounts", "unmount_all\ntrue", "! mounts_left"),
    ("ipvs", "remove_servers\ntrue", "$(servers)"),
    ("links", "remove_links\ntrue", "$(veths; pins; pins_of_others; links; routes)"),
    ("rules", "remove_rules\ntrue", "! rules_left"),
    ("ipsets", "remove_sets\ntrue", "$(sets)"),
    ("files", "restore_files\ntrue", "! files_left"),
    ("made", "remove_made\ntrue", "! made_left"),
    ("settings", "restore_settings\ntrue", "$(settings)"),
    ("modules-out", "remove_modules\ntrue", "$(modules)"),
    ("forget", "\nforget\n", "forgotten"),
];

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
        self.state().done.contains(effect)
    }
}

impl State {
    fn log(&self, did: Did) {
        self.world.0.lock().unwrap().push((self.node.clone(), did));
    }

    fn answer(&mut self, ran: &Ran) -> Option<Reply> {
        if let Some(rest) = ran.line.strip_prefix("put ") {
            return Some(self.put(rest, ran.input.split(' ').next().unwrap_or_default()));
        }
        if ran.line.contains("id -u") {
            let word = match self.login {
                Login::Root => "root",
                Login::FreeSudo => "free",
                Login::Sudo(_) => "password",
                Login::NoSudo => "none",
                Login::Forced => "Please login as the user \"ubuntu\" rather than the user \"root\".\n\n",
            };
            return Some(Reply::ok(word));
        }
        match self.as_root(ran) {
            Ok(script) if script.is_empty() => Some(Reply::ok("")),
            Ok(script) if script.starts_with("sh -c ") => Some(self.upload(&script)),
            Ok(script) => self.script(&script),
            Err(refused) => Some(refused),
        }
    }

    /// The script, when it was run as root rightly.
    fn as_root(&self, ran: &Ran) -> Result<String, Reply> {
        let (line, input) = (unbounded(&ran.line), ran.input.clone());
        let line = line.trim_start_matches("LC_ALL=C ");
        match self.login {
            Login::Root if line == "sh -s" => Ok(input),
            Login::FreeSudo if line == "sudo -n sh -s" => Ok(input),
            Login::FreeSudo if line.starts_with("sudo -n sh -c ") => Ok(line["sudo -n ".len()..].to_owned()),
            Login::Sudo(password) if line.starts_with("sudo -k -S -p ''") => {
                let rest = input.strip_prefix(&format!("{password}\n"));
                let rest = rest.ok_or_else(|| Reply::fail(1, "sudo: 1 incorrect password attempt"))?;
                let command = line.trim_start_matches("sudo -k -S -p '' ");
                Ok(if command.starts_with("sh -c ") { command.to_owned() } else { rest.to_owned() })
            }
            login => Err(Reply::fail(126, format!("{line}: Permission denied for {login:?}"))),
        }
    }

    /// An upload that root takes from sudo: whether the file is there, or its bytes.
    fn upload(&mut self, script: &str) -> Reply {
        let between = |begin: &str, end: &str| {
            let (_, rest) = script.split_once(begin)?;
            Some(rest.split_once(end)?.0.to_owned())
        };
        let sha256 = between("[ \"$sum\" = ", " ]").expect("a digest");
        match between(" t=", ".kc-part") {
            Some(path) => {
                self.done.insert(format!("{path} {sha256}"));
                self.log(Did::Put(path));
                Reply::ok("")
            }
            None => {
                let path = between("[ -f ", " ]").expect("a path");
                if self.done.contains(&format!("{path} {sha256}")) { Reply::ok("") } else { Reply::fail(1, "") }
            }
        }
    }

    fn put(&mut self, rest: &str, sha256: &str) -> Reply {
        let path = rest.rsplit_once(' ').map_or(rest, |(path, _)| path).to_owned();
        if self.login != Login::Root {
            return Reply::fail(1, format!("{path}: Permission denied"));
        }
        if !self.done.insert(format!("{path} {sha256}")) {
            return Reply::ok("same");
        }
        self.log(Did::Put(path));
        Reply::ok("")
    }

    fn script(&mut self, script: &str) -> Option<Reply> {
        if let Some((_, body)) = script.split_once(LIB) {
            return self.change(body);
        }
        // A change's own check is asked right after it and is no change itself.
        self.log(Did::Look);
        if self.hanging.iter().any(|words| script.contains(words)) {
            return Some(Reply::Fail(LinkError::Timeout(std::time::Duration::from_secs(60))));
        }
        if script.contains("p os.id") {
            return Some(Reply::ok(self.facts()));
        }
        if script.contains("KC-REACH") {
            return Some(self.reach(script));
        }
        if script.contains("\nours\n}\nkc_main") {
            return Some(if self.done.contains("baseline") { Reply::ok("") } else { Reply::fail(1, "") });
        }
        if script.contains("echo '== now'") {
            return Some(Reply::ok(self.scan()));
        }
        if script.contains("cat /etc/kubernetes/admin.conf") {
            let there = self.done.contains("init");
            return Some(if there { Reply::ok(self.admin_conf()) } else { Reply::fail(1, "no such file") });
        }
        script.contains("echo 'KC-DONE ").then(|| Reply::ok(self.probe(script)))
    }

    /// The administrator's kubeconfig as kubeadm writes it, in a cluster that has the lab's name.
    fn admin_conf(&self) -> String {
        let lab = self.facts.lines().rev().find_map(|line| line.strip_prefix("lab=")).unwrap_or_default();
        format!(
            "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {CERTIFICATE}\n    server: \
             https://192.0.2.1:6443\n  name: {lab}\ncontexts:\n- context:\n    cluster: {lab}\n    user: \
             kubernetes-admin\n  name: kubernetes-admin@{lab}\ncurrent-context: kubernetes-admin@{lab}\nkind: \
             Config\npreferences: {{}}\nusers:\n- name: kubernetes-admin\n  user:\n    client-certificate-data: \
             {CERTIFICATE}\n    client-key-data: {KEY}\n"
        )
    }

    /// What the tries of the doors of other nodes say.
    fn reach(&self, script: &str) -> Reply {
        if self.shut.iter().any(|(node, ..)| *node == "link") {
            return Reply::Fail(LinkError::Lost("broken pipe".into()));
        }
        let tries = script.lines().filter_map(|l| l.strip_prefix("kc_reach ")).filter(|l| l.ends_with(" &"));
        let said = tries.map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let (node, port) = (words[0], words[2]);
            let shut = self.shut.iter().find(|(n, p, _)| *n == node && p.to_string() == port);
            format!("KC-REACH {node} {port} {}\n", shut.map_or("yes", |(.., says)| says))
        });
        Reply::ok(said.collect::<String>())
    }

    fn probe(&self, script: &str) -> String {
        let mut told = String::new();
        let mut rest = script;
        while let Some((check, after)) = rest.split_once("\n) </dev/null >/dev/null 2>&1 && echo 'KC-DONE ") {
            let (number, after) = after.split_once('\'').unwrap();
            if self.holds(check) {
                told.push_str(&format!("KC-DONE {number}\n"));
            }
            rest = after;
        }
        told
    }

    fn holds(&self, check: &str) -> bool {
        let ours = self.done.contains("baseline");
        let tail = |(_, _, words): &&Known| check.trim_end_matches(" ]").ends_with(words) || check.contains(words);
        if let Some((file, digest)) = check.split_once("\"$sum\" = '") {
            let path = file.split_once("[ -f ").and_then(|(_, rest)| rest.split_once(" ]")).expect("a path").0;
            let sha256 = digest.trim_end_matches("' ]");
            // Root's sudo was told the digest apart.
            return [sha256, "\"$want\""].iter().any(|sum| self.done.contains(&format!("{path} {sum}")));
        }
        if check.contains("! ours ||") {
            let last = check.lines().last().unwrap_or_default();
            let step = RESET.iter().find(|(_, _, words)| last.contains(words));
            let (name, ..) = step.unwrap_or_else(|| panic!("no step of reset is known by {last}"));
            return !ours || self.done.contains(*name);
        }
        if check.ends_with("\nforgotten") {
            return !ours;
        }
        if check.contains("! command -v kubectl") {
            return !self.done.contains("init") || self.done.contains("drain");
        }
        let (name, ..) = UP.iter().find(tail).unwrap_or_else(|| panic!("no step is known by its check\n{check}"));
        if *name == "image" {
            let marks = check.split("read -r was < ").skip(1).filter_map(|words| {
                let (place, image) = words.split_once(" && [ \"$was\" = ")?;
                Some(format!("{place} {}", image.split_once(' ')?.0))
            });
            return marks.into_iter().all(|mark| self.done.contains(&mark) && !self.removed.contains(&mark));
        }
        self.done.contains(*name)
    }

    fn change(&mut self, body: &str) -> Option<Reply> {
        // The functions of reset come before its call, so that only the end tells its steps apart.
        let end: String =
            body.lines().rev().take(9).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
        let reset = RESET.iter().find(|(_, words, _)| end.contains(words));
        let (name, ..) = reset.or_else(|| UP.iter().find(|(_, words, _)| body.contains(words)))?;
        self.log(Did::Change(name));
        let trouble = self.troubles.iter().position(|(step, _)| step == name).map(|i| self.troubles.remove(i).1);
        match trouble {
            Some(Trouble::Fail(status, words)) => return Some(Reply::fail(status, words)),
            Some(Trouble::TooSlow) => {
                return Some(Reply::Fail(LinkError::Timeout(std::time::Duration::from_secs(240))));
            }
            Some(Trouble::Cancel(token)) => {
                token.cancel();
                return Some(Reply::Hang);
            }
            _ => {}
        }
        let reply = self.effect(name, body);
        Some(match trouble {
            Some(Trouble::LinkLost) => Reply::Fail(LinkError::Lost("broken pipe".into())),
            Some(Trouble::FailAfterOutput) => match reply {
                Reply::Exit(exit) => Reply::Exit(kubecamp::transport::Exit { status: Some(1), ..exit }),
                other => other,
            },
            Some(Trouble::Prints(lines)) => Reply::ok(lines),
            _ => reply,
        })
    }

    /// What the control plane has for this worker.
    fn identity(&self) -> Option<&'static str> {
        IDENTITIES.split(' ').find(|one| one.split_once('=').is_some_and(|(whose, _)| whose == self.node.as_str()))
    }

    fn effect(&mut self, name: &'static str, body: &str) -> Reply {
        let word_before = |to: &str| {
            let before = body.split_once(&format!(" > {to}")).map_or("", |(before, _)| before);
            before.rsplit("echo ").next().unwrap_or_default().trim_matches('\'').to_owned()
        };
        match name {
            "join" if !(self.identity().is_some_and(|own| body.contains(own)) && body.contains(CA)) => {
                return Reply::fail(
                    1,
                    "error execution phase preflight: couldn't validate the identity of the API Server",
                );
            }
            "admit" => {
                let lines: String = IDENTITIES.split(' ').map(|one| format!("KC-OUT identities={one}\n")).collect();
                return Reply::ok(format!("{lines}KC-OUT ca={CA}\n"));
            }
            "probes" => return Reply::ok("KC-OUT probes=10.96.0.21 10.96.0.22 10.96.0.23\n"),
            "image" => {
                let (_, noted) = body.split_once("mkdir -p /var/lib/kubecamp/images && echo ").unwrap();
                let (image, rest) = noted.split_once(" > ").unwrap();
                let place = rest.split_whitespace().next().unwrap();
                let mark = format!("{place} {image}");
                if body.contains(&format!("[ -e {place} ] ||")) && self.removed.contains(&mark) {
                    return Reply::fail(1, "ctr: image: not found");
                }
                self.removed.remove(&mark);
                // The name is the new one's.
                self.done.retain(|did| !did.starts_with(&format!("{place} ")));
                self.done.insert(mark);
            }
            "baseline" => {
                let claim =
                    body.split_once("\nprintf %s '").and_then(|(_, rest)| rest.split_once('\'')).map_or("", |c| c.0);
                let (name, id) = claim.trim_end().split_once('\n').unwrap_or((claim, ""));
                self.facts.push_str(&format!("lab={name}\nlab.id={id}\n"));
            }
            "reach" => {
                let words = word_before("/run/kubecamp/verified");
                let stamp = words.split_whitespace().next().unwrap_or_default();
                self.facts.push_str(&format!("verified={stamp} {}\n", self.kube_proxy()));
            }
            "ca" => self.facts.push_str("ca=MIIDBTCCAe2gAwIBAgIIK\nca.key=yes\n"),
            "init" => {
                self.facts.push_str("leftover=/etc/kubernetes/admin.conf\nleftover=/etc/kubernetes/kubelet.conf\n")
            }
            // Its configuration has the mode.
            "kube-proxy" => drop(self.done.insert("mode".to_owned())),
            "rules" => {
                self.restarts += 1;
                self.done.remove("reach");
                self.facts.push_str("rules.missing=\n");
            }
            "bridge" => {
                self.done.remove("reach");
                self.facts.push_str("bridge.missing=\n");
            }
            "join" => self.facts.push_str("leftover=/etc/kubernetes/kubelet.conf\njoined=yes\nunit.kubelet=active\n"),
            "forget" => {
                self.done.clear();
                self.removed.clear();
                self.facts.clear();
                return Reply::ok("");
            }
            _ => {}
        }
        self.done.insert(name.to_owned());
        Reply::ok("")
    }

    fn kube_proxy(&self) -> String {
        format!("71:{},", self.restarts)
    }

    fn facts(&self) -> String {
        let n = self.number;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        format!(
            "{}arch=x86_64\ninit=systemd\nhostname=h{n}\nmachine_id=m{n}\nmac=eth0 00:16:3e:00:00:{n:02x}\n\
             addr=eth0 192.0.2.{n}/24\nroute.source=192.0.2.{n}\nmtu=1500\ncores=2\nmemory=4294967296\n\
             disk.total=32212254720\ndisk.free=20000000000\ncgroup=v2\ncgroup.controllers=cpuset cpu io memory pids\n\
             now={now}\nmodule.overlay=yes\nmodule.vxlan=loadable\nmodule.br_netfilter=loadable\nmodule.ip_vs=loadable\nmodule.ip_vs_rr=loadable\nresolver=192.0.2.1\n\
             tool.iptables=yes\ntool.nft=yes\ntool.ipset=yes\ntool.ip=yes\ntool.mount=yes\ntool.systemctl=yes\ntool.flock=yes\n\
             tool.sha256sum=yes\ntool.bash=yes\nkube_proxy={}\n{}end=yes\n",
            self.system.facts(),
            self.kube_proxy(),
            self.facts
        )
    }

    fn scan(&self) -> String {
        let before = "tool\tip\nlink\teth0\n";
        let residues: String = self.residues.iter().map(|l| format!("{l}\n")).collect();
        format!("== before\n{before}== manifest\n== spared\n== now\n{before}{residues}")
    }
}

/// A command's line without the limit that the host itself keeps.
fn unbounded(line: &str) -> String {
    let Some((before, after)) = line.split_once("timeout -k 5 ") else { return line.to_owned() };
    format!("{before}{}", after.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start())
}
