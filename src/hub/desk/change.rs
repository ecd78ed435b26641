use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Caller, Desk, reason, rules, transaction::transact_once};
use crate::{
    core::{Code, Problem},
    hub::{
        domain::{Booking, BookingId, Epoch, PersonId, SeriesId, ServerId, State, UNHEARD, Who},
        gate::agent::MOST_POLL,
        store::Tx,
    },
};

// An agent that is well is never unheard, though its question and the way take their time too, seconds.
const _: () = assert!(MOST_POLL.cast_signed() + 5 <= UNHEARD);

/// What every change of a booking may say besides.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The version that the caller has seen; another one is refused as `KC-BOOK-STALE`.
    #[serde(default)]
    pub version: Option<i64>,
    /// Why, 1 to 500 characters; a teacher must say it when the booking is somebody else's.
    #[serde(default)]
    pub reason: Option<String>,
}

impl Edit {
    /// It with its reason as it is kept.
    pub(super) fn stated(&self) -> Result<Self, Problem> {
        Ok(Self { version: self.version, reason: reason::if_stated(self.reason.as_deref())? })
    }
}

/// A booking that is to be changed, with its server locked; refused where it left that one meanwhile.
pub(super) async fn load(tx: &mut Tx, id: &BookingId, edit: &Edit) -> Result<Booking, Problem> {
    let booking = tx.booking(id).await?;
    let fresh = match &booking.server {
        // What is over needs no lock, and its server may be gone.
        Some(server) if !booking.state.is_final() => {
            tx.lock_server(server).await?;
            let fresh = tx.booking(id).await?;
            // On its way to another one: what is locked here is not where it is now.
            if fresh.server != booking.server {
                return Err(Problem::new(Code::BookStale, format!("booking {id} was moved in between")));
            }
            fresh
        }
        _ => booking,
    };
    as_seen(&fresh, edit)?;
    Ok(fresh)
}

/// Refuses a change of a booking that is another one than the caller has seen.
fn as_seen(fresh: &Booking, edit: &Edit) -> Result<(), Problem> {
    if edit.version.is_some_and(|version| version != fresh.version) {
        let what = format!("booking {} has version {} now", fresh.id, fresh.version);
        return Err(Problem::new(Code::BookStale, what));
    }
    Ok(())
}

/// A recurrence by start, with its servers locked: nobody moves one of its bookings meanwhile.
async fn lock_series(tx: &mut Tx, id: &SeriesId) -> Result<Vec<Booking>, Problem> {
    // By name. What is over needs no lock, and its server may be gone.
    let open = tx.series(id).await?.into_iter().filter(|b| !b.state.is_final());
    let servers: BTreeSet<ServerId> = open.filter_map(|b| b.server).collect();
    for server in &servers {
        tx.lock_server(server).await?;
    }
    tx.series(id).await
}

/// Whether the caller has a say over a booking of a recurrence: what a student gave away is somebody else's now.
fn has_a_say(caller: &Caller, booking: &Booking) -> bool {
    caller.is_teacher() || caller.person() == Some(&booking.person)
}

/// What a holder reads beside a slot that was taken from them. Who gives one up themselves knows why: that stays in the audit.
fn for_holder(who: Who, edit: &Edit) -> Option<String> {
    edit.reason.clone().filter(|_| who != Who::Holder)
}

/// Gives up what of a recurrence has not begun; `all` is the recurrence, locked.
async fn give_up(
    tx: &mut Tx,
    caller: &Caller,
    id: &SeriesId,
    mut all: Vec<Booking>,
    edit: &Edit,
) -> Result<Vec<Booking>, Problem> {
    if all.is_empty() {
        return Err(Problem::new(Code::HubUnknown, format!("there is no recurrence {id}"))
            .hint("kubecamp book ls -o wide shows those that are ahead, as SERIES."));
    }
    all.retain(|b| has_a_say(caller, b));
    if all.is_empty() {
        return Err(Problem::new(Code::HubDenied, format!("nothing of recurrence {id} is yours")));
    }
    let mut gone = vec![];
    for before in all {
        let who = caller.over(&before, edit.reason.as_deref())?;
        if !before.state.is_ahead() || may_run_unheard(tx, &before).await? {
            continue;
        }
        let reason = edit.reason.clone();
        let note = for_holder(who, edit);
        let next = Booking { state: State::Cancelled, offer_until: None, note, ..before.clone() };
        gone.push(tx.change_booking(&before, next, who, "booking.cancel", reason).await?);
        tx.hold(&before, before.window.starts).await?;
    }
    if gone.is_empty() {
        return Err(Problem::new(Code::BookState, format!("nothing of recurrence {id} is ahead")));
    }
    Ok(gone)
}

/// Refuses to give away what a silent agent might open for who had it: that is whom its plan names.
async fn is_heard_in_time(tx: &mut Tx, before: &Booking) -> Result<(), Problem> {
    let Some(server) = &before.server else { return Ok(()) };
    let (server, now) = (tx.server(server).await?, tx.now());
    if server.hears_in_time_from(now).is_some_and(|first| before.window.starts < first) {
        let what = format!("the agent of server {} is silent, and would open it for {}", server.id, before.person);
        return Err(
            Problem::new(Code::ServerSilent, what).hint("Give it away once the server is heard again, or cancel it.")
        );
    }
    Ok(())
}

/// Whether a slot whose hour has come may take place, or have taken place, without the hub's having heard of it: its agent
/// was heard once, and not right now: an outage may have begun.
///
/// Cancelled it would count as nothing, whatever its agent tells later.
pub(super) async fn may_run_unheard(tx: &mut Tx, b: &Booking) -> Result<bool, Problem> {
    let now = tx.now();
    if !b.state.is_unbegun() || b.window.starts > now {
        return Ok(false);
    }
    let Some(server) = &b.server else { return Ok(false) };
    // One that was ended so stays until its agent has told, who may be heard before that.
    Ok(b.ended_by.is_some() || tx.server(server).await?.is_unheard(now))
}

/// A slot that is ended now, and from when on its place is free then; none of what waits, is over, or ends already.
///
/// One that may run unheard stays as it is until its agent tells what became of it, or has not begun it.
pub(super) fn ended(before: &Booking, now: Epoch, who: Who, unheard: bool) -> Option<(Booking, Epoch)> {
    let mut next = before.clone();
    match before.state {
        State::Offered | State::Booked | State::Delayed if !unheard => {
            next.state = State::Cancelled;
            Some((next, before.window.starts))
        }
        State::Booked | State::Delayed | State::Arming | State::Active
            if before.window.ends > now && before.ended_by.is_none() =>
        {
            // No window is empty; that a slot which has not begun never opens is what `ended_by` says.
            let ends = now.max(before.window.starts + 1);
            next.window.ends = ends;
            next.busy_until = ends + (before.busy_until - before.window.ends);
            next.charged = before.charged.min((now - before.window.starts).max(0));
            next.ended_by = Some(who);
            let from = next.busy_until;
            Some((next, from))
        }
        _ => None,
    }
}

impl Desk {
    /// Gives a slot up before it begins, or leaves the waitlist.
    ///
    /// One that may run on a server that is not heard ends now, and counts until then if its agent tells that it took
    /// place.
    pub async fn cancel(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        id: &BookingId,
        edit: &Edit,
    ) -> Result<Booking, Problem> {
        let edit = &edit.stated()?;
        transact_once!(self, caller, now, key, ("cancel", id, edit), |tx| {
            let before = load(&mut tx, id, edit).await?;
            let who = caller.over(&before, edit.reason.as_deref())?;
            if matches!(before.state, State::Arming | State::Active) {
                let what = format!("booking {id} is {}", before.state);
                return Err(Problem::new(Code::BookState, what)
                    .hint(format!("End what has begun: kubecamp book release {id}.")));
            }
            let (next, from) = if may_run_unheard(&mut tx, &before).await? {
                ended(&before, now, who, true)
                    .ok_or_else(|| Problem::new(Code::BookState, format!("booking {id} is {}", before.state)))?
            } else {
                (Booking { state: State::Cancelled, offer_until: None, ..before.clone() }, before.window.starts)
            };
            let next = Booking { note: for_holder(who, edit), ..next };
            let after = tx.change_booking(&before, next, who, "booking.cancel", edit.reason.clone()).await?;
            if before.state.is_live() && from < before.busy_until {
                tx.hold(&before, from).await?;
            }
            Ok(after)
        })
    }

    /// Gives up all of a recurrence that has not begun; what has stays as it is.
    pub async fn cancel_series(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        id: &SeriesId,
        edit: &Edit,
    ) -> Result<Vec<Booking>, Problem> {
        if edit.version.is_some() {
            return Err(Problem::new(Code::HubInvalid, "a recurrence has no version; each of its bookings has one"));
        }
        let edit = &edit.stated()?;
        transact_once!(self, caller, now, key, ("cancel-series", id, edit), |tx| {
            let all = lock_series(&mut tx, id).await?;
            give_up(&mut tx, caller, id, all, edit).await
        })
    }

    /// As [`Desk::cancel_series`], for the recurrence that a booking belongs to; the version of `edit` is the booking's.
    pub async fn cancel_series_of(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        id: &BookingId,
        edit: &Edit,
    ) -> Result<Vec<Booking>, Problem> {
        let alone = || {
            Problem::new(Code::BookState, format!("booking {id} belongs to no recurrence"))
                .hint("Cancel the booking itself.")
        };
        let edit = &edit.stated()?;
        transact_once!(self, caller, now, key, ("cancel-series-of", id, edit), |tx| {
            let series = tx.booking(id).await?.series.ok_or_else(alone)?;
            let all = lock_series(&mut tx, &series).await?;
            let seen = tx.booking(id).await?;
            as_seen(&seen, edit)?;
            if seen.series.as_ref() != Some(&series) {
                return Err(alone());
            }
            give_up(&mut tx, caller, &series, all, edit).await
        })
    }

    /// What of a recurrence has not begun and can be given up by the caller, by start.
    pub async fn series_ahead(&self, caller: &Caller, now: Epoch, id: &SeriesId) -> Result<Vec<Booking>, Problem> {
        let mut all = self.store.read(now).await?.series(id).await?;
        all.retain(|b| has_a_say(caller, b) && b.state.is_ahead());
        Ok(all)
    }

    /// Ends a running slot now; what was not used does not count.
    ///
    /// One that is armed does not open, and before that it is a cancel.
    pub async fn release(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        id: &BookingId,
        edit: &Edit,
    ) -> Result<Booking, Problem> {
        let edit = &edit.stated()?;
        transact_once!(self, caller, now, key, ("release", id, edit), |tx| {
            let before = load(&mut tx, id, edit).await?;
            let who = caller.over(&before, edit.reason.as_deref())?;
            let unheard = may_run_unheard(&mut tx, &before).await?;
            let Some((next, from)) = ended(&before, now, who, unheard) else {
                return Err(Problem::new(Code::BookState, format!("booking {id} is {}", before.state)));
            };
            let next = Booking { note: for_holder(who, edit), ..next };
            let after = tx.change_booking(&before, next, who, "booking.release", edit.reason.clone()).await?;
            if from < before.busy_until {
                tx.hold(&before, from).await?;
            }
            Ok(after)
        })
    }

    /// Gives a booked slot to somebody of the same course, by whose rules it must be allowed.
    pub async fn give(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        id: &BookingId,
        to: &PersonId,
        edit: &Edit,
    ) -> Result<Booking, Problem> {
        let edit = &edit.stated()?;
        transact_once!(self, caller, now, key, ("give", id, to, edit), |tx| {
            let before = load(&mut tx, id, edit).await?;
            let who = caller.over(&before, edit.reason.as_deref())?;
            // Its server begins it some minutes early; by the clock it has begun also where its server is late.
            let due = before.state.is_unbegun() && before.window.starts <= now;
            if due || before.state.is_begun() {
                let what = format!("booking {id} has begun and can no longer be given away");
                return Err(Problem::new(Code::BookState, what));
            }
            if before.state != State::Booked {
                return Err(Problem::new(
                    Code::BookState,
                    format!("booking {id} is {} and starts {}", before.state, before.window.starts),
                ));
            }
            if *to == before.person {
                return Err(Problem::new(Code::HubInvalid, format!("booking {id} is {to}'s already"))
                    .hint("Name another login: --to LOGIN."));
            }
            is_heard_in_time(&mut tx, &before).await?;
            let standing = rules::standing(&mut tx, to, Some(&before.course)).await?;
            let policy = &standing.course.policy;
            // Both rows, in one order, so that two gifts in opposite directions do not wait for each other.
            tx.lock_people(&[&before.person, to]).await?;
            rules::still_is(&mut tx, &standing).await?;
            rules::not_twice(&mut tx, to, before.window, None).await?;
            rules::not_too_many(&mut tx, policy, to, now, None, None).await?;
            // The group has it already when both are in one, so the booking itself is left out of the sum.
            rules::within_quota(&mut tx, policy, to, standing.group.as_ref(), before.window, Some(id)).await?;
            // What was told to who had it is theirs: a note may be a teacher's on them, and a refusal of their account. Its
            // agent tells anew what keeps it from who has it now.
            let gift = Booking { note: None, refused: None, stranded: None, ..before.clone() };
            let next = Booking { person: to.clone(), group: standing.group, series: None, ..gift };
            tx.change_booking(&before, next, who, "booking.give", edit.reason.clone()).await
        })
    }
}
