use std::collections::BTreeMap;

use super::{table, took};
use crate::core::{Event, EventKind, NodeId, Outcome, PhaseId, Timestamp};

/// When and how long one phase ran, over all nodes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PhaseTime {
    /// The phase.
    pub phase: PhaseId,
    /// From the run's begin to the phase's first begin on any node, in milliseconds.
    pub from: u64,
    /// From there to its last end, in milliseconds.
    pub took: u64,
    /// How long each node spent in it, in milliseconds.
    pub nodes: BTreeMap<NodeId, u64>,
    /// Whether it changed anything anywhere.
    pub changed: bool,
    /// Whether it failed anywhere.
    pub failed: bool,
}

/// Where the time of a run went, from its events, in the order in which phases began.
pub fn phase_times(events: &[Event]) -> Vec<PhaseTime> {
    let Some(begin) = events.first().map(|e| e.at) else { return vec![] };
    let since =
        |at: Timestamp| u64::try_from((at - begin).total(jiff::Unit::Millisecond).unwrap_or(0.0) as i64).unwrap_or(0);
    let mut times: Vec<PhaseTime> = vec![];
    for event in events {
        match &event.kind {
            EventKind::PhaseStarted { phase, .. } if !times.iter().any(|t| t.phase == *phase) => {
                times.push(PhaseTime {
                    phase: phase.clone(),
                    from: since(event.at),
                    took: 0,
                    nodes: BTreeMap::new(),
                    changed: false,
                    failed: false,
                })
            }
            EventKind::PhaseEnded { phase, on, outcome, millis } => {
                if let Some(time) = times.iter_mut().find(|t| t.phase == *phase) {
                    time.took = since(event.at).saturating_sub(time.from);
                    time.nodes.insert(on.clone(), *millis);
                    time.changed |= *outcome == Outcome::Changed;
                    time.failed |= *outcome == Outcome::Failed;
                }
            }
            _ => {}
        }
    }
    times
}

/// A table of where the time went; a wide one has what each node spent too.
pub fn summary_text(events: &[Event], wide: bool) -> String {
    let times = phase_times(events);
    let mut rows = vec![["PHASE", "AT", "TOOK", "RESULT", "SLOWEST"].map(str::to_owned).to_vec()];
    if wide {
        rows[0].push("NODES".into());
    }
    for time in &times {
        let slowest = time.nodes.iter().max_by_key(|(_, ms)| **ms);
        let mut row = vec![
            time.phase.to_string(),
            took(time.from),
            took(time.took),
            if time.failed {
                "failed"
            } else if time.changed {
                "changed"
            } else {
                "unchanged"
            }
            .to_owned(),
            slowest.map(|(on, ms)| format!("{on} {}", took(*ms))).unwrap_or_default(),
        ];
        if wide {
            let each = time.nodes.iter().map(|(on, ms)| format!("{on} {}", took(*ms)));
            row.push(each.collect::<Vec<_>>().join(", "));
        }
        rows.push(row);
    }
    table(&rows)
}
