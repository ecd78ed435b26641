use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{BookingId, CourseId, Epoch, GroupId, PersonId, SeriesId, ServerId, State, Use, Who, Window};
use crate::profile::Layout;

/// Why a slot is cancelled that its server let pass.
pub const NEVER_BEGAN: &str = "the server did not start it; it does not count";
/// So long before the end of a slot its server may tell that it passed, by another clock, seconds.
const AT_ITS_END: i64 = 30;

/// A time window on a server and who holds it, or waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Booking {
    /// Its id.
    pub id: BookingId,
    /// The server; none while waiting for any that fits.
    pub server: Option<ServerId>,
    /// Its place on the server, from 0; none while waiting.
    pub place: Option<u32>,
    /// Who holds it.
    pub person: PersonId,
    /// The course whose rules count.
    pub course: CourseId,
    /// The group whose quota counts.
    pub group: Option<GroupId>,
    /// The lab.
    #[schema(value_type = String, example = "2x4c8g")]
    pub layout: Layout,
    /// When.
    pub window: Window,
    /// Until when the place is blocked: the end and the server's buffer.
    pub busy_until: Epoch,
    /// Where it stands.
    pub state: State,
    /// Since when it stands there.
    pub since: Epoch,
    /// Grows with each change: the `SEQUENCE` of its calendar entry and the ETag of the API.
    pub version: i64,
    /// When it was made.
    pub created: Epoch,
    /// When it was last changed.
    pub updated: Epoch,
    /// Until when the offer stands.
    pub offer_until: Option<Epoch>,
    /// When the holder first logged in.
    pub came: Option<Epoch>,
    /// Seconds that count against the quotas: the length, less what was released or lost to a delay.
    pub charged: i64,
    /// How many offers lapsed.
    pub lapses: i64,
    /// What recurrence it belongs to.
    pub series: Option<SeriesId>,
    /// The server that was asked for; none is any, so that a lapsed offer goes back to what was wished.
    pub wished: Option<ServerId>,
    /// Why it is where it is: an override's reason, why it was moved, a failure's evidence.
    pub note: Option<String>,
    /// Why its server's agent does not begin it; none as soon as it does.
    pub refused: Option<String>,
    /// For which start its holder was told that no server takes it.
    pub stranded: Option<Epoch>,
    /// How often it was moved off a server that did not take it.
    #[serde(default)]
    pub moves: i64,
    /// Labels that its server must have.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub labels: BTreeSet<String>,
    /// Who ended it before its time, once it was armed or open.
    pub ended_by: Option<Who>,
}

impl Booking {
    /// For how long after its end a slot that was cut short, or that its server let pass, is told, in seconds.
    pub const TOLD: i64 = 86_400;

    /// The window with the buffer after it.
    pub fn busy(&self) -> Window {
        Window { starts: self.window.starts, ends: self.busy_until }
    }

    /// Whether it was taken from its holder, and its time is not over: they may count on it yet.
    ///
    /// What its server let pass is known at its end only, and is told for a day after that; so is one that was cut short,
    /// which has no more time. Who gives a slot up themselves leaves no note on it.
    pub fn is_lost(&self, now: Epoch) -> bool {
        if self.is_cut_short() && self.state != State::Quarantined {
            return self.window.ends > now - Self::TOLD;
        }
        let taken = match self.state {
            State::Cancelled => self.note.is_some(),
            State::Quarantined => true,
            _ => false,
        };
        let passed = self.state == State::Cancelled && self.since + AT_ITS_END >= self.window.ends;
        let until = if passed { self.since + Self::TOLD } else { self.window.ends };
        taken && until > now
    }

    /// Whether somebody else than its holder ended it, with a word for them, once it had begun.
    pub fn is_cut_short(&self) -> bool {
        let by_others = matches!(self.ended_by, Some(Who::Teacher | Who::Clerk));
        by_others && self.note.is_some() && !self.state.is_ahead() && self.state != State::Cancelled
    }

    /// What of it counts against quotas.
    pub fn counted(&self) -> Use {
        Use { starts: self.window.starts, seconds: if self.state.counts() { self.charged } else { 0 } }
    }
}
