use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;

use super::{
    cluster::{ASK, KUBECTL, UNAPPLIED, address_of},
    steps::IMPORT_FLANNEL,
};
use crate::{
    bundle::Bundle,
    core::{Blob, PhaseId, Problem, StepId},
    engine::{Check, Need, Phase, Step, View},
    host::template,
    profile::Cni,
};

/// Runs flannel's daemon on every node.
pub struct Flannel {
    /// Names the image.
    pub bundle: Arc<Bundle>,
}

impl Flannel {
    /// Its id.
    pub const ID: PhaseId = PhaseId::new("flannel");
}

#[async_trait]
impl Phase for Flannel {
    fn id(&self) -> PhaseId {
        Self::ID
    }

    fn title(&self) -> &'static str {
        "start flannel"
    }

    fn concerns(&self, view: &View<'_>) -> bool {
        view.is_control_plane() && view.lab.profile().network.cni == Cni::Flannel
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let image = self.bundle.image("flannel")?;
        let address = address_of(view, view.node)?;
        let values = json!({
            "pod_cidr": view.lab.pod_cidr(), "backend": "vxlan", "image": image, "api": address,
            "addresses": view.lab.nodes().iter().filter_map(|n| address_of(view, &n.name).ok()).collect::<Vec<_>>(),
        });
        let text = template::render("cni/flannel.yaml.tera", &values)?;
        let stamp = Blob::from_bytes(text.as_bytes()).sha256()[..16].to_owned();
        let manifest = text.replace("@STAMP@", &stamp);
        let check = format!(
            "[ ! -e {UNAPPLIED}flannel ] && [ \"$({ASK} -n kube-flannel get ds kube-flannel-ds -o 'jsonpath={{.metadata.annotations.kubecamp}}')\" = {stamp} ]"
        );
        // The API server checks the fields; kubectl's own check would fetch every schema first.
        let change = format!(
            "{KUBECTL} apply --server-side --force-conflicts --validate=false -f - <<'KC_END'\n{manifest}KC_END\n\
             [ $? = 0 ] && rm -f {UNAPPLIED}flannel"
        );
        let image = Need::Step(view.node.clone(), StepId::new(IMPORT_FLANNEL));
        Ok(vec![Step::script("daemonset", "apply flannel's DaemonSet", Check::Script(check), change).needs(image)])
    }
}
