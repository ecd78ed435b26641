use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Epoch, Health, Held, Maintenance, Policy, Server, ServerId, Window, find_place};
use crate::profile::Layout;

/// A server and what is known of its time.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The server.
    pub server: Server,
    /// What is taken, with holds of windows that may not be sold again yet.
    pub held: Vec<Held>,
    /// When it is closed for work.
    pub closed: Vec<Maintenance>,
}

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// The lab.
    pub layout: Layout,
    /// Its length, seconds.
    pub length: i64,
    /// The slot lies inside of this.
    pub within: Window,
}

/// A slot that can be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Free {
    /// On which server.
    pub server: ServerId,
    /// When.
    pub window: Window,
}

impl Ground {
    /// The place that a booking of `window` would get; none when closed or taken.
    pub fn place_for(&self, window: Window, layout: Layout) -> Option<u32> {
        self.server.takes(&self.closed, window).ok()?;
        find_place(&self.server, &self.held, self.server.busy(window), layout)
    }

    fn starts<'a>(&'a self, policy: &'a Policy, now: Epoch, ask: Ask) -> impl Iterator<Item = Window> + 'a {
        let server = &self.server;
        let fit = server.can_hold(ask.layout) && server.health == Health::Healthy;
        // Opening hours are worked out once: each of them costs a look at the zone's rules.
        let open = if fit { server.opening.windows(&server.zone, ask.within) } else { vec![] };
        let lines = fit.then(|| policy.grid.lines(&server.zone, ask.within));
        lines
            .into_iter()
            .flatten()
            .map(move |at| Window { starts: at, ends: at + ask.length })
            .take_while(move |w| w.ends <= ask.within.ends)
            .filter(move |w| open.iter().any(|o| o.covers(*w)))
            .filter(move |w| find_place(server, &self.held, server.busy(*w), ask.layout).is_some())
            .filter(move |w| policy.allows(server, now, *w).is_ok() && self.place_for(*w, ask.layout).is_some())
    }
}

/// The first `most` free slots, earliest first, at one start by the server's name.
pub fn free_slots(grounds: &[Ground], policy: &Policy, now: Epoch, ask: Ask, most: usize) -> Vec<Free> {
    let mut found: Vec<Free> = grounds
        .iter()
        .flat_map(|ground| {
            let server = ground.server.id.clone();
            ground.starts(policy, now, ask).take(most).map(move |window| Free { server: server.clone(), window })
        })
        .collect();
    found.sort_by(|a, b| (a.window.starts, &a.server).cmp(&(b.window.starts, &b.server)));
    found.truncate(most);
    found
}

/// The `most` free slots nearest to a wished start, for somebody who was refused; of two as near the later one.
///
/// It looks three days around the wish, then up to the horizon.
pub fn alternatives(
    grounds: &[Ground],
    policy: &Policy,
    now: Epoch,
    wish: Window,
    layout: Layout,
    most: usize,
) -> Vec<Free> {
    let horizon = now + i64::from(policy.horizon) * 86_400;
    for days in [3, i64::from(policy.horizon)] {
        let from = (wish.starts - days * 86_400).max(now - policy.grid.seconds());
        let to = (wish.ends + days * 86_400).min(horizon.max(wish.ends));
        let Ok(within) = Window::new(from, to) else { continue };
        let ask = Ask { layout, length: wish.length(), within };
        let mut found = free_slots(grounds, policy, now, ask, usize::MAX);
        found.sort_by_key(|f| {
            let far = f.window.starts - wish.starts;
            (far.abs(), far < 0, f.server.clone())
        });
        found.truncate(most);
        if found.len() == most || days > 3 {
            return found;
        }
    }
    vec![]
}
