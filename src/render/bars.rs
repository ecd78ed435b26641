use std::{collections::BTreeMap, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{ended_text, problem_text};
use crate::core::{Event, EventKind, NodeId, Outcome, PhaseId, shell::printable};

/// How often what moves is drawn anew.
const TICK: Duration = Duration::from_millis(120);
/// How long the overall bar is where there is room for it, in columns, and the least that still shows something.
const BAR: std::ops::RangeInclusive<usize> = 5..=30;
/// What is kept of a line for its message, as `reset my-lab`, in columns.
const MESSAGE: usize = 12;
/// The columns of a terminal that does not tell how many it has.
const USUAL: usize = 80;

/// A line per host and an overall one, moving while a run goes on.
pub struct Bars {
    /// Where they are drawn, made anew for every time that they come back.
    target: Box<dyn Fn() -> ProgressDrawTarget + Send>,
    all: MultiProgress,
    whole: ProgressBar,
    nodes: BTreeMap<NodeId, ProgressBar>,
    phases: Vec<PhaseId>,
    /// How many of the phases each node has behind it.
    passed: BTreeMap<NodeId, u64>,
    /// How wide the terminal is.
    columns: Box<dyn Fn() -> usize + Send>,
    width: usize,
    verbose: bool,
    /// How many have the screen for themselves now.
    hidden: usize,
    /// The lines that came meanwhile.
    held: Vec<String>,
}

impl Bars {
    /// Bars on standard error.
    ///
    /// With `verbose`, steps found done and remote output stand above them too.
    pub fn new(verbose: bool) -> Self {
        Self::on(ProgressDrawTarget::stderr, columns_of_stderr, verbose)
    }

    fn on(
        target: impl Fn() -> ProgressDrawTarget + Send + 'static,
        columns: impl Fn() -> usize + Send + 'static,
        verbose: bool,
    ) -> Self {
        let all = MultiProgress::with_draw_target(target());
        let whole = all.add(ProgressBar::new(0));
        // Of how much is known only when the run begins.
        whole.set_style(style("{spinner} {elapsed_precise} {wide_msg}"));
        whole.enable_steady_tick(TICK);
        Self {
            target: Box::new(target),
            all,
            whole,
            nodes: BTreeMap::new(),
            phases: vec![],
            passed: BTreeMap::new(),
            columns: Box::new(columns),
            width: 4,
            verbose,
            hidden: 0,
            held: vec![],
        }
    }

    /// Clears them away until [`Bars::show`]: somebody asks or says something on the same screen.
    ///
    /// Such times may overlap.
    ///
    /// Nothing is held up by it: events are taken all the same, and a run goes on behind an open question.
    pub fn hide(&mut self) {
        self.hidden += 1;
        if self.hidden > 1 {
            return;
        }
        // First the ticks: one between the other two would leave its lines behind.
        self.each().for_each(ProgressBar::disable_steady_tick);
        let _ = self.all.clear();
        self.all.set_draw_target(ProgressDrawTarget::hidden());
    }

    /// Brings them back, below the lines that came meanwhile.
    pub fn show(&mut self) {
        self.hidden = self.hidden.saturating_sub(1);
        if self.hidden > 0 {
            return;
        }
        self.all.set_draw_target((self.target)());
        for line in std::mem::take(&mut self.held) {
            self.line(&line);
        }
        self.each().filter(|bar| !bar.is_finished()).for_each(|bar| bar.enable_steady_tick(TICK));
    }

    fn each(&self) -> impl Iterator<Item = &ProgressBar> {
        self.nodes.values().chain([&self.whole])
    }

    /// Shows the event.
    pub fn event(&mut self, event: &Event) {
        match &event.kind {
            EventKind::RunStarted { flow, lab, nodes, phases } => {
                let longest = nodes.iter().map(|n| n.as_str().len()).max().unwrap_or(4);
                self.width = longest.min((self.columns)() / 2);
                self.whole.set_message(format!("{flow} {lab}"));
                self.phases.clone_from(phases);
                self.passed = nodes.iter().map(|n| (n.clone(), 0)).collect();
                let whole = self.lanes().count() * phases.len();
                if whole > 0 {
                    self.whole.set_length(whole as u64);
                    self.fit();
                }
                for node in nodes {
                    self.node(node);
                }
            }
            EventKind::PhaseStarted { phase, on, title } => {
                self.pass(on, phase, 0);
                self.say(on, title.clone());
            }
            EventKind::StepStarted { on, title, .. } => self.say(on, title.clone()),
            EventKind::Progress { on, what, done, total } => self.say(on, amount(what, *done, *total)),
            EventKind::PhaseEnded { phase, on, outcome, .. } => {
                self.pass(on, phase, u64::from(matches!(outcome, Outcome::Changed | Outcome::AlreadyDone)));
            }
            EventKind::Note { on, text } => {
                let on = on.as_ref().map(|o| format!("{o}: ")).unwrap_or_default();
                self.line(&format!("{on}{}", printable(text)));
            }
            EventKind::Warning { problem } => {
                self.line(problem_text(problem).replacen("error:", "warning:", 1).trim_end());
            }
            EventKind::Failure { problem } => {
                if let Some(on) = &problem.on {
                    self.say(on, format!("failed: {}", problem.code));
                }
            }
            EventKind::RunEnded { outcome, changed, unchanged, millis } => {
                self.end(*outcome, *changed, *unchanged, *millis);
            }
            EventKind::StepEnded { phase, step, on, outcome: Outcome::AlreadyDone, .. } if self.verbose => {
                self.line(&format!("{on}: {phase}/{step} was done already"));
            }
            EventKind::Output { on, line } if self.verbose => self.line(&format!("{on} | {}", printable(line))),
            EventKind::StepEnded { .. } | EventKind::Output { .. } => {}
        }
    }

    /// The nodes that count: this computer only where it is alone, since the others wait for it.
    fn lanes(&self) -> impl Iterator<Item = &NodeId> {
        let alone = self.passed.len() == 1;
        self.passed.keys().filter(move |on| alone || !on.is_here())
    }

    /// A node that comes to a phase has all before it behind it, those too that do not concern it.
    fn pass(&mut self, on: &NodeId, phase: &PhaseId, and: u64) {
        let Some(at) = self.phases.iter().position(|p| p == phase) else { return };
        let passed = self.passed.entry(on.clone()).or_default();
        *passed = (*passed).max(at as u64 + and);
        let here = self.passed.get(&NodeId::here()).copied().unwrap_or(0);
        let whole = self.lanes().map(|on| self.passed.get(on).copied().unwrap_or(0).max(here)).sum();
        self.whole.set_position(whole);
        self.fit();
    }

    /// Makes the overall line as long as the terminal is wide now.
    fn fit(&self) {
        if let Some(steps) = self.whole.length().filter(|steps| *steps > 0) {
            self.whole.set_style(style(&whole_template((self.columns)(), steps)));
        }
    }

    fn node(&mut self, on: &NodeId) -> &ProgressBar {
        let (all, width, whole) = (&self.all, self.width, &self.whole);
        self.nodes.entry(on.clone()).or_insert_with(|| {
            let bar = all.insert_before(whole, ProgressBar::new_spinner());
            bar.set_style(style("{spinner} {prefix} {wide_msg}"));
            bar.set_prefix(format!("{:<width$.width$}", on.as_str()));
            bar.enable_steady_tick(TICK);
            bar
        })
    }

    fn say(&mut self, on: &NodeId, text: String) {
        self.node(on).set_message(printable(&text));
    }

    fn line(&mut self, text: &str) {
        if self.hidden > 0 {
            self.held.push(text.to_owned());
        } else {
            let _ = self.all.println(text);
        }
    }

    fn end(&mut self, outcome: Outcome, changed: u64, unchanged: u64, millis: u64) {
        self.each().for_each(ProgressBar::finish_and_clear);
        self.line(&ended_text(outcome, changed, unchanged, millis));
    }
}

/// The overall line's template on a terminal of so many columns: the bar gives way first, then the message.
fn whole_template(columns: usize, steps: u64) -> String {
    let counts = format!("{steps}/{steps}");
    let room = columns.saturating_sub("s 00:00:00 []  ".len() + counts.len() + MESSAGE).min(*BAR.end());
    let bar = if BAR.contains(&room) { format!("[{{bar:{room}}}] ") } else { String::new() };
    format!("{{spinner}} {{elapsed_precise}} {bar}{{pos}}/{{len}} {{wide_msg}}")
}

fn columns_of_stderr() -> usize {
    let told = rustix::termios::tcgetwinsize(std::io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    if told == 0 { USUAL } else { told }
}

/// A template that does not parse is a defect of ours; the default still shows something.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// `kubelet 12/58 MiB`, or pieces for small counts.
fn amount(what: &str, done: u64, total: u64) -> String {
    const MIB: u64 = crate::core::MIB;
    match total {
        0 if done == 0 => what.to_owned(),
        0 => format!("{what} {done}"),
        t if t >= MIB => format!("{what} {}/{} MiB", done / MIB, t / MIB),
        t => format!("{what} {done}/{t}"),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use indicatif::TermLike;
    use unicode_width::UnicodeWidthStr;

    use super::*;
    use crate::core::{Code, Problem, RunId, StepId};

    #[test]
    fn nothing_of_an_unknown_whole_is_no_number() {
        let texts = [(0, 0), (3, 0), (0, 5), (1 << 20, 3 << 20)].map(|(done, total)| amount("x", done, total));
        assert_eq!(texts, ["x", "x 3", "x 0/5", "x 1/3 MiB"]);
    }

    /// A terminal that keeps what is written to it.
    #[derive(Debug, Clone, Default)]
    struct Paper {
        text: Arc<Mutex<String>>,
        columns: u16,
    }

    impl Paper {
        fn add(&self, text: &str) -> io::Result<()> {
            self.text.lock().unwrap().push_str(text);
            Ok(())
        }

        fn take(&self) -> String {
            std::mem::take(&mut self.text.lock().unwrap())
        }
    }

    impl TermLike for Paper {
        fn width(&self) -> u16 {
            self.columns
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.add(&format!("{text}\n"))
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.add(text)
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Shown {
        bars: Bars,
        paper: Paper,
    }

    impl Shown {
        fn new(nodes: &[&str], phases: &[&'static str]) -> Self {
            Self::with(nodes, phases, 100, false)
        }

        fn with(nodes: &[&str], phases: &[&'static str], columns: u16, verbose: bool) -> Self {
            let paper = Paper { columns, ..Paper::default() };
            let screen = paper.clone();
            let target = move || ProgressDrawTarget::term_like(Box::new(screen.clone()));
            let bars = Bars::on(target, move || columns.into(), verbose);
            let mut shown = Self { bars, paper };
            assert!(!shown.drawn().contains('['), "nothing is known yet, so there is nothing to be full");
            shown.event(EventKind::RunStarted {
                flow: "up".into(),
                lab: "lab".parse().unwrap(),
                nodes: nodes.iter().map(|n| n.parse().unwrap()).collect(),
                phases: phases.iter().map(|p| PhaseId::new(p)).collect(),
            });
            shown
        }

        fn event(&mut self, kind: EventKind) {
            let at = "2026-01-02T03:04:05Z".parse().unwrap();
            self.bars.event(&Event { run: RunId::from("r".to_owned()), seq: 1, at, kind });
        }

        fn begin(&mut self, on: &str, phase: &'static str) -> u64 {
            let (on, phase) = (on.parse().unwrap(), PhaseId::new(phase));
            self.event(EventKind::PhaseStarted { phase, on, title: "see the hosts".into() });
            self.bars.whole.position()
        }

        fn end(&mut self, on: &str, phase: &'static str) -> u64 {
            let (on, phase, outcome) = (on.parse().unwrap(), PhaseId::new(phase), Outcome::Changed);
            self.event(EventKind::PhaseEnded { phase, on, outcome, millis: 1 });
            self.bars.whole.position()
        }

        /// What a redraw shows.
        fn drawn(&self) -> String {
            self.paper.take();
            self.bars.whole.force_draw();
            self.paper.take()
        }
    }

    #[test]
    fn the_bar_is_as_long_as_the_run_from_its_begin() {
        let mut shown = Shown::new(&["here", "cp", "w"], &["machines", "connect", "init", "join", "verify"]);
        assert_eq!((shown.bars.whole.position(), shown.bars.whole.length()), (0, Some(10)));
        assert!(shown.drawn().contains("0/10 up lab"));
        assert_eq!(shown.begin("here", "machines"), 0);
        assert_eq!(shown.end("here", "machines"), 2);
        assert_eq!(shown.begin("cp", "connect"), 2);
        assert_eq!(shown.end("cp", "connect"), 3);
        assert_eq!(shown.end("w", "connect"), 4);
        assert_eq!(shown.begin("w", "join"), 5, "init does not concern a worker");
        assert_eq!((shown.begin("cp", "init"), shown.begin("cp", "join")), (5, 6));
        assert_eq!(shown.end("cp", "init"), 6, "what ran aside ends late");
        assert_eq!((shown.end("cp", "verify"), shown.end("w", "verify")), (8, 10));
        assert!(shown.drawn().contains("10/10 up lab"));
    }

    #[test]
    fn hosts_wait_for_a_bundle_that_is_built_for_them() {
        let mut shown = Shown::new(&["here", "cp"], &["connect", "preflight", "bundle", "init"]);
        assert_eq!((shown.end("cp", "preflight"), shown.begin("here", "bundle")), (2, 2));
        assert_eq!((shown.end("here", "bundle"), shown.begin("cp", "init")), (3, 3));
        assert_eq!(shown.begin("cp", "of no list"), 3);
    }

    #[test]
    fn each_host_has_its_line_and_what_lasts_stands_above() {
        let mut shown = Shown::new(&["cp", "worker-1"], &["connect"]);
        shown.begin("cp", "connect");
        let drawn = shown.drawn();
        assert!(drawn.contains("cp       see the hosts") && drawn.contains("worker-1"), "{drawn}");
        let on: NodeId = "cp".parse().unwrap();
        shown.event(EventKind::Progress { on: on.clone(), what: "kubelet".into(), done: 3 << 20, total: 9 << 20 });
        assert!(shown.drawn().contains("kubelet 3/9 MiB"));
        shown.event(EventKind::Note { on: Some(on.clone()), text: "odd\x1b[2J".into() });
        assert!(shown.paper.take().contains("cp: odd\\x1b[2J"));
        shown.event(EventKind::Warning { problem: Problem::new(Code::HostTooSmall, "small").on(&on) });
        assert!(shown.paper.take().contains("warning: KC-HOST-TOO-SMALL on cp: small"));
        shown.event(EventKind::Failure { problem: Problem::new(Code::StepFailed, "init").on(&on) });
        assert!(shown.drawn().contains("failed: KC-STEP-FAILED"));
        shown.event(EventKind::RunEnded { outcome: Outcome::Failed, changed: 1, unchanged: 2, millis: 1500 });
        assert!(shown.paper.take().contains("failed in 1.5s: 1 step changed something, 2 were done already"));
    }

    #[test]
    fn who_asks_has_the_screen_alone_and_nothing_is_lost_by_it() {
        let mut shown = Shown::new(&["cp"], &["connect"]);
        let on: NodeId = "cp".parse().unwrap();
        shown.begin("cp", "connect");
        shown.bars.hide();
        shown.bars.hide();
        shown.paper.take();
        shown.event(EventKind::Note { on: Some(on.clone()), text: "first".into() });
        shown.bars.show();
        shown.event(EventKind::Note { on: Some(on), text: "second".into() });
        std::thread::sleep(3 * TICK);
        assert_eq!((shown.paper.take(), shown.drawn()), (String::new(), String::new()), "one is still at it");
        shown.bars.show();
        let back = shown.paper.take();
        assert!(back.find("cp: first") < back.find("cp: second") && back.contains("cp: first"), "{back}");
        assert!(shown.drawn().contains("0/1 up lab"), "they are back");
        shown.bars.hide();
        shown.event(EventKind::RunEnded { outcome: Outcome::Failed, changed: 0, unchanged: 0, millis: 1500 });
        shown.paper.take();
        shown.bars.show();
        assert!(shown.paper.take().contains("failed in 1.5s"));
    }

    #[test]
    fn verbose_tells_above_the_bars_what_was_done_and_said() {
        for verbose in [false, true] {
            let mut shown = Shown::with(&["cp"], &["connect"], 100, verbose);
            let on: NodeId = "cp".parse().unwrap();
            shown.paper.take();
            shown.event(EventKind::Output { on: on.clone(), line: "[init] Using".into() });
            let (phase, step) = (PhaseId::new("control-plane"), StepId::new("init"));
            shown.event(EventKind::StepEnded { phase, step, on, outcome: Outcome::AlreadyDone, millis: 1 });
            let told = shown.paper.take();
            assert_eq!(told.contains("cp | [init] Using"), verbose, "{told}");
            assert_eq!(told.contains("cp: control-plane/init was done already"), verbose, "{told}");
        }
    }

    #[test]
    fn the_bar_gives_way_to_what_is_said() {
        let bar = |columns, steps| {
            let template = whole_template(columns, steps);
            assert!(template.ends_with("{pos}/{len} {wide_msg}"), "{template}");
            template.split_once("{bar:").map(|(_, rest)| rest.split('}').next().unwrap().parse::<usize>().unwrap())
        };
        assert_eq!((bar(200, 51), bar(100, 51), bar(62, 51)), (Some(30), Some(30), Some(30)));
        assert_eq!((bar(61, 51), bar(40, 51), bar(37, 51)), (Some(29), Some(8), Some(5)));
        assert_eq!((bar(36, 51), bar(0, 51), bar(40, 1000)), (None, None, None));
    }

    #[test]
    fn no_line_is_longer_than_the_terminal_is_wide() {
        for columns in [24, 36, 40, 60, 100] {
            let long = "a-worker-with-a-long-name-there";
            let mut shown = Shown::with(&["cp", long], &["connect", "a", "b", "c", "d"], columns, false);
            for on in ["cp", long] {
                shown.begin(on, "connect");
                let what = "a title that does not end before a terminal's edge, however wide it is, and wider".into();
                shown.event(EventKind::Progress { on: on.parse().unwrap(), what, done: 1, total: 2 });
            }
            shown.bars.each().for_each(ProgressBar::disable_steady_tick);
            // Each line is filled up to the edge: one that goes beyond it takes another.
            let drawn = shown.drawn();
            assert_eq!(drawn.width(), 3 * usize::from(columns), "{columns}: {drawn}");
            assert!(drawn.contains("0/10"), "{columns}: {drawn}");
        }
    }

    #[test]
    fn a_run_without_phases_has_no_bar() {
        let shown = Shown::new(&["here"], &[]);
        assert!(!shown.drawn().contains('['));
    }
}
