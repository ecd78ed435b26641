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
        domain::{Booking, Epoch, Health, Server, State, Window, full_times},
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
        map.end()
    }
}

/// A server's week, prepared once for all of its days.
pub(super) struct Ground<'a> {
    of: &'a WeekServer,
    lanes: u32,
    free: Vec<Window>,
    shut: Vec<Window>,
    health: Option<String>,
    others: Option<&'static str>,
}

impl<'a> Ground<'a> {
    pub fn new(of: &'a WeekServer, window: Window, eyes: &Eyes<'_>) -> Self {
        let words = Words::of(eyes.clock.lang);
        let health = health_key(of.server.health).map(|key| {
            let note = of.server.health_note.as_deref().unwrap_or_default();
            words.say(key, &[("why", note)])
        });
        // Where no lab fits nothing can be booked, however free it is, nor on a server of courses that are not the viewer's.
        let fit = of.server.health == Health::Healthy && of.server.largest().is_some();
        let theirs = is_theirs(&of.server, eyes.courses);
        let free = if fit && theirs { free(of, eyes) } else { vec![] };
        let others = (!theirs).then(|| words.get("not_yours"));
        let lanes = of.places.clamp(1, MOST_LANES);
        Self { of, lanes, free, shut: without(vec![window], &of.open), health, others }
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
            items.extend(Item::free(&self.of.server, free, day, eyes, labels).map(|i| (free.starts, i)));
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
        Ok(Row { server, lanes, health, others, items, html })
    }
}

impl Item {
    fn plain(kind: &'static str, window: Window, day: Window, eyes: &Eyes<'_>, text: String) -> Self {
        let shown = window.common(day).unwrap_or(window);
        let from = (shown.starts - day.starts) / UNIT;
        // At least one column, so that what was ended at once is still seen.
        let to = ((shown.ends - day.starts + UNIT - 1) / UNIT).max(from + 1);
        let time = eyes.clock.times(window);
        Self { kind, from, to, lane: None, time, text, href: None, starts: None, ends: None }
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

    /// A stretch that can be booked; none when no step of the raster fits into it.
    fn free(server: &Server, free: Window, day: Window, eyes: &Eyes<'_>, labels: &Labels) -> Option<Self> {
        let step = eyes.grid.seconds();
        let first = eyes.grid.lines(&server.zone, free).next()?;
        if first + step > free.ends {
            return None;
        }
        let mut item = Self::plain("free", free, day, eyes, labels.free.to_owned());
        item.time = eyes.clock.times(Window { starts: first, ends: free.ends });
        let from = eyes.clock.zone.date(day.starts);
        item.href = Some(format!("/?from={from}&server={}&at={}#book", server.id, first.0));
        (item.starts, item.ends) = (Some(first.0), Some(free.ends.0));
        Some(item)
    }
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
    // Of several courses each has a notice of its own.
    let theirs = eyes.courses.iter().filter(|course| !eyes.teacher && of.server.is_for(&course.id));
    let earliest = theirs.map(|course| course.policy.earliest(eyes.now)).min().unwrap_or(eyes.earliest);
    let Ok(can) = Window::new(earliest, eyes.horizon) else { return vec![] };
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
