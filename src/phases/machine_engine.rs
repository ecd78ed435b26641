use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    core::{Code, LabName, PhaseId, Problem, Quiet, Report},
    engine::{Change, Check, Phase, Step, Task, View},
    machine::{
        Choice, EngineAt, IncusProvider, Kind, LocalPlaces, Machine, Place, Provider, ProviderSlot, Wanted, place_of,
    },
};

/// Finds the user's Incus or starts the private engine, and gets the node image ready there.
pub struct MachineEngine {
    /// Where engine and images are kept.
    pub places: LocalPlaces,
    /// The provider, once it is there.
    pub provider: ProviderSlot,
}

#[async_trait]
impl Phase for MachineEngine {
    fn id(&self) -> PhaseId {
        PhaseId::new("machine-engine")
    }

    fn title(&self) -> &'static str {
        "get the machine engine and its node image ready"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let lab = view.lab.name().clone();
        let engine = StartEngine { lab, places: self.places.clone(), provider: Arc::clone(&self.provider) };
        let image = BuildImage { places: self.places.clone(), provider: Arc::clone(&self.provider) };
        Ok(vec![
            Step::new("engine", "find Incus or start a private one", Check::Never, Change::Task(Arc::new(engine))),
            Step::new("image", "get the node image ready", Check::Never, Change::Task(Arc::new(image))),
        ])
    }
}

struct StartEngine {
    lab: LabName,
    places: LocalPlaces,
    provider: ProviderSlot,
}

impl StartEngine {
    async fn keep(&self, place: Place, report: &dyn Report) -> Result<(), Problem> {
        let choice = Choice::make(self.places.kind, &place, &self.places.kvm(), report).await?;
        let provider = IncusProvider::new(place, self.places.node_image(choice.kind)?, choice.why);
        if self.places.kind != Wanted::Auto {
            same_kind(&provider.list(Some(&self.lab)).await?, choice.kind)?;
        }
        let _ = self.provider.set(Arc::new(provider));
        Ok(())
    }
}

/// Refuses a kind that is asked for where the lab's machines are of the other: they stay what they are.
fn same_kind(machines: &[Machine], kind: Kind) -> Result<(), Problem> {
    let Some(other) = machines.iter().find(|m| m.kind != kind) else { return Ok(()) };
    let is = if other.kind == Kind::Vm { "a virtual machine" } else { "a container" };
    Err(Problem::new(
        Code::LabDiffers,
        format!("machine {} exists as {is}, not as what --machines asks for", other.name),
    )
    .on(&other.node)
    .hint(format!("Leave --machines out, or remove the lab's machines first: kubecamp{} down.", other.lab.flag())))
}

#[async_trait]
impl Task for StartEngine {
    async fn done(&self) -> Result<bool, Problem> {
        let Some(place) = place_of(&self.places, &self.lab).await? else { return Ok(false) };
        // The user's own Incus has the way out that its user gave it.
        if self.places.outbound && place.netns.is_some() && !self.places.private_engine().outbound() {
            return Ok(false);
        }
        self.keep(place, &Quiet).await?;
        Ok(true)
    }

    async fn run(&self, report: &dyn Report) -> Result<(), Problem> {
        // Another engine would make them a second time.
        if let Some(at @ EngineAt::Incus(_)) = &self.places.at {
            return Err(at.absent());
        }
        let engine = self.places.private_engine();
        let place = engine.start(report).await?;
        if self.places.outbound {
            engine.open_outbound(report).await?;
        }
        self.keep(place, report).await
    }
}

struct BuildImage {
    places: LocalPlaces,
    provider: ProviderSlot,
}

#[async_trait]
impl Task for BuildImage {
    async fn done(&self) -> Result<bool, Problem> {
        match self.provider.get() {
            Some(provider) => Ok(self.places.node_image(provider.kind())?.file().exists()),
            None => Ok(false),
        }
    }

    async fn run(&self, report: &dyn Report) -> Result<(), Problem> {
        match self.provider.get() {
            Some(provider) => provider.prepare(report).await,
            None => Err(Problem::new(Code::Internal, "the image came before the engine")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn no_other_engine_is_started_for_machines_of_an_incus_that_is_away() {
        let home = tempfile::tempdir().unwrap();
        let at = EngineAt::Incus(home.path().join("none.socket"));
        let (lab, provider) = ("lab".parse().unwrap(), ProviderSlot::default());
        let start = StartEngine { lab, places: LocalPlaces::sample(home.path(), Some(at)), provider };
        assert!(!start.done().await.unwrap());
        let problem = start.run(&Quiet).await.unwrap_err();
        assert!(problem.code == Code::EngineStart && problem.what.contains("none.socket"), "{problem}");
        assert!(!home.path().join("engine").exists());
    }

    #[test]
    fn machines_stay_what_they_are() {
        let json = json!({"name": "lab-cp", "lab": "lab", "node": "cp", "kind": "container",
            "state": "running", "address": null, "netns": null, "host_keys": []});
        let machines = [serde_json::from_value::<Machine>(json).unwrap()];
        same_kind(&machines, Kind::Container).unwrap();
        same_kind(&[], Kind::Vm).unwrap();
        let problem = same_kind(&machines, Kind::Vm).unwrap_err();
        assert_eq!(problem.code, Code::LabDiffers);
        assert!(problem.what.contains("lab-cp exists as a container"), "{}", problem.what);
    }
}
