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

    /// Tells how the run ended. One that went well and changed nothing found everything done.
    pub fn ended(&self, outcome: Outcome) {
        let (changed, unchanged) = (self.changed.load(Ordering::Relaxed), self.unchanged.load(Ordering::Relaxed));
        let outcome = if outcome == Outcome::Changed && changed == 0 { Outcome::AlreadyDone } else { outcome };
        self.journal.event(EventKind::RunEnded { outcome, changed, unchanged, millis: self.journal.millis() });
    }
}

/// Runs `phases` in order on each of `nodes`, the nodes side by side; a node waits for another only where a step
/// needs it. A failed node ends its own lane and those that need it; the others go on to their end.
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
    use super::*;
    use crate::core::Event;

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
