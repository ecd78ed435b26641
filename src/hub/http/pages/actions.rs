use axum::{extract::State, http::HeaderMap, response::Response};
use serde::{Deserialize, Serialize};

use super::{
    super::{Answer, ApiPath, AppState, Form, Refused},
    Choices, WishForm,
    failure::Trouble,
    slot::beginning,
    visit::{Visit, go},
};
use crate::{
    core::{Class, Code, Problem},
    hub::{
        desk::{Edit, Refusal},
        domain::{BookingId, Epoch, Free, Window},
    },
};

/// A refused wish: why, what could be had instead, and the form again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct RefusedWish {
    pub trouble: Trouble,
    pub instead: Vec<Instead>,
    pub form: WishForm,
    pub choices: Choices,
    pub people: Vec<String>,
    /// Whether the waitlist helps.
    pub wait: bool,
}

/// A free slot as a button.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Instead {
    pub server: String,
    pub when: String,
    pub utc: String,
    pub starts: i64,
    pub ends: i64,
    /// With which lab it begins; none where no saved lab has to do with it.
    pub lab: Option<String>,
    pub once: String,
}

/// `POST /book`: books or joins the waitlist, then shows the week; or says why not, with three alternatives.
pub(super) async fn book(
    State(state): State<AppState>,
    headers: HeaderMap,
    Form(session, form): Form<WishForm>,
) -> Answer<Response> {
    let visit = Visit::of(&state, &session, &headers, "/").await?;
    let (desk, caller, now) = (&state.desk, &visit.caller, visit.now);
    let once = Some(form.once.as_str()).filter(|o| !o.is_empty());
    let outcome = match (form.request(&visit.civil), form.act.as_str()) {
        (Err(problem), _) => Err(Refusal::from(problem)),
        (Ok(wish), "wait") => desk.wait(caller, now, once, &wish).await.map_err(Refusal::from),
        // A form that names no button is one that was sent without any.
        (Ok(wish), "book" | "") => desk.book(caller, now, once, &wish).await,
        (Ok(_), _) => Err(Refusal::from(Problem::new(Code::HubInvalid, "a form can book or wait"))),
    };
    match outcome {
        Ok(booking) => Ok(go(&format!("/?from={}#slots", visit.civil.zone.date(booking.window.starts)))),
        Err(refusal) => refused(&state, &visit, form, refusal).await,
    }
}

async fn refused(state: &AppState, visit: &Visit, mut form: WishForm, refusal: Refusal) -> Answer<Response> {
    let code = refusal.problem.code;
    // Not a matter of the wish: the plain page says it.
    if matches!(code.class(), Class::Connect | Class::Internal) || code == Code::HubSignIn {
        return Err(refusal.into());
    }
    let courses = visit.courses(state).await?;
    let servers = state.desk.servers(&visit.caller, visit.now).await?;
    let people = if visit.frame.teacher { state.desk.people(&visit.caller, visit.now).await? } else { vec![] };
    // Moments of a drag go into the fields that are seen; a fresh key, since the refused one stands for that answer.
    if let Ok(wish) = form.request(&visit.civil) {
        form.start = visit.civil.field(wish.window.starts);
        form.end = visit.civil.field(wish.window.ends);
    }
    form.once = super::wish::once();
    let instead = refusal.alternatives.iter().map(|free| instead(free, visit)).collect();
    let wait = matches!(code, Code::BookConflict | Code::ServerSilent) && form.act != "wait";
    let status = Refused::from(refusal.problem.clone()).status();
    let values = RefusedWish {
        trouble: Trouble::new(&refusal.problem, status.as_u16(), &visit.civil),
        instead,
        choices: Choices::new(&servers, &courses, &form, &visit.civil),
        people: people.into_iter().filter(|p| p.active).map(|p| p.id.to_string()).collect(),
        wait,
        form,
    };
    visit.page_with(status, "refused.html", &values)
}

pub(super) fn instead(free: &Free, visit: &Visit) -> Instead {
    Instead {
        server: free.server.to_string(),
        when: visit.civil.span(free.window),
        utc: visit.civil.utc(free.window),
        starts: free.window.starts.0,
        ends: free.window.ends.0,
        lab: free.lab.as_ref().map(|begins| beginning(begins, visit.words())),
        once: super::wish::once(),
    }
}

/// What a booking's forms send.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ChangeForm {
    version: String,
    reason: String,
    server: String,
    starts: String,
    ends: String,
    to: String,
    once: String,
}

impl ChangeForm {
    fn end(&self) -> Result<Epoch, Problem> {
        moment(&self.ends)
    }

    /// The slot to which it is moved.
    fn target(&self) -> Result<Free, Problem> {
        let server = self.server.trim().parse().map_err(|why: String| Problem::new(Code::HubInvalid, why))?;
        let window = Window::new(moment(&self.starts)?, self.end()?);
        let window = window.map_err(|why| Problem::new(Code::BookWindow, why))?;
        Ok(Free { server, window, lab: None, limit: None })
    }
}

fn moment(seconds: &str) -> Result<Epoch, Problem> {
    let bad = |why: String| Problem::new(Code::BookWindow, why);
    let seconds = seconds.parse::<i64>().map_err(|_| bad("a moment is not a number of seconds".into()))?;
    Epoch::try_from(seconds).map_err(bad)
}

/// `POST /booking/{id}/{what}`: cancel, cancel-series, release, extend, give, accept or move.
pub(super) async fn change(
    State(state): State<AppState>,
    ApiPath((id, what)): ApiPath<(String, String)>,
    Form(session, form): Form<ChangeForm>,
) -> Answer<Response> {
    let (desk, caller, now) = (&state.desk, &session.caller, state.now());
    let id: BookingId = id.parse().map_err(|why: String| Problem::new(Code::HubUnknown, why))?;
    let reason = Some(form.reason.trim().to_owned()).filter(|r| !r.is_empty());
    let edit = Edit { version: form.version.parse().ok(), reason };
    let once = Some(form.once.as_str()).filter(|o| !o.is_empty());
    match what.as_str() {
        "cancel" => drop(desk.cancel(caller, now, once, &id, &edit).await?),
        "cancel-series" => drop(desk.cancel_series_of(caller, now, once, &id, &edit).await?),
        "release" => drop(desk.release(caller, now, once, &id, &edit).await?),
        "accept" => drop(desk.accept(caller, now, once, &id).await?),
        "extend" => drop(desk.extend(caller, now, once, &id, form.end()?, &edit).await?),
        "move" => drop(desk.move_to(caller, now, once, &id, &form.target()?, &edit).await?),
        "give" if form.to.trim().is_empty() => {
            return Err(Problem::new(Code::HubInvalid, "say to whom it is given").into());
        }
        "give" => {
            let to = form.to.trim().parse().map_err(|why: String| Problem::new(Code::HubInvalid, why))?;
            drop(desk.give(caller, now, once, &id, &to, &edit).await?);
        }
        _ => return Err(Problem::new(Code::HubUnknown, "a booking cannot do this").into()),
    }
    Ok(go(&format!("/booking/{id}")))
}
