use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::Context;
use crate::{
    cli::{args::RunCommand, output},
    core::{Code, Event, EventKind, Outcome, Problem, Timestamp},
    engine::read_journal,
    render::{phase_times, summary_text, table, took},
};

/// One past run.
#[derive(Serialize)]
struct Past {
    run: String,
    flow: String,
    at: Timestamp,
    outcome: Option<Outcome>,
    changed: u64,
    unchanged: u64,
    millis: u64,
    log: PathBuf,
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
            let all: Vec<_> = names(&folder).iter().filter_map(|n| past(&folder, n)).collect();
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
            output::value(output, &phase_times(&events), |wide| {
                let summary = summary_text(&events, wide);
                if steps { format!("{summary}\n{}", step_text(&events)) } else { summary }
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

fn past(folder: &Path, run: &str) -> Option<Past> {
    let events = read(folder, run).ok()?;
    let first = events.first()?;
    let flow = events.iter().find_map(|e| match &e.kind {
        EventKind::RunStarted { flow, .. } => Some(flow.clone()),
        _ => None,
    });
    let ended = events.iter().rev().find_map(|e| match &e.kind {
        EventKind::RunEnded { outcome, changed, unchanged, millis } => Some((*outcome, *changed, *unchanged, *millis)),
        _ => None,
    });
    let (changed, unchanged, millis) = ended.map_or((0, 0, 0), |(_, c, u, m)| (c, u, m));
    Some(Past {
        run: run.to_owned(),
        // Its line may be one that a full disk cut off.
        flow: flow.unwrap_or_else(|| "unknown".to_owned()),
        at: first.at,
        outcome: ended.map(|(o, ..)| o),
        changed,
        unchanged,
        millis,
        log: folder.join(format!("{run}.ndjson")),
    })
}

fn listing(all: &[Past], wide: bool) -> String {
    let heading = ["RUN", "FLOW", "RESULT", "CHANGED", "TOOK"];
    let mut rows = vec![output::columns(wide, heading, ["STARTED", "UNCHANGED", "LOG"])];
    for past in all {
        let result = match past.outcome {
            Some(Outcome::Failed) => "failed",
            Some(Outcome::Skipped) => "stopped",
            Some(_) => "done",
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

/// Every step that changed something, failed or was stopped, in the order in which they ended.
fn step_text(events: &[Event]) -> String {
    let mut rows = vec![["NODE", "STEP", "RESULT", "TOOK"].map(str::to_owned).to_vec()];
    for event in events {
        if let EventKind::StepEnded { phase, step, on, outcome, millis } = &event.kind
            && *outcome != Outcome::AlreadyDone
        {
            let result = match outcome {
                Outcome::Failed => "failed",
                Outcome::Skipped => "stopped",
                Outcome::Changed | Outcome::AlreadyDone => "changed",
            };
            rows.push(vec![on.to_string(), format!("{phase}/{step}"), result.into(), took(*millis)]);
        }
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
