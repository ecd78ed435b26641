use std::sync::Arc;

use crate::{
    engine::Phase,
    phases::{AgentPart, Enrolment, GateAgent, GateDoor, GateGroup, GateLabs, GateLeave},
};

/// From a server with sshd to one whose students come in by slot only.
pub fn enroll(with: Enrolment) -> Vec<Box<dyn Phase>> {
    let with = Arc::new(with);
    let known = || Arc::clone(&with);
    let agent = |part| -> Box<dyn Phase> { Box::new(GateAgent { with: known(), part }) };
    vec![
        Box::new(GateGroup(known())),
        agent(AgentPart::Program),
        // What takes long comes before anybody is shut out.
        Box::new(GateLabs(known())),
        // Only now: wherever this breaks off, what the configuration says the program knows, and what it names is there.
        agent(AgentPart::Files),
        Box::new(GateDoor(known())),
        agent(AgentPart::Start),
    ]
}

/// Back to the server as it was before.
pub fn unenroll(leave: GateLeave) -> Vec<Box<dyn Phase>> {
    vec![Box::new(leave)]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        core::{Blob, NodeId},
        engine::View,
        machine::Wanted,
        phases::GateMachines,
        profile::{self, Lab},
    };

    fn with(program: &std::path::Path) -> Enrolment {
        let bundle = Some(Blob::from_bytes(*b"abc"));
        Enrolment {
            program: program.to_owned(),
            labs: Some(GateMachines { kind: Wanted::Vm, bundle, outbound: false, mirrors: vec![], keep: None }),
            ..Enrolment::sample()
        }
    }

    #[tokio::test]
    async fn program_and_bundle_are_there_before_a_configuration_that_needs_them() {
        let program = tempfile::NamedTempFile::new().unwrap();
        let lab = Lab::new("s1".parse().unwrap(), profile::load("1x4c12g").unwrap()).unwrap();
        let (node, fleet): (NodeId, _) = ("s1".parse().unwrap(), BTreeMap::new());
        let view = View { lab: &lab, node: &node, fleet: &fleet, host: None };
        let mut ids = vec![];
        for phase in enroll(with(program.path())) {
            let steps = phase.steps(&view).await.unwrap();
            ids.extend(steps.iter().map(|step| step.id.to_string()));
        }
        let order = ["group", "record", "program", "reach", "home", "bundle", "trial", "token", "files"];
        assert_eq!(ids[..order.len()], order);
        assert_eq!(ids.last().unwrap(), "start");
    }
}
