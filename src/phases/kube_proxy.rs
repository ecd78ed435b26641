use async_trait::async_trait;

use super::{
    control_plane::{KUBECTL, UNAPPLIED},
    images::IMPORT_KUBE_PROXY,
};
use crate::{
    core::{PhaseId, Problem, StepId},
    engine::{Check, Need, Phase, Step, View},
};

/// Starts kube-proxy as soon as its image is there: pods reach the API server through it.
pub struct KubeProxy;

#[async_trait]
impl Phase for KubeProxy {
    fn id(&self) -> PhaseId {
        PhaseId::new("kube-proxy")
    }

    fn title(&self) -> &'static str {
        "start kube-proxy"
    }

    fn concerns(&self, view: &View<'_>) -> bool {
        view.is_control_plane()
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let check = format!(
            "[ ! -e {UNAPPLIED}kube-proxy ] && {KUBECTL} -n kube-system get cm/kube-proxy ds/kube-proxy -o name"
        );
        let change = format!(
            "kubeadm init phase addon kube-proxy --config /etc/kubernetes/kubecamp/init.yaml && rm -f {UNAPPLIED}kube-proxy"
        );
        let image = Need::Step(view.node.clone(), StepId::new(IMPORT_KUBE_PROXY));
        let title = "apply kube-proxy's DaemonSet";
        Ok(vec![Step::script("kube-proxy", title, Check::Script(check), change).needs(image)])
    }
}
