use std::sync::{MutexGuard, PoisonError};

use super::{Agent, Entry, Halted, Held, Journal, Ledger};
use crate::hub::gate::{Came, Report, ReportKind, SlotState};

/// What the agent knows, by its journal, and what it writes there.
impl Agent {
    /// The journal, for as long as one looks at it: not across a tick's other work, which writes to it.
    pub(super) fn books(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an entry of now.
    pub(super) fn write(&self, entry: Entry) -> Result<(), Halted> {
        let mut books = self.books();
        self.note(&entry, books.ledger());
        books.write(self.wall, entry)
    }

    /// The revision of the plan that it works by.
    pub fn revision(&self) -> u64 {
        self.books().ledger().revision
    }

    /// All that the agent knows, as a copy.
    pub fn ledger(&self) -> Ledger {
        self.books().ledger().clone()
    }

    /// Copies of the slots that are wanted, by booking.
    ///
    /// `is_wanted` must not look at the journal itself, which is locked.
    pub(super) fn slots_that(&self, is_wanted: impl Fn(&Held) -> bool) -> Vec<Held> {
        self.books().ledger().slots.values().filter(|held| is_wanted(held)).cloned().collect()
    }

    /// Reports that the hub has not taken yet, the oldest first.
    pub fn queue(&self) -> Vec<Report> {
        self.books().to_tell().take(200).cloned().collect()
    }

    /// Whether holders find labs here.
    pub fn makes_labs(&self) -> bool {
        self.hand.makes_labs()
    }

    /// Slots that hold a place.
    pub fn holding(&self) -> Vec<(String, SlotState)> {
        let books = self.books();
        books.ledger().slots.values().filter(|h| !h.is_over()).map(|h| (h.slot.booking.clone(), h.state())).collect()
    }

    /// Open slots whose holders came.
    pub fn came(&self) -> Vec<Came> {
        let books = self.books();
        let ledger = books.ledger();
        let told = |booking: &str| {
            let of = |r: &&Report| matches!(&r.kind, ReportKind::Seen { booking: seen, .. } if seen == booking);
            ledger.queue.iter().find(of).map(|r| r.at)
        };
        let seen = ledger.slots.values().filter(|h| h.is_open() && h.seen).map(|h| &h.slot);
        seen.map(|s| Came { booking: s.booking.clone(), at: told(&s.booking).unwrap_or(s.starts) }).collect()
    }

    /// The hub has every report up to this one.
    pub fn acknowledged(&mut self, upto: u64) -> Result<(), Halted> {
        let known = self.books().ledger().queue.first().is_some_and(|r| r.seq <= upto);
        if known { self.write(Entry::Acknowledged { upto }) } else { Ok(()) }
    }
}
