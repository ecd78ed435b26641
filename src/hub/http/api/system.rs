use std::{collections::BTreeMap, time::Instant};

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    core::{Code, Problem},
    hub::{
        desk::Caller,
        domain::{Health, State as Stage},
        http::{
            Answer, AppState, ProblemBody, Refused, Session,
            guard::Peer,
            metrics::{head, line},
        },
        store::Listing,
    },
};

/// How the hub is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Healthy {
    /// `ok`.
    status: &'static str,
    /// The program's version.
    version: &'static str,
}

/// Whether the hub answers, and its database can be read and written.
#[utoipa::path(get, operation_id = "system_healthz", path = "/healthz", tag = "system", security(()), responses(
    (status = 200, body = Healthy),
    (status = 503, body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn healthz(State(state): State<AppState>) -> Answer<Json<Healthy>> {
    // Who balances between hubs takes 503 as a hub to be left alone for now, and 500 as a defect.
    let away = |problem| Refused::with(StatusCode::SERVICE_UNAVAILABLE, problem);
    state.desk.last_event(state.now()).await.map_err(away)?;
    state.desk.writable(state.now()).await.map_err(away)?;
    state.site.rounds.are_well(Instant::now()).map_err(away)?;
    Ok(Json(Healthy { status: "ok", version: env!("CARGO_PKG_VERSION") }))
}

/// Counters in Prometheus' text format; without a token only from the hub's own computer, else for admins.
#[utoipa::path(get, operation_id = "system_metrics", path = "/metrics", tag = "system", security((), ("token" = []), ("cookie" = [])), responses(
    (status = 200, body = String, content_type = "text/plain"),
    Refused,
))]
pub(super) async fn metrics(
    State(state): State<AppState>,
    peer: Option<Extension<Peer>>,
    session: Option<Session>,
    headers: HeaderMap,
) -> Answer<impl IntoResponse> {
    let here = peer.is_some_and(|p| p.is_here()) && !headers.contains_key("x-forwarded-for");
    if !here && !session.is_some_and(|s| s.caller.is_admin()) {
        return Err(Problem::new(Code::HubDenied, "counters are for admins").into());
    }
    let mut out = state.site.metrics.text();
    let now = state.now();
    head(&mut out, "kubecamp_server_healthy", "gauge", "1 when the server can be booked.");
    let servers = state.desk.servers(&Caller::Clerk, now).await?;
    for server in &servers {
        let labels = [("server", server.id.as_str())];
        line(&mut out, "kubecamp_server_healthy", &labels, u8::from(server.health == Health::Healthy));
    }
    head(&mut out, "kubecamp_server_clock_offset_seconds", "gauge", "The agent's clock minus the hub's.");
    for server in &servers {
        line(&mut out, "kubecamp_server_clock_offset_seconds", &[("server", server.id.as_str())], server.clock_offset);
    }
    head(&mut out, "kubecamp_server_silent_seconds", "gauge", "Since when the agent was not heard.");
    for (server, seen) in servers.iter().filter_map(|s| Some((s, s.seen?))) {
        line(&mut out, "kubecamp_server_silent_seconds", &[("server", server.id.as_str())], (now - seen).max(0));
    }
    let open = Listing { open: true, ..Listing::default() };
    let mut states: BTreeMap<Stage, u64> = Stage::ALL.into_iter().filter(|s| s.is_live()).map(|s| (s, 0)).collect();
    for booking in state.desk.bookings(&Caller::Clerk, now, &open).await? {
        *states.entry(booking.state).or_default() += 1;
    }
    head(&mut out, "kubecamp_bookings", "gauge", "Open bookings by state.");
    for (stage, n) in states {
        line(&mut out, "kubecamp_bookings", &[("state", stage.as_str())], n);
    }
    head(&mut out, "kubecamp_resident_bytes", "gauge", "Memory of the hub.");
    line(&mut out, "kubecamp_resident_bytes", &[], resident());
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], out))
}

/// Memory of this process, bytes; 0 where it cannot be read.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}
