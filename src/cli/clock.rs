use std::sync::OnceLock;

use jiff::tz::TimeZone;

use crate::{
    core::{Code, Problem, shell::printable},
    hub::domain::{Epoch, Zone},
};

/// The zone that the command names; a process runs one command, and so has one.
static NAMED: OnceLock<Zone> = OnceLock::new();

/// From here on times are read and told by this zone instead of this computer's; the first one named counts.
pub fn tell_in(zone: &Zone) {
    let _ = NAMED.set(zone.clone());
}

/// The zone of times: the one that the command names, else this computer's; UTC where that has no name.
pub fn own_zone() -> Zone {
    NAMED.get().cloned().or_else(|| name_of(&TimeZone::system())).unwrap_or_else(Zone::utc)
}

fn name_of(zone: &TimeZone) -> Option<Zone> {
    zone.iana_name().and_then(|name| name.parse().ok())
}

/// Whether a zone that is written as a rule of POSIX is UTC, which [`own_zone`] takes for one without a name: `UTC0`, `GMT0`.
fn is_utc(rule: &str) -> bool {
    let offset = ["UTC", "GMT", "<UTC>", "<GMT>"].iter().find_map(|name| rule.strip_prefix(name));
    let offset = offset.map(|offset| offset.strip_prefix(['+', '-']).unwrap_or(offset));
    offset.is_some_and(|offset| offset.starts_with('0') && offset.bytes().all(|b| matches!(b, b'0' | b':')))
}

/// Refuses to read a time by a clock that is not what the user sees: this computer's zone is set, and has no name.
pub fn must_be_known() -> Result<(), Problem> {
    if NAMED.get().is_some() {
        return Ok(());
    }
    let set = std::env::var("TZ").ok().filter(|zone| !zone.is_empty());
    if set.as_deref().is_some_and(is_utc) {
        return Ok(());
    }
    let what = match (TimeZone::try_system(), set) {
        (Ok(zone), _) if name_of(&zone).is_some() => return Ok(()),
        // A computer without any setting is in UTC.
        (Err(_), None) => return Ok(()),
        (_, Some(set)) => format!("TZ=`{}` is no time zone by name", printable(&set)),
        (Ok(_), None) => "this computer's time zone has no name".to_owned(),
    };
    Err(Problem::new(Code::Usage, what)
        .hint("Name one: TZ=Europe/Berlin, or --zone where the command has it; or write the time with Z or an offset."))
}

/// A moment by this computer's clock; [`zoned`] says in the heading which one that is.
pub fn local(at: Epoch) -> String {
    own_zone().local(at).strftime("%a %Y-%m-%d %H:%M").to_string()
}

/// A column's heading with the zone of its moments.
pub fn zoned(heading: &str) -> String {
    format!("{heading} ({})", own_zone())
}

#[cfg(test)]
mod tests {
    use super::is_utc;

    #[test]
    fn a_rule_without_an_offset_is_utc() {
        for utc in ["UTC0", "GMT0", "UTC+0", "GMT-0", "UTC00:00", "<UTC>0"] {
            assert!(is_utc(utc), "{utc}");
        }
        // The first two are names, which are looked up.
        for other in ["UTC", "GMT", "UTC-5", "UTC0:30", "CET0", "GMT0BST", "UTC:", "<UTC0", ""] {
            assert!(!is_utc(other), "{other}");
        }
    }
}
