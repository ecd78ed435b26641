use axum::{Json, extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::reply::{changed, created, tagged, window};
use crate::hub::{
    desk::{BookRequest, Edit, Elsewhere, Placed, WeeklyRequest},
    domain::{Booking, BookingId, Epoch, Free, GroupId, PersonId, SeriesId, ServerId, State as Stage, Window},
    http::{Answer, ApiJson, ApiPath, ApiQuery, AppState, IfMatch, OnceKey, Refused, Session},
    store::Listing,
};

/// Which bookings.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Of this person.
    person: Option<PersonId>,
    /// On this server; one that there is not is refused.
    server: Option<ServerId>,
    /// Of this group.
    group: Option<GroupId>,
    /// In this state.
    state: Option<Stage>,
    /// That end after this moment; needs `to`.
    from: Option<Epoch>,
    /// That start before this moment; needs `from`.
    to: Option<Epoch>,
    /// Without those that are over.
    open: Option<bool>,
}

/// A new end.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Extension {
    /// The new end, on the raster.
    ends: Epoch,
    /// Why, 1 to 500 characters; for a teacher, who goes past quotas and opening hours by it.
    #[serde(default)]
    reason: Option<String>,
}

/// A new holder.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Gift {
    /// Who gets it.
    to: PersonId,
    /// Why; for a teacher.
    #[serde(default)]
    reason: Option<String>,
}

/// Where a booking is moved to.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Relocation {
    /// On which server.
    server: ServerId,
    /// When; no longer than before.
    window: Window,
    /// Why; for a teacher.
    #[serde(default)]
    reason: Option<String>,
}

fn seen(edit: Edit, version: IfMatch) -> Edit {
    Edit { version: version.0.or(edit.version), ..edit }
}

/// Bookings by start. Notes are for the holder and for teachers.
#[utoipa::path(get, operation_id = "bookings_list", path = "/api/v1/bookings", tag = "bookings", params(Which), responses(
    (status = 200, body = Vec<Booking>),
    Refused,
))]
pub(super) async fn list(
    State(state): State<AppState>,
    session: Session,
    ApiQuery(which): ApiQuery<Which>,
) -> Answer<Json<Vec<Booking>>> {
    let within = match (which.from, which.to) {
        (None, None) => None,
        (from, to) => Some(window(from.unwrap_or(Epoch(0)), to.unwrap_or(Epoch::LAST))?),
    };
    let want = Listing {
        person: which.person,
        server: which.server,
        group: which.group,
        state: which.state,
        within,
        open: which.open.unwrap_or(false),
    };
    Ok(Json(state.desk.bookings(&session.caller, state.now(), &want).await?))
}

/// Books a slot. A conflict comes with three alternatives.
#[utoipa::path(post, operation_id = "bookings_book", path = "/api/v1/bookings", tag = "bookings", request_body = BookRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 200 characters; a repeat gets the first answer")),
    responses(
        (status = 201, body = Booking, headers(("ETag" = String), ("Location" = String))),
        Refused,
    ))]
pub(super) async fn book(
    State(state): State<AppState>,
    session: Session,
    OnceKey(key): OnceKey,
    ApiJson(wish): ApiJson<BookRequest>,
) -> Answer<Response> {
    let made = state.desk.book(&session.caller, state.now(), key.as_deref(), &wish).await?;
    Ok(created(&made, &format!("/api/v1/bookings/{}", made.id)))
}

/// One booking.
#[utoipa::path(get, operation_id = "bookings_one", path = "/api/v1/bookings/{id}", tag = "bookings", params(("id" = BookingId, Path)), responses(
    (status = 200, body = Booking, headers(("ETag" = String))),
    Refused,
))]
pub(super) async fn one(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<BookingId>,
) -> Answer<Response> {
    Ok(tagged(&state.desk.booking(&session.caller, state.now(), &id).await?))
}

/// Gives a slot up before it begins, or leaves the waitlist.
#[utoipa::path(post, operation_id = "bookings_cancel", path = "/api/v1/bookings/{id}/cancel", tag = "bookings", request_body = Edit,
    params(("id" = BookingId, Path), ("If-Match" = Option<String>, Header), ("Idempotency-Key" = Option<String>, Header)),
    responses(
        (status = 200, body = Booking, headers(("ETag" = String))),
        Refused,
    ))]
pub(super) async fn cancel(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<BookingId>,
    version: IfMatch,
    OnceKey(key): OnceKey,
    ApiJson(edit): ApiJson<Edit>,
) -> Answer<Response> {
    let edit = seen(edit, version);
    let outcome = state.desk.cancel(&session.caller, state.now(), key.as_deref(), &id, &edit).await;
    changed(outcome, version)
}

/// Ends a running slot now; what was not used does not count. One that has not begun is cancelled.
#[utoipa::path(post, operation_id = "bookings_release", path = "/api/v1/bookings/{id}/release", tag = "bookings", request_body = Edit,
    params(("id" = BookingId, Path), ("If-Match" = Option<String>, Header), ("Idempotency-Key" = Option<String>, Header)),
    responses(
        (status = 200, body = Booking, headers(("ETag" = String))),
        Refused,
    ))]
pub(super) async fn release(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<BookingId>,
    version: IfMatch,
    OnceKey(key): OnceKey,
    ApiJson(edit): ApiJson<Edit>,
) -> Answer<Response> {
    let edit = seen(edit, version);
    let outcome = state.desk.release(&session.caller, state.now(), key.as_deref(), &id, &edit).await;
    changed(outcome, version)
}

/// Moves a slot's end back, when the time after it is free and nobody waits for it; a hint says how far it can go.
#[utoipa::path(post, operation_id = "bookings_extend", path = "/api/v1/bookings/{id}/extend", tag = "bookings", request_body = Extension,
    params(("id" = BookingId, Path), ("If-Match" = Option<String>, Header), ("Idempotency-Key" = Option<String>, Header)),
    responses(
        (status = 200, body = Booking, headers(("ETag" = String))),
        Refused,
    ))]
pub(super) async fn extend(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<BookingId>,
    version: IfMatch,
    OnceKey(key): OnceKey,
    ApiJson(more): ApiJson<Extension>,
) -> Answer<Response> {
    let edit = Edit { version: version.0, reason: more.reason };
    let outcome = state.desk.extend(&session.caller, state.now(), key.as_deref(), &id, more.ends, &edit).await;
    changed(outcome, version)
}

/// Gives a booked slot to somebody of the same course.
#[utoipa::path(post, operation_id = "bookings_give", path = "/api/v1/bookings/{id}/give", tag = "bookings", request_body = Gift,
    params(("id" = BookingId, Path), ("If-Match" = Option<String>, Header), ("Idempotency-Key" = Option<String>, Header)),
    responses(
        (status = 200, body = Booking, headers(("ETag" = String))),
        Refused,
    ))]
pub(super) async fn give(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<BookingId>,
    version: IfMatch,
    OnceKey(key): OnceKey,
    ApiJson(gift): ApiJson<Gift>,
) -> Answer<Response> {
    let edit = Edit { version: version.0, reason: gift.reason };
    let outcome = state.desk.give(&session.caller, state.now(), key.as_deref(), &id, &gift.to, &edit).await;
    changed(outcome, version)
}

/// Says yes to an offer from the waitlist.
#[utoipa::path(post, operation_id = "bookings_accept", path = "/api/v1/bookings/{id}/accept", tag = "bookings",
    params(("id" = BookingId, Path), ("If-Match" = Option<String>, Header), ("Idempotency-Key" = Option<String>, Header)),
    responses(
        (status = 200, body = Booking, headers(("ETag" = String))),
        Refused,
    ))]
pub(super) async fn accept(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<BookingId>,
    version: IfMatch,
    OnceKey(key): OnceKey,
) -> Answer<Response> {
    let edit = seen(Edit::default(), version);
    let outcome = state.desk.accept_as_seen(&session.caller, state.now(), key.as_deref(), &id, &edit).await;
    changed(outcome, version)
}

/// Where a slot is looked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NearTo {
    /// Nearest to which start; none is the booking's own.
    starts: Option<Epoch>,
}

/// Why a booking cannot take place where it is, if so, and up to three slots to which it can be moved; of a wait, why its
/// holder would not be asked now.
#[utoipa::path(get, operation_id = "bookings_alternatives", path = "/api/v1/bookings/{id}/alternatives", tag = "bookings",
    params(("id" = BookingId, Path), ("starts" = Option<Epoch>, Query, description = "nearest to which start; none is its own")),
    responses(
        (status = 200, body = Elsewhere),
        Refused,
    ))]
pub(super) async fn alternatives(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<BookingId>,
    ApiQuery(near): ApiQuery<NearTo>,
) -> Answer<Json<Elsewhere>> {
    Ok(Json(state.desk.elsewhere_near(&session.caller, state.now(), &id, near.starts).await?))
}

/// Moves a booking that its server does not take to another slot; its hours are not counted anew.
#[utoipa::path(post, operation_id = "bookings_move", path = "/api/v1/bookings/{id}/move", tag = "bookings", request_body = Relocation,
    params(("id" = BookingId, Path), ("If-Match" = Option<String>, Header), ("Idempotency-Key" = Option<String>, Header)),
    responses(
        (status = 200, body = Booking, headers(("ETag" = String))),
        Refused,
    ))]
pub(super) async fn relocate(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<BookingId>,
    version: IfMatch,
    OnceKey(key): OnceKey,
    ApiJson(to): ApiJson<Relocation>,
) -> Answer<Response> {
    let edit = Edit { version: version.0, reason: to.reason };
    let to = Free { server: to.server, window: to.window, lab: None, limit: None };
    let outcome = state.desk.move_to(&session.caller, state.now(), key.as_deref(), &id, &to, &edit).await;
    changed(outcome, version)
}

/// Joins the waitlist for a slot; when it becomes free it is offered for a few minutes.
#[utoipa::path(post, operation_id = "bookings_wait", path = "/api/v1/waits", tag = "bookings", request_body = BookRequest,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses(
        (status = 201, body = Booking, headers(("ETag" = String), ("Location" = String))),
        Refused,
    ))]
pub(super) async fn wait(
    State(state): State<AppState>,
    session: Session,
    OnceKey(key): OnceKey,
    ApiJson(wish): ApiJson<BookRequest>,
) -> Answer<Response> {
    let made = state.desk.wait(&session.caller, state.now(), key.as_deref(), &wish).await?;
    Ok(created(&made, &format!("/api/v1/bookings/{}", made.id)))
}

/// Books the same slot for several weeks, all or none; a refusal names all weeks that cannot be had.
#[utoipa::path(post, operation_id = "bookings_series", path = "/api/v1/series", tag = "bookings", request_body = WeeklyRequest,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses(
        (status = 201, body = Vec<Placed>),
        Refused,
    ))]
pub(super) async fn series(
    State(state): State<AppState>,
    session: Session,
    OnceKey(key): OnceKey,
    ApiJson(wish): ApiJson<WeeklyRequest>,
) -> Answer<(StatusCode, Json<Vec<Placed>>)> {
    let made = state.desk.book_weekly(&session.caller, state.now(), key.as_deref(), &wish).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// Gives up all of a recurrence that has not begun.
#[utoipa::path(post, operation_id = "bookings_cancel_series", path = "/api/v1/series/{id}/cancel", tag = "bookings", request_body = Edit,
    params(("id" = SeriesId, Path), ("If-Match" = Option<String>, Header, description = "refused: a recurrence has no version"),
        ("Idempotency-Key" = Option<String>, Header)),
    responses(
        (status = 200, body = Vec<Booking>),
        Refused,
    ))]
pub(super) async fn cancel_series(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<SeriesId>,
    version: IfMatch,
    OnceKey(key): OnceKey,
    ApiJson(edit): ApiJson<Edit>,
) -> Answer<Json<Vec<Booking>>> {
    let edit = seen(edit, version);
    Ok(Json(state.desk.cancel_series(&session.caller, state.now(), key.as_deref(), &id, &edit).await?))
}

/// A window that the table of a week shows.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Span {
    /// Its first second.
    from: Epoch,
    /// The first second after it.
    to: Epoch,
}

impl Span {
    pub(super) fn window(&self) -> Answer<Window> {
        window(self.from, self.to)
    }
}
