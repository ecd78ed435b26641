//! Reset on a host of its own kind of namespace: what a lab leaves is planted by real tools, and must be gone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use kubecamp::{
    core::{Code, Event, EventKind, NodeId, PhaseId, Problem, Problems},
    engine::{Check, Journal, Mode, Phase, Run, Step, Summary, View, run_flow},
    host::{Facts, Host, scan},
    phases::{CleanNetwork, Drain, ProveClean, Record, Records, RestoreFiles, StopCluster},
    profile::{self, Lab},
    transport::Io,
};

use crate::support::sandbox::Sandbox;

const FOREIGN: &str = include_str!("reset/foreign.sh");
const LAB: &str = include_str!("reset/lab.sh");

/// Stands for `up`: one change by the engine's own way.
struct Plant(&'static str);

#[async_trait]
impl Phase for Plant {
    fn id(&self) -> PhaseId {
        PhaseId::new("plant")
    }

    fn title(&self) -> &'static str {
        "plant"
    }

    async fn steps(&self, _: &View<'_>) -> Result<Vec<Step>, Problem> {
        Ok(vec![Step::script("plant", "plant", Check::Never, self.0)])
    }
}

struct Camp {
    // Dropped last: the host lives in it.
    host: Arc<Host>,
    notes: Arc<Mutex<Vec<String>>>,
    _sandbox: Sandbox,
}

impl Camp {
    async fn start() -> Self {
        let sandbox = Sandbox::start();
        let host = sandbox.host(&node()).await;
        let camp = Self { host, notes: Arc::default(), _sandbox: sandbox };
        camp.sh(FOREIGN).await;
        camp
    }

    async fn sh(&self, script: &str) -> String {
        let exit = self.host.root(script, Duration::from_secs(60), Io::default()).await.unwrap();
        assert!(exit.ok(), "{exit:?}");
        exit.text()
    }

    async fn scan(&self) -> Vec<String> {
        let text = self.sh(scan::SCRIPT).await;
        // Which tools exist, and tables that iptables-nft left by looking, are no state.
        text.lines().map(str::to_owned).collect()
    }

    async fn flow(&self, phases: &[Box<dyn Phase>]) -> Result<Summary, Problems> {
        let notes = Arc::clone(&self.notes);
        let listen = move |event: &Event| match &event.kind {
            EventKind::StepEnded { step, outcome, millis, .. } => eprintln!("STEP {step} {outcome:?} {millis}"),
            EventKind::PhaseEnded { phase, millis, .. } => eprintln!("PHASE {phase} {millis}"),
            EventKind::Note { text, .. } | EventKind::Output { line: text, .. } => notes.lock().unwrap().push(text.clone()),
            _ => {}
        };
        let journal = Arc::new(Journal::unkept(vec![Arc::new(listen)]));
        let lab = Lab::new("lab".parse().unwrap(), profile::load("1x4c12g").unwrap()).unwrap();
        let run = Run::new(lab, Mode::Apply, journal, tokio_util::sync::CancellationToken::new());
        let hosts = BTreeMap::from([(node(), Arc::clone(&self.host))]);
        let fleet = BTreeMap::from([(node(), Facts::parse("container=no"))]);
        run_flow(&run, phases, &[node()], &hosts, &fleet).await?;
        Ok(run.summary())
    }

    async fn up(&self) {
        self.flow(&[Box::new(Record), Box::new(Plant(LAB))]).await.unwrap();
    }

    async fn reset(&self, records: Records) -> Result<Summary, Problems> {
        let records = Arc::new(records);
        let all: Vec<Box<dyn Phase>> = vec![
            Box::new(Drain),
            Box::new(StopCluster { records: Arc::clone(&records) }),
            Box::new(CleanNetwork { records: Arc::clone(&records) }),
            Box::new(RestoreFiles { records: Arc::clone(&records) }),
            Box::new(ProveClean { records }),
        ];
        self.flow(&all).await
    }

    fn said(&self, words: &str) -> bool {
        self.notes.lock().unwrap().iter().any(|n| n.contains(words))
    }
}

fn node() -> NodeId {
    "cp".parse().unwrap()
}

#[tokio::test]
async fn every_residue_goes_and_everything_foreign_stays() {
    let camp = Camp::start().await;
    let before = camp.scan().await;
    let hosts = camp.sh("sha256sum /etc/hosts; stat -c %a /usr/local/bin/kubectl; cat /usr/local/bin/kubectl").await;
    camp.up().await;
    let planted = camp.scan().await;
    for line in planted.iter().filter(|l| !before.contains(l)) { eprintln!("+{line}"); }
    eprintln!("{:#?}", camp.notes.lock().unwrap());
    let summary = camp.reset(Records::new()).await.unwrap_or_else(|p| panic!("{p}\n{:#?}", camp.notes.lock().unwrap()));
    assert!(summary.changed > 5);
    assert_eq!(camp.scan().await, before);
    assert_eq!(camp.sh("sha256sum /etc/hosts; stat -c %a /usr/local/bin/kubectl; cat /usr/local/bin/kubectl").await, hosts);
    assert_eq!(camp.sh("cat /var/tmp/data/volume/file; ls -A /var/lib | grep kubecamp; true").await, "precious");
    let again = camp.reset(Records::new()).await.unwrap();
    assert_eq!(again.changed, 0, "a clean host has nothing to change");
}
