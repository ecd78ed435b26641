use std::io::Write;

use super::{ended_text, problem_text, took};
use crate::core::{Event, EventKind, Outcome, Timestamp, shell::printable};

/// One line for each thing that happened, for logs and pipes.
#[derive(Default)]
pub struct Plain {
    began: Option<Timestamp>,
    verbose: bool,
}

impl Plain {
    /// With `verbose`, steps found done and remote output are shown too.
    pub fn new(verbose: bool) -> Self {
        Self { began: None, verbose }
    }

    /// Writes the event's line, if it has one.
    pub fn event(&mut self, to: &mut dyn Write, event: &Event) {
        let began = *self.began.get_or_insert(event.at);
        let at = (event.at - began).total(jiff::Unit::Millisecond).unwrap_or(0.0).max(0.0) as u64;
        if let Some(text) = self.line(event) {
            for line in text.lines() {
                let _ = writeln!(to, "{:>7} {line}", took(at));
            }
            let _ = to.flush();
        }
    }

    fn line(&self, event: &Event) -> Option<String> {
        Some(match &event.kind {
            EventKind::RunStarted { flow, lab, nodes, .. } => {
                let nodes: Vec<_> = nodes.iter().map(|n| n.as_str()).collect();
                format!("{flow} of lab {lab} on {} (run {})", nodes.join(", "), event.run)
            }
            EventKind::StepStarted { phase, on, title, .. } => format!("{on:<10} {phase}: {title}"),
            EventKind::StepEnded { phase, step, on, outcome, millis } => match outcome {
                Outcome::Changed => format!("{on:<10} {phase}/{step} done in {}", took(*millis)),
                Outcome::Failed => format!("{on:<10} {phase}/{step} FAILED after {}", took(*millis)),
                _ if self.verbose => format!("{on:<10} {phase}/{step} was done already"),
                _ => return None,
            },
            EventKind::Note { on, text } => {
                let on = on.as_ref().map(ToString::to_string).unwrap_or_default();
                format!("{on:<10} {}", printable(text))
            }
            EventKind::Warning { problem } => problem_text(problem).replacen("error:", "warning:", 1),
            EventKind::Output { on, line } if self.verbose => format!("{on:<10} | {line}"),
            EventKind::RunEnded { outcome, changed, unchanged, millis } => {
                ended_text(*outcome, *changed, *unchanged, *millis)
            }
            EventKind::Progress { .. }
            | EventKind::Output { .. }
            | EventKind::PhaseStarted { .. }
            | EventKind::PhaseEnded { .. }
            | EventKind::Failure { .. } => return None,
        })
    }
}
