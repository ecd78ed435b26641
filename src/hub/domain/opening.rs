use std::{fmt, str::FromStr};

use jiff::civil::{Date, DateTime, Weekday};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Epoch, Grid, Window, Zone};

/// When a server is open each week, in local time: `always`, or spans as `mon-fri 08:00-22:00, sat 22:00-06:00`.
///
/// A span that ends before it begins goes on into the next day. Where clocks are set forward over a time it is the
/// moment after the gap; where a time happens twice it is the earlier.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "mon-fri 08:00-22:00, sat 10:00-18:00")]
pub struct OpeningHours(Vec<Span>);

/// Days of the week and minutes after midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    first: u8,
    last: u8,
    from: u16,
    to: u16,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const MIDNIGHT: u16 = 24 * 60;
const LONGEST: usize = 1000;

impl OpeningHours {
    /// Open at all times.
    pub fn always() -> Self {
        Self(vec![])
    }

    /// The open windows that touch `range`, in order and without overlap; touching ones are joined.
    pub fn windows(&self, zone: &Zone, range: Window) -> Vec<Window> {
        if self.0.is_empty() {
            return vec![range];
        }
        let mut found = vec![];
        let mut date = back(back(zone.date(range.starts)));
        let last = zone.date(range.ends);
        while date <= last {
            let day = date.weekday();
            for span in self.0.iter().filter(|span| span.is_on(day)) {
                let window = Window::new(moment(zone, date, span.from), span.end(zone, date));
                found.extend(window.ok().filter(|w| w.overlaps(range)));
            }
            let Ok(next) = date.tomorrow() else { break };
            date = next;
        }
        join(found)
    }

    /// Whether one step of a raster lies in what is open within `range`: else nothing can be booked there.
    pub fn has_step(&self, zone: &Zone, grid: Grid, range: Window) -> bool {
        let step = grid.seconds();
        let has = |open: Window| grid.lines(zone, open).any(|at| at + step <= open.ends && grid.has(zone, at + step));
        self.windows(zone, range).into_iter().any(has)
    }

    /// Whether the server is open during all of `window`.
    pub fn is_open(&self, zone: &Zone, window: Window) -> bool {
        self.windows(zone, window).iter().any(|open| open.covers(window))
    }
}

fn back(date: Date) -> Date {
    date.yesterday().unwrap_or(date)
}

fn moment(zone: &Zone, date: Date, minute: u16) -> Epoch {
    let (date, minute) = if minute == MIDNIGHT { (date.tomorrow().unwrap_or(date), 0) } else { (date, minute) };
    let local: DateTime = date.at((minute / 60) as i8, (minute % 60) as i8, 0, 0);
    zone.nearest(local)
}

/// Sorts, and joins what overlaps or touches.
fn join(mut windows: Vec<Window>) -> Vec<Window> {
    windows.sort_unstable();
    let mut joined: Vec<Window> = vec![];
    for window in windows {
        match joined.last_mut() {
            Some(last) if window.starts <= last.ends => last.ends = last.ends.max(window.ends),
            _ => joined.push(window),
        }
    }
    joined
}

impl Span {
    fn is_on(self, day: Weekday) -> bool {
        let day = day.to_monday_zero_offset() as u8;
        if self.first <= self.last {
            (self.first..=self.last).contains(&day)
        } else {
            day >= self.first || day <= self.last
        }
    }

    fn end(self, zone: &Zone, date: Date) -> Epoch {
        let date = if self.to <= self.from { date.tomorrow().unwrap_or(date) } else { date };
        moment(zone, date, self.to)
    }
}

impl FromStr for Span {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (days, hours) = text.trim().split_once(' ').ok_or(())?;
        let day = |name: &str| DAYS.iter().position(|d| *d == name).map(|n| n as u8).ok_or(());
        let (first, last) = days.split_once('-').unwrap_or((days, days));
        let (from, to) = hours.trim().split_once('-').ok_or(())?;
        let span = Self { first: day(first)?, last: day(last)?, from: minute(from)?, to: minute(to)? };
        if span.from == MIDNIGHT || span.from == span.to { Err(()) } else { Ok(span) }
    }
}

fn minute(text: &str) -> Result<u16, ()> {
    let (hours, minutes) = text.split_once(':').ok_or(())?;
    if hours.len() != 2 || minutes.len() != 2 || !text.bytes().all(|b| b.is_ascii_digit() || b == b':') {
        return Err(());
    }
    let (hours, minutes): (u16, u16) = (hours.parse().map_err(drop)?, minutes.parse().map_err(drop)?);
    let all = hours * 60 + minutes;
    if minutes < 60 && all <= MIDNIGHT { Ok(all) } else { Err(()) }
}

impl fmt::Display for OpeningHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.pad("always");
        }
        let spans: Vec<String> = self
            .0
            .iter()
            .map(|s| {
                let (first, last) = (DAYS[usize::from(s.first)], DAYS[usize::from(s.last)]);
                let days = if first == last { first.to_owned() } else { format!("{first}-{last}") };
                let hour = |m: u16| format!("{:02}:{:02}", m / 60, m % 60);
                format!("{days} {}-{}", hour(s.from), hour(s.to))
            })
            .collect();
        f.pad(&spans.join(", "))
    }
}

impl FromStr for OpeningHours {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "always" || text.trim().is_empty() {
            return Ok(Self::always());
        }
        let long = || Err("the opening hours are longer than 1000 characters".into());
        if text.len() > LONGEST {
            return long();
        }
        let read = |span: &str| {
            span.to_ascii_lowercase().parse::<Span>().map_err(|()| {
                let shown: String = span.trim().chars().take(40).flat_map(char::escape_default).collect();
                format!("`{shown}` is not a span of opening hours: write it as `mon-fri 08:00-22:00`")
            })
        };
        let hours = Self(text.split(',').map(read).collect::<Result<_, _>>()?);
        // They are kept as they are written here, with blanks that may not have been there.
        if hours.to_string().len() > LONGEST { long() } else { Ok(hours) }
    }
}

impl TryFrom<String> for OpeningHours {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<OpeningHours> for String {
    fn from(hours: OpeningHours) -> String {
        hours.to_string()
    }
}
