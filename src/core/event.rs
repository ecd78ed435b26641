use serde::{Deserialize, Serialize};

use super::{LabName, NodeId, PhaseId, Problem, RunId, StepId};

/// A point in time, as RFC 3339 in UTC when written.
pub type Timestamp = jiff::Timestamp;

/// One thing that happened in a run: what the journal keeps and every renderer reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// The run it belongs to.
    pub run: RunId,
    /// Its place in the run, from 1 without gaps.
    pub seq: u64,
    /// When it happened by this computer's clock.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
}

/// How a step or a phase ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was already as wanted: nothing was changed.
    AlreadyDone,
    /// It was changed to what is wanted.
    Changed,
    /// It failed.
    Failed,
    /// It was not tried or stopped in its midst: something it needs or beside it failed, or the run was cancelled.
    Skipped,
}

/// What can happen in a run.
///
/// Owned data only, so that a run can be recorded and replayed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum EventKind {
    /// A run begins.
    RunStarted {
        /// The flow's name, as `up`.
        flow: String,
        /// The lab it works on.
        lab: LabName,
        /// Every node that it will touch, `here` included.
        nodes: Vec<NodeId>,
        /// Its phases in order.
        phases: Vec<PhaseId>,
    },
    /// A phase begins on a node.
    PhaseStarted {
        /// The phase.
        phase: PhaseId,
        /// The node.
        on: NodeId,
        /// What the phase does, for people.
        title: String,
    },
    /// A phase ended on a node.
    PhaseEnded {
        /// The phase.
        phase: PhaseId,
        /// The node.
        on: NodeId,
        /// How it ended.
        outcome: Outcome,
        /// How long it took there.
        millis: u64,
    },
    /// A change begins (steps found done have no start).
    StepStarted {
        /// The phase.
        phase: PhaseId,
        /// The step.
        step: StepId,
        /// The node.
        on: NodeId,
        /// What the step does, for people.
        title: String,
    },
    /// A step ended.
    StepEnded {
        /// The phase.
        phase: PhaseId,
        /// The step.
        step: StepId,
        /// The node.
        on: NodeId,
        /// How it ended.
        outcome: Outcome,
        /// How long it took.
        millis: u64,
    },
    /// Something countable moves on: an upload, a build, a boot.
    Progress {
        /// The node it concerns.
        on: NodeId,
        /// What moves, as `kubelet` or `node image`.
        what: String,
        /// How much is done, in bytes or pieces.
        done: u64,
        /// Of how much; 0 when unknown.
        total: u64,
    },
    /// A line of foreign output, secrets redacted; for the log, not for the screen.
    Output {
        /// The node it came from.
        on: NodeId,
        /// The line.
        line: String,
    },
    /// Something worth knowing that is not a problem.
    Note {
        /// The node it concerns.
        on: Option<NodeId>,
        /// One sentence.
        text: String,
    },
    /// Something that should be looked at but does not stop the run.
    Warning {
        /// What it is.
        problem: Problem,
    },
    /// Something that stopped a node or the run.
    Failure {
        /// What it is.
        problem: Problem,
    },
    /// The run ended.
    RunEnded {
        /// How it ended.
        outcome: Outcome,
        /// How many steps changed something.
        changed: u64,
        /// How many were found done.
        unchanged: u64,
        /// How long it took.
        millis: u64,
    },
}

/// Where rooms below the engine tell what they do; the engine numbers, times and records it.
pub trait Report: Send + Sync {
    /// Takes one happening; never blocks for long.
    fn event(&self, kind: EventKind);

    /// Tells of progress.
    fn progress(&self, on: &NodeId, what: &str, done: u64, total: u64) {
        self.event(EventKind::Progress { on: on.clone(), what: what.to_owned(), done, total });
    }

    /// Tells something worth knowing about `on`.
    fn note(&self, on: &NodeId, text: &str) {
        self.event(EventKind::Note { on: Some(on.clone()), text: text.to_owned() });
    }
}

/// A [`Report`] that nobody reads.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Report for Quiet {
    fn event(&self, _: EventKind) {}
}
