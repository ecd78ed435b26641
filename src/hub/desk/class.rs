use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Caller, Desk, book, fit, reason, rules, transaction::transact_once, wish::BookRequest};
use crate::{
    core::{Code, Problem},
    hub::{
        domain::{
            Ask, Booking, ClassPlan, CourseId, Epoch, Free, Group, PersonId, Policy, State, Student, Window, Wish,
            plan_class, used_after,
        },
        store::{Listing, Tx},
    },
    profile::Layout,
};

/// A plan for a whole class.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassRequest {
    /// The course; everybody in its groups gets slots.
    pub course: CourseId,
    /// The lab.
    #[schema(value_type = String, example = "2x4c8g")]
    pub layout: Layout,
    /// How long each slot is, minutes.
    pub minutes: u32,
    /// How many slots each is to have, 1 to 20; who has some of this length and layout already gets the others.
    pub slots: u32,
    /// The slots lie inside of this, 35 days at most, and have not begun.
    pub within: Window,
    /// Who would like what, each person once; who is not named gets what is free.
    #[serde(default)]
    pub wishes: Vec<StudentWishes>,
    /// Why the plan goes past notice and the bookings that a person may have ahead, 1 to 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The `stamp` of the table that was looked at: where it is another one by now, nothing is booked. None books whichever
    /// there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
}

/// One student's wishes.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StudentWishes {
    /// Who.
    pub person: PersonId,
    /// Best first, 20 at most.
    pub wishes: Vec<Wish>,
}

impl Desk {
    /// A fair table for a class; nothing is booked.
    ///
    /// The same wishes give the same table.
    pub async fn plan_class(&self, caller: &Caller, now: Epoch, want: &ClassRequest) -> Result<ClassPlan, Problem> {
        caller.needs_teacher()?;
        let want = checked(want)?;
        let mut tx = self.store.read(now).await?;
        table(&mut tx, &want).await
    }

    /// Books the table that `plan_class` shows, all of it or nothing, and where one was seen no other (`KC-BOOK-STALE`);
    /// hours of the quota do not stop it.
    ///
    /// What is booked by then is no more given, so a second time books what is missing.
    pub async fn book_class(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        want: &ClassRequest,
    ) -> Result<Vec<Booking>, Problem> {
        caller.needs_teacher()?;
        let want = &checked(want)?;
        transact_once!(self, caller, now, key, ("class", want), |tx| {
            let plan = table(&mut tx, want).await?;
            if want.seen.as_ref().is_some_and(|seen| *seen != plan.stamp) {
                let what = format!("the plan for course {} is another one by now", want.course);
                return Err(Problem::new(Code::BookStale, what).hint("Look at it once more, and book that one."));
            }
            let mut made = vec![];
            for row in plan.rows {
                let Some(given) = row.given else { continue };
                let wish = BookRequest {
                    person: Some(row.person),
                    course: Some(want.course.clone()),
                    server: Some(given.server),
                    labels: [].into(),
                    layout: Some(want.layout),
                    window: given.window,
                    reason: Some(want.reason.clone().unwrap_or_else(|| "plan of the class".into())),
                };
                made.push(book::place(&mut tx, caller, &wish, None).await?.0);
            }
            Ok(made)
        })
    }
}

/// It with its reason as it is kept, when it makes sense.
fn checked(want: &ClassRequest) -> Result<ClassRequest, Problem> {
    let sizes =
        (1..=20).contains(&want.slots) && (5..=1440).contains(&want.minutes) && want.within.length() <= 35 * 86_400;
    if !sizes || want.wishes.iter().any(|w| w.wishes.len() > 20) {
        let what = "a class plan has 1 to 20 slots of 5 to 1440 minutes within 35 days, and 20 wishes for each at most";
        return Err(Problem::new(Code::HubInvalid, what).hint("Change slots, minutes, within or wishes of the plan."));
    }
    fit::is_made(want.layout)?;
    let mut seen = BTreeSet::new();
    if let Some(twice) = want.wishes.iter().find(|w| !seen.insert(&w.person)) {
        let what = format!("{} is in the class plan twice", twice.person);
        return Err(Problem::new(Code::HubInvalid, what).hint("Put all of their wishes into one place, best first."));
    }
    Ok(ClassRequest { reason: reason::if_stated(want.reason.as_deref())?, ..want.clone() })
}

/// Somebody of the class, and what they have within the plan's time already.
async fn student(tx: &mut Tx, want: &ClassRequest, policy: &Policy, person: PersonId) -> Result<Student, Problem> {
    let now = tx.now();
    let used = rules::recent_use(tx, &person, now).await? + has_beside(tx, want, &person).await?;
    let own = Listing { person: Some(person.clone()), within: Some(want.within), ..Listing::default() };
    let own = tx.bookings(&own).await?;
    let taken = own.iter().filter(|b| b.state.is_live()).map(|b| b.window).collect();
    let has = own.iter().filter(|b| is_met_by(want, b)).filter_map(slot_of).collect();
    let room = match want.reason {
        None => {
            let ahead = tx.ahead_of(&person, now, None, None).await?;
            Some(u32::try_from(i64::from(policy.open_ahead) - ahead).unwrap_or(0))
        }
        Some(_) => None,
    };
    let wishes = want.wishes.iter().filter(|w| w.person == person).flat_map(|w| w.wishes.clone()).collect();
    let labs = tx.labs_of(&person).await?;
    Ok(Student { person, wishes, used, taken, has, room, labs })
}

/// Seconds of somebody's slots that are not over and not as the plan asks, whenever they are: who holds hours of another lab
/// has had more than who holds nothing. What of them has passed is in the recent use; an offer is nothing yet.
async fn has_beside(tx: &mut Tx, want: &ClassRequest, person: &PersonId) -> Result<i64, Problem> {
    let now = tx.now();
    let ahead = Window { starts: now, ends: Epoch::LAST };
    let own = Listing { person: Some(person.clone()), within: Some(ahead), open: true, ..Listing::default() };
    let own = tx.bookings(&own).await?;
    let holds = |b: &&Booking| b.state.is_live() && b.state != State::Offered;
    let beside = own.iter().filter(|b| holds(b) && !is_met_by(want, b));
    Ok(used_after(&beside.map(Booking::counted).collect::<Vec<_>>(), now))
}

/// Whether a booking is what the plan would give: one that holds its place for certain, or took place.
fn is_met_by(want: &ClassRequest, b: &Booking) -> bool {
    let holds = b.state == State::Done || (b.state.is_live() && b.state != State::Offered);
    let long = b.window.length() >= i64::from(want.minutes) * 60;
    holds && long && b.course == want.course && b.layout == want.layout && want.within.covers(b.window)
}

fn slot_of(b: &Booking) -> Option<Free> {
    Some(Free { server: b.server.clone()?, window: b.window, lab: None, limit: None })
}

async fn table(tx: &mut Tx, want: &ClassRequest) -> Result<ClassPlan, Problem> {
    let now = tx.now();
    let mut policy = tx.course(&want.course).await?.policy;
    let length = i64::from(want.minutes) * 60;
    policy.has_length(length)?;
    let groups: Vec<Group> = tx.groups().await?.into_iter().filter(|g| g.course == want.course).collect();
    let mut logins: Vec<PersonId> = groups.into_iter().flat_map(|g| g.members).collect();
    logins.sort();
    logins.dedup();
    if let Some(stranger) = want.wishes.iter().find(|w| !logins.contains(&w.person)) {
        let what = format!("{} is in no group of course {}", stranger.person, want.course);
        return Err(Problem::new(Code::HubUnknown, what).hint("kubecamp hub group list shows who is in which group."));
    }
    // Locked before anybody is looked at: of two who book a class the second sees what the first has booked.
    let mut grounds = vec![];
    for server in tx.servers().await?.into_iter().filter(|s| s.is_for(&want.course) && s.can_hold(want.layout)) {
        let server = tx.lock_server(&server.id).await?;
        grounds.push(rules::ground(tx, server, want.within).await?);
    }
    if grounds.is_empty() {
        let what = format!("no server for course {} can hold {}", want.course, want.layout);
        return Err(Problem::new(Code::BookLayout, what));
    }
    let mut students = vec![];
    for person in logins {
        if !tx.person(&person).await?.active {
            // Left out without a word, their teacher would take the wish for met.
            if want.wishes.iter().any(|w| w.person == person) {
                return Err(Problem::new(Code::HubInvalid, format!("{person} is not active"))
                    .hint("Take their wishes out of the plan, or open the account again."));
            }
            continue;
        }
        students.push(student(tx, want, &policy, person).await?);
    }
    // Nobody plans a class for a time that has begun.
    let within = Window::new(want.within.starts.max(now), want.within.ends)
        .map_err(|_| Problem::new(Code::BookNotice, format!("{} is over", want.within)))?;
    if want.reason.is_some() {
        policy.notice = 0;
    }
    let ask = Ask { layout: want.layout, length, within, labs: &[], apart: &[] };
    Ok(plan_class(&grounds, &policy, now, &students, ask, want.slots))
}
