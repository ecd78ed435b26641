use std::{fmt, str::FromStr};

use jiff::{
    civil::{Date, DateTime},
    tz::{AmbiguousOffset, TimeZone},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Epoch;

/// An IANA time zone, as `Europe/Berlin`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "Europe/Berlin")]
pub struct Zone(TimeZone);

/// What a local time means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// This moment.
    Once(Epoch),
    /// It happens twice, because clocks are set back; this is the earlier.
    Twice(Epoch),
    /// It never happens, because clocks are set forward over it.
    Never,
}

impl Zone {
    /// UTC.
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// The zone's name.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// What the local time means here; a time outside of the years 1970 to 3000 never happens.
    pub fn read(&self, local: DateTime) -> Local {
        let stamp = self.0.to_ambiguous_timestamp(local);
        let kind = stamp.offset();
        let moment = match kind {
            AmbiguousOffset::Gap { .. } => return Local::Never,
            _ => stamp.earlier().ok().and_then(|t| Epoch::try_from(t.as_second()).ok()),
        };
        match (kind, moment) {
            (_, None) => Local::Never,
            (AmbiguousOffset::Fold { .. }, Some(at)) => Local::Twice(at),
            (_, Some(at)) => Local::Once(at),
        }
    }

    /// The moment of a local time where one is needed in any case: the earlier of two, and after a gap as long as
    /// the local time is after the gap's begin.
    pub fn nearest(&self, local: DateTime) -> Epoch {
        let seconds = self.0.to_ambiguous_timestamp(local).compatible().map_or(0, jiff::Timestamp::as_second);
        Epoch(seconds.clamp(0, Epoch::LAST.0))
    }

    /// The local time at a moment.
    pub fn local(&self, at: Epoch) -> DateTime {
        self.0.to_datetime(at.timestamp())
    }

    /// The local date at a moment.
    pub fn date(&self, at: Epoch) -> Date {
        self.local(at).date()
    }

    /// The zone for jiff.
    pub fn time_zone(&self) -> &TimeZone {
        &self.0
    }
}

impl FromStr for Zone {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            let shown: String = text.chars().take(40).flat_map(char::escape_default).collect();
            format!("`{shown}` is not a time zone: write it as Europe/Berlin or UTC")
        };
        if text.len() > 60 || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_+-".contains(&b)) {
            return Err(bad());
        }
        let zone = TimeZone::get(text).map_err(|_| bad())?;
        if zone.iana_name().is_none() && text != "UTC" {
            return Err(bad());
        }
        Ok(Self(zone))
    }
}

impl TryFrom<String> for Zone {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> String {
        zone.name().to_owned()
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
