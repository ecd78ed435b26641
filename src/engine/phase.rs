use std::collections::BTreeMap;

use async_trait::async_trait;

use super::Step;
use crate::{
    core::{NodeId, PhaseId, Problem},
    host::{Facts, Viewer},
    profile::{Lab, NodeSpec},
};

/// What a phase may see when it says which steps one node needs: the lab, facts of all nodes, and a read-only view of its
/// own host.
///
/// There is no way from here to a change.
pub struct View<'a> {
    /// The lab.
    pub lab: &'a Lab,
    /// The node whose steps are asked for.
    pub node: &'a NodeId,
    /// Facts of every host of this run.
    pub fleet: &'a BTreeMap<NodeId, Facts>,
    /// The host; `None` in a plan for a machine that does not exist yet, and for `here`.
    pub host: Option<&'a Viewer>,
}

impl View<'_> {
    /// The profile's words for this node; `None` for `here`.
    pub fn spec(&self) -> Option<&NodeSpec> {
        self.lab.node(self.node)
    }

    /// Whether this node runs the control plane.
    pub fn is_control_plane(&self) -> bool {
        self.lab.control_plane().name == *self.node
    }

    /// Facts of this node; those of an empty host when none were gathered.
    pub fn facts(&self) -> &Facts {
        static NONE: std::sync::LazyLock<Facts> = std::sync::LazyLock::new(Facts::default);
        self.fleet.get(self.node).unwrap_or(&NONE)
    }
}

/// One part of a flow: says which steps a node needs, and never does them itself.
#[async_trait]
pub trait Phase: Send + Sync {
    /// Its id, which is also its file's name.
    fn id(&self) -> PhaseId;

    /// What it does, for people, in the imperative.
    fn title(&self) -> &'static str;

    /// Whether it concerns this node at all.
    fn concerns(&self, _view: &View<'_>) -> bool {
        true
    }

    /// Whether it runs beside the phases that come after it; steps that need it say so.
    fn aside(&self) -> bool {
        false
    }

    /// Whether it goes on to its end where the run is stopped meanwhile: half of it would be worse than none.
    fn to_its_end(&self) -> bool {
        false
    }

    /// The steps of this node, in order. Called when the node's lane gets here.
    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem>;
}
