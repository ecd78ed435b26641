use std::collections::BTreeSet;

use crate::{
    core::{Code, Problem},
    hub::{
        domain::{
            Booking, BookingId, Course, CourseId, Epoch, Ground, GroupId, Person, PersonId, Policy, ROLLING, Role,
            SavedLab, SeriesId, Server, State, Use, Window, most_in_any_week, used_before,
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
            return Err(Problem::new(Code::HubInvalid, what).hint("Name the course."));
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
                "Name the course."
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

/// Refuses somebody who would be in two slots at a time. A wait does not count.
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

/// Refuses more bookings ahead than allowed; those of one recurrence count as one. `series` is the one that is
/// being made.
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

/// Refuses what would go over the hours of a person or group in any seven days. Locks the group's row.
pub(super) async fn within_quota(
    tx: &mut Tx,
    policy: &Policy,
    person: &PersonId,
    group: Option<&GroupId>,
    window: Window,
    except: Option<&BookingId>,
) -> Result<(), Problem> {
    let wide = Window { starts: window.starts - ROLLING, ends: window.ends + ROLLING };
    let own = Use { starts: window.starts, seconds: window.length() };
    let most = |uses: Vec<(BookingId, Use)>| {
        let mut uses: Vec<Use> = uses.into_iter().filter(|(id, _)| Some(id) != except).map(|(_, u)| u).collect();
        uses.push(own);
        most_in_any_week(&uses, window)
    };
    let hours = |seconds: i64| format!("{:.1}", seconds as f64 / 3600.0);
    let used = most(tx.uses_of_person(person, wide).await?);
    if used > i64::from(policy.person_hours) * 3600 {
        let what =
            format!("{person} would have {} h in seven days, and {} are allowed", hours(used), policy.person_hours);
        return Err(Problem::new(Code::BookQuota, what));
    }
    let Some(group) = group else { return Ok(()) };
    tx.lock_group(group).await?;
    let used = most(tx.uses_of_group(group, wide).await?);
    if used > i64::from(policy.group_hours) * 3600 {
        let what =
            format!("group {group} would have {} h in seven days, and {} are allowed", hours(used), policy.group_hours);
        return Err(Problem::new(Code::BookGroupQuota, what));
    }
    Ok(())
}

/// Seconds that a person used in the last seven days: what fairness compares.
pub(in crate::hub) async fn recent_use(tx: &mut Tx, person: &PersonId, now: Epoch) -> Result<i64, Problem> {
    let wide = Window { starts: now - ROLLING, ends: now };
    let uses: Vec<Use> = tx.uses_of_person(person, wide).await?.into_iter().map(|(_, u)| u).collect();
    Ok(used_before(&uses, now))
}
