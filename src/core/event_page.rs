//! `docs/reference/events.md`: every kind of event, written out and checked to be fresh.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::Value;

use super::{Code, Event, EventKind, NodeId, Outcome, PhaseId, Problem, RunId, StepId, bless::assert_fresh};

/// What each key says, whatever event it stands in.
const KEYS: &[(&str, &str)] = &[
    ("changed", "How many steps changed something."),
    ("done", "How much is done, in bytes or pieces."),
    ("flow", "The flow: `up`, `reset`, `down`, `machine-make`, `hub-enroll` or `hub-unenroll`."),
    ("lab", "The lab."),
    ("line", "One line of a host's output: control characters escaped, secrets replaced by `[redacted]`."),
    ("millis", "How long it took, in milliseconds."),
    ("nodes", "Every node that the run touches; `here` is the user's own computer."),
    ("on", "The node; `null` where none is concerned."),
    ("outcome", "`changed`, `already-done`, `failed`, or `skipped`: not tried or stopped."),
    ("phase", "The phase."),
    ("phases", "The phases of the flow, in order."),
    (
        "problem",
        "What went wrong: `code` ([codes](codes.md)) and `what`; where they are known `on`, `at` (`file`, `line`, \
         `column`), `detail` (list of lines) and `hints` (list of sentences).",
    ),
    ("step", "The step within its phase."),
    ("text", "One sentence."),
    ("title", "What the phase or step does, for people."),
    ("total", "Of how much; 0 when unknown."),
    ("unchanged", "How many steps were found done."),
    ("what", "What moves, as `kubelet`."),
];

fn node() -> NodeId {
    "cp".parse().unwrap()
}

/// A sample of the kind after `last`, with one sentence about it. A new kind does not compile until it stands here.
fn after(last: Option<&EventKind>) -> Option<(EventKind, &'static str)> {
    let (phase, step, on) = (PhaseId::new("control-plane"), StepId::new("init"), node());
    let problem = || Problem::new(Code::StepFailed, "control-plane/init: failed").on(&node());
    let (outcome, millis) = (Outcome::Changed, 1500);
    Some(match last {
        None => {
            let lab = "lab".parse().unwrap();
            let kind = EventKind::RunStarted { flow: "up".into(), lab, nodes: vec![on], phases: vec![phase] };
            (kind, "A run begins.")
        }
        Some(EventKind::RunStarted { .. }) => {
            let title = "start the control plane".into();
            (EventKind::PhaseStarted { phase, on, title }, "A node reaches a phase.")
        }
        Some(EventKind::PhaseStarted { .. }) => {
            (EventKind::PhaseEnded { phase, on, outcome, millis }, "A node leaves a phase.")
        }
        Some(EventKind::PhaseEnded { .. }) => {
            let title = "run kubeadm init".into();
            (EventKind::StepStarted { phase, step, on, title }, "A change begins; steps found done have no start.")
        }
        Some(EventKind::StepStarted { .. }) => {
            (EventKind::StepEnded { phase, step, on, outcome, millis }, "A step ended, or was found done.")
        }
        Some(EventKind::StepEnded { .. }) => {
            let kind = EventKind::Progress { on, what: "kubelet".into(), done: 1024, total: 4096 };
            (kind, "Something countable moves on. It is not kept in the run log.")
        }
        Some(EventKind::Progress { .. }) => {
            (EventKind::Output { on, line: "[init] Using Kubernetes version".into() }, "A host said something.")
        }
        Some(EventKind::Output { .. }) => {
            (EventKind::Note { on: Some(on), text: "starting the machine".into() }, "Something worth knowing.")
        }
        Some(EventKind::Note { .. }) => {
            (EventKind::Warning { problem: problem() }, "Something to look at that does not stop the run.")
        }
        Some(EventKind::Warning { .. }) => {
            (EventKind::Failure { problem: problem() }, "Something that stopped a node or the run.")
        }
        Some(EventKind::Failure { .. }) => {
            let kind = EventKind::RunEnded { outcome, changed: 40, unchanged: 3, millis };
            (kind, "The run ended. Without it the process was killed.")
        }
        Some(EventKind::RunEnded { .. }) => return None,
    })
}

#[test]
fn committed_events_are_fresh() {
    let mut page = "# Events\n\nMade from `src/core/event.rs`; a test keeps it fresh: `KUBECAMP_BLESS=1 cargo test --lib \
                    core::event_page` writes it anew.\n\nA run tells what happens as events, one JSON object on each line: on \
                    standard output with `--output-events ndjson`, and in the lab's folder as `runs/RUN.ndjson`. New kinds \
                    and keys may be added; those here keep their meaning.\n\nEach event has `run` (its run), `seq` (1, 2, 3 \
                    and so on in the run), `at` (RFC 3339, UTC) and `kind`, whose `type` is one of these:\n"
        .to_owned();
    let mut used = BTreeMap::new();
    let (mut last, mut seq): (Option<EventKind>, u64) = (None, 0);
    while let Some((kind, about)) = after(last.as_ref()) {
        seq += 1;
        let at = "2026-01-02T03:04:05Z".parse().unwrap();
        let event = Event { run: RunId::from("20260102T030405-abcd".to_owned()), seq, at, kind: kind.clone() };
        let value = serde_json::to_value(&event).unwrap();
        let fields = value["kind"].as_object().unwrap();
        let keys: Vec<_> = fields.keys().filter(|k| *k != "type").collect();
        let list: Vec<_> = keys.iter().map(|k| format!("`{k}`")).collect();
        let name = fields["type"].as_str().unwrap();
        let line = serde_json::to_string(&event).unwrap();
        write!(page, "\n## {name}\n\n{about} Keys: {}.\n\n```json\n{line}\n```\n", list.join(", ")).unwrap();
        used.extend(keys.into_iter().map(|k| (k.clone(), Value::Null)));
        let back: Event = serde_json::from_str(&line).unwrap();
        assert_eq!(serde_json::to_value(&back).unwrap(), value, "{name} reads back as something else");
        last = Some(kind);
    }
    let known: Vec<_> = KEYS.iter().map(|(key, _)| *key).collect();
    assert_eq!(used.keys().map(String::as_str).collect::<Vec<_>>(), known, "KEYS and the events differ");
    page.push_str("\n## Keys\n\n| Key | What it says |\n|---|---|\n");
    KEYS.iter().for_each(|(key, says)| writeln!(page, "| `{key}` | {says} |").unwrap());
    assert_fresh("docs/reference/events.md", &page, "core::event_page");
}
