use std::{
    fs::{self, File, Permissions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Instant,
};

use crate::core::{
    Code, Event, EventKind, NodeId, Outcome, PhaseId, Problem, Report, RunId, Secret, StepId, Timestamp,
    shell::printable,
};

/// Reads events as they are recorded; a renderer.
pub type Listener = Arc<dyn Fn(&Event) + Send + Sync>;

/// Numbers, times, redacts and records every event of a run, then hands it to the renderers.
pub struct Journal {
    run: RunId,
    path: Option<PathBuf>,
    state: Mutex<State>,
    listeners: Vec<Listener>,
    began: Instant,
}

struct State {
    seq: u64,
    file: Option<File>,
    /// Whether the last line may have come to the file in part, as on a full disk.
    torn: bool,
    secrets: Vec<Secret>,
    /// The failures told so far: one that ends a lane comes back as one that ends the run.
    told: Vec<(Code, Option<NodeId>, String)>,
}

impl Journal {
    /// A journal in `folder`, named by the run.
    pub fn create(folder: &Path, listeners: Vec<Listener>) -> Result<Self, Problem> {
        let run = new_run_id();
        let path = folder.join(format!("{run}.ndjson"));
        let fail = |e| Problem::new(Code::LocalFile, format!("cannot write the run log {}", path.display())).because(e);
        // A log holds remote output: nobody else is to read it, whatever the umask.
        fs::create_dir_all(folder).map_err(fail)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(fail)?;
        let file = File::options().create_new(true).append(true).mode(0o600).open(&path).map_err(fail)?;
        Ok(Self { path: Some(path), ..Self::with(run, Some(file), listeners) })
    }

    /// A journal that is kept nowhere, for plans and tests.
    pub fn unkept(listeners: Vec<Listener>) -> Self {
        Self::with(new_run_id(), None, listeners)
    }

    fn with(run: RunId, file: Option<File>, listeners: Vec<Listener>) -> Self {
        let state = Mutex::new(State { seq: 0, file, torn: false, secrets: vec![], told: vec![] });
        Self { run, path: None, state, listeners, began: Instant::now() }
    }

    /// The run.
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// Its file; none when it is not kept.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Whether the log of the run `other` lies beside this one's: a run of the same lab, from this computer.
    pub fn is_beside(&self, other: &str) -> bool {
        // The id comes from a host, and is to name no file elsewhere.
        let plain = other.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let log = self.path.as_ref().map(|path| path.with_file_name(format!("{other}.ndjson")));
        plain && log.is_some_and(|log| log.exists())
    }

    /// Milliseconds since the run began.
    pub fn millis(&self) -> u64 {
        millis(self.began)
    }

    /// Tells that a node comes to a phase.
    pub fn phase_begins(&self, phase: &PhaseId, on: &NodeId, title: &str) -> UnderWay<'_> {
        self.event(EventKind::PhaseStarted { phase: phase.clone(), on: on.clone(), title: title.to_owned() });
        self.under_way(phase, None, on)
    }

    /// Tells that a step's change begins on a node.
    pub fn step_begins(&self, phase: &PhaseId, step: &StepId, on: &NodeId, title: &str) -> UnderWay<'_> {
        let (step, title) = (step.clone(), title.to_owned());
        self.event(EventKind::StepStarted { phase: phase.clone(), step: step.clone(), on: on.clone(), title });
        self.under_way(phase, Some(step), on)
    }

    fn under_way(&self, phase: &PhaseId, step: Option<StepId>, on: &NodeId) -> UnderWay<'_> {
        let (phase, on) = (phase.clone(), on.clone());
        UnderWay { journal: self, phase, step, on, began: Instant::now(), outcome: Outcome::Skipped }
    }

    /// From now on this text appears nowhere in the journal.
    pub fn hide(&self, secret: &Secret) {
        if let Ok(mut state) = self.state.lock()
            && !state.secrets.contains(secret)
        {
            state.secrets.push(secret.clone());
        }
    }

    /// Tells of a problem that ends the run, unless it was told before, and gives it as it may be shown.
    pub fn failure(&self, problem: Problem) -> Problem {
        let problem = self.redacted(problem);
        let told = self.state.lock().is_ok_and(|state| state.told.contains(&key(&problem)));
        if !told {
            self.event(EventKind::Failure { problem: problem.clone() });
        }
        problem
    }

    /// The problem as it may be shown: foreign words can hold what is hidden here.
    pub fn redacted(&self, mut problem: Problem) -> Problem {
        if let Ok(state) = self.state.lock() {
            redact_problem(&mut problem, &state.secrets);
        }
        problem
    }
}

/// A phase or a step that began: its end is told in any case.
///
/// Whoever is dropped in its midst, by a failure beside it or by Ctrl-C, was stopped.
#[must_use]
pub struct UnderWay<'a> {
    journal: &'a Journal,
    phase: PhaseId,
    step: Option<StepId>,
    on: NodeId,
    began: Instant,
    outcome: Outcome,
}

impl UnderWay<'_> {
    /// Tells how it ended.
    pub fn ends(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let (phase, on, outcome, millis) = (self.phase.clone(), self.on.clone(), self.outcome, millis(self.began));
        self.journal.event(match self.step.take() {
            Some(step) => EventKind::StepEnded { phase, step, on, outcome, millis },
            None => EventKind::PhaseEnded { phase, on, outcome, millis },
        });
    }
}

impl Report for Journal {
    fn event(&self, mut kind: EventKind) {
        let Ok(mut held) = self.state.lock() else { return };
        let state = &mut *held;
        redact(&mut kind, &state.secrets);
        if let EventKind::Failure { problem } = &kind {
            state.told.push(key(problem));
        }
        state.seq += 1;
        let event = Event { run: self.run.clone(), seq: state.seq, at: Timestamp::now(), kind };
        // Progress is for the screen; in the file it would be noise.
        if !matches!(event.kind, EventKind::Progress { .. })
            && let (Some(file), Ok(mut line)) = (&mut state.file, serde_json::to_vec(&event))
        {
            line.push(b'\n');
            if state.torn {
                line.insert(0, b'\n');
            }
            // A full disk must not stop a run that works on hosts; the screen still tells everything.
            state.torn = file.write_all(&line).is_err();
            if matches!(
                event.kind,
                EventKind::StepStarted { .. } | EventKind::StepEnded { .. } | EventKind::RunEnded { .. }
            ) {
                let _ = file.sync_data();
            }
        }
        for listener in &self.listeners {
            listener(&event);
        }
    }
}

/// Milliseconds since then.
fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn key(problem: &Problem) -> (Code, Option<NodeId>, String) {
    (problem.code, problem.on.clone(), problem.what.clone())
}

fn redact(kind: &mut EventKind, secrets: &[Secret]) {
    let clean = |text: &mut String| *text = shown(text, secrets);
    match kind {
        EventKind::Output { line, .. } => clean(line),
        EventKind::Note { text, .. } => clean(text),
        EventKind::Warning { problem } | EventKind::Failure { problem } => redact_problem(problem, secrets),
        _ => {}
    }
}

fn redact_problem(problem: &mut Problem, secrets: &[Secret]) {
    let hints = problem.hints.iter_mut().map(|hint| &mut hint.0);
    for text in std::iter::once(&mut problem.what).chain(&mut problem.detail).chain(hints) {
        *text = shown(text, secrets);
    }
}

/// The text as it may be shown. Of a secret that holds what is escaped nothing is found any more after that; and a host may
/// have sent the escaped form itself.
fn shown(text: &str, secrets: &[Secret]) -> String {
    let raw = secrets.iter().fold(text.to_owned(), |t, s| s.redact(&t));
    secrets.iter().fold(printable(&raw), |t, s| Secret::new(printable(s.expose())).redact(&s.redact(&t)))
}

fn new_run_id() -> RunId {
    let tail: String =
        (0..4).map(|_| char::from(b"abcdefghjkmnpqrstuvwxyz23456789"[rand::random_range(0..31)])).collect();
    RunId::from(format!(
        "{}-{tail}",
        jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).strftime("%Y%m%dT%H%M%S")
    ))
}

/// Reads a journal back; lines cut off by a crash or a full disk are left out.
pub fn read_journal(path: &Path) -> Result<Vec<Event>, Problem> {
    let bytes = fs::read(path)
        .map_err(|e| Problem::new(Code::LocalFile, format!("cannot read the run log {}", path.display())).because(e))?;
    // A line may be cut off within a letter.
    Ok(parse_journal(&String::from_utf8_lossy(&bytes)))
}

/// The events of a journal's text without the lines that are none.
pub fn parse_journal(text: &str) -> Vec<Event> {
    text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::NodeId;

    #[test]
    fn nobody_else_reads_a_log() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("lab/runs");
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        let journal = Journal::create(&folder, vec![]).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&folder), mode(journal.path().unwrap())), (0o700, 0o600));
    }

    #[test]
    fn earlier_runs_of_the_lab_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let (lab, other) = (dir.path().join("lab/runs"), dir.path().join("other/runs"));
        let journal = |folder: &Path| Journal::create(folder, vec![]).unwrap();
        let (now, earlier, foreign) = (journal(&lab), journal(&lab), journal(&other));
        assert!(now.is_beside(earlier.run().as_str()));
        let path = format!("../../other/runs/{}", foreign.run());
        for none in [foreign.run().as_str(), &path, ""] {
            assert!(!now.is_beside(none), "{none}");
        }
        assert!(!Journal::unkept(vec![]).is_beside(earlier.run().as_str()));
    }

    #[test]
    fn a_line_that_a_full_disk_cut_off_takes_no_other_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::create(dir.path(), vec![]).unwrap();
        let (path, on) = (journal.path().unwrap().to_owned(), NodeId::here());
        journal.note(&on, "one");
        // What a write leaves that fails in its midst, and one that fails; then there is room again.
        let whole = journal.state.lock().unwrap().file.replace(File::open(&path).unwrap());
        File::options().append(true).open(&path).unwrap().write_all(b"{\"run\":\"\xc3").unwrap();
        journal.note(&on, "two");
        journal.state.lock().unwrap().file = whole;
        journal.note(&on, "three");
        journal.note(&on, "four");
        let events = read_journal(&path).unwrap();
        assert_eq!(events.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 3, 4]);
        // As a crash leaves its last line.
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
        assert_eq!(read_journal(&path).unwrap().len(), 2);
    }

    #[test]
    fn records_redacted_and_numbered() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::create(dir.path(), vec![]).unwrap();
        journal.hide(&Secret::new("s3cret-token"));
        let on = NodeId::here();
        journal.event(EventKind::Output { on: on.clone(), line: "token s3cret-token \x1b[2J".into() });
        journal.note(&on, "two");
        let events = read_journal(&dir.path().join(format!("{}.ndjson", journal.run()))).unwrap();
        assert_eq!(events.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2]);
        let EventKind::Output { line, .. } = &events[0].kind else { panic!() };
        assert_eq!(line, "token [redacted] \\x1b[2J");
    }

    #[test]
    fn a_secret_with_characters_that_are_escaped_is_redacted_too() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::create(dir.path(), vec![]).unwrap();
        let word = "pa\tss\u{202e}word";
        journal.hide(&Secret::new(word));
        let on = NodeId::here();
        journal.event(EventKind::Output { on: on.clone(), line: format!("sudo: {word}\x07") });
        journal.note(&on, &format!("sent as {}", printable(word)));
        let told = journal.failure(Problem::new(Code::Sudo, format!("no {word}")).hint(format!("Do not type {word}.")));
        assert_eq!(
            (told.what.as_str(), told.all_hints()),
            ("no [redacted]", vec!["Do not type [redacted].".to_owned()])
        );
        let text = fs::read_to_string(journal.path().unwrap()).unwrap();
        let events = parse_journal(&text);
        assert_eq!(events.len(), 3);
        let EventKind::Output { line, .. } = &events[0].kind else { panic!() };
        assert_eq!(line, "sudo: [redacted]\\x07");
        assert!(text.contains("sent as [redacted]") && text.contains("Do not type [redacted]."), "{text}");
        assert!(!text.contains("word"), "{text}");
    }
}
