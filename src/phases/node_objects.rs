//! The Node objects that kubecamp makes: for workers before they join, and for any node of which somebody deleted it.

use super::cluster::{ASK, KUBECTL};
use crate::{
    core::NodeId,
    engine::View,
    host::Facts,
    profile::{Cidr, Cni},
};

/// The pod network that a node of a lab which is there has: with flannel what its host says, as an earlier version gave them
/// to the nodes in another order; else that of its place in the profile.
pub(super) fn pods_of(view: &View<'_>, node: &NodeId) -> Option<Cidr> {
    let is_part = |net: &Cidr| net.prefix() == 24 && view.lab.pod_cidr().contains(net.base());
    let noted = match view.lab.profile().network.cni {
        Cni::Flannel => view.fleet.get(node).and_then(Facts::pod_network).filter(is_part),
        Cni::Bridge => None,
    };
    noted.or_else(|| view.lab.pod_cidr_of(node))
}

/// A Node object with its pod network, and more lines of its metadata.
pub(super) fn object(name: &NodeId, pods: Option<Cidr>, more: &str) -> String {
    let pods = pods.map(|c| c.to_string()).unwrap_or_default();
    format!(
        "---\napiVersion: v1\nkind: Node\nmetadata:\n  name: \"{name}\"\n{more}spec:\n  podCIDR: {pods}\n  podCIDRs: [{pods}]\n"
    )
}

/// Shell text that makes the Node objects again which somebody deleted while their kubelets run on.
///
/// A kubelet makes its own only once, when it starts. Of one that is there again it says how it is, as before, so the object
/// must have what the kubelet gave it: the cluster's own pods ask for its labels. What users gave it is gone. Where flannel's
/// pods are reached each of them notes on the Node at its own start, and no other time: the others need that note. Of two Nodes
/// with one network the pods of neither would be reached, so the second is refused; the bridge CNI asks no Node for its network.
pub(super) fn restore(view: &View<'_>) -> String {
    let flag = view.lab.name().flag();
    let (refuse, anew) = match view.lab.profile().network.cni {
        Cni::Flannel => (
            format!(
                "case $there in *\"=$2 \"*) other=${{there%%\"=$2 \"*}}; kc_die \"the Node $1 was deleted, and its pod network $2 is that of the Node ${{other##* }} by now: run kubecamp{flag} reset, then kubecamp{flag} up\" ;; esac\n"
            ),
            format!(
                "{KUBECTL} -n kube-flannel delete pods --field-selector \"spec.nodeName=$1\" --wait=false >/dev/null 2>&1; kc_wait 60 noted \"$1\""
            ),
        ),
        Cni::Bridge => (String::new(), "true".to_owned()),
    };
    // Of a silent API server nobody knows what it lacks; what cannot be made the wait for it tells.
    let again = format!(
        "noted() {{ [ -n \"$({ASK} get node \"$1\" -o 'jsonpath={{.metadata.annotations.flannel\\.alpha\\.coreos\\.com/public-ip}}' 2>/dev/null)\" ]; }}\n\
         there=\" $({ASK} get nodes -o 'jsonpath={{range .items[*]}}{{.metadata.name}}={{.spec.podCIDR}} {{end}}' 2>/dev/null) \" || there=\n\
         again() {{\n\
         case $there in '' | *\" $1=\"*) return 0 ;; esac\n\
         {refuse}there=\"$there$1=$2 \"\n\
         {KUBECTL} create --validate=false -f - >/dev/null && {anew}\n}}\n"
    );
    let one = |node: &NodeId| {
        let (mut more, mut taints) = (format!("kubernetes.io/hostname: \"{node}\""), "");
        for domain in ["", "beta."] {
            more.push_str(&format!(", {domain}kubernetes.io/os: linux"));
            if let Some(arch) = view.fleet.get(node).and_then(Facts::arch) {
                more.push_str(&format!(", {domain}kubernetes.io/arch: {arch}"));
            }
        }
        // As kubeadm marks it.
        if view.lab.control_plane().name == *node {
            let marks =
                ["node-role.kubernetes.io/control-plane", "node.kubernetes.io/exclude-from-external-load-balancers"];
            more.extend(marks.map(|mark| format!(", {mark}: \"\"")));
            if view.lab.nodes().len() > 1 {
                taints = "  taints: [{key: node-role.kubernetes.io/control-plane, effect: NoSchedule}]\n";
            }
        }
        let attach = "volumes.kubernetes.io/controller-managed-attach-detach: \"true\"";
        let more = format!("  labels: {{{more}}}\n  annotations: {{{attach}}}\n");
        let pods = pods_of(view, node);
        let net = pods.map(|c| c.to_string()).unwrap_or_default();
        format!("again {node} {net} <<'KC_END'\n{}{taints}KC_END\n", object(node, pods, &more))
    };
    view.lab.nodes().iter().fold(again, |text, node| text + &one(&node.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        host::script::LIB,
        profile::{self, Lab},
    };

    #[test]
    fn a_node_that_somebody_deleted_is_there_again_as_its_kubelet_made_it() {
        let lab = Lab::new("lab".parse().unwrap(), profile::load("2x4c8g").unwrap()).unwrap();
        let [cp, worker] = ["cp", "worker-1"].map(|name| name.parse::<NodeId>().unwrap());
        let facts = Facts::parse("arch=x86_64\n");
        let fleet = [(cp.clone(), facts.clone()), (worker, facts)].into();
        let text = restore(&View { lab: &lab, node: &cp, fleet: &fleet, host: None });
        let taint = "  taints: [{key: node-role.kubernetes.io/control-plane, effect: NoSchedule}]\n";
        for (answer, made) in [
            ("printf '%s ' cp=10.244.0.0/24 worker-1=10.244.1.0/24", ""),
            ("printf '%s ' cp=10.244.0.0/24 worker-10=10.244.9.0/24", "worker-1=10.244.1.0/24"),
            ("printf '%s ' worker-1=10.244.1.0/24", "cp=10.244.0.0/24"),
            ("true", "cp=10.244.0.0/24 worker-1=10.244.1.0/24"),
            ("false", ""),
        ] {
            let made: Vec<_> = made.split_whitespace().map(|one| one.split_once('=').unwrap()).collect();
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().display();
            let sham = format!(
                "kubectl() {{ shift 2; case $* in *' get nodes '*) {answer} ;; *' get node '*) echo x ;; create*) cat >> {root}/made ;; \
                 *) echo \"$*\" >> {root}/did ;; esac; }}\n"
            );
            let out = std::process::Command::new("sh").arg("-c").arg(format!("{LIB}{sham}{text}")).output().unwrap();
            assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
            let read = |file: &str| std::fs::read_to_string(dir.path().join(file)).unwrap_or_default();
            let objects = read("made");
            assert_eq!(objects.matches("kind: Node\n").count(), made.len(), "{answer}: {objects}");
            for (node, pods) in &made {
                let labels = format!(
                    "  labels: {{kubernetes.io/hostname: \"{node}\", kubernetes.io/os: linux, kubernetes.io/arch: amd64, "
                );
                let wanted = [format!("  name: \"{node}\"\n"), labels, format!("  podCIDRs: [{pods}]\n")];
                assert!(wanted.iter().all(|line| objects.contains(line.as_str())), "{answer}: {objects}");
            }
            let is_marked = made.iter().any(|(node, _)| *node == "cp");
            assert_eq!(
                (objects.contains(taint), objects.contains(", node-role.")),
                (is_marked, is_marked),
                "{objects}"
            );
            let restarted = |node: &str| {
                format!("-n kube-flannel delete pods --field-selector spec.nodeName={node} --wait=false\n")
            };
            assert_eq!(read("did"), made.iter().map(|(node, _)| restarted(node)).collect::<String>());
        }
    }

    /// An earlier version gave them to the nodes as the profile names these.
    #[test]
    fn a_node_that_was_deleted_keeps_the_pod_network_of_its_host() {
        let mut profile = profile::load("2x4c8g").unwrap();
        profile.nodes.reverse();
        let lab = Lab::new("lab".parse().unwrap(), profile).unwrap();
        let [cp, worker] = ["cp", "worker-1"].map(|name| name.parse::<NodeId>().unwrap());
        assert_eq!(lab.pod_cidr_of(&cp).unwrap().to_string(), "10.244.0.0/24");
        let noted = |net: &str| Facts::parse(&format!("lab=lab\npods={net}\n"));
        let run = |of_cp: &str, there: &str| {
            let fleet = [(cp.clone(), noted(of_cp)), (worker.clone(), noted("10.244.0.1/24"))].into();
            let text = restore(&View { lab: &lab, node: &cp, fleet: &fleet, host: None });
            let sham = format!(
                "kc_die() {{ echo \"$*\" >&2; exit 1; }}\n\
                 kubectl() {{ shift 2; case $* in *' get nodes '*) printf '%s ' {there} ;; *' get node '*) echo x ;; create*) cat ;; esac; }}\n"
            );
            let out = std::process::Command::new("sh").arg("-c").arg(format!("{LIB}{sham}{text}")).output().unwrap();
            let said = |bytes| String::from_utf8(bytes).unwrap();
            (out.status.success(), said(out.stderr))
        };
        let (went, told) = run("10.244.1.1/24", "worker-1=10.244.0.0/24");
        assert!(went && told.is_empty(), "{told}");
        // The host was restarted since, and says nothing: the place in the profile may be another's.
        for nothing in ["", "10.0.0.1/24", "10.244.0.0/16", "x; reboot"] {
            let (went, told) = run(nothing, "worker-1=10.244.0.0/24");
            assert!(!went, "{nothing}");
            let words = "the Node cp was deleted, and its pod network 10.244.0.0/24 is that of the Node worker-1 by now: run kubecamp reset";
            assert!(told.starts_with(words), "{told}");
        }
        let fleet = [(cp.clone(), noted("10.244.1.1/24")), (worker.clone(), noted("10.244.0.1/24"))].into();
        let view = View { lab: &lab, node: &cp, fleet: &fleet, host: None };
        let given = |text: String| {
            text.lines().filter_map(|line| line.strip_prefix("  podCIDR: ")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(given(restore(&view)), ["10.244.0.0/24", "10.244.1.0/24"], "in the order of the profile");
    }
}
