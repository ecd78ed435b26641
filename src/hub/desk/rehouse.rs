use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{
    Caller, Desk, book,
    change::{Edit, load},
    prefer::{Locks, preferred},
    rules,
    transaction::{transact, transact_once},
    waitlist,
};
use crate::{
    core::{Code, Problem},
    hub::{
        domain::{
            Ask, Booking, BookingId, Epoch, Free, Maintenance, Server, ServerId, State, Who, Window, alternatives,
            around,
        },
        store::Tx,
    },
    profile::Layout,
};

/// A booking whose server is out of use is moved to another one when it starts within this, seconds: the server may be
/// back by then, and has its holder's saved lab. What lies in a maintenance is moved at once.
const AHEAD: i64 = 24 * 3600;

/// A note that would be longer than so many bytes says only why the booking was moved last.
const LONGEST_NOTE: usize = 400;

/// Why a booking cannot take place where it is, and what is free instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Elsewhere {
    /// Why not; none when nothing is known against it.
    pub why: Option<String>,
    /// Up to three free slots nearest to it, to which it can be moved.
    pub alternatives: Vec<Free>,
}

/// Whether a booking can still begin.
pub(super) fn is_ahead(b: &Booking, now: Epoch) -> bool {
    b.state.is_unbegun() && b.window.ends > now
}

/// Why a server does not take a booking that has not begun: it is out of use or in maintenance then, or its agent
/// refused.
fn why_not(server: &Server, closed: &[Maintenance], b: &Booking, now: Epoch) -> Option<String> {
    if !is_ahead(b, now) {
        return None;
    }
    match server.takes(closed, b.window) {
        // Opening hours count when it is booked: they may be others by now, or a teacher went past them.
        Err(problem) if problem.code != Code::BookClosed => Some(problem.what),
        _ => b.refused.clone(),
    }
}

async fn why_stuck(tx: &mut Tx, b: &Booking) -> Result<Option<String>, Problem> {
    // The server of what is over may be gone.
    let Some(id) = b.server.as_ref().filter(|_| is_ahead(b, tx.now())) else { return Ok(None) };
    let server = tx.server(id).await?;
    let closed = tx.maintenance(b.busy()).await?;
    Ok(why_not(&server, &closed, b, tx.now()))
}

/// Whether a lab of this booking can ever run on a server.
pub(super) fn suits(server: &Server, b: &Booking) -> bool {
    server.is_for(&b.course) && server.can_hold(b.layout) && b.labels.is_subset(&server.labels)
}

/// The booking at another place.
fn moved(b: &Booking, server: &Server, place: u32, window: Window) -> Booking {
    Booking {
        state: State::Booked,
        server: Some(server.id.clone()),
        place: Some(place),
        window,
        busy_until: server.busy(window).ends,
        charged: b.charged.min(window.length()),
        refused: None,
        stranded: None,
        moves: b.moves + 1,
        ..b.clone()
    }
}

/// What a booking's holder reads beside it after a move: what a teacher said before stays, as long as it is short.
///
/// Before the first move that is why they booked it, and it comes after why it was moved: nobody shall take it for that.
pub(super) fn noted(b: &Booking, reason: Option<&str>) -> Option<String> {
    match (&b.note, reason) {
        (Some(before), Some(reason)) if before.len() + reason.len() < LONGEST_NOTE => {
            Some(if b.moves > 0 { format!("{before}; {reason}") } else { format!("{reason}; {before}") })
        }
        (_, Some(reason)) => Some(reason.to_owned()),
        (before, None) => before.clone(),
    }
}

impl Desk {
    /// Bookings about which something can be done now, by start and then by who booked first: their server does not take them, and there is another or
    /// their holder was not told yet; or it takes them again, and their holder believes that it does not.
    ///
    /// Only those near a window, where one is given.
    pub(in crate::hub) async fn stuck(&self, now: Epoch, near: Option<Window>) -> Result<Vec<Booking>, Problem> {
        let mut tx = self.store.read(now).await?;
        let mut all = tx.doubtful().await?;
        all.retain(|b| near.is_none_or(|near| b.busy().overlaps(near)));
        if all.is_empty() {
            return Ok(all);
        }
        let servers: BTreeMap<ServerId, Server> = tx.servers().await?.into_iter().map(|s| (s.id.clone(), s)).collect();
        let closed = tx.maintenance(Window { starts: now, ends: Epoch::LAST }).await?;
        all.retain(|b| {
            let Some(server) = b.server.as_ref().and_then(|id| servers.get(id)) else { return false };
            let Some(why) = why_not(server, &closed, b, now) else { return is_relieved(b, now) };
            // What an agent refuses before the start may be mended until then.
            if b.refused.as_ref() == Some(&why) {
                return b.window.starts <= now;
            }
            // Work that was announced takes place: whom it concerns hears of it early, and is looked at once more when it
            // is near.
            let work = server.is_planned(&closed, b.window).is_err_and(|why| why.code == Code::BookMaintenance);
            let announced = work && untold(b);
            announced || b.window.starts < now + AHEAD
        });
        let mut found = vec![];
        for b in all {
            let due = match why_stuck(&mut tx, &b).await? {
                None => is_relieved(&b, now),
                Some(why) => untold(&b) || refuge(&mut tx, &b, &why).await?.is_some(),
            };
            if due {
                found.push(b);
            }
        }
        Ok(found)
    }

    /// Moves a booking off a server that does not take it to another one that is free; whether it did.
    ///
    /// Where there is none its holder is told so, and told otherwise where its server takes it again.
    pub(in crate::hub) async fn rehouse(&self, now: Epoch, id: &BookingId) -> Result<bool, Problem> {
        let outcome = transact!(self, Caller::Clerk, now, |tx| rehouse(&mut tx, id).await);
        match outcome {
            Err(problem) if matches!(problem.code, Code::BookStale | Code::BookConflict | Code::BookState) => Ok(false),
            outcome => outcome,
        }
    }

    /// Why a booking cannot take place where it is, if so, and where it could; of one that waits, why its holder would not be
    /// asked now.
    pub async fn elsewhere(&self, caller: &Caller, now: Epoch, id: &BookingId) -> Result<Elsewhere, Problem> {
        self.elsewhere_near(caller, now, id, None).await
    }

    /// As [`Desk::elsewhere`], with what is free nearest to another start than its own.
    pub async fn elsewhere_near(
        &self,
        caller: &Caller,
        now: Epoch,
        id: &BookingId,
        starts: Option<Epoch>,
    ) -> Result<Elsewhere, Problem> {
        let mut tx = self.store.read(now).await?;
        let booking = tx.booking(id).await?;
        caller.needs_self(&booking.person)?;
        if booking.state == State::Waitlisted {
            let why = waitlist::why_not_asked(&mut tx, &booking).await?;
            return Ok(Elsewhere { why, alternatives: vec![] });
        }
        let why = why_stuck(&mut tx, &booking).await?;
        let near = starts.unwrap_or(booking.window.starts);
        let alternatives = if why.is_some() { instead(&mut tx, &booking, near).await? } else { vec![] };
        Ok(Elsewhere { why, alternatives })
    }

    /// Moves a booking that its server does not take to a slot that can be had, no longer than before.
    ///
    /// Its hours are not counted anew: that it cannot take place is not its holder's doing.
    pub async fn move_to(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        id: &BookingId,
        to: &Free,
        edit: &Edit,
    ) -> Result<Booking, Problem> {
        let edit = &edit.stated()?;
        transact_once!(self, caller, now, key, ("move", id, to, edit), |tx| {
            // Both servers, in the order of their names.
            let seen = tx.booking(id).await?;
            let there = seen.server.filter(|_| !seen.state.is_final());
            let both: BTreeSet<ServerId> = there.into_iter().chain([to.server.clone()]).collect();
            for server in &both {
                tx.lock_server(server).await?;
            }
            let before = load(&mut tx, id, edit).await?;
            let who = caller.over(&before, edit.reason.as_deref())?;
            if why_stuck(&mut tx, &before).await?.is_none() {
                let what = format!("booking {id} is {}, and nothing is known against its server", before.state);
                return Err(Problem::new(Code::BookState, what).hint("Cancel it and book another slot."));
            }
            if to.window.length() > before.window.length() {
                let what = format!("{} is longer than {}", to.window, before.window);
                return Err(Problem::new(Code::BookWindow, what));
            }
            let place = free_place(&mut tx, &before, to).await?;
            tx.lock_person(&before.person).await?;
            rules::not_twice(&mut tx, &before.person, to.window, Some(id)).await?;
            let next = moved(&before, &tx.server(&to.server).await?, place, to.window);
            let next = Booking { note: noted(&before, edit.reason.as_deref()), ..next };
            let after = tx.change_booking(&before, next, who, "booking.move", edit.reason.clone()).await?;
            tx.hold(&before, before.window.starts).await?;
            Ok(after)
        })
    }
}

/// The place that a booking gets in another slot, by the rules of time and of the server.
async fn free_place(tx: &mut Tx, b: &Booking, to: &Free) -> Result<u32, Problem> {
    let server = tx.server(&to.server).await?;
    if !suits(&server, b) {
        let what = format!("server {} is not for {} of course {} with its labels", server.id, b.layout, b.course);
        return Err(Problem::new(Code::BookLayout, what));
    }
    rules::standing(tx, &b.person, Some(&b.course)).await?.course.policy.allows(&server, tx.now(), to.window)?;
    let mut ground = rules::ground(tx, server, to.window).await?;
    ground.held.remove(&b.id);
    book::on(tx.now(), &ground, to.window, b.layout, false)
}

/// Up to three free slots for a booking nearest to a start, at which its holder has no other.
async fn instead(tx: &mut Tx, b: &Booking, near: Epoch) -> Result<Vec<Free>, Problem> {
    let now = tx.now();
    let policy = tx.course(&b.course).await?.policy;
    let wanted = Window { starts: near, ends: near + b.window.length() };
    let Some(wide) = around(&policy, now, wanted, i64::from(policy.horizon)) else { return Ok(vec![]) };
    let mut grounds = vec![];
    for server in tx.servers().await? {
        if suits(&server, b) {
            grounds.push(rules::ground(tx, server, wide).await?);
        }
    }
    let others = tx.windows_of(&b.person, wide, Some(&b.id)).await?;
    let labs = tx.labs_of(&b.person).await?;
    let ask = Ask { layout: b.layout, length: b.window.length(), within: wide, labs: &labs, apart: &others };
    Ok(alternatives(&grounds, &policy, now, near, ask, 3))
}

/// Whether its holder was told that no server takes it, and can use it yet.
fn is_relieved(b: &Booking, now: Epoch) -> bool {
    is_ahead(b, now) && b.stranded.is_some()
}

/// Whether its holder was not told yet that no server takes it.
fn untold(b: &Booking) -> bool {
    b.stranded != Some(b.window.starts)
}

/// Another server that is free for a booking that its own does not take, and the place there. It only looks; a
/// transaction that writes has locked that server then.
async fn refuge(tx: &mut Tx, b: &Booking, why: &str) -> Result<Option<(Server, u32)>, Problem> {
    // What an agent refused may be the holder's own matter, which goes along: it is tried on one other server only.
    if b.moves > 0 && b.refused.as_deref() == Some(why) {
        return Ok(None);
    }
    let is_own = |server: &Server| Some(&server.id) == b.server.as_ref();
    let by_name = tx.servers().await?.into_iter().filter(|s| is_own(s) || suits(s, b));
    let mut all: Vec<(Server, Layout)> = by_name.map(|server| (server, b.layout)).collect();
    // Its own is locked in its turn: whoever leaves it changes it too.
    let mut locks = Locks::new(&all);
    all.retain(|(server, _)| !is_own(server));
    let labs = tx.labs_of(&b.person).await?;
    for (server, _) in preferred(all, &labs) {
        let server = locks.take(tx, &server.id).await?;
        let ground = rules::ground(tx, server, b.window).await?;
        if let Ok(place) = book::on(tx.now(), &ground, b.window, b.layout, false) {
            return Ok(Some((ground.server, place)));
        }
    }
    Ok(None)
}

async fn rehouse(tx: &mut Tx, id: &BookingId) -> Result<bool, Problem> {
    let b = tx.booking(id).await?;
    let Some(old) = b.server.clone() else { return Ok(false) };
    let Some(why) = why_stuck(tx, &b).await? else { return relieve(tx, id, &old).await.map(|()| false) };
    if let Some((server, place)) = refuge(tx, &b, &why).await? {
        let reason = format!("{why}; moved to {}", server.id);
        let next = Booking { note: noted(&b, Some(&reason)), ..moved(&b, &server, place, b.window) };
        let after = tx.change_booking(&b, next, Who::Clerk, "clerk.move", Some(reason.clone())).await?;
        tx.hold(&b, b.window.starts).await?;
        let payload = json!({ "booking": after, "from": old, "note": reason });
        tx.tell("booking.moved", format!("booking:{id}"), Some(&b.person), Some(&server.id), payload);
        return Ok(true);
    }
    if untold(&b) {
        let next = Booking { stranded: Some(b.window.starts), ..b.clone() };
        let after = tx.change_booking(&b, next, Who::Clerk, "clerk.strand", Some(why.clone())).await?;
        strand(tx, &after, Some(why)).await?;
    }
    Ok(false)
}

/// Takes back that a booking will not be had, when its server takes it again.
async fn relieve(tx: &mut Tx, id: &BookingId, server: &ServerId) -> Result<(), Problem> {
    tx.lock_server(server).await?;
    let b = tx.booking(id).await?;
    if b.server.as_ref() != Some(server) || !is_relieved(&b, tx.now()) || why_stuck(tx, &b).await?.is_some() {
        return Ok(());
    }
    let next = Booking { stranded: None, ..b.clone() };
    tx.change_booking(&b, next, Who::Clerk, "clerk.relieve", Some("its server takes it again".into())).await.map(drop)
}

/// Tells a holder that the slot will not be had, and what is free instead.
pub(super) async fn strand(tx: &mut Tx, b: &Booking, why: Option<String>) -> Result<(), Problem> {
    let alternatives = instead(tx, b, b.window.starts).await?;
    let payload = json!({ "booking": b, "note": why, "alternatives": alternatives });
    tx.tell("booking.stranded", format!("booking:{}", b.id), Some(&b.person), b.server.as_ref(), payload);
    Ok(())
}
