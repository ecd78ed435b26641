use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Epoch;

/// Where a booking is, as its server's agent sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SlotState {
    /// The lab is being brought up; the door is shut.
    Arming,
    /// The door is open.
    Active,
    /// The door is shut; what ran is being ended.
    Ending,
    /// Nothing of the holder runs; the lab is being saved.
    Saving,
    /// The server is being cleaned.
    Resetting,
    /// Proven clean.
    Done,
    /// Something could not be proven; the place takes nobody before an admin cleared it.
    Quarantined,
}

/// Why a slot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Its time was over.
    Over,
    /// It was cancelled, or is no longer in the plan.
    Cancelled,
    /// Its holder gave it back.
    Released,
    /// Its holder did not come.
    NoShow,
    /// A teacher ended it.
    Overridden,
    /// The plan expired: without word from the hub nothing stays open.
    PlanExpired,
    /// It could not be opened: its lab did not come up, or its account is no student's any more.
    NotOpened,
}

/// What an agent tells the hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// Grows with each report of a server; the hub takes each number once.
    pub seq: u64,
    /// When, by the server's clock.
    #[schema(value_type = i64)]
    pub at: Epoch,
    /// What.
    #[serde(flatten)]
    pub kind: ReportKind,
}

/// What happened on the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ReportKind {
    /// A booking came to a state.
    State {
        /// The booking.
        booking: String,
        /// Whose account it is about: a booking that is given away begins anew for who has it then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        account: Option<String>,
        /// Where it is now.
        state: SlotState,
        /// Why it ended; from `ending` on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
        /// What went wrong, for `quarantined`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        detail: Vec<String>,
    },
    /// The holder came: a session of the account was seen.
    Seen {
        /// The booking.
        booking: String,
        /// Whose account it is about, as in `state`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        account: Option<String>,
    },
    /// The slot's time passed without its being opened, or it was given up; the agent knows nothing else of it.
    Missed {
        /// The booking.
        booking: String,
    },
    /// The booking was not armed or opened; it is tried again until its end.
    Refused {
        /// The booking.
        booking: String,
        /// Why not.
        why: String,
    },
    /// Processes of an account were ended outside of its slots.
    Stray {
        /// The account.
        account: String,
    },
    /// The server keeps this lab for an account between its slots: one of the same layout there goes on with it.
    LabKept {
        /// The account.
        account: String,
        /// The lab's name on the server.
        lab: String,
        /// Its layout, as `2x4c8g`.
        layout: String,
    },
    /// The server keeps no lab for the account any more.
    LabDropped {
        /// The account.
        account: String,
    },
    /// The agent works by this revision of the plan; shortened windows of older ones may be sold again.
    Accepted {
        /// The revision.
        revision: u64,
    },
}

impl ReportKind {
    /// The booking that it is about; none where it is about an account or the server.
    pub fn booking(&self) -> Option<&str> {
        match self {
            Self::State { booking, .. }
            | Self::Seen { booking, .. }
            | Self::Missed { booking }
            | Self::Refused { booking, .. } => Some(booking),
            _ => None,
        }
    }
}

/// The body of `POST /api/v1/agent/events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Events {
    /// The server's name.
    pub server: String,
    /// What happened, oldest first.
    pub events: Vec<Report>,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Accepted {
    /// The highest number up to which the hub has everything.
    pub accepted: u64,
}

/// That the holder of an open slot came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Came {
    /// The booking.
    pub booking: String,
    /// When, by the server's clock; the slot's start, once the hub has the report of it.
    #[schema(value_type = i64)]
    pub at: Epoch,
}

/// The body of `POST /api/v1/agent/heartbeat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Heartbeat {
    /// The server's name.
    pub server: String,
    /// The revision of the plan that it works by.
    pub revision: u64,
    /// Its wall clock, milliseconds since 1970.
    pub clock: i64,
    /// How far its clock was ahead of the hub's when last measured, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<i64>,
    /// Bookings that hold a place, and where they are.
    #[schema(value_type = Vec<Vec<String>>)]
    #[serde(deserialize_with = "known")]
    pub holding: Vec<(String, SlotState)>,
    /// Open slots whose holders came, whether or not the hub has the reports of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub came: Vec<Came>,
    /// How long ago, by its boot clock, it last was through with what is due, in milliseconds: as a rule each second.
    /// Heartbeats are sent beside that work, so an agent that hangs in it still sends them. None where it does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tick_age: Option<i64>,
    /// Why it did not take the plan that it was given last; none where it did, or does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Whether holders find a lab, and not only a login; none where it does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub makes_labs: Option<bool>,
    /// The agent's version.
    pub version: String,
}

/// Bookings in states that are known here: a newer agent that holds others lives as well.
fn known<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(String, SlotState)>, D::Error> {
    let all = Vec::<(String, Value)>::deserialize(from)?;
    Ok(all.into_iter().filter_map(|(booking, state)| Some((booking, serde_json::from_value(state).ok()?))).collect())
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeartbeatAnswer {
    /// The hub's wall clock, milliseconds since 1970.
    pub clock: i64,
    /// The newest revision of the server's plan.
    pub revision: u64,
}
