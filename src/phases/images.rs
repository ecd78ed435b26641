use std::sync::Arc;

use async_trait::async_trait;

use super::{
    cluster::uploads_before,
    image_import::{import, is_of_static_pods},
};
use crate::{
    bundle::{Bundle, Member},
    core::{PhaseId, Problem, StepId},
    engine::{Need, Phase, Step, View},
};

/// Imports the container images that a node needs before anything else: on the control plane those of the static
/// pods, on a worker all.
///
/// Of the workers one goes beside the control plane and the others after that one: the user's uplink is shared, and so are the
/// cores of machines on one computer.
pub struct Images {
    /// Where they come from.
    pub bundle: Arc<Bundle>,
}

const IMPORT: &str = "import";

impl Images {
    /// Its id.
    pub const ID: PhaseId = PhaseId::new("images");
}

#[async_trait]
impl Phase for Images {
    fn id(&self) -> PhaseId {
        Self::ID
    }

    fn title(&self) -> &'static str {
        "import container images"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        if view.is_control_plane() {
            return Ok(vec![import(IMPORT, &self.bundle, is_of_static_pods)]);
        }
        let step = import(IMPORT, &self.bundle, Member::for_workers);
        Ok(vec![match uploads_before(view) {
            Some(other) => step.needs(Need::After(other.clone(), StepId::new(IMPORT))),
            None => step,
        }])
    }
}
