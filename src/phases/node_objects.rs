//! The Node objects that kubecamp makes: for workers before they join, and for any node of which somebody deleted it.

use super::cluster::{ASK, KUBECTL};
use crate::{core::NodeId, engine::View, host::Facts, profile::Cni};

/// A Node object with its pod network, and more lines of its metadata.
pub(super) fn object(view: &View<'_>, name: &NodeId, more: &str) -> String {
    let pods = view.lab.pod_cidr_of(name).map(|c| c.to_string()).unwrap_or_default();
    format!(
        "---\napiVersion: v1\nkind: Node\nmetadata:\n  name: \"{name}\"\n{more}spec:\n  podCIDR: {pods}\n  podCIDRs: [{pods}]\n"
    )
}

/// Shell text that makes the Node objects again which somebody deleted while their kubelets run on.
///
/// A kubelet makes its own only once, when it starts. Of one that is there again it says how it is, as before, so the object
/// must have what the kubelet gave it: the cluster's own pods ask for its labels. What users gave it is gone. Where flannel's
/// pods are reached each of them notes on the Node at its own start, and no other time: the others need that note.
pub(super) fn restore(view: &View<'_>) -> String {
    let anew = match view.lab.profile().network.cni {
        Cni::Flannel => format!(
            "{KUBECTL} -n kube-flannel delete pods --field-selector \"spec.nodeName=$1\" --wait=false >/dev/null 2>&1; kc_wait 60 noted \"$1\""
        ),
        Cni::Bridge => "true".to_owned(),
    };
    // Of a silent API server nobody knows what it lacks; what cannot be made the wait for it tells.
    let again = format!(
        "noted() {{ [ -n \"$({ASK} get node \"$1\" -o 'jsonpath={{.metadata.annotations.flannel\\.alpha\\.coreos\\.com/public-ip}}' 2>/dev/null)\" ]; }}\n\
         there=\" $({ASK} get nodes -o 'jsonpath={{range .items[*]}}{{.metadata.name}} {{end}}' 2>/dev/null) \" || there=\n\
         again() {{\n\
         case $there in '' | *\" $1 \"*) return 0 ;; esac\n\
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
        format!("again {node} <<'KC_END'\n{}{taints}KC_END\n", object(view, node, &more))
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
            ("printf '%s ' cp worker-1", ""),
            ("printf '%s ' cp worker-10", "worker-1=10.244.1.0/24"),
            ("printf '%s ' worker-1", "cp=10.244.0.0/24"),
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
}
