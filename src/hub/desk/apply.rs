use serde_json::json;

use super::{
    agent::{QUARANTINED_SINCE, REFUSE_OFFSET, Report, Reported, Step, Taken},
    rehouse,
};
use crate::{
    core::{Code, Problem},
    hub::{
        domain::{Booking, Epoch, Health, Mode, NEVER_BEGAN, Server, State, Who},
        store::Tx,
    },
};

/// What becomes of a report.
enum Outcome {
    /// It changed the booking.
    Applied,
    /// It was known already.
    Known,
    /// It does not fit the booking, for this reason.
    SetAside(String),
}

/// Whose the booking is that a report is about.
enum Subject {
    /// The server's, and still of whom the report is about.
    Own(Box<Booking>),
    /// Another server's, or somebody else's by now: why the report is set aside.
    Foreign(String),
}

/// Makes of a booking what its server's agent did with it.
pub(super) async fn apply(tx: &mut Tx, server: &Server, report: &Report) -> Result<Reported, Problem> {
    let (taken, why) = match outcome(tx, server, report).await? {
        Outcome::Applied => (Taken::Applied, None),
        Outcome::Known => (Taken::Known, None),
        Outcome::SetAside(why) => {
            let detail = json!({ "server": server.id, "step": report.step, "number": report.number });
            tx.note("agent.set-aside", format!("booking:{}", report.booking), Some(why.clone()), detail);
            (Taken::SetAside, Some(why))
        }
    };
    Ok(Reported { number: report.number, taken, why })
}

async fn outcome(tx: &mut Tx, server: &Server, report: &Report) -> Result<Outcome, Problem> {
    if report.step == Step::Done {
        proven(tx, server, report).await?;
    }
    let booking = match booking_of(tx, server, report).await? {
        Subject::Own(booking) => *booking,
        Subject::Foreign(why) => return Ok(Outcome::SetAside(why)),
    };
    if report.step == Step::Done {
        tx.vacate(&server.id, &booking.id).await?;
    }
    match (report.step, report.step.state()) {
        (Step::Missed, _) if booking.state.is_begun() => lost(tx, server, &booking).await,
        (Step::Withdrawn, _) if is_back(&booking) => came_back(tx, server, &booking, report).await,
        (Step::Quarantined, _) => quarantined(tx, server, report, booking).await,
        (_, Some(to)) => moved_on(tx, server, report, booking, to).await,
        (_, None) => told(tx, report, &booking).await,
    }
}

/// The booking that a report is about. A place that could not be proven clean is noted, whosever booking it is.
async fn booking_of(tx: &mut Tx, server: &Server, report: &Report) -> Result<Subject, Problem> {
    let booking = match tx.booking(&report.booking).await {
        Ok(booking) if booking.server.as_ref() == Some(&server.id) => booking,
        Err(problem) if problem.code != Code::HubUnknown => return Err(problem),
        _ => {
            if report.step == Step::Quarantined {
                unclean(tx, server, report).await?;
            }
            return Ok(Subject::Foreign(format!("booking {} is not of server {}", report.booking, server.id)));
        }
    };
    // What the server did for who gave it away, before it heard of that, is nothing of who has it now: for them it begins
    // anew. A place that cannot be proven clean is nobody's, though.
    let former = report.account.as_deref().filter(|of| *of != booking.person.as_str());
    Ok(match former.filter(|_| report.step != Step::Quarantined) {
        Some(former) => Subject::Foreign(format!("booking {} is not of {former:.64} any more", booking.id)),
        None => Subject::Own(Box::new(booking)),
    })
}

/// Moves a booking on to the state that its agent brought it to.
async fn moved_on(
    tx: &mut Tx,
    server: &Server,
    report: &Report,
    booking: Booking,
    to: State,
) -> Result<Outcome, Problem> {
    if booking.state == to || booking.state.is_after(to) {
        return Ok(Outcome::Known);
    }
    // A door is open whose arming was not taken note of here: it is open all the same, whatever was thought of that.
    let is_unarmed = to == State::Active && booking.state.is_unbegun();
    let refused = match is_unarmed {
        true => occupy(tx, server, &booking).await?,
        false => admit(tx, server, &booking, to).await?,
    };
    if let Some(why) = refused {
        return Ok(Outcome::SetAside(why));
    }
    let booking = if is_unarmed {
        let armed = tx.change_booking(&booking, armed(&booking, report), Who::Agent, "agent.arming", None).await?;
        tx.happened(report.moment);
        armed
    } else {
        booking
    };
    let next = stepped(&booking, report, to);
    let after = tx.change_booking(&booking, next, Who::Agent, &format!("agent.{to}"), report.note.clone()).await?;
    tx.happened(report.moment);
    if (booking.state, to) == (State::Saving, State::Resetting) {
        tx.lab_saved(&server.id, &booking.person).await?;
    }
    if report.step == Step::NotOpened || (booking.state.is_unbegun() && to == State::Quarantined) {
        rehouse::strand(tx, &after, report.note.clone()).await?;
    }
    Ok(Outcome::Applied)
}

/// Lets a booking come to a state, from its arming on as its server's occupant, or says why it cannot.
async fn admit(tx: &mut Tx, server: &Server, booking: &Booking, to: State) -> Result<Option<String>, Problem> {
    if !booking.state.may_become_by(to, Who::Agent) {
        return Ok(Some(format!("booking {} is {} and cannot become {to}", booking.id, booking.state)));
    }
    if to == State::Arming { occupy_to_arm(tx, server, booking).await } else { Ok(None) }
}

/// A booking after a step of its agent.
fn stepped(booking: &Booking, report: &Report, to: State) -> Booking {
    let mut next = match to {
        State::Arming => armed(booking, report),
        _ => Booking { state: to, refused: None, ..booking.clone() },
    };
    match (booking.state, to) {
        // What never opened does not count, whoever's doing it was.
        (State::Arming, State::Ending) => next.charged = 0,
        (State::Active, State::Ending) => cut_short(&mut next, report.moment),
        _ => {}
    }
    if report.note.is_some() {
        next.note.clone_from(&report.note);
    }
    next
}

/// A booking as its agent begins it.
fn armed(booking: &Booking, report: &Report) -> Booking {
    let from = match booking.state {
        State::Delayed => booking.window.starts,
        // Of a step of the raster that ran already the time before counts, as its holder knew.
        _ => booking.window.starts.max(booking.created),
    };
    // What was lost to the last holder's reset is not the new holder's, whether the clerk saw it or not. By the agent's clock:
    // the hub may hear of it later.
    let lost = (report.moment - from).max(0);
    let charged = booking.charged.min((booking.window.length() - lost).max(0));
    Booking { state: State::Arming, refused: None, charged, ..booking.clone() }
}

/// Takes off a slot what its server did not give: it ended before its time, and neither its holder nor anybody here had asked
/// for that. So it is where an agent did not hear in time that it lasts longer.
fn cut_short(next: &mut Booking, moment: Epoch) {
    // The two clocks may differ by so much.
    if next.ended_by.is_some() || moment + REFUSE_OFFSET >= next.window.ends {
        return;
    }
    let ends = moment.max(next.window.starts + 1);
    let lost = next.window.ends - ends;
    next.window.ends = ends;
    next.busy_until = next.busy_until - lost;
    next.charged = (next.charged - lost).max(0);
}

/// Whether a slot whose arming was ended by a plan is its holder's again.
fn is_back(booking: &Booking) -> bool {
    booking.state == State::Arming && booking.ended_by.is_none()
}

/// Has a slot begin anew whose arming the agent ended by a plan in which it was somebody else's, or missing. The hub had not
/// heard of the arming then, and by now the slot is theirs again for whom it was armed: the agent sees that in its next plan.
/// As if the hub had never heard of that arming, it occupies nothing: it may be given up, given away or moved before its agent
/// tells that the place is clear, and the agent itself begins nothing there before.
async fn came_back(tx: &mut Tx, server: &Server, booking: &Booking, report: &Report) -> Result<Outcome, Problem> {
    let next = Booking { state: State::Booked, ..booking.clone() };
    let why = "it was taken from its holder while it was armed, and is theirs again: it begins anew".to_owned();
    tx.vacate(&server.id, &booking.id).await?;
    tx.change_booking(booking, next, Who::Agent, "agent.withdrawn", Some(why)).await?;
    tx.happened(report.moment);
    Ok(Outcome::Applied)
}

/// Notes what an agent tells of a booking without moving it on in its life.
async fn told(tx: &mut Tx, report: &Report, booking: &Booking) -> Result<Outcome, Problem> {
    let unbegun = booking.state.is_unbegun();
    let (mut next, why) = (booking.clone(), report.note.clone());
    match report.step {
        Step::LoggedIn if booking.came.is_none() && !booking.state.is_final() => {
            next.came = Some(report.moment);
            tx.change_booking(booking, next, Who::Agent, "booking.logged-in", None).await?;
        }
        Step::Refused if (unbegun || booking.state == State::Arming) && booking.refused != why => {
            next.refused.clone_from(&why);
            let after = tx.change_booking(booking, next, Who::Agent, "agent.refused", why.clone()).await?;
            let (subject, payload) = (format!("booking:{}", after.id), json!({ "booking": after, "note": why }));
            tx.tell("booking.refused", subject, Some(&after.person), after.server.as_ref(), payload);
        }
        // By the clerk's right, who would say so a moment later. Not of a slot that was made longer meanwhile.
        Step::Missed if unbegun && booking.window.ends <= tx.now() + REFUSE_OFFSET => {
            next.state = State::Cancelled;
            let reason = NEVER_BEGAN.to_owned();
            if next.ended_by.is_none() {
                next.note = booking.refused.clone().or_else(|| Some(reason.clone()));
            }
            tx.change_booking(booking, next, Who::Clerk, "agent.missed", Some(reason)).await?;
        }
        _ => return Ok(Outcome::Known),
    }
    Ok(Outcome::Applied)
}

/// Makes a booking that is to be armed the server's occupant, or says why it cannot be.
async fn occupy_to_arm(tx: &mut Tx, server: &Server, booking: &Booking) -> Result<Option<String>, Problem> {
    if server.health != Health::Healthy {
        return Ok(Some(format!("server {} is {}", server.id, server.health.as_str())));
    }
    if server.clock_offset.abs() > REFUSE_OFFSET {
        let what = format!("the clock of server {} is {} s off", server.id, server.clock_offset);
        return Ok(Some(Problem::new(Code::ServerClock, what).to_string()));
    }
    occupy(tx, server, booking).await
}

/// Makes the booking the server's occupant, or says who is.
async fn occupy(tx: &mut Tx, server: &Server, booking: &Booking) -> Result<Option<String>, Problem> {
    if server.mode != Mode::Exclusive || tx.occupy(&server.id, &booking.id).await? {
        return Ok(None);
    }
    // An agent begins nothing on a place that it has not cleared. Of a no-show it may know nothing any more, as after a
    // reinstallation, and then nobody would ever tell that its place is clear.
    if let Some(former) = &server.occupant
        && tx.booking(former).await?.state == State::NoShow
    {
        tx.clear_occupant(&server.id).await?;
        tx.occupy(&server.id, &booking.id).await?;
        return Ok(None);
    }
    let who = server.occupant.as_ref().map_or_else(String::new, ToString::to_string);
    Ok(Some(format!("server {} is still occupied by {who}", server.id)))
}

/// Ends a slot that the agent had begun and knows nothing of any more: its journal is gone, as after a reinstallation. What
/// became of the place nobody can prove.
async fn lost(tx: &mut Tx, server: &Server, booking: &Booking) -> Result<Outcome, Problem> {
    let why = format!("its agent knows nothing of booking {} any more, as after a reinstallation", booking.id);
    close(tx, server, why.clone()).await?;
    let next = Booking { state: State::Quarantined, refused: None, note: Some(why.clone()), ..booking.clone() };
    tx.change_booking(booking, next, Who::Agent, "agent.quarantined", Some(why)).await?;
    Ok(Outcome::Applied)
}

/// Takes note of a place that could not be proven clean, whatever its booking has become here.
async fn quarantined(tx: &mut Tx, server: &Server, report: &Report, booking: Booking) -> Result<Outcome, Problem> {
    if booking.state.is_final() && booking.state != State::Quarantined {
        unclean(tx, server, report).await?;
    } else {
        quarantine(tx, server, report).await?;
    }
    moved_on(tx, server, report, booking, State::Quarantined).await
}

async fn quarantine(tx: &mut Tx, server: &Server, report: &Report) -> Result<(), Problem> {
    let note = report.note.clone().unwrap_or_else(|| format!("after booking {}", report.booking));
    close(tx, server, note).await
}

/// Quarantines the server, unless it is already: the first reason stays.
async fn close(tx: &mut Tx, server: &Server, note: String) -> Result<(), Problem> {
    if server.health != Health::Quarantined {
        tx.set_health(&server.id, Health::Quarantined, Some(note)).await?;
    }
    Ok(())
}

/// As [`quarantine`], after a booking that is over here or elsewhere by now: it stands in no plan of the server, so that an
/// admin looked after it is told by its id alone.
async fn unclean(tx: &mut Tx, server: &Server, report: &Report) -> Result<(), Problem> {
    quarantine(tx, server, report).await?;
    tx.note_unclean(&server.id, &report.booking, report.note.clone());
    Ok(())
}

/// Notes that a place which was [`unclean`] is proven clean by now: its agent has heard that an admin looked after it, whoever
/// has the booking today.
async fn proven(tx: &mut Tx, server: &Server, report: &Report) -> Result<(), Problem> {
    let since = tx.now() - QUARANTINED_SINCE;
    if tx.unclean(&server.id, since).await?.contains(&report.booking) {
        tx.note_clean(&server.id, &report.booking);
    }
    Ok(())
}
