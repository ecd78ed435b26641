use std::collections::BTreeSet;

use super::{Caller, Desk, agent::own, transaction::transact};
use crate::{
    core::{Code, Problem},
    hub::{
        domain::{Booking, BookingId, Epoch, ServerId, State, Who},
        store::{Listing, Tx},
    },
};

impl Desk {
    /// Notes of open slots of a server that their holders came, and when.
    ///
    /// Its agent says so whenever it is heard: the report of it may be on its way yet, or be from before an older copy of
    /// the database was put back, and whoever is at work is no no-show.
    pub async fn came(
        &self,
        caller: &Caller,
        now: Epoch,
        server: &ServerId,
        came: &[(BookingId, Epoch)],
    ) -> Result<(), Problem> {
        own(caller, server)?;
        let news = self.news(now, server, came).await?;
        if news.is_empty() {
            return Ok(());
        }
        transact!(self, caller, now, |tx| {
            tx.lock_server(server).await?;
            for (id, at) in &news {
                if let Some(booking) = unseen(&mut tx, server, id).await? {
                    let next = Booking { came: Some((*at).min(now)), ..booking.clone() };
                    tx.change_booking(&booking, next, Who::Agent, "booking.logged-in", None).await?;
                }
            }
            Ok(())
        })
    }

    /// What of it is not known yet. Nearly always all is, and then nothing is written.
    async fn news<'a>(
        &self,
        now: Epoch,
        server: &ServerId,
        came: &'a [(BookingId, Epoch)],
    ) -> Result<Vec<&'a (BookingId, Epoch)>, Problem> {
        if came.is_empty() {
            return Ok(vec![]);
        }
        // Of all servers: in any moment few slots are open, and a shared server may have hundreds of places.
        let open = Listing { state: Some(State::Active), ..Listing::default() };
        let open = self.store.read(now).await?.bookings(&open).await?;
        let unseen: BTreeSet<BookingId> =
            open.into_iter().filter(|b| is_unseen(b, server)).map(|booking| booking.id).collect();
        Ok(came.iter().filter(|(id, _)| unseen.contains(id)).collect())
    }
}

/// The booking, where it [`is_unseen`].
async fn unseen(tx: &mut Tx, server: &ServerId, id: &BookingId) -> Result<Option<Booking>, Problem> {
    let booking = match tx.booking(id).await {
        Err(problem) if problem.code == Code::HubUnknown => return Ok(None),
        found => found?,
    };
    Ok(Some(booking).filter(|booking| is_unseen(booking, server)))
}

/// Whether it is an open slot of the server whose holder did not come, as far as the hub knows.
fn is_unseen(booking: &Booking, server: &ServerId) -> bool {
    booking.state == State::Active && booking.came.is_none() && booking.server.as_ref() == Some(server)
}
