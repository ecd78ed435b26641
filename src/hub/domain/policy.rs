use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Epoch, Grid, Health, Maintenance, Server, Window, Zone};
use crate::core::{Code, Problem};

/// A course's rules of booking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Starts and ends are on this raster, minutes.
    pub grid: Grid,
    /// The longest booking, minutes.
    pub longest: u32,
    /// Hours that a person may have in any seven days.
    pub person_hours: u32,
    /// Hours that a group may have in any seven days.
    pub group_hours: u32,
    /// How many bookings a person may have ahead.
    pub open_ahead: u32,
    /// How many slots a person may wait for.
    pub waits: u32,
    /// How long before its start a slot must be booked, minutes; 0 also lets a running raster step be booked.
    pub notice: u32,
    /// How many days ahead can be booked.
    pub horizon: u32,
    /// After how many minutes without a login a slot is released.
    pub no_show: u32,
    /// How many minutes an offer from the waitlist stands.
    pub offer: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            grid: Grid::HALF_HOURS,
            longest: 4 * 60,
            person_hours: 12,
            group_hours: 40,
            open_ahead: 3,
            waits: 5,
            notice: 0,
            horizon: 28,
            no_show: 15,
            offer: 10,
        }
    }
}

impl Policy {
    /// Refuses values that make no sense.
    pub fn check(&self) -> Result<(), Problem> {
        let rows = [
            ("longest", self.longest, 5, 7 * 1440, "minutes"),
            ("person_hours", self.person_hours, 1, 168, "hours"),
            ("group_hours", self.group_hours, 1, 10_000, "hours"),
            ("open_ahead", self.open_ahead, 1, 1000, "bookings"),
            ("waits", self.waits, 1, 1000, "waits"),
            ("notice", self.notice, 0, 7 * 1440, "minutes"),
            ("horizon", self.horizon, 1, 366, "days"),
            ("no_show", self.no_show, 1, 1440, "minutes"),
            ("offer", self.offer, 1, 1440, "minutes"),
        ];
        for (name, value, least, most, unit) in rows {
            if !(least..=most).contains(&value) {
                let what = format!("{name} is {value}: use {least} to {most} {unit}");
                let hint = format!("Write it in the file of --policy as a number of {unit}, as {name}: {most}.");
                return Err(Problem::new(Code::HubInvalid, what).hint(hint));
            }
        }
        let grid = u16::from(self.grid);
        if self.longest < u32::from(grid) {
            let what =
                format!("longest is {} minutes, less than one step of {grid}: nothing could be booked", self.longest);
            return Err(Problem::new(Code::HubInvalid, what).hint("Make longest as long as some steps of grid."));
        }
        Ok(())
    }

    /// Whether the window suits the rules that time alone decides: grid, length, notice, horizon.
    pub fn allows(&self, server: &Server, now: Epoch, window: Window) -> Result<(), Problem> {
        self.shape(server, now, window)?;
        if window.starts < self.earliest(now) {
            let what = format!("{} is less than {} minutes away", window.starts, self.notice);
            return Err(Problem::new(Code::BookNotice, what));
        }
        Ok(())
    }

    /// The first start that can be booked.
    pub fn earliest(&self, now: Epoch) -> Epoch {
        match self.notice {
            // The raster step that runs already can be had, so that a free server is used at once.
            0 => now - self.grid.seconds() + 1,
            notice => now + i64::from(notice) * 60,
        }
    }

    /// The last start that can be booked.
    pub fn latest(&self, now: Epoch) -> Epoch {
        now + i64::from(self.horizon) * 86_400
    }

    /// Whether any slot of so many seconds can ever be had: full steps of the raster, no longer than allowed.
    pub fn has_length(&self, seconds: i64) -> Result<(), Problem> {
        if seconds % self.grid.seconds() != 0 {
            let what = format!("{} minutes are not full steps of {}", seconds / 60, u16::from(self.grid));
            return Err(Problem::new(Code::BookGrid, what).hint(self.full_steps(seconds)));
        }
        self.is_short(seconds)
    }

    /// Whether a slot of so many seconds is no longer than allowed.
    pub(super) fn is_short(&self, seconds: i64) -> Result<(), Problem> {
        if seconds > i64::from(self.longest) * 60 {
            let what = format!("{} minutes are more than the {} allowed", seconds / 60, self.longest);
            return Err(Problem::new(Code::BookWindow, what));
        }
        Ok(())
    }

    /// The lengths of full steps next to one of so many seconds.
    fn full_steps(&self, seconds: i64) -> String {
        let (step, longest) = (self.grid.seconds() / 60, i64::from(self.longest));
        let less = (seconds / 60).min(longest) / step * step;
        let near: Vec<_> = [less, less + step].into_iter().filter(|m| (1..=longest).contains(m)).collect();
        let near: Vec<_> = near.into_iter().map(|minutes| format!("{minutes}m")).collect();
        format!("Give a length of {}.", near.join(" or "))
    }

    /// What to write instead of a window that is not on the raster: its length is wrong, or its start.
    fn on_raster(&self, zone: &Zone, window: Window) -> String {
        let (grid, starts) = (self.grid, window.starts);
        if grid.has(zone, starts) {
            return self.full_steps(window.length());
        }
        // Of a night in which clocks change a step may be an hour longer.
        let far = grid.seconds() + 7200;
        let before = grid.lines_back(zone, Window { starts: starts - far, ends: starts }).next();
        let after = grid.lines(zone, Window { starts, ends: starts + far }).next();
        let near: Vec<_> = before.into_iter().chain(after).map(|at| at.to_string()).collect();
        format!("Begin at {}.", near.join(" or "))
    }

    /// Grid, length, horizon, and that it is not over: what also holds for a teacher's override.
    pub fn shape(&self, server: &Server, now: Epoch, window: Window) -> Result<(), Problem> {
        if !self.grid.fits(&server.zone, window) {
            let what = format!("{window} does not begin and end on the raster of {} minutes", u16::from(self.grid));
            return Err(Problem::new(Code::BookGrid, what).hint(self.on_raster(&server.zone, window)));
        }
        self.is_short(window.length())?;
        if window.ends <= now {
            return Err(Problem::new(Code::BookNotice, format!("{window} is over")));
        }
        if window.starts > self.latest(now) {
            let what = format!("{} is more than {} days ahead", window.starts, self.horizon);
            return Err(Problem::new(Code::BookHorizon, what));
        }
        Ok(())
    }
}

impl Server {
    /// Whether it takes bookings in the window: health, maintenance (also during the buffer), opening hours.
    ///
    /// Everybody reads why not: an admin's word, and nothing of what an agent found, which names others' processes and files.
    pub fn takes(&self, closed: &[Maintenance], window: Window) -> Result<(), Problem> {
        if self.health == Health::Quarantined {
            return Err(Problem::new(Code::ServerAway, format!("server {} is quarantined", self.id)));
        }
        if self.health != Health::Healthy {
            let note = self.health_note.as_deref().unwrap_or("no reason was given");
            let what = format!("server {} is {}: {note}", self.id, self.health.as_str());
            return Err(Problem::new(Code::ServerAway, what));
        }
        self.is_planned(closed, window)
    }

    /// Whether it is to be open in the window, once it is healthy: maintenance (also during the buffer), opening hours.
    pub fn is_planned(&self, closed: &[Maintenance], window: Window) -> Result<(), Problem> {
        let busy = self.busy(window);
        if let Some(work) = closed.iter().find(|m| m.server == self.id && m.window.overlaps(busy)) {
            let what = format!("server {} is in maintenance {}: {}", self.id, work.window, work.reason);
            return Err(Problem::new(Code::BookMaintenance, what));
        }
        if !self.opening.is_open(&self.zone, window) {
            let what = format!("server {} is open {} ({}), not all of {window}", self.id, self.opening, self.zone);
            return Err(Problem::new(Code::BookClosed, what));
        }
        Ok(())
    }
}
