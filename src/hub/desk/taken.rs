use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    core::Problem,
    hub::{
        domain::{Booking, BookingId, Calendar, Epoch, Ground, Held, Maintenance, Server, ServerId, Window},
        store::{Tx, unknown_server},
    },
};

/// What is taken on each server from yesterday on, as it was read last; clones share it.
///
/// A refusal looks for other slots on every server. Reading hundreds of rows for each of them would make refusals, which
/// a busy hub gives most, its dearest answers. What is taken changes with a server's revision only, or with the revision
/// that its agent has confirmed, so what was read for the same two is still true: also when another hub wrote it.
#[derive(Debug, Clone, Default)]
pub(super) struct Taken(Arc<Mutex<HashMap<ServerId, Known>>>);

#[derive(Debug)]
struct Known {
    revision: i64,
    acked: i64,
    from: Epoch,
    held: Calendar,
}

/// All servers and their maintenance as one transaction that reads sees them, with what is known to be taken: an answer
/// may look at them several times, and they are read once.
#[derive(Debug)]
pub(super) struct Survey {
    taken: Taken,
    servers: Vec<Server>,
    closed: Vec<Maintenance>,
}

impl Taken {
    /// Looks at everything from now on, or from an earlier moment.
    ///
    /// Only for transactions that read: what another one has written and not committed may never become true, under a
    /// revision that comes again.
    pub async fn survey(&self, tx: &mut Tx, from: Epoch) -> Result<Survey, Problem> {
        let servers = tx.servers().await?;
        // A slot may have begun already: the step of the raster that runs, which is a day long at most.
        let from = from.min(tx.now() - 86_400);
        let closed = tx.maintenance(Window { starts: from, ends: Epoch::LAST }).await?;
        Ok(Survey { taken: self.clone(), servers, closed })
    }

    async fn held(&self, tx: &mut Tx, server: &Server, from: Epoch) -> Result<Calendar, Problem> {
        if let Some(held) = self.known(server, from) {
            return Ok(held);
        }
        let from = from.min(tx.now() - 86_400);
        let held = tx.held(&server.id, Window { starts: from, ends: Epoch::LAST }).await?;
        let known = Known { revision: server.revision, acked: server.acked, from, held: held.clone() };
        let mut all = self.all();
        // Whoever began to read before the last change does not bring its state back.
        if all.get(&server.id).is_none_or(|there| there.revision <= known.revision) {
            all.insert(server.id.clone(), known);
        }
        Ok(held)
    }

    /// Notes a booking that was made and committed on a server, which is given as it was before: what is known of it need
    /// not be read again by everybody who wants the same hour.
    ///
    /// `placed` is what the last try that looked for a place has put there. Where that try was undone, the next one may
    /// have found the answer of another hub under its key: a booking that holds nothing of what this one would have taken.
    pub fn sold(&self, before: &Server, placed: &BookingId, new: &Booking) {
        if *placed != new.id {
            return;
        }
        let (Some(place), mut all) = (new.place, self.all()) else { return };
        let Some(known) = all.get_mut(&before.id) else { return };
        if known.revision == before.revision && known.acked == before.acked && known.from <= new.window.starts {
            known.revision += 1;
            known.held.add(Held { booking: new.id.clone(), place, busy: new.busy(), layout: new.layout });
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<ServerId, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, server: &Server, from: Epoch) -> Option<Calendar> {
        let all = self.all();
        let known = all.get(&server.id)?;
        let same = known.revision == server.revision && known.acked == server.acked && known.from <= from;
        same.then(|| known.held.clone())
    }
}

impl Survey {
    /// The server that is named, or all of them, by name.
    pub fn servers(&self, named: Option<&ServerId>) -> Result<Vec<Server>, Problem> {
        let Some(id) = named else { return Ok(self.servers.clone()) };
        let found = self.servers.iter().find(|server| server.id == *id).cloned();
        Ok(vec![found.ok_or_else(|| unknown_server(id))?])
    }

    /// The servers with what is taken in and around a window.
    pub async fn grounds(&self, tx: &mut Tx, servers: Vec<Server>, within: Window) -> Result<Vec<Ground>, Problem> {
        let buffer = servers.iter().map(|s| s.buffer).max().unwrap_or(0);
        let mut grounds = vec![];
        for server in servers {
            grounds.push(self.within(tx, server, within.longer(buffer)).await?);
        }
        Ok(grounds)
    }

    /// One server with what is taken in and around a window.
    pub async fn ground(&self, tx: &mut Tx, server: Server, window: Window) -> Result<Ground, Problem> {
        let wide = Window { starts: window.starts, ends: server.busy(window).ends };
        self.within(tx, server, wide).await
    }

    async fn within(&self, tx: &mut Tx, server: Server, window: Window) -> Result<Ground, Problem> {
        let held = self.taken.held(tx, &server, window.starts).await?;
        let closed =
            self.closed.iter().filter(|m| m.server == server.id && m.window.overlaps(window)).cloned().collect();
        Ok(Ground { server, held, closed })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn server(name: &str, revision: i64) -> Server {
        serde_json::from_value(json!({
            "id": name, "address": "192.0.2.1", "course": null, "cores": 8, "memory": "32GiB", "labels": [],
            "opening": "always", "zone": "UTC", "buffer": 600, "mode": "exclusive", "health": "healthy",
            "health_note": null, "occupant": null, "revision": revision, "issued": 0, "acked": 0, "seen": null,
            "clock_offset": 0, "version": 1,
        }))
        .unwrap()
    }

    fn booking(id: &str, server: &str) -> Booking {
        serde_json::from_value(json!({
            "id": id, "server": server, "place": 0, "person": "amy", "course": "k8s", "group": null,
            "layout": "1x4c12g", "window": { "starts": 7200, "ends": 10_800 }, "busy_until": 11_400, "state": "booked",
            "since": 0, "version": 1, "created": 0, "updated": 0, "offer_until": null, "came": null, "charged": 3600,
            "lapses": 0, "series": null, "wished": null, "note": null, "refused": null, "stranded": null,
            "ended_by": null,
        }))
        .unwrap()
    }

    #[test]
    fn what_a_try_has_put_nowhere_takes_no_place() {
        let (taken, before, after, from) = (Taken::default(), server("one", 5), server("one", 6), Epoch(0));
        let empty = Known { revision: 5, acked: 0, from, held: Calendar::default() };
        taken.all().insert(before.id.clone(), empty);
        let placed = booking("bplaced", "one");
        // Answers of another hub under the same key: on another server, and on this one before the try.
        for answer in [booking("banswer", "two"), booking("banswer", "one")] {
            taken.sold(&before, &placed.id, &answer);
            assert!(taken.known(&after, from).is_none(), "{answer:?}");
            assert_eq!(taken.known(&before, from).map(|held| held.len()), Some(0));
        }
        taken.sold(&before, &placed.id, &placed);
        assert_eq!(taken.known(&after, from).map(|held| held.len()), Some(1));
    }
}
