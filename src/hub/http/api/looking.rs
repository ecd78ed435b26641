use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{bookings::Span, reply::window};
use crate::{
    hub::{
        desk::{Checkup, ClassRequest, FreeRequest, Week},
        domain::{Booking, ClassPlan, CourseId, Epoch, Free, PersonId, SavedLab, ServerId},
        http::{Answer, ApiJson, ApiQuery, AppState, OnceKey, Refused, Session},
        store::AuditRow,
    },
    profile::Layout,
};

/// What is looked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Search {
    /// For whom; none is oneself.
    person: Option<PersonId>,
    /// In which course; needed only by somebody who is in several.
    course: Option<CourseId>,
    /// On which server; none is any.
    server: Option<ServerId>,
    /// Labels that the server must have, with commas between them.
    labels: Option<String>,
    /// The lab, as `2x4c8g`.
    #[param(value_type = Option<String>)]
    layout: Option<Layout>,
    /// How long, minutes.
    minutes: u32,
    /// The slot starts at this moment or later; none is now, with the step of the raster that runs where it can be booked.
    from: Option<Epoch>,
    /// The slot ends at this moment or before; none is two weeks after `from`.
    to: Option<Epoch>,
    /// How many at most, up to 200; none is 10.
    most: Option<usize>,
}

/// The first free slots that fit and overlap none of one's own, earliest first; at one start with a saved lab before others.
#[utoipa::path(get, operation_id = "looking_free", path = "/api/v1/free", tag = "bookings", params(Search), responses(
    (status = 200, body = Vec<Free>),
    Refused,
))]
pub(super) async fn free(
    State(state): State<AppState>,
    session: Session,
    ApiQuery(search): ApiQuery<Search>,
) -> Answer<Json<Vec<Free>>> {
    let now = state.now();
    let from = search.from.unwrap_or(now);
    let labels = search.labels.unwrap_or_default();
    let want = FreeRequest {
        person: search.person,
        course: search.course,
        server: search.server,
        labels: labels.split(',').map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect(),
        layout: search.layout,
        minutes: search.minutes,
        within: window(from, search.to.unwrap_or(from + 14 * 86_400))?,
        // What can be had right now has begun.
        running: search.from.is_none(),
        most: search.most.unwrap_or(10),
    };
    Ok(Json(state.desk.free(&session.caller, now, &want).await?))
}

/// Whose labs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Whose {
    /// Of whom; none is oneself.
    person: Option<PersonId>,
}

/// Where saved labs are: a lab stays on the server that it was made on. One's own, or anybody's for a teacher.
#[utoipa::path(get, operation_id = "looking_labs", path = "/api/v1/labs", tag = "bookings", params(Whose), responses(
    (status = 200, body = Vec<SavedLab>),
    Refused,
))]
pub(super) async fn labs(
    State(state): State<AppState>,
    session: Session,
    ApiQuery(whose): ApiQuery<Whose>,
) -> Answer<Json<Vec<SavedLab>>> {
    Ok(Json(state.desk.labs(&session.caller, state.now(), whose.person.as_ref()).await?))
}

/// Everything that a table of a week shows: servers, opening hours, maintenance, bookings, who waits.
#[utoipa::path(get, operation_id = "looking_week", path = "/api/v1/week", tag = "bookings", params(Span), responses(
    (status = 200, body = Week),
    Refused,
))]
pub(super) async fn week(
    State(state): State<AppState>,
    session: Session,
    ApiQuery(span): ApiQuery<Span>,
) -> Answer<Json<Week>> {
    Ok(Json(state.desk.week(&session.caller, state.now(), span.window()?).await?))
}

/// A fair table for a class; nothing is booked. The same wishes give the same table. For teachers.
#[utoipa::path(post, operation_id = "looking_plan_class", path = "/api/v1/class-plans", tag = "classes", request_body = ClassRequest, responses(
    (status = 200, body = ClassPlan),
    Refused,
))]
pub(super) async fn plan_class(
    State(state): State<AppState>,
    session: Session,
    ApiJson(want): ApiJson<ClassRequest>,
) -> Answer<Json<ClassPlan>> {
    Ok(Json(state.desk.plan_class(&session.caller, state.now(), &want).await?))
}

/// Books the table that a class plan shows, all of it or nothing. For teachers.
#[utoipa::path(post, operation_id = "looking_book_class", path = "/api/v1/class-plans/book", tag = "classes", request_body = ClassRequest,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses(
        (status = 201, body = Vec<Booking>),
        Refused,
    ))]
pub(super) async fn book_class(
    State(state): State<AppState>,
    session: Session,
    OnceKey(key): OnceKey,
    ApiJson(want): ApiJson<ClassRequest>,
) -> Answer<(StatusCode, Json<Vec<Booking>>)> {
    let made = state.desk.book_class(&session.caller, state.now(), key.as_deref(), &want).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// Which rows of the audit.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Rows {
    /// On what, as `booking:ID` or `server:NAME`; with `person:LOGIN` also what concerns them, as links and slots.
    subject: Option<String>,
    /// By whom, as `person:LOGIN`.
    actor: Option<String>,
    /// How many at most, up to 1000; none is 100.
    most: Option<i64>,
}

/// Who did what, newest first. Students see their own doing only.
#[utoipa::path(get, operation_id = "looking_audit", path = "/api/v1/audit", tag = "system", params(Rows), responses(
    (status = 200, body = Vec<AuditRow>),
    Refused,
))]
pub(super) async fn audit(
    State(state): State<AppState>,
    session: Session,
    ApiQuery(rows): ApiQuery<Rows>,
) -> Answer<Json<Vec<AuditRow>>> {
    let most = rows.most.unwrap_or(100);
    Ok(Json(state.desk.audit(&session.caller, state.now(), rows.subject, rows.actor, most).await?))
}

/// Checks all records against each other, and that the database can be written. For admins.
#[utoipa::path(get, operation_id = "looking_doctor", path = "/api/v1/doctor", tag = "system", responses(
    (status = 200, body = Checkup),
    Refused,
))]
pub(super) async fn doctor(State(state): State<AppState>, session: Session) -> Answer<Json<Checkup>> {
    let found = state.desk.doctor(&session.caller, state.now()).await?;
    // Records that agree are no comfort where none can be added.
    state.desk.writable(state.now()).await?;
    Ok(Json(found))
}
