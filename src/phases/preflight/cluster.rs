use std::collections::BTreeMap;

use crate::{
    core::{Code, NodeId, Problem},
    host::{Facts, fact},
    profile::Lab,
};

/// What a cluster cannot do without, in `/etc/kubernetes/pki`, and the fact that tells of it.
const AUTHORITY: &[(&str, &str)] = &[("ca.crt", fact::CA), ("ca.key", fact::CA_KEY)];

/// Where etcd keeps all that is in a cluster.
const DATA: &str = "/var/lib/etcd/member";

/// Why the lab's own cluster cannot be gone on with: its certificate authority is gone, or another one is in its place.
///
/// A new one would come beside an API server, kubelets and tokens that know nothing of it.
///
/// A run that was killed before etcd had data left no cluster; one that was killed later left the authority too, which
/// is made first.
pub(super) fn lost(lab: &Lab, fleet: &BTreeMap<NodeId, Facts>) -> Option<Problem> {
    let control_plane = &lab.control_plane().name;
    let facts = fleet.get(control_plane)?;
    let joined: Vec<_> =
        lab.workers().filter_map(|worker| fleet.get(&worker.name)).filter(|worker| worker.yes(fact::JOINED)).collect();
    if joined.is_empty() && !facts.all(fact::LEFTOVER).iter().any(|path| path == DATA) {
        return None;
    }
    let is_gone = |key: &str| if key == fact::CA { facts.all(key).is_empty() } else { facts.get(key).is_none() };
    let gone: Vec<_> = AUTHORITY.iter().filter(|(_, key)| is_gone(key)).map(|(file, _)| *file).collect();
    let what = if !gone.is_empty() {
        format!("the certificate authority of its cluster is gone: no {} in /etc/kubernetes/pki", gone.join(" and no "))
    } else if !joined.is_empty() && joined.iter().all(|worker| worker.trusts_none_of(facts)) {
        "its certificate authority, /etc/kubernetes/pki/ca.crt, is not the one that the workers have joined".to_owned()
    } else {
        return None;
    };
    let flag = lab.name().flag();
    let anew = format!(
        "Nothing that runs there would trust a new one. Give the hosts back and begin anew: kubecamp reset{flag}, then kubecamp up{flag}."
    );
    let copy = "If you have a copy of /etc/kubernetes, put it back and run the same command again.";
    Some(Problem::new(Code::ClusterLost, what).on(control_plane).hint(anew).hint(copy))
}

/// Why the lab's own cluster cannot be gone on with where its control plane has another address by now: etcd listens at the
/// old one, the certificates are for it, and the workers' kubelets ask there.
///
/// A worker's address is in nothing but its kubelet's flags, where `up` writes the new one.
pub(super) fn moved(lab: &Lab, fleet: &BTreeMap<NodeId, Facts>) -> Option<Problem> {
    let control_plane = &lab.control_plane().name;
    let facts = fleet.get(control_plane)?;
    let (was, is) = (facts.moved_from()?, facts.address()?);
    let what =
        format!("its address was {was} and is {is}: its cluster's etcd and certificates are bound to the old one");
    let back = format!(
        "Give the host {was} back, fixed there or by its DHCP server, and run the same command again; an address that it has \
         besides will do."
    );
    let flag = lab.name().flag();
    let anew = format!("Or begin anew: kubecamp reset{flag}, then kubecamp up{flag}.");
    Some(Problem::new(Code::ClusterMoved, what).on(control_plane).hint(back).hint(anew))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile;

    #[test]
    fn a_control_plane_without_the_address_of_its_cluster_is_told() {
        let lab = Lab::new("x".parse().unwrap(), profile::load("2x4c8g").unwrap()).unwrap();
        let found = |cp: &str, worker: &str| {
            let facts =
                |words: &str| Facts::parse(&format!("{words}\naddr=eth0 192.0.2.9/24\nroute.source=192.0.2.9\n"));
            moved(&lab, &[("cp".parse().unwrap(), facts(cp)), ("worker-1".parse().unwrap(), facts(worker))].into())
        };
        let problem = found("node.ip=192.0.2.1", "").unwrap();
        assert!(problem.what.starts_with("its address was 192.0.2.1 and is 192.0.2.9: "), "{problem}");
        let hints = problem.all_hints();
        assert!(hints[0].contains("192.0.2.1") && hints[1].contains("kubecamp reset --name x, then"), "{hints:?}");
        for (cp, worker) in [
            ("", ""),
            ("node.ip=192.0.2.9", ""),
            ("node.ip=192.0.2.1\naddr=eth0 192.0.2.1/24", ""),
            ("", "node.ip=192.0.2.2"),
        ] {
            assert!(found(cp, worker).is_none(), "{cp} {worker}");
        }
    }

    #[test]
    fn a_node_keeps_its_address_while_its_host_has_it() {
        let links = "addr=eth0 192.0.2.2/24\naddr=tun0 198.51.100.7/24\nroute.source=198.51.100.7\n";
        for (flags, address, from) in [
            ("", "198.51.100.7", None),
            ("--v=2", "198.51.100.7", None),
            ("--node-ip=192.0.2.2", "192.0.2.2", None),
            ("--a=b --node-ip=192.0.2.2 --v=2", "192.0.2.2", None),
            ("--node-ip=192.0.2.20", "198.51.100.7", Some("192.0.2.20")),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("flags");
            std::fs::write(&file, format!("KUBELET_KUBEADM_ARGS=\"{flags}\"\n")).unwrap();
            let script = include_str!("../../../templates/host/facts.sh");
            let is_of_it = |line: &&str| {
                ["p() {", "read_first() {"].iter().any(|f| line.starts_with(f)) || line.contains("--node-ip")
            };
            let lines: Vec<_> = script.lines().filter(is_of_it).collect();
            let script = lines.join("\n").replace("/var/lib/kubelet/kubeadm-flags.env", &file.display().to_string());
            let script = format!("lab={}\n{script}", dir.path().display());
            let out = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
            let facts = Facts::parse(&format!("{links}{}", String::from_utf8_lossy(&out.stdout)));
            assert_eq!(facts.address().map(|ip| ip.to_string()).as_deref(), Some(address), "{flags}");
            assert_eq!(facts.moved_from().map(|ip| ip.to_string()).as_deref(), from, "{flags}");
        }
    }
}
