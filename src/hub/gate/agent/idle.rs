use std::sync::Arc;

use super::{Agent, Entry, Halted, LARGEST_SKEW, Now, Reading};
use crate::{
    core::{Code, Problem},
    hub::gate::{Slot, Wanted},
};

/// After a removal that failed the next one waits so long, in milliseconds of the boot clock.
const PAUSE: i64 = 3_600_000;

impl Agent {
    /// Removes labs that nobody has had for as long as labs are kept: one at a time, the longest unused first, beside the
    /// ticks.
    ///
    /// How long that is counts from the first look at which a lab has no slot.
    pub(super) async fn retire_labs(&mut self, now: Now, look: &Reading, doubt: Option<&str>) -> Result<(), Halted> {
        self.collect_retired(look).await?;
        // What was just removed is told before it is counted again.
        if self.limits.keep <= 0 || self.labs_due || self.no_disk().is_some() || !self.is_sure_of(now, doubt) {
            return Ok(());
        }
        let Some(account) = self.count_idle(now)? else { return Ok(()) };
        if self.retiring.is_none() && look.boot >= self.retire_from {
            let (hand, of) = (Arc::clone(&self.hand), account.clone());
            let task = tokio::spawn(async move { hand.retire(&of).await });
            self.retiring = Some((account, task));
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Whether the time may be used to throw something away: beyond doubt, and within the days of the hub's plan. A clock
    /// that shows another year has no plan.
    fn is_sure_of(&self, now: Now, doubt: Option<&str>) -> bool {
        doubt.is_none() && self.valid_plan(now).is_some_and(|plan| now.early >= plan.issued_at * 1000 - LARGEST_SKEW)
    }

    /// Notes since when labs have been without a slot, anew for who gives up one that was ahead; gives the one that is to go.
    fn count_idle(&self, now: Now) -> Result<Option<String>, Halted> {
        let ledger = self.ledger();
        let has_slot = |account: &str| {
            let open = |s: &&Slot| s.wanted == Wanted::Open && now.early < s.ends * 1000;
            let ahead = self.plan.iter().flat_map(|p| &p.slots).filter(open);
            let held = ledger.slots.values().filter(|h| !h.is_over()).map(|h| &h.slot);
            let later = self.plan.iter().flat_map(|p| &p.later).any(|of| of == account);
            later || ahead.chain(held).any(|slot| slot.account == account)
        };
        for account in ledger.labs.keys().filter(|a| !ledger.idle.contains_key(*a) && !has_slot(a)) {
            self.write(Entry::LabIdle { account: account.clone() })?;
        }
        // Whoever cancels a slot to book another one is not to lose the lab in between. What was not removed whole goes all
        // the same, unless its holder comes.
        let whole = |account: &String| {
            ledger.labs.contains_key(account) && self.retiring.as_ref().is_none_or(|(of, _)| of != account)
        };
        for account in ledger.idle.keys().filter(|account| whole(account) && has_slot(account)) {
            self.write(Entry::LabAwaited { account: account.clone() })?;
        }
        let over = |since: i64| now.early >= (since + self.limits.keep) * 1000;
        let due = ledger.idle.iter().filter(|(account, since)| over(**since) && !has_slot(account));
        Ok(due.min_by_key(|(_, since)| **since).map(|(account, _)| account.clone()))
    }

    /// Writes down how a removal ended.
    async fn collect_retired(&mut self, look: &Reading) -> Result<(), Halted> {
        let Some((account, task)) = self.retiring.take_if(|(_, task)| task.is_finished()) else { return Ok(()) };
        self.labs_due = true;
        let what = format!("the lab of {account}");
        let ended = task
            .await
            .unwrap_or_else(|e| Err(Problem::new(Code::Internal, "the removal of a lab stopped by itself").because(e)));
        match ended {
            Ok(()) => {
                self.troubles.remove(&what);
                self.write(Entry::LabRetired { account })
            }
            Err(problem) => {
                self.retire_from = look.boot + PAUSE;
                self.trouble(&what, problem.to_string());
                Ok(())
            }
        }
    }

    /// Ends the removal of an account's lab, whose holder comes back: what is left of it begins anew.
    pub(super) async fn stop_retiring(&mut self, account: &str) {
        if let Some((_, task)) = self.retiring.take_if(|(of, _)| of.as_str() == account) {
            task.abort();
            let _ = task.await;
            self.labs_due = true;
        }
    }
}
