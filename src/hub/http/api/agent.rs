use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    core::{Code, Problem},
    hub::{
        desk::{Caller, Heartbeat as Beat, Report as Told, Step},
        domain::{BookingId, Epoch, Health, Person, PlanSlot, Role, ServerId, ServerPlan, State as Stage, Who},
        gate::{self, Accepted, Events, Heartbeat, HeartbeatAnswer, Reason, ReportKind, SignedPlan, SlotState, Wanted},
        http::{
            Answer, ApiJson, ApiPath, AppState, Refused, Session,
            certificate::{Certificate, certify, keys_of},
        },
    },
};

fn own_server(session: &Session) -> Answer<ServerId> {
    match &session.caller {
        Caller::Agent(server) => Ok(server.clone()),
        _ => Err(Problem::new(Code::HubDenied, "this is for the agents of servers").into()),
    }
}

/// Who an agent may look people up as: it needs the keys of those on its plan.
fn reader(id: &crate::hub::domain::PersonId) -> Caller {
    Caller::Person { id: id.clone(), role: Role::Student }
}

/// The public keys of the gate.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct PublicKeys {
    /// What servers trust for certificates, one OpenSSH line.
    user_ca: String,
    /// What agents check plans with, one OpenSSH line.
    plan_key: String,
}

/// The public keys that `kubecamp hub enroll` puts on a server.
#[utoipa::path(get, operation_id = "gate_keys", path = "/api/v1/gate", tag = "gate", responses(
    (status = 200, body = PublicKeys),
    Refused,
))]
pub(super) async fn keys(State(state): State<AppState>, _session: Session) -> Answer<Json<PublicKeys>> {
    let keys = keys_of(&state)?;
    Ok(Json(PublicKeys { user_ca: keys.ca.public_line()?, plan_key: keys.plan.public_line()? }))
}

/// The signed plan of the agent's server for the next 72 hours; its text is a `Plan` as JSON.
#[utoipa::path(get, operation_id = "agent_plan", path = "/api/v1/agent/plan", tag = "gate", responses(
    (status = 200, body = SignedPlan),
    Refused,
))]
pub(super) async fn plan(State(state): State<AppState>, session: Session) -> Answer<Json<SignedPlan>> {
    let (server, now) = (own_server(&session)?, state.now());
    let keys = keys_of(&state)?;
    let plan = state.desk.plan_for(&session.caller, now, &server).await?;
    let healthy = state.desk.server(&session.caller, now, &server).await?.health == Health::Healthy;
    let mut out = empty(&plan);
    for slot in &plan.slots {
        if slot.state == Stage::Quarantined && healthy {
            out.cleared.push(slot.booking.to_string());
        }
        let person = state.desk.person(&reader(&slot.person), now, &slot.person).await?;
        out.slots.push(signed_slot(slot, &person));
    }
    if healthy {
        out.cleared.extend(plan.unclean.iter().map(ToString::to_string));
    }
    Ok(Json(out.sign(&keys.plan)?))
}

/// The plan without its slots.
fn empty(plan: &ServerPlan) -> gate::Plan {
    let revision = plan.revision.cast_unsigned();
    let later = plan.later.iter().map(ToString::to_string).collect();
    gate::Plan { later, ..gate::Plan::new(plan.server.as_str(), revision, plan.issued.0, plan.expires.0) }
}

fn signed_slot(slot: &PlanSlot, person: &Person) -> gate::Slot {
    let (starts, ends) = (slot.window.starts.0, slot.window.ends.0);
    let wanted = match (slot.state, slot.ended_by) {
        (Stage::NoShow, _) => Wanted::NoShow,
        (Stage::Cancelled | Stage::Quarantined, _) => Wanted::Cancelled,
        (_, Some(Who::Holder)) => Wanted::Released,
        (_, Some(_)) => Wanted::Overridden,
        (_, None) => Wanted::Open,
    };
    let mut keys = person.keys.iter().cloned();
    gate::Slot {
        person: person.name.clone(),
        place: slot.place,
        busy_until: slot.busy_until.0,
        layout: Some(slot.layout.to_string()),
        wanted,
        key: keys.next(),
        more_keys: keys.collect(),
        why: slot.why.clone().filter(|_| wanted == Wanted::Overridden),
        ..gate::Slot::new(slot.booking.as_str(), slot.person.as_str(), starts, ends)
    }
}

/// [`Events`] whose reports are read one by one: one in the words of a newer agent keeps none of the others from being heard.
#[derive(Debug, Deserialize)]
pub(super) struct Sent {
    server: String,
    events: Vec<Value>,
}

/// A report's number, and the report where this hub knows its words.
type Numbered = (i64, Result<gate::Report, serde_json::Error>);

fn numbered(report: Value) -> Answer<Numbered> {
    let number = report.get("seq").and_then(Value::as_u64).ok_or_else(|| bad("a report has no number"))?;
    let number = i64::try_from(number).map_err(|_| bad("a report's number is too large"))?;
    Ok((number, serde_json::from_value(report)))
}

/// What an agent did, oldest first; each number is taken once. What this hub does not know is set aside.
#[utoipa::path(post, operation_id = "agent_events", path = "/api/v1/agent/events", tag = "gate", request_body = Events, responses(
    (status = 200, body = Accepted),
    Refused,
))]
pub(super) async fn events(
    State(state): State<AppState>,
    session: Session,
    ApiJson(sent): ApiJson<Sent>,
) -> Answer<Json<Accepted>> {
    let server = named(&session, &sent.server)?;
    let reports = sent.events.into_iter().map(numbered).collect::<Answer<Vec<Numbered>>>()?;
    let accepted = reports.iter().map(|(number, _)| number.unsigned_abs()).max().unwrap_or(0);
    // One after the other: a number counts as known as soon as a later one was taken.
    for (number, report) in reports {
        match report {
            Ok(report) => take(&state, &session.caller, &server, number, &report).await?,
            // Told again and again it would be no better known, and what comes after it waits.
            Err(error) => tracing::warn!(%server, number, %error, "a report that this hub does not know was set aside"),
        }
    }
    Ok(Json(Accepted { accepted }))
}

async fn take(state: &AppState, caller: &Caller, server: &ServerId, number: i64, report: &gate::Report) -> Answer<()> {
    let (desk, now) = (&state.desk, state.now());
    match &report.kind {
        ReportKind::Stray { account } => desk.stray(caller, now, server, number, account).await?,
        ReportKind::LabKept { account, lab, layout } => {
            desk.lab(caller, now, server, number, account, Some((lab.as_str(), layout.as_str()))).await?;
        }
        ReportKind::LabDropped { account } => desk.lab(caller, now, server, number, account, None).await?,
        _ => {}
    }
    // A time that cannot be must not keep back all that comes after it, either.
    let told = told(report, number).unwrap_or_else(|why| {
        tracing::warn!(%server, number, why, "a report was set aside");
        None
    });
    let Some(told) = told else { return Ok(()) };
    let answers = desk.report(caller, now, server, &[told]).await?;
    for why in answers.iter().filter_map(|a| a.why.as_ref()) {
        tracing::warn!(%server, number, why, "a report was set aside");
    }
    Ok(())
}

/// A report on a booking, as the desk takes it.
fn told(report: &gate::Report, number: i64) -> Result<Option<Told>, String> {
    let moment = Epoch::try_from(report.at)?;
    let (booking, account, step, note) = match &report.kind {
        ReportKind::State { booking, account, state, reason, detail } => {
            (booking, account.clone(), step_of(*state, *reason), detail.join("; "))
        }
        ReportKind::Seen { booking, account } => (booking, account.clone(), Step::LoggedIn, String::new()),
        ReportKind::Refused { booking, why } => (booking, None, Step::Refused, why.clone()),
        ReportKind::Missed { booking } => (booking, None, Step::Missed, String::new()),
        ReportKind::Stray { .. }
        | ReportKind::LabKept { .. }
        | ReportKind::LabDropped { .. }
        | ReportKind::Accepted { .. } => return Ok(None),
    };
    let Ok(booking) = booking.parse::<BookingId>() else { return Ok(None) };
    let note = Some(note.chars().take(2000).collect::<String>()).filter(|n| !n.is_empty());
    Ok(Some(Told { number, booking, account, step, moment, note }))
}

fn bad(why: &str) -> Refused {
    Problem::new(Code::HubInvalid, why).into()
}

fn named(session: &Session, server: &str) -> Answer<ServerId> {
    let own = own_server(session)?;
    if own.as_str() == server {
        Ok(own)
    } else {
        Err(Problem::new(Code::HubDenied, "this token is another server's").into())
    }
}

fn step_of(state: SlotState, reason: Option<Reason>) -> Step {
    match state {
        SlotState::Ending if reason == Some(Reason::NotOpened) => Step::NotOpened,
        SlotState::Ending if reason == Some(Reason::Cancelled) => Step::Withdrawn,
        SlotState::Arming => Step::Arming,
        SlotState::Active => Step::Active,
        SlotState::Ending => Step::Ending,
        SlotState::Saving => Step::Saving,
        SlotState::Resetting => Step::Resetting,
        SlotState::Done => Step::Done,
        SlotState::Quarantined => Step::Quarantined,
    }
}

/// That an agent lives, by which plan it works, and what its clock says. One that hangs counts as not heard.
#[utoipa::path(post, operation_id = "agent_heartbeat", path = "/api/v1/agent/heartbeat", tag = "gate", request_body = Heartbeat, responses(
    (status = 200, body = HeartbeatAnswer),
    Refused,
))]
pub(super) async fn heartbeat(
    State(state): State<AppState>,
    session: Session,
    ApiJson(beat): ApiJson<Heartbeat>,
) -> Answer<Json<HeartbeatAnswer>> {
    let (server, now) = (named(&session, &beat.server)?, state.now());
    let revision = i64::try_from(beat.revision).map_err(|_| bad("the revision is too large"))?;
    let clock = Epoch::try_from(beat.clock.div_euclid(1000)).map_err(|why| bad(&why))?;
    let came = |one: &gate::Came| Some((one.booking.parse::<BookingId>().ok()?, Epoch::try_from(one.at).ok()?));
    let came: Vec<_> = beat.came.iter().filter_map(came).collect();
    // Before the agent counts as heard: by then the hub knows who is at work.
    state.desk.came(&session.caller, now, &server, &came).await?;
    state.desk.plan_refused(&session.caller, now, &server, beat.refused.as_deref()).await?;
    if let Some(makes) = beat.makes_labs {
        state.desk.makes_labs(&session.caller, now, &server, makes).await?;
    }
    let beat = Beat { revision, clock, tick_age: beat.tick_age.map(|age| age / 1000) };
    let heard = state.desk.heartbeat(&session.caller, now, &server, &beat).await?;
    if let Some(warning) = &heard.warning {
        tracing::warn!(%server, warning, "agent");
    }
    Ok(Json(HeartbeatAnswer { clock: now.0 * 1000, revision: heard.revision.cast_unsigned() }))
}

/// The key that is to be certified.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WantCertificate {
    /// One public key as in a `.pub` file.
    key: String,
}

/// Certifies one's key for one's own slot.
#[utoipa::path(post, operation_id = "booking_certificate", path = "/api/v1/bookings/{id}/certificate", tag = "gate", params(("id" = BookingId, Path)),
    request_body = WantCertificate, responses(
    (status = 200, body = Certificate),
    Refused,
))]
pub(super) async fn certificate(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<BookingId>,
    ApiJson(want): ApiJson<WantCertificate>,
) -> Answer<Json<Certificate>> {
    Ok(Json(certify(&state, &session.caller, &id, &want.key).await?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::domain::{Window, Zone};

    #[test]
    fn what_the_gate_is_to_do_follows_from_where_a_booking_stands() {
        let slot = PlanSlot {
            booking: "b1".parse().unwrap(),
            person: "amy".parse().unwrap(),
            place: 0,
            layout: "2x4c8g".parse().unwrap(),
            window: Window { starts: Epoch(10), ends: Epoch(20) },
            busy_until: Epoch(30),
            state: Stage::Booked,
            ended_by: None,
            why: Some("fire drill".into()),
            version: 1,
        };
        let person = Person {
            id: slot.person.clone(),
            name: "Amy".into(),
            role: Role::Student,
            active: true,
            zone: Zone::utc(),
            keys: vec![],
            groups: vec![],
            version: 1,
        };
        for (state, ended_by, wanted) in [
            (Stage::Booked, None, Wanted::Open),
            (Stage::Active, None, Wanted::Open),
            (Stage::Arming, Some(Who::Holder), Wanted::Released),
            (Stage::Active, Some(Who::Teacher), Wanted::Overridden),
            (Stage::NoShow, None, Wanted::NoShow),
            (Stage::Quarantined, Some(Who::Holder), Wanted::Cancelled),
        ] {
            let slot = PlanSlot { state, ended_by, ..slot.clone() };
            let signed = signed_slot(&slot, &person);
            assert_eq!(signed.wanted, wanted, "{state} {ended_by:?}");
            assert_eq!(signed.why.is_some(), wanted == Wanted::Overridden, "{state} {ended_by:?}");
        }
        assert_eq!(signed_slot(&slot, &person).keys().count(), 0);
        let keys = ["first", "second", "third"].map(str::to_owned).to_vec();
        let signed = signed_slot(&slot, &Person { keys, ..person });
        assert_eq!(signed.keys().collect::<Vec<_>>(), ["first", "second", "third"]);
        assert_eq!(signed.key.as_deref(), Some("first"), "which is all that older agents read");
    }

    #[test]
    fn why_a_slot_ends_is_heard() {
        let ending = |reason| step_of(SlotState::Ending, reason);
        assert_eq!(ending(Some(Reason::Cancelled)), Step::Withdrawn);
        assert_eq!(ending(Some(Reason::NotOpened)), Step::NotOpened);
        assert_eq!((ending(Some(Reason::Over)), ending(None)), (Step::Ending, Step::Ending));
        assert_eq!(step_of(SlotState::Done, Some(Reason::Cancelled)), Step::Done);
    }

    #[test]
    fn the_account_of_a_later_booking_is_named() {
        let server = "one".parse().unwrap();
        let (issued, expires, later) = (Epoch(10), Epoch(20), ["amy".parse().unwrap()].into());
        let plan =
            ServerPlan { server, revision: 3, issued, expires, slots: vec![], later, unclean: Default::default() };
        assert_eq!((empty(&plan).revision, empty(&plan).later), (3, vec!["amy".to_owned()]));
    }
}
