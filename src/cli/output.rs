//! The only place that writes to standard output and error. Data goes to the first, all else to the second.

use std::{
    borrow::Cow,
    ffi::OsStr,
    io::{self, IsTerminal, Write},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::Serialize;
use serde_json::{Value, json};

use super::{hints::for_lab, hub_client::Near};
use crate::{
    core::{Code, Event, EventKind, Hint, Problem, Problems},
    render::{Bars, Plain, ndjson, problems_text},
};

/// How a command's data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns.
    Table,
    /// Columns, more of them.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Writes data to standard output.
pub fn data(text: &str) {
    let mut out = io::stdout();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Why data was lost first; a process has one standard output, and so has this.
static LOST: Mutex<Option<io::Error>> = Mutex::new(None);

/// Takes what came of a write to standard output: a command goes on to its end without it, and is no success then.
///
/// A reader that went away has seen what it wanted.
pub fn written(result: io::Result<()>) {
    if let Err(error) = result
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        LOST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Why not all data came to standard output; told once.
pub fn lost() -> Option<Problem> {
    let error = LOST.lock().unwrap_or_else(PoisonError::into_inner).take()?;
    let problem =
        Problem::new(Code::LocalFile, "standard output could not be written, so that the result is not whole");
    Some(problem.hint("Free some space where it goes, or send it elsewhere, and run the command again.").because(error))
}

/// The bars of the run that is shown; a process has one terminal, and so has this.
static BARS: Mutex<Weak<Mutex<Bars>>> = Mutex::new(Weak::new());

/// The screen without bars until this is dropped.
pub struct Aside(Option<Arc<Mutex<Bars>>>);

/// Moves the bars aside, where there are any: what is written meanwhile stays readable.
pub fn aside() -> Aside {
    let bars = BARS.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
    if let Some(bars) = &bars {
        locked(bars).hide();
    }
    Aside(bars)
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(bars) = &self.0 {
            locked(bars).show();
        }
    }
}

fn locked(bars: &Mutex<Bars>) -> MutexGuard<'_, Bars> {
    bars.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a line for people to standard error.
pub fn say(text: &str) {
    let _aside = aside();
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes `value` as `format`, or as the text that `table` makes; it is told whether that is to be wide.
pub fn value<T: Serialize>(format: Format, value: &T, table: impl FnOnce(bool) -> String) -> Result<(), Problem> {
    let fail = |e: String| Problem::new(Code::Internal, format!("the result cannot be written: {e}"));
    match format {
        Format::Table | Format::Wide => data(&table(format == Format::Wide)),
        Format::Json => data(&format!("{}\n", serde_json::to_string_pretty(value).map_err(|e| fail(e.to_string()))?)),
        Format::Yaml => data(&serde_yaml::to_string(value).map_err(|e| fail(e.to_string()))?),
    }
    Ok(())
}

/// A row of a table: `plain`, and in a wide one also `more`.
pub fn columns<P: ToString, M: ToString>(
    wide: bool,
    plain: impl IntoIterator<Item = P>,
    more: impl IntoIterator<Item = M>,
) -> Vec<String> {
    let mut row: Vec<_> = plain.into_iter().map(|c| c.to_string()).collect();
    if wide {
        row.extend(more.into_iter().map(|c| c.to_string()));
    }
    row
}

/// Whether problems are for a program.
static FOR_PROGRAMS: AtomicBool = AtomicBool::new(false);

/// From here on problems are written as JSON: who reads a command's data by program reads why there is none so too.
pub fn problems_as_json() {
    FOR_PROGRAMS.store(true, Ordering::Relaxed);
}

/// The flag that names the lab; a process works on one, and so has this.
static LAB: OnceLock<String> = OnceLock::new();

/// From here on what problems hint at names this lab where a command would mean another one without.
pub fn problems_of(flag: String) {
    let _ = LAB.set(flag);
}

/// A problem with all its hints, which name this process's lab where a command would mean another one without.
fn of_lab(problem: &Problem) -> Problem {
    let named = for_lab(problem.clone(), LAB.get().map_or("", String::as_str));
    let hints = named.all_hints().into_iter().map(Hint).collect();
    Problem { hints, ..named }
}

/// What to do about a problem, for data that tells of it.
pub fn hints(problem: &Problem) -> Vec<String> {
    of_lab(problem).all_hints()
}

/// An event as it is shown: its problem hints at the same things as one that is told elsewhere.
fn shown(event: &Event) -> Cow<'_, Event> {
    let mut shown = match event.kind {
        EventKind::Warning { .. } | EventKind::Failure { .. } => event.clone(),
        _ => return Cow::Borrowed(event),
    };
    if let EventKind::Warning { problem } | EventKind::Failure { problem } = &mut shown.kind {
        *problem = of_lab(problem);
    }
    Cow::Owned(shown)
}

/// Writes problems to standard error.
pub fn problems(problems: &Problems) {
    let problems: Problems = problems.iter().map(of_lab).collect::<Vec<_>>().into();
    let text = match FOR_PROGRAMS.load(Ordering::Relaxed) {
        true => problems_json(&problems),
        false => problems_text(&problems),
    };
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Problems as one object in one line, which is told from notes before it by that.
fn problems_json(problems: &Problems) -> String {
    let value = |problem: &Problem| -> Value {
        let mut value = json!(problem);
        value["hints"] = json!(problem.all_hints());
        if let Some(near) = problem.source.as_ref().and_then(|source| source.downcast_ref::<Near>()) {
            value["alternatives"] = json!(near.0);
        }
        value
    };
    format!("{}\n", json!({ "problems": problems.iter().map(value).collect::<Vec<_>>() }))
}

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// A line per host that moves.
    Bars,
    /// One line for each thing that happens.
    Plain,
    /// Events as JSON on standard output.
    Ndjson,
}

impl Show {
    /// Bars on a terminal that can move its cursor, else plain lines.
    pub fn choose(plain: bool, events: bool) -> Self {
        let moves = io::stderr().is_terminal() && can_move(std::env::var_os("TERM").as_deref());
        match (events, plain || !moves) {
            (true, _) => Self::Ndjson,
            (false, true) => Self::Plain,
            (false, false) => Self::Bars,
        }
    }

    /// The renderer for it.
    pub fn listener(self, verbose: bool) -> Arc<dyn Fn(&Event) + Send + Sync> {
        match self {
            Self::Ndjson => Arc::new(|event| written(ndjson(&mut io::stdout(), &shown(event)))),
            Self::Plain => {
                let plain = Mutex::new(Plain::new(verbose));
                Arc::new(move |event| {
                    plain.lock().unwrap_or_else(PoisonError::into_inner).event(&mut io::stderr(), &shown(event));
                })
            }
            Self::Bars => {
                let bars = Arc::new(Mutex::new(Bars::new(verbose)));
                *BARS.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&bars);
                Arc::new(move |event| locked(&bars).event(&shown(event)))
            }
        }
    }
}

/// Whether a terminal that `TERM` calls so can draw over what it shows. On one that cannot, bars would show nothing at all.
fn can_move(term: Option<&OsStr>) -> bool {
    term.is_some_and(|term| !term.is_empty() && term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{RunId, Timestamp};

    #[test]
    fn problems_for_programs_are_one_line_with_what_can_be_had() {
        let free = json!([{ "server": "one", "window": { "starts": 1_795_467_600, "ends": 1_795_474_800 } }]);
        let mut taken = Problem::new(Code::BookConflict, "it is taken").detail(["free: one"]);
        taken.source = Some(Arc::new(Near(serde_json::from_value(free.clone()).unwrap())));
        let text = problems_json(&vec![taken, Problem::new(Code::Usage, "no\nway").hint("Go.")].into());
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let all: Value = serde_json::from_str(&text).unwrap();
        let (first, second) = (&all["problems"][0], &all["problems"][1]);
        assert_eq!((&first["code"], &first["detail"][0]), (&json!("KC-BOOK-CONFLICT"), &json!("free: one")));
        assert_eq!(first["hints"], json!([Code::BookConflict.hint()]));
        assert_eq!(first["alternatives"][0]["window"], free[0]["window"]);
        assert_eq!((&second["hints"], second.get("alternatives")), (&json!(["Go."]), None));
    }

    #[test]
    fn data_and_events_tell_the_same_hints_as_problems_do() {
        // The lab of this process: no other test has a hint with a command of a lab that names none.
        problems_of(" --name team7".to_owned());
        let of_code = Problem::new(Code::ClusterLost, "gone");
        let own = of_code.clone().hint("kubecamp up --name x, or kubecamp status.");
        for (problem, wanted) in [
            (of_code, "Run kubecamp --name team7 reset, then kubecamp --name team7 up."),
            (own, "kubecamp up --name x, or kubecamp --name team7 status."),
            (Problem::new(Code::HostUnreachable, "silent"), Code::HostUnreachable.hint()),
        ] {
            assert_eq!(hints(&problem), [wanted]);
            let event = |kind| Event { run: RunId::new("r"), seq: 1, at: Timestamp::UNIX_EPOCH, kind };
            for kind in [EventKind::Warning { problem: problem.clone() }, EventKind::Failure { problem }] {
                let mut line = vec![];
                ndjson(&mut line, &shown(&event(kind))).unwrap();
                let told: Value = serde_json::from_slice(&line).unwrap();
                assert_eq!(told["kind"]["problem"]["hints"], json!([wanted]));
            }
            let note = event(EventKind::Note { on: None, text: "kubecamp up".to_owned() });
            assert!(matches!(shown(&note), Cow::Borrowed(_)));
        }
    }

    #[test]
    fn lines_move_only_where_the_terminal_says_that_it_can() {
        for (term, moves) in [(None, false), (Some(""), false), (Some("dumb"), false), (Some("xterm"), true)] {
            assert_eq!(can_move(term.map(OsStr::new)), moves, "{term:?}");
        }
    }
}
