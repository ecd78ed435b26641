use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Epoch, Window, Zone};

/// The raster of starts and ends, in minutes after local midnight: 5 to 1440, a divisor of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "u16", into = "u16")]
#[schema(value_type = u16, minimum = 5, maximum = 1440, example = 30)]
pub struct Grid(u16);

impl Grid {
    /// Every half hour.
    pub const HALF_HOURS: Self = Self(30);

    /// Seconds between two lines on an ordinary day.
    pub fn seconds(self) -> i64 {
        i64::from(self.0) * 60
    }

    /// Whether the moment is on a line, by the zone's clock.
    pub fn has(self, zone: &Zone, at: Epoch) -> bool {
        let local: DateTime = zone.local(at);
        let second = i64::from(local.hour()) * 3600 + i64::from(local.minute()) * 60 + i64::from(local.second());
        second % self.seconds() == 0
    }

    /// Whether a window begins and ends on lines.
    pub fn fits(self, zone: &Zone, window: Window) -> bool {
        self.has(zone, window.starts) && self.has(zone, window.ends)
    }

    /// Every line in `range`, in order; in a night in which clocks change also those that come twice.
    pub fn lines(self, zone: &Zone, range: Window) -> impl Iterator<Item = Epoch> {
        // Offsets of zones are multiples of 15 minutes since 1972, so every line is on this finer raster of UTC.
        let step = gcd(self.seconds(), 900);
        let first = range.starts.0.div_euclid(step) * step;
        let first = if first < range.starts.0 { first + step } else { first };
        let zone = zone.clone();
        (0..)
            .map(move |n| Epoch(first + n * step))
            .take_while(move |at| *at < range.ends)
            .filter(move |at| self.has(&zone, *at))
    }

    /// The same lines, the last one first.
    pub fn lines_back(self, zone: &Zone, range: Window) -> impl Iterator<Item = Epoch> {
        let step = gcd(self.seconds(), 900);
        let last = (range.ends.0 - 1).div_euclid(step) * step;
        let zone = zone.clone();
        (0..)
            .map(move |n| Epoch(last - n * step))
            .take_while(move |at| *at >= range.starts)
            .filter(move |at| self.has(&zone, *at))
    }
}

/// The largest number that divides both; with 0 it is the other one.
pub fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl TryFrom<u16> for Grid {
    type Error = String;
    fn try_from(minutes: u16) -> Result<Self, String> {
        if (5..=1440).contains(&minutes) && 1440 % minutes == 0 {
            Ok(Self(minutes))
        } else {
            Err(format!("a grid of {minutes} minutes does not divide a day: use 15, 30, 60 or 120"))
        }
    }
}

impl From<Grid> for u16 {
    fn from(grid: Grid) -> u16 {
        grid.0
    }
}
