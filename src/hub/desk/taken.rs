use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    core::Problem,
    hub::{
        domain::{Epoch, Ground, Held, Server, ServerId, Window},
        store::Tx,
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
    held: Arc<[Held]>,
}

impl Taken {
    /// The servers with what is taken in and around a window. Only for transactions that read: what another one has
    /// written and not committed may never become true, under a revision that comes again.
    pub async fn grounds(&self, tx: &mut Tx, servers: &[Server], within: Window) -> Result<Vec<Ground>, Problem> {
        let buffer = servers.iter().map(|s| s.buffer).max().unwrap_or(0);
        let wide = within.longer(buffer);
        let closed = tx.maintenance(wide).await?;
        let mut grounds = vec![];
        for server in servers {
            let held = self.within(tx, server, wide).await?;
            grounds.push(Ground { server: server.clone(), held, closed: closed.clone() });
        }
        Ok(grounds)
    }

    /// One server with what is taken in and around a window; as [`Self::grounds`].
    pub async fn ground(&self, tx: &mut Tx, server: Server, window: Window) -> Result<Ground, Problem> {
        let wide = Window { starts: window.starts, ends: server.busy(window).ends };
        let held = self.within(tx, &server, wide).await?;
        Ok(Ground { held, closed: tx.maintenance(wide).await?, server })
    }

    async fn within(&self, tx: &mut Tx, server: &Server, window: Window) -> Result<Vec<Held>, Problem> {
        let held = self.held(tx, server, window.starts).await?;
        Ok(held.iter().filter(|h| h.busy.overlaps(window)).cloned().collect())
    }

    async fn held(&self, tx: &mut Tx, server: &Server, from: Epoch) -> Result<Arc<[Held]>, Problem> {
        if let Some(held) = self.known(server, from) {
            return Ok(held);
        }
        let from = from.min(tx.now() - 86_400);
        let held: Arc<[Held]> = tx.held(&server.id, Window { starts: from, ends: Epoch::LAST }).await?.into();
        let known = Known { revision: server.revision, acked: server.acked, from, held: Arc::clone(&held) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(server.id.clone(), known);
        Ok(held)
    }

    fn known(&self, server: &Server, from: Epoch) -> Option<Arc<[Held]>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(&server.id)?;
        let same = known.revision == server.revision && known.acked == server.acked && known.from <= from;
        same.then(|| Arc::clone(&known.held))
    }
}
