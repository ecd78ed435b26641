//! A host's state as lines, and the difference between two of them.

use std::collections::BTreeSet;

use super::Traces;

/// The script that prints a scan; see the file.
pub const SCRIPT: &str = include_str!("../../templates/host/scan.sh");

/// What one scan saw: `kind<TAB>thing` lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan(BTreeSet<(String, String)>);

/// One difference between two scans.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// What kind of thing, as `link` or `path`.
    pub kind: String,
    /// The thing.
    pub thing: String,
    /// Whether it is there now and was not, or the other way round.
    pub now: bool,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = if self.now { "is there and was not" } else { "is gone and was there" };
        write!(f, "{} {} {how}", self.kind, self.thing)
    }
}

/// The differences between two scans, by whose they can be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// What a lab left or took: a reset that ends with any of these has failed.
    pub residues: Vec<Difference>,
    /// What others did meanwhile: worth a note.
    pub others: Vec<Difference>,
}

impl Scan {
    /// Reads the script's output; other lines are ignored.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|l| l.split_once('\t'));
        Self(lines.map(|(kind, thing)| (kind.to_owned(), thing.to_owned())).collect())
    }

    /// Whether the scan saw nothing at all: a scan that failed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it saw this.
    pub fn saw(&self, kind: &str, thing: &str) -> bool {
        self.0.contains(&(kind.to_owned(), thing.to_owned()))
    }

    /// What differs in `after`, without what changes by itself on a living host.
    pub fn differences(&self, after: &Self, traces: &Traces) -> Differences {
        let mut found = Differences::default();
        for (kind, thing) in after.0.difference(&self.0) {
            if traces.changes_by_itself(kind, thing) {
                continue;
            }
            let holds_others = || traces.is_folder_of_others(kind, thing, &after.new_paths(self));
            let ours = traces.may_be_new(kind, thing) && !holds_others();
            let to = if ours { &mut found.residues } else { &mut found.others };
            to.push(Difference { kind: kind.clone(), thing: thing.clone(), now: true });
        }
        for (kind, thing) in self.0.difference(&after.0) {
            let unseen = is_tool(kind) && !after.saw("tool", kind);
            if traces.changes_by_itself(kind, thing) || unseen {
                continue;
            }
            let to = if traces.may_be_gone(kind, thing) { &mut found.residues } else { &mut found.others };
            to.push(Difference { kind: kind.clone(), thing: thing.clone(), now: false });
        }
        found
    }

    /// What must not be on any host without a lab: for hosts whose record is lost.
    pub fn leftovers(&self, traces: &Traces) -> Vec<Difference> {
        let known = self.0.iter().filter(|(kind, thing)| traces.is_certain(kind, thing));
        known.map(|(kind, thing)| Difference { kind: kind.clone(), thing: thing.clone(), now: true }).collect()
    }

    fn new_paths<'a>(&'a self, before: &'a Self) -> Vec<&'a str> {
        let new = self.0.difference(&before.0);
        new.filter(|(kind, _)| kind == "path").map(|(_, thing)| thing.as_str()).collect()
    }
}

/// Kinds that only a tool of the same name can show.
fn is_tool(kind: &str) -> bool {
    matches!(kind, "nft" | "ipset")
        || kind.ends_with("tables-save")
        || kind.ends_with("-legacy-save")
        || kind.ends_with("-nft-save")
}
