use axum::{extract::State, http::HeaderMap, response::Response};
use serde::{Deserialize, Serialize};

use super::{
    super::{Answer, ApiPath, AppState, Form, Session},
    Usage,
    slot::state_key,
    usage::{MONTH, per_group, per_person},
    visit::{Visit, go},
};
use crate::{
    core::{Code, Problem},
    hub::{
        domain::{Booking, Course, Epoch, Health, Person, PersonId, Server, ServerId, State as Stands, Window},
        store::Listing,
    },
};

/// The teacher's view.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Teacher {
    pub people: Vec<Usage>,
    pub groups: Vec<Usage>,
    pub no_shows: Vec<Missed>,
    pub servers: Vec<Machine>,
}

/// A slot whose holder never came.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Missed {
    pub id: String,
    pub person: String,
    pub server: String,
    pub when: String,
}

/// A server as a teacher sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Machine {
    pub id: String,
    pub size: String,
    /// `healthy`, `away` or `quarantined`.
    pub health: &'static str,
    /// The class of how that is written: it, or `warn`.
    pub badge: &'static str,
    pub health_text: String,
    pub note: Option<String>,
    /// When the agent was last heard; none is never, and then nothing is known of its clock.
    pub seen: Option<String>,
    /// Whether it was silent for more than two minutes.
    pub silent: bool,
    /// Its clock against the hub's, seconds.
    pub skew: i64,
    pub occupant: Option<String>,
    /// Who holds it now and how that stands; on a shared one several do.
    pub holders: Vec<(String, String)>,
}

/// `GET /teacher`.
pub(super) async fn show(
    State(state): State<AppState>,
    session: Option<Session>,
    headers: HeaderMap,
) -> Answer<Response> {
    let Some(session) = session else { return Ok(go("/sign-in")) };
    let visit = Visit::of(&state, &session, &headers, "/teacher").await?;
    let (desk, caller, now) = (&state.desk, &visit.caller, visit.now);
    let people = desk.people(caller, now).await?;
    let (groups, courses) = (desk.groups(caller, now).await?, desk.courses(caller, now).await?);
    // All that is ahead, too: a course may let people book a year ahead.
    let window = Window { starts: Epoch((now.0 - MONTH).max(0)), ends: Epoch::LAST };
    let bookings = desk.bookings(caller, now, &Listing { within: Some(window), ..Listing::default() }).await?;
    let servers = desk.servers(caller, now).await?;
    let policy = |id| courses.iter().find(|c| c.id == id).map(|c| c.policy.clone());
    // Hours of all courses count against the limit of each: in several the lowest is met first.
    let of_person = |p: &Person| {
        let is_theirs = |c: &&Course| groups.iter().any(|g| g.course == c.id && p.groups.contains(&g.id));
        courses.iter().filter(is_theirs).map(|c| c.policy.clone()).min_by_key(|policy| policy.person_hours)
    };
    let values = Teacher {
        people: per_person(&people, &bookings, of_person, now),
        groups: per_group(&groups, &bookings, |g| policy(g.course.clone()), now),
        no_shows: missed(&bookings, &visit),
        servers: servers.iter().map(|s| machine(s, &bookings, &visit)).collect(),
    };
    visit.page("teacher.html", &values)
}

/// The newest first.
fn missed(bookings: &[Booking], visit: &Visit) -> Vec<Missed> {
    let row = |b: &Booking| Missed {
        id: b.id.to_string(),
        person: b.person.to_string(),
        server: b.server.as_ref().map(ToString::to_string).unwrap_or_default(),
        when: visit.civil.span(b.window),
    };
    let mut found: Vec<&Booking> = bookings.iter().filter(|b| b.state == Stands::NoShow).collect();
    found.sort_by_key(|b| std::cmp::Reverse(b.window.starts));
    found.into_iter().take(50).map(row).collect()
}

pub(super) fn machine(server: &Server, bookings: &[Booking], visit: &Visit) -> Machine {
    let words = visit.words();
    let (badge, health) = match server.health {
        Health::Healthy if server.is_strange() => ("warn", "health_unenrolled"),
        Health::Healthy => (server.health.as_str(), "health_ok"),
        Health::Away => (server.health.as_str(), "health_out"),
        Health::Quarantined => (server.health.as_str(), "health_in_quarantine"),
    };
    let held = bookings
        .iter()
        .filter(|b| b.server.as_ref() == Some(&server.id) && b.state.is_live() && b.window.holds(visit.now));
    Machine {
        id: server.id.to_string(),
        size: format!("{} CPU, {} GiB", server.cores, server.memory.0 >> 30),
        health: server.health.as_str(),
        badge,
        health_text: words.get(health).to_owned(),
        // Why it is back in use is history.
        note: server.health_note.clone().filter(|_| server.health != Health::Healthy),
        seen: server.seen.map(|at| visit.civil.moment(at)),
        silent: server.is_silent(visit.now),
        skew: server.clock_offset,
        occupant: server.occupant.as_ref().map(ToString::to_string),
        holders: held.map(|b| (b.person.to_string(), words.get(state_key(b.state)).to_owned())).collect(),
    }
}

#[derive(Deserialize)]
pub(super) struct HealthForm {
    health: String,
    reason: String,
}

/// `POST /teacher/server/{id}`: takes a server out of use, or clears it.
pub(super) async fn server(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    Form(session, form): Form<HealthForm>,
) -> Answer<Response> {
    let id: ServerId = id.parse().map_err(|why: String| Problem::new(Code::HubUnknown, why))?;
    let health = match form.health.as_str() {
        "healthy" => Health::Healthy,
        "away" => Health::Away,
        _ => return Err(Problem::new(Code::HubInvalid, "a server can be healthy or away").into()),
    };
    state.desk.set_health(&session.caller, state.now(), None, &id, health, &form.reason).await?;
    Ok(go("/teacher#servers"))
}

#[derive(Deserialize)]
pub(super) struct LinkForm {
    person: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Link {
    person: String,
    link: String,
}

/// `POST /teacher/link`: makes a one-time sign-in link for somebody; it is shown once, in the page and not in its address.
pub(super) async fn link(
    State(state): State<AppState>,
    headers: HeaderMap,
    Form(session, form): Form<LinkForm>,
) -> Answer<Response> {
    let person: PersonId = form.person.trim().parse().map_err(|why: String| Problem::new(Code::HubInvalid, why))?;
    let visit = Visit::of(&state, &session, &headers, "/teacher").await?;
    let made = state.desk.make_link_with(&visit.caller, visit.now, &person, &session.token).await?;
    let site = super::sign_in::site_of(&state, &headers);
    let link = format!("{site}/sign-in#{}", made.text.expose());
    visit.page("link.html", &Link { person: person.to_string(), link })
}
