use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use super::{Board, Journal, Phase, lane::Lane};
use crate::{
    core::{EventKind, NodeId, Outcome, PhaseId, Problem, Problems, Report, StepId},
    host::{Facts, Host},
    profile::Lab,
};

/// Whether a run changes hosts or only says what it would change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Change what is not as wanted.
    Apply,
    /// Only tell; nothing is changed.
    Plan,
}

/// One execution of a flow, shared by all its lanes.
pub struct Run {
    /// The lab that is worked on.
    pub lab: Lab,
    /// Whether hosts are changed.
    pub mode: Mode,
    /// Where events go.
    pub journal: Arc<Journal>,
    /// What the lanes know of each other.
    pub board: Board,
    /// Ends the run politely.
    pub cancel: CancellationToken,
    pub(super) planned: Mutex<Vec<Planned>>,
    changed: AtomicU64,
    unchanged: AtomicU64,
}

/// A step that a run would take or found done.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Planned {
    /// The phase.
    pub phase: PhaseId,
    /// The node.
    pub on: NodeId,
    /// The step.
    pub step: StepId,
    /// What it does.
    pub title: String,
    /// Whether the host already is as wanted.
    pub done: bool,
    /// What it waits for, as `cp/init`.
    pub depends_on: Vec<String>,
    /// Whether nothing is known of the node: it is taken for a new machine.
    pub assumed: bool,
}

/// What a run did, or would do.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Steps that changed something.
    pub changed: u64,
    /// Steps found done.
    pub unchanged: u64,
    /// In a plan: every step.
    pub planned: Vec<Planned>,
}

impl Run {
    /// A run on `lab`.
    pub fn new(lab: Lab, mode: Mode, journal: Arc<Journal>, cancel: CancellationToken) -> Self {
        Self {
            lab,
            mode,
            journal,
            board: Board::new(),
            cancel,
            planned: Mutex::default(),
            changed: AtomicU64::new(0),
            unchanged: AtomicU64::new(0),
        }
    }

    /// Counts a step that ended so, or what stands for one.
    pub fn count(&self, outcome: Outcome) {
        match outcome {
            Outcome::Changed => self.changed.fetch_add(1, Ordering::Relaxed),
            Outcome::AlreadyDone => self.unchanged.fetch_add(1, Ordering::Relaxed),
            Outcome::Failed | Outcome::Skipped => 0,
        };
    }

    /// What has happened so far.
    pub fn summary(&self) -> Summary {
        let mut planned = self.planned.lock().map(|p| p.clone()).unwrap_or_default();
        // Lanes plan side by side; people read one node after the other, this computer first.
        planned.sort_by_key(|p| self.lab.nodes().iter().position(|n| n.name == p.on));
        Summary {
            changed: self.changed.load(Ordering::Relaxed),
            unchanged: self.unchanged.load(Ordering::Relaxed),
            planned,
        }
    }

    /// Tells how the run ended.
    ///
    /// One that went well and changed nothing found everything done.
    pub fn ended(&self, outcome: Outcome) {
        let (changed, unchanged) = (self.changed.load(Ordering::Relaxed), self.unchanged.load(Ordering::Relaxed));
        let outcome = if outcome == Outcome::Changed && changed == 0 { Outcome::AlreadyDone } else { outcome };
        self.journal.event(EventKind::RunEnded { outcome, changed, unchanged, millis: self.journal.millis() });
    }
}

/// Runs `phases` in order on each of `nodes`, the nodes side by side; a node waits for another only where a step needs it.
///
/// A failed node ends its own lane and those that need it; the others go on to their end.
pub async fn run_flow(
    run: &Run,
    phases: &[Box<dyn Phase>],
    nodes: &[NodeId],
    hosts: &BTreeMap<NodeId, Arc<Host>>,
    fleet: &BTreeMap<NodeId, Facts>,
) -> Result<(), Problems> {
    let lanes = nodes.iter().map(|node| {
        let busy = run.board.busy();
        async move {
            let lane = Lane::new(run, node, hosts.get(node), fleet, nodes);
            let ended = lane.run(phases, busy).await;
            run.board.lane_over(node);
            ended.map_err(|problem| run.journal.failure(problem))
        }
    });
    let mut found: Vec<Problem> = join_all(lanes).await.into_iter().filter_map(Result::err).collect();
    // The cause comes first: it decides the exit code.
    found.sort_by_key(|p| p.code == crate::core::Code::StepUnreached);
    Problems::check(found)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tokio::sync::Notify;

    use super::*;
    use crate::{
        core::{Code, Event},
        engine::{Change, Check, Step, Task, View},
    };

    /// A phase of one task. The one that runs aside never ends; when it has begun, the one in front of it ends the run.
    #[derive(Clone)]
    struct Work {
        name: &'static str,
        aside: bool,
        begun: Arc<Notify>,
        cancels: Option<CancellationToken>,
    }

    #[async_trait]
    impl Phase for Work {
        fn id(&self) -> PhaseId {
            PhaseId::new(self.name)
        }

        fn title(&self) -> &'static str {
            self.name
        }

        fn aside(&self) -> bool {
            self.aside
        }

        async fn steps(&self, _: &View<'_>) -> Result<Vec<Step>, Problem> {
            Ok(vec![Step::new("step", "step", Check::Never, Change::Task(Arc::new(self.clone())))])
        }
    }

    #[async_trait]
    impl Task for Work {
        async fn done(&self) -> Result<bool, Problem> {
            Ok(false)
        }

        async fn run(&self, _: &dyn Report) -> Result<(), Problem> {
            if self.aside {
                self.begun.notify_one();
                std::future::pending::<()>().await;
            }
            self.begun.notified().await;
            let Some(cancel) = &self.cancels else { return Err(Problem::new(Code::StepFailed, "it failed")) };
            cancel.cancel();
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn whatever_began_has_an_end_in_the_events() {
        for (stopped, front) in [(false, Outcome::Failed), (true, Outcome::Skipped)] {
            let told = Arc::new(Mutex::new((vec![], vec![])));
            let ear = Arc::clone(&told);
            let listener: Arc<dyn Fn(&Event) + Send + Sync> = Arc::new(move |event: &Event| {
                let mut told = ear.lock().unwrap();
                match &event.kind {
                    EventKind::PhaseStarted { phase, .. } => told.0.push(phase.to_string()),
                    EventKind::StepStarted { phase, step, .. } => told.0.push(format!("{phase}/{step}")),
                    EventKind::PhaseEnded { phase, outcome, .. } => told.1.push((phase.to_string(), *outcome)),
                    EventKind::StepEnded { phase, step, outcome, .. } => {
                        told.1.push((format!("{phase}/{step}"), *outcome))
                    }
                    _ => {}
                }
            });
            let (cancel, begun) = (CancellationToken::new(), Arc::new(Notify::new()));
            let work = |name, aside| -> Box<dyn Phase> {
                Box::new(Work { name, aside, begun: Arc::clone(&begun), cancels: stopped.then(|| cancel.clone()) })
            };
            let lab = Lab::new("lab".parse().unwrap(), crate::profile::load("1x4c12g").unwrap()).unwrap();
            let run = Run::new(lab, Mode::Apply, Arc::new(Journal::unkept(vec![listener])), cancel.clone());
            let phases = [work("aside", true), work("front", false)];
            let ended = run_flow(&run, &phases, &[NodeId::here()], &BTreeMap::new(), &BTreeMap::new()).await;
            assert!(ended.is_err());
            let (began, mut ended) = told.lock().unwrap().clone();
            assert_eq!(began.iter().collect::<std::collections::BTreeSet<_>>().len(), 4, "{began:?}");
            // A step ends before its phase.
            ended.sort_by_key(|(name, _)| name.starts_with("front"));
            let wanted = [
                ("aside/step", Outcome::Skipped),
                ("aside", Outcome::Skipped),
                ("front/step", front),
                ("front", front),
            ];
            assert_eq!(ended.iter().map(|(name, how)| (name.as_str(), *how)).collect::<Vec<_>>(), wanted);
        }
    }

    #[test]
    fn a_run_that_changed_nothing_found_everything_done() {
        let lab = Lab::new("lab".parse().unwrap(), crate::profile::load("1x4c12g").unwrap()).unwrap();
        let told = Arc::new(Mutex::new(vec![]));
        let ear = Arc::clone(&told);
        let listener: Arc<dyn Fn(&Event) + Send + Sync> = Arc::new(move |event: &Event| {
            if let EventKind::RunEnded { outcome, changed, .. } = event.kind {
                ear.lock().unwrap().push((outcome, changed));
            }
        });
        let journal = Arc::new(Journal::unkept(vec![listener]));
        let run = Run::new(lab, Mode::Apply, journal, CancellationToken::new());
        run.count(Outcome::AlreadyDone);
        for outcome in [Outcome::Changed, Outcome::Failed, Outcome::Skipped] {
            run.ended(outcome);
        }
        run.count(Outcome::Changed);
        run.ended(Outcome::Changed);
        let expected = [(Outcome::AlreadyDone, 0), (Outcome::Failed, 0), (Outcome::Skipped, 0), (Outcome::Changed, 1)];
        assert_eq!(*told.lock().unwrap(), expected);
    }
}
