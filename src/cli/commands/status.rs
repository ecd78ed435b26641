use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use futures::future::join_all;
use serde::Serialize;

use super::{Context, labs, sudo_password};
use crate::{
    cli::{
        args::{ConnectArgs, StatusArgs},
        output::{self, Format},
        store::{State, Store, Where},
        targets::Found,
    },
    core::{Bytes, Class, Code, LabName, NodeId, Problem, Problems},
    engine::Crew,
    host::{Facts, SudoPassword, Viewer, fact},
    machine::{Machine, State as MachineState},
    phases::{Claim, Records},
    profile::Lab,
    render::table,
    transport::SshTarget,
};

#[derive(Serialize)]
struct NodeStatus {
    node: NodeId,
    host: String,
    /// What it is to its cluster, in words.
    state: Cow<'static, str>,
    reached: bool,
    ready: Option<bool>,
    version: Option<String>,
    proxy_mode: Option<String>,
    /// What the host is; none where it was not reached.
    machine: Option<Hardware>,
    problem: Option<String>,
    hints: Vec<String>,
    #[serde(skip)]
    seen: Seen,
}

/// What was seen on a host, to be judged when all of them were looked at.
#[derive(Default)]
struct Seen {
    /// Whether it carries a lab.
    marked: bool,
    /// Whether it carries what a node of a cluster has.
    joined: bool,
    /// Whether the API server on it answers; none where there is none.
    answers: Option<bool>,
    /// What the API server on it says of nodes, a line for each.
    nodes: Vec<String>,
    /// The pods that CoreDNS is to have and those of it that are ready, as the API server on it says.
    names: Option<(u64, u64)>,
    /// What `up` would mend there, in words.
    broken: Vec<&'static str>,
    /// The state of a host that carries another lab.
    of_other: Option<String>,
}

impl NodeStatus {
    /// A node before anybody looked.
    fn unseen(node: NodeId, host: String) -> Self {
        Self {
            node,
            host,
            state: "not running".into(),
            reached: false,
            ready: None,
            version: None,
            proxy_mode: None,
            machine: None,
            problem: None,
            hints: vec![],
            seen: Seen::default(),
        }
    }

    /// A node of which this keeps anybody from seeing more.
    fn kept_back(self, problem: &Problem) -> Self {
        self.with(problem.what.clone(), std::slice::from_ref(problem))
    }

    /// A node with `said` for its problem and the hints of these.
    fn with(self, said: String, problems: &[Problem]) -> Self {
        Self { problem: Some(said), hints: problems.iter().flat_map(output::hints).collect(), ..self }
    }

    /// The state of a node that was reached. `answers` says whether an API server told of the lab's nodes, `was_reset`
    /// whether the host was known once and is clean if it carries no lab.
    fn standing(&self, answers: Option<bool>, was_reset: bool) -> Cow<'static, str> {
        if let Some(state) = &self.seen.of_other {
            return state.clone().into();
        }
        let state = match (self.ready, self.seen.joined, answers) {
            (Some(true), ..) => "Ready",
            (Some(false), ..) => "NotReady",
            (None, true, Some(false)) => "API server does not answer",
            // Its control plane could not be asked.
            (None, true, None) => "joined",
            _ if was_reset && !self.seen.marked => "reset",
            _ => "not in the cluster",
        };
        state.into()
    }

    /// What keeps a node that was reached and judged from being what the lab asks of it.
    fn trouble(&self, lab: &Lab) -> Option<Problem> {
        let asked = lab.profile().proxy.mode.to_string();
        if self.seen.of_other.is_some() {
            // Preflight tells whose it is.
            return None;
        }
        let what = match (&*self.state, self.proxy_mode.as_deref()) {
            // Nobody could be asked: it is the control plane that has a problem.
            ("joined", _) => return None,
            ("Ready", Some(mode)) if mode == asked => return None,
            ("Ready", Some(mode)) => format!("kube-proxy is in mode {mode}, and the lab asks for {asked}"),
            ("Ready", None) => "kube-proxy does not answer".to_owned(),
            ("API server does not answer", _) => "the API server does not answer".to_owned(),
            ("reset", _) => "the host was reset, and the lab was not".to_owned(),
            (state, _) => format!("the node is {state}"),
        };
        let (flag, code) = (lab.name().flag(), Code::VerifyFailed);
        Some(Problem::new(code, what).on(&self.node).hint(format!(
            "kubecamp{flag} up mends what it can; where that does not help, kubecamp{flag} reset and up make the lab anew."
        )))
    }
}

impl NodeStatus {
    /// What `up` would mend although the node is ready.
    fn mendable(&self, lab: &Lab) -> Vec<Problem> {
        let names = self.seen.names.filter(|(wanted, ready)| ready < wanted);
        let names = names.map(|(wanted, ready)| format!("{ready} of {wanted} pods of CoreDNS are ready"));
        let what = self.seen.broken.iter().map(|what| (*what).to_owned()).chain(names);
        let hint = format!("kubecamp{} up mends it.", lab.name().flag());
        what.map(|what| Problem::new(Code::VerifyFailed, what).on(&self.node).hint(hint.clone())).collect()
    }

    /// Leaves out what a host says that carries another lab by now: none of it is of this one.
    fn keep_apart(&mut self, claim: &Claim, lab: &LabName) {
        let Some(whose) = of_other(claim, lab) else { return };
        self.proxy_mode = None;
        self.seen = Seen { marked: true, of_other: Some(whose), ..Seen::default() };
    }
}

/// What is under a node.
#[derive(Serialize)]
struct Hardware {
    address: Option<String>,
    os: Option<String>,
    kernel: Option<String>,
    cores: u64,
    memory: Bytes,
    disk_free: Bytes,
}

impl Hardware {
    fn of(facts: &Facts) -> Self {
        let text = |key: &str| facts.get(key).map(str::to_owned);
        Self {
            address: facts.address().map(|ip| ip.to_string()),
            os: text("os.name"),
            kernel: text("kernel"),
            cores: facts.number("cores"),
            memory: Bytes(facts.number("memory")),
            disk_free: Bytes(facts.number("disk.free")),
        }
    }
}

/// Read on each node: what it is by itself, and on the control plane what the API server says of all.
const SCRIPT: &str = "curl -s -m 2 http://127.0.0.1:10249/proxyMode 2>/dev/null || \
    timeout 2 bash -c 'exec 3<>/dev/tcp/127.0.0.1/10249; printf \"GET /proxyMode HTTP/1.0\\r\\n\\r\\n\" >&3; cat <&3' 2>/dev/null | tail -n 1; echo; \
    [ ! -e /etc/kubernetes/admin.conf ] || if PATH=/usr/local/bin:$PATH kubectl --kubeconfig /etc/kubernetes/admin.conf --request-timeout=5s get nodes,deployments -n kube-system \
    -o 'jsonpath={range .items[?(@.kind==\"Node\")]}{\"NODE \"}{.metadata.name}{\" \"}{.status.nodeInfo.kubeletVersion}{\" \"}{.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}{end}\
    {range .items[?(@.metadata.name==\"coredns\")]}{.kind}{\" \"}{.spec.replicas}{\" \"}{.status.readyReplicas}{\"\\n\"}{end}'; \
    then echo; echo API answers; else echo; echo API silent; fi; true";

/// `kubecamp status`.
pub(super) async fn status(cx: &Context, args: StatusArgs) -> Result<(), Problems> {
    if args.all {
        return labs::list(cx, args.output);
    }
    let (lab, state) = cx.store.need(&cx.global.name)?;
    let (targets, engine) = match cx.each_target(&lab, &state, &args.connect).await {
        // Machines of an engine that does not run do not run either, and that is what was asked.
        Err(problem) if problem.code == Code::EngineStart => (vec![], Some(problem)),
        targets => (targets?, None),
    };
    // Those that do not run are no targets, and only their engine tells of them.
    let all_run = state.place != Where::Local || targets.len() >= lab.nodes().len();
    let machines = if all_run || engine.is_some() { None } else { Some(cx.machines(&lab, &state).await?) };
    let password = sudo_password(&args.connect).await?;
    let machines = machines.as_deref();
    let each = lab.nodes().iter().map(|node| look(&lab, &state, &node.name, &targets, machines, &password));
    let (mut lines, mut found): (Vec<_>, Vec<_>) = join_all(each).await.into_iter().unzip();
    if let Some(problem) = engine {
        // It is one for all of them.
        lines = lines.into_iter().map(|line: NodeStatus| line.kept_back(&problem)).collect();
        found = vec![vec![problem]];
    }
    let mut found: Vec<Problem> = found.into_iter().flatten().collect();
    found.extend(judge(&mut lines, &cx.store, &state));
    output::value(args.output, &lines, |wide| text(&lines, wide))?;
    if let (Format::Table | Format::Wide, Err(problems)) = (args.output, Problems::check(found)) {
        output::problems(&problems);
    }
    Ok(())
}

/// Says of each node what is told of it in all that was seen; what is wrong is that the records cannot be read.
fn judge(lines: &mut [NodeStatus], store: &Store, state: &State) -> Option<Problem> {
    let all = store.was_reset(state);
    let (records, unread) = match store.records() {
        Ok(records) => (records, None),
        Err(problem) => (Records::new(), Some(problem)),
    };
    let answers = lines.iter().filter_map(|l| l.seen.answers).max();
    let told: Vec<String> = lines.iter().flat_map(|l| l.seen.nodes.clone()).collect();
    for line in lines.iter_mut() {
        let mut words = told.iter().map(|l| l.split_whitespace().collect::<Vec<_>>());
        if let Some(words) = words.find(|w| w.first() == Some(&line.node.as_str())) {
            line.version = words.get(1).map(|v| (*v).to_owned());
            line.ready = words.get(2).map(|r| *r == "True");
        }
        if line.reached && line.problem.is_none() {
            line.state = line.standing(answers, all || records.contains_key(&line.node));
        }
    }
    unread
}

/// One node as it is, and what kept us from seeing it.
async fn look(
    lab: &Lab,
    state: &State,
    node: &NodeId,
    targets: &Found,
    machines: Option<&[Machine]>,
    password: &SudoPassword,
) -> (NodeStatus, Vec<Problem>) {
    let target = match targets.iter().find(|(of, _)| of == node) {
        None => {
            let problem = asleep(lab.name(), node);
            let (host, state) = resting(lab.name(), node, machines);
            let line = NodeStatus { state: state.into(), ..NodeStatus::unseen(node.clone(), host) };
            return (line.kept_back(&problem), vec![problem]);
        }
        Some((_, Err(problem))) => {
            let line =
                NodeStatus { state: "unreachable".into(), ..NodeStatus::unseen(node.clone(), named(state, node)) };
            return (line.kept_back(problem), vec![problem.clone()]);
        }
        Some((_, Ok(target))) => target,
    };
    let mut line = NodeStatus::unseen(node.clone(), target.name());
    let target = [(node.clone(), target.clone())];
    let seen = match Crew::muster(&target, Some(password), None).await {
        Ok(crew) => {
            let seen = read(&mut line, &crew, lab, state).await;
            crew.dismiss().await;
            seen.map_err(Problems::from)
        }
        Err(problems) => Err(problems),
    };
    line.reached = seen.as_ref().err().is_none_or(|found| found.iter().all(|p| was_let_in(p.code)));
    let Err(problems) = seen else { return (line, vec![]) };
    let of_sudo = problems.iter().all(|p| is_of_sudo(p.code));
    line.state = match line.reached {
        true if of_sudo => "needs sudo".into(),
        true => "unreadable".into(),
        false => "unreachable".into(),
    };
    let (said, problems) = (problems.to_string(), problems.into_vec());
    (line.with(said, &problems), problems)
}

/// The machine of a node that does not run, and its state; `machines` are those of its engine, where that runs.
fn resting(lab: &LabName, node: &NodeId, machines: Option<&[Machine]>) -> (String, &'static str) {
    let Some(machines) = machines else { return (format!("{lab}-{node}"), "not running") };
    match machines.iter().find(|machine| machine.node == *node) {
        Some(machine) if machine.state == MachineState::Stopped => (machine.name.clone(), "stopped"),
        Some(machine) => (machine.name.clone(), "not running"),
        None => ("no machine".to_owned(), "not running"),
    }
}

/// A host as the user named it.
fn named(state: &State, node: &NodeId) -> String {
    let Where::Hosts(hosts) = &state.place else { return "no machine".to_owned() };
    hosts.iter().find(|(of, _)| of == node).map_or_else(|| "no host".to_owned(), |(_, host)| host.to_string())
}

/// Reads what the host is by itself, and what the API server on it says.
async fn read(line: &mut NodeStatus, crew: &Crew, lab: &Lab, state: &State) -> Result<(), Problem> {
    line.machine = crew.fleet.values().next().map(Hardware::of);
    for (host, facts) in crew.hosts.values().zip(crew.fleet.values()) {
        let text = Viewer::new(host).read(SCRIPT).await?.text();
        see(line, facts, &text);
        line.keep_apart(&state.owner().claim(lab.name(), facts), lab.name());
    }
    Ok(())
}

/// What keeps a lab that was brought up from being what it should be, of each node on its own: for whoever is to be told of
/// it as of problems.
///
/// Hosts that are not in the crew are told of elsewhere; nodes without a target have no machine that runs.
pub(super) async fn trouble(
    cx: &Context,
    lab: &Lab,
    state: &State,
    targets: &[(NodeId, SshTarget)],
    crew: &Crew,
) -> Vec<Problem> {
    let (mut lines, mut found) = (vec![], vec![]);
    for node in lab.nodes().iter().map(|n| &n.name) {
        if !targets.iter().any(|(of, _)| of == node) {
            found.push(asleep(lab.name(), node));
        }
        let Some((host, facts)) = crew.hosts.get(node).zip(crew.fleet.get(node)) else { continue };
        match Viewer::new(host).read(SCRIPT).await {
            Ok(said) => {
                let mut line = NodeStatus { reached: true, ..NodeStatus::unseen(node.clone(), String::new()) };
                see(&mut line, facts, &said.text());
                line.keep_apart(&state.owner().claim(lab.name(), facts), lab.name());
                lines.push(line);
            }
            Err(problem) => found.push(problem.on(node)),
        }
    }
    found.extend(judge(&mut lines, &cx.store, state));
    found.extend(lines.iter().filter_map(|line| line.trouble(lab)));
    found.extend(lines.iter().flat_map(|line| line.mendable(lab)));
    found
}

/// The lab's machines or hosts that carry another lab by now, as `worker-1 is of lab team7`; those that do not come within
/// ten seconds are not in it.
pub(super) async fn of_others(cx: &Context, lab: &Lab, state: &State, connect: &ConnectArgs) -> Vec<String> {
    let look = async {
        let targets = cx.targets(lab, state, connect).await.unwrap_or_default();
        let (crew, _) = Crew::muster_those_that_come(&targets, None, None).await;
        let found = named_others(lab, state, &crew.fleet);
        crew.dismiss().await;
        found
    };
    tokio::time::timeout(Duration::from_secs(10), look).await.unwrap_or_default()
}

fn named_others(lab: &Lab, state: &State, fleet: &BTreeMap<NodeId, Facts>) -> Vec<String> {
    let owner = state.owner();
    let of = |facts: &Facts| of_other(&owner.claim(lab.name(), facts), lab.name());
    fleet.iter().filter_map(|(node, facts)| Some(format!("{node} is {}", of(facts)?))).collect()
}

/// The state of a host that carries another lab, as `of lab team7`; a lab may bear the name of this one.
fn of_other(claim: &Claim, lab: &LabName) -> Option<String> {
    let Claim::Other(name) = claim else { return None };
    let another = if name.as_str() == lab.as_str() { "another " } else { "" };
    Some(format!("of {another}lab {name}"))
}

/// Whether the host let somebody in and then gave this problem.
fn was_let_in(code: Code) -> bool {
    is_of_sudo(code) || code.class() == Class::Step
}

/// Whether somebody was let in on the host, and only not as root.
fn is_of_sudo(code: Code) -> bool {
    matches!(code, Code::Sudo | Code::SudoPassword)
}

/// The problem of a node whose machine does not run, with what starts it.
fn asleep(lab: &LabName, node: &NodeId) -> Problem {
    Problem::new(Code::MachineStart, "the machine does not run")
        .on(node)
        .hint(format!("kubecamp up --name {lab} starts the lab's machines."))
}

/// Takes up what a host is by its facts and by what [`SCRIPT`] printed there.
fn see(line: &mut NodeStatus, facts: &Facts, text: &str) {
    line.proxy_mode = text.lines().next().map(str::trim).filter(|m| !m.is_empty()).map(str::to_owned);
    line.seen = Seen {
        marked: facts.get("lab").is_some(),
        joined: facts.yes("joined"),
        answers: text.lines().find_map(|l| l.strip_prefix("API ")).map(|word| word == "answers"),
        nodes: text.lines().filter_map(|l| l.strip_prefix("NODE ")).map(str::to_owned).collect(),
        names: text.lines().find_map(|l| l.strip_prefix("Deployment ")).and_then(|counts| {
            // None that are ready are not written.
            let mut counts = counts.split_whitespace().map(str::parse);
            Some((counts.next()?.ok()?, counts.next().and_then(Result::ok).unwrap_or(0)))
        }),
        broken: [
            (fact::RULES_MISSING, "kube-proxy's rules are not all in the kernel"),
            (fact::BRIDGE_MISSING, "pods have lost their bridge"),
        ]
        .into_iter()
        .filter_map(|(key, what)| facts.yes(key).then_some(what))
        .collect(),
        of_other: None,
    };
    // Whoever has an API server is a node, also where kubeadm did not come to its end.
    line.seen.joined |= line.seen.answers.is_some();
}

fn text(lines: &[NodeStatus], wide: bool) -> String {
    let heading = ["NODE", "HOST", "STATE", "VERSION", "PROXY"];
    let mut rows =
        vec![output::columns(wide, heading, ["ADDRESS", "CORES", "MEMORY", "DISK FREE", "SYSTEM", "KERNEL"])];
    for line in lines {
        let dash = |o: &Option<String>| o.clone().unwrap_or_else(|| "-".to_owned());
        let more = line.machine.as_ref().map(|m| {
            let (memory, disk) = (m.memory.to_string(), m.disk_free.to_string());
            [dash(&m.address), m.cores.to_string(), memory, disk, dash(&m.os), dash(&m.kernel)]
        });
        rows.push(output::columns(
            wide,
            [line.node.as_str(), &line.host, &line.state, &dash(&line.version), &dash(&line.proxy_mode)],
            more.unwrap_or_else(|| std::array::from_fn(|_| "-".to_owned())),
        ));
    }
    table(&rows)
}

#[cfg(test)]
mod tests;
