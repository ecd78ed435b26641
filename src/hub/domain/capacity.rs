use super::{Calendar, Epoch, Held, Mode, Server, Window, server::disk_of};
use crate::profile::{HOST_KEEPS, Layout};

/// How many places a server has: one when exclusive, else as many as it holds of the smallest layout.
pub fn places(server: &Server) -> u32 {
    match server.mode {
        Mode::Exclusive => 1,
        Mode::Shared => {
            let room = Room::of(server);
            let most = |layout: &Layout| {
                let one = Room::of_layout(*layout);
                let most = (room.cores / one.cores.max(1)).min(room.memory / one.memory.max(1));
                most.min(room.disk / one.disk.max(1))
            };
            u32::try_from(Layout::SHIPPED.iter().map(most).max().unwrap_or(0)).unwrap_or(u32::MAX).clamp(1, 1000)
        }
    }
}

/// The lowest place that is free for all of `busy`, where the layouts fit together at every instant of it.
///
/// Cores of one lab's machines are shared among themselves, those of two labs are not; memory and disk are never promised
/// twice.
pub fn find_place(server: &Server, held: &Calendar, busy: Window, layout: Layout) -> Option<u32> {
    if !server.can_hold(layout) {
        return None;
    }
    let near: Vec<&Held> = held.near(busy).collect();
    let place = (0..places(server)).find(|place| near.iter().all(|h| h.place != *place))?;
    (server.mode == Mode::Exclusive || fits_together(server, &near, busy, layout)).then_some(place)
}

/// Whether all that is taken on a server has its room there still, as after a change of its size.
pub fn holds_all(server: &Server, held: &Calendar) -> bool {
    held.iter().all(|one| {
        let mut others = held.clone();
        others.remove(&one.booking);
        find_place(server, &others, one.busy, one.layout).is_some()
    })
}

/// The load rises only where a booking starts, so only those instants are looked at.
fn fits_together(server: &Server, near: &[&Held], busy: Window, layout: Layout) -> bool {
    let room = Room::of(server);
    let own = Room::of_layout(layout);
    let instants = near.iter().map(|h| h.busy.starts).filter(|at| busy.holds(*at)).chain([busy.starts]);
    instants.into_iter().all(|at| {
        let there = near.iter().filter(|h| h.busy.holds(at)).map(|h| Room::of_layout(h.layout));
        there.fold(own, Room::with).is_within(room)
    })
}

/// When nothing can be had on a server that holds some lab: by start; they may overlap.
///
/// `held` says which places are taken, each with its buffer, and by which labs.
///
/// A slot needs its place and its room until its buffer is over. So each of these times begins a buffer early, and a slot
/// has to keep out of them itself only: whoever begins and ends between them gets some shipped lab at each moment. It is one
/// sweep for the places and one for each lab, since a table of a week asks it of each server.
pub fn full_times(server: &Server, held: &[(u32, Window, Layout)]) -> Vec<Window> {
    let early = |time: Window| Window { starts: Epoch((time.starts.0 - server.buffer).max(0)), ..time };
    let taken = held.iter().map(|(place, busy, _)| (*place as usize, early(*busy)));
    let mut found = all_taken(places(server) as usize, taken);
    if server.mode == Mode::Shared {
        let labs: Vec<Layout> = Layout::SHIPPED.into_iter().filter(|lab| server.can_hold(*lab)).collect();
        let mut out = vec![];
        for (n, lab) in labs.iter().enumerate() {
            out.extend(no_room(server, held, *lab).into_iter().map(|time| (n, early(time))));
        }
        found.extend(all_taken(labs.len(), out));
        found.sort();
    }
    found
}

/// When a lab has no room beside what is held.
fn no_room(server: &Server, held: &[(u32, Window, Layout)], lab: Layout) -> Vec<Window> {
    let (room, mut sum) = (Room::of(server), Room::of_layout(lab));
    let others = held.iter().map(|(_, busy, layout)| (Room::of_layout(*layout), *busy));
    sweep(others, |one, begins| {
        sum = if begins { sum.with(one) } else { sum.less(one) };
        !sum.is_within(room)
    })
}

/// When each of `count` things is taken, from the times in which one of them is.
fn all_taken(count: usize, times: impl IntoIterator<Item = (usize, Window)>) -> Vec<Window> {
    let (mut by, mut left) = (vec![0_u32; count], count);
    sweep(times, |thing, begins| {
        // A server that was made smaller may have fewer places than are taken.
        if let Some(by) = by.get_mut(thing) {
            if begins {
                left -= usize::from(*by == 0);
                *by += 1;
            } else {
                *by -= 1;
                left += usize::from(*by == 0);
            }
        }
        left == 0
    })
}

/// When `step` says so, which hears of all that begins and ends, in order: by start, and apart.
fn sweep<T: Copy>(times: impl IntoIterator<Item = (T, Window)>, mut step: impl FnMut(T, bool) -> bool) -> Vec<Window> {
    let edges = times.into_iter().flat_map(|(what, time)| [(time.starts, what, true), (time.ends, what, false)]);
    let mut edges: Vec<(Epoch, T, bool)> = edges.collect();
    edges.sort_by_key(|(at, _, _)| *at);
    let (mut since, mut found) = (None, vec![]);
    for (n, (at, what, begins)) in edges.iter().enumerate() {
        let now = step(*what, *begins);
        // What ends and what begins at one moment counts together: windows are half-open.
        if edges.get(n + 1).is_some_and(|(next, _, _)| next == at) {
            continue;
        }
        match since {
            None if now => since = Some(*at),
            Some(starts) if !now => {
                found.push(Window { starts, ends: *at });
                since = None;
            }
            _ => {}
        }
    }
    found
}

#[derive(Clone, Copy)]
struct Room {
    cores: u64,
    memory: u64,
    disk: u64,
}

impl Room {
    fn of(server: &Server) -> Self {
        let memory = server.memory.0.saturating_sub(HOST_KEEPS.0);
        // A disk that is not known is not looked at.
        let disk = server.disk.map_or(u64::MAX, |disk| disk.0);
        Self { cores: u64::from(server.cores), memory, disk }
    }

    fn of_layout(layout: Layout) -> Self {
        let memory = layout.memory.0.saturating_mul(u64::from(layout.nodes));
        Self { cores: u64::from(layout.cores), memory, disk: disk_of(layout).0 }
    }

    fn with(self, other: Self) -> Self {
        let (cores, memory) = (self.cores.saturating_add(other.cores), self.memory.saturating_add(other.memory));
        Self { cores, memory, disk: self.disk.saturating_add(other.disk) }
    }

    fn less(self, other: Self) -> Self {
        let (cores, memory) = (self.cores.saturating_sub(other.cores), self.memory.saturating_sub(other.memory));
        Self { cores, memory, disk: self.disk.saturating_sub(other.disk) }
    }

    fn is_within(self, room: Self) -> bool {
        self.cores <= room.cores && self.memory <= room.memory && self.disk <= room.disk
    }
}
