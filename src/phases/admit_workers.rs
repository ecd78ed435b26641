use std::time::Duration;

use async_trait::async_trait;

use super::{
    cluster::{KUBECTL, has_joined, is_new, joined_another},
    node_objects::{object, pods_of},
    steps,
    values::{CA, IDENTITIES},
};
use crate::{
    core::{NodeId, PhaseId, Problem, StepId},
    engine::{Check, Need, Phase, Step, View},
    host::{fact, script},
};

/// Signs on the control plane what the workers' kubelets show the API server, and registers the workers there.
///
/// It goes beside kubeadm init, which waits for seconds until everything of the API server is healthy before it goes on to what
/// a join asks for. The host has little else to do then, and workers can start their kubelets meanwhile.
pub struct AdmitWorkers;

impl AdmitWorkers {
    /// Its id.
    pub const ID: PhaseId = PhaseId::new("admit-workers");
}

#[async_trait]
impl Phase for AdmitWorkers {
    fn id(&self) -> PhaseId {
        Self::ID
    }

    fn title(&self) -> &'static str {
        "admit the workers"
    }

    fn concerns(&self, view: &View<'_>) -> bool {
        match view.is_control_plane() {
            true => !view.lab.workers().all(|w| is_joined(view, &w.name)),
            false => returns(view, view.node),
        }
    }

    fn aside(&self) -> bool {
        true
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        if !view.is_control_plane() {
            return Ok(vec![quiet()]);
        }
        // What users changed in a lab that was there before is looked after by kubeadm init's own step.
        let (first, registers) = if is_new(view) {
            (steps::CA, register_early(view))
        } else {
            (steps::INIT, format!("{}register || exit 1\n{}", register(view, KUBECTL), retire(view)))
        };
        let script = format!("{}{registers}", sign(view));
        let title = "sign the workers' certificates and register them";
        // Longer than kubeadm init may take, which says more where both come to no end.
        let step = Step::script("admit", title, Check::Never, script)
            .limit(Duration::from_secs(310))
            .gives(&[&IDENTITIES, &CA]);
        let step = step.beside().needs(Need::Step(view.node.clone(), StepId::new(first)));
        let back = view.lab.workers().filter(|w| returns(view, &w.name));
        Ok(vec![back.fold(step, |step, w| step.needs(Need::After(w.name.clone(), StepId::new(QUIET))))])
    }
}

const QUIET: &str = "quiet";

/// Whether a worker's kubelet runs on, and its files are gone.
fn returns(view: &View<'_>, node: &NodeId) -> bool {
    !is_new(view) && view.fleet.get(node).is_some_and(|f| !f.yes(fact::JOINED) && f.runs("kubelet"))
}

/// It would say once more that its node is ready, after [`retire`] took that back. One whose join a killed run had begun, and
/// which has joined since it was looked at, stays: nobody would start it.
fn quiet() -> Step {
    let joined = format!("{{ {}; }}", has_joined());
    let check = Check::Script(format!("! systemctl -q is-active kubelet || {joined}"));
    let change = format!("{joined} || systemctl stop kubelet.service");
    Step::script(QUIET, "stop the kubelet of a node that joins anew", check, change)
}

/// Whether a worker's facts show that it needs no identity: the very things that its own check looks at. Nobody has joined a
/// new cluster.
fn is_joined(view: &View<'_>, node: &NodeId) -> bool {
    !is_new(view)
        && !joined_another(view, node)
        && view.fleet.get(node).is_some_and(|f| f.yes(fact::JOINED) && f.runs("kubelet") && f.moved_from().is_none())
}

fn names(view: &View<'_>) -> String {
    view.lab.workers().map(|w| w.name.to_string()).collect::<Vec<_>>().join(" ")
}

/// Signs a certificate for each worker, for which only the CA must be there.
///
/// kubeadm would have each kubelet ask for its certificate with a token: it starts as nobody, is refused for whatever else
/// it asks, waits longer each time, and has to be started anew once it has the certificate.
fn sign(view: &View<'_>) -> String {
    // Keys go through pipes and the shell's own words only: an argument can be read by every user of the host.
    format!(
        "sign() {{ kubeadm kubeconfig user --config /etc/kubernetes/kubecamp/init.yaml --client-name \"system:node:$1\" --org system:nodes; }}\n\
         ca=$(base64 -w0 /etc/kubernetes/pki/ca.crt) || exit 1\n\
         for name in {}; do\n\
         conf=$(sign \"$name\") || exit 1\n\
         pem=$(printf '%s\\n' \"$conf\" | sed -n 's/^ *client-certificate-data: *//p; s/^ *client-key-data: *//p' | while read -r part; do printf %s \"$part\" | base64 -d; done | base64 -w0)\n\
         echo \"KC-OUT identities=$name=$pem\"; done\n\
         echo \"KC-OUT ca=$ca\"\n",
        names(view)
    )
}

/// A function of the shell, `register`, that makes the workers' Node objects, each with its pod network, which flannel finds when
/// it starts: in a new lab that of its place in the profile, which is foreseeable, and in one that is there what its host has.
fn register(view: &View<'_>, kubectl: &str) -> String {
    let pods = |node: &NodeId| if is_new(view) { view.lab.pod_cidr_of(node) } else { pods_of(view, node) };
    let nodes: String = view.lab.workers().map(|w| object(&w.name, pods(&w.name), "")).collect();
    // Nodes that are there already are refused one by one and stay as they are; the look at the end says what counts.
    format!(
        "register() {{\n\
         {kubectl} create --validate=false -f - >/dev/null 2>&1 <<'KC_END' || {kubectl} get node {} -o name >/dev/null\n{nodes}KC_END\n}}\n",
        names(view)
    )
}

/// Takes back that workers which join anew are ready: kubeadm refuses a node that is, and the API server misses a kubelet only
/// after most of a minute. Their Node objects stay, with the labels, taints and pods that users gave them.
fn retire(view: &View<'_>) -> String {
    let is_lost = |node: &NodeId| view.fleet.get(node).is_some_and(|facts| !facts.yes(fact::JOINED));
    let lost: Vec<_> = view.lab.workers().filter(|w| is_lost(&w.name)).map(|w| w.name.as_str()).collect();
    if lost.is_empty() {
        return String::new();
    }
    let state = r#"{"status":{"conditions":[{"type":"Ready","status":"Unknown","reason":"NodeStatusUnknown","message":"the node joins anew"}]}}"#;
    // Where it fails the join waits.
    format!("{KUBECTL} patch node {} --subresource=status -p '{state}' >/dev/null 2>&1 || true\n", lost.join(" "))
}

/// The same as soon as the API server of a new lab listens, and with it the two maps that kubeadm join reads. kubeadm
/// init writes them once more. Until the API server's own roles are made only the super-admin may do anything.
fn register_early(view: &View<'_>) -> String {
    let conf = "/etc/kubernetes/super-admin.conf";
    // Looked for without starting kubectl again and again. The port is open before the API server has found its etcd, and it
    // may end once more: as long as kubeadm init runs, it is tried again, for that knows why when nothing comes. Each look
    // says a word that nobody keeps: where nobody hears it any more, this ends with it.
    format!(
        "{}idle=0; until [ -s {conf} ] && grep -qi ':192B 0*:0000 0A' /proc/net/tcp /proc/net/tcp6 2>/dev/null; do\n\
         if {rest}; then idle=$((idle+1)); [ $idle -lt 100 ] || kc_die 'kubeadm init does not run'; else idle=0; fi\n\
         echo KC-DONE || exit 1; sleep 0.2; done\n\
         early() {{\n\
         kubeadm init phase upload-config all --config /etc/kubernetes/kubecamp/init.yaml --kubeconfig {conf} >/dev/null && register\n\
         }}\n\
         until early; do\n\
         if {rest}; then early && break; exit 1; fi\n\
         echo KC-DONE || exit 1; sleep 1; done\n",
        register(view, &format!("kubectl --kubeconfig {conf}")),
        rest = script::at_rest(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::Change,
        host::Facts,
        profile::{self, Lab},
    };

    #[tokio::test]
    async fn only_a_worker_that_joins_anew_is_no_longer_ready() {
        let lab = Lab::new("lab".parse().unwrap(), profile::load("3x2c4g").unwrap()).unwrap();
        let node: NodeId = "cp".parse().unwrap();
        for (facts, wanted) in [("lab=lab\n", true), ("lab=lab\njoined=yes\n", false)] {
            // The other one's kubelet is only stopped.
            let of = |name: &str, facts: &str| (name.parse::<NodeId>().unwrap(), Facts::parse(facts));
            let fleet = [of("cp", "lab=lab\n"), of("worker-1", "lab=lab\njoined=yes\n"), of("worker-2", facts)].into();
            let view = View { lab: &lab, node: &node, fleet: &fleet, host: None };
            let [step] = <[Step; 1]>::try_from(AdmitWorkers.steps(&view).await.unwrap()).ok().unwrap();
            let Change::Script(text) = step.change else { panic!("it is a script") };
            let dir = tempfile::tempdir().unwrap();
            let log = dir.path().join("log");
            let sham = format!(
                "kubectl() {{ echo \"$*\" >> {}; }}; kubeadm() {{ :; }}; base64() {{ :; }}\n{text}",
                log.display()
            );
            let out = std::process::Command::new("sh").arg("-c").arg(sham).output().unwrap();
            assert!(out.status.success(), "{out:?}");
            let called = std::fs::read_to_string(&log).unwrap();
            let patched: Vec<_> = called.lines().filter(|line| line.contains(" patch ")).collect();
            assert_eq!(patched.len(), usize::from(wanted), "{called}");
            assert!(patched.iter().all(|line| line.contains(" patch node worker-2 --subresource=status ")), "{called}");
            let at = |what: &str| called.lines().position(|line| line.contains(what));
            assert!(!wanted || at(" create ") < at(" patch "), "{called}");
        }
    }

    /// Which the controller manager gives it by then.
    #[test]
    fn no_worker_is_registered_with_the_pod_network_of_the_control_plane() {
        let mut profile = profile::load("3x2c4g").unwrap();
        profile.nodes.reverse();
        let lab = Lab::new("lab".parse().unwrap(), profile).unwrap();
        let (node, fleet) = ("cp".parse().unwrap(), Default::default());
        let script = register(&View { lab: &lab, node: &node, fleet: &fleet, host: None }, KUBECTL);
        let given: Vec<_> = script.lines().filter_map(|line| line.strip_prefix("  podCIDR: ")).collect();
        assert_eq!(given, ["10.244.1.0/24", "10.244.2.0/24"], "{script}");
        assert_eq!(lab.pod_cidr_of(&node).unwrap().to_string(), "10.244.0.0/24");
    }

    /// An earlier version gave them to the nodes as the profile names these.
    #[test]
    fn workers_of_a_lab_that_is_there_are_registered_with_the_pod_networks_of_their_hosts() {
        let mut profile = profile::load("2x4c8g").unwrap();
        profile.nodes.reverse();
        let lab = Lab::new("lab".parse().unwrap(), profile).unwrap();
        let [cp, worker] = ["cp", "worker-1"].map(|name| name.parse::<NodeId>().unwrap());
        let given = |of_cp: Facts, of_worker: &str| {
            let noted = Facts::parse(&format!("lab=lab\npods={of_worker}\n"));
            let fleet = [(cp.clone(), of_cp), (worker.clone(), noted)].into();
            let text = register(&View { lab: &lab, node: &cp, fleet: &fleet, host: None }, KUBECTL);
            text.lines().filter_map(|line| line.strip_prefix("  podCIDR: ")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(given(Facts::parse("lab=lab\npods=10.244.1.1/24\n"), "10.244.0.1/24"), ["10.244.0.0/24"]);
        // Of a new lab no host says anything that counts.
        assert_eq!(given(Facts::parse("arch=x86_64\n"), "10.244.7.1/24"), ["10.244.1.0/24"]);
    }

    #[test]
    fn who_joined_a_cluster_that_is_gone_has_not_joined_this_one() {
        let lab = Lab::new("lab".parse().unwrap(), profile::load("2x4c8g").unwrap()).unwrap();
        let [cp, worker] = ["cp", "worker-1"].map(|name| name.parse::<NodeId>().unwrap());
        let joined = "joined=yes\nunit.kubelet=active\n";
        for (here, there, wanted) in [
            ("lab=lab\nca=A\n", "ca=A\n", true),
            // While an authority is replaced both are there.
            ("lab=lab\nca=B\nca=A\n", "ca=A\n", true),
            ("lab=lab\nca=B\n", "ca=A\n", false),
            ("lab=lab\n", "", true),
            ("lab=lab\n", "addr=eth0 192.0.2.2/24\nnode.ip=192.0.2.2\n", true),
            // It begins with what it has, at its new address.
            ("lab=lab\n", "addr=eth0 192.0.2.9/24\nnode.ip=192.0.2.2\n", false),
            ("", "ca=A\n", false),
        ] {
            let of = |node: &NodeId, facts: &str| (node.clone(), Facts::parse(facts));
            let fleet = [of(&cp, here), of(&worker, &format!("{joined}{there}"))].into();
            let view = View { lab: &lab, node: &cp, fleet: &fleet, host: None };
            assert_eq!(is_joined(&view, &worker), wanted, "{here} and {there}");
        }
    }

    #[test]
    fn a_kubelet_that_has_joined_since_is_not_stopped() {
        let step = quiet();
        let (Change::Script(change), Check::Script(check)) = (step.change, step.done_if) else {
            panic!("they are scripts")
        };
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display().to_string();
        let runs = |script: &str| {
            let script = script.replace("/etc/kubernetes", &root).replace("/var/lib/kubelet", &root);
            let sham = format!("systemctl() {{ [ \"$1\" != stop ] || echo \"$2\" >> {root}/stopped; }}\n");
            std::process::Command::new("sh").arg("-c").arg(format!("{sham}{script}")).status().unwrap().success()
        };
        std::fs::create_dir(dir.path().join("pki")).unwrap();
        for file in ["kubelet.conf", "pki/kubelet-client-current.pem", "kubeadm-flags.env", "bootstrap-kubelet.conf"] {
            std::fs::write(dir.path().join(file), "x").unwrap();
        }
        assert!(!runs(&check), "kubeadm join has not seen it well yet");
        std::fs::remove_file(dir.path().join("bootstrap-kubelet.conf")).unwrap();
        assert!(runs(&check) && runs(&change) && !dir.path().join("stopped").exists());
        std::fs::remove_file(dir.path().join("kubelet.conf")).unwrap();
        assert!(!runs(&check) && runs(&change));
        assert_eq!(std::fs::read_to_string(dir.path().join("stopped")).unwrap(), "kubelet.service\n");
    }

    #[tokio::test]
    async fn workers_of_a_new_lab_do_not_wait_for_the_end_of_kubeadm_init() {
        let lab = Lab::new("lab".parse().unwrap(), profile::load("2x4c8g").unwrap()).unwrap();
        let node: NodeId = "cp".parse().unwrap();
        for (facts, needed, early) in [("", "ca", true), ("lab=lab\n", "init", false)] {
            let fleet = [(node.clone(), Facts::parse(facts))].into();
            let view = View { lab: &lab, node: &node, fleet: &fleet, host: None };
            let [step] = <[Step; 1]>::try_from(AdmitWorkers.steps(&view).await.unwrap()).ok().unwrap();
            assert!(
                matches!(&step.needs[..], [Need::Step(on, id)] if *on == node && id.to_string() == needed),
                "{facts}"
            );
            let Change::Script(text) = step.change else { panic!("it is a script") };
            assert_eq!(text.contains("super-admin.conf"), early);
            // What users changed in kubeadm's maps is not written over.
            assert_eq!(text.contains("upload-config"), early);
        }
    }

    #[test]
    fn an_api_server_that_is_slow_is_tried_again_while_kubeadm_init_runs() {
        let lab = Lab::new("lab".parse().unwrap(), profile::load("2x4c8g").unwrap()).unwrap();
        let (node, fleet) = ("cp".parse().unwrap(), Default::default());
        let script = register_early(&View { lab: &lab, node: &node, fleet: &fleet, host: None });
        for init_runs in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().display().to_string();
            let step = dir.path().join("step");
            for (file, text) in [("super-admin.conf", "x"), ("tcp6", " 0: 00000000:192B 00000000:0000 0A 0\n")] {
                std::fs::write(dir.path().join(file), text).unwrap();
            }
            let script = script.replace("/etc/kubernetes/super-admin.conf", &format!("{root}/super-admin.conf"));
            let script = script.replace("/proc/net", &root).replace(script::LOCKS, &root);
            std::fs::write(&step, "").unwrap();
            let sham = format!(
                "flock() {{ ! {init_runs}; }}; sleep() {{ :; }}; kubectl() {{ cat > {root}/nodes; }}\n\
                 kubeadm() {{ echo >> {root}/tries; [ \"$(wc -l < {root}/tries)\" -gt 2 ]; }}\n"
            );
            let out = std::process::Command::new("sh").arg("-c").arg(format!("{sham}{script}")).output().unwrap();
            assert_eq!(out.status.success(), init_runs, "{out:?}");
            let nodes = std::fs::read_to_string(dir.path().join("nodes")).unwrap_or_default();
            assert_eq!(nodes.contains("name: \"worker-1\"\n"), init_runs, "{nodes}");
        }
    }
}
