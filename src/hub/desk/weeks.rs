use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    core::Problem,
    hub::{
        domain::{Booking, Server, ServerId, Window},
        store::{Listing, Tx},
    },
};

/// How many windows are remembered: the weeks that people look at are this one, the next, and one more.
const WINDOWS: usize = 3;

/// What was read last of the tables that people look at; clones share it.
///
/// The table of a busy camp's week has thousands of bookings, and every visitor asks for the same ones. As with
/// [`super::taken::Taken`] what was read of a server stays true until its revision changes; so after a booking one server
/// is read again and not all of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Weeks(Arc<Mutex<Vec<Known>>>);

#[derive(Debug)]
struct Known {
    window: Window,
    servers: HashMap<ServerId, (i64, Arc<[Booking]>)>,
}

impl Weeks {
    /// The bookings that held or hold a place on a server in a window, by start.
    ///
    /// Only for transactions that read.
    pub async fn bookings(&self, tx: &mut Tx, server: &Server, window: Window) -> Result<Arc<[Booking]>, Problem> {
        if let Some(known) = self.known(server, window) {
            return Ok(known);
        }
        let want = Listing { server: Some(server.id.clone()), within: Some(window), ..Listing::default() };
        let all = tx.bookings(&want).await?.into_iter();
        let all: Arc<[Booking]> = all.filter(|b| b.state.is_live() || b.state.counts()).collect();
        self.keep(server, window, Arc::clone(&all));
        Ok(all)
    }

    fn known(&self, server: &Server, window: Window) -> Option<Arc<[Booking]>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (revision, bookings) = all.iter().find(|known| known.window == window)?.servers.get(&server.id)?;
        (*revision == server.revision).then(|| Arc::clone(bookings))
    }

    /// The window that was read last is the last one, and the first one goes when there are too many.
    fn keep(&self, server: &Server, window: Window, bookings: Arc<[Booking]>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = all.iter().position(|known| known.window == window);
        let mut known = at.map_or_else(|| Known { window, servers: HashMap::new() }, |at| all.remove(at));
        known.servers.insert(server.id.clone(), (server.revision, bookings));
        all.push(known);
        if all.len() > WINDOWS {
            all.remove(0);
        }
    }
}
