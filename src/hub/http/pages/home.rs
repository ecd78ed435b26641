use axum::{
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::{
    super::{Answer, ApiPath, ApiQuery, AppState, Session},
    Choices, Eyes, Look, Slot, WeekView, WishForm, Words,
    actions::{Instead, instead},
    entry::Entry,
    refusals::translated,
    visit::{Visit, go},
    window_of,
};
use crate::{
    core::{Code, Problem},
    hub::{
        desk::Week,
        domain::{Booking, Course, Epoch, Policy, SavedLab, Server, State as Stands, Window},
        store::Listing,
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct At {
    from: Option<String>,
    server: Option<String>,
    at: Option<String>,
}

/// The first page: own slots, the form, the week.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Home {
    pub slots: Vec<Slot>,
    /// Own slots that are gone, though their holder did not give them up.
    pub lost: Vec<Slot>,
    pub form: WishForm,
    pub choices: Choices,
    pub week: WeekView,
    /// Others who wait: who, where, when.
    pub waiting: Vec<Waiting>,
    /// Logins that a teacher can book for.
    pub people: Vec<String>,
}

/// Somebody on the waitlist.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Waiting {
    pub person: String,
    pub server: Option<String>,
    pub when: String,
    pub own: bool,
}

/// `GET /`.
pub(super) async fn show(
    State(state): State<AppState>,
    session: Option<Session>,
    headers: HeaderMap,
    here: Uri,
    ApiQuery(at): ApiQuery<At>,
) -> Answer<Response> {
    let Some(session) = session else { return Ok(go("/sign-in")) };
    let here = here.path_and_query().map_or("/", |p| p.as_str());
    let visit = Visit::of(&state, &session, &headers, here).await?;
    let courses = visit.courses(&state).await?;
    let monday =
        at.from.as_deref().and_then(|text| text.parse::<Date>().ok()).filter(|d| (1971..2999).contains(&d.year()));
    let (_, window) = window_of(&visit.civil, monday.unwrap_or_else(|| visit.civil.zone.date(visit.now)));
    let week = state.desk.week(&visit.caller, visit.now, window).await?;
    let own = Own::of(&state, &visit).await?;
    let people = if visit.frame.teacher { state.desk.people(&visit.caller, visit.now).await? } else { vec![] };
    let people = people.into_iter().filter(|p| p.active).map(|p| p.id.to_string()).collect();
    let start = at.at.as_deref().and_then(|t| t.parse::<i64>().ok()).and_then(|t| Epoch::try_from(t).ok());
    let mut servers = week.servers.iter().map(|s| &s.server);
    let server = at.server.as_deref().and_then(|id| servers.find(|s| s.id.as_str() == id));
    let course = course_for(server, start, &courses, &visit);
    let policy = course.or(courses.first()).map(|c| c.policy.clone()).unwrap_or_default();
    let mut form = WishForm::fresh(&visit.civil, &policy, visit.now, start, server.map(|s| s.id.to_string()));
    form.course = course.map(|c| c.id.to_string()).unwrap_or_default();
    visit.page("home.html", &fill(&week, own, form, people, &courses, &visit)?)
}

/// The course that a fresh form names: the server's own, else the viewer's first on whose raster the start lies. A
/// teacher's names none where there are several, since it may be for somebody of any.
fn course_for<'a>(
    server: Option<&Server>,
    start: Option<Epoch>,
    courses: &'a [Course],
    visit: &Visit,
) -> Option<&'a Course> {
    let only = courses.iter().find(|c| server.is_some_and(|s| s.course.as_ref() == Some(&c.id)));
    let has_start = |c: &&Course| server.zip(start).is_none_or(|(s, at)| c.policy.grid.has(&s.zone, at));
    let first = courses.iter().find(has_start).or(courses.first());
    only.or(first.filter(|_| !visit.frame.teacher || courses.len() == 1))
}

fn fill(
    week: &Week,
    own: Own,
    form: WishForm,
    people: Vec<String>,
    courses: &[Course],
    visit: &Visit,
) -> Result<Home, Problem> {
    let policy = &courses.first().map(|c| c.policy.clone()).unwrap_or_default();
    let look = Look { caller: &visit.caller, now: visit.now, civil: &visit.civil, labs: &own.labs };
    let server = |b: &Booking| week.servers.iter().map(|s| &s.server).find(|s| Some(&s.id) == b.server.as_ref());
    let servers: Vec<Server> = week.servers.iter().map(|s| s.server.clone()).collect();
    let waiting = |b: &Booking| Waiting {
        person: b.person.to_string(),
        server: b.wished.as_ref().map(ToString::to_string),
        when: visit.civil.span(b.window),
        own: visit.caller.person() == Some(&b.person),
    };
    let slots = |all: &[Booking]| all.iter().map(|b| Slot::new(b, server(b), policy, &look)).collect::<Vec<_>>();
    Ok(Home {
        slots: slots(&own.bookings),
        lost: slots(&own.lost),
        choices: Choices::new(&servers, courses, &form, &visit.civil),
        form,
        week: WeekView::new(week, &eyes(visit, policy, courses))?,
        waiting: week.waiting.iter().map(waiting).collect(),
        people,
    })
}

/// How a visit looks at a week.
pub(super) fn eyes<'a>(visit: &'a Visit, policy: &Policy, courses: &'a [Course]) -> Eyes<'a> {
    let teacher = visit.caller.is_teacher();
    // A teacher who says why goes past it.
    let notice = if teacher { 0 } else { policy.notice };
    Eyes {
        clock: &visit.civil,
        now: visit.now,
        own: visit.caller.person(),
        teacher,
        grid: policy.grid,
        courses,
        earliest: Policy { notice, ..policy.clone() }.earliest(visit.now),
        horizon: policy.latest(visit.now),
    }
}

/// What is one's own.
#[derive(Default)]
struct Own {
    /// Bookings that are not over, by start.
    bookings: Vec<Booking>,
    /// What was taken from one, by start.
    lost: Vec<Booking>,
    /// Saved labs.
    labs: Vec<SavedLab>,
}

impl Own {
    async fn of(state: &AppState, visit: &Visit) -> Result<Self, Problem> {
        let Some(person) = visit.caller.person() else { return Ok(Self::default()) };
        let want = Listing { person: Some(person.clone()), open: true, ..Listing::default() };
        let mut bookings = state.desk.bookings(&visit.caller, visit.now, &want).await?;
        // A quarantine is settled by an admin, and a wait for a time that has begun is over.
        let goes_on = |b: &Booking| b.state != Stands::Waitlisted || b.window.starts > visit.now;
        bookings.retain(|b| b.state != Stands::Quarantined && goes_on(b));
        // What its server let pass is over by the time that it is known.
        let lately = Some(Window { starts: visit.now - Booking::TOLD, ends: Epoch::LAST });
        let want = Listing { person: Some(person.clone()), within: lately, ..Listing::default() };
        let mut lost = state.desk.bookings(&visit.caller, visit.now, &want).await?;
        lost.retain(|b| b.is_lost(visit.now));
        Ok(Self { bookings, lost, labs: state.desk.labs(&visit.caller, visit.now, None).await? })
    }
}

/// One booking's page.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct One {
    pub slot: Slot,
    pub once: String,
    /// To whom it can be given.
    pub people: Vec<String>,
    /// Why one who waits would not be asked now.
    pub held_up: Option<String>,
    /// Whether its server does not take it, so that it can be moved.
    pub stuck: bool,
    /// Where to.
    pub instead: Vec<Instead>,
    /// The recurrence that it belongs to, where more of it than this slot can be given up.
    pub series: Option<Recurring>,
    /// How to come in without kubecamp; none when no certificate can be had.
    pub entry: Option<Entry>,
}

/// What of a recurrence is ahead.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Recurring {
    /// How many slots.
    pub ahead: usize,
    /// Whether a reason is needed, because one of them is somebody else's.
    pub reason: bool,
}

impl Recurring {
    fn new(ahead: &[Booking], shown: &Booking, visit: &Visit) -> Option<Self> {
        let reason = ahead.iter().any(|b| visit.caller.person() != Some(&b.person));
        // The last one alone has a button of its own.
        ahead.iter().any(|b| b.id != shown.id).then_some(Self { ahead: ahead.len(), reason })
    }
}

/// `GET /booking/{id}`.
pub(super) async fn booking(
    State(state): State<AppState>,
    session: Option<Session>,
    headers: HeaderMap,
    ApiPath(id): ApiPath<String>,
) -> Answer<Response> {
    let Some(session) = session else { return Ok(go("/sign-in")) };
    let visit = Visit::of(&state, &session, &headers, &format!("/booking/{id}")).await?;
    let unknown = |why: String| Problem::new(Code::HubUnknown, why);
    let booking = state.desk.booking(&visit.caller, visit.now, &id.parse().map_err(unknown)?).await?;
    let server = match &booking.server {
        Some(id) => match state.desk.server(&visit.caller, visit.now, id).await {
            Ok(server) => Some(server),
            // It was removed; what was booked on it is history.
            Err(problem) if problem.code == Code::HubUnknown => None,
            Err(problem) => return Err(problem.into()),
        },
        None => None,
    };
    let courses = state.desk.courses(&visit.caller, visit.now).await?;
    let policy = courses.into_iter().find(|c| c.id == booking.course).map(|c| c.policy).unwrap_or_default();
    let students = state.desk.students(&visit.caller, visit.now, &booking.course).await?;
    let people = students.iter().filter(|id| **id != booking.person).map(ToString::to_string).collect();
    let own = visit.caller.is_teacher() || visit.caller.person() == Some(&booking.person);
    let whose = Some(&booking.person);
    let labs = if own { state.desk.labs(&visit.caller, visit.now, whose).await? } else { vec![] };
    let look = Look { caller: &visit.caller, now: visit.now, civil: &visit.civil, labs: &labs };
    let slot = Slot::new(&booking, server.as_ref(), &policy, &look);
    let found = if own { Some(state.desk.elsewhere(&visit.caller, visit.now, &booking.id).await?) } else { None };
    let waits = booking.state == Stands::Waitlisted;
    let stuck = !waits && found.as_ref().is_some_and(|f| f.why.is_some());
    // Of an offer that lapsed the slot itself says when its holder is asked again.
    let why = found.as_ref().and_then(|f| f.why.as_ref()).filter(|_| waits && booking.lapses == 0);
    let held_up = why.map(|why| held_up(why, &visit));
    let instead = found.iter().flat_map(|f| &f.alternatives).map(|free| instead(free, &visit)).collect();
    let ahead = match &booking.series {
        Some(series) => state.desk.series_ahead(&visit.caller, visit.now, series).await?,
        None => vec![],
    };
    let series = Recurring::new(&ahead, &booking, &visit);
    let entry = Entry::of(&state, &visit, &booking, server.as_ref()).await?;
    let once = super::wish::once();
    visit.page("booking.html", &One { slot, once, people, held_up, stuck, instead, series, entry })
}

fn held_up(why: &str, visit: &Visit) -> String {
    let lang = visit.civil.lang;
    let why = translated(why, lang).unwrap_or_else(|| why.to_owned());
    Words::of(lang).say("wait_held_up", &[("why", &visit.civil.zone.told(&why))])
}
