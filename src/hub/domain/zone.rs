use std::{fmt, str::FromStr};

use jiff::{
    civil::{Date, DateTime},
    tz::{AmbiguousOffset, TimeZone},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Epoch, Window};

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

    /// A text with each of its moments, as `2026-11-23T21:00:00Z`, by the clock of this zone; after the last one the zone
    /// is named.
    pub fn told(&self, text: &str) -> String {
        let (mut said, mut rest, mut last) = (String::with_capacity(text.len() + 20), text, None);
        while let Some((before, at, after)) = first_moment(rest) {
            // `Window` writes both of its ends.
            let since = last.filter(|(_, from): &(usize, Epoch)| before == Window::BETWEEN && *from < at);
            match since {
                Some((_, from)) if self.date(from) == self.date(at) => said.extend(["–", &self.clock(at)]),
                Some(_) => said.extend(["–", &self.date(at).to_string(), " ", &self.clock(at)]),
                None => said.extend([before, &self.date(at).to_string(), " ", &self.clock(at)]),
            }
            (rest, last) = (after, Some((said.len(), at)));
        }
        said.push_str(rest);
        if let Some((end, _)) = last {
            said.insert_str(end, &format!(" ({self})"));
        }
        said
    }

    /// The time of day; seconds only where there are any, and the offset where clocks show it twice.
    fn clock(&self, at: Epoch) -> String {
        let local = self.local(at);
        let time = local.strftime(if local.second() == 0 { "%H:%M" } else { "%H:%M:%S" }).to_string();
        match self.read(local) {
            Local::Twice(_) => format!("{time}{}", at.timestamp().to_zoned(self.0.clone()).strftime("%:z")),
            _ => time,
        }
    }
}

/// The date and time of a text as `2026-11-24T14:00`.
///
/// None where an offset or a zone stands behind it: taken as a local time it would be another one than was written.
pub fn local_time(text: &str) -> Option<DateTime> {
    let (date, time) = text.split_once(['T', 't', ' ']).unwrap_or((text, ""));
    let only = |part: &str, between: u8| part.bytes().all(|b| b.is_ascii_digit() || b == between);
    text.parse().ok().filter(|_| only(date, b'-') && only(time, b':'))
}

/// The first moment of a text that is written as [`Epoch`] does it, with what is before and after it.
fn first_moment(text: &str) -> Option<(&str, Epoch, &str)> {
    const SHAPE: &[u8] = b"dddd-dd-ddTdd:dd:ddZ";
    let fits = |part: &[u8]| {
        part.iter().zip(SHAPE).all(|(b, want)| if *want == b'd' { b.is_ascii_digit() } else { b == want })
    };
    let mut found = text.as_bytes().windows(SHAPE.len()).enumerate().filter(|(_, part)| fits(part));
    found.find_map(|(at, _)| {
        // All of it is ASCII, so these are borders of characters.
        let (before, rest) = text.split_at(at);
        let (moment, after) = rest.split_at(SHAPE.len());
        Some((before, moment.parse().ok()?, after))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_time_with_an_offset_or_a_zone_is_none() {
        let (day, noon) = (jiff::civil::date(2026, 11, 24), jiff::civil::date(2026, 11, 24).at(12, 0, 0, 0));
        for text in ["2026-11-24T12:00", "2026-11-24 12:00:00"] {
            assert_eq!(local_time(text), Some(noon), "{text}");
        }
        assert_eq!(local_time("2026-11-24"), Some(day.at(0, 0, 0, 0)));
        for text in [
            "",
            "noon",
            "2026-11-24T12:00Z",
            "2026-11-24T12:00+08:00",
            "2026-11-24T12:00-05",
            "2026-11-24T12:00[Asia/Shanghai]",
            "2026-11-24T12:00:00.5",
        ] {
            assert_eq!(local_time(text), None, "{text}");
        }
    }

    #[test]
    fn moments_in_a_text_are_told_by_the_clock_of_the_reader() {
        let berlin: Zone = "Europe/Berlin".parse().unwrap();
        let window = |from: &str, to: &str| Window { starts: from.parse().unwrap(), ends: to.parse().unwrap() };
        let day = window("2026-11-26T03:00:00Z", "2026-11-26T04:30:00Z");
        let night = window("2026-07-01T21:30:00Z", "2026-07-01T23:00:05Z");
        let fold = window("2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z");
        for (text, want) in [
            (format!("bob holds b1 at {day}"), "bob holds b1 at 2026-11-26 04:00–05:30 (Europe/Berlin)"),
            (format!("{night} is over"), "2026-07-01 23:30–2026-07-02 01:00:05 (Europe/Berlin) is over"),
            (format!("{fold} is over"), "2026-10-25 02:30+02:00–02:00+01:00 (Europe/Berlin) is over"),
            (
                format!("{} is not before {}", day.starts, day.starts),
                "2026-11-26 04:00 is not before 2026-11-26 04:00 (Europe/Berlin)",
            ),
            ("nothing at 14:00Z, 2026-13-99T99:99:99Z".into(), "nothing at 14:00Z, 2026-13-99T99:99:99Z"),
            ("学生 2026-11-26T03:00:00Z 学".into(), "学生 2026-11-26 04:00 (Europe/Berlin) 学"),
            (String::new(), ""),
        ] {
            assert_eq!(berlin.told(&text), want);
        }
    }
}
