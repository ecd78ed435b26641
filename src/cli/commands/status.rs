use serde::Serialize;

use super::{Context, sudo_password};
use crate::{
    cli::{
        args::StatusArgs,
        output,
        store::{Store, Where},
    },
    core::{NodeId, Problems},
    engine::Crew,
    host::Viewer,
    render::table,
};

#[derive(Serialize)]
struct NodeStatus {
    node: NodeId,
    host: String,
    reached: bool,
    ready: Option<bool>,
    version: Option<String>,
    proxy_mode: Option<String>,
    problem: Option<String>,
}

#[derive(Serialize)]
struct LabLine {
    lab: String,
    layout: String,
    kubernetes: String,
    place: String,
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
    let password = sudo_password(&args.connect)?;
    let mut lines: Vec<NodeStatus> = vec![];
    let mut seen = vec![];
    for node in lab.nodes() {
        let target = targets.iter().find(|(n, _)| *n == node.name);
        let host = target.map(|(_, t)| t.name()).unwrap_or_else(|| "no machine".to_owned());
        let crew = match target {
            Some(target) => {
                Crew::muster(std::slice::from_ref(target), password.as_ref(), None).await.map_err(|p| p.to_string())
            }
            None => Err("the machine does not run".to_owned()),
        };
        let mut line = NodeStatus {
            node: node.name.clone(),
            host,
            reached: crew.is_ok(),
            ready: None,
            version: None,
            proxy_mode: None,
            problem: None,
        };
        match crew {
            Ok(crew) => {
                for host in crew.hosts.values() {
                    let text = Viewer::new(host).read(SCRIPT).await?.text();
                    line.proxy_mode = text.lines().next().map(str::trim).filter(|m| !m.is_empty()).map(str::to_owned);
                    seen.extend(text.lines().filter_map(|l| l.strip_prefix("NODE ")).map(str::to_owned));
                }
                crew.dismiss().await;
            }
            Err(problem) => line.problem = Some(problem),
        }
        lines.push(line);
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
    Ok(output::value(args.output, &lines, || text(&lines))?)
}

fn text(lines: &[NodeStatus]) -> String {
    let mut rows = vec![["NODE", "HOST", "STATE", "VERSION", "PROXY"].map(str::to_owned).to_vec()];
    for line in lines {
        let state = match (line.reached, line.ready) {
            (false, _) => "unreachable",
            (true, Some(true)) => "Ready",
            (true, Some(false)) => "NotReady",
            (true, None) => "not in the cluster",
        };
        let dash = |o: &Option<String>| o.clone().unwrap_or_else(|| "-".to_owned());
        rows.push(vec![
            line.node.to_string(),
            line.host.clone(),
            state.into(),
            dash(&line.version),
            dash(&line.proxy_mode),
        ]);
    }
    let problems: String = lines.iter().filter_map(|l| l.problem.as_ref()).map(|p| format!("{p}\n")).collect();
    format!("{}{problems}", table(&rows))
}

fn all(cx: &Context, args: &StatusArgs) -> Result<(), Problems> {
    let mut labs = vec![];
    for name in Store::all(&cx.places.labs) {
        if let Some((lab, state)) = Store::of(&cx.places.labs, &name).load()? {
            let place = match state.place {
                Where::Local => "local".to_owned(),
                Where::Hosts(hosts) => hosts.iter().map(|(_, h)| h.to_string()).collect::<Vec<_>>().join(", "),
            };
            labs.push(LabLine {
                lab: name.to_string(),
                layout: lab.layout().to_string(),
                kubernetes: lab.profile().kubernetes.clone(),
                place,
            });
        }
    }
    Ok(output::value(args.output, &labs, || {
        let mut rows = vec![["LAB", "LAYOUT", "KUBERNETES", "WHERE"].map(str::to_owned).to_vec()];
        rows.extend(labs.iter().map(|l| vec![l.lab.clone(), l.layout.clone(), l.kubernetes.clone(), l.place.clone()]));
        table(&rows)
    })?)
}
