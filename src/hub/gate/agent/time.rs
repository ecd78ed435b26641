use serde::{Deserialize, Serialize};

/// One look at the server's clocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock, milliseconds since 1970.
    pub wall: i64,
    /// The boot clock, milliseconds since boot, sleep included; nobody can set it.
    pub boot: i64,
    /// Which boot it counts from.
    pub boot_id: String,
    /// Milliseconds since the server's first process began: less than `boot` where the server is a container, which has
    /// its own boots but its host's boot clock.
    pub up: i64,
}

/// A moment at which wall clock and boot clock were believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The wall clock then, milliseconds since 1970.
    pub wall: i64,
    /// The boot clock then.
    pub boot: i64,
    /// Which boot.
    pub boot_id: String,
    /// Whether the wall clock is only the least that it can be: see [`Timeline::is_lost`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
}

/// A clock that is off by more than this, in milliseconds, arms and opens nothing.
pub const LARGEST_SKEW: i64 = 30_000;

/// What time it may be.
///
/// Two clocks that disagree are no reason to stop: starts go by the later clock to get there, ends by the earlier one, so a
/// clock that was set can shorten a slot but never lengthen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// At least this late, milliseconds since 1970: starts wait for it.
    pub early: i64,
    /// At most this late: ends come with it.
    pub late: i64,
}

/// Believed time and what was measured against the hub.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    anchor: Option<Anchor>,
    ahead: Option<i64>,
}

impl Timeline {
    /// Goes on from what the journal remembers.
    pub fn new(anchor: Option<Anchor>) -> Self {
        Self { anchor, ahead: None }
    }

    /// The anchor.
    pub fn anchor(&self) -> Option<&Anchor> {
        self.anchor.as_ref()
    }

    /// How far the wall clock was ahead of the hub's when last measured, in milliseconds.
    pub fn ahead(&self) -> Option<i64> {
        self.ahead
    }

    /// Remembers a measurement.
    ///
    /// A clock that the hub agrees with becomes the anchor.
    pub fn measured(&mut self, reading: &Reading, ahead: i64) {
        self.ahead = Some(ahead);
        if ahead.abs() <= LARGEST_SKEW {
            self.anchor = Some(anchor_of(reading));
        }
    }

    /// Without a hub the first look counts, and after a restart of the machine a clock that went on.
    ///
    /// The anchor goes along with the boot clock, so that a restart finds what is known to have passed.
    pub fn look(&mut self, reading: &Reading) -> Now {
        let anchor = match &self.anchor {
            None => anchor_of(reading),
            Some(a) if a.boot_id != reading.boot_id && !a.lost && reading.wall >= expected(a, reading) => {
                anchor_of(reading)
            }
            Some(a) => Anchor {
                wall: expected(a, reading),
                lost: a.lost || a.boot_id != reading.boot_id,
                ..anchor_of(reading)
            },
        };
        let derived = anchor.wall;
        self.anchor = Some(anchor);
        Now { early: reading.wall.min(derived), late: reading.wall.max(derived) }
    }

    /// Whether nobody can say how late it is: the machine restarted, and its clock showed less than is known to have
    /// passed.
    ///
    /// Then every door is shut until the hub says what time it is, also after further restarts: a clock that was wrong once
    /// may have caught up with what is known only because the machine was off.
    pub fn is_lost(&self, reading: &Reading) -> bool {
        self.anchor.as_ref().is_some_and(|a| a.lost || a.boot_id != reading.boot_id)
    }

    /// Why nothing may be armed or opened now, if so.
    pub fn doubt(&self, reading: &Reading) -> Option<String> {
        if let Some(ahead) = self.ahead.filter(|a| a.abs() > LARGEST_SKEW) {
            return Some(format!("the server's clock differs from the hub's by {} s", ahead / 1000));
        }
        let derived = self.anchor.as_ref().map_or(reading.wall, |a| expected(a, reading));
        if self.is_lost(reading) {
            return Some("the server restarted with a clock that was behind, and the hub has not said the time".into());
        }
        let apart = reading.wall - derived;
        (apart.abs() > LARGEST_SKEW).then(|| format!("the server's clock was set by {} s", apart / 1000))
    }
}

/// How far a wall clock is ahead of the hub's, which may say any number.
pub(super) fn ahead_of(wall: i64, hub: i64) -> i64 {
    wall.saturating_sub(hub).max(-i64::MAX)
}

fn anchor_of(reading: &Reading) -> Anchor {
    Anchor { wall: reading.wall, boot: reading.boot, boot_id: reading.boot_id.clone(), lost: false }
}

/// What the wall clock should show at least: after a restart only the time since it is known to have passed, and where the
/// boot clock went on, as it does for a container, all of it.
fn expected(anchor: &Anchor, reading: &Reading) -> i64 {
    let between = reading.boot - anchor.boot;
    let passed = if anchor.boot_id == reading.boot_id { between } else { reading.up.max(between) };
    anchor.wall + passed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall: i64, boot: i64, id: &str) -> Reading {
        Reading { wall, boot, boot_id: id.into(), up: boot }
    }

    #[test]
    fn a_clock_set_back_ends_nothing_later_and_starts_nothing_earlier() {
        let mut line = Timeline::default();
        line.look(&at(1_000_000, 50, "a"));
        let back = at(1_000_000 + 10_000 - 3_600_000, 10_050, "a");
        assert_eq!(line.look(&back), Now { early: 1_010_000 - 3_600_000, late: 1_010_000 });
        assert!(line.doubt(&back).is_some());
        let ahead = at(1_000_000 + 10_000 + 3_600_000, 10_050, "a");
        assert_eq!(line.look(&ahead), Now { early: 1_010_000, late: 1_010_000 + 3_600_000 });
    }

    #[test]
    fn a_restart_with_a_clock_that_went_back_is_doubted() {
        let mut line = Timeline::default();
        line.look(&at(1_000_000, 500_000, "a"));
        let mut again = Timeline::new(line.anchor().cloned());
        assert_eq!(again.look(&at(0, 20_000, "b")), Now { early: 0, late: 1_020_000 });
        assert!(again.doubt(&at(0, 20_000, "b")).is_some() && again.is_lost(&at(0, 20_000, "b")));
        // A clock that seems to have caught up may just not know how long the machine was off.
        let later = at(1_500_000, 30_000, "c");
        for mut line in [again.clone(), Timeline::new(again.anchor().cloned())] {
            line.look(&later);
            assert!(line.is_lost(&later) && line.doubt(&later).is_some());
            line.measured(&later, 40_000);
            assert!(line.is_lost(&later));
            line.measured(&later, 0);
            assert_eq!(line.look(&later), Now { early: 1_500_000, late: 1_500_000 });
            assert!(!line.is_lost(&later) && line.doubt(&later).is_none());
        }
    }

    #[test]
    fn a_container_that_restarts_counts_from_its_own_start() {
        let mut line = Timeline::default();
        line.look(&at(1_000_000, 46_000_000, "a"));
        let again = Reading { up: 2_000, ..at(1_003_000, 46_003_000, "b") };
        assert_eq!(line.look(&again), Now { early: 1_003_000, late: 1_003_000 });
        assert!(!line.is_lost(&again) && line.doubt(&again).is_none());
        // Stopped for an hour and a half, while the clock went back.
        let later = Reading { up: 2_000, ..at(1_010_000, 46_000_000 + 5_400_000, "c") };
        assert_eq!(line.look(&later), Now { early: 1_010_000, late: 1_000_000 + 5_400_000 });
        assert!(line.is_lost(&later));
    }

    #[test]
    fn a_hub_that_says_no_time_is_not_believed() {
        for hub in [i64::MIN, i64::MIN + 1, i64::MAX] {
            for wall in [-1, 0, 1_000_000] {
                let (mut line, reading) = (Timeline::default(), at(wall, 50, "a"));
                line.measured(&reading, ahead_of(wall, hub));
                assert!(line.anchor().is_none() && line.doubt(&reading).is_some(), "{wall} {hub}");
            }
        }
        assert_eq!(ahead_of(1_000_500, 1_000_000), 500);
    }

    #[test]
    fn what_passed_before_a_restart_is_known_without_a_hub() {
        let mut line = Timeline::default();
        line.look(&at(1_000_000, 50, "a"));
        line.look(&at(1_600_000, 600_050, "a"));
        let mut again = Timeline::new(line.anchor().cloned());
        let behind = at(1_400_000, 10, "b");
        again.look(&behind);
        assert!(again.is_lost(&behind));
    }

    #[test]
    fn the_hub_is_believed_within_thirty_seconds() {
        for (ahead, doubted) in [(29_000, false), (-29_000, false), (31_000, true), (-31_000, true), (30_000, false)] {
            let mut line = Timeline::default();
            let reading = at(1_000_000, 50, "a");
            line.look(&reading);
            line.measured(&reading, ahead);
            assert_eq!(line.doubt(&reading).is_some(), doubted, "{ahead}");
        }
    }
}
