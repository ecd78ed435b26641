use std::{sync::Arc, time::Duration};

use tokio::task::{JoinError, JoinHandle};

use super::{Agent, HandOver};
use crate::{
    core::{Code, Problem},
    hub::gate::Slot,
};

/// How long stopping the machines of a lab may take; an engine that has to start for it has three minutes of that.
const LIMIT: Duration = Duration::from_secs(240);

/// After stopping that failed the next try waits so long, in milliseconds of the boot clock.
const PAUSE: i64 = 60_000;

/// How far the machines of a quarantined slot's lab are stopped.
pub(super) enum Halt {
    /// They are being stopped.
    Runs(JoinHandle<Result<(), Problem>>),
    /// That failed, and is tried again at this time of the boot clock.
    Again(i64),
    /// They are, or there are none.
    Done,
}

impl Agent {
    /// Stops the machines of labs whose slots are quarantined: nobody goes on in them beside other holders while an admin
    /// is awaited, and nothing of them is thrown away.
    ///
    /// A new process does it once more.
    pub(super) async fn halt_failed(&mut self, boot: i64) {
        let failed = self.slots_that(|h| h.failed.is_some());
        let failed: Vec<Slot> = failed.into_iter().map(|h| h.slot).collect();
        let is_cleared = |booking: &String| !failed.iter().any(|slot| slot.booking == *booking);
        let cleared: Vec<String> = self.halting.keys().filter(|booking| is_cleared(booking)).cloned().collect();
        for booking in cleared {
            self.troubles.remove(&what(&booking));
            // What comes after the quarantine works on the lab itself.
            if let Some(Halt::Runs(task)) = self.halting.remove(&booking) {
                task.abort();
                let _ = task.await;
            }
        }
        for slot in failed {
            let booking = slot.booking.clone();
            let next = match self.halting.remove(&booking) {
                Some(Halt::Runs(task)) if task.is_finished() => self.halted(&booking, boot, task.await),
                Some(Halt::Again(from)) if from > boot => Halt::Again(from),
                None | Some(Halt::Again(_)) => {
                    let task = tokio::spawn(halt(Arc::clone(&self.hand), slot));
                    tokio::task::yield_now().await;
                    Halt::Runs(task)
                }
                Some(as_before) => as_before,
            };
            self.halting.insert(booking, next);
        }
    }

    fn halted(&mut self, booking: &str, boot: i64, ended: Result<Result<(), Problem>, JoinError>) -> Halt {
        let ended = ended.unwrap_or_else(|e| {
            Err(Problem::new(Code::Internal, "the stop of a lab came to an end by itself").because(e))
        });
        match ended {
            Ok(()) => {
                self.troubles.remove(&what(booking));
                Halt::Done
            }
            Err(problem) => {
                self.trouble(&what(booking), problem.to_string());
                Halt::Again(boot + PAUSE)
            }
        }
    }
}

fn what(booking: &str) -> String {
    format!("the machines of the quarantined slot {booking}")
}

async fn halt(hand: Arc<dyn HandOver>, slot: Slot) -> Result<(), Problem> {
    let late = |_| {
        let what = format!("the machines of {} did not stop within {} s", slot.account, LIMIT.as_secs());
        Err(Problem::new(Code::GateHandOver, what))
    };
    tokio::time::timeout(LIMIT, hand.halt(&slot)).await.unwrap_or_else(late)
}
