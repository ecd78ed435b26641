use std::sync::Arc;

use async_trait::async_trait;

use super::reset_host::{Records, Scripts};
use crate::{
    core::{PhaseId, Problem},
    engine::{Phase, Step, View},
};

/// Stops kubelet, every container and containerd, whatever state they are in, and lets go of their mounts.
pub struct StopCluster {
    /// What the lab's folder remembers of its hosts.
    pub records: Arc<Records>,
}

#[async_trait]
impl Phase for StopCluster {
    fn id(&self) -> PhaseId {
        PhaseId::new("stop-cluster")
    }

    fn title(&self) -> &'static str {
        "stop kubelet and containers"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let scripts = Scripts::new(view, &self.records, Some("reset/stop.sh"))?;
        Ok(vec![
            scripts.step("kubelet", "stop the kubelet", "kubelet_left", "stop_kubelet"),
            scripts.step("kubeadm", "run kubeadm reset", "kubeadm_helps", "run_kubeadm"),
            scripts.step("containers", "end containerd and every container", "containers_left", "stop_containers"),
            scripts.step("mounts", "unmount volumes, remove control groups", "mounts_left", "unmount_all"),
        ])
    }
}
