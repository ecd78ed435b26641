use std::{
    fmt,
    ops::{Add, Sub},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A moment: whole seconds since 1970-01-01T00:00:00Z, up to the year 3000.
///
/// The bound keeps every sum of moments and lengths far from overflow, whatever a request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "i64", into = "i64")]
#[schema(value_type = i64, minimum = 0, maximum = 32503680000i64, example = 1795467600)]
pub struct Epoch(pub i64);

impl Epoch {
    /// The last moment that is accepted: 3000-01-01T00:00:00Z.
    pub const LAST: Self = Self(32_503_680_000);

    /// The moment as jiff sees it.
    pub fn timestamp(self) -> jiff::Timestamp {
        jiff::Timestamp::from_second(self.0).unwrap_or(jiff::Timestamp::MAX)
    }
}

impl TryFrom<i64> for Epoch {
    type Error = String;
    fn try_from(seconds: i64) -> Result<Self, String> {
        if (0..=Self::LAST.0).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(format!("{seconds} is not a moment between the years 1970 and 3000, in seconds"))
        }
    }
}

impl From<Epoch> for i64 {
    fn from(epoch: Epoch) -> i64 {
        epoch.0
    }
}

impl FromStr for Epoch {
    type Err = String;
    /// Reads RFC 3339, as `2026-11-23T21:00:00Z` or with an offset.
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a moment: write it as 2026-11-23T21:00:00Z");
        let stamp: jiff::Timestamp = text.parse().map_err(|_| bad())?;
        if stamp.subsec_nanosecond() != 0 {
            return Err(bad());
        }
        Self::try_from(stamp.as_second())
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.timestamp().to_string())
    }
}

impl Add<i64> for Epoch {
    type Output = Self;
    fn add(self, seconds: i64) -> Self {
        Self(self.0 + seconds)
    }
}

impl Sub<i64> for Epoch {
    type Output = Self;
    fn sub(self, seconds: i64) -> Self {
        Self(self.0 - seconds)
    }
}

impl Sub for Epoch {
    type Output = i64;
    fn sub(self, other: Self) -> i64 {
        self.0 - other.0
    }
}

/// A half-open window `[starts, ends)`; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "Bare")]
pub struct Window {
    /// Its first second.
    pub starts: Epoch,
    /// The first second after it.
    pub ends: Epoch,
}

#[derive(Deserialize)]
struct Bare {
    starts: Epoch,
    ends: Epoch,
}

impl TryFrom<Bare> for Window {
    type Error = String;
    fn try_from(bare: Bare) -> Result<Self, String> {
        Self::new(bare.starts, bare.ends)
    }
}

impl Window {
    /// What is written between the two moments.
    pub(super) const BETWEEN: &str = " to ";

    /// The window from `starts` up to `ends`; refused when it would be empty or turned around.
    pub fn new(starts: Epoch, ends: Epoch) -> Result<Self, String> {
        if starts < ends { Ok(Self { starts, ends }) } else { Err(format!("{starts} is not before {ends}")) }
    }

    /// Its length in seconds.
    pub fn length(self) -> i64 {
        self.ends - self.starts
    }

    /// Whether both have a second in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.starts < other.ends && other.starts < self.ends
    }

    /// Whether all of `other` lies inside.
    pub fn covers(self, other: Self) -> bool {
        self.starts <= other.starts && other.ends <= self.ends
    }

    /// Whether the moment lies inside.
    pub fn holds(self, at: Epoch) -> bool {
        self.starts <= at && at < self.ends
    }

    /// What both have in common.
    pub fn common(self, other: Self) -> Option<Self> {
        // Quotas ask this thousands of times for a booking: nobody shall write a message to drop it.
        let (starts, ends) = (self.starts.max(other.starts), self.ends.min(other.ends));
        (starts < ends).then_some(Self { starts, ends })
    }

    /// The window with `seconds` more at its start and at its end.
    #[must_use]
    pub fn wider(self, seconds: i64) -> Self {
        Self { starts: self.starts - seconds, ends: self.ends + seconds }
    }

    /// The window with `seconds` more at its end.
    #[must_use]
    pub fn longer(self, seconds: i64) -> Self {
        Self { starts: self.starts, ends: self.ends + seconds }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.starts, Self::BETWEEN, self.ends)
    }
}
