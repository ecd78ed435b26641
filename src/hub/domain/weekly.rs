use jiff::{ToSpan, civil::DateTime};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Local, Window, Zone};
use crate::core::{Code, Problem};

/// The same local time each week.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Weekly {
    /// The zone whose clocks count.
    pub zone: Zone,
    /// The first start by those clocks, as `2026-03-22T22:00:00`.
    #[schema(value_type = String, example = "2026-03-22T22:00:00")]
    pub starts: DateTime,
    /// The first end by those clocks; it may be on the next day.
    #[schema(value_type = String, example = "2026-03-23T06:00:00")]
    pub ends: DateTime,
    /// How many weeks, with the first: 1 to 52.
    pub weeks: u16,
}

/// One week of a recurrence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Occurrence {
    /// The window.
    pub window: Window,
    /// What the clocks did to it; shown to the person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Weekly {
    /// The recurrence that begins with a window, as it would be if no clock changed: who asks for two hours each week gets
    /// them, and a change in the very first one counts for that one alone.
    pub fn of_first(first: Window, zone: Zone, weeks: u16) -> Result<Self, Problem> {
        let starts = zone.local(first.starts);
        let ends = starts
            .checked_add(first.length().seconds())
            .map_err(|_| Problem::new(Code::BookWindow, format!("{starts} is too far away")))?;
        Ok(Self { zone, starts, ends, weeks })
    }

    /// Every window of the recurrence.
    ///
    /// A local time that clocks jump over is refused, with its date; of one that comes twice the earlier is meant,
    /// and the occurrence says so. Each begins and ends when those clocks show it: one over which they change is longer or
    /// shorter than the others, counts as what it is, and says that too. All is refused or nothing.
    pub fn occurrences(&self) -> Result<Vec<Occurrence>, Problem> {
        if !(1..=52).contains(&self.weeks) {
            let what = format!("{} weeks are not 1 to 52", self.weeks);
            return Err(Problem::new(Code::BookWindow, what).hint("Book 1 to 52 weeks at once."));
        }
        (0..self.weeks).map(|week| self.occurrence(week)).collect()
    }

    fn occurrence(&self, week: u16) -> Result<Occurrence, Problem> {
        let mut notes = vec![];
        let mut read = |first: DateTime| {
            let local = first
                .checked_add(i64::from(week).weeks())
                .map_err(|_| Problem::new(Code::BookWindow, format!("{first} is too far away")))?;
            match self.zone.read(local) {
                Local::Once(at) => Ok(at),
                Local::Twice(at) => {
                    notes.push(format!("{local} comes twice in {}; the earlier is meant, {at}", self.zone));
                    Ok(at)
                }
                Local::Never => Err(Problem::new(Code::BookGap, format!("{local} does not exist in {}", self.zone))
                    .hint(
                        "Clocks are set forward over it: choose another time, or end the recurrence before that week.",
                    )),
            }
        };
        let (starts, ends) = (read(self.starts)?, read(self.ends)?);
        let window = Window::new(starts, ends).map_err(|why| Problem::new(Code::BookWindow, why))?;
        let shown = self.starts.duration_until(self.ends).as_secs();
        if window.length() != shown {
            notes.push(format!(
                "clocks change in {} between {} and {}: it lasts {} minutes, not {}, and counts as that",
                self.zone,
                self.zone.local(starts),
                self.zone.local(ends),
                window.length() / 60,
                shown / 60,
            ));
        }
        Ok(Occurrence { window, note: (!notes.is_empty()).then(|| notes.join("; ")) })
    }
}
