//! Booking a slot: what is taken, what is offered instead, and the rules.

use kubecamp::{
    core::Code,
    hub::{
        desk::{BookRequest, Caller, Desk, Edit, NewServer, Report, Step, Taken},
        domain::{Epoch, Grid, Health, Mode, Policy, State},
        store::Listing,
    },
};

use crate::hub::world::{
    NOW, WHOLE, agent, at, book, camp, clerk, generous, healthy, new_server, report, search, server, who, window, wish,
};

pub async fn a_taken_slot_is_refused_with_three_alternatives(desk: Desk) {
    camp(&desk, &Policy::default()).await;
    book(&desk, "amy", 60, 120).await;
    let refusal = desk.book(&who("bob"), NOW, None, &wish(Some("one"), 90, 150)).await.unwrap_err();
    assert_eq!(refusal.problem.code, Code::BookConflict);
    let starts: Vec<i64> = refusal.alternatives.iter().map(|f| (f.window.starts - NOW) / 60).collect();
    assert_eq!(starts, [150, 180, 210]);
    // The buffer counts too: ten minutes after the end are the server's own.
    assert!(desk.book(&who("bob"), NOW, None, &wish(Some("one"), 120, 150)).await.is_err());
    let alternative = &refusal.alternatives[0];
    let again = kubecamp::hub::desk::BookRequest { window: alternative.window, ..wish(None, 0, 30) };
    desk.book(&who("bob"), NOW, None, &again).await.unwrap();
    healthy(&desk).await;
}

pub async fn what_is_offered_instead_can_be_had(desk: Desk) {
    camp(&desk, &generous()).await;
    server(&desk, "two", Mode::Exclusive, 8, 32).await;
    book(&desk, "amy", 120, 240).await;
    book(&desk, "bob", 300, 420).await;
    // Her own is in the way, on whatever server: the hour is free on two, but not for her.
    for (mine, code) in
        [(wish(Some("two"), 120, 180), Code::BookOwn), (wish(Some("one"), 210, 330), Code::BookConflict)]
    {
        let refusal = desk.book(&who("amy"), NOW, None, &mine).await.unwrap_err();
        assert_eq!((refusal.problem.code, refusal.alternatives.len()), (code, 3));
        for free in &refusal.alternatives {
            assert!(!free.window.overlaps(window(120, 240)), "{free:?}");
            let offered = BookRequest { window: free.window, server: Some(free.server.clone()), ..mine.clone() };
            let booked = desk.book(&who("amy"), NOW, None, &offered).await.unwrap();
            desk.cancel(&who("amy"), NOW, None, &booked.id, &Edit::default()).await.unwrap();
        }
    }
    let want = search(Some("two"), None, window(60, 330), 10);
    let starts = async |login: &str| {
        let free = desk.free(&who(login), NOW, &want).await.unwrap();
        free.iter().map(|f| (f.window.starts - NOW) / 60).collect::<Vec<i64>>()
    };
    assert_eq!(starts("amy").await, [60, 240, 270]);
    assert_eq!(starts("cem").await, [60, 90, 120, 150, 180, 210, 240, 270]);
    healthy(&desk).await;
}

pub async fn who_holds_the_slot_themselves_is_told_so(desk: Desk) {
    camp(&desk, &generous()).await;
    let own = book(&desk, "amy", 120, 180).await;
    let told = async |login: &str, wish: &BookRequest| {
        let refusal = desk.book(&who(login), NOW, None, wish).await.unwrap_err();
        (refusal.problem.code, refusal.problem.what.contains(own.id.as_str()))
    };
    for server in [Some("one"), None] {
        for (from, to) in [(120, 180), (90, 150), (150, 240)] {
            assert_eq!(told("amy", &wish(server, from, to)).await, (Code::BookOwn, true), "{server:?} {from}");
            assert_eq!(told("bob", &wish(server, from, to)).await, (Code::BookConflict, false), "{server:?} {from}");
        }
    }
    // She would not have it without her own either.
    book(&desk, "bob", 210, 270).await;
    assert_eq!(told("amy", &wish(Some("one"), 150, 240)).await, (Code::BookConflict, false));
    healthy(&desk).await;
}

/// A refusal looks at what is kept of each server; `free` reads the database.
pub async fn what_is_kept_of_a_server_is_what_it_holds(desk: Desk) {
    camp(&desk, &generous()).await;
    let first = book(&desk, "amy", 120, 180).await;
    let ask = async |what: &str| {
        let refusal = desk.book(&who("cem"), NOW, None, &wish(Some("one"), 120, 180)).await.unwrap_err();
        let offered: Vec<Epoch> = refusal.alternatives.iter().map(|f| f.window.starts).collect();
        let want = search(None, Some("1x4c12g"), window(0, 3 * 1440), 200);
        let mut free: Vec<Epoch> =
            desk.free(&who("cem"), NOW, &want).await.unwrap().iter().map(|f| f.window.starts).collect();
        free.sort_by_key(|start| ((*start - at(120)).abs(), *start < at(120)));
        assert_eq!(offered, free[..3], "{what}");
    };
    ask("nothing was kept yet").await;
    let before = desk.server(&who("amy"), NOW, &"one".parse().unwrap()).await.unwrap().revision;
    let second = book(&desk, "bob", 210, 300).await;
    let after = desk.server(&who("amy"), NOW, &"one".parse().unwrap()).await.unwrap().revision;
    assert_eq!(after, before + 1, "what is kept is brought up to date by this");
    ask("a booking was added to it").await;
    book(&desk, "dan", 330, 390).await;
    ask("another one").await;
    desk.cancel(&who("bob"), NOW, None, &second.id, &Edit::default()).await.unwrap();
    ask("one is gone").await;
    book(&desk, "bob", 30, 90).await;
    ask("one came before all others").await;
    let there = desk.booking(&Caller::Console, NOW, &first.id).await.unwrap();
    assert_eq!(there, first, "none of that was hers");
    healthy(&desk).await;
}

pub async fn a_repeated_key_books_once(desk: Desk) {
    camp(&desk, &Policy::default()).await;
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let desk = desk.clone();
            tokio::spawn(async move { desk.book(&who("amy"), NOW, Some("key-1"), &wish(Some("one"), 60, 120)).await })
        })
        .collect();
    let mut ids = std::collections::BTreeSet::new();
    for task in tasks {
        ids.insert(task.await.unwrap().unwrap().id);
    }
    assert_eq!(ids.len(), 1);
    assert_eq!(desk.bookings(&who("amy"), NOW, &Listing::default()).await.unwrap().len(), 1);
    let other = desk.book(&who("amy"), NOW, Some("key-1"), &wish(Some("one"), 180, 240)).await.unwrap_err();
    assert_eq!(other.problem.code, Code::HubKeyReused);
    // The same key of somebody else is another key.
    desk.book(&who("bob"), NOW, Some("key-1"), &wish(Some("one"), 180, 240)).await.unwrap();
    healthy(&desk).await;
}

pub async fn quotas_hold(desk: Desk) {
    let policy = Policy { person_hours: 4, group_hours: 6, open_ahead: 3, ..Policy::default() };
    camp(&desk, &policy).await;
    let day = 1440;
    book(&desk, "amy", day, day + 180).await;
    let code = |login: &'static str, from: i64, to: i64| {
        let desk = desk.clone();
        async move {
            desk.book(&who(login), NOW, None, &wish(Some("one"), from, to)).await.map_err(|r| r.problem.code).map(drop)
        }
    };
    assert_eq!(code("amy", 3 * day, 3 * day + 90).await, Err(Code::BookQuota));
    assert_eq!(code("amy", 3 * day, 3 * day + 60).await, Ok(()));
    assert_eq!(code("amy", day + 7 * day + 180, day + 7 * day + 240).await, Ok(()), "a week later it rolls on");
    assert_eq!(code("amy", 16 * day, 16 * day + 30).await, Err(Code::BookAhead));
    assert_eq!(code("bob", 2 * day, 2 * day + 150).await, Err(Code::BookGroupQuota));
    assert_eq!(code("bob", 2 * day, 2 * day + 120).await, Ok(()));
    assert_eq!(code("dan", 2 * day + 180, 2 * day + 360).await, Ok(()), "another group");
    healthy(&desk).await;
}

pub async fn rules_of_time_hold(desk: Desk) {
    camp(&desk, &Policy { notice: 30, ..Policy::default() }).await;
    let cases = [
        (61, 120, Code::BookGrid),
        (60, 330, Code::BookWindow),
        (0, 60, Code::BookNotice),
        (-120, -60, Code::BookNotice),
        (30 * 1440, 30 * 1440 + 60, Code::BookHorizon),
    ];
    for (from, to, code) in cases {
        let refusal = desk.book(&who("amy"), NOW, None, &wish(Some("one"), from, to)).await.unwrap_err();
        assert_eq!(refusal.problem.code, code, "{from} {to}");
    }
    desk.add_maintenance(&Caller::Console, NOW, None, &"one".parse().unwrap(), window(600, 700), "new disk")
        .await
        .unwrap();
    let refusal = desk.book(&who("amy"), NOW, None, &wish(Some("one"), 540, 600)).await.unwrap_err();
    assert_eq!(refusal.problem.code, Code::BookMaintenance, "the buffer would reach into it");
    let mut large = wish(Some("one"), 60, 120);
    large.layout = Some("3x8c16g".parse().unwrap());
    assert_eq!(desk.book(&who("amy"), NOW, None, &large).await.unwrap_err().problem.code, Code::BookLayout);
    large.layout = Some("1x1c1g".parse().unwrap());
    assert_eq!(desk.book(&who("amy"), NOW, None, &large).await.unwrap_err().problem.code, Code::BookLayout);
    let stranger = desk.book(&who("zoe"), NOW, None, &wish(Some("one"), 60, 120)).await.unwrap_err();
    assert_eq!(stranger.problem.code, Code::HubUnknown);
    assert!(desk.bookings(&Caller::Console, NOW, &Listing::default()).await.unwrap().is_empty(), "nothing was changed");
    healthy(&desk).await;
}

pub async fn a_week_is_shown_as_it_is_by_now(desk: Desk) {
    camp(&desk, &generous()).await;
    server(&desk, "two", Mode::Exclusive, 8, 32).await;
    // Looked at after each change: what was read for the look before must not be shown again.
    let shown = async |after: &str| {
        let day = window(0, 1440);
        let want = Listing { within: Some(day), ..Listing::default() };
        let mut there = desk.bookings(&who("tea"), NOW, &want).await.unwrap();
        there.retain(|b| b.state.is_live() || b.state.counts());
        let week = desk.week(&who("tea"), NOW, day).await.unwrap();
        let mut seen: Vec<_> = week.servers.iter().flat_map(|s| s.bookings.to_vec()).collect();
        seen.sort_by(|a, b| (a.window.starts, &a.id).cmp(&(b.window.starts, &b.id)));
        assert_eq!(seen, there, "{after}");
        seen.len()
    };
    let (one, plain) = ("one".parse().unwrap(), Edit::default());
    let first = book(&desk, "amy", 0, 60).await;
    let second = book(&desk, "bob", 120, 180).await;
    assert_eq!(shown("booked").await, 2);
    desk.extend(&who("amy"), NOW, None, &first.id, at(90), &plain).await.unwrap();
    shown("extended").await;
    desk.give(&who("bob"), NOW, None, &second.id, &"cem".parse().unwrap(), &plain).await.unwrap();
    shown("given").await;
    let (id, note) = (second.id.clone(), Some("no key".to_owned()));
    let refused = Report { number: 1, booking: id, step: Step::Refused, moment: NOW, note, account: None };
    desk.report(&agent("one"), NOW, &one, &[refused]).await.unwrap();
    shown("refused").await;
    desk.set_health(&Caller::Console, NOW, None, &one, Health::Away, "new disk").await.unwrap();
    assert_eq!(clerk(&desk).settle(at(1)).await.unwrap().moved, 2);
    shown("moved").await;
    desk.cancel(&who("cem"), at(1), None, &second.id, &plain).await.unwrap();
    assert_eq!(shown("cancelled").await, 1);
    let first = desk.booking(&who("amy"), NOW, &first.id).await.unwrap();
    for (step, number) in WHOLE.into_iter().zip(1..) {
        assert_eq!(report(&desk, number, &first, step, 2).await, Taken::Applied);
        shown(format!("{step:?}").as_str()).await;
    }
    desk.remove_group(&who("tea"), at(3), &"red".parse().unwrap()).await.unwrap();
    assert_eq!(shown("without its group").await, 1);
    healthy(&desk).await;
}

pub async fn a_server_in_another_zone_keeps_nobody_from_the_others(desk: Desk) {
    camp(&desk, &Policy { grid: Grid::try_from(60).unwrap(), ..generous() }).await;
    let new = NewServer { zone: "Asia/Kolkata".parse().unwrap(), ..new_server("far", Mode::Exclusive, 8, 32) };
    desk.put_server(&Caller::Console, NOW, &new, None).await.unwrap();
    // 9:00 in UTC is half past there, and it comes first: by name, and by its saved lab.
    let kept = Some(("gate-amy", "1x4c12g"));
    desk.lab(&agent("far"), NOW, &new.id, 1, "amy", kept).await.unwrap();
    for (from, server) in [(60, "one"), (150, "far")] {
        let booked = desk.book(&who("amy"), NOW, None, &wish(None, from, from + 60)).await.unwrap();
        assert_eq!(booked.server.unwrap().as_str(), server);
    }
    let neither = desk.book(&who("amy"), NOW, None, &wish(None, 255, 315)).await.unwrap_err();
    assert_eq!(neither.problem.code, Code::BookGrid);
    let taken = desk.book(&who("bob"), NOW, None, &wish(None, 60, 120)).await.unwrap_err();
    assert_eq!(taken.problem.code, Code::BookConflict, "and not that it is off the raster of the other");
    // Nor is the other one offered off its raster.
    let waiting = desk.wait(&who("bob"), NOW, None, &wish(None, 60, 120)).await.unwrap();
    assert_eq!(clerk(&desk).settle(at(1)).await.unwrap().offered, 0);
    assert_eq!(desk.booking(&who("bob"), NOW, &waiting.id).await.unwrap().state, State::Waitlisted);
    healthy(&desk).await;
}
