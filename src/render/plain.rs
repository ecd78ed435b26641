use std::{collections::BTreeSet, io::Write};

use super::{ended_text, problem_text, took};
use crate::core::{Event, EventKind, Outcome, Timestamp, shell::printable};

/// So long nothing is said before progress is told, seconds: who reads a log wants to know that a build of ten minutes
/// goes on, and not each of its hundreds of parts.
const SILENCE: i64 = 10;

/// One line for each thing that happened, for logs and pipes.
#[derive(Default)]
pub struct Plain {
    began: Option<Timestamp>,
    /// When something was said last.
    said: Option<Timestamp>,
    /// Whether steps are told, which name what goes on.
    of_run: bool,
    /// What of no run began to be told of.
    begun: BTreeSet<String>,
    verbose: bool,
}

impl Plain {
    /// With `verbose`, steps found done and remote output are shown too.
    pub fn new(verbose: bool) -> Self {
        Self { verbose, ..Self::default() }
    }

    /// Writes the event's line, if it has one.
    pub fn event(&mut self, to: &mut dyn Write, event: &Event) {
        let began = *self.began.get_or_insert(event.at);
        let at = (event.at - began).total(jiff::Unit::Millisecond).unwrap_or(0.0).max(0.0) as u64;
        self.of_run |= matches!(event.kind, EventKind::RunStarted { .. });
        let quiet = (event.at - self.said.unwrap_or(began)).total(jiff::Unit::Second).unwrap_or(0.0) >= SILENCE as f64;
        if let Some(text) = self.first_of(event).or_else(|| self.line(event, quiet)) {
            self.said = Some(event.at);
            for line in text.lines() {
                let _ = writeln!(to, "{:>7} {line}", took(at));
            }
            let _ = to.flush();
        }
    }

    /// The line of what begins in the making of a bundle or the like, which has no steps.
    fn first_of(&mut self, event: &Event) -> Option<String> {
        let EventKind::Progress { on, what, .. } = &event.kind else { return None };
        (!self.of_run && self.begun.insert(what.clone())).then(|| format!("{on:<10} {what}"))
    }

    fn line(&self, event: &Event, quiet: bool) -> Option<String> {
        Some(match &event.kind {
            EventKind::RunStarted { flow, lab, nodes, .. } => {
                let nodes: Vec<_> = nodes.iter().map(|n| n.as_str()).collect();
                // A server that gets the gate, or loses it, is no lab.
                let lab = if nodes == [lab.as_str()] { String::new() } else { format!(" of lab {lab}") };
                format!("{flow}{lab} on {} (run {})", nodes.join(", "), event.run)
            }
            EventKind::StepStarted { phase, on, title, .. } => format!("{on:<10} {phase}: {title}"),
            EventKind::StepEnded { phase, step, on, outcome, millis } => match outcome {
                Outcome::Changed => format!("{on:<10} {phase}/{step} done in {}", took(*millis)),
                Outcome::Failed => format!("{on:<10} {phase}/{step} FAILED after {}", took(*millis)),
                Outcome::Skipped => format!("{on:<10} {phase}/{step} stopped after {}", took(*millis)),
                Outcome::AlreadyDone if self.verbose => format!("{on:<10} {phase}/{step} was done already"),
                Outcome::AlreadyDone => return None,
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
            EventKind::Progress { on, what, done, total } if quiet => {
                match done.checked_mul(100)?.checked_div(*total) {
                    Some(percent) => format!("{on:<10} {what}: {percent}%"),
                    None => format!("{on:<10} {what}"),
                }
            }
            EventKind::Progress { .. }
            | EventKind::Output { .. }
            | EventKind::PhaseStarted { .. }
            | EventKind::PhaseEnded { .. }
            | EventKind::Failure { .. } => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Code, NodeId, PhaseId, Problem, RunId, StepId};

    /// What is written for these events, one second after the other.
    fn lines(verbose: bool, kinds: Vec<EventKind>) -> Vec<String> {
        let (mut plain, mut to) = (Plain::new(verbose), vec![]);
        for (seq, kind) in (0..).zip(kinds) {
            let at = Timestamp::from_second(1_800_000_000 + seq).unwrap();
            plain.event(&mut to, &Event { run: RunId::from("r-1".to_owned()), seq: seq as u64, at, kind });
        }
        String::from_utf8(to).unwrap().lines().map(str::to_owned).collect()
    }

    fn all() -> Vec<EventKind> {
        let on: NodeId = "cp".parse().unwrap();
        let (phase, step) = (PhaseId::new("control-plane"), StepId::new("init"));
        let ended = |outcome| EventKind::StepEnded {
            phase: phase.clone(),
            step: step.clone(),
            on: on.clone(),
            outcome,
            millis: 1500,
        };
        vec![
            EventKind::RunStarted {
                flow: "up".into(),
                lab: "lab".parse().unwrap(),
                nodes: vec![NodeId::here(), on.clone()],
                phases: vec![phase.clone()],
            },
            EventKind::PhaseStarted { phase: phase.clone(), on: on.clone(), title: "start the control plane".into() },
            EventKind::StepStarted {
                phase: phase.clone(),
                step: step.clone(),
                on: on.clone(),
                title: "run kubeadm init".into(),
            },
            EventKind::Progress { on: on.clone(), what: "kubelet".into(), done: 1, total: 2 },
            EventKind::Output { on: on.clone(), line: "[init] Using".into() },
            ended(Outcome::Changed),
            ended(Outcome::AlreadyDone),
            ended(Outcome::Failed),
            EventKind::Note { on: None, text: "two\x1b[2J".into() },
            EventKind::Warning { problem: Problem::new(Code::HostTooSmall, "small").on(&on).hint("Use larger ones.") },
            EventKind::Failure { problem: Problem::new(Code::StepFailed, "init").on(&on) },
            EventKind::RunEnded { outcome: Outcome::Failed, changed: 1, unchanged: 2, millis: 11_000 },
        ]
    }

    #[test]
    fn a_line_for_what_people_want_to_know() {
        let wanted = [
            "   0.0s up of lab lab on here, cp (run r-1)",
            "   2.0s cp         control-plane: run kubeadm init",
            "   5.0s cp         control-plane/init done in 1.5s",
            "   7.0s cp         control-plane/init FAILED after 1.5s",
            "   8.0s            two\\x1b[2J",
            "   9.0s warning: KC-HOST-TOO-SMALL on cp: small",
            "   9.0s hint: Use larger ones.",
            "    11s failed in 11s: 1 step changed something, 2 were done already",
        ];
        assert_eq!(lines(false, all()), wanted);
    }

    #[test]
    fn a_server_is_no_lab() {
        let (lab, nodes, phases) = ("srv".parse().unwrap(), vec!["srv".parse().unwrap()], vec![]);
        let told = lines(false, vec![EventKind::RunStarted { flow: "hub-enroll".into(), lab, nodes, phases }]);
        assert_eq!(told, ["   0.0s hub-enroll on srv (run r-1)"]);
    }

    #[test]
    fn who_hears_nothing_for_long_is_told_how_far_it_is() {
        let progress = |done, total| EventKind::Progress { on: NodeId::here(), what: "kubernetes".into(), done, total };
        let told = lines(false, (0..25).map(|second| progress(second, 50)).collect());
        let begins = "   0.0s here       kubernetes";
        assert_eq!(told, [begins, "    10s here       kubernetes: 20%", "    20s here       kubernetes: 40%"]);
        let told = lines(false, (0..12).map(|_| progress(0, 0)).collect());
        assert_eq!(told, [begins, "    10s here       kubernetes"]);
    }

    #[test]
    fn what_has_no_steps_is_told_as_it_begins() {
        let progress = |what: &str, done| EventKind::Progress { on: NodeId::here(), what: what.into(), done, total: 9 };
        let parts = vec![progress("etcd", 0), progress("etcd", 5), progress("coredns", 0), progress("etcd", 9)];
        let told = lines(false, parts.clone());
        assert_eq!(told, ["   0.0s here       etcd", "   2.0s here       coredns"]);
        let run = lines(false, [vec![all().remove(0)], parts].concat());
        assert_eq!(run.len(), 1, "a run has steps, which are told: {run:?}");
    }

    #[test]
    fn verbose_tells_what_was_done_and_said_too() {
        let told = lines(true, all());
        assert!(told.contains(&"   4.0s cp         | [init] Using".to_owned()), "{told:#?}");
        assert!(told.contains(&"   6.0s cp         control-plane/init was done already".to_owned()), "{told:#?}");
    }
}
