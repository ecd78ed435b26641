use crate::{
    core::{Code, Problem},
    hub::domain::{Booking, PersonId, Role, ServerId, Who},
};

/// Who asks the desk for something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Somebody who signed in.
    Person {
        /// Their login.
        id: PersonId,
        /// What they may do.
        role: Role,
    },
    /// The agent of a server.
    Agent(ServerId),
    /// The hub itself.
    Clerk,
    /// Whoever has the database in their hands: the command line on the hub's own machine.
    Console,
}

impl Caller {
    /// How the audit names them.
    pub fn name(&self) -> String {
        match self {
            Self::Person { id, .. } => format!("person:{id}"),
            Self::Agent(server) => format!("agent:{server}"),
            Self::Clerk => "clerk".into(),
            Self::Console => "console".into(),
        }
    }

    /// Their login, when they are a person.
    pub fn person(&self) -> Option<&PersonId> {
        match self {
            Self::Person { id, .. } => Some(id),
            _ => None,
        }
    }

    /// Whether they may see and change what is not theirs.
    pub fn is_teacher(&self) -> bool {
        matches!(self, Self::Console | Self::Person { role: Role::Teacher | Role::Admin, .. })
    }

    /// Whether they may manage people and servers.
    pub fn is_admin(&self) -> bool {
        matches!(self, Self::Console | Self::Person { role: Role::Admin, .. })
    }

    pub(super) fn needs_teacher(&self) -> Result<(), Problem> {
        let other = || Problem::new(Code::HubDenied, "only a teacher may do this").hint("Ask a teacher.");
        if self.is_teacher() { Ok(()) } else { Err(other()) }
    }

    pub(super) fn needs_admin(&self) -> Result<(), Problem> {
        let other = || Problem::new(Code::HubDenied, "only an admin may do this").hint("Ask an admin.");
        if self.is_admin() { Ok(()) } else { Err(other()) }
    }

    pub(super) fn needs_self(&self, person: &PersonId) -> Result<(), Problem> {
        if self.person() == Some(person) || self.is_teacher() {
            Ok(())
        } else {
            Err(Problem::new(Code::HubDenied, format!("this belongs to {person}")))
        }
    }

    /// In which role they may touch a booking: as its holder, or as a teacher, who has to give a reason.
    pub(super) fn over(&self, booking: &Booking, reason: Option<&str>) -> Result<Who, Problem> {
        if self.person() == Some(&booking.person) {
            return Ok(Who::Holder);
        }
        if !self.is_teacher() {
            return Err(Problem::new(Code::HubDenied, format!("booking {} is not yours", booking.id)));
        }
        if reason.is_none() {
            return Err(Problem::new(Code::HubReason, format!("booking {} is {}'s", booking.id, booking.person)));
        }
        Ok(Who::Teacher)
    }
}
