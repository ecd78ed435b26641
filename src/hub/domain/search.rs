use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Beginning, Calendar, Epoch, Health, Held, Maintenance, Policy, SavedLab, Server, ServerId, Window, find_place,
};
use crate::profile::Layout;

/// A server and what is known of its time.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The server.
    pub server: Server,
    /// What is taken, with holds of windows that may not be sold again yet.
    pub held: Calendar,
    /// When it is closed for work.
    pub closed: Vec<Maintenance>,
}

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The lab.
    pub layout: Layout,
    /// Its length, seconds.
    pub length: i64,
    /// The slot lies inside of this.
    pub within: Window,
    /// The labs of who asks: of slots that are equal otherwise that one comes first which goes on with one of them.
    pub labs: &'a [SavedLab],
    /// What who asks holds already: nobody is in two slots at a time, so what overlaps it is none that can be had.
    pub apart: &'a [Window],
}

impl Ask<'_> {
    /// With which lab a slot on a server begins.
    fn begins(&self, server: &ServerId) -> Option<Beginning> {
        Beginning::of(self.labs, server, self.layout)
    }
}

/// A slot that can be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Free {
    /// On which server.
    pub server: ServerId,
    /// When.
    pub window: Window,
    /// With which lab it begins; none where no saved lab has to do with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lab: Option<Beginning>,
    /// Which limit of who asks keeps it from them, in words; none where none does, or only what is free was looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
}

impl Ground {
    /// The place that a booking of `window` would get; none when closed or taken.
    pub fn place_for(&self, window: Window, layout: Layout) -> Option<u32> {
        self.server.takes(&self.closed, window).ok()?;
        find_place(&self.server, &self.held, self.server.busy(window), layout)
    }

    /// Whether only buffers are in the way of a window that is taken: its own, or that of what is before it.
    pub fn lacks_buffer(&self, window: Window, layout: Layout) -> bool {
        let server = &self.server;
        let bare = self.held.near(server.busy(window)).filter_map(|held| {
            let busy = Window { starts: held.busy.starts, ends: held.busy.ends - server.buffer };
            (busy.starts < busy.ends).then(|| Held { busy, ..held.clone() })
        });
        find_place(server, &bare.collect(), window, layout).is_some()
    }
}

/// What is looked for on one server.
pub(super) struct Search<'a> {
    ground: &'a Ground,
    policy: &'a Policy,
    now: Epoch,
    ask: Ask<'a>,
    /// When it is open inside of what is asked, by start and apart; never where no such slot can be had. Worked out once
    /// for all windows, since opening hours cost a look at the zone's rules.
    open: Vec<Window>,
}

/// What keeps a window from being had keeps each one from being had that starts between these.
pub(super) struct Blocked {
    /// The last start before it that may be free.
    pub(super) before: Epoch,
    /// The first start after it that may be free.
    pub(super) after: Epoch,
}

impl<'a> Search<'a> {
    pub(super) fn new(ground: &'a Ground, policy: &'a Policy, now: Epoch, ask: Ask<'a>) -> Self {
        let server = &ground.server;
        let fit =
            server.can_hold(ask.layout) && server.health == Health::Healthy && policy.is_short(ask.length).is_ok();
        let open = if fit { server.opening.windows(&server.zone, ask.within) } else { vec![] };
        Self { ground, policy, now, ask, open }
    }

    pub(super) fn window(&self, starts: Epoch) -> Window {
        Window { starts, ends: starts + self.ask.length }
    }

    /// When slots may start: inside of what is asked, by notice and horizon.
    fn starts(&self) -> Window {
        let within = self.ask.within;
        let last = (within.ends - self.ask.length).min(self.policy.latest(self.now));
        let starts = within.starts.max(self.policy.earliest(self.now));
        let told = self.ground.server.hears_in_time_from(self.now).unwrap_or(starts);
        Window { starts: starts.max(told), ends: last + 1 }
    }

    /// What keeps a window from being had, as far as it lasts for a while; what costs least is asked first.
    pub(super) fn blocked(&self, window: Window) -> Option<Blocked> {
        let Self { ground, ask, open, .. } = self;
        let next = open.get(open.partition_point(|open| open.ends < window.ends));
        if next.is_none_or(|open| !open.covers(window)) {
            let last = open[..open.partition_point(|open| open.starts <= window.starts)].last();
            return Some(Blocked {
                before: last.map_or(ask.within.starts - 1, |open| open.ends - ask.length),
                after: next.map_or(ask.within.ends, |open| open.starts),
            });
        }
        if let Some(own) = ask.apart.iter().find(|own| own.overlaps(window)) {
            return Some(Blocked { before: own.starts - ask.length, after: own.ends });
        }
        let busy = ground.server.busy(window);
        let work = ground.closed.iter().find(|m| m.server == ground.server.id && m.window.overlaps(busy));
        if let Some(work) = work {
            return Some(Blocked { before: work.window.starts - busy.length(), after: work.window.ends });
        }
        if find_place(&ground.server, &ground.held, busy, ask.layout).is_some() {
            return None;
        }
        // Whoever is in the way of it is in the way of its neighbours, until one of them is over or has not begun.
        let near = || ground.held.near(busy).map(|held| held.busy);
        Some(Blocked {
            before: near().map(|held| held.starts - busy.length()).max().unwrap_or(window.starts - 1),
            after: near().map(|held| held.ends).min().unwrap_or(window.starts + 1),
        })
    }

    /// Whether a window that nothing blocks can be had by every rule.
    fn allows(&self, window: Window) -> bool {
        self.policy.allows(&self.ground.server, self.now, window).is_ok()
            && self.ground.server.takes(&self.ground.closed, window).is_ok()
    }

    /// The windows that can be had and start from a moment on, by start. What is taken or closed is leapt over: nobody tries
    /// each line of a raster through weeks in which nothing is free.
    fn later(&self, from: Epoch) -> impl Iterator<Item = Window> {
        let starts = self.starts();
        let mut from = from.max(starts.starts);
        std::iter::from_fn(move || {
            loop {
                let rest = Window { starts: from, ends: starts.ends };
                let window = self.window(self.policy.grid.lines(&self.ground.server.zone, rest).next()?);
                from = window.starts + 1;
                match self.blocked(window) {
                    Some(blocked) => from = from.max(blocked.after),
                    None if self.allows(window) => return Some(window),
                    None => {}
                }
            }
        })
    }

    /// Those that start before a moment, the last one first.
    fn earlier(&self, to: Epoch) -> impl Iterator<Item = Window> {
        let starts = self.starts();
        let mut to = to.min(starts.ends);
        std::iter::from_fn(move || {
            loop {
                let rest = Window { starts: starts.starts, ends: to };
                let window = self.window(self.policy.grid.lines_back(&self.ground.server.zone, rest).next()?);
                to = window.starts;
                match self.blocked(window) {
                    Some(blocked) => to = to.min(blocked.before + 1),
                    None if self.allows(window) => return Some(window),
                    None => {}
                }
            }
        })
    }
}

/// The first `most` free slots, earliest first; at one start those that go on with a saved lab, then by the server's
/// name.
pub fn free_slots(grounds: &[Ground], policy: &Policy, now: Epoch, ask: Ask<'_>, most: usize) -> Vec<Free> {
    let mut found: Vec<Free> = vec![];
    for ground in grounds {
        let (server, lab) = (&ground.server.id, ask.begins(&ground.server.id));
        let search = Search::new(ground, policy, now, ask);
        let starts = search.later(ask.within.starts).take(most);
        found.extend(starts.map(|window| Free { server: server.clone(), window, lab: lab.clone(), limit: None }));
    }
    let key = |f: &Free| (f.window.starts, Beginning::rank(f.lab.as_ref()));
    found.sort_by(|a, b| (key(a), &a.server).cmp(&(key(b), &b.server)));
    found.truncate(most);
    found
}

/// So many days around a wish are looked at first; then everything up to the horizon.
pub const NEAR: i64 = 3;

/// Where slots instead of a wish may lie: `days` around it, not over yet, and not too far ahead.
pub fn around(policy: &Policy, now: Epoch, wish: Window, days: i64) -> Option<Window> {
    let horizon = now + i64::from(policy.horizon) * 86_400;
    let from = (wish.starts - days * 86_400).max(now - policy.grid.seconds());
    let to = (wish.ends + days * 86_400).min(horizon.max(wish.ends));
    Window::new(from, to).ok()
}

/// The `most` free slots nearest to a wished start, for somebody who was refused; of two as near the later one, and at
/// one start those that go on with a saved lab.
///
/// It goes from the wish outwards and stops as soon as no nearer one can come: refusals are what a busy hub answers most.
pub fn alternatives(
    grounds: &[Ground],
    policy: &Policy,
    now: Epoch,
    wish: Epoch,
    ask: Ask<'_>,
    most: usize,
) -> Vec<Free> {
    let mut found = vec![];
    for ground in grounds {
        let (server, lab) = (&ground.server.id, ask.begins(&ground.server.id));
        let search = Search::new(ground, policy, now, ask);
        let both = search.later(wish).take(most).chain(search.earlier(wish).take(most));
        found.extend(both.map(|window| Free { server: server.clone(), window, lab: lab.clone(), limit: None }));
    }
    nearest(&mut found, wish, most);
    found
}

/// Leaves the `most` that are nearest to a wished start, in that order.
pub fn nearest(found: &mut Vec<Free>, wish: Epoch, most: usize) {
    found.sort_by_key(|f| {
        let far = f.window.starts - wish;
        (far.abs(), far < 0, Beginning::rank(f.lab.as_ref()), f.server.clone())
    });
    found.truncate(most);
}
