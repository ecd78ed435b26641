use std::collections::BTreeMap;

use crate::{
    core::{Code, NodeId, Problem},
    host::Facts,
    profile::Lab,
};

/// What a cluster cannot do without, in `/etc/kubernetes/pki`, and the fact that tells of it.
const AUTHORITY: &[(&str, &str)] = &[("ca.crt", Facts::CA), ("ca.key", "ca.key")];

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
    let is_gone = |fact: &str| if fact == Facts::CA { facts.all(fact).is_empty() } else { facts.get(fact).is_none() };
    let gone: Vec<_> = AUTHORITY.iter().filter(|(_, fact)| is_gone(fact)).map(|(file, _)| *file).collect();
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
