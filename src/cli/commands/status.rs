use std::path::PathBuf;

use serde::Serialize;

use super::{Context, sudo_password};
use crate::{
    cli::{
        args::StatusArgs,
        output,
        store::{State, Store, Where},
    },
    core::{Bytes, LabName, NodeId, Problem, Problems},
    engine::Crew,
    host::{Facts, SudoPassword, Viewer},
    profile::{Cni, Lab, ProxyMode},
    render::table,
    transport::SshTarget,
};

#[derive(Serialize)]
struct NodeStatus {
    node: NodeId,
    host: String,
    reached: bool,
    ready: Option<bool>,
    version: Option<String>,
    proxy_mode: Option<String>,
    /// What the host is; none where it was not reached.
    machine: Option<Hardware>,
    problem: Option<String>,
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
            address: text("route.source"),
            os: text("os.name"),
            kernel: text("kernel"),
            cores: facts.number("cores"),
            memory: Bytes(facts.number("memory")),
            disk_free: Bytes(facts.number("disk.free")),
        }
    }
}

#[derive(Serialize)]
struct LabLine {
    lab: String,
    layout: String,
    kubernetes: String,
    place: String,
    cni: Cni,
    proxy_mode: ProxyMode,
    clean: bool,
    folder: PathBuf,
}

impl LabLine {
    fn of(name: &LabName, lab: &Lab, state: State, store: &Store) -> Self {
        let place = match state.place {
            Where::Local => "local".to_owned(),
            Where::Hosts(hosts) => hosts.iter().map(|(_, h)| h.to_string()).collect::<Vec<_>>().join(", "),
        };
        Self {
            // What --name takes: its folder's, also where that was moved.
            lab: name.to_string(),
            layout: lab.layout().to_string(),
            kubernetes: lab.profile().kubernetes.clone(),
            place,
            cni: lab.profile().network.cni,
            proxy_mode: lab.profile().proxy.mode,
            clean: state.clean,
            folder: store.folder().to_owned(),
        }
    }
}

/// Read on each node: what it is by itself, and on the control plane what the API server says of all.
const SCRIPT: &str = "curl -s -m 2 http://127.0.0.1:10249/proxyMode 2>/dev/null || \
    timeout 2 bash -c 'exec 3<>/dev/tcp/127.0.0.1/10249; printf \"GET /proxyMode HTTP/1.0\\r\\n\\r\\n\" >&3; cat <&3' 2>/dev/null | tail -n 1; echo; \
    [ -e /etc/kubernetes/admin.conf ] && PATH=/usr/local/bin:$PATH kubectl --kubeconfig /etc/kubernetes/admin.conf --request-timeout=5s get nodes \
    -o 'jsonpath={range .items[*]}{\"NODE \"}{.metadata.name}{\" \"}{.status.nodeInfo.kubeletVersion}{\" \"}{.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}{end}'; true";

/// `kubecamp status`.
pub(super) async fn status(cx: &Context, args: StatusArgs) -> Result<(), Problems> {
    if args.all {
        return all(cx, &args);
    }
    let (lab, state) = cx.store.need(&cx.global.name)?;
    let targets = cx.targets(&lab, &state, &args.connect).await?;
    let password = sudo_password(&args.connect).await?;
    let (mut lines, mut seen) = (vec![], vec![]);
    for node in lab.nodes() {
        let target = targets.iter().find(|(n, _)| *n == node.name);
        lines.push(look(&node.name, target, &password, &mut seen).await?);
    }
    for line in &mut lines {
        let words = seen
            .iter()
            .map(|l| l.split_whitespace().collect::<Vec<_>>())
            .find(|w| w.first() == Some(&line.node.as_str()));
        if let Some(words) = words {
            line.version = words.get(1).map(|v| (*v).to_owned());
            line.ready = words.get(2).map(|r| *r == "True");
        }
    }
    Ok(output::value(args.output, &lines, |wide| text(&lines, wide))?)
}

/// One node as it is; what the API server on it says of all nodes goes to `seen`.
async fn look(
    node: &NodeId,
    target: Option<&(NodeId, SshTarget)>,
    password: &SudoPassword,
    seen: &mut Vec<String>,
) -> Result<NodeStatus, Problem> {
    let mut line = NodeStatus {
        node: node.clone(),
        host: target.map_or_else(|| "no machine".to_owned(), |(_, t)| t.name()),
        reached: false,
        ready: None,
        version: None,
        proxy_mode: None,
        machine: None,
        problem: None,
    };
    let Some(target) = target else {
        line.problem = Some("the machine does not run".to_owned());
        return Ok(line);
    };
    match Crew::muster(std::slice::from_ref(target), Some(password), None).await {
        Ok(crew) => {
            line.reached = true;
            line.machine = crew.fleet.values().next().map(Hardware::of);
            for host in crew.hosts.values() {
                let text = Viewer::new(host).read(SCRIPT).await?.text();
                line.proxy_mode = text.lines().next().map(str::trim).filter(|m| !m.is_empty()).map(str::to_owned);
                seen.extend(text.lines().filter_map(|l| l.strip_prefix("NODE ")).map(str::to_owned));
            }
            crew.dismiss().await;
        }
        Err(problems) => line.problem = Some(problems.to_string()),
    }
    Ok(line)
}

fn text(lines: &[NodeStatus], wide: bool) -> String {
    let heading = ["NODE", "HOST", "STATE", "VERSION", "PROXY"];
    let mut rows =
        vec![output::columns(wide, heading, ["ADDRESS", "CORES", "MEMORY", "DISK FREE", "SYSTEM", "KERNEL"])];
    for line in lines {
        let state = match (line.reached, line.ready) {
            (false, _) => "unreachable",
            (true, Some(true)) => "Ready",
            (true, Some(false)) => "NotReady",
            (true, None) => "not in the cluster",
        };
        let dash = |o: &Option<String>| o.clone().unwrap_or_else(|| "-".to_owned());
        let more = line.machine.as_ref().map(|m| {
            let (memory, disk) = (m.memory.to_string(), m.disk_free.to_string());
            [dash(&m.address), m.cores.to_string(), memory, disk, dash(&m.os), dash(&m.kernel)]
        });
        rows.push(output::columns(
            wide,
            [line.node.as_str(), &line.host, state, &dash(&line.version), &dash(&line.proxy_mode)],
            more.unwrap_or_else(|| std::array::from_fn(|_| "-".to_owned())),
        ));
    }
    let problems: String = lines.iter().filter_map(|l| l.problem.as_ref()).map(|p| format!("{p}\n")).collect();
    format!("{}{problems}", table(&rows))
}

fn all(cx: &Context, args: &StatusArgs) -> Result<(), Problems> {
    let (mut labs, mut damaged) = (vec![], vec![]);
    for name in Store::all(&cx.places.labs) {
        let store = Store::of(&cx.places.labs, &name);
        match store.load() {
            Ok(Some((lab, state))) => labs.push(LabLine::of(&name, &lab, state, &store)),
            Ok(None) => {}
            // It hides none of the others.
            Err(problem) => damaged.push(problem),
        }
    }
    output::value(args.output, &labs, |wide| labs_text(&labs, wide))?;
    Problems::check(damaged)
}

fn labs_text(labs: &[LabLine], wide: bool) -> String {
    let heading = ["LAB", "LAYOUT", "KUBERNETES", "WHERE"];
    let mut rows = vec![output::columns(wide, heading, ["CNI", "PROXY", "HOSTS", "FOLDER"])];
    rows.extend(labs.iter().map(|l| {
        let hosts = if l.clean { "clean" } else { "in use" };
        output::columns(
            wide,
            [&l.lab, &l.layout, &l.kubernetes, &l.place],
            [&l.cni.to_string(), &l.proxy_mode.to_string(), hosts, &l.folder.display().to_string()],
        )
    }));
    table(&rows)
}
