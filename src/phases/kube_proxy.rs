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

    /// What `nft list table ip kube-proxy` prints once kube-proxy 1.36 has written its rules, without those of other chains.
    const TABLE: &str = "table ip kube-proxy {\n\
        \tchain nat-prerouting {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n\t\tjump services\n\t}\n\
        \tchain nat-output {\n\t\ttype nat hook output priority -100; policy accept;\n\t\tjump services\n\t}\n\
        \tchain nat-postrouting {\n\t\tjump masquerading\n\t}\n\
        \tchain services {\n\t\tip daddr . meta l4proto . th dport vmap @service-ips\n\t}\n}\n";

    /// What `iptables -t nat -S` prints then.
    const NAT: &str = "-P PREROUTING ACCEPT\n-P OUTPUT ACCEPT\n-N KUBE-SERVICES\n\
        -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
        -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
        -A POSTROUTING -j KUBE-KUBECAMP-MASQ\n\
        -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
        -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
        -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n";

    /// The same of the table filter; its KUBE-SERVICES has rules only for Services without endpoints.
    const FILTER: &str = "-P INPUT ACCEPT\n-N KUBE-SERVICES\n\
        -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
        -A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
        -A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
        -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n";

    /// Text without the lines that contain these words.
    fn without(text: &str, words: &str) -> String {
        text.lines().filter(|line| !line.contains(words)).map(|line| format!("{line}\n")).collect()
    }

    /// Whether the rules of a mode count as there, where the tool prints this of the table nat (or all, for nft) and of the
    /// table filter, and `kind` is another kind of iptables that has them all.
    fn are_there(mode: &str, said: &str, filter: &str, kind: &str) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display();
        std::fs::create_dir(dir.path().join("kube-ipvs0")).unwrap();
        std::fs::write(dir.path().join("ip_vs"), "IP Virtual Server\nTCP  0A600001:01BB rr\n").unwrap();
        let rules = template::text("host/proxy-rules.sh")
            .unwrap()
            .replace("/sys/class/net", &root.to_string())
            .replace("/proc/net/ip_vs", &format!("{root}/ip_vs"));
        let sham = "nft() { printf %s \"$said\"; }\n\
             iptables() { [ \"$3\" = nat ] && printf %s \"$said\" || printf %s \"$of_filter\"; }\n\
             iptables-nft() { [ \"$3\" = nat ] && printf %s \"$NAT\" || printf %s \"$FILTER\"; }\n\
             command() { case $2 in iptables-*) [ \"$2\" = \"$kind\" ] ;; esac; }\n";
        let mut sh = Command::new("bash");
        sh.args(["-c", &format!("{sham}{rules}rules_are_there \"$1\""), "sh", mode]);
        sh.envs([("said", said), ("of_filter", filter), ("kind", kind), ("NAT", NAT), ("FILTER", FILTER)]);
        sh.output().unwrap().status.success()
    }

    #[test]
    fn rules_are_missing_only_where_their_tool_says_so() {
        for (mode, said, there) in [
            ("nftables", TABLE, true),
            ("nftables", "table ip kube-proxy {\n}\n", false),
            ("nftables", "Error: No such file or directory\nlist table ip kube-proxy\n", false),
            ("nftables", "Segmentation fault\n", true),
            ("nftables", "table ip kube-proxy {\n\tchain services {\n", true),
            ("iptables", NAT, true),
            ("iptables", "-P PREROUTING ACCEPT\n-N KUBE-SERVICES\n", false),
            ("iptables", "Fatal: can't open lock file /run/xtables.lock: Permission denied\n", true),
            ("ipvs", NAT, true),
            ("ipvs", "-P PREROUTING ACCEPT\n", false),
            ("", "", true),
        ] {
            assert_eq!(are_there(mode, said, FILTER, ""), there, "{mode}: {said}");
            // The host's own kind is another one since.
            assert!(mode == "nftables" || are_there(mode, said, FILTER, "iptables-nft"), "{mode}: {said}");
        }
    }

    /// kube-proxy fills its chains again as soon as some Service changes, and looks for the jumps to them an hour later.
    #[test]
    fn chains_to_which_nothing_jumps_are_no_rules() {
        for gone in ["-A PREROUTING", "-A OUTPUT", "-j KUBE-POSTROUTING", "-A KUBE-SERVICES", "-A KUBE-POSTROUTING"] {
            for mode in ["iptables", "ipvs"] {
                assert!(!are_there(mode, &without(NAT, gone), FILTER, ""), "{mode}: {gone}");
            }
        }
        for (gone, ipvs) in [("-j KUBE-FORWARD", false), ("-A KUBE-FORWARD", false), ("-j KUBE-SERVICES", true)] {
            let filter = without(FILTER, gone);
            assert_eq!(["iptables", "ipvs"].map(|mode| are_there(mode, NAT, &filter, "")), [false, ipvs], "{gone}");
        }
        for gone in ["jump services", "jump masquerading", "vmap @service-ips"] {
            assert!(!are_there("nftables", &without(TABLE, gone), "", ""), "{gone}");
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
