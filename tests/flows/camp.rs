//! A lab on simulated hosts, and everything that a run of a flow on it shows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{Arc, LazyLock, Mutex},
};

use kubecamp::{
    bundle::Bundle,
    core::{Arch, Code, Event, EventKind, LabId, NodeId, Outcome, Problem, Problems, Secret},
    engine::{Journal, Mode, Phase, Run, Summary, run_flow},
    flows::{self, Up},
    host::{Facts, Host, SudoPassword, Viewer},
    phases::{Owner, Records, preflight},
    profile::{self, Lab},
};
use tokio_util::sync::CancellationToken;

use crate::support::{
    simhost::{Did, Login, SimHost, System, World},
    tiny_bundle::tiny_bundle,
};

/// One bundle for all tests: compressing it takes longer than a whole run.
static TINY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let file = tempfile::NamedTempFile::new().unwrap();
    tiny_bundle(file.path(), &profile::load("3x2c4g").unwrap().kubernetes, Arch::Amd64);
    fs::read(file.path()).unwrap()
});

/// A lab whose hosts are simulated.
pub struct Camp {
    pub lab: Lab,
    pub hosts: BTreeMap<NodeId, SimHost>,
    pub world: World,
    pub cancel: CancellationToken,
    pub password: Option<&'static str>,
    pub owner: Owner,
    bundle: Arc<Bundle>,
    folder: tempfile::TempDir,
}

/// What one run showed.
pub struct Seen {
    pub problems: Vec<Problem>,
    /// Preflight's.
    pub warnings: Vec<Problem>,
    pub summary: Summary,
    pub events: Vec<Event>,
    pub journal: String,
}

impl Camp {
    /// Three Debian 13 hosts.
    pub fn new() -> Self {
        Self::on([System::Debian13; 3], Login::Root)
    }

    /// Three hosts of these systems.
    pub fn on(systems: [System; 3], login: Login) -> Self {
        let lab = Lab::new("team7".parse().unwrap(), profile::load("3x2c4g").unwrap()).unwrap();
        let (world, folder) = (World::default(), tempfile::tempdir().unwrap());
        let host = |((node, system), n): ((&profile::NodeSpec, System), u8)| {
            (node.name.clone(), SimHost::new(&world, &node.name, n, system, login))
        };
        let hosts = lab.nodes().iter().zip(systems).zip(1..).map(host).collect();
        let file = folder.path().join("tiny.bundle");
        fs::write(&file, &*TINY).unwrap();
        let bundle = Arc::new(Bundle::open(&file).unwrap());
        let (cancel, owner) = (CancellationToken::new(), Owner { id: LabId::random(), known: true });
        Self { lab, hosts, world, cancel, password: None, owner, bundle, folder }
    }

    pub fn host(&self, name: &str) -> &SimHost {
        &self.hosts[&name.parse::<NodeId>().unwrap()]
    }

    /// Opens every host; the problems of those that do not let us in come beside.
    pub async fn open(&self) -> (BTreeMap<NodeId, Arc<Host>>, BTreeMap<NodeId, Facts>, Vec<Problem>) {
        let (mut hosts, mut fleet, mut problems) = (BTreeMap::new(), BTreeMap::new(), vec![]);
        let password = self.password.map(|word| SudoPassword::given(Secret::new(word)));
        for (node, sim) in &self.hosts {
            match Host::open(node.clone(), Arc::new(sim.link.clone()), password.as_ref()).await {
                Ok(host) => {
                    fleet.insert(node.clone(), Facts::gather(&Viewer::new(&host)).await.unwrap());
                    hosts.insert(node.clone(), Arc::new(host));
                }
                Err(problem) => problems.push(problem),
            }
        }
        (hosts, fleet, problems)
    }

    /// Preflight and the flow `up`.
    pub async fn up(&self) -> Seen {
        self.flow_up(Mode::Apply).await
    }

    /// The same in plan mode.
    pub async fn plan(&self) -> Seen {
        self.flow_up(Mode::Plan).await
    }

    async fn flow_up(&self, mode: Mode) -> Seen {
        let (hosts, fleet, problems) = self.open().await;
        let found = preflight::check(&self.lab, &self.owner, &hosts, &fleet, Arch::Amd64, Default::default()).await;
        let warnings = found.warnings;
        let found: Vec<_> = problems.into_iter().chain(found.problems).collect();
        if !found.is_empty() {
            let (summary, events, journal) = Default::default();
            return Seen { problems: found, warnings, summary, events, journal };
        }
        Seen { warnings, ..self.run(mode, &flows::up(&self.wish()), &hosts, &fleet).await }
    }

    /// What `up` needs besides the lab.
    pub fn wish(&self) -> Up {
        Up {
            owner: self.owner.clone(),
            bundle: Arc::clone(&self.bundle),
            kubeconfig: self.folder.path().join("kubeconfig"),
            server: "192.0.2.1".into(),
        }
    }

    /// The flow `reset` on the hosts that are not `absent`.
    pub async fn reset(&self, absent: &[&str]) -> Seen {
        let (mut hosts, mut fleet, _) = self.open().await;
        hosts.retain(|node, _| !absent.contains(&node.as_str()));
        fleet.retain(|node, _| !absent.contains(&node.as_str()));
        self.run(Mode::Apply, &flows::reset(Records::new()), &hosts, &fleet).await
    }

    async fn run(
        &self,
        mode: Mode,
        phases: &[Box<dyn Phase>],
        hosts: &BTreeMap<NodeId, Arc<Host>>,
        fleet: &BTreeMap<NodeId, Facts>,
    ) -> Seen {
        let heard: Arc<Mutex<Vec<Event>>> = Arc::default();
        let ear = Arc::clone(&heard);
        let listener = Arc::new(move |event: &Event| ear.lock().unwrap().push(event.clone()));
        let journal = Arc::new(Journal::create(&self.folder.path().join("runs"), vec![listener]).unwrap());
        let path = self.folder.path().join(format!("runs/{}.ndjson", journal.run()));
        let run = Run::new(self.lab.clone(), mode, journal, self.cancel.clone());
        let nodes: Vec<_> = self.lab.nodes().iter().map(|n| n.name.clone()).filter(|n| hosts.contains_key(n)).collect();
        let ended = run_flow(&run, phases, &nodes, hosts, fleet).await;
        let events = heard.lock().unwrap().clone();
        Seen {
            problems: ended.err().map(Problems::into_vec).unwrap_or_default(),
            warnings: vec![],
            summary: run.summary(),
            events,
            journal: fs::read_to_string(path).unwrap(),
        }
    }

    /// Every command line and upload that reached any host.
    pub fn lines(&self) -> Vec<String> {
        self.hosts.values().flat_map(|h| h.link.ran()).map(|ran| ran.line).collect()
    }
}

impl Seen {
    /// Panics with the problems unless there are none.
    pub fn good(self) -> Self {
        assert!(self.problems.is_empty(), "{}", Problems::from(self.problems.clone()));
        self
    }

    pub fn codes(&self) -> Vec<(&str, Code)> {
        self.problems.iter().map(|p| (p.on.as_ref().map_or("", NodeId::as_str), p.code)).collect()
    }

    /// How the steps ended that ended so, as `node/phase/step`.
    pub fn ended(&self, wanted: Outcome) -> BTreeSet<String> {
        let name = |event: &Event| match &event.kind {
            EventKind::StepEnded { phase, step, on, outcome, .. } if *outcome == wanted => {
                Some(format!("{on}/{phase}/{step}"))
            }
            _ => None,
        };
        self.events.iter().filter_map(name).collect()
    }

    /// How a phase ended on a node.
    pub fn phase(&self, on: &str, wanted: &str) -> Option<Outcome> {
        self.events.iter().find_map(|event| match &event.kind {
            EventKind::PhaseEnded { phase, on: node, outcome, .. }
                if node.as_str() == on && phase.to_string() == wanted =>
            {
                Some(*outcome)
            }
            _ => None,
        })
    }
}

/// The steps that changed one node, in order.
pub fn steps_of(world: &World, on: &str) -> Vec<&'static str> {
    let step = |(node, did): (NodeId, Did)| match did {
        Did::Change(step) if node.as_str() == on => Some(step),
        _ => None,
    };
    world.changes().into_iter().filter_map(step).collect()
}

/// The same of the control plane, `admit` in front: it goes beside the others, and comes at any place among them.
pub fn steps_of_cp(world: &World) -> Vec<&'static str> {
    let mut steps = steps_of(world, "cp");
    steps.sort_by_key(|step| *step != "admit");
    steps
}
