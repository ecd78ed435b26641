use std::sync::Arc;

use async_trait::async_trait;

use super::reset_host::{Records, Scripts};
use crate::{
    core::{PhaseId, Problem, StepId},
    engine::{Check, Need, Phase, Step, View},
    host::script::unpacked,
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
        let mut begin = self.begin(view, &scripts);
        let cp = &view.lab.control_plane().name;
        if *view.node != *cp {
            // A control plane that is not there or fails has nothing to drain with, and its workers are cleaned all the same.
            begin = begin.needs(Need::After(cp.clone(), StepId::new("drain")));
        }
        Ok(vec![
            begin,
            scripts.step("kubelet", "stop the kubelet", "kubelet_left", "stop_kubelet"),
            scripts.step("kubeadm", "run kubeadm reset", "kubeadm_helps", "run_kubeadm"),
            scripts.step("containers", "end containerd and every container", "containers_left", "stop_containers"),
            scripts.step("mounts", "unmount volumes, remove control groups", "mounts_left", "unmount_all"),
        ])
    }
}

impl StopCluster {
    /// Marks the host, so that an interrupted reset knows it for ours whatever is gone already, and gives it back the
    /// record that it has lost.
    fn begin(&self, view: &View<'_>, scripts: &Scripts) -> Step {
        let record = self.records.get(view.node).map(|text| {
            format!("[ -s $KC/before ] || {{ cat > $KC/before.part <<'KC_RECORD_END' && mv $KC/before.part $KC/before; }} || exit 1\n{}\nKC_RECORD_END\n", text.trim_end())
        });
        let text = scripts.text();
        // Marks of what `up` found out about a lab that is about to go: they would mislead the next `up`.
        let change = format!(
            "{text}{} && mkdir -p $KC && chmod 700 $KC && : > $KC/resetting || exit 1\n{}\
             rm -rf /run/kubecamp/verified $KC/images $KC/binaries $KC/spared",
            unpacked(),
            record.as_deref().unwrap_or_default()
        );
        let has_record = if record.is_some() { "[ -s $KC/before ]" } else { "true" };
        let check = format!("{text}! ours || {{ [ -e $KC/resetting ] && {has_record}; }}");
        Step::script("begin", "note that the host is being reset", Check::Before(check), change)
    }
}
