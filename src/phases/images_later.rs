use std::sync::Arc;

use async_trait::async_trait;

use super::images;
use crate::{
    bundle::Bundle,
    core::{PhaseId, Problem},
    engine::{Phase, Step, View},
};

/// Imports the addons' images on the control plane while kubeadm init waits for the API server.
pub struct ImagesLater {
    /// Where they come from.
    pub bundle: Arc<Bundle>,
}

#[async_trait]
impl Phase for ImagesLater {
    fn id(&self) -> PhaseId {
        PhaseId::new("images-later")
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
        Ok(images::later(&self.bundle))
    }
}
