use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Beginning, Calendar, Epoch, Health, Maintenance, Policy, SavedLab, Server, ServerId, Window, find_place};
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
}

impl Ground {
    /// The place that a booking of `window` would get; none when closed or taken.
    pub fn place_for(&self, window: Window, layout: Layout) -> Option<u32> {
        self.server.takes(&self.closed, window).ok()?;
        self.place_of(window, layout)
    }

    /// When it is open inside of what is asked; never where the lab cannot run. Worked out once for all windows, since
    /// opening hours cost a look at the zone's rules.
    fn open(&self, ask: Ask<'_>) -> Vec<Window> {
        let fit = self.server.can_hold(ask.layout) && self.server.health == Health::Healthy;
        if fit { self.server.opening.windows(&self.server.zone, ask.within) } else { vec![] }
    }

    /// Whether a window can be had; what costs least is asked first.
    fn has(&self, policy: &Policy, now: Epoch, ask: Ask<'_>, open: &[Window], window: Window) -> bool {
        ask.within.covers(window)
            && open.iter().any(|o| o.covers(window))
            && !ask.apart.iter().any(|own| own.overlaps(window))
            && self.place_of(window, ask.layout).is_some()
            && policy.allows(&self.server, now, window).is_ok()
            && self.server.takes(&self.closed, window).is_ok()
    }

    fn place_of(&self, window: Window, layout: Layout) -> Option<u32> {
        find_place(&self.server, &self.held, self.server.busy(window), layout)
    }

    fn starts<'a>(&'a self, policy: &'a Policy, now: Epoch, ask: Ask<'a>) -> impl Iterator<Item = Window> + 'a {
        let open = self.open(ask);
        let lines = (!open.is_empty()).then(|| policy.grid.lines(&self.server.zone, ask.within));
        lines
            .into_iter()
            .flatten()
            .map(move |at| Window { starts: at, ends: at + ask.length })
            .take_while(move |w| w.ends <= ask.within.ends)
            .filter(move |w| self.has(policy, now, ask, &open, *w))
    }
}

/// The first `most` free slots, earliest first; at one start those that go on with a saved lab, then by the server's
/// name.
pub fn free_slots(grounds: &[Ground], policy: &Policy, now: Epoch, ask: Ask<'_>, most: usize) -> Vec<Free> {
    let mut found: Vec<Free> = grounds
        .iter()
        .flat_map(|ground| {
            let (server, lab) = (ground.server.id.clone(), ask.begins(&ground.server.id));
            let starts = ground.starts(policy, now, ask).take(most);
            starts.map(move |window| Free { server: server.clone(), window, lab: lab.clone() })
        })
        .collect();
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
        let open = ground.open(ask);
        if open.is_empty() {
            continue;
        }
        let lab = ask.begins(&ground.server.id);
        let free = |starts: Epoch| {
            let window = Window { starts, ends: starts + ask.length };
            let fits = ground.has(policy, now, ask, &open, window);
            fits.then(|| Free { server: ground.server.id.clone(), window, lab: lab.clone() })
        };
        let later = Window { starts: wish.max(ask.within.starts), ends: ask.within.ends };
        let earlier = Window { starts: ask.within.starts, ends: wish.min(ask.within.ends) };
        found.extend(policy.grid.lines(&ground.server.zone, later).filter_map(free).take(most));
        found.extend(policy.grid.lines_back(&ground.server.zone, earlier).filter_map(free).take(most));
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
