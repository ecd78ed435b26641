use super::{Caller, Desk, agent::REFUSE_OFFSET, rules, transaction::transact, waitlist};
use crate::{
    core::{Code, Problem},
    hub::{
        domain::{Booking, Epoch, Mode, NEVER_BEGAN, PersonId, ServerId, State, Waiting, Who, Window, by_fairness},
        gate::agent::LEAST_POLL,
        store::{Delivery, LAPSE, Listing, Tx},
    },
};

/// An agent is heard with who came by then, as it saw at its last look, and an older one tells it right after: by then the
/// hub has it, seconds. Less than the time until it is heard again, 5 s where nobody set another: else there would be no
/// moment at which all that came before is told.
const TOLD: i64 = 3;
const _: () = assert!(TOLD < LEAST_POLL.cast_signed());
/// So long after its end a slot that nobody here saw begin waits for its agent to be heard, seconds.
const AWAITED: i64 = 86_400;

/// Those of some who wait for whom a place is free, in the order in which they are asked.
async fn in_turn(tx: &mut Tx, mut all: Vec<Booking>) -> Result<Vec<Booking>, Problem> {
    let now = tx.now();
    let mut queue = vec![];
    for b in &all {
        let used = rules::recent_use(tx, &b.person, now).await?;
        queue.push(Waiting { booking: b.id.clone(), used, lapses: b.lapses, since: b.created });
    }
    by_fairness(&mut queue);
    all.sort_by_key(|b| queue.iter().position(|w| w.booking == b.id));
    let mut found = vec![];
    for waiting in all.into_iter().filter(|b| b.window.starts > now) {
        match waitlist::offer_for(tx, &waiting).await {
            Ok(None) => {}
            // Who left the course meanwhile gets nothing, and holds nobody up who waits behind them.
            Err(problem) if problem.code == Code::HubDenied => {}
            Ok(Some(_)) | Err(_) => found.push(waiting),
        }
    }
    Ok(found)
}

/// What the hub itself does when time has passed; only the clerk calls these.
impl Desk {
    /// Bookings whose time has come, in the order in which they are moved on.
    ///
    /// Nearly every second there is none, so one transaction looks that only reads: whoever writes is not kept waiting.
    pub(in crate::hub) async fn due(&self, now: Epoch) -> Result<Vec<Booking>, Problem> {
        let mut tx = self.store.read(now).await?;
        let mut found = vec![];
        // Ends before starts: what a no-show frees can be offered in the same tick.
        for state in [State::Active, State::Offered, State::Booked, State::Delayed, State::Waitlisted] {
            // Only an offer is over before its start; nearly all that is booked begins some day, and is not read.
            let begun = (state != State::Offered).then_some(Window { starts: Epoch(-1), ends: now + 1 });
            for booking in tx.bookings(&Listing { state: Some(state), within: begun, ..Listing::default() }).await? {
                // One that cannot be looked at fails in its own turn, and holds up no other.
                if !matches!(due(&mut tx, &booking).await, Ok(None)) {
                    found.push(booking);
                }
            }
        }
        Ok(found)
    }

    /// Moves a booking on when its time has come; whether anything changed.
    ///
    /// Being overtaken is no failure.
    pub(in crate::hub) async fn settle(&self, now: Epoch, booking: &Booking) -> Result<bool, Problem> {
        let caller = Caller::Clerk;
        let outcome = transact!(self, caller, now, |tx| {
            if let Some(server) = &booking.server {
                tx.lock_server(server).await?;
            }
            let booking = tx.booking(&booking.id).await?;
            match due(&mut tx, &booking).await? {
                None => Ok(false),
                Some(Due { next, action, reason }) => {
                    let freed = booking.state.is_live() && !next.state.is_live();
                    tx.change_booking(&booking, next, Who::Clerk, action, Some(reason.to_owned())).await?;
                    if freed {
                        tx.hold(&booking, booking.window.starts).await?;
                    }
                    Ok(true)
                }
            }
        });
        match outcome {
            Err(problem) if matches!(problem.code, Code::BookStale | Code::BookState) => Ok(false),
            outcome => outcome,
        }
    }

    /// Asks those who wait for a time before somebody else books it; whether anybody was asked.
    ///
    /// What has just come free is theirs, and not of who is quicker than the clerk. Who books and waits for it too is asked
    /// in their turn by that very booking.
    pub(super) async fn ask_who_waits(
        &self,
        now: Epoch,
        window: Window,
        who: Option<&PersonId>,
        server: Option<&ServerId>,
    ) -> Result<bool, Problem> {
        let (near, waits) = {
            let mut tx = self.store.read(now).await?;
            // Of who waits for another time a slot takes a place by a buffer only.
            let near = Some(window.wider(tx.widest_buffer().await?));
            let waits = Listing { state: Some(State::Waitlisted), within: near, ..Listing::default() };
            (near, tx.bookings(&waits).await?)
        };
        if waits.is_empty() {
            return Ok(false);
        }
        // As the clerk does: whose server is out of use comes before who waits. What goes wrong with one of them is the
        // clerk's to tell, and keeps nobody from booking.
        for stuck in self.stuck(now, near).await.unwrap_or_default() {
            let _ = self.rehouse(now, &stuck.id).await;
        }
        // No connection is held while offers ask for another one: all of them could be held so.
        let queue = {
            let mut tx = self.store.read(now).await?;
            in_turn(&mut tx, waits).await?
        };
        let mut asked = false;
        for waiting in queue {
            // Only that very wait is answered by the booking.
            let is_same = server.is_none() || waiting.wished.is_none() || waiting.wished.as_ref() == server;
            if Some(&waiting.person) == who && waiting.window.overlaps(window) && is_same {
                break;
            }
            asked |= self.offer(now, &waiting).await.unwrap_or(false);
        }
        Ok(asked)
    }

    /// Who waits for a place that is free now, in the order in which they are asked.
    pub(in crate::hub) async fn waitlist(&self, now: Epoch) -> Result<Vec<Booking>, Problem> {
        let mut tx = self.store.read(now).await?;
        let all = tx.bookings(&Listing { state: Some(State::Waitlisted), ..Listing::default() }).await?;
        in_turn(&mut tx, all).await
    }

    /// Offers a place to somebody who waits, when one is free; whether it did.
    pub(in crate::hub) async fn offer(&self, now: Epoch, waiting: &Booking) -> Result<bool, Problem> {
        let outcome = transact!(self, Caller::Clerk, now, |tx| {
            let fresh = tx.booking(&waiting.id).await?;
            if fresh.state != State::Waitlisted || fresh.window.starts <= now {
                return Ok(false);
            }
            Ok(waitlist::offer(&mut tx, &fresh).await?.is_some())
        });
        match outcome {
            Err(problem)
                if matches!(problem.code, Code::BookStale | Code::BookConflict | Code::BookState | Code::HubDenied) =>
            {
                Ok(false)
            }
            outcome => outcome,
        }
    }

    /// Webhook deliveries that are due; another hub leaves them alone for a minute.
    pub(in crate::hub) async fn take_deliveries(&self, now: Epoch) -> Result<Vec<Delivery>, Problem> {
        if !self.store.read(now).await?.has_deliveries().await? {
            return Ok(vec![]);
        }
        transact!(self, Caller::Clerk, now, |tx| tx.take_deliveries(25, 60).await)
    }

    /// Gives back deliveries that were taken and not tried; they are due again at `at`.
    pub(in crate::hub) async fn return_deliveries(
        &self,
        now: Epoch,
        untried: &[Delivery],
        at: Epoch,
    ) -> Result<(), Problem> {
        if untried.is_empty() {
            return Ok(());
        }
        transact!(self, Caller::Clerk, now, |tx| tx.return_deliveries(untried, at).await)
    }

    /// Notes how a delivery went.
    pub(in crate::hub) async fn delivered(
        &self,
        now: Epoch,
        one: &Delivery,
        error: Option<String>,
        next: Option<Epoch>,
    ) -> Result<(), Problem> {
        transact!(self, Caller::Clerk, now, |tx| tx.delivered(one.event.id, one.hook, error.clone(), next).await)
    }

    /// Forgets answers to requests of more than two days ago.
    pub(in crate::hub) async fn forget_answers(&self, now: Epoch) -> Result<u64, Problem> {
        transact!(self, Caller::Clerk, now, |tx| tx.forget_answers(now - 2 * 86_400).await)
    }
}

/// Whether all is known here that a booking's agent did until a moment, or there is no agent that was ever heard. Where the two
/// clocks differ widely nobody knows which of them is wrong, and by this one that moment may be yet to come.
async fn is_told(tx: &mut Tx, b: &Booking, until: Epoch) -> Result<bool, Problem> {
    let Some(server) = &b.server else { return Ok(true) };
    let (server, now) = (tx.server(server).await?, tx.now());
    let is_alike = server.clock_offset.abs() <= REFUSE_OFFSET;
    Ok(server.seen.is_none_or(|seen| is_alike && until <= seen && seen + TOLD <= now))
}

/// Whether an offer can be accepted right now: of a start of which a silent server may not hear in time none can.
async fn can_be_taken(tx: &mut Tx, offer: &Booking) -> Result<bool, Problem> {
    let Some(server) = &offer.server else { return Ok(true) };
    let now = tx.now();
    Ok(tx.server(server).await?.hears_in_time(now, offer.window.starts).is_ok())
}

/// What a booking becomes by the passing of time alone.
struct Due {
    next: Booking,
    action: &'static str,
    reason: &'static str,
}

impl Due {
    fn to(state: State, b: &Booking, action: &'static str, reason: &'static str) -> Self {
        Self { next: Booking { state, offer_until: None, ..b.clone() }, action, reason }
    }

    /// An offer goes back to the wait that it was, of which so many have lapsed by now.
    fn back_to_wait(b: &Booking, lapses: i64, action: &'static str, reason: &'static str) -> Self {
        let (state, server, busy_until) = (State::Waitlisted, b.wished.clone(), b.window.ends);
        let next = Booking { state, server, place: None, busy_until, offer_until: None, lapses, ..b.clone() };
        Self { next, action, reason }
    }
}

/// What has become of a booking by now; none where its time has not come.
async fn due(tx: &mut Tx, b: &Booking) -> Result<Option<Due>, Problem> {
    let now = tx.now();
    let begins = b.window.starts <= now;
    Ok(match b.state {
        State::Waitlisted if begins => {
            Some(Due::to(State::Cancelled, b, "clerk.wait-over", "nothing became free before its start"))
        }
        State::Offered if begins => {
            Some(Due::to(State::Cancelled, b, "clerk.offer-over", "the offer was not taken before its start"))
        }
        State::Offered => no_longer_offered(tx, b).await?,
        State::Booked | State::Delayed if b.window.ends <= now => never_began(tx, b).await?,
        State::Booked if begins => held_up(tx, b).await?,
        State::Active if b.came.is_none() => stayed_away(tx, b).await?,
        _ => None,
    })
}

/// An offer that nobody took, or that nobody can take, is none any more.
async fn no_longer_offered(tx: &mut Tx, b: &Booking) -> Result<Option<Due>, Problem> {
    if !can_be_taken(tx, b).await? {
        // It was no turn, and none of its minutes is lost: it is offered anew when the server is heard.
        let reason = "its server is silent, and nobody could take it";
        return Ok(Some(Due::back_to_wait(b, b.lapses, "clerk.take-back", reason)));
    }
    let is_over = b.offer_until.is_none_or(|until| until <= tx.now());
    Ok(is_over.then(|| Due::back_to_wait(b, b.lapses + 1, LAPSE, "the offer was not taken in time")))
}

/// A slot is over that nobody here saw begin.
async fn never_began(tx: &mut Tx, b: &Booking) -> Result<Option<Due>, Problem> {
    // While hub and agent did not hear of each other all of it may have taken place.
    if tx.now() < b.window.ends + AWAITED && !is_told(tx, b, b.window.ends).await? {
        return Ok(None);
    }
    let due = Due::to(State::Cancelled, b, "clerk.never-began", NEVER_BEGAN);
    let note = why_it_passed(tx, b).await?;
    Ok(Some(Due { next: Booking { note, ..due.next }, ..due }))
}

/// What the holder of a slot reads that nobody began; of one that somebody ended there is nothing to tell.
async fn why_it_passed(tx: &mut Tx, b: &Booking) -> Result<Option<String>, Problem> {
    let Some(server) = b.server.as_ref().filter(|_| b.ended_by.is_none()) else { return Ok(b.note.clone()) };
    if b.refused.is_some() {
        return Ok(b.refused.clone());
    }
    let unheard = format!("no agent of server {server} was ever heard, so it opened to nobody; it does not count");
    Ok(Some(if tx.server(server).await?.is_strange() { unheard } else { NEVER_BEGAN.to_owned() }))
}

/// A slot begins whose place is not clear yet.
async fn held_up(tx: &mut Tx, b: &Booking) -> Result<Option<Due>, Problem> {
    let Some(server) = &b.server else { return Ok(None) };
    let server = tx.server(server).await?;
    let is_held_up = match server.mode {
        Mode::Exclusive => server.occupant.is_some_and(|o| o != b.id),
        Mode::Shared => tx.is_held_up(b).await?,
    };
    let reason = "the server is still being cleared after the last slot";
    Ok(is_held_up.then(|| Due::to(State::Delayed, b, "clerk.delay", reason)))
}

/// A slot is open whose holder did not come in time.
async fn stayed_away(tx: &mut Tx, b: &Booking) -> Result<Option<Due>, Problem> {
    let (now, patience) = (tx.now(), i64::from(tx.course(&b.course).await?.policy.no_show) * 60);
    // Who got the server late has the same time to come.
    let late = b.window.starts.max(b.since) + patience;
    if now < late || now >= b.window.ends {
        return Ok(None);
    }
    // While hub and agent did not hear of each other somebody may have come, and be at work.
    if !is_told(tx, b, late).await? {
        return Ok(None);
    }
    Ok(Some(Due::to(State::NoShow, b, "clerk.no-show", "nobody logged in")))
}
