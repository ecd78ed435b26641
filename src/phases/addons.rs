use async_trait::async_trait;

use super::control_plane::KUBECTL;
use crate::{
    core::{PhaseId, Problem, StepId},
    engine::{Check, Need, Phase, Step, View},
};

/// Starts kube-proxy and CoreDNS once their images are there; a pod that finds none is retried only after ten
/// seconds.
pub struct Addons;

#[async_trait]
impl Phase for Addons {
    fn id(&self) -> PhaseId {
        PhaseId::new("addons")
    }

    fn title(&self) -> &'static str {
        "start kube-proxy and CoreDNS"
    }

    fn concerns(&self, view: &View<'_>) -> bool {
        view.is_control_plane()
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let check = format!(
            "{KUBECTL} -n kube-system get cm/kube-proxy ds/kube-proxy deploy/coredns cm/coredns svc/kube-dns -o name"
        );
        // CoreDNS is asked every second whether it is ready, not every ten: its first answer comes too early.
        let change = format!(
            "c='--config /etc/kubernetes/kubecamp/init.yaml'; kubeadm init phase addon kube-proxy $c || exit 1\n\
             kubeadm init phase addon coredns $c --print-manifest | sed 's/^\\( *\\)readinessProbe:/&\\n\\1  periodSeconds: 1/' | \
             {KUBECTL} apply --server-side --force-conflicts -f - || exit 1"
        );
        let images = Need::Step(view.node.clone(), StepId::new("import-later"));
        Ok(vec![Step::script("addons", "start kube-proxy and CoreDNS", Check::Script(check), change).needs(images)])
    }
}
