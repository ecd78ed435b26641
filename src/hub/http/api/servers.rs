use axum::{Json, extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    bookings::Span,
    reply::{Versioned, created, matched, tagged},
    tokens::Made,
};
use crate::{
    core::{Code, Problem},
    hub::{
        desk::{Misfits, NewServer},
        domain::{Health, Maintenance, Server, ServerId, Window},
        http::{Answer, ApiJson, ApiPath, ApiQuery, AppState, IfMatch, NoOnceKey, OnceKey, Refused, Session},
    },
};

/// All servers, by name.
#[utoipa::path(get, operation_id = "servers_list", path = "/api/v1/servers", tag = "servers", responses(
    (status = 200, body = Vec<Server>),
    Refused,
))]
pub(super) async fn list(State(state): State<AppState>, session: Session) -> Answer<Json<Vec<Server>>> {
    Ok(Json(state.desk.servers(&session.caller, state.now()).await?))
}

/// Adds a server. For admins.
#[utoipa::path(post, operation_id = "servers_add", path = "/api/v1/servers", tag = "servers", request_body = NewServer,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses(
        (status = 201, body = Server, headers(("ETag" = String), ("Location" = String))),
        Refused,
    ))]
pub(super) async fn add(
    State(state): State<AppState>,
    session: Session,
    OnceKey(key): OnceKey,
    ApiJson(new): ApiJson<NewServer>,
) -> Answer<Response> {
    let made = state.desk.add_server(&session.caller, state.now(), key.as_deref(), &new).await?;
    Ok(created(&made, &format!("/api/v1/servers/{}", made.id)))
}

/// One server.
#[utoipa::path(get, operation_id = "servers_one", path = "/api/v1/servers/{id}", tag = "servers", params(("id" = ServerId, Path)), responses(
    (status = 200, body = Server, headers(("ETag" = String))),
    Refused,
))]
pub(super) async fn one(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<ServerId>,
) -> Answer<Response> {
    Ok(tagged(&state.desk.server(&session.caller, state.now(), &id).await?))
}

/// A server that was changed.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(super) struct Changed {
    #[serde(flatten)]
    server: Server,
    #[serde(flatten)]
    misfits: Misfits,
}

impl Versioned for Changed {
    fn version(&self) -> i64 {
        self.server.version
    }
}

/// Changes a server; `If-Match` holds the ETag that was seen. For admins.
#[utoipa::path(put, operation_id = "servers_change", path = "/api/v1/servers/{id}", tag = "servers", request_body = NewServer,
    params(("id" = ServerId, Path), ("If-Match" = Option<String>, Header)),
    responses(
        (status = 200, body = Changed, headers(("ETag" = String))),
        Refused,
    ))]
pub(super) async fn change(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<ServerId>,
    version: IfMatch,
    ApiJson(new): ApiJson<NewServer>,
) -> Answer<Response> {
    if new.id != id {
        return Err(Problem::new(Code::HubInvalid, format!("the body is of {}, the address of {id}", new.id)).into());
    }
    let outcome = state.desk.put_server(&session.caller, state.now(), &new, version.0).await;
    let server = matched(outcome, version)?;
    let misfits = state.desk.misfits(&session.caller, state.now(), &id).await?;
    Ok(tagged(&Changed { server, misfits }))
}

/// Removes a server that nobody holds or waits for; what was booked there stays in the records. For admins.
#[utoipa::path(delete, operation_id = "servers_remove", path = "/api/v1/servers/{id}", tag = "servers",
    params(("id" = ServerId, Path), ("If-Match" = Option<String>, Header)),
    responses(
        (status = 204),
        Refused,
    ))]
pub(super) async fn remove(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<ServerId>,
    version: IfMatch,
) -> Answer<StatusCode> {
    let outcome = state.desk.remove_server(&session.caller, state.now(), &id, version.0).await;
    matched(outcome, version).map(|()| StatusCode::NO_CONTENT)
}

/// Another health, and why.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewHealth {
    /// `healthy` or `away`; `quarantined` too.
    health: Health,
    /// Why, 1 to 500 characters.
    reason: String,
}

/// Takes a server out of use or back into use; it also ends a quarantine. For admins.
#[utoipa::path(post, operation_id = "servers_health", path = "/api/v1/servers/{id}/health", tag = "servers", request_body = NewHealth,
    params(("id" = ServerId, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses(
        (status = 200, body = Server, headers(("ETag" = String))),
        Refused,
    ))]
pub(super) async fn health(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<ServerId>,
    OnceKey(key): OnceKey,
    ApiJson(new): ApiJson<NewHealth>,
) -> Answer<Response> {
    let (caller, now) = (&session.caller, state.now());
    let server = state.desk.set_health(caller, now, key.as_deref(), &id, new.health, &new.reason).await?;
    Ok(tagged(&server))
}

/// A time for work on a server.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewMaintenance {
    /// When.
    window: Window,
    /// Why, 1 to 500 characters; shown to people.
    reason: String,
}

/// A maintenance that was added.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(super) struct Added {
    /// It.
    maintenance: Maintenance,
    /// How many bookings of that time have not begun: each is moved to another server that is free, or its holder is told.
    booked: usize,
}

/// Closes a server for a while. For admins.
#[utoipa::path(post, operation_id = "servers_add_maintenance", path = "/api/v1/servers/{id}/maintenance", tag = "servers", request_body = NewMaintenance,
    params(("id" = ServerId, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses(
        (status = 201, body = Added),
        Refused,
    ))]
pub(super) async fn add_maintenance(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<ServerId>,
    OnceKey(key): OnceKey,
    ApiJson(new): ApiJson<NewMaintenance>,
) -> Answer<(StatusCode, Json<Added>)> {
    let (caller, now) = (&session.caller, state.now());
    let made = state.desk.add_maintenance(caller, now, key.as_deref(), &id, new.window, &new.reason);
    let (maintenance, booked) = made.await?;
    Ok((StatusCode::CREATED, Json(Added { maintenance, booked })))
}

/// Maintenance that touches a window.
#[utoipa::path(get, operation_id = "servers_maintenance", path = "/api/v1/maintenance", tag = "servers", params(Span), responses(
    (status = 200, body = Vec<Maintenance>),
    Refused,
))]
pub(super) async fn maintenance(
    State(state): State<AppState>,
    session: Session,
    ApiQuery(span): ApiQuery<Span>,
) -> Answer<Json<Vec<Maintenance>>> {
    Ok(Json(state.desk.maintenance(&session.caller, state.now(), span.window()?).await?))
}

/// Ends a maintenance before its time. For admins.
#[utoipa::path(delete, operation_id = "servers_drop_maintenance", path = "/api/v1/maintenance/{number}", tag = "servers", params(("number" = i64, Path)), responses(
    (status = 204),
    Refused,
))]
pub(super) async fn drop_maintenance(
    State(state): State<AppState>,
    session: Session,
    ApiPath(number): ApiPath<i64>,
) -> Answer<StatusCode> {
    state.desk.drop_maintenance(&session.caller, state.now(), number).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes the token of a server's agent; the one before ends when this one is first used. For admins.
///
/// It takes no Idempotency-Key, since only the token's hash is kept.
#[utoipa::path(post, operation_id = "servers_agent_token", path = "/api/v1/servers/{id}/agent-token", tag = "servers", params(("id" = ServerId, Path)), responses(
    (status = 201, body = Made),
    Refused,
))]
pub(super) async fn agent_token(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<ServerId>,
    _no_key: NoOnceKey,
) -> Answer<(StatusCode, Json<Made>)> {
    let made = state.desk.make_agent_token(&session.caller, state.now(), &id).await?;
    Ok((StatusCode::CREATED, Json(Made::of(&made))))
}

/// The keys by which a server's sshd proves itself.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HostKeys {
    /// Public keys, one line each, as in `/etc/ssh/ssh_host_*_key.pub`; 20 at most.
    keys: Vec<String>,
}

/// Replaces a server's host keys; certificates bring them along, so that nobody is asked about them. For admins.
#[utoipa::path(put, operation_id = "servers_set_host_keys", path = "/api/v1/servers/{id}/host-keys", tag = "servers", request_body = HostKeys,
    params(("id" = ServerId, Path)),
    responses(
        (status = 200, body = HostKeys),
        Refused,
    ))]
pub(super) async fn set_host_keys(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<ServerId>,
    ApiJson(new): ApiJson<HostKeys>,
) -> Answer<Json<HostKeys>> {
    let keys = state.desk.set_host_keys(&session.caller, state.now(), &id, &new.keys).await?;
    Ok(Json(HostKeys { keys }))
}

/// Labs that the hub has forgotten.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(super) struct Forgotten {
    /// How many.
    labs: usize,
}

/// Forgets which saved labs a server keeps, as where they went with its gate; who counts on one is told. For admins.
#[utoipa::path(delete, operation_id = "servers_forget_labs", path = "/api/v1/servers/{id}/labs", tag = "servers", params(("id" = ServerId, Path)), responses(
    (status = 200, body = Forgotten),
    Refused,
))]
pub(super) async fn forget_labs(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<ServerId>,
) -> Answer<Json<Forgotten>> {
    let labs = state.desk.forget_labs(&session.caller, state.now(), &id).await?;
    Ok(Json(Forgotten { labs }))
}
