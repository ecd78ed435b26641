use std::sync::Arc;

use async_trait::async_trait;

use super::reset_host::{Records, Scripts};
use crate::{
    core::{PhaseId, Problem},
    engine::{Phase, Step, View},
};

/// Takes the cluster's links, routes, packet filter rules and virtual servers out of the kernel; never flushes
/// anything of others.
pub struct CleanNetwork {
    /// What the lab's folder remembers of its hosts.
    pub records: Arc<Records>,
}

#[async_trait]
impl Phase for CleanNetwork {
    fn id(&self) -> PhaseId {
        PhaseId::new("clean-network")
    }

    fn title(&self) -> &'static str {
        "remove links and packet filter rules"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let scripts = Scripts::new(view, &self.records, Some("reset/network.sh"))?;
        let any = |list: &str| format!("[ -n \"$({list})\" ]");
        Ok(vec![
            // While kube-ipvs0 still shows which addresses were the cluster's.
            scripts.step("ipvs", "remove virtual servers", &any("servers"), "remove_servers"),
            scripts.step(
                "links",
                "remove links, namespaces and routes",
                &any("veths; pins; links; routes"),
                "remove_links",
            ),
            scripts.step("rules", "remove chains, rules and tables", "rules_left", "remove_rules"),
            scripts.step("ipsets", "remove address sets", &any("sets"), "remove_sets"),
        ])
    }
}
