use std::{collections::BTreeSet, sync::Arc};

use futures::future::join_all;

use super::{Agent, Cleared, Entry, Halted, HandOver, Held, Reading, Step, doors::lines};
use crate::{
    core::{Code, Problem},
    hub::gate::{Slot, SlotState},
};

/// Between two tries to start a lab again that was open before a restart, milliseconds.
const REVIVE_AGAIN: i64 = 60_000;

/// How long an end may take in which something goes on being removed, milliseconds: nobody's million files keep a place for ever.
const LONGEST: i64 = 900_000;

/// Since when a slot is being ended, by the boot clock in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Since {
    /// When that began.
    pub began: i64,
    /// When something was removed last, with more to come.
    advanced: i64,
}

impl Since {
    /// From now on.
    pub fn at(boot: i64) -> Self {
        Self { began: boot, advanced: boot }
    }
}

/// Why an end goes on at the next tick.
struct Rest {
    problem: Problem,
    /// Whether this tick has brought it further.
    advances: bool,
}

impl Agent {
    /// Ends what ran in slots whose door is shut, those of several people side by side.
    pub(super) async fn end_all(&mut self, reading: &Reading) -> Result<(), Halted> {
        let is_ending = |h: &Held| h.state() == SlotState::Ending;
        let mut held = self.slots_that(is_ending);
        // For how long a door has not been shut counts too.
        self.ending.retain(|booking, _| held.iter().any(|h| h.slot.booking == *booking));
        held.retain(|h| h.next > Some(Step::Shut));
        for h in &held {
            self.ending.entry(h.slot.booking.clone()).or_insert(Since::at(reading.boot));
        }
        let this = &*self;
        let ended = join_all(held.iter().map(|h| this.end_one(h, reading.boot))).await;
        for (h, ended) in held.iter().zip(ended) {
            match ended? {
                Some(Rest { problem, advances }) => {
                    self.trouble(&h.slot.booking, problem.to_string());
                    if let Some(since) = self.ending.get_mut(&h.slot.booking).filter(|_| advances) {
                        since.advanced = reading.boot;
                    }
                }
                None => drop(self.troubles.remove(&h.slot.booking)),
            }
        }
        Ok(())
    }

    /// Goes as far as it gets; what did not work is tried at the next tick, until the limit. What goes on being removed is
    /// not stuck, and has a longer one.
    async fn end_one(&self, held: &Held, boot: i64) -> Result<Option<Rest>, Halted> {
        let (booking, account) = (&held.slot.booking, &held.slot.account);
        let since = self.ending.get(booking).copied().unwrap_or(Since::at(boot));
        let mut begun = held.begun;
        for step in [Step::Evict, Step::Clear, Step::Cut, Step::ProveEmpty] {
            if held.next > Some(step) {
                continue;
            }
            if !begun {
                self.write(Entry::Begin { booking: booking.clone(), step, reason: None })?;
            }
            let again = std::mem::take(&mut begun);
            let whole = |()| Cleared::Whole;
            let tried = match step {
                Step::Evict => self.world.evict(account).await.map(whole),
                Step::Clear => self.clear(account, again).await,
                Step::Cut => self.cut(account).await.map(whole),
                _ => self.prove_empty(account).await.map(whole),
            };
            let (problem, advances, late) = match tried {
                Ok(Cleared::Whole) => {
                    self.write(Entry::Done { booking: booking.clone(), step })?;
                    continue;
                }
                Ok(Cleared::Partly) => {
                    let what = format!("what {account} left is still being removed");
                    (Problem::new(Code::GateNotEmpty, what), true, boot - since.began > LONGEST)
                }
                Err(problem) => (problem, false, boot - since.advanced > self.limits.evict * 1000),
            };
            if late {
                let detail = lines(&problem);
                self.write(Entry::Failed { booking: booking.clone(), step, detail })?;
            }
            return Ok(Some(Rest { problem, advances }));
        }
        Ok(None)
    }

    /// Removes what is left; where that takes several ticks, what came back meanwhile is ended at each of them.
    async fn clear(&self, account: &str, again: bool) -> Result<Cleared, Problem> {
        if again {
            self.world.evict(account).await?;
        }
        self.world.clear(account).await
    }

    /// Nothing of the account's connections goes on, to the lab's machines neither.
    async fn cut(&self, account: &str) -> Result<(), Problem> {
        let others: BTreeSet<String> = self.reaching.iter().filter(|a| a.as_str() != account).cloned().collect();
        let labs = self.hand.reach();
        self.world.set_reach(&labs, &others).await?;
        self.world.cut_flows(account).await
    }

    /// What came back between killing and looking is ended once more before it counts.
    async fn prove_empty(&self, account: &str) -> Result<(), Problem> {
        if self.left_of(account).await?.is_empty() {
            // Those that an eviction at an earlier look found may not all be cut yet.
            return self.world.cut_flows(account).await;
        }
        self.world.evict(account).await?;
        // What it does not get done is found below: at this step nobody's files are many any more.
        self.world.clear(account).await?;
        self.world.cut_flows(account).await?;
        let left = self.left_of(account).await?;
        if left.is_empty() {
            return Ok(());
        }
        Err(Problem::new(Code::GateNotEmpty, format!("something of {account} is still there")).detail(left))
    }

    /// What is left of an account, as lines: files only when nothing runs that could make more of them.
    async fn left_of(&self, account: &str) -> Result<Vec<String>, Problem> {
        let running = self.world.remains(&[account.to_owned()])?.remove(account).unwrap_or_default();
        if running.is_empty() { self.world.left_behind(account).await } else { Ok(running.lines()) }
    }

    /// Begins and collects work on labs; it goes on beside the ticks, since a save may take minutes.
    pub(super) async fn work_on_labs(&mut self) -> Result<(), Halted> {
        let labs = |h: &Held| {
            let step = h.next.filter(|s| matches!(s, Step::Arm | Step::Save | Step::Reset | Step::ProveClean));
            step.filter(|_| h.failed.is_none()).map(|step| (h.slot.clone(), step, h.begun))
        };
        let due: Vec<_> = self.books().ledger().slots.values().filter_map(labs).collect();
        for (slot, step, mut begun) in due {
            let mut step = Some(step);
            // Several steps in one go, as long as each is quick.
            while let Some(at) = step.filter(|s| matches!(s, Step::Arm | Step::Save | Step::Reset | Step::ProveClean)) {
                if !self.work.contains_key(&slot.booking) {
                    if !begun {
                        self.write(Entry::Begin { booking: slot.booking.clone(), step: at, reason: None })?;
                    }
                    let (hand, slot) = (Arc::clone(&self.hand), slot.clone());
                    let booking = slot.booking.clone();
                    let task = tokio::spawn(async move { carry_out(&*hand, at, &slot).await });
                    self.work.insert(booking, (at, task));
                    tokio::task::yield_now().await;
                }
                if self.work.get(&slot.booking).is_some_and(|(_, task)| !task.is_finished()) {
                    break;
                }
                step = self.collect(&slot.booking).await?;
                begun = false;
            }
        }
        Ok(())
    }

    /// Notices that all machines were ended: what the hand-over of one lab does with an engine that hangs ends those of
    /// all.
    ///
    /// A lab that is still brought up starts the engine itself, and needs nothing more.
    pub(super) fn heed_era(&mut self) {
        let era = self.hand.era();
        if era == self.era {
            return;
        }
        self.era = era;
        for held in self.slots_that(Held::has_lab) {
            self.found_up.entry(held.slot.booking).or_insert(0);
        }
    }

    /// Has labs started again that were up before this process began, or before all machines were ended, for slots that are
    /// open or open soon; by the boot clock in milliseconds.
    ///
    /// The end of a slot ends that too. One that does not come up is tried again: what it needs of the server may be up
    /// later than the agent.
    pub(super) async fn revive(&mut self, boot: i64) {
        let up: Vec<Slot> = self.slots_that(Held::has_lab).into_iter().map(|h| h.slot).collect();
        for slot in up {
            let booking = slot.booking.clone();
            let works = self.work.contains_key(&booking);
            if !works && self.found_up.get(&booking).is_some_and(|from| *from <= boot) {
                // What ends the machines while it goes on asks for one more.
                self.found_up.remove(&booking);
                let hand = Arc::clone(&self.hand);
                let task = tokio::spawn(async move { hand.revive(&slot).await });
                self.work.insert(booking, (Step::Arm, task));
                tokio::task::yield_now().await;
            } else if self.work.get(&booking).is_some_and(|(_, task)| task.is_finished())
                && let Some((_, task)) = self.work.remove(&booking)
            {
                self.labs_due = true;
                match task.await {
                    Ok(Err(problem)) => {
                        self.found_up.insert(booking.clone(), boot + REVIVE_AGAIN);
                        self.trouble(&booking, problem.to_string());
                    }
                    Ok(Ok(())) => {
                        self.troubles.remove(&booking);
                        self.heed_home(&booking);
                    }
                    Err(ended) => {
                        self.found_up.insert(booking.clone(), boot + REVIVE_AGAIN);
                        self.trouble(&booking, format!("starting the lab again ended by itself: {ended}"));
                    }
                }
            }
        }
    }

    /// Tells the hub which labs the server keeps, where work may have changed that: who has one chooses by it.
    ///
    /// All of them at the first look, since after an enrolment the hub knows of none.
    pub(super) fn tell_labs(&mut self) -> Result<(), Halted> {
        if !std::mem::take(&mut self.labs_due) {
            return Ok(());
        }
        let anew = !std::mem::replace(&mut self.labs_told, true);
        let (ledger, now) = (self.ledger(), self.hand.kept());
        for account in ledger.labs.keys().filter(|account| !now.contains_key(*account)) {
            self.write(Entry::LabDropped { account: account.clone() })?;
        }
        for (account, kept) in now {
            // It is there still: what the hub knows of it stays.
            let Some(kept) = kept else { continue };
            let known = ledger.labs.get(&account) == Some(&kept);
            // What the hub has not taken yet is not told twice: an agent that restarts again and again fills no disk.
            if !known || (anew && !ledger.is_telling_of(&account)) {
                self.write(Entry::LabKept { account, kept })?;
            }
        }
        Ok(())
    }

    /// Tells what a holder's home did not take when their lab was last handed over: they may not find it there.
    fn heed_home(&mut self, booking: &str) {
        let account = self.books().ledger().slots.get(booking).map(|h| h.slot.account.clone());
        let Some(account) = account else { return };
        let what = format!("the home of {account}");
        match self.hand.lacking(&account) {
            Some(why) => self.trouble(&what, why),
            None => drop(self.troubles.remove(&what)),
        }
    }

    /// Writes down how work ended; gives the next step.
    async fn collect(&mut self, booking: &str) -> Result<Option<Step>, Halted> {
        let Some((step, task)) = self.work.remove(booking) else { return Ok(None) };
        self.labs_due = true;
        let ended = task
            .await
            .unwrap_or_else(|e| Err(Problem::new(Code::Internal, "the work on a lab stopped by itself").because(e)));
        match ended {
            Ok(()) => {
                self.heed_home(booking);
                self.write(Entry::Done { booking: booking.to_owned(), step })?;
                Ok(step.next())
            }
            Err(problem) => {
                let (booking, detail) = (booking.to_owned(), lines(&problem));
                // A lab that does not come up says nothing about what its place is like: the end of its slot does.
                self.write(match step {
                    Step::Arm => Entry::NotOpened { booking, detail },
                    _ => Entry::Failed { booking, step, detail },
                })?;
                Ok(None)
            }
        }
    }
}

async fn carry_out(hand: &dyn HandOver, step: Step, slot: &Slot) -> Result<(), Problem> {
    match step {
        Step::Arm => hand.arm(slot).await,
        Step::Save => hand.save(slot).await,
        Step::Reset => hand.reset(slot).await,
        _ => hand.prove(slot).await,
    }
}
