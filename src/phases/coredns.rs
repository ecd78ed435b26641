use async_trait::async_trait;

use super::{
    control_plane::{APPLIED, KUBECTL},
    images::IMPORT_COREDNS,
};
use crate::{
    core::{PhaseId, Problem, StepId},
    engine::{Check, Need, Phase, Step, View},
};

/// Starts CoreDNS after kube-proxy and the pod network: it reaches the API server only through both.
pub struct CoreDns;

#[async_trait]
impl Phase for CoreDns {
    fn id(&self) -> PhaseId {
        PhaseId::new("coredns")
    }

    fn title(&self) -> &'static str {
        "start CoreDNS"
    }

    fn concerns(&self, view: &View<'_>) -> bool {
        view.is_control_plane()
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let check = format!(
            "[ -e {APPLIED}coredns ] && {KUBECTL} -n kube-system get deploy/coredns cm/coredns svc/kube-dns -o name"
        );
        // CoreDNS is asked every second whether it is ready, not every ten: its first answer comes too early.
        let change = format!(
            "kubeadm init phase addon coredns --config /etc/kubernetes/kubecamp/init.yaml --print-manifest | \
             sed 's/^\\( *\\)readinessProbe:/&\\n\\1  periodSeconds: 1/' | \
             {KUBECTL} apply --server-side --force-conflicts --validate=false -f - && : > {APPLIED}coredns"
        );
        let image = Need::Step(view.node.clone(), StepId::new(IMPORT_COREDNS));
        Ok(vec![Step::script("coredns", "apply CoreDNS", Check::Script(check), change).needs(image)])
    }
}
