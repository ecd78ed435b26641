use std::collections::BTreeSet;

use crate::{
    core::{Code, Problem},
    hub::{
        domain::{
            Booking, BookingId, Course, CourseId, Epoch, Free, Ground, GroupId, Person, PersonId, Policy, ROLLING,
            Role, SavedLab, SeriesId, Server, State, Use, Window, most_in_any_week, used_before,
        },
        store::{Listing, Tx},
    },
};

/// Somebody in a course, with its rules.
pub(in crate::hub) struct Standing {
    pub person: Person,
    pub course: Course,
    pub group: Option<GroupId>,
    /// Their labs on whatever servers.
    pub labs: Vec<SavedLab>,
}

/// Finds the course and group that count for a person; `course` decides where there are several.
pub(in crate::hub) async fn standing(
    tx: &mut Tx,
    person: &PersonId,
    course: Option<&CourseId>,
) -> Result<Standing, Problem> {
    let (person, course, group) = membership(tx, person, course).await?;
    let labs = tx.labs_of(&person.id).await?;
    Ok(Standing { person, course, group, labs })
}

/// Locks somebody who was found to be in a course, and looks once more: see [`still_is`].
pub(super) async fn lock(tx: &mut Tx, found: &Standing) -> Result<(), Problem> {
    tx.lock_person(&found.person.id).await?;
    still_is(tx, found).await
}

/// Refuses somebody, who is locked by now, when their account was closed or they have left the group since they were found.
///
/// Whoever does so from here on waits for the lock, and finds what is booked under it.
pub(super) async fn still_is(tx: &mut Tx, found: &Standing) -> Result<(), Problem> {
    if !tx.is_shared() {
        return Ok(());
    }
    let id = &found.person.id;
    let (_, _, group) = membership(tx, id, Some(&found.course.id)).await?;
    if group != found.group {
        return Err(Problem::new(Code::BookStale, format!("person {id} was changed in between")));
    }
    Ok(())
}

/// What to do where it is not clear which course counts.
const NAME_IT: &str = "Name the course: --course COURSE.";

/// The course and group that count for a person.
async fn membership(
    tx: &mut Tx,
    person: &PersonId,
    course: Option<&CourseId>,
) -> Result<(Person, Course, Option<GroupId>), Problem> {
    let (person, mut groups) = tx.person_in_courses(person).await?;
    if !person.active {
        return Err(Problem::new(Code::HubDenied, format!("{} is not active", person.id)));
    }
    groups.retain(|(_, of)| course.is_none_or(|c| of.id == *c));
    let courses: BTreeSet<&CourseId> = groups.iter().map(|(_, of)| &of.id).collect();
    let found = match (course, groups.first()) {
        _ if courses.len() > 1 => {
            let names: Vec<_> = courses.iter().map(ToString::to_string).collect();
            let what = format!("{} is in several courses: {}", person.id, names.join(", "));
            return Err(Problem::new(Code::HubInvalid, what).hint(NAME_IT));
        }
        (_, Some((_, only))) => only.clone(),
        (Some(named), None) if person.role != Role::Student => tx.course(named).await?,
        (Some(named), None) => {
            return Err(Problem::new(Code::HubDenied, format!("{} is in no group of course {named}", person.id)));
        }
        (None, None) => {
            let hint = if person.role == Role::Student {
                "A teacher takes them into one: kubecamp hub group join GROUP LOGIN."
            } else if tx.courses().await?.is_empty() {
                "There is no course yet: kubecamp hub course set NAME --title TITLE."
            } else {
                NAME_IT
            };
            return Err(Problem::new(Code::HubInvalid, format!("{} is in no group", person.id)).hint(hint));
        }
    };
    let group = groups.first().map(|(id, _)| id.clone());
    Ok((person, found, group))
}

/// A server with what is taken in and around a window.
pub(in crate::hub) async fn ground(tx: &mut Tx, server: Server, window: Window) -> Result<Ground, Problem> {
    let wide = Window { starts: window.starts, ends: server.busy(window).ends };
    let held = tx.held(&server.id, wide).await?;
    let closed = tx.maintenance(wide).await?;
    Ok(Ground { server, held, closed })
}

/// Refuses somebody who would be in two slots at a time.
///
/// A wait does not count.
pub(super) async fn not_twice(
    tx: &mut Tx,
    person: &PersonId,
    window: Window,
    except: Option<&BookingId>,
) -> Result<(), Problem> {
    let held = held_then(tx, person, window).await?;
    match held.iter().find(|b| Some(&b.id) != except) {
        Some(other) => Err(twice(other)),
        None => Ok(()),
    }
}

/// The slots that somebody holds at a time; a wait is none.
pub(super) async fn held_then(tx: &mut Tx, person: &PersonId, window: Window) -> Result<Vec<Booking>, Problem> {
    let want = Listing { person: Some(person.clone()), within: Some(window), ..Listing::default() };
    let mut held = tx.bookings(&want).await?;
    held.retain(|b| b.state.is_live() && b.window.overlaps(window));
    Ok(held)
}

/// That somebody holds a slot already.
pub(super) fn twice(held: &Booking) -> Problem {
    let person = &held.person;
    Problem::new(Code::BookOwn, format!("{person} holds booking {} at {}", held.id, held.window))
}

/// Refuses more bookings ahead than allowed; those of one recurrence count as one.
///
/// `series` is the one that is being made.
pub(super) async fn not_too_many(
    tx: &mut Tx,
    policy: &Policy,
    person: &PersonId,
    now: Epoch,
    except: Option<&BookingId>,
    series: Option<&SeriesId>,
) -> Result<(), Problem> {
    let ahead = tx.ahead_of(person, now, except, series).await?;
    if ahead >= i64::from(policy.open_ahead) {
        let what = format!("{person} has {ahead} bookings ahead, and {} are allowed", policy.open_ahead);
        return Err(Problem::new(Code::BookAhead, what));
    }
    Ok(())
}

/// Refuses more waits than allowed: one person may not stand in every queue.
pub(super) async fn not_too_many_waits(tx: &mut Tx, policy: &Policy, person: &PersonId) -> Result<(), Problem> {
    let want = Listing { person: Some(person.clone()), state: Some(State::Waitlisted), ..Listing::default() };
    let waits = tx.bookings(&want).await?.len();
    if waits >= policy.waits as usize {
        let what = format!("{person} waits for {waits} slots, and {} are allowed", policy.waits);
        return Err(Problem::new(Code::BookAhead, what).hint("Leave one of them: kubecamp book cancel."));
    }
    Ok(())
}

/// Whether it is a rule that says no to somebody, and not the server.
pub(super) fn is_rule(code: Code) -> bool {
    matches!(code, Code::BookOwn | Code::BookAhead | Code::BookQuota | Code::BookGroupQuota)
}

/// Whether somebody may have a slot; what is no rule's answer stays a failure.
pub(super) fn holds(asked: Result<(), Problem>) -> Result<bool, Problem> {
    match asked {
        Ok(()) => Ok(true),
        Err(problem) if is_rule(problem.code) => Ok(false),
        Err(problem) => Err(problem),
    }
}

/// Refuses what would go over the hours of a person or group in any seven days.
///
/// Locks the group's row.
pub(super) async fn within_quota(
    tx: &mut Tx,
    policy: &Policy,
    person: &PersonId,
    group: Option<&GroupId>,
    window: Window,
    except: Option<&BookingId>,
) -> Result<(), Problem> {
    Hours::of_person(tx, policy, person, window).await?.have_room(window, except)?;
    let Some(group) = group else { return Ok(()) };
    tx.lock_group(group).await?;
    Hours::of_group(tx, policy, group, window).await?.have_room(window, except)
}

/// Who has hours to use.
enum Whose {
    Person(PersonId),
    Group(GroupId),
}

/// What counts of somebody's hours, or of a group's, in all seven days that touch a window, and how many are allowed.
struct Hours {
    whose: Whose,
    uses: Vec<(BookingId, Use)>,
    allowed: u32,
}

impl Hours {
    async fn of_person(tx: &mut Tx, policy: &Policy, person: &PersonId, window: Window) -> Result<Self, Problem> {
        let uses = tx.uses_of_person(person, window.wider(ROLLING)).await?;
        Ok(Self { whose: Whose::Person(person.clone()), uses, allowed: policy.person_hours })
    }

    async fn of_group(tx: &mut Tx, policy: &Policy, group: &GroupId, window: Window) -> Result<Self, Problem> {
        let uses = tx.uses_of_group(group, window.wider(ROLLING)).await?;
        Ok(Self { whose: Whose::Group(group.clone()), uses, allowed: policy.group_hours })
    }

    /// Refuses what would go over them in any seven days; `except` is not counted.
    fn have_room(&self, window: Window, except: Option<&BookingId>) -> Result<(), Problem> {
        let wide = window.wider(ROLLING);
        let near = |of: &Use| of.starts < wide.ends && of.starts + of.seconds > wide.starts;
        let others = self.uses.iter().filter(|(id, of)| Some(id) != except && near(of)).map(|(_, of)| *of);
        let uses: Vec<Use> = others.chain([Use { starts: window.starts, seconds: window.length() }]).collect();
        let used = most_in_any_week(&uses, window);
        if used <= i64::from(self.allowed) * 3600 {
            return Ok(());
        }
        let (hours, most) = (used as f64 / 3600.0, self.allowed);
        let (code, what) = match &self.whose {
            Whose::Person(person) => {
                (Code::BookQuota, format!("{person} would have {hours:.1} h in seven days, and {most} are allowed"))
            }
            Whose::Group(group) => (
                Code::BookGroupQuota,
                format!("group {group} would have {hours:.1} h in seven days, and {most} are allowed"),
            ),
        };
        Err(Problem::new(code, what))
    }
}

/// Notes of free slots of one length, by start, which of the person's own limits keeps them from the person, in the words in which
/// they would be refused.
pub(super) async fn note_limits(tx: &mut Tx, standing: &Standing, found: &mut [Free]) -> Result<(), Problem> {
    let (Some(first), Some(last)) = (found.first(), found.last()) else { return Ok(()) };
    let all = Window { starts: first.window.starts, ends: last.window.ends };
    let (policy, person, now) = (&standing.course.policy, &standing.person.id, tx.now());
    let ahead = match not_too_many(tx, policy, person, now, None, None).await {
        Err(problem) if is_rule(problem.code) => Some(problem.what),
        asked => asked.map(|()| None)?,
    };
    let mut hours = vec![Hours::of_person(tx, policy, person, all).await?];
    if let Some(group) = &standing.group {
        hours.push(Hours::of_group(tx, policy, group, all).await?);
    }
    for free in found {
        let over = || hours.iter().find_map(|of| of.have_room(free.window, None).err()).map(|problem| problem.what);
        free.limit = ahead.clone().or_else(over);
    }
    Ok(())
}

/// Seconds that a person used in the last seven days: what fairness compares.
pub(in crate::hub) async fn recent_use(tx: &mut Tx, person: &PersonId, now: Epoch) -> Result<i64, Problem> {
    let wide = Window { starts: now - ROLLING, ends: now };
    let uses: Vec<Use> = tx.uses_of_person(person, wide).await?.into_iter().map(|(_, u)| u).collect();
    Ok(used_before(&uses, now))
}
