use super::{incus::Instance, settings};
use crate::core::{Code, LabId, LabName, NodeId, Problem};

/// The longest name of an Incus instance: a DNS label.
const LONGEST: usize = 63;

/// The lab and node that an instance says it is, in its own configuration and not by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub lab: LabName,
    pub node: NodeId,
}

impl Owner {
    /// Whose machine this is; `None` for instances that kubecamp did not make.
    pub fn of(instance: &Instance) -> Option<Self> {
        let read = |key| instance.config.get(key);
        Some(Self { lab: read(settings::LAB)?.parse().ok()?, node: read(settings::NODE)?.parse().ok()? })
    }
}

/// A lab that has machines in an Incus where others have theirs too.
///
/// Its name does not tell it from those: every first lab is called `lab`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// The lab's id, which its machines carry.
    pub id: LabId,
    /// Whether machines of its name without an id, as those of earlier versions, are its own.
    pub known: bool,
    /// Whether those of another lab of its name become its own.
    pub takes_over: bool,
}

impl Tenant {
    /// Whether what carries the lab's name, and this id, is the lab's own.
    pub fn is_its(&self, id: Option<&str>) -> bool {
        self.takes_over || id.map_or(self.known, |id| id == self.id.as_str())
    }

    /// Whether a machine that carries the lab's name is this lab's.
    pub(super) fn has(&self, instance: &Instance) -> bool {
        self.is_its(instance.config.get(settings::LAB_ID).map(String::as_str))
    }
}

/// The problem of machines that carry the lab's name and are another lab's.
pub(super) fn taken(lab: &LabName, machines: Vec<String>) -> Problem {
    let what = format!("this computer's Incus has machines of another lab that is called {lab} too");
    Problem::new(Code::HostTaken, what).detail(machines).hint(format!(
        "Choose another --name. If they are yours and the lab's folder is lost: kubecamp{} up --local --take-over.",
        lab.flag()
    ))
}

/// The name of a machine at the provider.
pub(super) fn machine_name(lab: &LabName, node: &NodeId) -> Result<String, Problem> {
    checked(format!("{lab}-{node}")).map_err(|p| p.on(node))
}

/// The name of the stopped instance that prepared machines are copied from.
pub(super) fn template_name(image: &str) -> Result<String, Problem> {
    checked(format!("kubecamp-image-{image}"))
}

fn checked(name: String) -> Result<String, Problem> {
    let fits = name.len() <= LONGEST && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fits && !name.ends_with('-') {
        return Ok(name);
    }
    Err(Problem::new(Code::MachineStart, format!("`{name}` cannot name a machine"))
        .detail([format!("a machine's name has at most {LONGEST} letters, digits and inner hyphens")])
        .hint("Choose a shorter name for the lab or its nodes."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(config: &[(&str, &str)]) -> Instance {
        let config: serde_json::Map<_, _> = config.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
        let json = serde_json::json!({"name": "x-y", "status": "Running", "type": "container", "config": config});
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn others_instances_are_nobodys_machines() {
        let ours = instance(&[(settings::LAB, "x"), (settings::NODE, "y")]);
        assert_eq!(Owner::of(&ours).unwrap().node.as_str(), "y");
        assert_eq!(Owner::of(&instance(&[(settings::LAB, "x")])), None);
        assert_eq!(Owner::of(&instance(&[])), None);
    }

    #[test]
    fn a_machine_is_a_labs_by_its_id() {
        let machine = |id: &str| instance(&[(settings::LAB, "x"), (settings::LAB_ID, id)]);
        let nameless = instance(&[(settings::LAB, "x")]);
        let tenant = |known, takes_over| Tenant { id: LabId::new("aaaa"), known, takes_over };
        for known in [false, true] {
            assert!(tenant(known, false).has(&machine("aaaa")) && !tenant(known, false).has(&machine("bbbb")));
            assert_eq!(tenant(known, false).has(&nameless), known);
            assert!(tenant(known, true).has(&machine("bbbb")) && tenant(known, true).has(&nameless));
        }
    }

    #[test]
    fn names_stay_within_a_dns_label() {
        let longest = machine_name(&"l".repeat(30).parse().unwrap(), &"n".repeat(32).parse().unwrap());
        assert_eq!(longest.unwrap().len(), LONGEST);
        assert_eq!(checked("n".repeat(LONGEST + 1)).unwrap_err().code, Code::MachineStart);
        assert!(template_name("a/b").is_err());
    }
}
