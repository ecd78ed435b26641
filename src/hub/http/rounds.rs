use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    core::{Code, Problem},
    hub::domain::Epoch,
};

/// The clerk does a round each second, and gives one up after a minute: with none done for longer than this it stands still.
const STANDS_STILL: Duration = Duration::from_secs(120);
/// With clocks that differ by more than this the hub does nothing by its own, seconds.
const MOST_APART: i64 = 30;

/// How the clerk's rounds go, for who asks whether the hub is well.
#[derive(Debug, Default)]
pub struct Rounds(Mutex<Seen>);

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    /// When the last round was done; before that, when the first one began.
    done: Option<Instant>,
    /// By how much the hub's clock is ahead of its database's, where that is too much.
    ahead: Option<i64>,
}

impl Rounds {
    /// Notes that a round begins.
    ///
    /// Before the first nobody expects any.
    pub fn begin(&self) {
        self.seen().done.get_or_insert_with(Instant::now);
    }

    /// Notes that a round went through: one that hangs or fails each time is begun again and again.
    pub fn done(&self) {
        self.seen().done = Some(Instant::now());
    }

    /// Compares what the database's clock said with the hub's own before and after it was asked; whether the hub may go by
    /// its own.
    ///
    /// The log is told once when it may not, and once when it may again.
    pub fn compare(&self, before: Epoch, theirs: Epoch, after: Epoch) -> bool {
        let ahead = (before - theirs).max(0) - (theirs - after).max(0);
        let ahead = (ahead.abs() > MOST_APART).then_some(ahead);
        let former = std::mem::replace(&mut self.seen().ahead, ahead);
        match (former, ahead) {
            (None, Some(ahead)) => tracing::error!(problem = %apart(ahead), "the clerk does nothing until then"),
            (Some(_), None) => tracing::info!("the hub's clock is right again"),
            _ => {}
        }
        ahead.is_none()
    }

    /// Whether the clocks were too far apart when they were compared last.
    pub fn are_halted(&self) -> bool {
        self.seen().ahead.is_some()
    }

    /// Refused where the clerk stands still, or may do nothing.
    pub(super) fn are_well(&self, now: Instant) -> Result<(), Problem> {
        let seen = *self.seen();
        if let Some(ahead) = seen.ahead {
            return Err(apart(ahead));
        }
        match seen.done.map(|done| now.saturating_duration_since(done)) {
            Some(since) if since > STANDS_STILL => {
                let what = format!("the hub has done nothing by itself for {} s", since.as_secs());
                Err(Problem::new(Code::HubBusy, what).hint("Look at the hub's log, and start it anew."))
            }
            _ => Ok(()),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn apart(ahead: i64) -> Problem {
    let (by, way) = (ahead.abs(), if ahead > 0 { "ahead of" } else { "behind" });
    Problem::new(Code::HubClock, format!("the hub's clock is {by} s {way} its database's"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(rounds: &Rounds, seconds: u64) -> Option<Code> {
        rounds.are_well(Instant::now() + Duration::from_secs(seconds)).err().map(|problem| problem.code)
    }

    #[test]
    fn a_clerk_that_stands_still_is_told_once_there_is_one() {
        let rounds = Rounds::default();
        assert_eq!(code(&rounds, 9999), None, "a hub without one");
        rounds.begin();
        assert_eq!([0, 115, 125].map(|seconds| code(&rounds, seconds)), [None, None, Some(Code::HubBusy)]);
        let begun = rounds.seen().done;
        rounds.begin();
        assert_eq!(rounds.seen().done, begun, "one that is only begun has done nothing");
        rounds.done();
        assert!(rounds.seen().done > begun && code(&rounds, 0).is_none());
    }

    #[test]
    fn a_clock_that_is_off_is_told_until_it_is_right() {
        let rounds = Rounds::default();
        for (before, theirs, after, well) in [
            (1000, 1000, 1000, true),
            (1000, 970, 1001, true),
            (1000, 969, 1001, false),
            (1000, 1015, 1016, true),
            (1000, 1031, 1001, true),
            (1000, 1032, 1001, false),
            // An answer that was long under way says no more than that.
            (1000, 1000, 1060, true),
            (1000, 1060, 1060, true),
        ] {
            assert_eq!(rounds.compare(Epoch(before), Epoch(theirs), Epoch(after)), well, "{theirs}");
            assert_eq!((rounds.are_halted(), code(&rounds, 0)), (!well, (!well).then_some(Code::HubClock)), "{theirs}");
        }
        rounds.compare(Epoch(1000), Epoch(3400), Epoch(1000));
        let told = rounds.are_well(Instant::now()).unwrap_err().what;
        assert_eq!(told, "the hub's clock is 2400 s behind its database's");
    }
}
