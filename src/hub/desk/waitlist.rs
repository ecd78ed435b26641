use super::{
    Caller, Desk,
    book::{fresh, on, standing_of},
    change::{Edit, load},
    fit::{candidates, fitting, servers},
    prefer::{Locks, preferred},
    rules,
    transaction::transact_once,
    wish::BookRequest,
};
use crate::{
    core::{Code, Problem},
    hub::{
        domain::{Booking, BookingId, Epoch, Maintenance, Policy, Server, State, Who},
        store::{Listing, Tx},
    },
    profile::Layout,
};

/// A wish to be asked when a slot becomes free.
pub type WaitRequest = BookRequest;

impl Desk {
    /// Joins the waitlist for a slot.
    ///
    /// One that can be had now is not waited for.
    pub async fn wait(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        wish: &WaitRequest,
    ) -> Result<Booking, Problem> {
        let wish = wish.stated()?;
        let wish: &WaitRequest = &wish;
        self.is_worth_a_wait(caller, now, key, wish).await?;
        transact_once!(self, caller, now, key, ("wait", wish), |tx| {
            let standing = standing_of(&mut tx, caller, wish).await?;
            let servers = servers(&mut tx, wish).await?;
            let candidates = preferred(candidates(servers, &standing, wish)?, &standing.labs);
            let policy = &standing.course.policy;
            let buffer = candidates.iter().map(|(server, _)| server.buffer).max().unwrap_or(0);
            let closed = tx.maintenance(wish.window.longer(buffer)).await?;
            let layout = awaited(&candidates, policy, &closed, now, wish)?;
            if wish.window.starts <= now {
                return Err(Problem::new(Code::BookNotice, format!("{} has begun", wish.window)));
            }
            // Locked, so that nobody waits for one that is being removed.
            if let Some(server) = &wish.server {
                tx.lock_server(server).await?;
            }
            let person = &standing.person.id;
            rules::lock(&mut tx, &standing).await?;
            let own =
                Listing { person: Some(person.clone()), within: Some(wish.window), open: true, ..Listing::default() };
            if let Some(there) = tx.bookings(&own).await?.iter().find(|b| b.window.overlaps(wish.window)) {
                let what = format!("booking {} is {} at {}", there.id, there.state, there.window);
                return Err(Problem::new(Code::BookOwn, what));
            }
            rules::not_too_many_waits(&mut tx, policy, person).await?;
            let mut new = fresh(&standing, layout, wish, now);
            new.state = State::Waitlisted;
            new.server = wish.server.clone();
            tx.add_booking(&new, "booking.wait", None).await?;
            Ok(new)
        })
    }

    /// Refuses a wish that can be had now, and one to which nothing is in the way but a rule of the person's: nobody has to
    /// give that time up. What was answered already under a key is not asked again.
    async fn is_worth_a_wait(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        wish: &WaitRequest,
    ) -> Result<(), Problem> {
        let Some(mut look) = self.look(caller, now, key, wish, wish.window.starts).await? else { return Ok(()) };
        match look.obstacle(wish).await {
            None => {
                let what = format!("{} is free now", wish.window);
                Err(Problem::new(Code::BookState, what)
                    .hint("Nobody needs to wait for it: kubecamp book new START --for LENGTH."))
            }
            Some(own) if matches!(own.code, Code::BookAhead | Code::BookQuota | Code::BookGroupQuota) => Err(own),
            Some(_) => Ok(()),
        }
    }

    /// Says yes to an offer from the waitlist; a second yes changes nothing.
    pub async fn accept(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        id: &BookingId,
    ) -> Result<Booking, Problem> {
        self.accept_as_seen(caller, now, key, id, &Edit::default()).await
    }

    /// As [`Desk::accept`], where the offer has the version of `edit`, if it names one.
    pub async fn accept_as_seen(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        id: &BookingId,
        edit: &Edit,
    ) -> Result<Booking, Problem> {
        transact_once!(self, caller, now, key, ("accept", id, edit.version), |tx| {
            // With its server locked: of two who say yes at once the second finds it booked.
            let offer = load(&mut tx, id, edit).await?;
            let who = caller.over(&offer, Some("accepted for the holder"))?;
            if offer.state == State::Booked {
                return Ok(offer);
            }
            // One that is delayed could become booked again too, by a move.
            if offer.state != State::Offered {
                let what = format!("booking {id} is {}: only what is offered can be accepted", offer.state);
                return Err(Problem::new(Code::BookState, what));
            }
            if offer.offer_until.is_some_and(|until| until <= now) {
                return Err(Problem::new(Code::BookState, format!("the offer of {id} lapsed")));
            }
            if let Some(server) = &offer.server {
                // It may have become silent since it was offered: its agent knows nothing of what is only offered.
                tx.server(server).await?.hears_in_time(now, offer.window.starts)?;
            }
            tx.lock_person(&offer.person).await?;
            // Who has left the course since they were asked gets nothing in it.
            let course = rules::standing(&mut tx, &offer.person, Some(&offer.course)).await?.course;
            can_accept(&mut tx, &course.policy, &offer).await?;
            let next = Booking { state: State::Booked, offer_until: None, ..offer.clone() };
            tx.change_booking(&offer, next, who, "booking.accept", None).await
        })
    }
}

/// The lab on the first server that may ever be free in a window. What is only taken or out of use may come free in time;
/// for hours that are off the raster, closed or in maintenance everywhere nobody would ever be asked. Whoever comes within the
/// notice is as late as who books; who waited by then may be asked within it.
fn awaited(
    candidates: &[(Server, Layout)],
    policy: &Policy,
    closed: &[Maintenance],
    now: Epoch,
    wish: &WaitRequest,
) -> Result<Layout, Problem> {
    let (window, as_override) = (wish.window, wish.reason.is_some());
    let mut why: Option<Problem> = None;
    for (server, layout) in candidates {
        let in_time = if as_override { policy.shape(server, now, window) } else { policy.allows(server, now, window) };
        let never = in_time.err().or_else(|| {
            let shut = server.is_planned(closed, window).err()?;
            Some(shut.hint("Wait only for hours in which a server is open: kubecamp book free shows some."))
        });
        match never {
            None => return Ok(*layout),
            // Of one that is on the raster it says more than of one that is not.
            Some(problem) if why.as_ref().is_none_or(|w| w.code == Code::BookGrid) => why = Some(problem),
            Some(_) => {}
        }
    }
    Err(why.unwrap_or_else(|| Problem::new(Code::Internal, "a wait without a server")))
}

/// The rules by which an offer is made and accepted. Locks the group's row.
async fn can_accept(tx: &mut Tx, policy: &Policy, offer: &Booking) -> Result<(), Problem> {
    let (now, own) = (tx.now(), Some(&offer.id));
    rules::not_twice(tx, &offer.person, offer.window, own).await?;
    rules::not_too_many(tx, policy, &offer.person, now, own, None).await?;
    rules::within_quota(tx, policy, &offer.person, offer.group.as_ref(), offer.window, own).await
}

/// Why somebody who waits would not be asked now, though the time became free; none where they would.
pub(super) async fn why_not_asked(tx: &mut Tx, waiting: &Booking) -> Result<Option<String>, Problem> {
    if had_their_turn(tx, waiting).await? {
        return Ok(Some("its offer lapsed, and it is offered again when somebody gives up that time".to_owned()));
    }
    let standing = match rules::standing(tx, &waiting.person, Some(&waiting.course)).await {
        Err(left) if left.code == Code::HubDenied => return Ok(Some(left.what)),
        standing => standing?,
    };
    match can_accept(tx, &standing.course.policy, waiting).await {
        Err(problem) if rules::is_rule(problem.code) => Ok(Some(problem.what)),
        asked => asked.map(|()| None),
    }
}

/// Makes an offer to somebody who waits, when a place is free; whether it did.
pub(in crate::hub) async fn offer(tx: &mut Tx, waiting: &Booking) -> Result<Option<Booking>, Problem> {
    let Some(next) = offer_for(tx, waiting).await? else { return Ok(None) };
    tx.change_booking(waiting, next, Who::Clerk, "booking.offer", None).await.map(Some)
}

/// Whether somebody who waits let an offer lapse, and nobody has given up anything of that time since: asked again and again
/// until the start they would keep from others, absent, what they do not want.
pub(super) async fn had_their_turn(tx: &mut Tx, waiting: &Booking) -> Result<bool, Problem> {
    if waiting.lapses == 0 {
        return Ok(false);
    }
    // Of what was given up beside it a buffer may have been in the way.
    let near = waiting.window.wider(tx.widest_buffer().await?);
    // Since then it may have been offered and taken back, as its server was silent: that was no turn.
    let lapsed = tx.last_lapse(&waiting.id).await?.unwrap_or(waiting.since);
    Ok(!tx.is_given_up_since(near, lapsed, waiting.wished.as_ref()).await?)
}

/// What somebody who waits would be offered, when a place is free.
///
/// It only looks; a transaction that writes has locked then what the answer depends on.
pub(super) async fn offer_for(tx: &mut Tx, waiting: &Booking) -> Result<Option<Booking>, Problem> {
    if had_their_turn(tx, waiting).await? {
        return Ok(None);
    }
    let now = tx.now();
    let standing = rules::standing(tx, &waiting.person, Some(&waiting.course)).await?;
    let policy = &standing.course.policy;
    let wish = BookRequest {
        person: None,
        course: None,
        server: waiting.wished.clone(),
        labels: waiting.labels.clone(),
        layout: Some(waiting.layout),
        window: waiting.window,
        reason: None,
    };
    let by_name = fitting(servers(tx, &wish).await?, &standing, &wish);
    let mut locks = Locks::new(&by_name);
    for (server, layout) in preferred(by_name, &standing.labs) {
        if !policy.grid.fits(&server.zone, wish.window) {
            continue;
        }
        let server = locks.take(tx, &server.id).await?;
        let ground = rules::ground(tx, server, wish.window).await?;
        let Ok(place) = on(now, &ground, wish.window, layout, false) else { continue };
        rules::lock(tx, &standing).await?;
        // What they could not accept would only keep the place from others.
        if !rules::holds(can_accept(tx, policy, waiting).await)? {
            return Ok(None);
        }
        let until = (now + i64::from(policy.offer) * 60).min(waiting.window.starts);
        return Ok(Some(Booking {
            state: State::Offered,
            busy_until: ground.server.busy(waiting.window).ends,
            server: Some(ground.server.id),
            place: Some(place),
            offer_until: Some(until),
            ..waiting.clone()
        }));
    }
    Ok(None)
}
