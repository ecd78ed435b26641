use std::{
    collections::VecDeque, convert::Infallible, panic::AssertUnwindSafe, sync::atomic::Ordering, time::Duration,
};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{FutureExt, stream};
use serde::Deserialize;
use tokio::{sync::watch, time::Instant};
use utoipa::IntoParams;

use crate::{
    core::{Code, Problem},
    hub::{
        http::{
            Answer, ApiQuery, AppState, ProblemBody, Refused, Session,
            room::{Full, Place},
        },
        store::EventRow,
    },
};

/// A stream ends then, and the client comes again with its last number; so nobody listens for ever.
const LONGEST: Duration = Duration::from_secs(3600);
/// A look for new events that takes longer is given up.
const LOOK: Duration = Duration::from_secs(10);

/// From where.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct From {
    /// The last event that was seen; `Last-Event-ID` comes first. Without both, what happens from now on.
    after: Option<i64>,
}

/// An open stream; it is counted as long as it lives.
struct Listener {
    state: AppState,
    session: Session,
    newest: watch::Receiver<i64>,
    after: i64,
    queue: VecDeque<Event>,
    until: Instant,
    _place: Place,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.state.site.metrics.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream is a connection for as long as an hour: there are not so many, and not all for one person.
fn crowded(full: Full) -> Refused {
    let problem = match full {
        Full::Each(most) => Problem::new(Code::HubTooMany, format!("{most} event streams of yours are open"))
            .hint("Close a page of the hub or a program that listens, and try again."),
        Full::All => Problem::new(Code::HubBusy, "as many event streams are open as the hub can hold")
            .hint("Ask for what you need each minute instead, or try again later."),
    };
    Refused { retry: Some(30), ..problem.into() }
}

/// What happens, as server-sent events: `id` is a number that grows, `event` the kind, `data` the whole of it.
#[utoipa::path(get, operation_id = "events_stream_of", path = "/api/v1/events", tag = "system",
    params(From, ("Last-Event-ID" = Option<i64>, Header, description = "the stream goes on after this event")),
    responses(
        (status = 200, body = EventRow, content_type = "text/event-stream"),
        Refused,
        (status = 503, body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(super) async fn stream_of(
    State(state): State<AppState>,
    session: Session,
    headers: HeaderMap,
    ApiQuery(from): ApiQuery<From>,
) -> Answer<impl IntoResponse> {
    let last = headers.get("last-event-id").and_then(|v| v.to_str().ok()?.trim().parse::<i64>().ok());
    let place = state.site.streams.enter(&session.caller.name()).map_err(crowded)?;
    let newest = state.site.newest.subscribe();
    let there = state.desk.last_event(state.now()).await?;
    // A number that is yet to come is of a database that was put back since: waiting for it would be silence.
    let after = last.or(from.after).map_or(there, |number| number.clamp(0, there));
    state.site.metrics.streams.fetch_add(1, Ordering::Relaxed);
    // Even a client that saw nothing knows then where to go on.
    let hello = Event::default().event("hello").id(after.to_string()).data("{}");
    let until = Instant::now() + LONGEST;
    let listener = Listener { state, session, newest, after, queue: VecDeque::from([hello]), until, _place: place };
    let events = stream::unfold(listener, |mut listener| async move {
        let event = listener.next().await?;
        Some((Ok::<_, Infallible>(event), listener))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(20))))
}

impl Listener {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            // Read first, wait then: what happened before the stream began is told too.
            self.fill().await.ok()?;
            if !self.queue.is_empty() {
                continue;
            }
            tokio::select! {
                () = self.state.site.stop.cancelled() => return None,
                () = tokio::time::sleep_until(self.until) => return None,
                changed = self.newest.wait_for(|newest| *newest > self.after) => changed.ok().map(drop)?,
            }
        }
    }

    /// Reads what is new. Who was signed out in between hears no more.
    async fn fill(&mut self) -> Result<(), Problem> {
        let now = self.state.now();
        let caller = self.state.desk.caller_of(now, &self.session.token).await?;
        for row in self.state.desk.events(&caller, now, self.after, 200).await? {
            self.after = row.id;
            let event = Event::default().event(&row.kind).id(row.id.to_string());
            self.queue.extend(event.json_data(&row));
        }
        Ok(())
    }
}

/// Looks for new events of this hub and of others on the same database, and wakes the streams.
pub(in crate::hub::http) async fn watch_events(state: AppState) {
    let mut pulse = tokio::time::interval(Duration::from_millis(300));
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = state.site.stop.cancelled() => return,
            _ = pulse.tick() => {}
        }
        if state.site.newest.receiver_count() == 0 {
            continue;
        }
        let look = AssertUnwindSafe(state.desk.last_event(state.now())).catch_unwind();
        match tokio::time::timeout(LOOK, look).await {
            Ok(Ok(Ok(newest))) => {
                state.site.newest.send_if_modified(|old| std::mem::replace(old, newest) != newest);
            }
            Ok(Ok(Err(problem))) => tracing::warn!(%problem, "events"),
            Ok(Err(_)) => tracing::error!("a look for new events failed; the next one follows"),
            Err(_) => tracing::warn!("a look for new events took more than {} s", LOOK.as_secs()),
        }
    }
}
