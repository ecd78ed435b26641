use async_trait::async_trait;

use super::control_plane::KUBECTL;
use crate::{
    core::{PhaseId, Problem},
    engine::{Check, Phase, Step, View},
};

/// Asks the workers' pods to end while there still is a cluster that can tell them; best effort, in seconds.
pub struct Drain;

/// How long all pods together may take to end, in seconds.
const LIMIT: u32 = 25;

#[async_trait]
impl Phase for Drain {
    fn id(&self) -> PhaseId {
        PhaseId::new("drain")
    }

    fn title(&self) -> &'static str {
        "let the workers' pods end"
    }

    fn concerns(&self, view: &View<'_>) -> bool {
        view.is_control_plane() && view.lab.workers().next().is_some()
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let names: Vec<_> = view.lab.workers().map(|w| w.name.to_string()).collect();
        let nodes = names.join(" ");
        // The workers wait for this step, so it is always there; without an answering API it is done already.
        let nothing = format!(
            "[ ! -s /etc/kubernetes/admin.conf ] || [ ! -e /var/lib/kubecamp ] || ! command -v kubectl || \
             ! timeout 6 {KUBECTL} get --raw /readyz --request-timeout=5s || \
             [ -z \"$(timeout 6 {KUBECTL} get nodes {nodes} -o name --ignore-not-found --request-timeout=5s)\" ]"
        );
        let change = format!(
            "nodes=$(timeout 6 {KUBECTL} get nodes {nodes} -o name --ignore-not-found --request-timeout=5s)\n\
             timeout -k 2 {} {KUBECTL} drain $nodes --force --ignore-daemonsets --delete-emptydir-data --disable-eviction \
             --grace-period=3 --timeout={LIMIT}s 2>&1 | tail -n 20\ntrue",
            LIMIT + 5
        );
        Ok(vec![Step::script("drain", format!("drain {}", names.join(", ")), Check::Before(nothing), change)])
    }
}
