use std::sync::Arc;

use super::{BookingId, Window};
use crate::profile::Layout;

/// A place that is taken for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// By which booking.
    pub booking: BookingId,
    /// Which place.
    pub place: u32,
    /// From its start until the end of its buffer.
    pub busy: Window,
    /// What runs there.
    pub layout: Layout,
}

/// What is taken on one server, by start; clones share it.
///
/// Who is refused gets other slots, for which hundreds of windows are tried: each finds what is near it by halving, not by
/// looking at a camp's whole month.
#[derive(Debug, Clone, Default)]
pub struct Calendar {
    held: Arc<Vec<Held>>,
    /// The longest of them, seconds: what begins longer before a window is over when that begins.
    longest: i64,
}

impl Calendar {
    /// What is taken in a window, by start.
    pub fn near(&self, window: Window) -> impl Iterator<Item = &Held> {
        let upto = self.held.partition_point(|h| h.busy.starts < window.ends);
        let from = self.held[..upto].partition_point(|h| h.busy.starts + self.longest <= window.starts);
        self.held[from..upto].iter().filter(move |h| h.busy.overlaps(window))
    }

    /// Everything, by start.
    pub fn iter(&self) -> impl Iterator<Item = &Held> {
        self.held.iter()
    }

    /// How many places are taken at any time.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nothing is taken.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Takes a place.
    pub fn add(&mut self, new: Held) {
        self.longest = self.longest.max(new.busy.length());
        let at = self.held.partition_point(|h| h.busy.starts <= new.busy.starts);
        Arc::make_mut(&mut self.held).insert(at, new);
    }

    /// Gives up the places of a booking.
    pub fn remove(&mut self, booking: &BookingId) {
        Arc::make_mut(&mut self.held).retain(|h| h.booking != *booking);
    }
}

impl FromIterator<Held> for Calendar {
    fn from_iter<T: IntoIterator<Item = Held>>(all: T) -> Self {
        let mut held: Vec<Held> = all.into_iter().collect();
        held.sort_by_key(|h| h.busy.starts);
        let longest = held.iter().map(|h| h.busy.length()).max().unwrap_or(0);
        Self { held: Arc::new(held), longest }
    }
}
