//! Whose a host is, and whose lab a run is about: several phases and the command line ask.

use crate::{
    core::{Code, LabId, LabName, Problem},
    host::{Facts, fact},
    machine::Tenant,
};

/// Whose lab a run is about.
///
/// A name alone does not tell: every first lab is called `lab`.
#[derive(Debug, Clone)]
pub struct Owner {
    /// The lab's id.
    pub id: LabId,
    /// Whether the lab's folder was there before this run: then hosts that bear its name and no id, as those of earlier
    /// versions, are its own.
    pub known: bool,
}

/// Whose a host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Nobody's.
    Free,
    /// This lab's.
    Ours,
    /// That of another lab, of this name.
    Other(String),
}

impl Owner {
    /// An owner of whatever it is given: a lab made in this moment.
    pub fn new() -> Self {
        Self { id: LabId::random(), known: false }
    }

    /// Whose the host is, as it says itself.
    pub fn claim(&self, lab: &LabName, facts: &Facts) -> Claim {
        let Some(name) = facts.get(fact::LAB) else { return Claim::Free };
        let ours = name == lab.as_str() && self.tenant(false).is_its(facts.get(fact::LAB_ID));
        if ours { Claim::Ours } else { Claim::Other(name.to_owned()) }
    }

    /// The same for machines, where `takes_over` says that those of another lab of its name become its own.
    pub fn tenant(&self, takes_over: bool) -> Tenant {
        Tenant { id: self.id.clone(), known: self.known, takes_over }
    }
}

impl Default for Owner {
    fn default() -> Self {
        Self::new()
    }
}

impl Claim {
    /// Why the lab `asking` may neither use nor reset the host; nothing where it may.
    pub fn problem(&self, asking: &LabName) -> Option<Problem> {
        let Self::Other(name) = self else { return None };
        let problem = |what: String| Problem::new(Code::HostTaken, what);
        // The host says it, and what is to be typed may hold nothing that a shell would run.
        let Ok(other) = name.parse::<LabName>() else {
            let what = format!("the host belongs to another lab, by a name that no lab can have: {name}");
            return Some(problem(what).hint("Ask who uses the host, and use another one."));
        };
        if other != *asking {
            let reset = format!("Reset it first, where that lab was made: kubecamp reset --name {other}.");
            return Some(problem(format!("the host belongs to the lab {other}")).hint(reset));
        }
        let what = format!("the host belongs to another lab that is called {name} too: its id is not that of this one");
        let flag = asking.flag();
        let lost = format!(
            "If that lab is yours and its folder is lost: kubecamp{flag} up --take-over with the same hosts, then \
             kubecamp{flag} reset."
        );
        let problem = problem(what).hint("Ask who uses the host, and use another one, or have that lab reset first.");
        Some(problem.hint(lost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_to_type_has_no_words_of_the_host() {
        let hints = |name: &str| {
            let found = Claim::Other(name.to_owned()).problem(&"lab".parse().unwrap()).unwrap();
            assert_eq!(found.code, Code::HostTaken);
            found.all_hints().concat()
        };
        assert!(hints("team7").contains("kubecamp reset --name team7."));
        assert!(hints("lab").contains("kubecamp up --take-over"));
        for name in ["x; rm -rf ~", "x\x1b[2J", "", "-h", "Team"] {
            assert!(!hints(name).contains("kubecamp") && !hints(name).contains(';'), "{name}: {}", hints(name));
        }
    }
}
