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
    /// Whether it was stopped or not tried anywhere.
    pub stopped: bool,
    /// Whether it came to an end wherever it began.
    pub ended: bool,
}

impl PhaseTime {
    fn begun(phase: &PhaseId, from: u64) -> Self {
        let (phase, nodes) = (phase.clone(), BTreeMap::new());
        Self { phase, from, took: 0, nodes, changed: false, failed: false, stopped: false, ended: true }
    }

    /// What became of it, in words.
    fn result(&self) -> &'static str {
        match self {
            Self { failed: true, .. } => "failed",
            Self { ended: false, .. } => "did not end",
            Self { stopped: true, .. } => "stopped",
            Self { changed: true, .. } => "changed",
            _ => "unchanged",
        }
    }
}

/// Where the time of a run went, from its events, in the order in which phases began.
pub fn phase_times(events: &[Event]) -> Vec<PhaseTime> {
    let Some(begin) = events.first().map(|e| e.at) else { return vec![] };
    let since =
        |at: Timestamp| u64::try_from((at - begin).total(jiff::Unit::Millisecond).unwrap_or(0.0) as i64).unwrap_or(0);
    let mut times: Vec<PhaseTime> = vec![];
    // Where a phase is under way, and since when.
    let mut open: Vec<(&PhaseId, &NodeId, u64)> = vec![];
    for event in events {
        match &event.kind {
            EventKind::PhaseStarted { phase, on, .. } => {
                open.push((phase, on, since(event.at)));
                if !times.iter().any(|t| t.phase == *phase) {
                    times.push(PhaseTime::begun(phase, since(event.at)));
                }
            }
            EventKind::PhaseEnded { phase, on, outcome, millis } => {
                open.retain(|(its, node, _)| (*its, *node) != (phase, on));
                if let Some(time) = times.iter_mut().find(|t| t.phase == *phase) {
                    time.took = since(event.at).saturating_sub(time.from);
                    time.nodes.insert(on.clone(), *millis);
                    time.changed |= *outcome == Outcome::Changed;
                    time.failed |= *outcome == Outcome::Failed;
                    time.stopped |= *outcome == Outcome::Skipped;
                }
            }
            _ => {}
        }
    }
    // Cut off by a failure beside it, by Ctrl-C or with the process.
    let last = events.last().map_or(0, |e| since(e.at));
    for (phase, on, at) in open {
        if let Some(time) = times.iter_mut().find(|t| t.phase == *phase) {
            time.took = last.saturating_sub(time.from);
            time.nodes.insert(on.clone(), last.saturating_sub(at));
            time.ended = false;
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
            time.result().to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::RunId;

    /// The events of a run, one second after the other.
    fn events(kinds: Vec<EventKind>) -> Vec<Event> {
        let mut all = vec![];
        for (seq, kind) in (0..).zip(kinds) {
            let at = Timestamp::from_second(1_800_000_000 + seq).unwrap();
            all.push(Event { run: RunId::from("r-1".to_owned()), seq: seq as u64, at, kind });
        }
        all
    }

    fn begin(phase: &'static str, on: &str) -> EventKind {
        EventKind::PhaseStarted { phase: PhaseId::new(phase), on: on.parse().unwrap(), title: String::new() }
    }

    fn end(phase: &'static str, on: &str, outcome: Outcome) -> EventKind {
        EventKind::PhaseEnded { phase: PhaseId::new(phase), on: on.parse().unwrap(), outcome, millis: 1000 }
    }

    #[test]
    fn what_was_cut_off_is_not_said_to_be_unchanged() {
        let events = events(vec![
            begin("names", "cp"),
            end("names", "cp", Outcome::AlreadyDone),
            begin("kernel", "cp"),
            end("kernel", "cp", Outcome::Changed),
            begin("runtime", "cp"),
            begin("runtime", "w"),
            end("runtime", "w", Outcome::Changed),
            begin("images", "w"),
            end("images", "w", Outcome::Skipped),
            begin("verify", "w"),
            end("verify", "w", Outcome::Failed),
        ]);
        let times = phase_times(&events);
        let told: Vec<_> = times.iter().map(|t| (t.phase.as_str(), t.result(), t.took)).collect();
        let wanted = [
            ("names", "unchanged", 1000),
            ("kernel", "changed", 1000),
            ("runtime", "did not end", 6000),
            ("images", "stopped", 1000),
            ("verify", "failed", 1000),
        ];
        assert_eq!(told, wanted);
        let nodes: Vec<_> = times[2].nodes.iter().map(|(on, took)| (on.as_str(), *took)).collect();
        assert_eq!(nodes, [("cp", 6000), ("w", 1000)]);
        let text = summary_text(&events, false);
        assert!(text.lines().any(|line| line.starts_with("runtime ") && line.contains("did not end")), "{text}");
    }
}
