use std::collections::BTreeMap;

use serde::Serialize;

use super::Civil;
use crate::hub::domain::{Booking, Epoch, Group, Person, Policy, ROLLING, Role, State};

/// What somebody, or a group, used of the servers.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Login or group.
    pub id: String,
    /// A person's name.
    pub name: String,
    /// A person's groups, a group's course.
    pub of: String,
    /// Hours that count in the last seven days.
    pub week: String,
    /// The quota, hours; none without one.
    pub quota: Option<u32>,
    /// Whole hours of the week, for the meter.
    pub meter: f64,
    /// Hours in the last four weeks.
    pub month: String,
    /// Bookings ahead.
    pub ahead: usize,
    /// No-shows in the last four weeks.
    pub no_shows: usize,
}

/// Four weeks in seconds: what the table sums up.
pub const MONTH: i64 = 28 * 86_400;

fn sum<'a>(bookings: impl Iterator<Item = &'a Booking>, now: Epoch) -> Usage {
    let (mut week, mut month, mut usage) = (0, 0, Usage::default());
    for booking in bookings {
        let counted = booking.counted();
        let past = counted.starts <= now;
        if past && counted.starts > now - ROLLING {
            week += counted.seconds;
        }
        if past && counted.starts > now - MONTH {
            month += counted.seconds;
            usage.no_shows += usize::from(booking.state == State::NoShow);
        }
        usage.ahead += usize::from(booking.state.is_live() && !past);
    }
    usage.week = Civil::hours(week);
    usage.meter = week as f64 / 3600.0;
    usage.month = Civil::hours(month);
    usage
}

/// Use per person, students first, then by login.
pub fn per_person(
    people: &[Person],
    bookings: &[Booking],
    policy_of: impl Fn(&Person) -> Option<Policy>,
    now: Epoch,
) -> Vec<Usage> {
    let mut of: BTreeMap<&str, Vec<&Booking>> = BTreeMap::new();
    for booking in bookings {
        of.entry(booking.person.as_str()).or_default().push(booking);
    }
    let none = vec![];
    let mut rows: Vec<(Role, Usage)> = people
        .iter()
        .filter(|p| p.active || of.contains_key(p.id.as_str()))
        .map(|p| {
            let groups: Vec<&str> = p.groups.iter().map(|g| g.as_str()).collect();
            let usage = Usage {
                id: p.id.to_string(),
                name: p.name.clone(),
                of: groups.join(", "),
                quota: policy_of(p).map(|policy| policy.person_hours),
                ..sum(of.get(p.id.as_str()).unwrap_or(&none).iter().copied(), now)
            };
            (p.role, usage)
        })
        .collect();
    rows.sort_by(|a, b| (a.0, &a.1.id).cmp(&(b.0, &b.1.id)));
    rows.into_iter().map(|(_, usage)| usage).collect()
}

/// Use per group, by name.
pub fn per_group(
    groups: &[Group],
    bookings: &[Booking],
    policy_of: impl Fn(&Group) -> Option<Policy>,
    now: Epoch,
) -> Vec<Usage> {
    let row = |group: &Group| Usage {
        id: group.id.to_string(),
        name: group.members.len().to_string(),
        of: group.course.to_string(),
        quota: policy_of(group).map(|policy| policy.group_hours),
        ..sum(bookings.iter().filter(|b| b.group.as_ref() == Some(&group.id)), now)
    };
    groups.iter().map(row).collect()
}
