use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use futures::future::join_all;

use crate::{
    core::{Code, NodeId, PhaseId, Problem, Report},
    engine::{Change, Check, Phase, Step, Task, View},
    machine::{ImageRef, Machine, MachineSpec, Provider, ProviderSlot, State, Tenant},
    profile::Lab,
};

/// Makes the lab's machines.
pub struct Machines {
    /// The public key that the machines accept.
    pub authorized_key: String,
    /// Which machines of the lab's name are its own.
    pub tenant: Tenant,
    /// The provider.
    pub provider: ProviderSlot,
    /// The prepared image's name, once it is there.
    pub image: Arc<OnceLock<String>>,
    /// The machines, once they are there.
    pub machines: Arc<OnceLock<Vec<Machine>>>,
}

#[async_trait]
impl Phase for Machines {
    fn id(&self) -> PhaseId {
        PhaseId::new("machines")
    }

    fn title(&self) -> &'static str {
        "make the machines"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let image = self.image.get().map_or(ImageRef::Node, |name| ImageRef::Prepared(name.clone()));
        let specs = specs(view.lab, &self.tenant, &self.authorized_key, &image);
        let names: Vec<_> = specs.iter().map(|s| s.node.to_string()).collect();
        let make = Make { specs, provider: Arc::clone(&self.provider), machines: Arc::clone(&self.machines) };
        let title = format!("make and start {}", names.join(", "));
        Ok(vec![Step::new("make", title, Check::Never, Change::Task(Arc::new(make)))])
    }
}

fn specs(lab: &Lab, tenant: &Tenant, key: &str, image: &ImageRef) -> Vec<MachineSpec> {
    let spec = |node: &crate::profile::NodeSpec| MachineSpec {
        lab: lab.name().clone(),
        tenant: tenant.clone(),
        node: node.name.clone(),
        cores: node.cores,
        memory: node.memory,
        disk: node.disk,
        authorized_key: key.to_owned(),
        image: image.clone(),
    };
    lab.nodes().iter().map(spec).collect()
}

struct Make {
    specs: Vec<MachineSpec>,
    provider: ProviderSlot,
    machines: Arc<OnceLock<Vec<Machine>>>,
}

impl Make {
    async fn existing(&self) -> Result<Vec<Machine>, Problem> {
        match (self.provider.get(), self.specs.first()) {
            (Some(provider), Some(first)) => provider.list(Some(&first.lab)).await,
            _ => Ok(vec![]),
        }
    }

    /// Looked at again here: since the run began somebody else may have been faster.
    async fn refuse_others(&self) -> Result<(), Problem> {
        match (self.provider.get(), self.specs.first()) {
            (Some(provider), Some(first)) => provider.must_be_ours(&first.lab, &first.tenant).await,
            _ => Ok(()),
        }
    }

    /// Machines of the lab's earlier layout: a lab that was reset may come up with another.
    fn too_many(&self, there: &[Machine]) -> Vec<NodeId> {
        let wanted = |node: &NodeId| self.specs.iter().any(|spec| spec.node == *node);
        there.iter().map(|m| m.node.clone()).filter(|node| !wanted(node)).collect()
    }
}

/// Whether the machine can be logged in to as it is. One that runs without telling its host keys is looked at again,
/// and waited for, by [`Provider::ensure`], which says what is wrong with it.
fn is_up(machine: &Machine) -> bool {
    machine.state == State::Running && machine.address.is_some() && !machine.host_keys.is_empty()
}

#[async_trait]
impl Task for Make {
    async fn done(&self) -> Result<bool, Problem> {
        self.refuse_others().await?;
        let there = self.existing().await?;
        let same = match self.provider.get() {
            // What cannot be had is refused here, before any machine is changed.
            Some(provider) => provider.are_as_asked(&self.specs).await?,
            None => false,
        };
        let up = |s: &MachineSpec| there.iter().find(|m| m.node == s.node && is_up(m)).cloned();
        let found: Vec<_> = self.specs.iter().filter_map(up).collect();
        if !same || found.len() < self.specs.len() || !self.too_many(&there).is_empty() {
            return Ok(false);
        }
        let _ = self.machines.set(found);
        Ok(true)
    }

    async fn run(&self, report: &dyn Report) -> Result<(), Problem> {
        let provider =
            self.provider.get().ok_or_else(|| Problem::new(Code::Internal, "the machines came before the engine"))?;
        report.note(&NodeId::here(), &provider.describe());
        for node in self.too_many(&self.existing().await?) {
            report.note(&node, "removing the machine, which the lab's layout has no more");
            provider.remove(&self.specs[0].lab, &node).await?;
        }
        let made = join_all(self.specs.iter().map(|spec| provider.ensure(spec, report))).await;
        let machines = made.into_iter().collect::<Result<Vec<_>, _>>()?;
        let _ = self.machines.set(machines);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::machine::{FakeIncus, Kind};

    fn machine(address: Option<&str>, keys: &[&str]) -> Machine {
        let json = json!({"name": "lab-cp", "lab": "lab", "node": "cp", "kind": "container",
            "state": "running", "address": address, "netns": null, "host_keys": keys});
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_machine_without_address_or_keys_is_not_up() {
        assert!(is_up(&machine(Some("10.1.0.2"), &["ssh-ed25519 AAAA"])));
        assert!(!is_up(&machine(Some("10.1.0.2"), &[])) && !is_up(&machine(None, &["ssh-ed25519 AAAA"])));
    }

    fn tenant() -> Tenant {
        Tenant { id: crate::core::LabId::new("aaaa"), known: true, takes_over: false }
    }

    #[test]
    fn machines_of_a_larger_layout_are_too_many() {
        let lab = Lab::new("lab".parse().unwrap(), crate::profile::load("1x4c12g").unwrap()).unwrap();
        let specs = specs(&lab, &tenant(), "key", &ImageRef::Node);
        let make = Make { specs, provider: ProviderSlot::default(), machines: Arc::default() };
        let named = |node: &str| Machine { node: node.parse().unwrap(), ..machine(None, &[]) };
        assert_eq!(make.too_many(&[named("cp"), named("worker-1")]), ["worker-1".parse().unwrap()]);
    }

    #[tokio::test]
    async fn running_machines_that_are_not_as_asked_are_not_done_and_others_are_refused() {
        let lab = Lab::new("lab".parse().unwrap(), crate::profile::load("1x4c12g").unwrap()).unwrap();
        let specs = specs(&lab, &tenant(), "key", &ImageRef::Node);
        let (memory, disk) = (specs[0].memory.0, specs[0].disk.0);
        for (cores, disk, key, id, wanted) in [
            ("4", disk, "key", Some("aaaa"), Ok(true)),
            ("2", disk, "key", Some("aaaa"), Ok(false)),
            // Of a lab whose folder is lost: nobody has that key any more.
            ("4", disk, "another", Some("aaaa"), Ok(false)),
            // Of an earlier version.
            ("4", disk, "key", None, Ok(false)),
            ("4", 2 * disk, "key", Some("aaaa"), Err(Code::LabDiffers)),
            ("4", disk, "key", Some("bbbb"), Err(Code::HostTaken)),
        ] {
            let mut instance = json!({"name": "lab-cp", "status": "Running", "type": "virtual-machine",
                "config": {"user.kubecamp.lab": "lab", "user.kubecamp.node": "cp", "limits.cpu": cores,
                    "user.kubecamp.key": key, "user.kubecamp.host-key": "ssh-ed25519 AAAA",
                    "limits.memory": memory.to_string()},
                "devices": {"eth0": {"ipv4.address": "10.1.0.2"}, "root": {"size": disk.to_string()}}});
            if let Some(id) = id {
                instance["config"]["user.kubecamp.lab-id"] = json!(id);
            }
            let fake = FakeIncus::new([
                ("GET /instances?recursion=1", json!([instance])),
                ("GET /instances?recursion=2", json!([instance])),
            ]);
            let (home, provider) = (tempfile::tempdir().unwrap(), ProviderSlot::default());
            assert!(provider.set(Arc::new(fake.provider(&home, Kind::Vm))).is_ok());
            let make = Make { specs: specs.clone(), provider, machines: Arc::default() };
            assert_eq!(make.done().await.map_err(|p| p.code), wanted);
            assert_eq!(make.machines.get().is_some(), wanted == Ok(true));
            assert!(fake.requests().iter().all(|asked| asked.starts_with("GET ")), "{:?}", fake.requests());
        }
    }
}
