use super::{
    Caller, Desk,
    change::{ended, may_run_unheard},
    transaction::transact,
};
use crate::{
    core::{Code, Problem},
    hub::domain::{Booking, Epoch, State, Who},
};

/// What is left of closed accounts: what they hold is given up one by one, and a hub may end in the midst of it.
impl Desk {
    /// What people whose account is closed hold or wait for yet, by start.
    pub(in crate::hub) async fn of_closed(&self, now: Epoch) -> Result<Vec<Booking>, Problem> {
        self.store.read(now).await?.of_closed().await
    }

    /// Ends a booking whose holder's account is closed; whether it did.
    ///
    /// Being overtaken is no failure.
    pub(in crate::hub) async fn end_of_closed(&self, now: Epoch, booking: &Booking) -> Result<bool, Problem> {
        let outcome = transact!(self, Caller::Clerk, now, |tx| {
            if let Some(server) = &booking.server {
                tx.lock_server(server).await?;
            }
            let before = tx.booking(&booking.id).await?;
            tx.lock_person(&before.person).await?;
            if before.server != booking.server || tx.person(&before.person).await?.active {
                return Ok(false);
            }
            let ended = if before.state == State::Waitlisted {
                Some((Booking { state: State::Cancelled, ..before.clone() }, before.busy_until))
            } else {
                let unheard = may_run_unheard(&mut tx, &before).await?;
                ended(&before, now, Who::Clerk, unheard)
            };
            let Some((next, from)) = ended else { return Ok(false) };
            let why = "the account was closed".to_owned();
            let next = Booking { note: Some(why.clone()), ..next };
            tx.change_booking(&before, next, Who::Clerk, "clerk.closed", Some(why)).await?;
            if from < before.busy_until {
                tx.hold(&before, from).await?;
            }
            Ok(true)
        });
        match outcome {
            Err(problem) if matches!(problem.code, Code::BookStale | Code::BookState) => Ok(false),
            outcome => outcome,
        }
    }
}
