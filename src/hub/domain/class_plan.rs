use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::{
    Ask, Beginning, BookingId, Epoch, Free, Ground, Health, Held, PersonId, Policy, SavedLab, ServerId, Window,
    free_slots,
};

/// A time that a student would like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Wish {
    /// Any slot inside of this is fine; the earliest is taken.
    pub within: Window,
}

/// A student of a class plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Student {
    /// Who.
    pub person: PersonId,
    /// Times they would like, best first.
    pub wishes: Vec<Wish>,
    /// Seconds they used in the last seven days, and those that they have ahead beside `has`.
    #[serde(default)]
    pub used: i64,
    /// Windows in which they hold something already.
    #[serde(default)]
    pub taken: Vec<Window>,
    /// Slots of theirs that are as the plan asks, by start: for these they get no others.
    #[serde(default)]
    pub has: Vec<Free>,
    /// How many more slots their rules let them have ahead; none is any number.
    #[serde(default)]
    pub room: Option<u32>,
    /// Their saved labs: of slots that are equal otherwise they get the one that goes on with one.
    #[serde(default)]
    pub labs: Vec<SavedLab>,
}

/// What a student was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Given {
    /// The server.
    pub server: ServerId,
    /// The place there.
    pub place: u32,
    /// When.
    pub window: Window,
    /// Which wish it meets, from 1; none when no wish could be met.
    pub wish: Option<usize>,
    /// With which lab it begins; none where no saved lab has to do with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lab: Option<Beginning>,
}

/// One line of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClassRow {
    /// Who.
    pub person: PersonId,
    /// In which round, from 1.
    pub round: u32,
    /// What they get; none when they have one already, or may have no more, or no slot was left.
    pub given: Option<Given>,
    /// The slot that they have already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has: Option<Free>,
    /// Why this and no other.
    pub why: String,
}

impl ClassRow {
    /// Where and when they have a slot, be it given by the plan or theirs before.
    pub fn slot(&self) -> Option<(&ServerId, Window)> {
        let given = self.given.as_ref().map(|given| (&given.server, given.window));
        given.or_else(|| self.has.as_ref().map(|has| (&has.server, has.window)))
    }
}

/// A table for a whole class; the same wishes always give the same table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClassPlan {
    /// The lines, by round, then in the order of choice.
    pub rows: Vec<ClassRow>,
    /// How many slots meet a wish.
    pub wished: usize,
    /// How many slots were given.
    pub given: usize,
    /// What tells its lines from those of another table; older hubs say nothing.
    #[serde(default)]
    pub stamp: String,
}

/// Gives each student as many slots of `ask.length` within `ask.within` as are missing to `slots`.
///
/// In each round everybody chooses once who has no slot for it already: who had least (recent use, what is theirs ahead and
/// what the plan gave) first, then who has fewest wishes that can still be met, then by login. Each gets the best wish that
/// is still free, else the next free slot.
pub fn plan_class(
    grounds: &[Ground],
    policy: &Policy,
    now: Epoch,
    students: &[Student],
    ask: Ask<'_>,
    slots: u32,
) -> ClassPlan {
    let mut grounds = grounds.to_vec();
    grounds.sort_by(|a, b| a.server.id.cmp(&b.server.id));
    let mut students: Vec<Student> = students.to_vec();
    students.sort_by(|a, b| a.person.cmp(&b.person));
    students.dedup_by(|a, b| a.person == b.person);
    let mut had: BTreeMap<PersonId, i64> = students.iter().map(|s| (s.person.clone(), s.used)).collect();
    let mut plan = ClassPlan { rows: vec![], wished: 0, given: 0, stamp: String::new() };
    for round in 1..=slots {
        let mut left = vec![];
        for (index, student) in students.iter().enumerate() {
            match student.has.get(round as usize - 1) {
                Some(has) => {
                    // What is over is in the recent use.
                    let ahead = has.window.length().min((has.window.ends - now).max(0));
                    *had.entry(student.person.clone()).or_default() += ahead;
                    plan.rows.push(kept(student, round, has));
                }
                None => left.push(index),
            }
        }
        while !left.is_empty() {
            let at = next_to_choose(&left, &students, &had, &grounds, policy, now, ask);
            let index = left.remove(at);
            let row = choose(&mut grounds, policy, now, &mut students[index], ask, round, &had, plan.given);
            if let Some(given) = &row.given {
                *had.entry(row.person.clone()).or_default() += given.window.length();
                plan.given += 1;
                plan.wished += usize::from(given.wish.is_some());
            }
            plan.rows.push(row);
        }
    }
    plan.stamp = stamp(&plan.rows);
    plan
}

fn stamp(rows: &[ClassRow]) -> String {
    let text = serde_json::to_vec(rows).unwrap_or_default();
    hex::encode(&Sha256::digest(text)[..12])
}

/// The position in `left` of who chooses next.
fn next_to_choose(
    left: &[usize],
    students: &[Student],
    had: &BTreeMap<PersonId, i64>,
    grounds: &[Ground],
    policy: &Policy,
    now: Epoch,
    ask: Ask<'_>,
) -> usize {
    let key = |position: usize| {
        let student = &students[left[position]];
        let open = (0..student.wishes.len()).filter(|n| meet(grounds, policy, now, student, ask, *n).is_some()).count();
        // Without any wish that can be met there is nothing to lose by waiting.
        let open = if open == 0 { usize::MAX } else { open };
        (had[&student.person], open, student.person.clone())
    };
    let least = (0..left.len()).map(|p| had[&students[left[p]].person]).min().unwrap_or(0);
    (0..left.len()).filter(|p| had[&students[left[*p]].person] == least).min_by_key(|p| key(*p)).unwrap_or(0)
}

/// The slot that meets a wish, when one is still free.
fn meet(grounds: &[Ground], policy: &Policy, now: Epoch, student: &Student, ask: Ask<'_>, wish: usize) -> Option<Free> {
    let within = student.wishes[wish].within.common(ask.within)?;
    first_free(grounds, policy, now, student, Ask { within, ..ask })
}

fn first_free(grounds: &[Ground], policy: &Policy, now: Epoch, student: &Student, ask: Ask<'_>) -> Option<Free> {
    let ask = Ask { labs: &student.labs, apart: &student.taken, ..ask };
    free_slots(grounds, policy, now, ask, 1).into_iter().next()
}

#[expect(clippy::too_many_arguments, reason = "one step of the loop above, which has all of these at hand")]
fn choose(
    grounds: &mut [Ground],
    policy: &Policy,
    now: Epoch,
    student: &mut Student,
    ask: Ask<'_>,
    round: u32,
    had: &BTreeMap<PersonId, i64>,
    number: usize,
) -> ClassRow {
    if student.room == Some(0) {
        let why = format!("has as many bookings ahead as are allowed, {}", policy.open_ahead);
        return ClassRow { person: student.person.clone(), round, given: None, has: None, why };
    }
    let wished = (0..student.wishes.len()).find_map(|n| Some((n, meet(grounds, policy, now, student, ask, n)?)));
    let hours = |seconds: i64| format!("{:.1} h", seconds as f64 / 3600.0);
    let before = hours(had[&student.person]);
    let (free, wish, why) = match wished {
        Some((n, free)) => {
            let why =
                if lacking(&student.wishes[..n], ask) == 0 { "taken or closed" } else { "taken, closed or too short" };
            let passed = if n == 0 { String::new() } else { format!(", {n} better wishes were {why}") };
            (Some(free), Some(n + 1), format!("had {before} before; wish {} was free{passed}", n + 1))
        }
        None => {
            let no_wish = unmet(&student.wishes, ask);
            let out = grounds.iter().all(|ground| ground.server.health != Health::Healthy);
            let none = if out { "all servers are out of use" } else { "no slot is left" };
            match first_free(grounds, policy, now, student, ask) {
                Some(free) => (Some(free), None, format!("had {before} before; {no_wish}: the next free slot")),
                None => (None, None, format!("had {before} before; {no_wish}, and {none}")),
            }
        }
    };
    let given = free.and_then(|free| {
        let ground = grounds.iter_mut().find(|g| g.server.id == free.server)?;
        let place = ground.place_for(free.window, ask.layout)?;
        let booking = planned(number);
        ground.held.add(Held { booking, place, busy: ground.server.busy(free.window), layout: ask.layout });
        student.taken.push(free.window);
        student.room = student.room.map(|room| room.saturating_sub(1));
        Some(Given { server: free.server, place, window: free.window, wish, lab: free.lab })
    });
    let lab = given.as_ref().and_then(|g| g.lab.as_ref());
    let why = lab.map_or_else(|| why.clone(), |lab| format!("{why}; it begins with {lab}"));
    ClassRow { person: student.person.clone(), round, given, has: None, why }
}

/// How many wishes have no room for a slot, as far as they lie in the plan's time: nobody else is in their way.
fn lacking(wishes: &[Wish], ask: Ask<'_>) -> usize {
    let has_room = |wish: &Wish| wish.within.common(ask.within).is_some_and(|within| within.length() >= ask.length);
    wishes.iter().filter(|wish| !has_room(wish)).count()
}

/// Why none of somebody's wishes was met.
fn unmet(wishes: &[Wish], ask: Ask<'_>) -> String {
    let (count, lacking, minutes) = (wishes.len(), lacking(wishes, ask), ask.length / 60);
    match lacking {
        _ if count == 0 => "no wishes".to_owned(),
        0 => format!("none of {count} wishes was free"),
        all if all == count => format!("none of {count} wishes has room for {minutes} minutes"),
        some => format!("none of {count} wishes was free, {some} of them without room for {minutes} minutes"),
    }
}

/// The line of somebody who has the slot of a round already.
fn kept(student: &Student, round: u32, has: &Free) -> ClassRow {
    let why = "has this slot already".to_owned();
    ClassRow { person: student.person.clone(), round, given: None, has: Some(has.clone()), why }
}

/// A stand-in id for a slot that is only planned.
fn planned(number: usize) -> BookingId {
    BookingId::from_random((number as u64).to_be_bytes())
}
