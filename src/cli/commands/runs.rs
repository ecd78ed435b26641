use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::Serialize;

use super::Context;
use crate::{
    cli::{args::RunCommand, output},
    core::{Code, Event, EventKind, NodeId, Outcome, PhaseId, Problem, StepId, Timestamp},
    engine::{Lock, read_journal},
    render::{PhaseTime, phase_times, summary_text, table, took},
};

/// One past run.
#[derive(Serialize)]
struct Past {
    run: String,
    flow: String,
    at: Timestamp,
    outcome: Option<Outcome>,
    /// Whether it did not end because it goes on.
    at_work: bool,
    changed: u64,
    unchanged: u64,
    millis: u64,
    log: PathBuf,
}

/// One past run with all of its steps.
#[derive(Serialize)]
struct Whole {
    run: String,
    flow: String,
    outcome: Option<Outcome>,
    phases: Vec<PhaseTime>,
    steps: Vec<StepTime>,
}

/// A step of a run; without an outcome it was under way when the run was cut off.
#[derive(Serialize)]
struct StepTime {
    phase: PhaseId,
    step: StepId,
    on: NodeId,
    outcome: Option<Outcome>,
    millis: u64,
}

/// `kubecamp run`.
pub(super) fn runs(cx: &Context, command: RunCommand) -> Result<(), Problem> {
    let folder = cx.store.file("runs");
    // Runs outlive their lab, and one that failed early leaves no lab behind.
    if names(&folder).is_empty() {
        cx.store.need(&cx.global.name)?;
    }
    match command {
        RunCommand::List { output } => {
            let held = Lock::holder(cx.store.folder()).map(|holder| holder.since);
            let all: Vec<_> = names(&folder).iter().filter_map(|n| past(&folder, n, held)).collect();
            output::value(output, &all, |wide| listing(&all, wide))
        }
        RunCommand::Show { run, steps, output } => {
            let name = run.or_else(|| names(&folder).pop());
            let name = name.ok_or_else(|| {
                Problem::new(Code::Usage, format!("the lab {} has no runs yet", cx.global.name))
                    .hint("Each up, reset and down makes one.")
            })?;
            if !names(&folder).contains(&name) {
                return Err(unknown(cx, &name));
            }
            let events = read(&folder, &name)?;
            if !steps {
                return output::value(output, &phase_times(&events), |wide| summary_text(&events, wide));
            }
            let whole = Whole {
                flow: flow(&events),
                outcome: ended(&events).map(|(outcome, ..)| outcome),
                phases: phase_times(&events),
                steps: step_times(&events),
                run: name,
            };
            output::value(output, &whole, |wide| {
                format!("{}\n{}", summary_text(&events, wide), step_text(&whole.steps))
            })
        }
    }
}

/// The problem of a run that the lab does not have.
fn unknown(cx: &Context, run: &str) -> Problem {
    let lab = &cx.global.name;
    Problem::new(Code::Usage, format!("the lab {lab} has no run {run}"))
        .hint(format!("kubecamp run list --name {lab} lists them; without a run, the last one is shown."))
}

/// The runs of a folder by when they began: a run's name knows only the second.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let name =
        |e: std::io::Result<fs::DirEntry>| Some(e.ok()?.file_name().to_str()?.strip_suffix(".ndjson")?.to_owned());
    let mut names: Vec<_> = entries.filter_map(name).map(|n| (began(&folder.join(format!("{n}.ndjson"))), n)).collect();
    names.sort();
    names.into_iter().map(|(_, name)| name).collect()
}

/// When a run began, by its first event that can be read.
fn began(log: &Path) -> Option<Timestamp> {
    let lines = BufReader::new(fs::File::open(log).ok()?).split(b'\n').map_while(Result::ok);
    lines.filter_map(|line| serde_json::from_slice::<Event>(&line).ok()).map(|event| event.at).next()
}

fn read(folder: &Path, name: &str) -> Result<Vec<Event>, Problem> {
    read_journal(&folder.join(format!("{name}.ndjson")))
}

/// A run as its log has it; `held` is since when a run holds the lab, which is the one that began after that and has no end.
fn past(folder: &Path, run: &str, held: Option<SystemTime>) -> Option<Past> {
    let events = read(folder, run).ok()?;
    let (first, last) = (events.first()?, events.last()?);
    let ended = ended(&events);
    let counted = |wanted: Outcome| {
        let is = |e: &&Event| matches!(e.kind, EventKind::StepEnded { outcome, .. } if outcome == wanted);
        events.iter().filter(is).count() as u64
    };
    // One that was killed could not say what it had done, and had done it all the same.
    let so_far = || (counted(Outcome::Changed), counted(Outcome::AlreadyDone), millis_between(first, last));
    let (changed, unchanged, millis) = ended.map_or_else(so_far, |(_, c, u, m)| (c, u, m));
    Some(Past {
        run: run.to_owned(),
        flow: flow(&events),
        at: first.at,
        outcome: ended.map(|(o, ..)| o),
        at_work: ended.is_none() && held.is_some_and(|since| SystemTime::from(first.at) >= since),
        changed,
        unchanged,
        millis,
        log: folder.join(format!("{run}.ndjson")),
    })
}

/// The flow of a run; its line may be one that a full disk cut off.
fn flow(events: &[Event]) -> String {
    let flow = events.iter().find_map(|e| match &e.kind {
        EventKind::RunStarted { flow, .. } => Some(flow.clone()),
        _ => None,
    });
    flow.unwrap_or_else(|| "unknown".to_owned())
}

/// How a run ended: its outcome, how many steps changed something, how many were found done, how long it took.
fn ended(events: &[Event]) -> Option<(Outcome, u64, u64, u64)> {
    events.iter().rev().find_map(|e| match &e.kind {
        EventKind::RunEnded { outcome, changed, unchanged, millis } => Some((*outcome, *changed, *unchanged, *millis)),
        _ => None,
    })
}

fn millis_between(first: &Event, last: &Event) -> u64 {
    u64::try_from(last.at.as_millisecond() - first.at.as_millisecond()).unwrap_or(0)
}

fn listing(all: &[Past], wide: bool) -> String {
    let heading = ["RUN", "FLOW", "RESULT", "CHANGED", "TOOK"];
    let mut rows = vec![output::columns(wide, heading, ["STARTED", "UNCHANGED", "LOG"])];
    for past in all {
        let result = match past.outcome {
            Some(Outcome::Failed) => "failed",
            Some(Outcome::Skipped) => "stopped",
            Some(_) => "done",
            None if past.at_work => "at work",
            None => "did not end",
        };
        let log = past.log.display().to_string();
        rows.push(output::columns(
            wide,
            [&past.run, &past.flow, result, &past.changed.to_string(), &took(past.millis)],
            [past.at.to_string(), past.unchanged.to_string(), log],
        ));
    }
    table(&rows)
}

/// Every step of a run in the order in which they ended, then those that were cut off.
fn step_times(events: &[Event]) -> Vec<StepTime> {
    let (mut times, mut open) = (vec![], vec![]);
    for event in events {
        match &event.kind {
            EventKind::StepStarted { phase, step, on, .. } => open.push((phase, step, on, event)),
            EventKind::StepEnded { phase, step, on, outcome, millis } => {
                open.retain(|(of, its, node, _)| (*of, *its, *node) != (phase, step, on));
                let (phase, step, on) = (phase.clone(), step.clone(), on.clone());
                times.push(StepTime { phase, step, on, outcome: Some(*outcome), millis: *millis });
            }
            _ => {}
        }
    }
    for (phase, step, on, began) in open {
        let millis = events.last().map_or(0, |last| millis_between(began, last));
        times.push(StepTime { phase: phase.clone(), step: step.clone(), on: on.clone(), outcome: None, millis });
    }
    times
}

/// The steps that changed something, failed, were stopped or cut off.
fn step_text(steps: &[StepTime]) -> String {
    let mut rows = vec![["NODE", "STEP", "RESULT", "TOOK"].map(str::to_owned).to_vec()];
    for StepTime { phase, step, on, outcome, millis } in steps {
        let result = match outcome {
            Some(Outcome::AlreadyDone) => continue,
            Some(Outcome::Changed) => "changed",
            Some(Outcome::Failed) => "failed",
            Some(Outcome::Skipped) => "stopped",
            None => "did not end",
        };
        rows.push(vec![on.to_string(), format!("{phase}/{step}"), result.into(), took(*millis)]);
    }
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_there_is_not_is_no_damaged_file() {
        let dir = tempfile::tempdir().unwrap();
        let cx = Context::of_test(dir.path());
        let folder = cx.store.file("runs");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("20261123T174500-aaaa.ndjson"), "").unwrap();
        let show = RunCommand::Show { run: Some("nope".into()), steps: false, output: output::Format::Table };
        let problem = runs(&cx, show).unwrap_err();
        assert_eq!((problem.code, problem.what.as_str()), (Code::Usage, "the lab lab has no run nope"));
        assert!(problem.all_hints()[0].starts_with("kubecamp run list --name lab"), "{problem}");
    }

    /// The log of a run that was killed in the midst of its third step.
    const KILLED: &str = r#"{"run":"r","seq":1,"at":"2026-11-23T17:45:00Z","kind":{"type":"run-started","flow":"up","lab":"lab","nodes":["cp"],"phases":["kernel"]}}
{"run":"r","seq":2,"at":"2026-11-23T17:45:01Z","kind":{"type":"step-started","phase":"kernel","step":"modules","on":"cp","title":"load modules"}}
{"run":"r","seq":3,"at":"2026-11-23T17:45:03Z","kind":{"type":"step-ended","phase":"kernel","step":"modules","on":"cp","outcome":"changed","millis":2000}}
{"run":"r","seq":4,"at":"2026-11-23T17:45:03Z","kind":{"type":"step-ended","phase":"kernel","step":"found","on":"cp","outcome":"already-done","millis":0}}
{"run":"r","seq":5,"at":"2026-11-23T17:45:04Z","kind":{"type":"step-started","phase":"kernel","step":"sysctl","on":"cp","title":"set"}}
{"run":"r","seq":6,"at":"2026-11-23T17:45:09Z","kind":{"type":"output","on":"cp","line":"x"}}
"#;

    #[test]
    fn a_run_that_was_killed_shows_what_it_had_done() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("r.ndjson"), KILLED).unwrap();
        let began = |at: &str| SystemTime::from(at.parse::<Timestamp>().unwrap());
        for (held, word) in [(began("2026-11-23T17:45:00Z"), "at work"), (began("2026-11-23T17:46:00Z"), "did not end")]
        {
            let text = listing(&[past(dir.path(), "r", Some(held)).unwrap()], false);
            assert!(text.contains(word), "{text}");
        }
        let past = past(dir.path(), "r", None).unwrap();
        let told = (past.flow.as_str(), past.outcome, past.changed, past.unchanged, past.millis);
        assert_eq!(told, ("up", None, 1, 1, 9000));
        assert!(listing(&[past], false).contains("did not end"));
        let steps = step_times(&read(dir.path(), "r").unwrap());
        let told: Vec<_> = steps.iter().map(|s| (s.step.to_string(), s.outcome, s.millis)).collect();
        let wanted = [
            ("modules".to_owned(), Some(Outcome::Changed), 2000),
            ("found".to_owned(), Some(Outcome::AlreadyDone), 0),
            ("sysctl".to_owned(), None, 5000),
        ];
        assert_eq!(told, wanted);
        let text = step_text(&steps);
        assert!(text.contains("kernel/sysctl") && text.contains("did not end") && !text.contains("found"), "{text}");
    }

    #[test]
    fn runs_of_one_second_come_in_the_order_in_which_they_began() {
        let dir = tempfile::tempdir().unwrap();
        let log = |name: &str, at: &str| {
            let event =
                format!(r#"{{"run":"{name}","seq":1,"at":"{at}","kind":{{"type":"note","on":null,"text":"x"}}}}"#);
            fs::write(dir.path().join(format!("{name}.ndjson")), event + "\n").unwrap();
        };
        log("20261123T174500-zzzz", "2026-11-23T17:45:00.1Z");
        log("20261123T174500-mmmm", "2026-11-23T17:45:00.2Z");
        log("20261123T174500-aaaa", "2026-11-23T17:45:00.30001Z");
        log("20261123T174459-bbbb", "2026-11-23T17:44:59.9Z");
        let tails: Vec<_> = names(dir.path()).iter().map(|n| n[16..].to_owned()).collect();
        assert_eq!(tails, ["bbbb", "zzzz", "mmmm", "aaaa"]);
    }
}
