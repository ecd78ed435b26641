use super::{incus::Instance, settings};
use crate::core::{Code, LabName, NodeId, Problem};

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
    fn names_stay_within_a_dns_label() {
        let longest = machine_name(&"l".repeat(30).parse().unwrap(), &"n".repeat(32).parse().unwrap());
        assert_eq!(longest.unwrap().len(), LONGEST);
        assert_eq!(checked("n".repeat(LONGEST + 1)).unwrap_err().code, Code::MachineStart);
        assert!(template_name("a/b").is_err());
    }
}
