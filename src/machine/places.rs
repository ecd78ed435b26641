use std::path::PathBuf;

use super::{
    Engine, EngineAt, IncusProvider, Kind, NodeImage, Place, Provider, Recipe, Tenant, Wanted, check_environment,
    users_incus,
};
use crate::core::{LabName, Problem};

/// Where the parts of the local machines are kept, and what they run.
#[derive(Debug, Clone)]
pub struct LocalPlaces {
    /// The private engine's folder.
    pub engine: PathBuf,
    /// The engine that the lab's machines are in; `None` where nobody noted it.
    pub at: Option<EngineAt>,
    /// Built node images.
    pub images: PathBuf,
    /// The Debian release of the node image; `None` is the newest known.
    pub suite: Option<String>,
    /// Of what kind new machines are to be.
    pub kind: Wanted,
    /// Whether machines of the private engine reach what this computer reaches.
    pub outbound: bool,
}

impl LocalPlaces {
    /// The file that remembers whether KVM works.
    pub fn kvm(&self) -> PathBuf {
        self.images.with_file_name("kvm.json")
    }

    /// The private engine: the lab's own where it is in one.
    pub fn private_engine(&self) -> Engine {
        match &self.at {
            Some(EngineAt::Private(dir)) => Engine::new(dir),
            _ => Engine::new(&self.engine),
        }
    }

    /// The node image that machines begin as.
    ///
    /// # Errors
    /// `KC-ENGINE-IMAGE` where there is none for this computer's CPU, or of this release.
    pub fn node_image(&self, kind: Kind) -> Result<NodeImage, Problem> {
        Ok(NodeImage::new(&self.images, Recipe::here(self.suite.as_deref())?.of_kind(kind)))
    }
}

/// The engines that run now, without starting one: the user's Incus, then the private engine.
///
/// The first is where new labs get their machines.
///
/// # Errors
/// `KC-USAGE` when the environment calls a private engine the user's Incus.
pub async fn running_places(places: &LocalPlaces) -> Result<Vec<Place>, Problem> {
    check_environment(&places.engine)?;
    let private = Engine::new(&places.engine).running().await?;
    Ok(users_incus().await.ok().into_iter().chain(private).collect())
}

/// The engine of the lab's machines when it runs.
///
/// Where nobody noted which it is: the one that has some of them, else the one where they would be made.
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
        None => Ok(place_of(places, lab).await?.map_or_else(|| places.private_engine().at(), |place| place.at())),
    }
}

/// Refuses a lab of whose name an Incus has machines that are another one's: another user's or computer's, or of a
/// folder that is lost.
///
/// # Errors
/// `KC-HOST-TAKEN`.
pub async fn must_be_ours(places: &LocalPlaces, lab: &LabName, tenant: &Tenant) -> Result<(), Problem> {
    // Nobody else has any in kubecamp's own engine.
    match place_of(places, lab).await?.filter(|place| place.netns.is_none()) {
        Some(place) => provider_in(place, places)?.must_be_ours(lab, tenant).await,
        None => Ok(()),
    }
}

/// The problem that the engine of the lab's machines does not run.
pub fn no_engine(places: &LocalPlaces, lab: &LabName) -> Problem {
    let at = places.at.clone().unwrap_or_else(|| places.private_engine().at());
    match at {
        EngineAt::Incus(_) => at.absent(),
        // The engine alone would leave them stopped.
        EngineAt::Private(_) => {
            at.absent().hint(format!("Start it with the lab's machines: kubecamp up --name {lab}."))
        }
    }
}

/// The engine to start for machines of a lab whose engine does not run; `None` where no machine was ever made in it.
///
/// # Errors
/// `KC-ENGINE-START` where it is the user's own Incus, which only the user starts: another engine knows nothing of it.
pub fn sleeping_engine(places: &LocalPlaces) -> Result<Option<Engine>, Problem> {
    if let Some(at @ EngineAt::Incus(_)) = &places.at {
        return Err(at.absent());
    }
    let engine = places.private_engine();
    Ok(engine.has_disks().then_some(engine))
}

/// The names of the machines that a lab still has; `None` where its engine does not run and may hold some.
pub async fn machines_left(
    places: &LocalPlaces,
    lab: &LabName,
    tenant: &Tenant,
) -> Result<Option<Vec<String>>, Problem> {
    let Some(place) = place_of(places, lab).await? else {
        let none = matches!(sleeping_engine(places), Ok(None));
        return Ok(none.then(Vec::new));
    };
    let provider = provider_in(place, places)?;
    let (all, others) = (provider.list(Some(lab)).await?, provider.of_others(lab, tenant).await?);
    Ok(Some(all.into_iter().map(|machine| machine.name).filter(|name| !others.contains(name)).collect()))
}

/// The provider over a place that runs, for machines that exist, of whatever kind.
pub fn provider_in(place: Place, places: &LocalPlaces) -> Result<IncusProvider, Problem> {
    Ok(IncusProvider::new(place, places.node_image(Kind::Container)?, "no new machines"))
}

#[cfg(test)]
impl LocalPlaces {
    /// Places in a folder, for machines that are containers, for tests.
    pub(crate) fn sample(home: &std::path::Path, at: Option<EngineAt>) -> Self {
        let (engine, images) = (home.join("engine"), home.join("images"));
        Self { engine, at, images, suite: None, kind: Wanted::Container, outbound: false }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        core::{Code, LabId},
        machine::FakeIncus,
    };

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
        let known = LocalPlaces::sample(home.path(), Some(at.clone()));
        assert_eq!(place_of(&known, &lab).await.unwrap().unwrap().at(), at);
        assert_eq!(settle(&known, &lab).await.unwrap(), at);

        // In a private engine that does not run: this Incus is not asked.
        let asked = fake.requests().len();
        let known = LocalPlaces::sample(home.path(), Some(EngineAt::Private(home.path().join("engine"))));
        assert!(place_of(&known, &lab).await.unwrap().is_none());
        assert_eq!(fake.requests().len(), asked);
        let problem = no_engine(&known, &lab);
        assert!(problem.what.contains("does not run"), "{problem}");
        assert_eq!(problem.all_hints(), ["Start it with the lab's machines: kubecamp up --name lab."]);
    }

    #[tokio::test]
    async fn a_lab_does_not_take_the_machines_of_somebody_elses_of_the_same_name() {
        let home = tempfile::tempdir().unwrap();
        let machine = |name: &str, lab: &str, id: &str| {
            json!({"name": name, "status": "Stopped", "type": "container", "config":
                {"user.kubecamp.lab": lab, "user.kubecamp.node": "cp", "user.kubecamp.lab-id": id}})
        };
        let all = json!([machine("lab-cp", "lab", "theirs"), machine("other-cp", "other", "theirs")]);
        let fake = FakeIncus::new([
            ("GET ", json!({"auth": "trusted", "environment": {"server_version": "6.0.4"}})),
            (
                "GET /profiles/default",
                json!({"devices": {
                "root": {"path": "/", "pool": "p"}, "eth0": {"type": "nic", "nictype": "macvlan"}}}),
            ),
            ("GET /instances?recursion=1", all),
        ]);
        let at = fake.provider(&home, Kind::Container).at();
        let (at, lab) = (LocalPlaces::sample(home.path(), Some(at)), "lab".parse().unwrap());
        let tenant = |id: &'static str, known, takes_over| Tenant { id: LabId::new(id), known, takes_over };
        // Also where the lab is known here: its first `up` ended before it made any, and somebody else was faster then.
        for known in [false, true] {
            let problem = must_be_ours(&at, &lab, &tenant("mine", known, false)).await.unwrap_err();
            assert_eq!((problem.code, &problem.detail[..]), (Code::HostTaken, &["lab-cp".to_owned()][..]));
            assert!(problem.all_hints()[0].contains("--take-over"), "{problem}");
        }
        must_be_ours(&at, &lab, &tenant("mine", false, true)).await.unwrap();
        must_be_ours(&at, &lab, &tenant("theirs", true, false)).await.unwrap();
        must_be_ours(&at, &"mine".parse().unwrap(), &tenant("mine", false, false)).await.unwrap();
        assert!(fake.requests().iter().all(|asked| asked.starts_with("GET ")), "{:?}", fake.requests());
    }

    #[test]
    fn only_an_own_engine_that_holds_machines_is_started_for_them() {
        let home = tempfile::tempdir().unwrap();
        let users = LocalPlaces::sample(home.path(), Some(EngineAt::Incus(home.path().join("none.socket"))));
        assert_eq!(sleeping_engine(&users).err().map(|p| p.code), Some(Code::EngineStart));
        let other = home.path().join("other");
        std::fs::create_dir_all(other.join("incus/disks")).unwrap();
        let found = |at| sleeping_engine(&LocalPlaces::sample(home.path(), at)).unwrap().map(|engine| engine.at());
        assert_eq!(found(Some(EngineAt::Private(other.clone()))), Some(Engine::new(&other).at()));
        // Nothing was ever made in this one: it need not be started to remove nothing.
        assert_eq!((found(None), home.path().join("engine").exists()), (None, false));
    }
}
