use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    core::Problem,
    hub::{
        domain::{Calendar, Epoch, Ground, Maintenance, Server, ServerId, Window},
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
    /// Looks at everything from now on, or from an earlier moment. Only for transactions that read: what another one
    /// has written and not committed may never become true, under a revision that comes again.
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(server.id.clone(), known);
        Ok(held)
    }

    fn known(&self, server: &Server, from: Epoch) -> Option<Calendar> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
