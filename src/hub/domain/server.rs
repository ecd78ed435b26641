use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Booking, BookingId, CourseId, Epoch, OpeningHours, ServerId, State, Window, Zone};
use crate::{
    core::{Bytes, Code, Problem},
    profile::{DISK_FLOOR, HOST_KEEPS, Layout},
};

/// How a server is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// One holder at a time has all of it.
    Exclusive,
    /// Several labs at once, each in machines of its own.
    Shared,
}

impl Mode {
    /// As the databases spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
        }
    }
}

/// Whether a server can be trusted with a slot; apart from what its bookings do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Fit for use.
    Healthy,
    /// An admin took it out of use.
    Away,
    /// A reset or save could not be proven; nobody gets it until an admin has looked.
    Quarantined,
}

impl Health {
    /// As the databases spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Away => "away",
            Self::Quarantined => "quarantined",
        }
    }
}

/// A shared cloud server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Server {
    /// Its name.
    pub id: ServerId,
    /// Where SSH reaches it: a host name or address, with `:port` where it is not 22.
    pub address: String,
    /// The course that it is for; none is for all.
    pub course: Option<CourseId>,
    /// Cores.
    pub cores: u32,
    /// Memory.
    #[schema(value_type = String, example = "32GiB")]
    pub memory: Bytes,
    /// Disk for the machines of labs; none is not known, and then not looked at.
    #[schema(value_type = Option<String>, example = "200GiB")]
    pub disk: Option<Bytes>,
    /// Words that a booking can ask for.
    #[schema(value_type = Vec<String>)]
    pub labels: BTreeSet<String>,
    /// When it is open each week.
    pub opening: OpeningHours,
    /// The zone of the opening hours and of the grid.
    pub zone: Zone,
    /// Seconds that stay free after each booking, for saving and resetting.
    pub buffer: i64,
    /// How it is used.
    pub mode: Mode,
    /// Whether it can be trusted with a slot.
    pub health: Health,
    /// Why it is not healthy.
    pub health_note: Option<String>,
    /// Who holds it in truth: set when arming, cleared when the reset is proven. Only of exclusive servers.
    pub occupant: Option<BookingId>,
    /// The newest plan's revision: it grows with each change of its bookings.
    pub revision: i64,
    /// The newest revision that was handed to the agent.
    pub issued: i64,
    /// The newest revision that the agent carries out.
    pub acked: i64,
    /// When the agent was last heard.
    pub seen: Option<Epoch>,
    /// The agent's clock minus the hub's, seconds.
    pub clock_offset: i64,
    /// Grows with each change of the row.
    pub version: i64,
}

impl Server {
    /// Whether a lab of this layout can ever run here.
    pub fn can_hold(&self, layout: Layout) -> bool {
        layout.fits(self.cores, self.memory) && self.disk.is_none_or(|own| disk_of(layout) <= own)
    }

    /// The shipped layout with most nodes that can run here.
    pub fn largest(&self) -> Option<Layout> {
        Layout::SHIPPED.into_iter().rev().find(|layout| self.can_hold(*layout))
    }

    /// Whether somebody of `course` may use it.
    pub fn is_for(&self, course: &CourseId) -> bool {
        self.course.as_ref().is_none_or(|own| own == course)
    }

    /// The window that a booking blocks: its own and the buffer.
    pub fn busy(&self, window: Window) -> Window {
        window.longer(self.buffer)
    }

    /// Whether a booking that has not begun lies outside of its opening hours: they were others when it was made, or a
    /// teacher went past them.
    pub fn is_closed_for(&self, booking: &Booking) -> bool {
        let ahead = matches!(booking.state, State::Offered | State::Booked | State::Delayed);
        ahead && booking.server.as_ref() == Some(&self.id) && !self.opening.is_open(&self.zone, booking.window)
    }

    /// Refuses a server on which no lab could ever run: nothing could be booked there, and nobody would know why.
    pub fn holds_a_lab(&self) -> Result<(), Problem> {
        if self.largest().is_some() {
            return Ok(());
        }
        let disk = self.disk.map(|disk| format!(" and {disk} disk")).unwrap_or_default();
        let what = format!("server {} of {}c {}{disk} holds no lab", self.id, self.cores, self.memory);
        let labs: Vec<String> = Layout::SHIPPED.iter().map(ToString::to_string).collect();
        let least = format!(
            "The least labs are {}; {HOST_KEEPS} stay with the server, and each machine needs {DISK_FLOOR} where a disk is \
             told.",
            labs.join(", ")
        );
        Err(Problem::new(Code::HubInvalid, what).hint(least))
    }

    /// Refuses values that make no sense.
    pub fn check(&self) -> Result<(), Problem> {
        let bad = |what: String| Err(Problem::new(Code::HubInvalid, what));
        if !(1..=4096).contains(&self.cores) {
            return bad(format!("server {} has {} cores: use 1 to 4096", self.id, self.cores));
        }
        if !(Bytes::gib(1)..=Bytes::gib(65_536)).contains(&self.memory) {
            return bad(format!("server {} has {} memory: use 1GiB to 65536GiB", self.id, self.memory));
        }
        if let Some(disk) = self.disk.filter(|disk| !(Bytes::gib(1)..=Bytes::gib(1_048_576)).contains(disk)) {
            return bad(format!("server {} has {disk} disk: use 1GiB to 1048576GiB", self.id));
        }
        if !(0..=86_400).contains(&self.buffer) {
            return bad(format!("server {} has a buffer of {} s: use 0 to 86400", self.id, self.buffer));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".:-_[]@".contains(&b);
        if self.address.is_empty() || self.address.len() > 255 || !self.address.bytes().all(plain) {
            return bad(format!("the address of server {} is not host or host:port", self.id));
        }
        let label = |l: &String| {
            !l.is_empty() && l.len() <= 40 && l.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.=".contains(&b))
        };
        if self.labels.len() > 30 || !self.labels.iter().all(label) {
            return bad(format!("a label of server {} is not 1 to 40 letters, digits and -_.=", self.id));
        }
        Ok(())
    }
}

/// The disk that the machines of a layout need.
pub(super) fn disk_of(layout: Layout) -> Bytes {
    Bytes(DISK_FLOOR.0.saturating_mul(u64::from(layout.nodes)))
}

/// A time in which a server is closed for work on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Maintenance {
    /// Its number.
    pub id: i64,
    /// The server.
    pub server: ServerId,
    /// When.
    pub window: Window,
    /// Why; shown to people.
    pub reason: String,
}
