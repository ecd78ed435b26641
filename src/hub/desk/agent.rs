use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{Caller, Desk, apply::apply, transaction::transact};
use crate::{
    core::{Code, Problem},
    hub::{
        domain::{
            Booking, BookingId, Epoch, HANGS, Health, PersonId, PlanSlot, SavedLab, Server, ServerId, ServerPlan,
            State, WARN_OFFSET, Window,
        },
        store::{Listing, Tx},
    },
    profile::Layout,
};

/// With clocks that differ by more than this nothing is armed, seconds.
pub(super) const REFUSE_OFFSET: i64 = 30;
/// A report's number is at most so far beyond the last one: what comes after a number counts only where it is larger, so
/// one that no agent ever reaches would silence its server for good. An agent that goes on after it was enrolled again is
/// as far beyond 0 as it ever came: half a million for each year, and a thousand more for each of its starts.
const MOST_SKIPPED: i64 = 1 << 40;
/// No agent's word lifts its server's revision beyond this: there must be numbers left to go on with, and it is as far as
/// those who read our JSON count.
const MOST_REVISION: i64 = 1 << 53;
/// For so long a quarantined booking stands in its server's plan, seconds: an admin may be on holiday.
pub(super) const QUARANTINED_SINCE: i64 = 90 * 86_400;

/// What an agent tells from time to time.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Heartbeat {
    /// The revision of the plan that it carries out.
    pub revision: i64,
    /// Its clock, when it sent this.
    pub clock: Epoch,
    /// How long before that it was last through with what was due, seconds; none where it does not tell.
    #[serde(default)]
    pub tick_age: Option<i64>,
}

/// What the hub answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Heard {
    /// The newest revision; the agent fetches it when it has an older one.
    pub revision: i64,
    /// The agent's clock minus the hub's, seconds.
    pub clock_offset: i64,
    /// Whether it may arm; not with a clock that is 30 s off, nor in quarantine, nor while it hangs.
    pub may_arm: bool,
    /// What an admin should see.
    pub warning: Option<String>,
}

/// What an agent did; the numbers grow, with gaps, so that a repeated report changes nothing.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// Its number, from 1.
    pub number: i64,
    /// On which booking.
    pub booking: BookingId,
    /// For whose account, where that is told: a booking that is given away may be begun for who had it.
    #[serde(default)]
    pub account: Option<String>,
    /// What.
    pub step: Step,
    /// When, by the agent's clock.
    pub moment: Epoch,
    /// Evidence, where something failed.
    #[serde(default)]
    pub note: Option<String>,
}

/// A step of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// It begins to bring the lab up.
    Arming,
    /// The gate is open.
    Active,
    /// The holder logged in for the first time.
    LoggedIn,
    /// It does not begin, for the reason of the note; the agent tries again until the end.
    Refused,
    /// Its time passed without its being begun, or it was ended early; the agent knows nothing else of it.
    Missed,
    /// The gate is closed; what runs is being ended.
    Ending,
    /// As `Ending`, since a plan took it from its holder.
    Withdrawn,
    /// It could not be opened, for the reason of the note: it ends as any other slot, and does not count.
    NotOpened,
    /// Proven zero; the lab is being saved.
    Saving,
    /// Saved; the server is being made clean.
    Resetting,
    /// Proven clean. Also after a no-show or a cancelled slot that it had armed.
    Done,
    /// Something could not be proven.
    Quarantined,
}

impl Step {
    pub(super) const fn state(self) -> Option<State> {
        Some(match self {
            Self::Arming => State::Arming,
            Self::Active => State::Active,
            Self::Ending | Self::Withdrawn | Self::NotOpened => State::Ending,
            Self::Saving => State::Saving,
            Self::Resetting => State::Resetting,
            Self::Done => State::Done,
            Self::Quarantined => State::Quarantined,
            Self::LoggedIn | Self::Refused | Self::Missed => return None,
        })
    }
}

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reported {
    /// The report's number.
    pub number: i64,
    /// What became of it.
    pub taken: Taken,
    /// Why it was set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Taken {
    /// It changed the booking.
    Applied,
    /// It was known already.
    Known,
    /// It does not fit the booking; noted in the audit, nothing else.
    SetAside,
}

pub(super) fn own(caller: &Caller, server: &ServerId) -> Result<(), Problem> {
    match caller {
        Caller::Agent(id) if id == server => Ok(()),
        Caller::Console => Ok(()),
        _ => Err(Problem::new(Code::HubDenied, format!("only the agent of server {server} may do this"))),
    }
}

impl Desk {
    /// The slots of a server for the next 72 hours, with its revision: what the gate signs and the agent carries out.
    ///
    /// A server that is not healthy opens for nobody new, and none for whom has no account any more; what has begun there
    /// comes to its end. Quarantined bookings are over for the hub but not for the agent, which has to hear that an admin
    /// looked after them. Whose booking is not in it yet is told by name, so that the agent keeps their labs.
    pub async fn plan_for(&self, caller: &Caller, now: Epoch, server: &ServerId) -> Result<ServerPlan, Problem> {
        own(caller, server)?;
        transact!(self, caller, now, |tx| {
            let row = tx.lock_server(server).await?;
            let within = Window { starts: now - 7 * 86_400, ends: now + ServerPlan::REACH };
            let want = Listing { server: Some(server.clone()), within: Some(within), open: true, ..Listing::default() };
            let mut all = tx.bookings(&want).await?;
            let mut later = tx.holders_from(server, within.ends).await?;
            let closed: BTreeSet<BookingId> = tx.of_closed().await?.into_iter().map(|b| b.id).collect();
            let is_shut = |b: &Booking| row.health != Health::Healthy || closed.contains(&b.id);
            let unlet = |b: &Booking| b.state.is_unbegun() && is_shut(b);
            later.extend(all.iter().filter(|b| unlet(b)).map(|b| b.person.clone()));
            all.retain(|b| !unlet(b));
            let within = Window { starts: now - QUARANTINED_SINCE, ..within };
            let state = Some(State::Quarantined);
            let stuck = Listing { server: Some(server.clone()), within: Some(within), state, ..Listing::default() };
            all.extend(tx.bookings(&stuck).await?);
            all.sort_by(|a, b| (a.window.starts, &a.id).cmp(&(b.window.starts, &b.id)));
            let slots = all.into_iter().filter_map(slot).collect();
            tx.issued(server, row.revision).await?;
            Ok(ServerPlan {
                server: server.clone(),
                revision: row.revision,
                issued: now,
                expires: now + ServerPlan::REACH,
                slots,
                later,
                unclean: tx.unclean(server, now - QUARANTINED_SINCE).await?,
            })
        })
    }

    /// Notes that an agent is alive, which plan it carries out and how far its clock is off.
    ///
    /// One that hangs counts as not heard: nobody opens or shuts doors there, and what became of its slots it does not
    /// tell.
    pub async fn heartbeat(
        &self,
        caller: &Caller,
        now: Epoch,
        server: &ServerId,
        beat: &Heartbeat,
    ) -> Result<Heard, Problem> {
        own(caller, server)?;
        transact!(self, caller, now, |tx| {
            let before = tx.lock_server(server).await?;
            let revision = go_on_above(&mut tx, &before, beat.revision).await?;
            let offset = beat.clock - now;
            let hangs = beat.tick_age.filter(|age| *age > HANGS);
            let seen = if hangs.is_some() { before.seen } else { Some(now) };
            tx.heard(server, seen, beat.revision, offset).await?;
            if (offset.abs() > WARN_OFFSET) != (before.clock_offset.abs() > WARN_OFFSET) {
                tx.note("server.clock", format!("server:{server}"), None, json!({ "offset": offset }));
                tx.tell("server.clock", format!("server:{server}"), None, Some(server), json!({ "offset": offset }));
            }
            Ok(Heard {
                revision,
                clock_offset: offset,
                may_arm: offset.abs() <= REFUSE_OFFSET && before.health == Health::Healthy && hangs.is_none(),
                warning: match hangs {
                    Some(age) => Some(format!("the agent of server {server} hangs: it did nothing for {age} s")),
                    None => {
                        (offset.abs() > WARN_OFFSET).then(|| format!("the clock of server {server} is {offset} s off"))
                    }
                },
            })
        })
    }

    /// Notes why an agent does not take the plan that it was given last, or that it does again; once for each change.
    ///
    /// Nothing else tells it where a plan was only signed anew, as the revision is the same.
    pub async fn plan_refused(
        &self,
        caller: &Caller,
        now: Epoch,
        server: &ServerId,
        why: Option<&str>,
    ) -> Result<(), Problem> {
        own(caller, server)?;
        let why: Option<String> = why.map(|why| why.chars().take(500).collect());
        if self.store.read(now).await?.plan_refused(server).await? == why {
            return Ok(());
        }
        transact!(self, caller, now, |tx| {
            tx.lock_server(server).await?;
            tx.note_plan(server, why.clone());
            Ok(())
        })
    }

    /// Notes whether an agent makes labs: else slots on its server are logins, and are called so.
    pub async fn makes_labs(&self, caller: &Caller, now: Epoch, server: &ServerId, makes: bool) -> Result<(), Problem> {
        own(caller, server)?;
        if self.store.read(now).await?.server(server).await?.makes_labs == Some(makes) {
            return Ok(());
        }
        transact!(self, caller, now, |tx| {
            tx.lock_server(server).await?;
            tx.note_makes_labs(server, makes).await
        })
    }

    /// Applies what an agent did, in order.
    ///
    /// Safe to repeat: what is known changes nothing.
    pub async fn report(
        &self,
        caller: &Caller,
        now: Epoch,
        server: &ServerId,
        reports: &[Report],
    ) -> Result<Vec<Reported>, Problem> {
        own(caller, server)?;
        let mut answers = vec![];
        for report in reports {
            let answer = transact!(self, caller, now, |tx| {
                let row = tx.lock_server(server).await?;
                if !is_new(&mut tx, server, report.number).await? {
                    return Ok(Reported { number: report.number, taken: Taken::Known, why: None });
                }
                let answer = apply(&mut tx, &row, report).await?;
                tx.set_reported(server, report.number).await?;
                Ok(answer)
            })?;
            answers.push(answer);
        }
        Ok(answers)
    }
}

impl Desk {
    /// Notes that processes of an account were ended outside of its slots: for teachers, and once for each number.
    pub async fn stray(
        &self,
        caller: &Caller,
        now: Epoch,
        server: &ServerId,
        number: i64,
        account: &str,
    ) -> Result<(), Problem> {
        own(caller, server)?;
        let account: String = account.chars().take(64).collect();
        transact!(self, caller, now, |tx| {
            tx.lock_server(server).await?;
            if !is_new(&mut tx, server, number).await? {
                return Ok(());
            }
            let (subject, detail) = (format!("server:{server}"), json!({ "account": account }));
            tx.note("agent.stray", subject.clone(), None, detail.clone());
            tx.tell("server.stray", subject, None, Some(server), detail);
            tx.set_reported(server, number).await
        })
    }

    /// Notes which lab, by name and layout, a server keeps for an account between its slots, or that it keeps none any
    /// more; once for each number.
    pub async fn lab(
        &self,
        caller: &Caller,
        now: Epoch,
        server: &ServerId,
        number: i64,
        account: &str,
        kept: Option<(&str, &str)>,
    ) -> Result<(), Problem> {
        own(caller, server)?;
        // A layout that this hub cannot read is one that it sells nothing of.
        let kept = kept.and_then(|(name, layout)| Some((name, layout.parse::<Layout>().ok()?)));
        transact!(self, caller, now, |tx| {
            tx.lock_server(server).await?;
            if !is_new(&mut tx, server, number).await? {
                return Ok(());
            }
            match (person_of(&mut tx, account).await?, kept) {
                (None, _) => {}
                (Some(person), None) => {
                    tx.drop_lab(server, &person).await?;
                }
                (Some(person), Some((name, layout))) => {
                    let lab = SavedLab {
                        server: server.clone(),
                        name: name.chars().take(64).collect(),
                        person,
                        layout,
                        since: now,
                    };
                    // An agent tells all of them whenever it begins: a lab is no newer by being told once more.
                    let told = |known: &SavedLab| SavedLab { since: now, ..known.clone() } == lab;
                    if !tx.labs_of(&lab.person).await?.iter().any(told) {
                        tx.keep_lab(&lab).await?;
                    }
                }
            }
            tx.set_reported(server, number).await
        })
    }
}

/// The revision that a server's plan has by now. Its agent takes none that is older than the one it carries out; where the
/// hub never gave it that one, an older copy of the database was put back, and the plans go on above it.
async fn go_on_above(tx: &mut Tx, server: &Server, carried_out: i64) -> Result<i64, Problem> {
    if carried_out <= server.issued || carried_out < server.revision {
        return Ok(server.revision);
    }
    if carried_out > MOST_REVISION {
        let what =
            format!("the agent of server {} carries out revision {carried_out}, which no hub ever gave", server.id);
        return Err(Problem::new(Code::HubInvalid, what)
            .hint("Move the agent's state away, /var/lib/kubecamp-gate/state there, and enroll the server again."));
    }
    tx.lift_revision(server, carried_out).await
}

/// Whether a report of this number was not applied yet.
async fn is_new(tx: &mut Tx, server: &ServerId, number: i64) -> Result<bool, Problem> {
    let last = tx.reported(server).await?;
    if number > last.saturating_add(MOST_SKIPPED) {
        let what = format!("the report of server {server} has number {number}, and the last one was {last}");
        return Err(Problem::new(Code::HubInvalid, what)
            .hint("Number reports one after the other; enroll the server again where its journal is damaged."));
    }
    Ok(number > last)
}

/// Whose an account is; none where nobody of that name is known here.
async fn person_of(tx: &mut Tx, account: &str) -> Result<Option<PersonId>, Problem> {
    let Ok(id) = account.parse::<PersonId>() else { return Ok(None) };
    Ok(tx.find_person(&id).await?.map(|person| person.id))
}

fn slot(booking: Booking) -> Option<PlanSlot> {
    if matches!(booking.state, State::Waitlisted | State::Offered) {
        return None;
    }
    let why = booking.note.clone().filter(|_| booking.is_cut_short());
    Some(PlanSlot {
        booking: booking.id,
        person: booking.person,
        place: booking.place?,
        layout: booking.layout,
        window: booking.window,
        busy_until: booking.busy_until,
        state: booking.state,
        ended_by: booking.ended_by,
        why,
        version: booking.version,
    })
}
