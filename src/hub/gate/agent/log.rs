use std::{mem, sync::PoisonError};

use serde::Serialize;

use super::{Agent, Entry, Ledger, Step};

impl Agent {
    /// Lines for a log of what became of slots and their doors since they were asked for last, the oldest first.
    pub fn log(&self) -> Vec<String> {
        mem::take(&mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps what a log says of an entry that is about to be written.
    pub(super) fn note(&self, entry: &Entry, before: &Ledger) {
        if let Some(line) = line(entry, before, self.server()) {
            self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }
}

/// What a log says of an entry; nothing of those that move no door and end no slot.
fn line(entry: &Entry, before: &Ledger, server: &str) -> Option<String> {
    let (what, booking, more) = match entry {
        Entry::Done { booking, step: Step::Open } => ("opened", booking, String::new()),
        Entry::Warned { booking, minutes } => ("warned", booking, format!(" minutes={minutes}")),
        Entry::Done { booking, step: Step::Shut } => {
            // That of a slot which never opened was shut all the time.
            let held = before.slots.get(booking).filter(|held| held.opened)?;
            let reason = held.reason.map(|reason| format!(" reason={}", word(&reason)));
            ("closed", booking, reason.unwrap_or_default())
        }
        Entry::Done { booking, step: Step::ProveClean } => ("handed over", booking, String::new()),
        Entry::NotOpened { booking, .. } => ("not opened", booking, String::new()),
        Entry::Failed { booking, step, .. } => ("quarantined", booking, format!(" step={}", word(step))),
        _ => return None,
    };
    let account = before.slots.get(booking).map_or("-", |held| held.slot.account.as_str());
    Some(format!("slot {what}: booking={booking} account={account} server={server}{more}"))
}

/// How the journal spells it.
fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
