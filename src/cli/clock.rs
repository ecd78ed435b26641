use crate::hub::domain::{Epoch, Zone};

/// This computer's zone; UTC where it has no name.
pub fn own_zone() -> Zone {
    jiff::tz::TimeZone::system().iana_name().and_then(|name| name.parse().ok()).unwrap_or_else(Zone::utc)
}

/// A moment by this computer's clock; [`zoned`] says in the heading which one that is.
pub fn local(at: Epoch) -> String {
    own_zone().local(at).strftime("%a %Y-%m-%d %H:%M").to_string()
}

/// A column's heading with the zone of its moments.
pub fn zoned(heading: &str) -> String {
    format!("{heading} ({})", own_zone())
}
