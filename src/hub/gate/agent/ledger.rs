use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Anchor, Entry, Kept, Line, Step};
use crate::hub::gate::{Epoch, Reason, Report, ReportKind, Slot, SlotState};

/// A slot that the agent has taken, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The slot, as the newest plan says.
    pub slot: Slot,
    /// The next step; none after the last.
    pub next: Option<Step>,
    /// Whether that step began; the effect may or may not be there.
    pub begun: bool,
    /// Whether its door was open, or may have been: else there is nothing of its holder to be saved.
    #[serde(default)]
    pub opened: bool,
    /// Why it ended, once it did.
    pub reason: Option<Reason>,
    /// The step that failed: quarantined.
    pub failed: Option<Step>,
    /// The revision of the plan when it failed; only a later one can clear it.
    pub failed_at: u64,
    /// Minutes that were told.
    pub warned: BTreeSet<u32>,
    /// Whether the holder came.
    pub seen: bool,
}

impl Held {
    fn new(slot: Slot) -> Self {
        Self {
            slot,
            next: Some(Step::Arm),
            begun: false,
            opened: false,
            reason: None,
            failed: None,
            failed_at: 0,
            warned: BTreeSet::new(),
            seen: false,
        }
    }

    /// Where it is.
    pub fn state(&self) -> SlotState {
        match (self.failed, self.next) {
            (Some(_), _) => SlotState::Quarantined,
            (None, None) => SlotState::Done,
            (None, Some(Step::Arm | Step::Open)) => SlotState::Arming,
            (None, Some(Step::Shut)) if !self.begun => SlotState::Active,
            (None, Some(Step::Save)) => SlotState::Saving,
            (None, Some(Step::Reset | Step::ProveClean)) => SlotState::Resetting,
            (None, Some(_)) => SlotState::Ending,
        }
    }

    /// Whether the door is open for it.
    pub fn is_open(&self) -> bool {
        self.state() == SlotState::Active
    }

    /// Whether its lab was brought up for its holder, whose time is not over: the door is open, or opens soon.
    pub fn has_lab(&self) -> bool {
        self.is_open() || (self.failed.is_none() && self.next == Some(Step::Open))
    }

    /// Goes by a newer plan; its holder is warned anew where it lasts longer.
    fn follow(&mut self, slot: &Slot) {
        // It was given away while it was armed, and is over for who had it; or was given back since.
        if self.is_over() {
            *self = Self::new(slot.clone());
        }
        if slot.ends > self.slot.ends {
            self.warned.clear();
        }
        self.slot = slot.clone();
    }

    /// A step begins; where a reason is given, that is why it ended.
    fn begin(&mut self, step: Step, reason: Option<Reason>) {
        (self.next, self.begun) = (Some(step), true);
        self.opened |= step == Step::Open;
        self.reason = reason.or(self.reason);
    }

    /// It ends without having been opened.
    fn not_opened(&mut self) {
        (self.next, self.begun) = (Some(Step::Shut), true);
        self.reason = Some(Reason::NotOpened);
    }

    /// An admin looked after it: its end is done and proven once more.
    fn cleared(&mut self) {
        // A door that did not shut is shut before anything else: it may be open still.
        (self.next, self.begun) = match self.failed.take() {
            Some(Step::Shut) => (Some(Step::Shut), true),
            _ => (Some(Step::Evict), false),
        };
    }

    /// The step after this one. A lab whose door never opened is not saved: the one of the slot before is newer than
    /// what came up only in part.
    fn after(&self, step: Step) -> Option<Step> {
        match step.next() {
            Some(Step::Save) if !self.opened => Step::Save.next(),
            next => next,
        }
    }

    /// Whether its place is free for another.
    pub fn is_over(&self) -> bool {
        self.state() == SlotState::Done
    }

    /// Whether it is over since a plan took it from its holder before the door opened.
    pub fn was_taken_away(&self) -> bool {
        self.is_over() && !self.opened && self.reason == Some(Reason::Cancelled)
    }
}

/// What the agent knows: the sum of its journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The last line's number.
    pub seq: u64,
    /// The revision of the plan that it works by.
    pub revision: u64,
    /// When time was last believed.
    pub anchor: Option<Anchor>,
    /// Slots by booking.
    pub slots: BTreeMap<String, Held>,
    /// Slots that passed unopened.
    pub missed: BTreeSet<String>,
    /// Labs that the server keeps between slots, by account.
    #[serde(default)]
    pub labs: BTreeMap<String, Kept>,
    /// Since when labs are without a slot, by account; also of one that was not removed whole.
    #[serde(default)]
    pub idle: BTreeMap<String, Epoch>,
    /// Reports that the hub has not taken yet, oldest first.
    pub queue: Vec<Report>,
}

impl Ledger {
    /// Whether the hub has yet to hear of the lab that is kept for an account.
    pub fn is_telling_of(&self, account: &str) -> bool {
        self.queue.iter().any(|r| matches!(&r.kind, ReportKind::LabKept { account: of, .. } if of == account))
    }

    /// Adds a line.
    pub fn apply(&mut self, line: &Line) {
        self.seq = self.seq.max(line.seq);
        match &line.entry {
            Entry::Plan { revision } => self.revision = *revision,
            Entry::Time { anchor } => self.anchor = Some(anchor.clone()),
            Entry::Taken { slot } => {
                self.idle.remove(&slot.account);
                self.slots.entry(slot.booking.clone()).or_insert_with(|| Held::new(slot.clone())).follow(slot);
            }
            Entry::Begin { booking, step, reason } => self.with(booking, |held| held.begin(*step, *reason)),
            Entry::Done { booking, step } => self.with(booking, |h| (h.next, h.begun) = (h.after(*step), false)),
            Entry::NotOpened { booking, .. } => self.with(booking, Held::not_opened),
            Entry::Failed { booking, step, .. } => {
                let revision = self.revision;
                self.with(booking, |h| (h.failed, h.failed_at) = (Some(*step), revision));
            }
            Entry::Cleared { booking, .. } => self.with(booking, Held::cleared),
            Entry::Warned { booking, minutes } => self.with(booking, |h| {
                h.warned.insert(*minutes);
            }),
            Entry::Seen { booking } => self.with(booking, |h| h.seen = true),
            Entry::Missed { booking } => drop(self.missed.insert(booking.clone())),
            Entry::LabKept { account, kept } => drop(self.labs.insert(account.clone(), kept.clone())),
            Entry::LabDropped { account } => drop(self.labs.remove(account)),
            Entry::LabIdle { account } => drop(self.idle.insert(account.clone(), line.at)),
            Entry::LabAwaited { account } | Entry::LabRetired { account } => drop(self.idle.remove(account)),
            Entry::Acknowledged { upto } => self.queue.retain(|r| r.seq > *upto),
            Entry::Forgotten { booking } => {
                self.slots.remove(booking);
                self.missed.remove(booking);
            }
            Entry::Refused { .. } | Entry::Stray { .. } => {}
        }
        let report = self.report(line);
        self.queue.extend(report);
    }

    /// What the hub is to hear of a line that was added last.
    fn report(&self, line: &Line) -> Option<Report> {
        let held = match &line.entry {
            Entry::Begin { booking, .. }
            | Entry::Done { booking, .. }
            | Entry::NotOpened { booking, .. }
            | Entry::Failed { booking, .. }
            | Entry::Seen { booking } => self.slots.get(booking),
            _ => None,
        };
        line.report(held.map(|h| h.slot.account.as_str()), held.and_then(|h| h.reason))
    }

    fn with(&mut self, booking: &str, change: impl FnOnce(&mut Held)) {
        if let Some(held) = self.slots.get_mut(booking) {
            change(held);
        }
    }
}
