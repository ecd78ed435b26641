use proptest::prelude::*;

use super::super::search::Search;
use super::*;
use crate::profile::Layout;

fn layout(text: &str) -> Layout {
    text.parse().unwrap()
}

fn id(number: usize) -> BookingId {
    format!("b{number}").parse().unwrap()
}

#[test]
fn rules_by_which_nothing_could_be_booked_are_refused() {
    for (longest, good) in [(240, true), (45, true), (30, true), (20, false)] {
        assert_eq!(Policy { longest, ..Policy::default() }.check().is_ok(), good, "{longest}");
    }
}

#[test]
fn an_exclusive_server_has_one_place_and_a_shared_one_what_fits() {
    assert_eq!(places(&server("a", Mode::Exclusive, 64, 256)), 1);
    // 2 GiB stay with the server; the smallest shipped layout is 3x2c4g: 2 cores, 12 GiB.
    assert_eq!(places(&server("a", Mode::Shared, 16, 64)), 5);
    assert_eq!(places(&server("a", Mode::Shared, 4, 256)), 2);
    assert_eq!(places(&server("a", Mode::Shared, 1, 4)), 1);
}

#[test]
fn a_disk_that_is_known_is_promised_once() {
    let busy = window("2026-11-23T10:00:00Z", "2026-11-23T11:00:00Z");
    let with = |gib| Server { disk: Some(Bytes::gib(gib)), ..server("a", Mode::Shared, 16, 64) };
    let held = |place: u32| Held { booking: id(place as usize), place, busy, layout: layout("3x2c4g") };
    // A machine needs 30 GiB: four labs of 1x4c12g for want of cores, two of 3x2c4g for want of disk.
    assert_eq!(places(&with(200)), 4);
    assert_eq!(find_place(&with(200), &[held(0)].into_iter().collect(), busy, layout("3x2c4g")), Some(1));
    assert_eq!(
        find_place(&with(200), &[held(0), held(1)].into_iter().collect(), busy, layout("1x4c12g")),
        None,
        "10 GiB are missing"
    );
    assert_eq!(find_place(&with(210), &[held(0), held(1)].into_iter().collect(), busy, layout("1x4c12g")), Some(2));
    let small = Server { disk: Some(Bytes::gib(60)), ..server("a", Mode::Exclusive, 8, 32) };
    assert_eq!(find_place(&small, &Calendar::default(), busy, layout("3x2c4g")), None);
    assert_eq!(small.largest(), Some(layout("2x4c8g")));
}

#[test]
fn a_layout_that_is_too_large_gets_no_place() {
    let busy = window("2026-11-23T10:00:00Z", "2026-11-23T11:00:00Z");
    assert_eq!(
        find_place(&server("a", Mode::Exclusive, 4, 16), &Calendar::default(), busy, layout("2x4c8g")),
        None,
        "2 GiB stay"
    );
    assert_eq!(find_place(&server("a", Mode::Exclusive, 4, 18), &Calendar::default(), busy, layout("2x4c8g")), Some(0));
}

#[test]
fn a_server_on_which_no_lab_can_run_is_told() {
    for (cores, gib, disk, good) in
        [(4, 14, None, true), (2, 14, None, true), (2, 13, None, false), (4, 8, None, false), (8, 32, Some(29), false)]
    {
        let one = Server { disk: disk.map(Bytes::gib), ..server("a", Mode::Exclusive, cores, gib) };
        assert_eq!(one.holds_a_lab().is_ok(), good, "{cores} {gib} {disk:?}");
    }
    let told = server("a", Mode::Exclusive, 4, 8).holds_a_lab().unwrap_err();
    assert_eq!(told.what, "server a of 4c 8GiB holds no lab");
    assert!(told.all_hints()[0].contains("3x2c4g"), "{told:?}");
}

#[test]
fn windows_may_touch_but_not_overlap() {
    let one = server("a", Mode::Exclusive, 8, 32);
    let held = Calendar::from_iter([Held {
        booking: id(0),
        place: 0,
        busy: window("2026-11-23T10:00:00Z", "2026-11-23T11:10:00Z"),
        layout: layout("1x4c12g"),
    }]);
    let free = |from, to| find_place(&one, &held, window(from, to), layout("1x4c12g"));
    assert_eq!(free("2026-11-23T11:10:00Z", "2026-11-23T12:00:00Z"), Some(0));
    assert_eq!(free("2026-11-23T11:09:59Z", "2026-11-23T12:00:00Z"), None);
    assert_eq!(free("2026-11-23T09:00:00Z", "2026-11-23T10:00:00Z"), Some(0));
    assert_eq!(free("2026-11-23T09:00:00Z", "2026-11-23T10:00:01Z"), None);
}

#[test]
fn quotas_roll() {
    let day = 86_400;
    let uses: Vec<Use> =
        [0, 3, 6, 8].iter().map(|d| Use { starts: Epoch(1_000_000_000 + d * day), seconds: 3600 }).collect();
    let around = Window { starts: Epoch(1_000_000_000 + 3 * day), ends: Epoch(1_000_000_000 + 3 * day + 3600) };
    assert_eq!(most_in_any_week(&uses, around), 3 * 3600);
    assert_eq!(used_before(&uses, Epoch(1_000_000_000 + 9 * day)), 3 * 3600);
    // In the midst of one what is past is in the one sum, and what is ahead in the other.
    let half = Epoch(1_000_000_000 + 3 * day + 900);
    assert_eq!((used_before(&uses, half), used_after(&uses, half)), (3600 + 900, 2700 + 2 * 3600));
}

#[test]
fn who_had_least_goes_first_and_who_slept_goes_last() {
    let waiting = |n: usize, used, lapses, since| Waiting { booking: id(n), used, lapses, since: Epoch(since) };
    let mut queue = [waiting(1, 7200, 0, 10), waiting(2, 0, 0, 30), waiting(3, 0, 0, 20), waiting(4, 0, 1, 5)];
    by_fairness(&mut queue);
    let order: Vec<String> = queue.iter().map(|w| w.booking.to_string()).collect();
    assert_eq!(order, ["b3", "b2", "b1", "b4"]);
}

#[test]
fn alternatives_are_the_nearest() {
    let mut ground = ground(server("a", Mode::Exclusive, 8, 32));
    ground.held.add(Held {
        booking: id(0),
        place: 0,
        busy: window("2026-11-23T10:00:00Z", "2026-11-23T11:10:00Z"),
        layout: layout("1x4c12g"),
    });
    let wish = window("2026-11-23T10:00:00Z", "2026-11-23T11:00:00Z");
    let now = at("2026-11-23T08:00:00Z");
    let policy = Policy::default();
    let within = around(&policy, now, wish, NEAR).unwrap();
    let ask = Ask { layout: layout("1x4c12g"), length: wish.length(), within, labs: &[], apart: &[] };
    let found = alternatives(&[ground], &policy, now, wish.starts, ask, 3);
    let starts: Vec<String> = found.iter().map(|f| f.window.starts.to_string()).collect();
    assert_eq!(starts, ["2026-11-23T11:30:00Z", "2026-11-23T08:30:00Z", "2026-11-23T12:00:00Z"]);
}

#[test]
fn weeks_in_which_nothing_is_free_are_leapt_over() {
    let now = at("2026-11-23T08:00:00Z");
    let within = Window { starts: now, ends: now + 100 * 86_400 };
    let policy = Policy { grid: 5u16.try_into().unwrap(), horizon: 366, ..Policy::default() };
    let of = |n: usize| {
        let mut ground = ground(server("a", Mode::Exclusive, 8, 32));
        match n {
            0 => ground.held.add(Held { booking: id(n), place: 0, busy: within, layout: layout("1x4c12g") }),
            1 => ground.closed.push(Maintenance {
                id: 1,
                server: ground.server.id.clone(),
                window: within,
                reason: "fan".into(),
            }),
            _ => ground.server.opening = "sun 03:00-03:30".parse().unwrap(),
        }
        ground
    };
    let ask = Ask { layout: layout("1x4c12g"), length: 3600, within, labs: &[], apart: &[] };
    let grounds = [0, 1, 2].map(of);
    assert!(free_slots(&grounds, &policy, now, ask, 200).is_empty());
    assert!(alternatives(&grounds, &policy, now, now + 50 * 86_400, ask, 3).is_empty());
    for ground in &grounds {
        let search = Search::new(ground, &policy, now, ask);
        // Each look leaps over what is in the way, to the next opening at the nearest, and it is open once a week.
        let (mut from, mut looks) = (within.starts, 0);
        while from < within.ends - ask.length {
            from = search.blocked(search.window(from)).expect("nothing is free").after.max(from + 1);
            looks += 1;
        }
        assert!(looks <= 2 * 100 / 7, "{looks} looks");
    }
}

/// What is held after these asked one after the other, by start, length and layout: each that gets a place has it.
fn filled(server: &Server, asks: Vec<(i64, i64, usize)>) -> Calendar {
    let mut held = Calendar::default();
    for (n, (start, length, which)) in asks.into_iter().enumerate() {
        let busy = Window { starts: Epoch(start), ends: Epoch(start + length) };
        let layout = Layout::SHIPPED[which];
        if let Some(place) = find_place(server, &held, busy, layout) {
            held.add(Held { booking: id(n), place, busy, layout });
        }
    }
    held
}

proptest! {
    #[test]
    fn what_is_leapt_over_cannot_be_had(
        taken in prop::collection::vec((0i64..200, 1i64..30, 0usize..3), 0..40),
        work in prop::collection::vec((0i64..200, 1i64..40), 0..3),
        own in prop::collection::vec((0i64..200, 1i64..12), 0..3),
        hours in prop::sample::select(&["always", "mon-sun 08:00-20:00", "sat-sun 22:00-03:00"][..]),
        minutes in prop::sample::select(&[15u16, 30, 120][..]), notice in prop::sample::select(&[0u32, 90][..]),
        shared in any::<bool>(), berlin in any::<bool>(), steps in 1i64..6, wish in 0i64..200,
        silent in any::<bool>(),
    ) {
        let quarter = 900;
        let base = at("2026-10-24T06:00:00Z");
        let window = |(start, length): (i64, i64)| {
            let starts = base + start * quarter;
            Window { starts, ends: starts + length * quarter }
        };
        let mut ground = ground(server("a", if shared { Mode::Shared } else { Mode::Exclusive }, 16, 64));
        ground.server.opening = hours.parse().unwrap();
        if berlin {
            // Clocks change in the second night.
            ground.server.zone = "Europe/Berlin".parse().unwrap();
        }
        for (n, (start, length, which)) in taken.into_iter().enumerate() {
            let place = if shared { n as u32 % 5 } else { 0 };
            let (busy, layout) = (window((start, length)), Layout::SHIPPED[which]);
            ground.held.add(Held { booking: id(n), place, busy, layout });
        }
        for (n, span) in work.into_iter().enumerate() {
            let (server, window) = (ground.server.id.clone(), window(span));
            ground.closed.push(Maintenance { id: n as i64, server, window, reason: "fan".into() });
        }
        let own: Vec<Window> = own.into_iter().map(window).collect();
        let policy = Policy { grid: minutes.try_into().unwrap(), notice, ..Policy::default() };
        let (now, within, wish) = (base + 1000, window((0, 200)), base + wish * quarter);
        ground.server.seen = Some(if silent { now - 600 } else { now });
        let length = steps * policy.grid.seconds();
        let ask = Ask { layout: layout("1x4c12g"), length, within, labs: &[], apart: &own };
        let lines = policy.grid.lines(&ground.server.zone, within);
        let mut by_hand: Vec<Window> = lines.map(|starts| Window { starts, ends: starts + length }).collect();
        by_hand.retain(|w| {
            within.covers(*w)
                && !own.iter().any(|own| own.overlaps(*w))
                && policy.allows(&ground.server, now, *w).is_ok()
                && ground.server.hears_in_time(now, w.starts).is_ok()
                && ground.place_for(*w, ask.layout).is_some()
        });
        let grounds = [ground];
        let when = |found: Vec<Free>| found.into_iter().map(|f| f.window).collect::<Vec<_>>();
        prop_assert_eq!(&when(free_slots(&grounds, &policy, now, ask, usize::MAX)), &by_hand);
        by_hand.sort_by_key(|w| ((w.starts - wish).abs(), w.starts < wish));
        by_hand.truncate(3);
        prop_assert_eq!(when(alternatives(&grounds, &policy, now, wish, ask, 3)), by_hand);
    }

    #[test]
    fn going_outwards_finds_the_nearest_of_all(
        taken in prop::collection::vec((0usize..2, 0i64..300, 1i64..12), 0..60), wish in 0i64..300, steps in 1i64..6,
        own_slots in prop::collection::vec((0i64..300, 1i64..12), 0..6), days in 1i64..4, berlin in any::<bool>(),
    ) {
        let half = 1800;
        let now = at("2026-10-24T06:10:00Z");
        let base = at("2026-10-24T06:00:00Z");
        let mut grounds = vec![ground(server("a", Mode::Exclusive, 8, 32)), ground(server("b", Mode::Exclusive, 8, 32))];
        grounds[1].server.opening = "mon-sun 08:00-20:00".parse().unwrap();
        if berlin {
            // Clocks change in the second night.
            grounds[1].server.zone = "Europe/Berlin".parse().unwrap();
        }
        for (n, (which, start, length)) in taken.into_iter().enumerate() {
            let starts = base + start * half;
            let busy = Window { starts, ends: starts + length * half };
            grounds[which].held.add(Held { booking: id(n), place: 0, busy, layout: layout("1x4c12g") });
        }
        let policy = Policy::default();
        let wish = Window { starts: base + wish * half, ends: base + (wish + steps) * half };
        let within = around(&policy, now, wish, days).unwrap();
        let anybody = Ask { layout: layout("1x4c12g"), length: wish.length(), within, labs: &[], apart: &[] };
        let own = |(start, length): (i64, i64)| {
            let starts = base + start * half;
            Window { starts, ends: starts + length * half }
        };
        let own: Vec<Window> = own_slots.into_iter().map(own).collect();
        let ask = Ask { apart: &own, ..anybody };
        // Who holds slots gets what anybody gets, but for what overlaps them.
        let mut all = free_slots(&grounds, &policy, now, anybody, usize::MAX);
        all.retain(|f| !own.iter().any(|o| o.overlaps(f.window)));
        prop_assert_eq!(&free_slots(&grounds, &policy, now, ask, usize::MAX), &all);
        all.sort_by_key(|f| {
            let far = f.window.starts - wish.starts;
            (far.abs(), far < 0, f.server.clone())
        });
        all.truncate(3);
        prop_assert_eq!(alternatives(&grounds, &policy, now, wish.starts, ask, 3), all);
    }

    #[test]
    fn saved_labs_decide_only_between_slots_that_are_equal_otherwise(
        taken in prop::collection::vec((0usize..3, 0i64..90, 1i64..12), 0..40),
        kept in prop::collection::vec((0usize..3, any::<bool>(), 0i64..9), 0..4), wish in 0i64..90,
    ) {
        let half = 1800;
        let base = at("2026-11-23T06:00:00Z");
        let mut grounds: Vec<Ground> = ["a", "b", "c"].map(|name| ground(server(name, Mode::Exclusive, 8, 32))).into();
        for (n, (which, start, length)) in taken.into_iter().enumerate() {
            let starts = base + start * half;
            let busy = Window { starts, ends: starts + length * half };
            grounds[which].held.add(Held { booking: id(n), place: 0, busy, layout: layout("1x4c12g") });
        }
        let mut labs: Vec<SavedLab> = vec![];
        for (which, same, since) in kept {
            let server = grounds[which].server.id.clone();
            if labs.iter().all(|lab| lab.server != server) {
                let layout = layout(if same { "1x4c12g" } else { "2x4c8g" });
                let person = "amy".parse().unwrap();
                labs.push(SavedLab { server, person, name: "gate-amy".into(), layout, since: Epoch(since) });
            }
        }
        let policy = Policy::default();
        let within = Window { starts: base, ends: base + 90 * half };
        let ask = Ask { layout: layout("1x4c12g"), length: 2 * half, within, labs: &labs, apart: &[] };
        let plain = Ask { labs: &[], ..ask };
        let all = free_slots(&grounds, &policy, base, ask, usize::MAX);
        let key = |f: &Free| (f.window.starts, Beginning::rank(f.lab.as_ref()), f.server.clone());
        prop_assert!(all.windows(2).all(|w| key(&w[0]) < key(&w[1])));
        for free in &all {
            prop_assert_eq!(&free.lab, &Beginning::of(&labs, &free.server, ask.layout));
        }
        let when = |found: Vec<Free>| found.into_iter().map(|f| f.window).collect::<Vec<_>>();
        prop_assert_eq!(when(all), when(free_slots(&grounds, &policy, base, plain, usize::MAX)));
        let wish = base + wish * half;
        let near = |ask: Ask<'_>| when(alternatives(&grounds, &policy, base, wish, ask, 3));
        prop_assert_eq!(near(ask), near(plain));
    }

    #[test]
    fn a_calendar_finds_what_looking_at_all_finds(
        taken in prop::collection::vec((-50i64..100, 1i64..40), 0..40), gone in prop::collection::vec(0usize..40, 0..5),
        start in -60i64..120, length in 1i64..30,
    ) {
        let held = |(n, (start, length)): (usize, &(i64, i64))| Held {
            booking: id(n), place: 0, busy: Window { starts: Epoch(*start), ends: Epoch(start + length) }, layout: layout("1x4c12g"),
        };
        let all: Vec<Held> = taken.iter().enumerate().map(held).collect();
        let (mut added, mut given) = (Calendar::default(), Calendar::from_iter(all.clone()));
        all.iter().for_each(|h| added.add(h.clone()));
        let gone: Vec<_> = gone.into_iter().map(id).collect();
        gone.iter().for_each(|id| (added.remove(id), given.remove(id)).0);
        let window = Window { starts: Epoch(start), ends: Epoch(start + length) };
        let mut by_hand: Vec<&Held> = all.iter().filter(|h| h.busy.overlaps(window) && !gone.contains(&h.booking)).collect();
        by_hand.sort_by_key(|h| h.busy.starts);
        prop_assert_eq!(added.near(window).collect::<Vec<_>>(), by_hand.clone());
        prop_assert_eq!(given.near(window).collect::<Vec<_>>(), by_hand);
    }

    #[test]
    fn whatever_is_asked_places_are_apart_and_layouts_fit(
        shared in any::<bool>(), cores in 2u32..24, gib in 14u64..80,
        asks in prop::collection::vec((0i64..100, 1i64..20, 0usize..3), 1..60),
    ) {
        let mode = if shared { Mode::Shared } else { Mode::Exclusive };
        let server = server("a", mode, cores, gib);
        let held = filled(&server, asks);
        for (n, a) in held.iter().enumerate() {
            prop_assert!(a.place < places(&server));
            for b in held.iter().take(n) {
                prop_assert!(a.place != b.place || !a.busy.overlaps(b.busy));
            }
        }
        for second in 0..120 {
            let now: Vec<&Held> = held.iter().filter(|h| h.busy.holds(Epoch(second))).collect();
            let memory: u64 = now.iter().map(|h| h.layout.memory.0 * u64::from(h.layout.nodes)).sum();
            prop_assert!(memory <= server.memory.0 || now.is_empty());
            prop_assert!(!shared || now.iter().map(|h| h.layout.cores).sum::<u32>() <= cores);
        }
    }

    #[test]
    fn a_server_is_full_just_where_no_lab_gets_a_place(
        shared in any::<bool>(), cores in 2u32..24, gib in 14u64..80, disk in prop::option::of(90u64..400), buffer in 0i64..9,
        asks in prop::collection::vec((0i64..100, 1i64..20, 0usize..3), 1..60),
    ) {
        let mode = if shared { Mode::Shared } else { Mode::Exclusive };
        let server = Server { buffer, disk: disk.map(Bytes::gib), ..server("a", mode, cores, gib) };
        let held = filled(&server, asks);
        let all: Vec<(u32, Window, Layout)> = held.iter().map(|h| (h.place, h.busy, h.layout)).collect();
        let full = full_times(&server, &all);
        prop_assert!(full.is_sorted());
        for second in 0..130 {
            let slot = Window { starts: Epoch(second), ends: Epoch(second + 1) };
            let fits = |lab: &Layout| find_place(&server, &held, server.busy(slot), *lab).is_some();
            let free = !full.iter().any(|time| time.overlaps(slot));
            prop_assert_eq!(free, Layout::SHIPPED.iter().any(fits), "second {}", second);
        }
    }

    #[test]
    fn the_fullest_week_is_what_counting_by_hand_finds(uses in prop::collection::vec((0i64..400, 1i64..12), 0..20), start in 0i64..400) {
        let hour = 3600;
        let base = 1_700_000_000 / hour * hour;
        let uses: Vec<Use> = uses.into_iter().map(|(s, l)| Use { starts: Epoch(base + s * hour), seconds: l * hour }).collect();
        let around = Window { starts: Epoch(base + start * hour), ends: Epoch(base + (start + 2) * hour) };
        let weeks = (-200..620).map(|h| base + h * hour).chain([around.starts.0 - ROLLING + 1, around.ends.0 - 1]);
        let by_hand = weeks.filter(|at| *at < around.ends.0 && *at + ROLLING > around.starts.0)
            .map(|at| uses.iter().map(|u| {
                let (from, to) = (at.max(u.starts.0), (at + ROLLING).min(u.starts.0 + u.seconds));
                (to - from).max(0)
            }).sum::<i64>()).max().unwrap();
        prop_assert_eq!(most_in_any_week(&uses, around), by_hand);
    }
}
