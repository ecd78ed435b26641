use serde::{Deserialize, Serialize};

use super::{Anchor, Kept};
use crate::hub::gate::{Epoch, Reason, Report, ReportKind, Slot, SlotState};

/// One step of a slot; they are done in this order, and each may be done again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The holder's saved lab or a fresh one is brought up.
    Arm,
    /// The principal is written: the door opens.
    Open,
    /// The principal is removed: the door shuts.
    Shut,
    /// Connections and processes are ended.
    Evict,
    /// What would start processes later is removed, and what was left outside of the home.
    Clear,
    /// Flows of the closed connections are cut.
    Cut,
    /// Zero processes, zero sessions, zero sockets, nothing outside of the home.
    ProveEmpty,
    /// The lab is saved.
    Save,
    /// The server is cleaned.
    Reset,
    /// The server is proven clean.
    ProveClean,
}

impl Step {
    /// All of them, in their order.
    pub const ALL: [Self; 10] = [
        Self::Arm,
        Self::Open,
        Self::Shut,
        Self::Evict,
        Self::Clear,
        Self::Cut,
        Self::ProveEmpty,
        Self::Save,
        Self::Reset,
        Self::ProveClean,
    ];

    /// The step after it.
    pub fn next(self) -> Option<Self> {
        Self::ALL.iter().copied().find(|s| *s > self)
    }
}

/// A line of the agent's journal, which is its queue of reports too: what is remembered and what the hub hears cannot
/// differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Grows with each line.
    pub seq: u64,
    /// When, by the server's wall clock.
    pub at: Epoch,
    /// What.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What a line says.
#[expect(missing_docs, reason = "the fields are ids and what the variant says")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case")]
pub enum Entry {
    /// The agent works by this revision.
    Plan { revision: u64 },
    /// Time was believed.
    Time { anchor: Anchor },
    /// A slot is the agent's from here on, to its end, whatever later plans say.
    Taken { slot: Slot },
    /// A step begins.
    Begin {
        booking: String,
        step: Step,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
    },
    /// A step is done.
    Done { booking: String, step: Step },
    /// The lab did not come up or its account cannot be let in: the slot ends as any other does, and only what is
    /// found then says whether the server is clean.
    NotOpened { booking: String, detail: Vec<String> },
    /// What ends a slot cannot be done: quarantine.
    Failed { booking: String, step: Step, detail: Vec<String> },
    /// An admin looked after it: it is cleaned and proven once more.
    Cleared { booking: String, revision: u64 },
    /// The holder was told how many minutes are left.
    Warned { booking: String, minutes: u32 },
    /// The holder came.
    Seen { booking: String },
    /// The slot passed unopened.
    Missed { booking: String },
    /// The slot was not armed or opened.
    Refused { booking: String, why: String },
    /// Processes were ended outside of any slot.
    Stray { account: String },
    /// The server keeps this lab between slots.
    LabKept { account: String, kept: Kept },
    /// The server keeps no lab of the account any more.
    LabDropped { account: String },
    /// The lab of the account is without a slot from now on.
    LabIdle { account: String },
    /// The lab of the account has a slot ahead again.
    LabAwaited { account: String },
    /// The lab of the account was removed, since nobody had it for as long as labs are kept.
    LabRetired { account: String },
    /// The hub has every report up to this one.
    Acknowledged { upto: u64 },
    /// A slot that is over and told is forgotten.
    Forgotten { booking: String },
}

impl Line {
    /// What the hub is to hear of it, if anything; the account and the reason are those of its slot.
    pub fn report(&self, account: Option<&str>, reason: Option<Reason>) -> Option<Report> {
        let account = account.map(str::to_owned);
        let state = |booking: &String, state, detail: Vec<String>| {
            let reason = reason.filter(|_| state >= SlotState::Ending);
            ReportKind::State { booking: booking.clone(), account: account.clone(), state, reason, detail }
        };
        let kind = match &self.entry {
            Entry::Begin { booking, step, .. } => match step {
                Step::Arm => state(booking, SlotState::Arming, vec![]),
                Step::Shut => state(booking, SlotState::Ending, vec![]),
                Step::Save => state(booking, SlotState::Saving, vec![]),
                Step::Reset => state(booking, SlotState::Resetting, vec![]),
                _ => return None,
            },
            Entry::Done { booking, step: Step::Open } => state(booking, SlotState::Active, vec![]),
            Entry::Done { booking, step: Step::ProveClean } => state(booking, SlotState::Done, vec![]),
            Entry::NotOpened { booking, detail } => state(booking, SlotState::Ending, detail.clone()),
            Entry::Failed { booking, detail, .. } => state(booking, SlotState::Quarantined, detail.clone()),
            Entry::Seen { booking } => ReportKind::Seen { booking: booking.clone(), account: account.clone() },
            Entry::Missed { booking } => ReportKind::Missed { booking: booking.clone() },
            Entry::Refused { booking, why } => ReportKind::Refused { booking: booking.clone(), why: why.clone() },
            Entry::Stray { account } => ReportKind::Stray { account: account.clone() },
            Entry::LabKept { account, kept } => {
                let (lab, layout) = (kept.lab.clone(), kept.layout.clone());
                ReportKind::LabKept { account: account.clone(), lab, layout }
            }
            Entry::LabDropped { account } => ReportKind::LabDropped { account: account.clone() },
            Entry::Plan { revision } => ReportKind::Accepted { revision: *revision },
            _ => return None,
        };
        Some(Report { seq: self.seq, at: self.at, kind })
    }
}
