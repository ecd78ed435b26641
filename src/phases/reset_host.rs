use std::collections::BTreeMap;

use crate::{
    core::{NodeId, Problem, shell::quote},
    engine::{Check, Step, View},
    host::template,
};

/// How hosts were before `up`, as the lab's folder remembers it: the text of each host's `/var/lib/kubecamp/before`.
///
/// A host's own record comes first; this is for hosts that have lost theirs. A node in here counts as one that was
/// in the lab, whatever its host still shows; drop it once a reset was proven clean.
pub type Records = BTreeMap<NodeId, String>;

/// A phase's scripts: the shared prologue with the lab's words, and the functions of one file of `templates/reset/`.
pub(super) struct Scripts(String);

impl Scripts {
    /// The prologue and the functions of `file` for this node.
    pub(super) fn new(view: &View<'_>, records: &Records, file: Option<&str>) -> Result<Self, Problem> {
        let nodes: Vec<_> = view.lab.nodes().iter().map(|n| n.name.as_str()).collect();
        let yes = |b| if b { "yes" } else { "no" };
        Ok(Self(format!(
            "KNOWN={} PODS={} SERVICES={} CONTAINER={} CONTROL={} NODES={}\n{}\n{}\n{}\n",
            yes(records.contains_key(view.node)),
            quote(&view.lab.pod_cidr().to_string()),
            quote(&view.lab.service_cidr().to_string()),
            yes(view.facts().is_container()),
            yes(view.is_control_plane()),
            quote(&nodes.join(" ")),
            template::text("host/remains.sh")?,
            template::text("reset/host.sh")?,
            file.map_or(Ok(String::new()), template::text)?,
        )))
    }

    /// A step that runs `change` while `left` says that there is something to do on a host of ours.
    ///
    /// Best effort: what resists is named by the proof at the end, after all the rest was cleaned.
    pub(super) fn step(&self, id: &'static str, title: &str, left: &str, change: &str) -> Step {
        let check = format!("{}! ours || ! {left}", self.0);
        Step::script(id, title, Check::Before(check), format!("{}{change}\ntrue", self.0))
    }

    /// The functions, to be followed by a call.
    pub(super) fn text(&self) -> &str {
        &self.0
    }
}
