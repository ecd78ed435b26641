use async_trait::async_trait;

use crate::{
    core::{PhaseId, Problem},
    engine::{Check, Phase, Step, View},
    host::{scan, script},
};

/// Claims the host for the lab and records how it was before anything is changed.
pub struct Record;

#[async_trait]
impl Phase for Record {
    fn id(&self) -> PhaseId {
        PhaseId::new("record")
    }

    fn title(&self) -> &'static str {
        "record the host as it is"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let lab = &view.lab.name();
        // The scan comes before the lab's name: a run killed in between scans again, on a host still untouched.
        let change = format!(
            "mkdir -p /var/lib/kubecamp && chmod 700 /var/lib/kubecamp || exit 1\n\
             [ -s /var/lib/kubecamp/before ] || {{\n( {} ) > /var/lib/kubecamp/before.part || exit 1\n\
             mv /var/lib/kubecamp/before.part /var/lib/kubecamp/before; }}\n\
             echo {lab} > /var/lib/kubecamp/lab.part && mv /var/lib/kubecamp/lab.part /var/lib/kubecamp/lab",
            scan::SCRIPT
        );
        let check =
            format!("[ -s /var/lib/kubecamp/before ] && {}", script::has("/var/lib/kubecamp/lab", &format!("{lab}\n")));
        Ok(vec![Step::script("baseline", "scan the host and claim it for the lab", Check::Script(check), change)])
    }
}
