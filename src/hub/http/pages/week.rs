use std::thread;

use jiff::civil::Date;
use serde::Serialize;

use super::{
    Civil, Words,
    row::{self, Row},
    style::UNIT,
};
use crate::{
    core::{Code, Problem},
    hub::{
        desk::Week,
        domain::{Course, Epoch, Grid, Health, PersonId, Window, Zone},
    },
};

/// Who looks at a week, and by which rules they may book.
#[derive(Debug, Clone)]
pub struct Eyes<'a> {
    /// The zone and language.
    pub clock: &'a Civil,
    /// The moment.
    pub now: Epoch,
    /// Whose bookings are their own.
    pub own: Option<&'a PersonId>,
    /// Whether every booking is a link.
    pub teacher: bool,
    /// The raster of starts for who is in no course; others by their courses.
    pub grid: Grid,
    /// In which courses they may book; none are all.
    pub courses: &'a [Course],
    /// The first moment that can be booked, likewise.
    pub earliest: Epoch,
    /// The last moment that can be booked, likewise.
    pub horizon: Epoch,
}

/// A week as the page shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WeekView {
    /// The first day, as `2026-11-23`.
    pub from: String,
    /// As `Mon 23 Nov – Sun 29 Nov 2026`.
    pub title: String,
    /// The week before.
    pub earlier: String,
    /// The week after.
    pub later: String,
    /// The viewer's zone.
    pub zone: String,
    /// Whether hours are shown in UTC too: not where the viewer's zone is UTC itself.
    pub utc: bool,
    /// Seven of them.
    pub days: Vec<Day>,
    /// Whether those days that are over are folded: of a week that goes on, not of one that is over.
    pub folds: bool,
    /// How many servers there are.
    pub servers: usize,
}

/// One day of all servers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Day {
    /// As `2026-11-23`.
    pub date: String,
    /// As `Mon 23 Nov`.
    pub label: String,
    /// Whether it is today.
    pub today: bool,
    /// Whether it is over.
    pub over: bool,
    /// Its first second.
    pub starts: i64,
    /// Columns of five minutes.
    pub units: i64,
    /// That clocks change on it.
    pub note: Option<String>,
    /// The columns' heads.
    pub hours: Vec<Hour>,
    /// The column of this moment.
    pub now: Option<i64>,
    /// One for each server.
    pub rows: Vec<Row>,
}

/// The head of an hour.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hour {
    /// Its first column.
    pub from: i64,
    /// The column after it.
    pub to: i64,
    /// The hour in the viewer's zone.
    pub local: String,
    /// The same in UTC.
    pub utc: String,
}

/// The seven days from the Monday on or before `date`, in the viewer's zone.
pub fn window_of(clock: &Civil, date: Date) -> (Date, Window) {
    let monday = shift(date, -i64::from(date.weekday().to_monday_zero_offset()));
    let starts = midnight(clock, monday);
    let ends = midnight(clock, shift(monday, 7));
    // Only at the edge of time would it be empty.
    (monday, Window { starts, ends: ends.max(starts + 1) })
}

pub(super) fn shift(date: Date, days: i64) -> Date {
    date.checked_add(jiff::Span::new().days(days)).unwrap_or(date)
}

fn midnight(clock: &Civil, date: Date) -> Epoch {
    clock.zone.nearest(date.at(0, 0, 0, 0))
}

impl WeekView {
    /// The view of a desk's week.
    pub fn new(week: &Week, eyes: &Eyes<'_>) -> Result<Self, Problem> {
        let clock = eyes.clock;
        let monday = clock.zone.date(week.window.starts);
        let sunday = shift(monday, 6);
        let labels = Labels::of(Words::of(clock.lang));
        let grounds: Vec<row::Ground<'_>> =
            week.servers.iter().map(|s| row::Ground::new(s, week.window, eyes)).collect();
        let days: Vec<Date> = (0..7).map(|n| shift(monday, n)).collect();
        let days = drawn(days, &|date| Day::new(date, &grounds, eyes, &labels))?;
        Ok(Self {
            from: monday.to_string(),
            title: clock.days(monday, sunday),
            earlier: shift(monday, -7).to_string(),
            later: shift(monday, 7).to_string(),
            zone: clock.zone.name().to_owned(),
            utc: clock.zone.name() != Zone::utc().name(),
            folds: days.first().is_some_and(|day| day.over) && days.last().is_some_and(|day| !day.over),
            days,
            servers: week.servers.len(),
        })
    }
}

/// Draws each day, on as many cores as there are: a busy camp's week is a megabyte, and somebody waits for it.
fn drawn(days: Vec<Date>, draw: &(dyn Fn(Date) -> Result<Day, Problem> + Sync)) -> Result<Vec<Day>, Problem> {
    let cores = thread::available_parallelism().map_or(1, usize::from).min(days.len());
    let parts: Vec<Vec<Result<Day, Problem>>> = thread::scope(|scope| {
        let parts = days.chunks(days.len().div_ceil(cores));
        let parts: Vec<_> = parts.map(|part| scope.spawn(|| part.iter().map(|day| draw(*day)).collect())).collect();
        let lost = || vec![Err(Problem::new(Code::Internal, "the week could not be drawn"))];
        parts.into_iter().map(|part| part.join().unwrap_or_else(|_| lost())).collect()
    });
    parts.into_iter().flatten().collect()
}

/// Words that a row needs over and over.
pub(super) struct Labels {
    pub you: &'static str,
    pub free: &'static str,
    pub waiting: &'static str,
    pub closed: &'static str,
    pub work: &'static str,
}

impl Labels {
    fn of(words: &'static Words) -> Self {
        let (closed, work) = (words.get("closed"), words.get("work"));
        Self { you: words.get("you"), free: words.get("free"), waiting: words.get("offer_pending"), closed, work }
    }
}

impl Day {
    fn new(date: Date, grounds: &[row::Ground<'_>], eyes: &Eyes<'_>, labels: &Labels) -> Result<Self, Problem> {
        let clock = eyes.clock;
        let (starts, ends) = (midnight(clock, date), midnight(clock, shift(date, 1)));
        // A zone that jumps over a whole day has one without any length.
        let window = Window { starts, ends: ends.max(starts + 3600) };
        let length = window.length();
        let note = (length != 86_400)
            .then(|| Words::of(clock.lang).say("clock_change", &[("hours", &format!("{}", length as f64 / 3600.0))]));
        Ok(Self {
            date: date.to_string(),
            label: clock.day(date),
            today: window.holds(eyes.now),
            over: window.ends <= eyes.now,
            starts: starts.0,
            units: length / UNIT,
            note,
            hours: hours(clock, window),
            now: window.holds(eyes.now).then(|| (eyes.now - starts) / UNIT),
            rows: grounds.iter().map(|g| g.day(window, eyes, labels)).collect::<Result<_, _>>()?,
        })
    }
}

/// A head for each hour that passes; where clocks change one comes twice, or is missing.
fn hours(clock: &Civil, day: Window) -> Vec<Hour> {
    let utc = Civil { zone: Zone::utc(), lang: clock.lang };
    let mut found: Vec<Hour> = vec![];
    let mut at = day.starts;
    while at < day.ends {
        let local = clock.zone.local(at);
        // Up to the next full hour of the viewer's clock; zones of half hours make a short one on their days of change.
        let rest = 3600 - i64::from(local.minute()) * 60 - i64::from(local.second());
        let next = (at + rest).min(day.ends);
        let (from, to) = ((at - day.starts) / UNIT, (next - day.starts) / UNIT);
        found.push(Hour { from, to, local: format!("{:02}", local.hour()), utc: short(&utc, at) });
        at = next;
    }
    found
}

/// `13`, or `13:30` where the zone is not a whole number of hours from UTC.
fn short(clock: &Civil, at: Epoch) -> String {
    clock.time(at).trim_end_matches(":00").to_owned()
}

/// The catalogue's key for a server that takes nobody.
pub(super) fn health_key(health: Health) -> Option<&'static str> {
    match health {
        Health::Healthy => None,
        Health::Away => Some("health_away"),
        Health::Quarantined => Some("health_quarantined"),
    }
}
