use proptest::prelude::*;

use super::*;
use crate::core::Code;

const ZONES: [&str; 8] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Africa/Cairo",
    "Asia/Beirut",
    "Asia/Kolkata",
    "UTC",
];

fn zone(name: &str) -> Zone {
    name.parse().unwrap()
}

fn weekly(name: &str, starts: &str, ends: &str, weeks: u16) -> Weekly {
    Weekly { zone: zone(name), starts: starts.parse().unwrap(), ends: ends.parse().unwrap(), weeks }
}

#[test]
fn a_gap_is_refused_and_of_a_fold_the_earlier_is_meant() {
    let gaps = [
        ("Europe/Berlin", "2026-03-29T02:30:00"),
        ("America/New_York", "2026-03-08T02:30:00"),
        ("Australia/Lord_Howe", "2026-10-04T02:15:00"),
        ("America/Santiago", "2026-09-06T00:30:00"),
        ("Africa/Cairo", "2026-04-24T00:30:00"),
        ("Asia/Beirut", "2026-03-29T00:30:00"),
    ];
    for (name, local) in gaps {
        assert_eq!(zone(name).read(local.parse().unwrap()), Local::Never, "{name} {local}");
    }
    let folds = [
        ("Europe/Berlin", "2026-10-25T02:30:00", "2026-10-25T00:30:00Z"),
        ("America/New_York", "2026-11-01T01:30:00", "2026-11-01T05:30:00Z"),
        ("Australia/Lord_Howe", "2026-04-05T01:45:00", "2026-04-04T14:45:00Z"),
    ];
    for (name, local, utc) in folds {
        assert_eq!(zone(name).read(local.parse().unwrap()), Local::Twice(at(utc)), "{name} {local}");
    }
    let once = zone("Asia/Kolkata").read("2026-03-29T02:30:00".parse().unwrap());
    assert_eq!(once, Local::Once(at("2026-03-28T21:00:00Z")));
}

#[test]
fn a_recurrence_over_a_gap_is_refused_whole_and_one_over_a_fold_says_so() {
    let refused = weekly("Europe/Berlin", "2026-03-22T02:30:00", "2026-03-22T04:00:00", 3).occurrences().unwrap_err();
    assert_eq!(refused.code, Code::BookGap);
    assert!(refused.what.contains("2026-03-29T02:30:00"), "{}", refused.what);

    let folded = weekly("Europe/Berlin", "2026-10-18T02:30:00", "2026-10-18T04:00:00", 3).occurrences().unwrap();
    let notes: Vec<bool> = folded.iter().map(|o| o.note.is_some()).collect();
    assert_eq!(notes, [false, true, false]);
    assert_eq!(folded[1].window, window("2026-10-25T00:30:00Z", "2026-10-25T03:00:00Z"));
}

#[test]
fn a_night_is_seven_or_nine_hours_when_clocks_change() {
    let hours = |starts: &str, ends: &str| {
        let found = weekly("Europe/Berlin", starts, ends, 2).occurrences().unwrap();
        found.iter().map(|o| o.window.length() / 3600).collect::<Vec<_>>()
    };
    assert_eq!(hours("2026-03-21T22:00:00", "2026-03-22T06:00:00"), [8, 7]);
    assert_eq!(hours("2026-10-17T22:00:00", "2026-10-18T06:00:00"), [8, 9]);
    // Who asks for an hour learns that it is two, which count.
    for (starts, ends, told) in [
        ("2026-10-18T02:30:00", "2026-10-18T03:30:00", "it lasts 120 minutes, not 60, and counts as that"),
        ("2026-10-17T23:00:00", "2026-10-18T03:00:00", "it lasts 300 minutes, not 240, and counts as that"),
        ("2026-03-22T01:30:00", "2026-03-22T03:30:00", "it lasts 60 minutes, not 120, and counts as that"),
    ] {
        let found = weekly("Europe/Berlin", starts, ends, 3).occurrences().unwrap();
        assert!(found[1].note.as_ref().is_some_and(|note| note.contains(told)), "{:?}", found[1]);
        assert!(found[0].note.is_none() && found[2].note.is_none(), "{found:?}");
    }
    let open: OpeningHours = "sat 22:00-06:00".parse().unwrap();
    let night = |from, to| open.windows(&zone("Europe/Berlin"), window(from, to))[0].length() / 3600;
    assert_eq!(night("2026-03-28T23:00:00Z", "2026-03-29T01:00:00Z"), 7);
    assert_eq!(night("2026-10-24T23:00:00Z", "2026-10-25T01:00:00Z"), 9);
}

#[test]
fn a_recurrence_is_as_long_as_asked_though_clocks_change_in_its_first_week() {
    for (starts, ends, minutes) in [
        ("2026-10-24T23:30:00Z", "2026-10-25T01:30:00Z", [180, 120, 120]),
        ("2026-03-29T00:30:00Z", "2026-03-29T02:30:00Z", [60, 120, 120]),
        ("2026-10-18T00:30:00Z", "2026-10-18T02:30:00Z", [120, 180, 120]),
        ("2026-11-24T22:30:00Z", "2026-11-25T00:30:00Z", [120, 120, 120]),
    ] {
        let weekly = Weekly::of_first(window(starts, ends), zone("Europe/Berlin"), 3).unwrap();
        let found = weekly.occurrences().unwrap();
        assert_eq!(found[0].window.starts, at(starts));
        assert_eq!(found.iter().map(|one| one.window.length() / 60).collect::<Vec<_>>(), minutes, "{starts}");
        for (one, minutes) in found.iter().zip(minutes) {
            assert_eq!(one.note.is_some(), minutes != 120, "{one:?}");
        }
    }
}

#[test]
fn a_day_that_begins_with_a_gap_is_open_from_its_first_moment() {
    let open: OpeningHours = "mon-sun 00:00-24:00".parse().unwrap();
    for (name, around) in
        [("America/Santiago", "2026-09-06"), ("Africa/Cairo", "2026-04-24"), ("Asia/Beirut", "2026-03-29")]
    {
        let day = window(&format!("{around}T00:00:00Z"), &format!("{around}T23:00:00Z"));
        assert!(open.is_open(&zone(name), day), "{name}");
    }
}

#[test]
fn opening_hours_are_read_and_printed() {
    for good in ["always", "mon-fri 08:00-22:00", "mon-fri 08:00-22:00, sat 22:00-06:00", "fri-mon 00:00-24:00"] {
        assert_eq!(good.parse::<OpeningHours>().unwrap().to_string(), good);
    }
    for bad in [
        "mon",
        "mon 8-10",
        "mon 08:00-08:00",
        "mon 24:00-08:00",
        "mon 08:60-09:00",
        "xyz 08:00-09:00",
        "mon 08:00-25:00",
        "mon +8:00-09:00",
    ] {
        assert!(bad.parse::<OpeningHours>().is_err(), "{bad}");
    }
    // What is taken can be read from where it is kept, with the blanks that it has there.
    for spans in 50..70 {
        match vec!["mon 08:00-22:00"; spans].join(",").parse::<OpeningHours>() {
            Ok(hours) => assert_eq!(hours.to_string().parse(), Ok(hours), "{spans}"),
            Err(_) => assert!(spans > 58, "{spans}"),
        }
    }
    let week: OpeningHours = "mon-fri 08:00-18:00".parse().unwrap();
    let berlin = zone("Europe/Berlin");
    assert!(week.is_open(&berlin, window("2026-11-23T07:00:00Z", "2026-11-23T17:00:00Z")));
    assert!(!week.is_open(&berlin, window("2026-11-23T06:59:59Z", "2026-11-23T17:00:00Z")));
    assert!(!week.is_open(&berlin, window("2026-11-23T16:00:00Z", "2026-11-23T17:00:01Z")));
    assert!(!week.is_open(&berlin, window("2026-11-28T10:00:00Z", "2026-11-28T11:00:00Z")), "a Saturday");
}

#[test]
fn only_zones_are_read() {
    for bad in ["", "Mars/Base", "../etc/passwd", "Europe/Berlin\n", "EST5EDT,M3.2.0,M11.1.0"] {
        assert!(bad.parse::<Zone>().is_err(), "{bad}");
    }
    assert_eq!(zone("Asia/Kolkata").to_string(), "Asia/Kolkata");
}

proptest! {
    #[test]
    fn what_a_clock_shows_is_read_back(name in prop::sample::select(&ZONES[..]), second in 1_700_000_000i64..1_900_000_000) {
        let (zone, moment) = (zone(name), Epoch(second));
        match zone.read(zone.local(moment)) {
            Local::Once(read) => prop_assert_eq!(read, moment),
            Local::Twice(read) => prop_assert!(read == moment || moment - read == 3600 || moment - read == 1800),
            Local::Never => prop_assert!(false, "a clock showed a time that never happens"),
        }
    }

    #[test]
    fn open_windows_are_in_order_and_apart(name in prop::sample::select(&ZONES[..]), second in 1_700_000_000i64..1_900_000_000, from in 0u16..24, to in 0u16..25, day in 0usize..7) {
        prop_assume!(from != to);
        let days = ["mon", "tue-thu", "fri-mon", "sun", "mon-sun", "sat", "wed"];
        let open: OpeningHours = format!("{} {from:02}:00-{to:02}:00", days[day]).parse().unwrap();
        let range = Window::new(Epoch(second), Epoch(second + 14 * 86_400)).unwrap();
        let found = open.windows(&zone(name), range);
        prop_assert!(!found.is_empty());
        for pair in found.windows(2) {
            prop_assert!(pair[0].ends < pair[1].starts);
        }
        for one in &found {
            prop_assert!(one.overlaps(range) && open.is_open(&zone(name), *one));
            // One that reaches the range's end may go on after it: at midnight, for hours that are the whole day.
            let longer = Window { starts: one.starts, ends: one.ends + 1 };
            prop_assert!(one.ends >= range.ends || !open.is_open(&zone(name), longer));
        }
    }

    #[test]
    fn grid_lines_are_all_and_only_those_on_the_grid(name in prop::sample::select(&ZONES[..]), second in 1_700_000_000i64..1_900_000_000, minutes in prop::sample::select(&[15u16, 30, 60, 120][..])) {
        let (zone, grid) = (zone(name), Grid::try_from(minutes).unwrap());
        let range = Window::new(Epoch(second), Epoch(second + 86_400)).unwrap();
        let lines: Vec<Epoch> = grid.lines(&zone, range).collect();
        let all: Vec<Epoch> = (second..second + 86_400).filter(|s| s % 60 == 0).map(Epoch).filter(|at| grid.has(&zone, *at)).collect();
        prop_assert_eq!(lines, all);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
        let _ = (text.parse::<OpeningHours>(), text.parse::<Zone>(), text.parse::<Epoch>(), text.parse::<PersonId>());
    }

    #[test]
    fn every_occurrence_shows_the_same_clock(name in prop::sample::select(&ZONES[..]), day in 1i8..28, month in 1i8..13, hour in 0i8..24) {
        let starts = jiff::civil::date(2026, month, day).at(hour, 0, 0, 0);
        let ends = starts.checked_add(jiff::Span::new().hours(2)).unwrap();
        if let Ok(found) = (Weekly { zone: zone(name), starts, ends, weeks: 20 }).occurrences() {
            for (week, one) in found.iter().enumerate() {
                let local = zone(name).local(one.window.starts);
                prop_assert_eq!(local.time(), starts.time());
                prop_assert_eq!(local.date(), starts.checked_add(jiff::Span::new().weeks(week as i64)).unwrap().date());
                prop_assert_eq!(zone(name).local(one.window.ends).time(), ends.time());
                prop_assert!(one.window.length() == 2 * 3600 || one.note.is_some(), "its length is not told");
            }
        }
    }
}
