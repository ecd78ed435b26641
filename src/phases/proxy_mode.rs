use async_trait::async_trait;

use super::cluster::{ASK, KUBECTL, is_new};
use crate::{
    core::{PhaseId, Problem},
    engine::{Check, Phase, Step, View},
};

/// Makes kube-proxy's configuration say the profile's mode; that of a new lab was made with it.
pub struct SetProxyMode;

impl SetProxyMode {
    /// Its id.
    pub const ID: PhaseId = PhaseId::new("proxy-mode");
}

#[async_trait]
impl Phase for SetProxyMode {
    fn id(&self) -> PhaseId {
        Self::ID
    }

    fn title(&self) -> &'static str {
        "set kube-proxy's mode"
    }

    fn concerns(&self, view: &View<'_>) -> bool {
        view.is_control_plane()
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        if is_new(view) {
            return Ok(vec![]);
        }
        let mode = view.lab.profile().proxy.mode;
        let get = format!("{ASK} -n kube-system get cm kube-proxy -o 'jsonpath={{.data.config\\.conf}}'");
        let check = format!("{get} | grep -qx 'mode: {mode}'");
        // The DaemonSet carries no digest of its configuration, so its pods are restarted by name.
        let change = format!(
            "f=$(mktemp) && trap 'rm -f \"$f\"' EXIT && {KUBECTL} -n kube-system get cm kube-proxy -o yaml | sed 's/^    mode:.*/    mode: {mode}/' > \"$f\" && \
             {KUBECTL} replace -f \"$f\" && {KUBECTL} -n kube-system rollout restart ds/kube-proxy"
        );
        Ok(vec![Step::script("mode", format!("set the mode to {mode}"), Check::Script(check), change)])
    }
}
