use super::{Caller, Desk, agent::own, transaction::transact};
use crate::{
    core::{Code, Problem},
    hub::{
        domain::{Booking, BookingId, Epoch, ServerId, State, Who},
        store::Tx,
    },
};

/// More slots than any server has open at a time.
const MOST: usize = 64;

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
        let mut found = vec![];
        if came.is_empty() {
            return Ok(found);
        }
        let mut tx = self.store.read(now).await?;
        for one in came.iter().take(MOST) {
            if unseen(&mut tx, server, &one.0).await?.is_some() {
                found.push(one);
            }
        }
        Ok(found)
    }
}

/// The booking, where it is an open slot of the server whose holder did not come, as far as the hub knows.
async fn unseen(tx: &mut Tx, server: &ServerId, id: &BookingId) -> Result<Option<Booking>, Problem> {
    let booking = match tx.booking(id).await {
        Err(problem) if problem.code == Code::HubUnknown => return Ok(None),
        found => found?,
    };
    let open = booking.state == State::Active && booking.server.as_ref() == Some(server);
    Ok(Some(booking).filter(|b| open && b.came.is_none()))
}
