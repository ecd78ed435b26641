use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use futures::future::join_all;

use crate::{
    core::{Code, LabName, NodeId, PhaseId, Problem, Quiet, Report},
    engine::{Change, Check, Phase, Step, Task, View},
    machine::{
        Choice, Engine, EngineAt, ImageRef, IncusProvider, Kind, Machine, MachineSpec, NodeImage, Place, Provider,
        Recipe, State, Wanted, check_environment, users_incus,
    },
    profile::Lab,
};

/// Where the parts of the local machines are kept, and what they run.
#[derive(Debug, Clone)]
pub struct LocalPlaces {
    /// The private engine's folder.
    pub engine: std::path::PathBuf,
    /// The engine that the lab's machines are in; `None` where nobody noted it.
    pub at: Option<EngineAt>,
    /// Built node images.
    pub images: std::path::PathBuf,
    /// The Debian release of the node image; `None` is the newest known.
    pub suite: Option<String>,
    /// Of what kind new machines are to be.
    pub kind: Wanted,
    /// Whether machines of the private engine reach what this computer reaches.
    pub outbound: bool,
}

impl LocalPlaces {
    /// The file that remembers whether KVM works.
    pub fn kvm(&self) -> std::path::PathBuf {
        self.images.with_file_name("kvm.json")
    }
}

/// What makes the machines, found or started.
pub type ProviderSlot = Arc<OnceLock<Arc<IncusProvider>>>;

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

/// Makes the lab's machines.
pub struct Machines {
    /// The public key that the machines accept.
    pub authorized_key: String,
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
        let specs = specs(view.lab, &self.authorized_key, &image);
        let names: Vec<_> = specs.iter().map(|s| s.node.to_string()).collect();
        let make = Make { specs, provider: Arc::clone(&self.provider), machines: Arc::clone(&self.machines) };
        let title = format!("make and start {}", names.join(", "));
        Ok(vec![Step::new("make", title, Check::Never, Change::Task(Arc::new(make)))])
    }
}

fn specs(lab: &Lab, key: &str, image: &ImageRef) -> Vec<MachineSpec> {
    let spec = |node: &crate::profile::NodeSpec| MachineSpec {
        lab: lab.name().clone(),
        node: node.name.clone(),
        cores: node.cores,
        memory: node.memory,
        disk: node.disk,
        authorized_key: key.to_owned(),
        image: image.clone(),
    };
    lab.nodes().iter().map(spec).collect()
}

/// The engines that run now, without starting one: the user's Incus, then the private engine. The first is where new
/// labs get their machines.
///
/// # Errors
/// `KC-USAGE` when the environment calls a private engine the user's Incus.
pub async fn running_places(places: &LocalPlaces) -> Result<Vec<Place>, Problem> {
    check_environment(&places.engine)?;
    let private = Engine::new(&places.engine).running().await?;
    Ok(users_incus().await.ok().into_iter().chain(private).collect())
}

/// The engine of the lab's machines when it runs. Where nobody noted which it is: the one that has some of them, else
/// the one where they would be made.
pub async fn place_of(places: &LocalPlaces, lab: &LabName) -> Result<Option<Place>, Problem> {
    if let Some(at) = &places.at {
        check_environment(&places.engine)?;
        return at.running().await;
    }
    let mut running = running_places(places).await?;
    if running.len() > 1 {
        for place in &running {
            if !provider_in(place.clone(), places)?.list(Some(lab)).await?.is_empty() {
                return Ok(Some(place.clone()));
            }
        }
    }
    running.truncate(1);
    Ok(running.pop())
}

/// The engine of the lab's machines, to be noted with the lab before the first of them is made.
pub async fn settle(places: &LocalPlaces, lab: &LabName) -> Result<EngineAt, Problem> {
    match &places.at {
        Some(at) => Ok(at.clone()),
        None => Ok(place_of(places, lab).await?.map_or_else(|| private(places).at(), |place| place.at())),
    }
}

/// Refuses a lab that is new here where an Incus has machines of one called the same: they are another user's or
/// computer's, or of a folder that is lost, and would be resized and removed as the new lab needs it.
///
/// # Errors
/// `KC-HOST-TAKEN`.
pub async fn must_be_new(places: &LocalPlaces, lab: &LabName) -> Result<(), Problem> {
    // Nobody else has any in kubecamp's own engine.
    let Some(place) = place_of(places, lab).await?.filter(|place| place.netns.is_none()) else { return Ok(()) };
    let machines = provider_in(place, places)?.list(Some(lab)).await?;
    if machines.is_empty() {
        return Ok(());
    }
    let what = format!("this computer's Incus has machines of a lab {lab} that was not made from here");
    Err(Problem::new(Code::HostTaken, what).detail(machines.into_iter().map(|machine| machine.name)).hint(
        "Choose another --name. If they are yours and the lab's folder is lost: kubecamp up --local --take-over.",
    ))
}

/// The private engine: the lab's own where it is in one.
fn private(places: &LocalPlaces) -> Engine {
    match &places.at {
        Some(EngineAt::Private(dir)) => Engine::new(dir),
        _ => Engine::new(&places.engine),
    }
}

/// The problem that the engine of the lab's machines does not run.
pub fn no_engine(places: &LocalPlaces) -> Problem {
    places.at.clone().unwrap_or_else(|| private(places).at()).absent()
}

/// The engine to start for machines of a lab whose engine does not run; `None` where no machine was ever made in it.
///
/// # Errors
/// `KC-ENGINE-START` where it is the user's own Incus, which only the user starts: another engine knows nothing of it.
pub fn sleeping_engine(places: &LocalPlaces) -> Result<Option<Engine>, Problem> {
    if let Some(at @ EngineAt::Incus(_)) = &places.at {
        return Err(at.absent());
    }
    let engine = private(places);
    Ok(engine.has_disks().then_some(engine))
}

/// The node image that machines begin as.
fn node_image(places: &LocalPlaces, kind: Kind) -> Result<NodeImage, Problem> {
    Ok(NodeImage::new(&places.images, Recipe::here(places.suite.as_deref())?.of_kind(kind)))
}

/// The provider over a place that runs, for machines that exist, of whatever kind.
pub fn provider_in(place: Place, places: &LocalPlaces) -> Result<IncusProvider, Problem> {
    Ok(IncusProvider::new(place, node_image(places, Kind::Container)?, "no new machines"))
}

struct StartEngine {
    lab: LabName,
    places: LocalPlaces,
    provider: ProviderSlot,
}

impl StartEngine {
    async fn keep(&self, place: Place, report: &dyn Report) -> Result<(), Problem> {
        let choice = Choice::make(self.places.kind, &place, &self.places.kvm(), report).await?;
        let provider = IncusProvider::new(place, node_image(&self.places, choice.kind)?, choice.why);
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
    .hint("Leave --machines out, or remove the lab's machines first: kubecamp down."))
}

#[async_trait]
impl Task for StartEngine {
    async fn done(&self) -> Result<bool, Problem> {
        let Some(place) = place_of(&self.places, &self.lab).await? else { return Ok(false) };
        // The user's own Incus has the way out that its user gave it.
        if self.places.outbound && place.netns.is_some() && !private(&self.places).outbound() {
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
        let engine = private(&self.places);
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
            Some(provider) => Ok(node_image(&self.places, provider.kind())?.file().exists()),
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
        let there = self.existing().await?;
        let sized = match self.provider.get() {
            // What cannot be had is refused here, before any machine is changed.
            Some(provider) => provider.are_sized(&self.specs).await?,
            None => false,
        };
        let up = |s: &MachineSpec| there.iter().find(|m| m.node == s.node && is_up(m)).cloned();
        let found: Vec<_> = self.specs.iter().filter_map(up).collect();
        if !sized || found.len() < self.specs.len() || !self.too_many(&there).is_empty() {
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
    use crate::machine::FakeIncus;

    fn places(home: &std::path::Path, at: Option<EngineAt>) -> LocalPlaces {
        let (engine, images) = (home.join("engine"), home.join("images"));
        LocalPlaces { engine, at, images, suite: None, kind: Wanted::Container, outbound: false }
    }

    #[tokio::test]
    async fn a_labs_machines_are_looked_for_where_they_were_made_and_nowhere_else() {
        let (home, lab) = (tempfile::tempdir().unwrap(), "lab".parse().unwrap());
        let fake = FakeIncus::new([
            ("GET ", json!({"auth": "trusted", "environment": {"server_version": "6.0.4"}})),
            (
                "GET /profiles/default",
                json!({"devices": {
                "root": {"path": "/", "pool": "p"}, "eth0": {"type": "nic", "nictype": "macvlan"}}}),
            ),
        ]);
        let at = fake.provider(&home, Kind::Container).at();
        assert_eq!(at, EngineAt::Incus(home.path().join("unix.socket")));
        let known = places(home.path(), Some(at.clone()));
        assert_eq!(place_of(&known, &lab).await.unwrap().unwrap().at(), at);
        assert_eq!(settle(&known, &lab).await.unwrap(), at);

        // In a private engine that does not run: this Incus is not asked.
        let asked = fake.requests().len();
        let known = places(home.path(), Some(EngineAt::Private(home.path().join("engine"))));
        assert!(place_of(&known, &lab).await.unwrap().is_none());
        assert_eq!(fake.requests().len(), asked);
        assert!(no_engine(&known).what.contains("does not run"));
    }

    #[tokio::test]
    async fn a_new_lab_does_not_take_the_machines_of_somebody_elses_of_the_same_name() {
        let home = tempfile::tempdir().unwrap();
        let machine = |name: &str, lab: &str| {
            json!({"name": name, "status": "Stopped", "type": "container",
                "config": {"user.kubecamp.lab": lab, "user.kubecamp.node": "cp"}})
        };
        let fake = FakeIncus::new([
            ("GET ", json!({"auth": "trusted", "environment": {"server_version": "6.0.4"}})),
            (
                "GET /profiles/default",
                json!({"devices": {
                "root": {"path": "/", "pool": "p"}, "eth0": {"type": "nic", "nictype": "macvlan"}}}),
            ),
            ("GET /instances?recursion=2", json!([machine("lab-cp", "lab"), machine("other-cp", "other")])),
        ]);
        let at = fake.provider(&home, Kind::Container).at();
        let known = places(home.path(), Some(at));
        let problem = must_be_new(&known, &"lab".parse().unwrap()).await.unwrap_err();
        assert_eq!((problem.code, &problem.detail[..]), (Code::HostTaken, &["lab-cp".to_owned()][..]));
        assert!(problem.all_hints()[0].contains("--take-over"), "{problem}");
        must_be_new(&known, &"mine".parse().unwrap()).await.unwrap();
        assert!(fake.requests().iter().all(|asked| asked.starts_with("GET ")), "{:?}", fake.requests());
    }

    #[test]
    fn only_an_own_engine_that_holds_machines_is_started_for_them() {
        let home = tempfile::tempdir().unwrap();
        let users = places(home.path(), Some(EngineAt::Incus(home.path().join("none.socket"))));
        assert_eq!(sleeping_engine(&users).err().map(|p| p.code), Some(Code::EngineStart));
        let other = home.path().join("other");
        std::fs::create_dir_all(other.join("incus/disks")).unwrap();
        let found = |at| sleeping_engine(&places(home.path(), at)).unwrap().map(|engine| engine.at());
        assert_eq!(found(Some(EngineAt::Private(other.clone()))), Some(Engine::new(&other).at()));
        // Nothing was ever made in this one: it need not be started to remove nothing.
        assert_eq!((found(None), home.path().join("engine").exists()), (None, false));
    }

    #[tokio::test]
    async fn no_other_engine_is_started_for_machines_of_an_incus_that_is_away() {
        let home = tempfile::tempdir().unwrap();
        let at = EngineAt::Incus(home.path().join("none.socket"));
        let (lab, provider) = ("lab".parse().unwrap(), ProviderSlot::default());
        let start = StartEngine { lab, places: places(home.path(), Some(at)), provider };
        assert!(!start.done().await.unwrap());
        let problem = start.run(&Quiet).await.unwrap_err();
        assert!(problem.code == Code::EngineStart && problem.what.contains("none.socket"), "{problem}");
        assert!(!home.path().join("engine").exists());
    }

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

    #[test]
    fn machines_of_a_larger_layout_are_too_many() {
        let lab = Lab::new("lab".parse().unwrap(), crate::profile::load("1x4c12g").unwrap()).unwrap();
        let specs = specs(&lab, "key", &ImageRef::Node);
        let make = Make { specs, provider: ProviderSlot::default(), machines: Arc::default() };
        let named = |node: &str| Machine { node: node.parse().unwrap(), ..machine(None, &[]) };
        assert_eq!(make.too_many(&[named("cp"), named("worker-1")]), ["worker-1".parse().unwrap()]);
    }

    #[tokio::test]
    async fn running_machines_of_another_size_are_not_done_and_no_disk_shrinks() {
        let lab = Lab::new("lab".parse().unwrap(), crate::profile::load("1x4c12g").unwrap()).unwrap();
        let specs = specs(&lab, "key", &ImageRef::Node);
        let (memory, disk) = (specs[0].memory.0, specs[0].disk.0);
        for (cores, disk, wanted) in
            [("4", disk, Ok(true)), ("2", disk, Ok(false)), ("4", 2 * disk, Err(Code::LabDiffers))]
        {
            let instance = json!({"name": "lab-cp", "status": "Running", "type": "virtual-machine",
                "config": {"user.kubecamp.lab": "lab", "user.kubecamp.node": "cp", "limits.cpu": cores,
                    "user.kubecamp.host-key": "ssh-ed25519 AAAA", "limits.memory": memory.to_string()},
                "devices": {"eth0": {"ipv4.address": "10.1.0.2"}, "root": {"size": disk.to_string()}}});
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

    #[test]
    fn machines_stay_what_they_are() {
        let machines = [machine(None, &[])];
        same_kind(&machines, Kind::Container).unwrap();
        same_kind(&[], Kind::Vm).unwrap();
        let problem = same_kind(&machines, Kind::Vm).unwrap_err();
        assert_eq!(problem.code, Code::LabDiffers);
        assert!(problem.what.contains("lab-cp exists as a container"), "{}", problem.what);
    }
}
