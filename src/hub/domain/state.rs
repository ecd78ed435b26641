use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a booking stands; the table of [`State::may_become`] says how it moves on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Waits for the window to become free; holds no place.
    Waitlisted,
    /// The place is kept for a few minutes, until the holder says yes.
    Offered,
    /// The place is the holder's.
    Booked,
    /// The start has come, but the last holder's work is not cleared away yet; not charged.
    Delayed,
    /// The agent opens the gate and brings the lab up.
    Arming,
    /// The holder can log in.
    Active,
    /// The agent closes the gate and ends what runs.
    Ending,
    /// The agent saves the lab.
    Saving,
    /// The agent makes the server clean and proves it.
    Resetting,
    /// Over, saved, proven clean.
    Done,
    /// Given up by the holder, a teacher or the clerk.
    Cancelled,
    /// The holder never came.
    NoShow,
    /// Something could not be proven; the server is closed until an admin looks at it.
    Quarantined,
}

/// Who moves a booking on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// The person that the booking is for.
    Holder,
    /// A teacher or an admin, with a reason.
    Teacher,
    /// The hub itself, when time has passed.
    Clerk,
    /// The agent on the server.
    Agent,
}

impl Who {
    /// As the databases spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Holder => "holder",
            Self::Teacher => "teacher",
            Self::Clerk => "clerk",
            Self::Agent => "agent",
        }
    }
}

use State::{
    Active, Arming, Booked, Cancelled, Delayed, Done, Ending, NoShow, Offered, Quarantined, Resetting, Saving,
    Waitlisted,
};
use Who::{Agent, Clerk, Holder, Teacher};

/// Every legal step: from, to, and who may take it.
const STEPS: &[(State, State, &[Who])] = &[
    (Waitlisted, Offered, &[Clerk]),
    (Waitlisted, Cancelled, &[Holder, Teacher, Clerk]),
    (Offered, Booked, &[Holder, Teacher]),
    (Offered, Waitlisted, &[Clerk]),
    (Offered, Cancelled, &[Holder, Teacher, Clerk]),
    (Booked, Arming, &[Agent]),
    (Booked, Cancelled, &[Holder, Teacher, Clerk]),
    (Booked, Delayed, &[Clerk]),
    (Booked, NoShow, &[Clerk]),
    // It was begun for who gave it away, or its arming was set aside, and the place cannot be proven clean.
    (Booked, Quarantined, &[Agent]),
    (Delayed, Arming, &[Agent]),
    // Moved to another server.
    (Delayed, Booked, &[Holder, Teacher, Clerk]),
    (Delayed, Cancelled, &[Holder, Teacher, Clerk]),
    (Delayed, Quarantined, &[Agent, Clerk]),
    (Arming, Active, &[Agent]),
    // A plan took it from who has it again by now: it begins anew.
    (Arming, Booked, &[Agent]),
    (Arming, Ending, &[Agent]),
    (Arming, Quarantined, &[Agent, Teacher]),
    (Active, Ending, &[Agent]),
    // Its agent knows nothing of it any more, or its server was removed.
    (Active, Quarantined, &[Agent, Teacher]),
    (Active, NoShow, &[Clerk]),
    (Ending, Saving, &[Agent]),
    // What never opened has nothing new to be saved.
    (Ending, Resetting, &[Agent]),
    (Ending, Quarantined, &[Agent, Teacher]),
    (Saving, Resetting, &[Agent]),
    (Saving, Quarantined, &[Agent, Teacher]),
    (Resetting, Done, &[Agent]),
    (Resetting, Quarantined, &[Agent, Teacher]),
];

impl State {
    /// All states, in the order of a slot's life.
    ///
    /// Queries list those for which a method below says yes: `store/states.rs` has the lists, and a test that they agree.
    pub const ALL: [Self; 13] = [
        Waitlisted,
        Offered,
        Booked,
        Delayed,
        Arming,
        Active,
        Ending,
        Saving,
        Resetting,
        Done,
        Cancelled,
        NoShow,
        Quarantined,
    ];

    /// The states that hold a place, as the databases list them in their constraints.
    pub const LIVE: [Self; 8] = [Offered, Booked, Delayed, Arming, Active, Ending, Saving, Resetting];

    /// Whether the booking holds its place, so that nobody else can have the window.
    pub fn is_live(self) -> bool {
        Self::LIVE.contains(&self)
    }

    /// Whether its place is the holder's, and its server's agent has yet to begin it.
    pub const fn is_unbegun(self) -> bool {
        matches!(self, Booked | Delayed)
    }

    /// Whether it holds a place and has not begun: unbegun, or an offer of it.
    pub const fn is_ahead(self) -> bool {
        matches!(self, Offered | Booked | Delayed)
    }

    /// Whether its server opens for its holder, now or later.
    pub const fn is_usable(self) -> bool {
        matches!(self, Booked | Delayed | Arming | Active)
    }

    /// Whether there is something of it to be ended: it is neither over nor ends already.
    pub const fn is_endable(self) -> bool {
        matches!(self, Waitlisted | Offered | Booked | Delayed | Arming | Active)
    }

    /// Whether its server's agent has begun it and has not told its end yet.
    pub const fn is_begun(self) -> bool {
        matches!(self, Arming | Active | Ending | Saving | Resetting)
    }

    /// Whether it was given up: by somebody, or by its holder's staying away.
    pub const fn is_given_up(self) -> bool {
        matches!(self, Cancelled | NoShow)
    }

    /// Whether nothing can happen to it any more.
    pub const fn is_final(self) -> bool {
        matches!(self, Done | Cancelled | NoShow | Quarantined)
    }

    /// Whether its time counts against the quota.
    pub const fn counts(self) -> bool {
        matches!(self, Offered | Booked | Delayed | Arming | Active | Ending | Saving | Resetting | Done | NoShow)
    }

    /// Whether the table knows this step, for anybody.
    pub fn may_become(self, next: Self) -> bool {
        STEPS.iter().any(|(from, to, _)| *from == self && *to == next)
    }

    /// Whether the table lets `who` take this step.
    pub fn may_become_by(self, next: Self, who: Who) -> bool {
        STEPS.iter().any(|(from, to, by)| *from == self && *to == next && by.contains(&who))
    }

    /// Whether a booking can begin its life here.
    pub const fn is_first(self) -> bool {
        matches!(self, Waitlisted | Booked)
    }

    /// Whether the agent passes through here on the way from `from`: a repeated report finds it done already.
    pub fn is_after(self, from: Self) -> bool {
        const WAY: [State; 8] = [Booked, Delayed, Arming, Active, Ending, Saving, Resetting, Done];
        let at = |state| WAY.iter().position(|s| *s == state);
        match (at(self), at(from)) {
            (Some(own), Some(other)) => own > other,
            (None, Some(_)) => self.is_final(),
            _ => false,
        }
    }

    /// The state as users, the API and the databases spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Waitlisted => "waitlisted",
            Offered => "offered",
            Booked => "booked",
            Delayed => "delayed",
            Arming => "arming",
            Active => "active",
            Ending => "ending",
            Saving => "saving",
            Resetting => "resetting",
            Done => "done",
            Cancelled => "cancelled",
            NoShow => "no-show",
            Quarantined => "quarantined",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for State {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| format!("`{text}` is not a state"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_reached_and_left_or_final() {
        for state in State::ALL {
            assert!(state.is_first() || STEPS.iter().any(|(_, to, _)| *to == state), "{state} is never reached");
            assert_eq!(state.is_final(), !STEPS.iter().any(|(from, _, _)| *from == state), "{state}");
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert_eq!(
            State::ALL.into_iter().filter(|s| s.is_live()).collect::<std::collections::BTreeSet<_>>(),
            State::LIVE.into()
        );
    }

    #[test]
    fn who_is_spelled_as_serde_does() {
        for who in [Holder, Teacher, Clerk, Agent] {
            assert_eq!(serde_json::to_value(who).unwrap(), who.as_str());
        }
    }

    #[test]
    fn only_the_agent_opens_and_closes() {
        for next in [Arming, Active, Ending, Saving, Resetting, Done] {
            for from in State::ALL {
                for who in [Holder, Teacher, Clerk] {
                    assert!(!from.may_become_by(next, who), "{from} -> {next} by {who:?}");
                }
            }
        }
        assert!(!Done.may_become(Active) && !Cancelled.may_become(Booked) && !Saving.may_become(Done));
    }

    #[test]
    fn a_repeated_report_is_known() {
        assert!(Done.is_after(Arming) && Quarantined.is_after(Saving) && Active.is_after(Arming));
        assert!(!Arming.is_after(Active) && !Booked.is_after(Booked) && !Waitlisted.is_after(Booked));
    }
}
