use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use icalendar::{Calendar, Component, Event, Property};
use sha2::{Digest, Sha256};

use crate::{
    core::{Code, Problem, Secret},
    hub::{
        desk::Caller,
        domain::{Booking, Epoch, Role, ServerId, State as Stage, Window},
        http::{Answer, ApiPath, AppState, Refused},
        store::Listing,
    },
};

/// How far back a feed reaches, seconds.
const BACK: i64 = 60 * 86_400;

fn stamp(at: Epoch) -> String {
    at.timestamp().strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// Whose the feed is. Every wrong token gets the same answer.
async fn owner(state: &AppState, feed: &str) -> Result<Caller, Refused> {
    let unknown = |_| Refused::with(StatusCode::NOT_FOUND, Problem::new(Code::HubUnknown, "there is no such calendar"));
    let (now, token) = (state.now(), Secret::new(feed));
    let id = state.desk.feed_of(now, &token).await.map_err(unknown)?;
    let caller = Caller::Person { id: id.clone(), role: Role::Student };
    let person = state.desk.person(&caller, now, &id).await?;
    if person.active { Ok(caller) } else { Err(unknown(Problem::new(Code::HubDenied, ""))) }
}

/// One's own slots as an iCalendar feed; the secret in the path is made by `POST /api/v1/tokens`.
#[utoipa::path(get, operation_id = "calendar_of_person", path = "/calendar/{feed}/slots.ics", tag = "calendar", security(()), params(("feed" = String, Path)), responses(
    (status = 200, body = String, content_type = "text/calendar"),
    (status = 304, description = "It did not change."),
    Refused,
))]
pub(super) async fn of_person(
    State(state): State<AppState>,
    headers: HeaderMap,
    ApiPath(feed): ApiPath<String>,
) -> Answer<Response> {
    let caller = owner(&state, &feed).await?;
    let person = caller.person().cloned();
    let want = Listing { person: person.clone(), within: Some(reach(state.now())), ..Listing::default() };
    let bookings = state.desk.calendar(&caller, state.now(), &want).await?;
    let name = format!("kubecamp: {}", person.map(|p| p.to_string()).unwrap_or_default());
    let title = |b: &Booking| match &b.server {
        Some(server) => format!("{} on {server}", b.layout),
        None => format!("{} on any server", b.layout),
    };
    Ok(reply(&headers, &calendar(&name, &bookings, title)))
}

/// A server's slots as an iCalendar feed, with the secret of somebody's own feed.
#[utoipa::path(get, operation_id = "calendar_of_server", path = "/calendar/{feed}/servers/{server}", tag = "calendar", security(()),
    params(("feed" = String, Path), ("server" = String, Path, description = "the server's name and `.ics`")),
    responses(
        (status = 200, body = String, content_type = "text/calendar"),
        (status = 304, description = "It did not change."),
        Refused,
    ))]
pub(super) async fn of_server(
    State(state): State<AppState>,
    headers: HeaderMap,
    ApiPath((feed, server)): ApiPath<(String, String)>,
) -> Answer<Response> {
    let caller = owner(&state, &feed).await?;
    let id = server.strip_suffix(".ics").unwrap_or(&server).parse::<ServerId>();
    let id = id.map_err(|why| Problem::new(Code::HubUnknown, why))?;
    state.desk.server(&caller, state.now(), &id).await?;
    let want = Listing { server: Some(id.clone()), within: Some(reach(state.now())), ..Listing::default() };
    let bookings = state.desk.calendar(&caller, state.now(), &want).await?;
    let title = |b: &Booking| format!("{}: {}", b.person, b.layout);
    Ok(reply(&headers, &calendar(&format!("kubecamp: server {id}"), &bookings, title)))
}

fn reach(now: Epoch) -> Window {
    Window { starts: now - BACK, ends: Epoch::LAST }
}

fn reply(headers: &HeaderMap, text: &str) -> Response {
    let tag = format!("\"{}\"", hex::encode(&Sha256::digest(text)[..16]));
    let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let same = known.is_some_and(|all| all.split(',').any(|t| t.trim().trim_start_matches("W/") == tag));
    let mut response = if same { StatusCode::NOT_MODIFIED.into_response() } else { text.to_owned().into_response() };
    let all = response.headers_mut();
    all.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/calendar; charset=utf-8"));
    all.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    all.extend(HeaderValue::from_str(&tag).ok().map(|tag| (header::ETAG, tag)));
    response
}

/// The feed: cancelled slots stay in it, since a calendar keeps for ever what it is not told to drop.
fn calendar(name: &str, bookings: &[Booking], title: impl Fn(&Booking) -> String) -> String {
    let mut calendar = Calendar::empty();
    calendar.append_property(Property::new("VERSION", "2.0"));
    calendar.append_property(Property::new("PRODID", "-//kubecamp//hub//EN"));
    calendar.append_property(Property::new("CALSCALE", "GREGORIAN"));
    calendar.append_property(Property::new("METHOD", "PUBLISH"));
    calendar.append_property(Property::new("X-WR-CALNAME", name));
    calendar.append_property(Property::new("REFRESH-INTERVAL;VALUE=DURATION", "PT15M"));
    for booking in bookings {
        calendar.push(entry(booking, &title(booking)));
    }
    calendar.to_string()
}

fn entry(booking: &Booking, title: &str) -> Event {
    let status = match booking.state {
        Stage::Waitlisted | Stage::Offered => "TENTATIVE",
        Stage::Cancelled | Stage::NoShow => "CANCELLED",
        _ => "CONFIRMED",
    };
    let mut event = Event::new();
    event.uid(&format!("{}@hub.kubecamp", booking.id));
    event.add_property("DTSTAMP", stamp(booking.updated));
    event.add_property("LAST-MODIFIED", stamp(booking.updated));
    event.add_property("CREATED", stamp(booking.created));
    event.add_property("SEQUENCE", booking.version.to_string());
    event.add_property("DTSTART", stamp(booking.window.starts));
    event.add_property("DTEND", stamp(booking.window.ends));
    event.add_property("STATUS", status);
    event.add_property("TRANSP", if status == "CANCELLED" { "TRANSPARENT" } else { "OPAQUE" });
    event.summary(&plain(title));
    let note = booking.note.as_deref().map(|n| format!("\n{}", plain(n))).unwrap_or_default();
    event.description(&format!("Booking {}: {}{note}", booking.id, booking.state));
    event
}

/// Text without control characters: a carriage return would begin a line of its own.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::domain::BookingId;

    fn booking(note: &str) -> Booking {
        let (starts, ends) = (Epoch(1_795_467_600), Epoch(1_795_474_800));
        Booking {
            id: BookingId::from_random([7; 8]),
            server: "srv1".parse().ok(),
            place: Some(0),
            person: "amy".parse().unwrap(),
            course: "k8s".parse().unwrap(),
            group: None,
            layout: "2x4c8g".parse().unwrap(),
            window: Window { starts, ends },
            busy_until: ends,
            state: Stage::Booked,
            since: starts,
            version: 3,
            created: starts,
            updated: starts,
            offer_until: None,
            came: None,
            charged: 7200,
            lapses: 0,
            series: None,
            wished: None,
            note: Some(note.into()),
            refused: None,
            stranded: None,
            moves: 0,
            labels: [].into(),
            ended_by: None,
        }
    }

    fn unfolded(text: &str) -> Vec<String> {
        text.replace("\r\n ", "").split("\r\n").map(str::to_owned).collect()
    }

    #[test]
    fn an_entry_says_what_calendars_need() {
        let mut cancelled = booking("");
        cancelled.state = Stage::Cancelled;
        let text = calendar("x", &[booking("why"), cancelled], |_| "2x4c8g on srv1".into());
        let lines = unfolded(&text);
        for want in [
            "DTSTART:20261123T210000Z",
            "DTEND:20261123T230000Z",
            "SEQUENCE:3",
            "DTSTAMP:20261123T210000Z",
            "STATUS:CONFIRMED",
            "STATUS:CANCELLED",
            "SUMMARY:2x4c8g on srv1",
        ] {
            assert!(lines.iter().any(|l| l == want), "{want}\n{text}");
        }
        assert!(!text.contains("ATTENDEE") && lines.iter().filter(|l| l.starts_with("UID:")).count() == 2);
        assert_eq!(lines.iter().filter(|l| l.starts_with("DTSTAMP")).count(), 2, "one for each entry");
    }

    proptest::proptest! {
        #[test]
        fn a_note_never_becomes_a_line(note in "\\PC{0,80}|(.|\r|\n|END:VEVENT|[,;:\\\\]){0,40}") {
            let text = calendar("x", &[booking(&note)], |b| b.note.clone().unwrap_or_default());
            let lines = unfolded(&text);
            assert_eq!(lines.iter().filter(|l| l.starts_with("END:")).count(), 2, "{text}");
            assert!(text.split("\r\n").all(|l| !l.contains('\n') && !l.contains('\r') && l.len() <= 76), "{text}");
            let named = |l: &String| l.is_empty() || l.split([':', ';']).next().is_some_and(|n| n.bytes().all(|b| b.is_ascii_uppercase() || b == b'-'));
            assert!(lines.iter().all(named), "{text}");
        }
    }
}
