//! Times against an oracle that knows nothing of windows: the clock on the wall, looked at minute by minute.

use jiff::{Span, civil::DateTime};
use kubecamp::hub::domain::{Epoch, Grid, OpeningHours, Window, Zone};
use proptest::prelude::*;

const ZONES: [&str; 9] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Africa/Cairo",
    "Asia/Beirut",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "UTC",
];
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Days of the week from one to another, and minutes after midnight.
#[derive(Debug, Clone, Copy)]
struct Hours {
    first: usize,
    last: usize,
    from: i64,
    to: i64,
}

impl Hours {
    fn text(self) -> String {
        let clock = |minute: i64| format!("{:02}:{:02}", minute / 60, minute % 60);
        format!("{}-{} {}-{}", DAYS[self.first], DAYS[self.last], clock(self.from), clock(self.to))
    }

    fn is_on(self, day: usize) -> bool {
        (day + 7 - self.first) % 7 <= (self.last + 7 - self.first) % 7
    }

    /// Whether they are open while a clock shows this.
    fn has(self, local: DateTime) -> bool {
        let (day, second) = (local.weekday().to_monday_zero_offset() as usize, of_day(local));
        let (from, to) = (self.from * 60, self.to * 60);
        if from < to {
            self.is_on(day) && (from..to).contains(&second)
        } else {
            (self.is_on(day) && second >= from) || (self.is_on((day + 6) % 7) && second < to)
        }
    }
}

fn hours() -> impl Strategy<Value = Hours> {
    (0usize..7, 0usize..7, 0i64..1440, 0i64..=1440)
        .prop_filter("they last", |(_, _, from, to)| from != to)
        .prop_map(|(first, last, from, to)| Hours { first, last, from, to })
}

/// Seconds after midnight that a clock shows.
fn of_day(local: DateTime) -> i64 {
    i64::from(local.hour()) * 3600 + i64::from(local.minute()) * 60 + i64::from(local.second())
}

/// Whether no clock is changed from two hours before until two hours after.
fn is_steady(zone: &Zone, from: i64, to: i64) -> bool {
    let (before, after) = (zone.local(Epoch(from - 7200)), zone.local(Epoch(to + 7200)));
    before.checked_add(Span::new().seconds(to - from + 14_400)).unwrap() == after
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_server_is_open_when_the_clock_on_the_wall_says_so(
        name in prop::sample::select(&ZONES[..]),
        spans in prop::collection::vec(hours(), 1..4),
        second in 1_700_000_000i64..1_900_000_000,
        edge in 0usize..6,
        by in -90i64..=90,
        minutes in 1i64..400,
    ) {
        let zone: Zone = name.parse().unwrap();
        let text = spans.iter().map(|span| span.text()).collect::<Vec<_>>().join(", ");
        let open: OpeningHours = text.parse().unwrap();
        let shown = |at: i64| spans.iter().any(|span| span.has(zone.local(Epoch(at))));
        let is_open = |from: i64, to: i64| open.is_open(&zone, Window { starts: Epoch(from), ends: Epoch(to) });
        // Any moment, and one about where some hours begin or end.
        let span = spans[edge / 2 % spans.len()];
        let line = 60 * if edge % 2 == 0 { span.from } else { span.to };
        let near = second + line - of_day(zone.local(Epoch(second))) + by;
        for at in [second, near].into_iter().filter(|at| is_steady(&zone, *at, *at)) {
            prop_assert_eq!(is_open(at, at + 1), shown(at), "{} at {}", text, zone.local(Epoch(at)));
        }
        // As long as each of its minutes is, hours that touch being one.
        let from = near.div_euclid(60) * 60;
        let to = from + minutes * 60;
        if is_steady(&zone, from, to) {
            let all = (0..minutes).all(|n| shown(from + n * 60));
            prop_assert_eq!(is_open(from, to), all, "{} for {} minutes from {}", text, minutes, zone.local(Epoch(from)));
        }
    }
}

proptest! {
    #[test]
    fn lines_of_any_raster_are_those_that_the_clock_shows(
        name in prop::sample::select(&ZONES[..]),
        second in 1_700_000_000i64..1_900_000_000,
        minutes in prop::sample::select(&[5u16, 15, 30, 32, 45, 60, 120, 480, 1440][..]),
    ) {
        let (zone, grid) = (name.parse::<Zone>().unwrap(), Grid::try_from(minutes).unwrap());
        let range = Window { starts: Epoch(second), ends: Epoch(second + 3 * 86_400) };
        let step = i64::from(minutes) * 60;
        // From the first whole minute on: no zone has been off by less since 1972.
        let first = second + (-second).rem_euclid(60);
        let all: Vec<Epoch> = (first..range.ends.0)
            .step_by(60)
            .map(Epoch)
            .filter(|at| of_day(zone.local(*at)) % step == 0)
            .collect();
        let mut back: Vec<Epoch> = grid.lines_back(&zone, range).collect();
        back.reverse();
        prop_assert_eq!(grid.lines(&zone, range).collect::<Vec<_>>(), all.clone());
        prop_assert_eq!(back, all);
    }
}
