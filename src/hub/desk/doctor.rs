use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Caller, Desk};
use crate::{
    core::Problem,
    hub::{
        domain::{Booking, Epoch, Health, Server, State},
        store::{Listing, Tx},
    },
};

/// What the doctor found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Checkup {
    /// How many bookings were looked at.
    pub bookings: usize,
    /// How many audit rows were played back.
    pub audit: usize,
    /// What contradicts itself; each line names the booking or server. Empty when all is well.
    pub wrong: Vec<String>,
    /// What an admin should look at: silent agents, clocks, quarantine.
    pub notes: Vec<String>,
}

/// What the audit says of a booking: its last state and version.
type Played = BTreeMap<String, (State, i64)>;

impl Desk {
    /// Checks all records against each other: windows, places, states, occupants, and that playing the audit back
    /// gives the state that the database holds.
    pub async fn doctor(&self, caller: &Caller, now: Epoch) -> Result<Checkup, Problem> {
        caller.needs_admin()?;
        let mut tx = self.store.read(now).await?;
        let mut found = Checkup { bookings: 0, audit: 0, wrong: vec![], notes: vec![] };
        // The audit first: on PostgreSQL each statement sees what is committed by then, and bookings must be newer.
        let played = play(&mut tx, &mut found).await?;
        let all = tx.bookings(&Listing::default()).await?;
        found.bookings = all.len();
        for booking in &all {
            check_booking(booking, &played, &mut found);
        }
        for id in played.keys().filter(|id| !all.iter().any(|b| b.id.as_str() == id.as_str())) {
            found.wrong.push(format!("booking {id} is in the audit, but not in the database"));
        }
        for (one, two) in tx.overlaps().await? {
            found.wrong.push(format!("bookings {one} and {two} overlap on one place"));
        }
        for server in tx.servers().await? {
            check_server(&server, &all, now, &mut found);
        }
        Ok(found)
    }
}

async fn play(tx: &mut Tx, found: &mut Checkup) -> Result<Played, Problem> {
    let (mut played, mut after) = (Played::new(), 0);
    loop {
        let rows = tx.audit_after(after, None, 1000).await?;
        let Some(last) = rows.last() else { return Ok(played) };
        after = last.id;
        found.audit += rows.len();
        for row in rows {
            let (Some(id), Some(to), Some(version)) =
                (row.subject.strip_prefix("booking:"), &row.to_state, row.version)
            else {
                continue;
            };
            let Ok(to) = to.parse::<State>() else {
                found.wrong.push(format!("audit row {} has no known state", row.id));
                continue;
            };
            let from = row.from_state.as_deref().and_then(|s| s.parse::<State>().ok());
            let legal = match (from, played.get(id)) {
                (None, None) => to.is_first() && version == 1,
                (Some(from), Some((state, before))) => {
                    from == *state && version == before + 1 && (from == to || from.may_become(to))
                }
                _ => false,
            };
            if !legal {
                found.wrong.push(format!("audit row {}: booking {id} cannot go to {to} in version {version}", row.id));
            }
            played.insert(id.to_owned(), (to, version));
        }
    }
}

fn check_booking(booking: &Booking, played: &Played, found: &mut Checkup) {
    let id = &booking.id;
    match played.get(id.as_str()) {
        None => found.wrong.push(format!("booking {id} has no audit")),
        Some((state, version)) if *state != booking.state || *version != booking.version => {
            let (own, at) = (booking.state, booking.version);
            found.wrong.push(format!(
                "booking {id} is {own} in version {at}, but the audit says {state} in version {version}"
            ));
        }
        Some(_) => {}
    }
    if booking.state.is_live() && (booking.server.is_none() || booking.place.is_none()) {
        found.wrong.push(format!("booking {id} is {} without a place", booking.state));
    }
    if booking.busy_until < booking.window.ends || booking.window.length() <= 0 {
        found.wrong.push(format!("booking {id} has an impossible window"));
    }
    if (booking.state == State::Offered) != booking.offer_until.is_some() {
        found.wrong.push(format!("booking {id} is {} and its offer does not fit", booking.state));
    }
}

fn check_server(server: &Server, all: &[Booking], now: Epoch, found: &mut Checkup) {
    let id = &server.id;
    match server.occupant.as_ref().map(|o| all.iter().find(|b| b.id == *o)) {
        Some(None) => found.wrong.push(format!("server {id} is occupied by a booking that does not exist")),
        Some(Some(b)) if matches!(b.state, State::Waitlisted | State::Offered | State::Booked | State::Delayed) => {
            found.wrong.push(format!("server {id} is occupied by booking {}, which is {}", b.id, b.state));
        }
        _ => {}
    }
    let inside = |b: &&Booking| {
        matches!(b.state, State::Arming | State::Active | State::Ending | State::Saving | State::Resetting)
    };
    for b in all.iter().filter(|b| b.server.as_ref() == Some(id)).filter(inside) {
        if server.mode == crate::hub::domain::Mode::Exclusive && server.occupant.as_ref() != Some(&b.id) {
            found.wrong.push(format!("booking {} is {} on server {id}, but is not its occupant", b.id, b.state));
        }
        if now > b.busy_until {
            found.notes.push(format!("booking {} is {} since {}, past its time", b.id, b.state, b.since));
        }
    }
    if server.issued > 0 && server.seen.is_none_or(|seen| now - seen > 120) {
        found.notes.push(format!("the agent of server {id} was not heard for two minutes"));
    }
    if server.clock_offset.abs() > 2 {
        found.notes.push(format!("the clock of server {id} is {} s off", server.clock_offset));
    }
    if server.health != Health::Healthy {
        let note = server.health_note.as_deref().unwrap_or("no reason was given");
        found.notes.push(format!("server {id} is {}: {note}", server.health.as_str()));
    }
}
