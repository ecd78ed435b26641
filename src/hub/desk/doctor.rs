use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Caller, Desk};
use crate::{
    core::Problem,
    hub::{
        domain::{Booking, Epoch, Health, Person, Server, State},
        store::{AuditRow, Listing, Tx},
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
    /// What an admin should look at: silent agents, clocks, quarantine, buffers that are too short.
    pub notes: Vec<String>,
}

/// What the audit says of a booking: its last state and version.
type Played = BTreeMap<String, (State, i64)>;

/// How long each server's hand-overs took, from the end of a slot to the proof, seconds; the newest last.
#[derive(Default)]
struct HandOvers {
    /// By booking: when those began that are not done yet.
    began: BTreeMap<String, Epoch>,
    /// By server.
    took: BTreeMap<String, Vec<i64>>,
}

/// So many hand-overs of a server are looked at: an older one was perhaps another machine's.
const NEWEST: usize = 50;
/// Fewer than these say nothing yet.
const ENOUGH: usize = 5;

impl Desk {
    /// Checks all records against each other: windows, places, states, occupants, and that playing the audit back
    /// gives the state that the database holds.
    pub async fn doctor(&self, caller: &Caller, now: Epoch) -> Result<Checkup, Problem> {
        caller.needs_admin()?;
        let mut tx = self.store.read(now).await?;
        let mut found = Checkup { bookings: 0, audit: 0, wrong: vec![], notes: vec![] };
        // The audit first: on PostgreSQL each statement sees what is committed by then, and bookings must be newer.
        let (played, hand_overs) = play(&mut tx, &mut found).await?;
        let all = tx.bookings(&Listing::default()).await?;
        found.bookings = all.len();
        for booking in &all {
            check_booking(booking, &played, &mut found);
        }
        // A set: a year's audit has as many ids as there are bookings.
        let there: BTreeSet<&str> = all.iter().map(|b| b.id.as_str()).collect();
        for id in played.keys().filter(|id| !there.contains(id.as_str())) {
            found.wrong.push(format!("booking {id} is in the audit, but not in the database"));
        }
        for (one, two) in tx.overlaps().await? {
            found.wrong.push(format!("bookings {one} and {two} overlap on one place"));
        }
        check_keys(&tx.people().await?, &mut found);
        for server in tx.servers().await? {
            check_server(&server, &all, now, &mut found);
            check_buffer(&server, &hand_overs, &mut found);
            check_plan(&mut tx, &server, &mut found).await?;
        }
        Ok(found)
    }
}

async fn play(tx: &mut Tx, found: &mut Checkup) -> Result<(Played, HandOvers), Problem> {
    let (mut played, mut hand_overs, mut after) = (Played::new(), HandOvers::default(), 0);
    loop {
        let rows = tx.audit_after(after, None, 1000).await?;
        let Some(last) = rows.last() else { return Ok((played, hand_overs)) };
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
            hand_overs.note(id, to, &row);
        }
    }
}

impl HandOvers {
    fn note(&mut self, id: &str, to: State, row: &AuditRow) {
        let told = row.detail.get("happened").and_then(|at| serde_json::from_value::<Epoch>(at.clone()).ok());
        let at = told.unwrap_or(row.moment);
        match to {
            State::Ending => {
                self.began.entry(id.to_owned()).or_insert(at);
            }
            State::Done => {
                let took = self.began.remove(id).map(|began| at - began);
                // A clock that was set in between tells nothing.
                let sound = took.filter(|took| (0..=86_400).contains(took));
                if let (Some(took), Some(server)) = (sound, row.detail["server"].as_str()) {
                    self.took.entry(server.to_owned()).or_default().push(took);
                }
            }
            _ => {}
        }
    }
}

/// The 95th percentile of the newest hand-overs and how many they were, where a buffer is shorter than that.
fn too_short(buffer: i64, took: &[i64]) -> Option<(i64, usize)> {
    let mut newest = took[took.len().saturating_sub(NEWEST)..].to_vec();
    if newest.len() < ENOUGH {
        return None;
    }
    newest.sort_unstable();
    let rank = (newest.len() * 95).div_ceil(100);
    newest.get(rank - 1).filter(|p95| buffer < **p95).map(|p95| (*p95, newest.len()))
}

fn check_buffer(server: &Server, hand_overs: &HandOvers, found: &mut Checkup) {
    let (id, buffer) = (&server.id, server.buffer);
    let took = hand_overs.took.get(id.as_str()).map(Vec::as_slice).unwrap_or_default();
    if let Some((p95, count)) = too_short(buffer, took) {
        let minutes = (p95 + 59) / 60;
        found.notes.push(format!(
            "the buffer of server {id} is {buffer} s, but 95 % of its last {count} hand-overs took up to {p95} s, so the \
             next slot may begin late: kubecamp hub server set {id} --buffer {minutes}"
        ));
    }
}

/// That an agent takes the plans that it is given, as far as it tells.
async fn check_plan(tx: &mut Tx, server: &Server, found: &mut Checkup) -> Result<(), Problem> {
    let (id, now) = (&server.id, tx.now());
    // Of a silent one that is told, and what it said last may be long over.
    let Some(why) = tx.plan_refused(id).await?.filter(|_| server.is_alive(now)) else { return Ok(()) };
    found.notes.push(format!("the agent of server {id} does not take the plan that it is given: {why}"));
    Ok(())
}

/// Keys that several people have. A roster may name one twice by mistake, and then somebody signs in as another.
fn check_keys(people: &[Person], found: &mut Checkup) {
    let mut holders = BTreeMap::<&str, Vec<&str>>::new();
    for person in people.iter().filter(|p| p.active) {
        for key in person.keys.iter().filter_map(|key| key.split_whitespace().nth(1)) {
            holders.entry(key).or_default().push(person.id.as_str());
        }
    }
    for all in holders.values().filter(|all| all.len() > 1) {
        found.notes.push(format!("{} have one SSH key: whoever holds it signs in as each of them", all.join(" and ")));
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
        Some(Some(b)) if b.state == State::NoShow && now > b.busy_until => found.notes.push(format!(
            "server {id} is still occupied by booking {}, which is {}: its agent has not told that the place is clear",
            b.id, b.state
        )),
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
    let outside = all.iter().filter(|b| server.is_closed_for(b)).count();
    if outside > 0 {
        let lie = if outside == 1 { "booking lies" } else { "bookings lie" };
        found.notes.push(format!(
            "{outside} {lie} outside of the opening hours of server {id}: cancel what nobody meant, the rest stays"
        ));
    }
    if server.is_strange() {
        found.notes.push(format!(
            "server {id} is not enrolled yet, so nobody gets in: kubecamp hub enroll HOST --server {id} --hub URL"
        ));
    }
    if server.issued > 0 && (server.seen.is_none() || server.is_silent(now)) {
        found.notes.push(format!("the agent of server {id} was not heard for two minutes: it is away, or hangs"));
    }
    if server.acked < server.issued && server.is_alive(now) {
        let (acked, issued) = (server.acked, server.issued);
        found.notes.push(format!(
            "the agent of server {id} carries out revision {acked} of its plan, and was given {issued}: if it takes no newer one \
             for a minute its log says why, and after new keys of the hub it must be enrolled again"
        ));
    }
    if server.is_clock_off() {
        found.notes.push(format!("the clock of server {id} is {} s off", server.clock_offset));
    }
    if server.health != Health::Healthy {
        let note = server.health_note.as_deref().unwrap_or("no reason was given");
        found.notes.push(format!("server {id} is {}: {note}", server.health.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_compared_with_what_nearly_all_took() {
        assert_eq!(too_short(600, &[]), None);
        assert_eq!(too_short(600, &[720; 4]), None, "too few");
        assert_eq!(too_short(600, &[720; 5]), Some((720, 5)));
        assert_eq!(too_short(720, &[720; 5]), None, "it is enough");
        let with_slow = |slow: usize| [vec![9000; slow], vec![300; 20 - slow]].concat();
        assert_eq!(too_short(600, &with_slow(1)), None, "one of twenty may be slow");
        assert_eq!(too_short(600, &with_slow(2)), Some((9000, 20)));
        assert_eq!(too_short(600, &[vec![9000; 50], vec![300; 50]].concat()), None, "only the newest count");
    }
}
