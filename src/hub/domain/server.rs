use std::{collections::BTreeSet, net::Ipv6Addr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Booking, BookingId, CourseId, Epoch, OpeningHours, ServerId, Window, Zone};
use crate::{
    core::{Bytes, Code, HostForm, HostSpec, Problem},
    profile::{DISK_FLOOR, HOST_KEEPS, Layout},
};

/// Clocks that differ by more than this are told, seconds.
pub const WARN_OFFSET: i64 = 2;
/// An agent that was not heard for longer is silent, seconds: something is wrong with it or its way.
const SILENT: i64 = 120;
/// An agent that was not heard for longer is unheard, seconds: it reports more often than that, so an outage may have begun,
/// though it is not silent yet.
///
/// By a hub whose clock is ahead of that of another one, which heard it, it may be unheard all the time. That costs nobody
/// anything, since an agent that is heard tells soon what took place; to wait for as long as clocks may differ would give the
/// rest of a slot for nothing to who cancels it as an outage begins.
pub const UNHEARD: i64 = 15;
/// On a silent server is booked only what begins later than this from now, seconds: it may be heard again by then. What was
/// booked before stays, as its agent may have it in its plan.
const HEARD_AGAIN: i64 = 3600;

/// An agent whose last tick ended longer ago hangs, seconds: a heartbeat from beside that tick is no sign of life.
///
/// A tick waits for no lab, and for no program longer than 15 s: with a class at once it takes some seconds.
pub const HANGS: i64 = 60;

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
    /// Whether its agent makes labs: else a slot is a login. None is not known.
    #[serde(default)]
    pub makes_labs: Option<bool>,
    /// Grows with each change of the row.
    pub version: i64,
}

impl Server {
    /// Whether its agent was heard before and is silent by now, after two minutes: something is wrong with it or its way.
    ///
    /// One that hangs is not heard either: see [`HANGS`].
    pub fn is_silent(&self, now: Epoch) -> bool {
        self.seen.is_some_and(|at| now - at > SILENT)
    }

    /// Whether its agent was heard before and is not silent: it is alive, and tells what becomes of its slots.
    pub fn is_alive(&self, now: Epoch) -> bool {
        self.seen.is_some() && !self.is_silent(now)
    }

    /// Whether its agent was heard before and is unheard right now, after 15 seconds: it may have begun what the hub does not
    /// know of yet.
    pub fn is_unheard(&self, now: Epoch) -> bool {
        self.seen.is_some_and(|at| now - at > UNHEARD)
    }

    /// The first start of which a silent agent is taken to hear in time; none where it is not silent, and hears of any.
    ///
    /// One that was never heard may be set up yet.
    pub fn hears_in_time_from(&self, now: Epoch) -> Option<Epoch> {
        self.is_silent(now).then(|| now + HEARD_AGAIN)
    }

    /// Refuses a start of which a silent agent might not hear in time.
    pub fn hears_in_time(&self, now: Epoch, starts: Epoch) -> Result<(), Problem> {
        match self.hears_in_time_from(now) {
            Some(first) if starts < first => {
                let id = &self.id;
                let what = format!(
                    "the agent of server {id} is silent, so nothing that begins there before {first} can be booked"
                );
                Err(Problem::new(Code::ServerSilent, what))
            }
            _ => Ok(()),
        }
    }

    /// Whether no agent was ever heard or given a plan: what is booked there opens to nobody.
    pub fn is_strange(&self) -> bool {
        self.seen.is_none() && self.issued == 0
    }

    /// Whether its clock differs from the hub's by more than can be left unsaid; nothing is known before it was heard.
    pub fn is_clock_off(&self) -> bool {
        self.seen.is_some() && self.clock_offset.abs() > WARN_OFFSET
    }

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
        self.awaits(booking) && !self.opening.is_open(&self.zone, booking.window)
    }

    /// Whether a booking that has not begun is of a course that may not use it any more.
    pub fn is_foreign_to(&self, booking: &Booking) -> bool {
        self.awaits(booking) && !self.is_for(&booking.course)
    }

    /// Whether a booking is on it and has not begun.
    fn awaits(&self, booking: &Booking) -> bool {
        booking.state.is_ahead() && booking.server.as_ref() == Some(&self.id)
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
        let bad = |what: String, hint: &str| Err(Problem::new(Code::HubInvalid, what).hint(hint));
        if !(1..=4096).contains(&self.cores) {
            return bad(
                format!("server {} has {} cores: use 1 to 4096", self.id, self.cores),
                "Give them as --cores 8.",
            );
        }
        if !(Bytes::gib(1)..=Bytes::gib(65_536)).contains(&self.memory) {
            return bad(
                format!("server {} has {} memory: use 1GiB to 65536GiB", self.id, self.memory),
                "Give it as --memory 32GiB.",
            );
        }
        if let Some(disk) = self.disk.filter(|disk| !(Bytes::gib(1)..=Bytes::gib(1_048_576)).contains(disk)) {
            return bad(
                format!("server {} has {disk} disk: use 1GiB to 1048576GiB", self.id),
                "Give it as --disk 200GiB.",
            );
        }
        if !(0..=86_400).contains(&self.buffer) {
            return bad(
                format!("server {} has a buffer of {} s: use 0 to 86400", self.id, self.buffer),
                "Give it in minutes, as --buffer 10.",
            );
        }
        if !is_address(&self.address) {
            return Err(Problem::new(
                Code::HubInvalid,
                format!("the address of server {} is not HOST[:PORT]", self.id),
            )
            .hint("Write it as one.example.org, 192.0.2.7:2222, 2001:db8::1 or [2001:db8::1]:2222."));
        }
        let label = |l: &String| {
            !l.is_empty() && l.len() <= 40 && l.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.=".contains(&b))
        };
        if self.labels.len() > 30 || !self.labels.iter().all(label) {
            return bad(
                format!("a label of server {} is not 1 to 40 letters, digits and -_.=", self.id),
                "Give each as --label gpu, 30 at most.",
            );
        }
        Ok(())
    }
}

/// Whether ssh can be given this as where to go: a host name or address, with a port where it is not 22.
fn is_address(text: &str) -> bool {
    let spec = HostSpec::split(text);
    let is_host = match spec.form {
        HostForm::Plain => is_host_name(spec.host),
        HostForm::Bare => true,
        HostForm::Bracketed => spec.host.parse::<Ipv6Addr>().is_ok(),
        HostForm::Unclosed => false,
    };
    is_host && spec.user.is_none() && spec.port().is_ok()
}

fn is_host_name(text: &str) -> bool {
    // A name that begins with `-` would be an option of ssh.
    let begins = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    begins && text.len() <= 253 && text.bytes().all(plain)
}

/// Host and port of an address: `host`, `host:port`, `[address]:port`, or an IPv6 address alone.
pub fn host_and_port(address: &str) -> (&str, &str) {
    let spec = HostSpec::split(address);
    (spec.host, spec.behind.strip_prefix(':').unwrap_or("22"))
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

#[cfg(test)]
mod tests {
    use super::{host_and_port, is_address};

    #[test]
    fn addresses_have_ports_or_not() {
        for (address, parts) in [
            ("h", ("h", "22")),
            ("h:2222", ("h", "2222")),
            ("[2001:db8::1]:2222", ("2001:db8::1", "2222")),
            ("[2001:db8::1]", ("2001:db8::1", "22")),
            ("2001:db8::1", ("2001:db8::1", "22")),
        ] {
            assert_eq!(host_and_port(address), parts);
        }
    }

    #[test]
    fn an_address_is_one_that_ssh_can_be_given() {
        for good in [
            "h",
            "one.example.org",
            "192.0.2.7:2222",
            "h:65535",
            "2001:db8::1",
            "[2001:db8::1]",
            "[2001:db8::1]:22",
            "a_b-c",
        ] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            "h:",
            "h:0",
            "h:99999",
            "h:+22",
            "h:22:22",
            "h:x",
            ":22",
            "[::1",
            "[::1]22",
            "[h]:22",
            "[::1]:",
            "-l",
            "-oProxyCommand=x",
            ".",
            "a b",
            "a\tb",
            "a\n",
            "a\u{7f}",
            "root@h",
            "h/x",
            "\u{e9}",
            "$(id)",
            "a=b",
            "%h",
        ] {
            assert!(!is_address(bad), "{bad:?}");
        }
        assert!(!is_address(&"a".repeat(254)));
    }
}
