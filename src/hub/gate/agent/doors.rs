use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;

use super::{Agent, Entry, Halted, Held, Now, Remains, Step, ending::Since};
use crate::{
    core::{Code, Problem, shell::printable},
    hub::gate::{Reason, Slot, SlotState},
};

/// Minutes before the end at which the holder is told.
const WARNINGS: [u32; 3] = [1, 5, 15];

/// How long a tick waits for what the server says of accounts: a directory that is slow is heard at a later one.
const ASKED: Duration = Duration::from_secs(1);

impl Agent {
    /// Takes the principals away of slots that end now, and returns the bookings whose door is shut.
    ///
    /// It comes before anything is written down: no slow disk and no death at the journal may lengthen a slot.
    pub(super) fn take_principals(&mut self, now: Now) -> BTreeSet<String> {
        let mut shut = BTreeSet::new();
        for held in self.slots_that(|h| self.why_end(h, now).is_some()) {
            match self.world.set_principals(&held.slot.account, "") {
                Ok(()) => drop(shut.insert(held.slot.booking)),
                Err(problem) => self.trouble(&held.slot.booking, problem.to_string()),
            }
        }
        shut
    }

    /// Ends what goes on at the lab of a slot, so that it counts for no later step.
    async fn end_work(&mut self, booking: &str) {
        if let Some((_, task)) = self.work.remove(booking) {
            task.abort();
            let _ = task.await;
        }
    }

    /// Writes down that slots end now, and goes on shutting the doors that are not `shut` yet; `boot` is the boot clock in
    /// milliseconds.
    pub(super) async fn shut_doors(&mut self, now: Now, boot: i64, shut: &BTreeSet<String>) -> Result<(), Halted> {
        let (mut stuck, mut told) = (vec![], false);
        for held in self.slots_that(|h| !h.is_over()) {
            let booking = held.slot.booking.clone();
            let reason = self.why_end(&held, now);
            if reason.is_some() {
                told |= self.tell_end(&held, reason).await;
                self.end_work(&booking).await;
                self.write(Entry::Begin { booking: booking.clone(), step: Step::Shut, reason })?;
            }
            let begun = held.failed.is_none() && held.next == Some(Step::Shut) && held.begun;
            if reason.is_none() && !begun {
                continue;
            }
            let done = if shut.contains(&booking) { Ok(()) } else { self.world.set_principals(&held.slot.account, "") };
            match done {
                Ok(()) => self.write(Entry::Done { booking, step: Step::Shut })?,
                Err(problem) => stuck.push((held.slot, problem)),
            }
        }
        if told {
            self.world.linger().await;
        }
        self.put_out(stuck, boot).await
    }

    /// Tells the terminals of an open slot that it was taken from its holder, and why: nothing has warned them. Whether
    /// anybody was told.
    async fn tell_end(&self, held: &Held, reason: Option<Reason>) -> bool {
        let what = match reason {
            Some(Reason::Overridden) => "was ended",
            Some(Reason::Cancelled) => "was cancelled",
            _ => return false,
        };
        if !held.is_open() {
            return false;
        }
        let why = self.word_on(&held.slot.booking);
        // A person wrote it, and terminals obey.
        let why = why.map(|why| format!(": {}", printable(why))).unwrap_or_default();
        let stays = self.stays(&held.slot);
        let text = format!("kubecamp: your slot {what}{why}. Your processes here are ended now; {stays}.");
        self.world.warn(&held.slot.account, &text).await;
        true
    }

    /// What a holder has after the end. Who is told of a lab that nobody saves here counts on it, and loses what is in it.
    fn stays(&self, slot: &Slot) -> &'static str {
        if self.hand.saves(slot) { "your lab is saved" } else { "your home stays" }
    }

    /// Ends what runs in slots that are over and whose doors do not shut, as on a disk that became read-only: nobody stays
    /// for as long as that lasts, and past the limit it is a quarantine.
    async fn put_out(&mut self, stuck: Vec<(Slot, Problem)>, boot: i64) -> Result<(), Halted> {
        // Who comes in anew by such a door is met at the next tick.
        let ended = join_all(stuck.iter().map(|(slot, _)| self.world.evict(&slot.account))).await;
        for ((slot, problem), ended) in stuck.into_iter().zip(ended) {
            let since = self.ending.entry(slot.booking.clone()).or_insert(Since::at(boot)).began;
            let mut detail = lines(&problem);
            detail.extend(ended.err().iter().flat_map(lines));
            self.trouble(&slot.booking, problem.to_string());
            if boot - since > self.limits.evict * 1000 {
                self.write(Entry::Failed { booking: slot.booking, step: Step::Shut, detail })?;
            }
        }
        Ok(())
    }

    /// Makes the principals files what they must be, whoever changed them: those of open slots and no others.
    pub(super) fn keep_doors(&mut self, lost: bool) {
        let found = match self.world.principals() {
            Ok(found) => found,
            Err(problem) => return self.trouble("principals", problem.to_string()),
        };
        self.troubles.remove("principals");
        let open = self.slots_that(|h| h.is_open() && !lost);
        for account in found.keys().filter(|a| !open.iter().any(|h| h.slot.account == **a)) {
            if let Err(problem) = self.world.set_principals(account, "") {
                self.trouble(account, problem.to_string());
            }
        }
        for held in open {
            let line = self.world.principals_line(&held.slot);
            if found.get(&held.slot.account) != Some(&line)
                && let Err(problem) = self.world.set_principals(&held.slot.account, &line)
            {
                self.trouble(&held.slot.account, problem.to_string());
            }
        }
    }

    /// Lets the holders of open slots reach the machines of their labs, and nobody else.
    ///
    /// As with the door, nothing is written down first.
    pub(super) async fn keep_reach(&mut self, now: Now, lost: bool) {
        let open = |h: &Held| !lost && h.is_open() && self.why_end(h, now).is_none();
        self.reaching = self.slots_that(open).into_iter().map(|h| h.slot.account).collect();
        let labs = self.hand.reach();
        let set = self.world.set_reach(&labs, &self.reaching).await;
        match set {
            Ok(()) => drop(self.troubles.remove("reach")),
            Err(problem) => self.trouble("reach", problem.to_string()),
        }
    }

    /// Opens the doors of slots that start now and whose lab is up.
    pub(super) async fn open_doors(&mut self, now: Now, doubt: Option<&str>) -> Result<(), Halted> {
        let is_due = |h: &Held| h.failed.is_none() && h.next == Some(Step::Open) && now.early >= h.slot.starts * 1000;
        let mut due = vec![];
        for held in self.slots_that(is_due) {
            let booking = held.slot.booking.clone();
            if let Some(why) = doubt.map(str::to_owned).or_else(|| self.no_disk()) {
                self.refuse(&booking, why)?;
                continue;
            }
            if !held.begun {
                self.write(Entry::Begin { booking, step: Step::Open, reason: None })?;
            }
            due.push(held);
        }
        self.ask(&due).await;
        for held in due {
            let (booking, account) = (held.slot.booking.clone(), &held.slot.account);
            match self.answer(&booking).await {
                Some(Ok(())) => {}
                // Nobody has said that the account is none: it is asked again, until the slot's end.
                Some(Err(problem)) if problem.code == Code::GateProgram => {
                    self.refuse(&booking, problem.to_string())?;
                    continue;
                }
                Some(Err(problem)) => {
                    self.end_work(&booking).await;
                    self.write(Entry::NotOpened { booking, detail: lines(&problem) })?;
                    continue;
                }
                None => continue,
            }
            match self.world.set_principals(account, &self.world.principals_line(&held.slot)) {
                Ok(()) => {
                    self.refused.remove(&booking);
                    self.write(Entry::Done { booking, step: Step::Open })?;
                }
                Err(problem) => self.refuse(&booking, problem.to_string())?,
            }
        }
        Ok(())
    }

    /// Has the accounts of slots that are to open looked at, beside the ticks: other doors wait a moment for that, once.
    async fn ask(&mut self, due: &[Held]) {
        let opening = self.slots_that(|h| h.failed.is_none() && h.next == Some(Step::Open));
        self.asking.retain(|booking, task| {
            let is_in = |slots: &[Held]| slots.iter().any(|h| h.slot.booking == *booking);
            // Where only the time is in doubt one that works goes on: it may be making the account.
            let is_kept = is_in(due) || (!task.is_finished() && is_in(&opening));
            if !is_kept {
                task.abort();
            }
            is_kept
        });
        let before = self.asking.len();
        for held in due {
            let (world, account) = (Arc::clone(&self.world), held.slot.account.clone());
            let ask = || tokio::spawn(async move { world.ensure_account(&account).await });
            self.asking.entry(held.slot.booking.clone()).or_insert_with(ask);
        }
        if self.asking.len() == before {
            return;
        }
        let until = Instant::now() + ASKED;
        tokio::task::yield_now().await;
        while self.asking.values().any(|task| !task.is_finished()) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether a slot's account can be let in; none while that is not known.
    async fn answer(&mut self, booking: &str) -> Option<Result<(), Problem>> {
        if !self.asking.get(booking)?.is_finished() {
            return None;
        }
        let ended = self.asking.remove(booking)?.await;
        let by_itself = |e| Err(Problem::new(Code::Internal, "a look at an account ended by itself").because(e));
        Some(ended.unwrap_or_else(by_itself))
    }

    /// Tells holders how many minutes are left; after an extension again.
    pub(super) async fn tell(&mut self, now: Now) -> Result<(), Halted> {
        for held in self.slots_that(Held::is_open) {
            let left = held.slot.ends * 1000 - now.late;
            let Some(minutes) = WARNINGS.into_iter().find(|m| left <= i64::from(*m) * 60_000) else { continue };
            if left <= 0 || held.warned.iter().any(|told| *told <= minutes) {
                continue;
            }
            let unit = if minutes == 1 { "minute" } else { "minutes" };
            let stays = self.stays(&held.slot);
            let text =
                format!("kubecamp: your slot ends in {minutes} {unit}. Your processes here are ended then; {stays}.");
            self.world.warn(&held.slot.account, &text).await;
            self.write(Entry::Warned { booking: held.slot.booking, minutes })?;
        }
        Ok(())
    }

    /// Sees who came, and ends whatever an account runs outside of its slots.
    pub(super) async fn sweep(&mut self, lost: bool) -> Result<(), Halted> {
        let slots = self.slots_that(|_| true);
        let mut accounts: BTreeSet<String> = self.world.accounts().into_iter().collect();
        accounts.extend(slots.iter().map(|h| h.slot.account.clone()));
        let remains = match self.world.remains(&accounts.iter().cloned().collect::<Vec<_>>()) {
            Ok(remains) => remains,
            Err(problem) => {
                self.trouble("processes", problem.to_string());
                return Ok(());
            }
        };
        self.troubles.remove("processes");
        self.strays.retain(|a| remains.contains_key(a));
        if !lost {
            self.see(&slots, &remains).await?;
        }
        let mut strays = vec![];
        for account in remains.iter().filter(|(_, left)| !left.processes.is_empty()).map(|(account, _)| account) {
            let of = || slots.iter().filter(|h| h.slot.account == *account);
            // The end of a slot ends them itself, and counts how long it takes.
            if of().any(|h| (h.is_open() && !lost) || h.state() == SlotState::Ending) {
                continue;
            }
            strays.push(account);
        }
        let ended = join_all(strays.iter().map(|account| self.world.evict(account))).await;
        for (account, ended) in strays.into_iter().zip(ended) {
            if let Err(problem) = ended {
                self.trouble(account, problem.to_string());
            }
            if self.strays.insert(account.clone()) {
                self.write(Entry::Stray { account: account.clone() })?;
            }
        }
        Ok(())
    }

    /// Notes which holders came: something of theirs runs, or they were let in and are gone before anybody looked.
    async fn see(&self, slots: &[Held], remains: &BTreeMap<String, Remains>) -> Result<(), Halted> {
        let awaited: Vec<_> = slots.iter().filter(|h| h.is_open() && !h.seen).collect();
        for Held { slot, .. } in awaited {
            let runs = remains.get(&slot.account).is_some_and(|left| !left.processes.is_empty());
            if runs || self.world.was_let_in(&slot.principal).await {
                self.write(Entry::Seen { booking: slot.booking.clone() })?;
            }
        }
        Ok(())
    }

    pub(super) fn trouble(&mut self, what: &str, why: String) {
        self.troubles.insert(what.to_owned(), why);
    }
}

/// A problem as lines for a report.
pub(super) fn lines(problem: &Problem) -> Vec<String> {
    problem.to_string().lines().map(|l| crate::core::shell::printable(l.trim())).take(10).collect()
}
