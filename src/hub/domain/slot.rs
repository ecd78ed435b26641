use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{BookingId, Epoch, PersonId, ServerId, State, Who, Window};
use crate::profile::Layout;

/// One slot as the agent on the server needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanSlot {
    /// The booking; the principal is made of it and of the account.
    pub booking: BookingId,
    /// Whose account is opened.
    pub person: PersonId,
    /// The place on the server.
    pub place: u32,
    /// The lab to have ready.
    #[schema(value_type = String, example = "2x4c8g")]
    pub layout: Layout,
    /// When it is open.
    pub window: Window,
    /// Until when the server is kept free after it.
    pub busy_until: Epoch,
    /// Where the hub believes it stands.
    pub state: State,
    /// Who ended it before its time: the door shuts, or never opens.
    pub ended_by: Option<Who>,
    /// Why, where that was not its holder: it is told on their terminals.
    pub why: Option<String>,
    /// The booking's version.
    pub version: i64,
}

/// The slots of one server for the next 72 hours; the gate signs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerPlan {
    /// The server.
    pub server: ServerId,
    /// Grows with each change of the server's bookings; an agent refuses an older one.
    pub revision: i64,
    /// When the hub made it.
    pub issued: Epoch,
    /// After this the gate stays closed.
    pub expires: Epoch,
    /// The slots, by start.
    pub slots: Vec<PlanSlot>,
    /// Who holds a booking here that is none of these slots yet: it is too far ahead, or the server is out of use.
    pub later: BTreeSet<PersonId>,
    /// Bookings that are over, and after which the agent could not prove its place clean, nor has since.
    #[schema(value_type = Vec<String>)]
    pub unclean: BTreeSet<BookingId>,
}

impl ServerPlan {
    /// How far ahead a plan reaches, and how long it is good for: 72 hours in seconds.
    pub const REACH: i64 = 72 * 3600;
}
