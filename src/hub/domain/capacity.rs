use super::{Calendar, Held, Mode, Server, Window, server::disk_of};
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
        let mut sum = Room { ..own };
        for held in near.iter().filter(|h| h.busy.holds(at)) {
            let one = Room::of_layout(held.layout);
            sum.cores = sum.cores.saturating_add(one.cores);
            sum.memory = sum.memory.saturating_add(one.memory);
            sum.disk = sum.disk.saturating_add(one.disk);
        }
        sum.cores <= room.cores && sum.memory <= room.memory && sum.disk <= room.disk
    })
}

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
}
