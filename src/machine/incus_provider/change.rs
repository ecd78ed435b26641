//! How machines that exist become what is asked for now.

use std::collections::BTreeMap;

use serde_json::json;

use super::{GRACE, IncusProvider};
use crate::{
    core::{LabName, Problem, Report},
    machine::{
        incus::Instance,
        ownership::{Owner, Tenant, taken},
        provider::{Kind, MachineSpec},
        resize::Resize,
        settings,
    },
};

/// Lets root in with the key in the environment, and with no other.
const TAKE_KEY: &str = "umask 077; printf '%s\\n' \"$KC_KEY\" >/root/.ssh/authorized_keys";

impl IncusProvider {
    /// The names of the machines that carry the lab's name and are another lab's.
    pub async fn of_others(&self, lab: &LabName, tenant: &Tenant) -> Result<Vec<String>, Problem> {
        let instances = self.place.incus.instances_plain().await?;
        let of_name = instances.iter().filter(|i| Owner::of(i).is_some_and(|o| o.lab == *lab));
        Ok(of_name.filter(|i| !self.may_have(tenant, i)).map(|i| i.name.clone()).collect())
    }

    /// Refuses a lab of whose name another one has machines here: they would be resized and removed as this one needs it.
    ///
    /// # Errors
    /// `KC-HOST-TAKEN`.
    pub async fn must_be_ours(&self, lab: &LabName, tenant: &Tenant) -> Result<(), Problem> {
        let others = self.of_others(lab, tenant).await?;
        if others.is_empty() { Ok(()) } else { Err(taken(lab, others)) }
    }

    /// The same for one machine that was found.
    pub(super) fn must_be_its(&self, instance: &Instance, spec: &MachineSpec) -> Result<(), Problem> {
        if self.may_have(&spec.tenant, instance) {
            return Ok(());
        }
        Err(taken(&spec.lab, vec![instance.name.clone()]).on(&spec.node))
    }

    /// In kubecamp's own engine nobody else has any machines.
    fn may_have(&self, tenant: &Tenant, instance: &Instance) -> bool {
        self.is_private() || tenant.has(instance)
    }

    /// Whether those of these machines that exist are as they are asked for: their size, whom they let in, and
    /// whose they are.
    ///
    /// # Errors
    /// `KC-LAB-DIFFERS` where a disk would have to shrink.
    pub async fn are_as_asked(&self, specs: &[MachineSpec]) -> Result<bool, Problem> {
        let (instances, mut same) = (self.place.incus.instances_plain().await?, true);
        for spec in specs {
            let is_its = |i: &&Instance| Owner::of(i).is_some_and(|o| o.lab == spec.lab && o.node == spec.node);
            if let Some(instance) = instances.iter().find(is_its) {
                let is_its = has(instance, &settings::key(spec)) && has(instance, &settings::lab_id(spec));
                same &= Resize::of(instance, spec)?.is_none() && is_its;
            }
        }
        Ok(same)
    }

    /// Gives an existing machine the size that is asked for now; returns whether it was stopped for that.
    pub(super) async fn adjust(
        &self,
        instance: &Instance,
        spec: &MachineSpec,
        report: &dyn Report,
    ) -> Result<bool, Problem> {
        let Some(Resize { change, words }) = Resize::of(instance, spec)? else { return Ok(false) };
        let (incus, name, node) = (&self.place.incus, &instance.name, &spec.node);
        report.note(node, &format!("the machine gets another size: {words}"));
        let runs = instance.status == "Running";
        // A virtual machine sees all of its new size only from its next start on.
        if !runs || settings::kind_of(instance) == Kind::Container {
            match incus.patch(name, &change).await {
                Ok(()) => return Ok(false),
                Err(problem) if !runs => return Err(problem.on(node)),
                // As for memory that is in use, or a pool that cannot while the disk is.
                Err(_) => {}
            }
        }
        report.note(node, "stopping the machine, which cannot change its size while it runs");
        incus.stop(name, Some(GRACE)).await.map_err(|p| p.on(node))?;
        if let Err(problem) = incus.patch(name, &change).await {
            // With its old size it still is of use.
            let _ = incus.start(name).await;
            return Err(problem.on(node));
        }
        Ok(true)
    }

    /// Makes an existing machine the lab's: notes whose it is, and lets the lab's key in.
    pub(super) async fn make_its(
        &self,
        instance: &Instance,
        spec: &MachineSpec,
        report: &dyn Report,
    ) -> Result<(), Problem> {
        let id = settings::lab_id(spec);
        if !has(instance, &id) {
            self.place.incus.patch(&instance.name, &json!({"config": id})).await?;
        }
        if has(instance, &settings::key(spec)) {
            return Ok(());
        }
        report.note(&spec.node, "letting the lab's key into the machine");
        self.change_key(instance, spec).await
    }

    /// Lets another key in; it is noted only once that is done. A virtual machine learns it at a new start.
    async fn change_key(&self, instance: &Instance, spec: &MachineSpec) -> Result<(), Problem> {
        let (name, key) = (&instance.name, settings::key(spec));
        if settings::kind_of(instance) == Kind::Vm {
            self.place.incus.stop(name, Some(GRACE)).await?;
            self.place.incus.patch(name, &json!({"config": settings::another_key(instance, spec)})).await?;
            self.place.incus.start(name).await?;
            return self.until_up(&spec.lab, &spec.node).await.map(drop);
        }
        let environment = [("KC_KEY".to_owned(), key[settings::KEY].clone())].into();
        self.place.incus.exec(name, TAKE_KEY, &environment).await?;
        self.place.incus.patch(name, &json!({"config": key})).await
    }
}

/// Whether the instance has these values for these keys.
fn has(instance: &Instance, keys: &BTreeMap<String, String>) -> bool {
    keys.iter().all(|(key, value)| instance.config.get(key) == Some(value))
}
