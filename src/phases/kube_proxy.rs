use async_trait::async_trait;

use super::{
    cluster::{ASK, SOCKET, UNAPPLIED},
    steps::{IMPORT_KUBE_PROXY, INIT},
};
use crate::{
    core::{Code, PhaseId, Problem, StepId},
    engine::{Check, Need, Phase, Step, View},
    host::{fact, template},
};

/// Starts kube-proxy as soon as its image is there: pods reach the API server through it.
///
/// On any node it is started anew where its rules are gone.
pub struct KubeProxy;

impl KubeProxy {
    /// Its id.
    pub const ID: PhaseId = PhaseId::new("kube-proxy");
}

#[async_trait]
impl Phase for KubeProxy {
    fn id(&self) -> PhaseId {
        Self::ID
    }

    fn title(&self) -> &'static str {
        "start kube-proxy"
    }

    fn concerns(&self, view: &View<'_>) -> bool {
        view.is_control_plane() || lost_rules(view)
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let mut steps = vec![];
        if view.is_control_plane() {
            steps.push(daemonset(view));
        }
        if lost_rules(view) {
            steps.push(anew(view)?);
        }
        Ok(steps)
    }
}

fn daemonset(view: &View<'_>) -> Step {
    let check =
        format!("[ ! -e {UNAPPLIED}kube-proxy ] && {ASK} -n kube-system get cm/kube-proxy ds/kube-proxy -o name");
    let change = format!(
        "kubeadm init phase addon kube-proxy --config /etc/kubernetes/kubecamp/init.yaml && rm -f {UNAPPLIED}kube-proxy"
    );
    let image = Need::Step(view.node.clone(), StepId::new(IMPORT_KUBE_PROXY));
    let title = "apply kube-proxy's DaemonSet";
    Step::script("kube-proxy", title, Check::Script(check), change).needs(image)
}

/// Whether kube-proxy ran when the run began and its rules were gone, so that nobody asks for them otherwise.
fn lost_rules(view: &View<'_>) -> bool {
    view.facts().yes(fact::RULES_MISSING)
}

/// In nftables mode kube-proxy does not notice that its table is gone until something else changes.
fn anew(view: &View<'_>) -> Result<Step, Problem> {
    let mode = view.lab.profile().proxy.mode;
    let functions = format!("{}{}", template::text("host/proxy-rules.sh")?, template::text("node/reach.sh")?);
    // One that runs in another mode gets this one, and its rules, with the profile's configuration.
    let check = format!("MODE={mode} DEADLINE=0\n{functions}rules_are_there $MODE || ! mode_is");
    // One that has just started gets a moment to write them; one that was started anew often is by the kubelet only after a pause.
    let change = format!(
        "MODE={mode} DEADLINE=3\n{functions}until_true rules_are_there $MODE && exit 0\n\
         crictl() {{ command crictl -r unix://{SOCKET} \"$@\"; }}\n\
         ids=$(crictl ps -q --name '^kube-proxy$' --label io.kubernetes.pod.namespace=kube-system) || exit 1\n\
         for id in $ids; do crictl stop --timeout 5 \"$id\" >/dev/null || exit 1; done\n\
         now; end=$((now + 100))\n\
         until_true rules_are_there $MODE || kc_die \"kube-proxy was started anew, and its rules for the mode $MODE are still not there\""
    );
    // It writes none before the API server tells it of Services.
    let init = Need::Step(view.lab.control_plane().name.clone(), StepId::new(INIT));
    Ok(Step::script("rules", "start kube-proxy anew, whose rules are missing", Check::Script(check), change)
        .needs(init)
        .fails_as(Code::VerifyFailed))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::{
        core::NodeId,
        engine::Change,
        host::Facts,
        profile::{self, Lab},
    };

    #[test]
    fn rules_are_missing_only_where_their_tool_says_so() {
        let rules = template::text("host/proxy-rules.sh").unwrap();
        for (mode, said, there) in [
            (
                "nftables",
                "table ip kube-proxy {\n\tchain services {\n\t\tip daddr . meta l4proto . th dport vmap @service-ips\n",
                true,
            ),
            ("nftables", "table ip kube-proxy {\n}\n", false),
            ("nftables", "Error: No such file or directory\nlist table ip kube-proxy\n", false),
            ("nftables", "Segmentation fault\n", true),
            ("iptables", "-N KUBE-SERVICES\n-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n", true),
            ("iptables", "-N KUBE-SERVICES\n", false),
            ("iptables", "iptables: No chain/target/match by that name.\n", false),
            ("iptables", "Fatal: can't open lock file /run/xtables.lock: Permission denied\n", true),
            ("", "", true),
        ] {
            let sham = "nft() { printf %s \"$said\"; }\niptables() { nft; }\ncommand() { case $2 in iptables-*) [ \"$2\" = \"$kind\" ] ;; esac; }\n\
                 iptables-nft() { echo '-A KUBE-SERVICES'; }\n";
            let script = format!("{sham}{rules}rules_are_there \"$1\"");
            let looks = |kind: &str| {
                let mut sh = Command::new("bash");
                sh.args(["-c", &script, "sh", mode])
                    .env("said", said)
                    .env("kind", kind)
                    .output()
                    .unwrap()
                    .status
                    .success()
            };
            assert_eq!(looks(""), there, "{mode}: {said}");
            // The host's own kind is another one since.
            assert!(mode != "iptables" || looks("iptables-nft"), "{said}");
        }
    }

    #[tokio::test]
    async fn a_kube_proxy_whose_rules_are_missing_is_ended_once() {
        let lab = Lab::new("lab".parse().unwrap(), profile::load("2x4c8g").unwrap()).unwrap();
        let node: NodeId = "worker-1".parse().unwrap();
        let fleet = [(node.clone(), Facts::parse("rules.missing=yes\n"))].into();
        let view = View { lab: &lab, node: &node, fleet: &fleet, host: None };
        assert!(KubeProxy.concerns(&view));
        let [step] = <[Step; 1]>::try_from(KubeProxy.steps(&view).await.unwrap()).ok().unwrap();
        let Change::Script(change) = step.change else { panic!("it is a script") };
        let change = change.replace("DEADLINE=3", "DEADLINE=0").replace("+ 100", "+ 0");
        for (had, helps, ended, good) in
            [(true, true, "", true), (false, true, "7\n", true), (false, false, "7\n", false)]
        {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().display();
            let (rules, list) = (dir.path().join("rules"), dir.path().join("ended"));
            if had {
                std::fs::write(&rules, "").unwrap();
            }
            let sham = format!(
                "nft() {{ [ -e {root}/rules ] && echo 'vmap @service-ips' || echo 'No such file or directory'; }}\n\
                 command() {{ [ \"$1\" != -v ] || return 0; case \"$*\" in *' ps '*) echo 7 ;; \
                 *' stop '*) for id; do :; done; echo \"$id\" >> {root}/ended; ! {helps} || : > {root}/rules ;; esac; }}\n\
                 kc_die() {{ echo \"$*\" >&2; exit 1; }}\n"
            );
            let out = Command::new("sh").arg("-c").arg(format!("{sham}{change}")).output().unwrap();
            assert_eq!(out.status.success(), good, "{out:?}");
            assert_eq!(std::fs::read_to_string(list).unwrap_or_default(), ended);
        }
    }

    #[tokio::test]
    async fn nobody_looks_for_rules_on_a_node_that_has_them() {
        let lab = Lab::new("lab".parse().unwrap(), profile::load("2x4c8g").unwrap()).unwrap();
        let fleet = Default::default();
        for (node, steps) in [("cp", 1), ("worker-1", 0)] {
            let node = node.parse().unwrap();
            let view = View { lab: &lab, node: &node, fleet: &fleet, host: None };
            assert_eq!(KubeProxy.steps(&view).await.unwrap().len(), steps);
        }
    }
}
