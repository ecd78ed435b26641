use std::sync::Arc;

use async_trait::async_trait;

use super::gate_host::{self, Enrolment, FOLDER};
use crate::{
    core::{PhaseId, Problem},
    engine::{Check, Phase, Step, View},
};

/// Makes the students' group and the folder of their principals.
pub struct GateGroup(pub Arc<Enrolment>);

#[async_trait]
impl Phase for GateGroup {
    fn id(&self) -> PhaseId {
        PhaseId::new("gate-group")
    }

    fn title(&self) -> &'static str {
        "make the students' group"
    }

    async fn steps(&self, _: &View<'_>) -> Result<Vec<Step>, Problem> {
        let group = self.0.group_word();
        let check = format!(
            "getent group {group} >/dev/null && [ -d {FOLDER}/principals ] && [ -d /var/lib/kubecamp-gate/state ]"
        );
        let change = gate_host::script(&format!(
            "getent group {group} >/dev/null || {{ kc_record group absent {group}; groupadd --system {group} || exit 1; }}\n\
             kc_tree {FOLDER} && mkdir -p {FOLDER}/principals /var/lib/kubecamp-gate/state || exit 1\n\
             chown root:root {FOLDER} {FOLDER}/principals && chmod 755 {FOLDER} {FOLDER}/principals && chmod 700 /var/lib/kubecamp-gate"
        ))?;
        Ok(vec![Step::script("group", "make the students' group and folders", Check::Script(check), change)])
    }
}
