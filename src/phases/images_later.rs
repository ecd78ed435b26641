use std::sync::Arc;

use async_trait::async_trait;

use super::{
    image_import::{import, is_of_static_pods},
    steps,
};
use crate::{
    bundle::{Bundle, Member},
    core::{PhaseId, Problem},
    engine::{Phase, Step, View},
};

/// Imports the addons' images on the control plane while kubeadm init waits for the API server: they are needed only once that
/// runs.
///
/// They come in the order in which their pods start, the pod network before CoreDNS, whose pods need it; the last step takes
/// what else the bundle holds. A pod that finds its image missing is retried only after ten seconds.
pub struct ImagesLater {
    /// Where they come from.
    pub bundle: Arc<Bundle>,
}

impl ImagesLater {
    /// Its id.
    pub const ID: PhaseId = PhaseId::new("images-later");
}

#[async_trait]
impl Phase for ImagesLater {
    fn id(&self) -> PhaseId {
        Self::ID
    }

    fn title(&self) -> &'static str {
        "import the addons' images"
    }

    fn concerns(&self, view: &View<'_>) -> bool {
        view.is_control_plane()
    }

    fn aside(&self) -> bool {
        true
    }

    async fn steps(&self, _: &View<'_>) -> Result<Vec<Step>, Problem> {
        let rest = |m: &Member| !is_of_static_pods(m) && m.name != "kube-proxy" && m.name != "flannel";
        Ok(vec![
            import(steps::IMPORT_KUBE_PROXY, &self.bundle, |m| m.name == "kube-proxy"),
            import(steps::IMPORT_FLANNEL, &self.bundle, |m| m.name == "flannel"),
            import(steps::IMPORT_COREDNS, &self.bundle, rest),
        ])
    }
}
