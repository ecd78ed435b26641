use axum::{Json, extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::reply::{changed, created, tagged};
use crate::{
    core::{Code, Problem},
    hub::{
        desk::{Imported, NewPerson, Roster},
        domain::{Course, CourseId, Group, GroupId, Person, PersonId, Policy},
        http::{Answer, ApiJson, ApiPath, ApiText, AppState, IfMatch, OnceKey, Refused, Session},
        store::Hook,
    },
};

/// Oneself.
#[utoipa::path(get, operation_id = "people_me", path = "/api/v1/me", tag = "people", responses(
    (status = 200, body = Person, headers(("ETag" = String))),
    Refused,
))]
pub(super) async fn me(State(state): State<AppState>, session: Session) -> Answer<Response> {
    Ok(tagged(&state.desk.person(&session.caller, state.now(), session.person()?).await?))
}

/// One's own SSH keys, all of them.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewKeys {
    /// Public keys, one line each, as in an authorized_keys file; 20 at most.
    keys: Vec<String>,
}

/// Replaces one's own SSH keys; `If-Match` holds the ETag that was seen.
#[utoipa::path(put, operation_id = "people_set_keys", path = "/api/v1/me/keys", tag = "people", request_body = NewKeys,
    params(("If-Match" = Option<String>, Header)),
    responses(
        (status = 200, body = Person, headers(("ETag" = String))),
        Refused,
    ))]
pub(super) async fn set_keys(
    State(state): State<AppState>,
    session: Session,
    version: IfMatch,
    ApiJson(new): ApiJson<NewKeys>,
) -> Answer<Response> {
    let token = Some(&session.token);
    let outcome = state.desk.set_own_keys(&session.caller, state.now(), &new.keys, version.0, token).await;
    changed(outcome, version)
}

/// Everybody. For teachers.
#[utoipa::path(get, operation_id = "people_list", path = "/api/v1/people", tag = "people", responses(
    (status = 200, body = Vec<Person>),
    Refused,
))]
pub(super) async fn list(State(state): State<AppState>, session: Session) -> Answer<Json<Vec<Person>>> {
    Ok(Json(state.desk.people(&session.caller, state.now()).await?))
}

/// Adds somebody. For teachers; only an admin makes teachers and admins.
#[utoipa::path(post, operation_id = "people_add", path = "/api/v1/people", tag = "people", request_body = NewPerson,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses(
        (status = 201, body = Person, headers(("ETag" = String), ("Location" = String))),
        Refused,
    ))]
pub(super) async fn add(
    State(state): State<AppState>,
    session: Session,
    OnceKey(key): OnceKey,
    ApiJson(new): ApiJson<NewPerson>,
) -> Answer<Response> {
    let (caller, now) = (&session.caller, state.now());
    let made = state.desk.add_person_with(caller, now, key.as_deref(), &new, &session.token).await?;
    Ok(created(&made, &format!("/api/v1/people/{}", made.id)))
}

/// Somebody: oneself, or anybody for a teacher.
#[utoipa::path(get, operation_id = "people_one", path = "/api/v1/people/{id}", tag = "people", params(("id" = PersonId, Path)), responses(
    (status = 200, body = Person, headers(("ETag" = String))),
    Refused,
))]
pub(super) async fn one(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<PersonId>,
) -> Answer<Response> {
    Ok(tagged(&state.desk.person(&session.caller, state.now(), &id).await?))
}

/// Changes somebody; `If-Match` holds the ETag that was seen. Who is made inactive loses all tokens.
#[utoipa::path(put, operation_id = "people_change", path = "/api/v1/people/{id}", tag = "people", request_body = NewPerson,
    params(("id" = PersonId, Path), ("If-Match" = Option<String>, Header)),
    responses(
        (status = 200, body = Person, headers(("ETag" = String))),
        Refused,
    ))]
pub(super) async fn change(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<PersonId>,
    version: IfMatch,
    ApiJson(new): ApiJson<NewPerson>,
) -> Answer<Response> {
    if new.id != id {
        return Err(Problem::new(Code::HubInvalid, format!("the body is of {}, the address of {id}", new.id)).into());
    }
    let outcome = state.desk.put_person_with(&session.caller, state.now(), &new, version.0, &session.token).await;
    changed(outcome, version)
}

/// All groups with their members.
#[utoipa::path(get, operation_id = "people_groups", path = "/api/v1/groups", tag = "people", responses(
    (status = 200, body = Vec<Group>),
    Refused,
))]
pub(super) async fn groups(State(state): State<AppState>, session: Session) -> Answer<Json<Vec<Group>>> {
    Ok(Json(state.desk.groups(&session.caller, state.now()).await?))
}

/// A group's course.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewGroup {
    /// The course.
    course: CourseId,
}

/// Adds a group to a course. For teachers.
#[utoipa::path(put, operation_id = "people_put_group", path = "/api/v1/groups/{id}", tag = "people", request_body = NewGroup, params(("id" = GroupId, Path)), responses(
    (status = 200, body = Group),
    Refused,
))]
pub(super) async fn put_group(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<GroupId>,
    ApiJson(new): ApiJson<NewGroup>,
) -> Answer<Json<Group>> {
    Ok(Json(state.desk.put_group(&session.caller, state.now(), &id, &new.course).await?))
}

/// Removes a group whose members hold nothing by it. For teachers.
#[utoipa::path(delete, operation_id = "people_drop_group", path = "/api/v1/groups/{id}", tag = "people", params(("id" = GroupId, Path)), responses(
    (status = 204),
    Refused,
))]
pub(super) async fn drop_group(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<GroupId>,
) -> Answer<StatusCode> {
    state.desk.remove_group(&session.caller, state.now(), &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Puts somebody into a group, for which they leave their other one of its course. For teachers.
#[utoipa::path(put, operation_id = "people_join", path = "/api/v1/groups/{id}/members/{person}", tag = "people",
    params(("id" = GroupId, Path), ("person" = PersonId, Path)),
    responses(
        (status = 200, body = Group),
        Refused,
    ))]
pub(super) async fn join(
    State(state): State<AppState>,
    session: Session,
    ApiPath((id, person)): ApiPath<(GroupId, PersonId)>,
) -> Answer<Json<Group>> {
    Ok(Json(state.desk.set_member(&session.caller, state.now(), &person, &id, true).await?))
}

/// Takes somebody out of a group. For teachers.
#[utoipa::path(delete, operation_id = "people_leave", path = "/api/v1/groups/{id}/members/{person}", tag = "people",
    params(("id" = GroupId, Path), ("person" = PersonId, Path)),
    responses(
        (status = 200, body = Group),
        Refused,
    ))]
pub(super) async fn leave(
    State(state): State<AppState>,
    session: Session,
    ApiPath((id, person)): ApiPath<(GroupId, PersonId)>,
) -> Answer<Json<Group>> {
    Ok(Json(state.desk.set_member(&session.caller, state.now(), &person, &id, false).await?))
}

/// All courses with their rules.
#[utoipa::path(get, operation_id = "people_courses", path = "/api/v1/courses", tag = "people", responses(
    (status = 200, body = Vec<Course>),
    Refused,
))]
pub(super) async fn courses(State(state): State<AppState>, session: Session) -> Answer<Json<Vec<Course>>> {
    Ok(Json(state.desk.courses(&session.caller, state.now()).await?))
}

/// A course's title and rules.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCourse {
    /// Its title for people.
    title: String,
    /// Its rules; what is not named has its default.
    #[serde(default)]
    policy: Policy,
}

/// One course with its rules.
#[utoipa::path(get, operation_id = "people_course", path = "/api/v1/courses/{id}", tag = "people", params(("id" = CourseId, Path)), responses(
    (status = 200, body = Course, headers(("ETag" = String))),
    Refused,
))]
pub(super) async fn course(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<CourseId>,
) -> Answer<Response> {
    Ok(tagged(&state.desk.course(&session.caller, state.now(), &id).await?))
}

/// Adds a course, or changes its title and rules; then `If-Match` holds the ETag that was seen. For admins.
#[utoipa::path(put, operation_id = "people_put_course", path = "/api/v1/courses/{id}", tag = "people", request_body = NewCourse,
    params(("id" = CourseId, Path), ("If-Match" = Option<String>, Header)),
    responses(
        (status = 200, body = Course, headers(("ETag" = String))),
        Refused,
    ))]
pub(super) async fn put_course(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<CourseId>,
    version: IfMatch,
    ApiJson(new): ApiJson<NewCourse>,
) -> Answer<Response> {
    let (caller, now) = (&session.caller, state.now());
    let outcome = state.desk.put_course(caller, now, &id, &new.title, &new.policy, version.0).await;
    changed(outcome, version)
}

/// Imports students from a CSV: login, name, group, and if wanted zone and SSH key. All lines or none. For teachers.
#[utoipa::path(post, operation_id = "people_roster", path = "/api/v1/courses/{id}/roster", tag = "people",
    params(("id" = CourseId, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body(content = String, content_type = "text/csv"),
    responses(
        (status = 200, body = Imported),
        Refused,
    ))]
pub(super) async fn roster(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<CourseId>,
    OnceKey(key): OnceKey,
    ApiText(text): ApiText,
) -> Answer<Json<Imported>> {
    let (caller, now) = (&session.caller, state.now());
    let roster = Roster { course: &id, file: "roster", text: &text };
    Ok(Json(state.desk.import_roster(caller, now, key.as_deref(), roster, Some(&session.token)).await?))
}

/// A webhook to be added.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewHook {
    /// Where events are sent to.
    url: String,
}

/// A webhook that was added.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct MadeHook {
    /// Its number.
    id: i64,
    /// What signs each message (`Kubecamp-Signature`); shown once.
    secret: String,
}

/// All webhooks. For admins.
#[utoipa::path(get, operation_id = "people_hooks", path = "/api/v1/hooks", tag = "system", responses(
    (status = 200, body = Vec<Hook>),
    Refused,
))]
pub(super) async fn hooks(State(state): State<AppState>, session: Session) -> Answer<Json<Vec<Hook>>> {
    Ok(Json(state.desk.hooks(&session.caller, state.now()).await?))
}

/// Adds a webhook. For admins.
#[utoipa::path(post, operation_id = "people_add_hook", path = "/api/v1/hooks", tag = "system", request_body = NewHook,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses(
        (status = 201, body = MadeHook),
        Refused,
    ))]
pub(super) async fn add_hook(
    State(state): State<AppState>,
    session: Session,
    OnceKey(key): OnceKey,
    ApiJson(new): ApiJson<NewHook>,
) -> Answer<(StatusCode, Json<MadeHook>)> {
    let (id, secret) = state.desk.add_hook(&session.caller, state.now(), key.as_deref(), &new.url).await?;
    Ok((StatusCode::CREATED, Json(MadeHook { id, secret: secret.expose().to_owned() })))
}

/// Removes a webhook. For admins.
#[utoipa::path(delete, operation_id = "people_drop_hook", path = "/api/v1/hooks/{id}", tag = "system", params(("id" = i64, Path)), responses(
    (status = 204),
    Refused,
))]
pub(super) async fn drop_hook(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<i64>,
) -> Answer<StatusCode> {
    state.desk.drop_hook(&session.caller, state.now(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}
