use std::{collections::BTreeMap, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{ended_text, problem_text};
use crate::core::{Event, EventKind, NodeId, Outcome, shell::printable};

/// A line per host and an overall one, moving while a run goes on.
pub struct Bars {
    all: MultiProgress,
    whole: ProgressBar,
    nodes: BTreeMap<NodeId, ProgressBar>,
    width: usize,
}

impl Bars {
    /// Bars on standard error.
    pub fn new() -> Self {
        let all = MultiProgress::new();
        let whole = all.add(ProgressBar::new(0));
        whole.set_style(style("{spinner} {elapsed_precise} [{bar:30}] {pos}/{len} {msg}"));
        whole.enable_steady_tick(Duration::from_millis(120));
        Self { all, whole, nodes: BTreeMap::new(), width: 4 }
    }

    /// Shows the event.
    pub fn event(&mut self, event: &Event) {
        match &event.kind {
            EventKind::RunStarted { flow, lab, nodes, .. } => {
                self.width = nodes.iter().map(|n| n.as_str().len()).max().unwrap_or(4);
                self.whole.set_message(format!("{flow} {lab}"));
                for node in nodes {
                    self.node(node);
                }
            }
            EventKind::PhaseStarted { on, title, .. } => {
                // Which phases concern a node is known only when it gets there.
                self.whole.inc_length(1);
                self.say(on, title.clone());
            }
            EventKind::StepStarted { on, title, .. } => self.say(on, title.clone()),
            EventKind::Progress { on, what, done, total } => self.say(on, amount(what, *done, *total)),
            EventKind::PhaseEnded { .. } => self.whole.inc(1),
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
            EventKind::StepEnded { .. } | EventKind::Output { .. } => {}
        }
    }

    fn node(&mut self, on: &NodeId) -> &ProgressBar {
        let (all, width, whole) = (&self.all, self.width, &self.whole);
        self.nodes.entry(on.clone()).or_insert_with(|| {
            let bar = all.insert_before(whole, ProgressBar::new_spinner());
            bar.set_style(style("{spinner} {prefix} {wide_msg}"));
            bar.set_prefix(format!("{:<width$}", on.as_str()));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        })
    }

    fn say(&mut self, on: &NodeId, text: String) {
        self.node(on).set_message(printable(&text));
    }

    fn line(&self, text: &str) {
        let _ = self.all.println(text);
    }

    fn end(&mut self, outcome: Outcome, changed: u64, unchanged: u64, millis: u64) {
        for bar in self.nodes.values() {
            bar.finish_and_clear();
        }
        self.whole.finish_and_clear();
        self.line(&ended_text(outcome, changed, unchanged, millis));
    }
}

impl Default for Bars {
    fn default() -> Self {
        Self::new()
    }
}

/// A template that does not parse is a defect of ours; the default still shows something.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// `kubelet 12/58 MiB`, or pieces for small counts.
fn amount(what: &str, done: u64, total: u64) -> String {
    const MIB: u64 = crate::core::MIB;
    match total {
        0 => format!("{what} {done}"),
        t if t >= MIB => format!("{what} {}/{} MiB", done / MIB, t / MIB),
        t => format!("{what} {done}/{t}"),
    }
}
