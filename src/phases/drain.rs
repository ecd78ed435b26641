use async_trait::async_trait;

use super::{
    cluster::{DRAINED, KUBECTL},
    steps::DRAIN,
};
use crate::{
    core::{PhaseId, Problem},
    engine::{Check, Phase, Step, View},
    profile::NodeSpec,
};

/// Asks the workers' pods to end while there still is a cluster that can tell them; best effort, in seconds.
///
/// Where no kubelet would end them, they are only forgotten.
pub struct Drain;

/// How long all pods together may take to end, in seconds.
const LIMIT: u32 = 25;

/// How long the API server may take to forget those that nobody ends, in seconds.
const FORGET: u32 = 5;

#[async_trait]
impl Phase for Drain {
    fn id(&self) -> PhaseId {
        PhaseId::new("drain")
    }

    fn title(&self) -> &'static str {
        "let the workers' pods end"
    }

    fn concerns(&self, view: &View<'_>) -> bool {
        view.is_control_plane() && view.lab.workers().next().is_some()
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let names: Vec<_> = view.lab.workers().map(|w| w.name.to_string()).collect();
        let nodes = names.join(" ");
        // The workers wait for this step, so it is always there; without an answering API it is done already.
        let nothing = format!(
            "[ ! -s /etc/kubernetes/admin.conf ] || [ ! -e /var/lib/kubecamp ] || ! command -v kubectl || \
             ! timeout 6 {KUBECTL} get --raw /readyz --request-timeout=5s || \
             [ -z \"$(timeout 6 {KUBECTL} get nodes {nodes} -o name --ignore-not-found --request-timeout=5s)\" ]"
        );
        // For the API server a node stays Ready for 40 seconds without its kubelet, which facts show at once; of hosts
        // that did not come only the API server tells.
        let has_none = |w: &&NodeSpec| view.fleet.get(&w.name).is_some_and(|facts| !facts.runs("kubelet"));
        let stopped: Vec<_> = view.lab.workers().filter(has_none).map(|w| w.name.as_str()).collect();
        // The dead ones come last: until then they are where pods of the others would go, and nothing starts there.
        let change = format!(
            "{{ true >> {DRAINED}; }} 2>/dev/null; live= dead= ours=\n\
             for one in $(timeout 6 {KUBECTL} get nodes {nodes} --no-headers --ignore-not-found --request-timeout=5s | tr -s ' ' =); do\n\
             node=${{one%%=*}} state=${{one#*=}}\n\
             case $state in *SchedulingDisabled*) ;; *) ours=\"$ours $node\" ;; esac\n\
             case ' {} ' in *\" $node \"*) state=stopped ;; esac\n\
             case $state in Ready*) live=\"$live $node\" ;; *) dead=\"$dead $node\" ;; esac\ndone\n\
             [ ! \"$ours\" ] || {{ echo $ours >> {DRAINED}; sync {DRAINED} 2>/dev/null; }}\n\
             end_pods() {{\nseconds=$1 grace=$2; shift 2\n\
             timeout -k 2 $((seconds + 5)) {KUBECTL} drain \"$@\" --force --ignore-daemonsets --delete-emptydir-data \
             --disable-eviction --grace-period=\"$grace\" --timeout=\"${{seconds}}s\" 2>&1 | tail -n 20\n}}\n\
             [ ! \"$live\" ] || end_pods {LIMIT} 3 $live\n\
             [ ! \"$dead\" ] || {{ echo \"nobody ends the pods of$dead: they are not waited for\"; end_pods {FORGET} 0 $dead; }}\n\
             true",
            stopped.join(" ")
        );
        let mut title = format!("drain {}", names.join(", "));
        if !stopped.is_empty() {
            title.push_str(&format!(", not waiting for pods where no kubelet runs: {}", stopped.join(", ")));
        }
        Ok(vec![Step::script(DRAIN, title, Check::Before(nothing), change)])
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, process::Command};

    use super::*;
    use crate::{
        engine::Change,
        host::Facts,
        profile::{self, Lab},
    };

    /// The step's title, for which nodes and grace kubectl is called, and whom `up` lets pods go to again, where the API
    /// server says this of the workers and their facts that of the kubelets.
    async fn drained(states: [&str; 2], kubelets: [&str; 2]) -> (String, Vec<String>, String) {
        let folder = tempfile::tempdir().unwrap();
        let (sham, log) = (folder.path().join("kubectl"), folder.path().join("log"));
        let line = |(n, state): (usize, &str)| format!("echo 'worker-{n}   {state}   <none>   5d   v1.36.3'\n");
        let lines: String = (1..).zip(states).map(line).collect();
        let text =
            format!("#!/bin/sh\nshift 2\ncase $1 in get)\n{lines};;\n*) echo \"$*\" >>{} ;;\nesac\n", log.display());
        fs::write(&sham, text).unwrap();
        fs::set_permissions(&sham, fs::Permissions::from_mode(0o755)).unwrap();
        let lab = Lab::new("lab".parse().unwrap(), profile::load("3x2c4g").unwrap()).unwrap();
        let (node, mut fleet) = (lab.control_plane().name.clone(), BTreeMap::new());
        for (worker, facts) in lab.workers().zip(kubelets) {
            fleet.insert(worker.name.clone(), Facts::parse(facts));
        }
        let view = View { lab: &lab, node: &node, fleet: &fleet, host: None };
        let step = Drain.steps(&view).await.unwrap().remove(0);
        let Change::Script(script) = &step.change else { panic!("it is no script") };
        let mark = folder.path().join("drained");
        let script = script.replace(DRAINED, &mark.display().to_string());
        let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
        let out = Command::new("sh").arg("-c").arg(script).env("PATH", path).output().unwrap();
        assert!(out.status.success(), "{out:?}");
        let options = " --force --ignore-daemonsets --delete-emptydir-data --disable-eviction --grace-period=";
        let asked = fs::read_to_string(&log).unwrap();
        let calls = asked.lines().map(|l| l.replacen(options, ", grace ", 1)).collect();
        (step.title.clone(), calls, fs::read_to_string(mark).unwrap_or_default())
    }

    #[tokio::test]
    async fn pods_that_nobody_ends_are_not_waited_for() {
        let (runs, none) = ("unit.kubelet=active", "unit.kubelet=activating");
        let both = ["drain worker-1 worker-2, grace 3 --timeout=25s"];
        let (title, asked, ours) = drained(["Ready", "Ready,SchedulingDisabled"], [runs, runs]).await;
        assert_eq!((title.as_str(), &asked[..]), ("drain worker-1, worker-2", &both.map(str::to_owned)[..]));
        assert_eq!(ours, "worker-1\n", "the other one was cordoned before");

        let (title, asked, ours) = drained(["Ready", "Ready"], [runs, none]).await;
        assert_eq!(title, "drain worker-1, worker-2, not waiting for pods where no kubelet runs: worker-2");
        let apart = ["drain worker-1, grace 3 --timeout=25s", "drain worker-2, grace 0 --timeout=5s"];
        assert_eq!(asked, apart);
        assert_eq!(ours, "worker-1 worker-2\n");
        // Its kubelet runs, and does not reach the API server.
        assert_eq!(drained(["Ready", "NotReady"], [runs, runs]).await.1, apart);
        let (_, asked, _) = drained(["NotReady", "NotReady"], [runs, ""]).await;
        assert_eq!(asked, ["drain worker-1 worker-2, grace 0 --timeout=5s"]);
    }
}
