use super::{Caller, Desk, rehouse::noted, transaction::transact};
use crate::{
    core::Problem,
    hub::{
        domain::{Booking, Epoch, SavedLab, ServerId, Who},
        store::Listing,
    },
};

impl Desk {
    /// Forgets which labs a server kept, as where its gate was taken off with them; how many they were.
    ///
    /// Who has booked a slot that would have begun with one reads beside it that it does not. An agent that is enrolled there
    /// again tells those that it keeps.
    pub async fn forget_labs(&self, caller: &Caller, now: Epoch, server: &ServerId) -> Result<usize, Problem> {
        caller.needs_admin()?;
        transact!(self, caller, now, |tx| {
            tx.lock_server(server).await?;
            let labs = tx.labs_on(server).await?;
            let want = Listing { server: Some(server.clone()), open: true, ..Listing::default() };
            for b in tx.bookings(&want).await?.into_iter().filter(|b| begins_with_one(b, &labs, now)) {
                let why = format!("the lab that was saved on {server} is gone: it begins with a fresh one");
                let next = Booking { note: noted(&b, Some(&why)), ..b.clone() };
                tx.change_booking(&b, next, Who::Teacher, "booking.lab-gone", Some(why)).await?;
            }
            tx.drop_labs(server).await?;
            Ok(labs.len())
        })
    }
}

/// Whether a booking that is ahead begins with one of these labs of its server.
fn begins_with_one(b: &Booking, labs: &[SavedLab], now: Epoch) -> bool {
    let its = |lab: &SavedLab| lab.person == b.person && lab.layout == b.layout;
    b.state.is_unbegun() && b.window.ends > now && labs.iter().any(its)
}
