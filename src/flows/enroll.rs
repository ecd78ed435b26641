use std::sync::Arc;

use crate::{
    engine::Phase,
    phases::{Enrolment, GateAgent, GateDoor, GateGroup, GateLabs, GateLeave},
};

/// From a server with sshd to one whose students come in by slot only.
pub fn enroll(with: Enrolment) -> Vec<Box<dyn Phase>> {
    let with = Arc::new(with);
    let known = || Arc::clone(&with);
    vec![
        Box::new(GateGroup(known())),
        Box::new(GateAgent { with: known(), start: false }),
        // What takes long comes before anybody is shut out.
        Box::new(GateLabs(known())),
        Box::new(GateDoor(known())),
        Box::new(GateAgent { with: known(), start: true }),
    ]
}

/// Back to the server as it was before.
pub fn unenroll(leave: GateLeave) -> Vec<Box<dyn Phase>> {
    vec![Box::new(leave)]
}
