use std::collections::BTreeMap;

use crate::{
    core::{Code, NodeId, Problem},
    host::Facts,
    profile::Lab,
};

/// What a cluster cannot do without, in `/etc/kubernetes/pki`, and the fact that tells of it.
const AUTHORITY: &[(&str, &str)] = &[("ca.crt", CA), ("ca.key", "ca.key")];

/// The fact that names each certificate authority that a node trusts.
const CA: &str = "ca";

/// Where etcd keeps all that is in a cluster.
const DATA: &str = "/var/lib/etcd/member";

/// Why the lab's own cluster cannot be gone on with: its certificate authority is gone, or another one is in its place. A new
/// one would come beside an API server, kubelets and tokens that know nothing of it.
///
/// A run that was killed before etcd had data left no cluster; one that was killed later left the authority too, which
/// is made first.
pub(super) fn lost(lab: &Lab, fleet: &BTreeMap<NodeId, Facts>) -> Option<Problem> {
    let control_plane = &lab.control_plane().name;
    let facts = fleet.get(control_plane)?;
    let joined: Vec<_> =
        lab.workers().filter_map(|worker| fleet.get(&worker.name)).filter(|worker| worker.yes("joined")).collect();
    if joined.is_empty() && !facts.all("leftover").iter().any(|path| path == DATA) {
        return None;
    }
    let is_gone = |fact: &str| if fact == CA { facts.all(CA).is_empty() } else { facts.get(fact).is_none() };
    let gone: Vec<_> = AUTHORITY.iter().filter(|(_, fact)| is_gone(fact)).map(|(file, _)| *file).collect();
    let what = if !gone.is_empty() {
        format!("the certificate authority of its cluster is gone: no {} in /etc/kubernetes/pki", gone.join(" and no "))
    } else if !joined.is_empty() && joined.iter().all(|worker| is_others(worker, facts)) {
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

/// Whether a worker trusts none of the control plane's authorities; one that cannot tell does.
fn is_others(worker: &Facts, control_plane: &Facts) -> bool {
    let its = worker.all(CA);
    !its.is_empty() && !its.iter().any(|ca| control_plane.all(CA).contains(ca))
}
