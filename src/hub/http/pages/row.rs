use std::fmt::Write as _;

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    Words, draw,
    style::{MOST_LANES, UNIT},
    week::{Eyes, Labels, health_key},
    wish::is_theirs,
};
use crate::{
    core::Problem,
    hub::{
        desk::WeekServer,
        domain::{Booking, Epoch, Grid, Health, Policy, Server, State, Window, full_times},
    },
};

/// A server on one day.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The server.
    pub server: String,
    /// How many places are shown one below the other.
    pub lanes: u32,
    /// Why it takes nobody.
    pub health: Option<String>,
    /// That it is for none of the viewer's courses, so that nothing of it is shown as free.
    pub others: Option<&'static str>,
    /// The rasters by which the viewer books there, minutes, the finest first: each course has its own.
    pub grids: String,
    /// What fills its day, by start.
    #[serde(skip)]
    pub items: Vec<Item>,
    /// The same as `row.html` draws it: a template of its own, so that a busy week never stands whole as values.
    pub html: String,
}

#[derive(Serialize)]
struct Filling<'a> {
    server: &'a str,
    items: &'a [Item],
    closed: &'static str,
    work: &'static str,
}

/// One stretch of time in a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// `free`, `own`, `taken`, `buffer`, `work` or `closed`: also its class in the style sheet.
    pub kind: &'static str,
    /// Its first column.
    pub from: i64,
    /// The column after it.
    pub to: i64,
    /// Its lane; none is all of them.
    pub lane: Option<u32>,
    /// As `14:00–16:00`.
    pub time: String,
    /// Who or what.
    pub text: String,
    /// Where a click leads.
    pub href: Option<String>,
    /// The first second that can be booked; of free stretches only.
    pub starts: Option<i64>,
    /// The same by each of the row's rasters, 0 where no step of it fits; none where there is one alone.
    pub lines: Option<String>,
    /// The first second that cannot be booked any more.
    pub ends: Option<i64>,
}

/// What the template needs of it and no more: a busy week has ten thousand, and each field costs time twice.
impl Serialize for Item {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut class = format!("{} s{} e{}", self.kind, self.from, self.to);
        if let Some(lane) = self.lane {
            // Writing to a String cannot fail.
            let _ = write!(class, " l{lane}");
        }
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("class", &class)?;
        if self.kind != "buffer" {
            map.serialize_entry("time", &self.time)?;
        }
        let says = if matches!(self.kind, "buffer" | "closed" | "work") { self.kind } else { "text" };
        map.serialize_entry(says, &self.text)?;
        if let Some(href) = &self.href {
            map.serialize_entry("href", href)?;
        }
        if let Some(starts) = self.starts {
            map.serialize_entry("starts", &starts)?;
            map.serialize_entry("ends", &self.ends)?;
        }
        if let Some(lines) = &self.lines {
            map.serialize_entry("lines", lines)?;
        }
        map.end()
    }
}

/// A server's week, prepared once for all of its days.
pub(super) struct Ground<'a> {
    of: &'a WeekServer,
    lanes: u32,
    /// The rasters by which the viewer books there, the finest first.
    grids: Vec<Grid>,
    free: Vec<Window>,
    shut: Vec<Window>,
    health: Option<String>,
    others: Option<&'static str>,
}

impl<'a> Ground<'a> {
    pub fn new(of: &'a WeekServer, window: Window, eyes: &Eyes<'_>) -> Self {
        let words = Words::of(eyes.clock.lang);
        let unheard = || match of.server.seen {
            None if of.server.is_strange() => Some(words.get("health_unenrolled").to_owned()),
            _ => of.server.is_silent(eyes.now).then(|| words.get("health_silent").to_owned()),
        };
        let health = health_key(of.server.health).map(|key| {
            let note = of.server.health_note.as_deref().unwrap_or_default();
            words.say(key, &[("why", note)])
        });
        let health = health.or_else(unheard);
        // Where no lab fits nothing can be booked, however free it is, nor on a server of courses that are not the viewer's.
        let fit = of.server.health == Health::Healthy && of.server.largest().is_some();
        let theirs = is_theirs(&of.server, eyes.courses);
        let free = if fit && theirs { free(of, eyes) } else { vec![] };
        let others = (!theirs).then(|| words.get("not_yours"));
        let lanes = of.places.clamp(1, MOST_LANES);
        Self { of, lanes, grids: grids(&of.server, eyes), free, shut: without(vec![window], &of.open), health, others }
    }

    pub fn day(&self, day: Window, eyes: &Eyes<'_>, labels: &Labels) -> Result<Row, Problem> {
        let mut items = vec![];
        let lane = |b: &Booking| (self.lanes > 1).then(|| b.place.unwrap_or(0).min(self.lanes - 1));
        for shut in self.shut.iter().filter(|w| w.overlaps(day)) {
            items.push((shut.starts, Item::plain("closed", *shut, day, eyes, String::new())));
        }
        for work in self.of.maintenance.iter().filter(|m| m.window.overlaps(day)) {
            items.push((work.window.starts, Item::plain("work", work.window, day, eyes, work.reason.clone())));
        }
        for free in self.free.iter().filter_map(|w| w.common(day)) {
            items.extend(Item::free(self, free, day, eyes, labels).map(|i| (free.starts, i)));
        }
        // Sorted by start; so those of a day stand together, except for a long one that began before it.
        for booking in self.of.bookings.iter().take_while(|b| b.window.starts < day.ends) {
            if booking.window.overlaps(day) {
                items.push((booking.window.starts, Item::booking(booking, lane(booking), day, eyes, labels)));
            }
            let buffer = Window { starts: booking.window.ends, ends: booking.busy_until };
            if booking.state.is_live() && buffer.starts < buffer.ends && buffer.overlaps(day) {
                let mut item = Item::plain("buffer", buffer, day, eyes, String::new());
                item.lane = lane(booking);
                items.push((buffer.starts, item));
            }
        }
        items.sort_by_key(|(starts, item)| (*starts, item.lane));
        let items: Vec<Item> = items.into_iter().map(|(_, item)| item).collect();
        let server = self.of.server.id.to_string();
        let filling = Filling { server: &server, items: &items, closed: labels.closed, work: labels.work };
        let html = draw::part("row.html", &filling)?;
        let (lanes, health, others) = (self.lanes, self.health.clone(), self.others);
        let grids: Vec<String> = self.grids.iter().map(|grid| u16::from(*grid).to_string()).collect();
        Ok(Row { server, lanes, health, others, grids: grids.join(" "), items, html })
    }
}

impl Item {
    fn plain(kind: &'static str, window: Window, day: Window, eyes: &Eyes<'_>, text: String) -> Self {
        let shown = window.common(day).unwrap_or(window);
        let from = (shown.starts - day.starts) / UNIT;
        // At least one column, so that what was ended at once is still seen.
        let to = ((shown.ends - day.starts + UNIT - 1) / UNIT).max(from + 1);
        let time = eyes.clock.times(window);
        Self { kind, from, to, lane: None, time, text, href: None, starts: None, lines: None, ends: None }
    }

    fn booking(booking: &Booking, lane: Option<u32>, day: Window, eyes: &Eyes<'_>, labels: &Labels) -> Self {
        let own = eyes.own == Some(&booking.person);
        let who = if own { labels.you.to_owned() } else { booking.person.to_string() };
        let text = if booking.state == State::Offered { format!("{who} ({})", labels.waiting) } else { who };
        let mut item = Self::plain(if own { "own" } else { "taken" }, booking.window, day, eyes, text);
        item.lane = lane;
        item.href = (own || eyes.teacher).then(|| format!("/booking/{}", booking.id));
        item
    }

    /// A stretch that can be booked; none when no step of any raster fits into it.
    fn free(ground: &Ground<'_>, free: Window, day: Window, eyes: &Eyes<'_>, labels: &Labels) -> Option<Self> {
        let server = &ground.of.server;
        let first = |grid: &Grid| {
            let line = grid.lines(&server.zone, free).next();
            line.filter(|line| *line + grid.seconds() <= free.ends)
        };
        let lines: Vec<Option<Epoch>> = ground.grids.iter().map(first).collect();
        let first = *lines.iter().flatten().min()?;
        let mut item = Self::plain("free", free, day, eyes, labels.free.to_owned());
        item.time = eyes.clock.times(Window { starts: first, ends: free.ends });
        let from = eyes.clock.zone.date(day.starts);
        item.href = Some(format!("/?from={from}&server={}&at={}#book", server.id, first.0));
        (item.starts, item.ends) = (Some(first.0), Some(free.ends.0));
        if lines.len() > 1 {
            let lines: Vec<String> = lines.iter().map(|line| line.map_or(0, |at| at.0).to_string()).collect();
            item.lines = Some(lines.join(" "));
        }
        Some(item)
    }
}

/// The viewer's courses that a server is for.
fn theirs<'a>(server: &'a Server, eyes: &'a Eyes<'_>) -> impl Iterator<Item = &'a Policy> {
    eyes.courses.iter().filter(move |course| server.is_for(&course.id)).map(|course| &course.policy)
}

/// The rasters by which the viewer books on a server, the finest first.
fn grids(server: &Server, eyes: &Eyes<'_>) -> Vec<Grid> {
    let mut all: Vec<Grid> = theirs(server, eyes).map(|policy| policy.grid).collect();
    if all.is_empty() {
        all.push(eyes.grid);
    }
    all.sort_by_key(|grid| grid.seconds());
    all.dedup();
    all
}

/// What is left of windows without others; both in order.
fn without(windows: Vec<Window>, others: &[Window]) -> Vec<Window> {
    let mut left = vec![];
    for window in windows {
        let mut from = window.starts;
        for other in others.iter().filter(|o| o.overlaps(window)) {
            left.extend(Window::new(from, other.starts).ok());
            from = from.max(other.ends);
        }
        left.extend(Window::new(from, window.ends).ok());
    }
    left
}

/// When some lab can be had: open, no work, not over, not too far ahead, with a place, room, and the buffer after it.
fn free(of: &WeekServer, eyes: &Eyes<'_>) -> Vec<Window> {
    // Of several courses each has a notice and a horizon of its own. A teacher who says why goes past the notice.
    let notice = |policy: &Policy| if eyes.teacher { 0 } else { policy.notice };
    let earliest = |policy: &Policy| Policy { notice: notice(policy), ..policy.clone() }.earliest(eyes.now);
    let earliest = theirs(&of.server, eyes).map(earliest).min().unwrap_or(eyes.earliest);
    let horizon = theirs(&of.server, eyes).map(|policy| policy.latest(eyes.now)).max().unwrap_or(eyes.horizon);
    let earliest = of.server.hears_in_time_from(eyes.now).map_or(earliest, |told| told.max(earliest));
    let Ok(can) = Window::new(earliest, horizon) else { return vec![] };
    let mut open: Vec<Window> = of.open.iter().filter_map(|w| w.common(can)).collect();
    let mut work: Vec<Window> = of
        .maintenance
        .iter()
        .map(|m| Window { starts: Epoch((m.window.starts.0 - of.server.buffer).max(0)), ends: m.window.ends })
        .collect();
    work.sort();
    open = without(open, &work);
    let held = of.bookings.iter().filter(|b| b.state.is_live());
    let held: Vec<_> = held.map(|b| (b.place.unwrap_or(0), b.busy(), b.layout)).collect();
    without(open, &full_times(&of.server, &held))
}
