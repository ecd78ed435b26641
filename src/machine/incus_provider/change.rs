//! How machines that exist become what is asked for now.

use std::collections::BTreeMap;

use serde_json::json;

use super::{GRACE, IncusProvider};
use crate::{
    core::{Problem, Report},
    machine::{
        incus::Instance,
        ownership::Owner,
        provider::{Kind, MachineSpec},
        resize::Resize,
        settings,
    },
};

/// Lets root in with the key in the environment, and with no other.
const TAKE_KEY: &str = "umask 077; printf '%s\\n' \"$KC_KEY\" >/root/.ssh/authorized_keys";

impl IncusProvider {
    /// Whether those of these machines that exist are as they are asked for: their size, and whom they let in.
    ///
    /// # Errors
    /// `KC-LAB-DIFFERS` where a disk would have to shrink.
    pub async fn are_as_asked(&self, specs: &[MachineSpec]) -> Result<bool, Problem> {
        let (instances, mut same) = (self.place.incus.instances_plain().await?, true);
        for spec in specs {
            let is_its = |i: &&Instance| Owner::of(i).is_some_and(|o| o.lab == spec.lab && o.node == spec.node);
            if let Some(instance) = instances.iter().find(is_its) {
                same &= Resize::of(instance, spec)?.is_none() && has(instance, &settings::key(spec));
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

    /// Lets another key in; it is noted only once that is done. A virtual machine learns it at a new start.
    pub(super) async fn change_key(&self, instance: &Instance, spec: &MachineSpec) -> Result<(), Problem> {
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
pub(super) fn has(instance: &Instance, keys: &BTreeMap<String, String>) -> bool {
    keys.iter().all(|(key, value)| instance.config.get(key) == Some(value))
}
