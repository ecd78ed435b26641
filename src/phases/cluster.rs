//! What phases know of the cluster on which they all work: how it is asked, how far it is, where its parts are.

use crate::{
    core::{NodeId, Problem},
    engine::View,
    host::{Cgroup, Facts, fact},
};

/// kubectl as the cluster's administrator, on the control plane.
pub(super) const KUBECTL: &str = "kubectl --kubeconfig /etc/kubernetes/admin.conf";

/// The same for a question that somebody waits for: an API server that takes a connection and never answers would hold it
/// up for as long as its step may take.
///
/// Not for what waits by itself, as `delete` and `drain`.
pub(super) const ASK: &str = "kubectl --kubeconfig /etc/kubernetes/admin.conf --request-timeout=10s";

/// The socket of the lab's containerd.
pub(super) const SOCKET: &str = "/run/kubecamp/containerd.sock";

/// The UDP port in which flannel carries pods' traffic between nodes, by VXLAN.
pub(super) const VXLAN: u16 = 8472;

/// Beginning of the names of files that say what a new control plane has not got yet: nobody needs to ask the API server
/// whether it has it.
///
/// Where there is none it is asked, as on a lab that an earlier version made: what users changed since stays.
pub(super) const UNAPPLIED: &str = "/var/lib/kubecamp/unapplied-";

/// Holds the stamp of what was verified on a host, and by which kube-proxy; gone after a reboot.
pub(super) const PROVEN: &str = "/run/kubecamp/verified";

/// Names the workers that a reset has cordoned and nobody else before it: `up` lets pods go there again, where the reset is
/// broken off.
///
/// It is there, and empty, before the first of them is.
pub(super) const DRAINED: &str = "/var/lib/kubecamp/drained";

/// What is there once kubeadm join has come as far as the kubelet's start; all of a node that joined.
pub(super) const JOINED: &str = "[ -s /etc/kubernetes/kubelet.conf ] && [ -e /var/lib/kubelet/pki/kubelet-client-current.pem ] && [ -s /var/lib/kubelet/kubeadm-flags.env ]";

/// Shell text that is true where kubeadm join has seen the kubelet well, too: until then it keeps what the kubelet begins with.
pub(super) fn has_joined() -> String {
    format!("{JOINED} && [ ! -e /etc/kubernetes/bootstrap-kubelet.conf ]")
}

/// Whether there was no lab on the control plane's host when the run began: then nothing of it is worth being looked for.
pub(super) fn is_new(view: &View<'_>) -> bool {
    view.fleet.get(&view.lab.control_plane().name).is_some_and(|facts| facts.get(fact::LAB).is_none())
}

/// Whether a worker has joined another cluster than the one that is on the control plane's host: the one before a reset that
/// did not reach it.
pub(super) fn joined_another(view: &View<'_>, worker: &NodeId) -> bool {
    let here = view.fleet.get(&view.lab.control_plane().name);
    let there = view.fleet.get(worker).filter(|facts| facts.yes(fact::JOINED));
    here.zip(there).is_some_and(|(here, there)| there.trusts_none_of(here))
}

/// Who moves a host's processes between its cgroups.
pub(super) fn cgroup_driver(facts: &Facts) -> &'static str {
    if facts.cgroup() == Cgroup::V2 { "systemd" } else { "cgroupfs" }
}

/// The address of a node, or a problem that says it has none.
pub(super) fn address_of(view: &View<'_>, node: &NodeId) -> Result<String, Problem> {
    let facts = view.fleet.get(node);
    if facts.is_some_and(Facts::is_assumed) {
        return Ok("address-of-the-machine".to_owned());
    }
    facts.and_then(Facts::address).map(|ip| ip.to_string()).ok_or_else(|| Facts::no_address().on(node))
}

/// The worker whose uploads come before this one's, whether they all come or not; `None` for that worker.
///
/// The control plane has the longest way to go, and the user's uplink is shared: one worker gets what it needs beside it, and
/// the others after that one.
pub(super) fn uploads_before<'a>(view: &View<'a>) -> Option<&'a NodeId> {
    view.lab.workers().map(|w| &w.name).next().filter(|first| *first != view.node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{self, Lab};

    #[test]
    fn one_worker_gets_its_uploads_beside_the_control_plane() {
        let lab = Lab::new("lab".parse().unwrap(), profile::load("3x2c4g").unwrap()).unwrap();
        let fleet = Default::default();
        let before = |node: &str| {
            let node = node.parse().unwrap();
            uploads_before(&View { lab: &lab, node: &node, fleet: &fleet, host: None }).map(NodeId::to_string)
        };
        assert_eq!((before("worker-1"), before("worker-2")), (None, Some("worker-1".to_owned())));
    }
}
