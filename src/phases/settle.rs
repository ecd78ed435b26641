use async_trait::async_trait;

use super::steps::IMPORT_COREDNS;
use crate::{
    core::{PhaseId, Problem, StepId},
    engine::{Check, Need, Phase, Step, View},
};

/// Leaves a machine that others will be copies of unclaimed, its containerd stopped, and a mark that says so.
pub struct Settle;

#[async_trait]
impl Phase for Settle {
    fn id(&self) -> PhaseId {
        PhaseId::new("settle")
    }

    fn title(&self) -> &'static str {
        "stop containerd"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let change = "systemctl stop kubecamp-containerd && touch /var/lib/kubecamp/prepared && rm -f /var/lib/kubecamp/lab && sync";
        // The last of the steps that run aside, one after the other.
        let images = Need::Step(view.node.clone(), StepId::new(IMPORT_COREDNS));
        Ok(vec![Step::script("settle", "leave the machine unclaimed", Check::Never, change).needs(images)])
    }
}
