//! Booking, changing and losing a slot.

use kubecamp::{
    core::{Bytes, Code},
    hub::{
        desk::{BookRequest, Caller, Desk, Edit, FreeRequest, NewServer, Report, Step, Taken, WeeklyRequest},
        domain::{Epoch, Grid, Health, Mode, Policy, State, Weekly, Who},
        store::Listing,
    },
};

use super::report;
use crate::hub::world::{
    NOW, agent, at, because, book, camp, clerk, generous, healthy, new_server, server, who, window, wish,
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
    let want = FreeRequest {
        person: None,
        course: None,
        server: Some("two".parse().unwrap()),
        labels: [].into(),
        layout: None,
        minutes: 60,
        within: window(60, 330),
        running: false,
        most: 10,
    };
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
        let want = FreeRequest {
            person: None,
            course: None,
            server: None,
            labels: [].into(),
            layout: wish(None, 0, 60).layout,
            minutes: 60,
            within: window(0, 3 * 1440),
            running: false,
            most: 200,
        };
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
    healthy(&desk).await;
    assert_eq!(first.state, State::Booked);
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

pub async fn extend_release_and_give(desk: Desk) {
    camp(&desk, &Policy { person_hours: 3, ..Policy::default() }).await;
    let booking = book(&desk, "amy", 60, 120).await;
    let later = book(&desk, "bob", 180, 240).await;
    let edit = Edit::default();
    let far = desk.extend(&who("amy"), NOW, None, &booking.id, at(240), &edit).await.unwrap_err();
    assert_eq!(far.code, Code::BookConflict);
    assert!(far.all_hints()[0].contains(&format!("until {}", at(150))), "how far it goes: {far:?}");
    let longer = desk.extend(&who("amy"), NOW, None, &booking.id, at(150), &edit).await.unwrap();
    assert_eq!((longer.window, longer.version, longer.charged), (window(60, 150), 2, 90 * 60));
    let into = desk.extend(&who("amy"), NOW, None, &booking.id, at(180), &edit).await.unwrap_err();
    assert_eq!(into.code, Code::BookConflict, "the buffer would reach into bob's");
    assert!(into.all_hints()[0].contains(&at(150).to_string()), "that is the last end: {into:?}");
    let stale = Edit { version: Some(1), reason: None };
    assert_eq!(desk.cancel(&who("amy"), NOW, None, &booking.id, &stale).await.unwrap_err().code, Code::BookStale);

    let given = desk.give(&who("bob"), NOW, None, &later.id, &"cem".parse().unwrap(), &edit).await.unwrap();
    assert_eq!(given.person.as_str(), "cem");
    assert_eq!(
        desk.give(&who("bob"), NOW, None, &later.id, &"amy".parse().unwrap(), &edit).await.unwrap_err().code,
        Code::HubDenied
    );
    let own = desk.give(&who("cem"), NOW, None, &later.id, &"tea".parse().unwrap(), &edit).await;
    assert!(own.is_ok(), "a teacher may have a slot");

    let give = async |minute: i64| {
        let refused = desk.give(&who("amy"), at(minute), None, &booking.id, &"dan".parse().unwrap(), &edit).await;
        let refused = refused.unwrap_err();
        (refused.code, refused.what)
    };
    let begun = (Code::BookState, format!("booking {} has begun and can no longer be given away", booking.id));
    assert_eq!(give(61).await, begun, "its server is late");
    report(&desk, 1, &longer, Step::Arming, 60).await;
    assert_eq!(give(60).await, begun);
    report(&desk, 2, &longer, Step::Active, 60).await;
    assert_eq!(desk.cancel(&who("amy"), at(70), None, &booking.id, &edit).await.unwrap_err().code, Code::BookState);
    let released = desk.release(&who("amy"), at(75), None, &booking.id, &edit).await.unwrap();
    assert_eq!((released.window.ends, released.busy_until, released.charged), (at(75), at(85), 15 * 60));
    assert_eq!(desk.release(&who("amy"), at(76), None, &booking.id, &edit).await.unwrap_err().code, Code::BookState);
    let gone = book(&desk, "bob", 300, 360).await;
    desk.cancel(&who("bob"), NOW, None, &gone.id, &edit).await.unwrap();
    let over = desk.give(&who("bob"), NOW, None, &gone.id, &"cem".parse().unwrap(), &edit).await.unwrap_err();
    assert!(over.what.contains("is cancelled and starts"), "{over}");
    healthy(&desk).await;
}

pub async fn what_its_server_ends_before_its_time_counts_until_then(desk: Desk) {
    camp(&desk, &generous()).await;
    let (one, edit) = ("one".parse().unwrap(), Edit::default());
    let booking = book(&desk, "amy", 60, 120).await;
    for (step, number) in [Step::Arming, Step::Active, Step::LoggedIn].into_iter().zip(1..) {
        assert_eq!(report(&desk, number, &booking, step, 60).await, Taken::Applied);
    }
    let extend = async |now| desk.extend(&who("amy"), now, None, &booking.id, at(150), &edit).await;
    let late = extend(at(120) - 9).await.unwrap_err();
    assert_eq!(late.code, Code::BookState);
    assert!(late.all_hints()[0].contains("would not hear of it"), "{late}");
    assert_eq!(extend(at(120) - 10).await.unwrap().charged, 90 * 60);
    // Its agent did not hear of it all the same.
    assert_eq!(report(&desk, 4, &booking, Step::Ending, 120).await, Taken::Applied);
    let after = desk.booking(&who("amy"), at(120), &booking.id).await.unwrap();
    assert_eq!((after.state, after.window, after.busy_until), (State::Ending, window(60, 120), at(130)));
    assert_eq!(after.charged, 3600);
    for (step, number) in [Step::Saving, Step::Resetting, Step::Done].into_iter().zip(5..) {
        assert_eq!(report(&desk, number, &booking, step, 121).await, Taken::Applied);
    }
    let next = desk.book(&who("bob"), at(122), None, &wish(Some("one"), 150, 210)).await.unwrap();

    // By its own clock it may be at the end already.
    for (step, number) in [Step::Arming, Step::Active, Step::LoggedIn].into_iter().zip(8..) {
        assert_eq!(report(&desk, number, &next, step, 150).await, Taken::Applied);
    }
    let ending =
        |number, id, moment| Report { number, booking: id, step: Step::Ending, moment, note: None, account: None };
    let told = ending(11, next.id.clone(), at(210) - 3);
    assert_eq!(desk.report(&agent("one"), at(210), &one, &[told]).await.unwrap()[0].taken, Taken::Applied);
    let after = desk.booking(&who("bob"), at(210), &next.id).await.unwrap();
    assert_eq!((after.window, after.charged), (window(150, 210), 3600));
    for (step, number) in [Step::Saving, Step::Resetting, Step::Done].into_iter().zip(12..) {
        assert_eq!(report(&desk, number, &next, step, 211).await, Taken::Applied);
    }

    // What its holder gave back counts until then, whenever its server hears of it.
    let given = desk.book(&who("cem"), at(212), None, &wish(Some("one"), 240, 300)).await.unwrap();
    for (step, number) in [Step::Arming, Step::Active].into_iter().zip(15..) {
        assert_eq!(report(&desk, number, &given, step, 240).await, Taken::Applied);
    }
    desk.release(&who("cem"), at(255), None, &given.id, &edit).await.unwrap();
    let told = ending(17, given.id.clone(), at(250));
    assert_eq!(desk.report(&agent("one"), at(256), &one, &[told]).await.unwrap()[0].taken, Taken::Applied);
    let after = desk.booking(&who("cem"), at(256), &given.id).await.unwrap();
    assert_eq!((after.window, after.charged), (window(240, 255), 15 * 60));
    healthy(&desk).await;
}

pub async fn a_teacher_extends_past_the_rules_but_past_nobody(desk: Desk) {
    camp(&desk, &Policy { person_hours: 1, ..Policy::default() }).await;
    let hours = "mon-fri 08:00-10:00".parse().unwrap();
    let new = NewServer { opening: hours, ..new_server("two", Mode::Exclusive, 8, 32) };
    desk.put_server(&Caller::Console, NOW, &new, None).await.unwrap();
    let booking = desk.book(&who("amy"), NOW, None, &wish(Some("two"), 60, 120)).await.unwrap();
    let extend =
        async |login: &str, to: i64, edit: Edit| desk.extend(&who(login), NOW, None, &booking.id, at(to), &edit).await;
    assert_eq!(extend("amy", 150, because("exam")).await.unwrap_err().code, Code::BookClosed, "she is no teacher");
    assert_eq!(extend("tea", 150, Edit::default()).await.unwrap_err().code, Code::HubReason);
    let longer = extend("tea", 150, because("exam")).await.unwrap();
    assert_eq!((longer.window, longer.charged, longer.note.as_deref()), (window(60, 150), 90 * 60, Some("exam")));

    let theirs = BookRequest { reason: Some("exam".into()), ..wish(Some("two"), 240, 300) };
    desk.book(&who("tea"), NOW, None, &BookRequest { person: Some("bob".parse().unwrap()), ..theirs }).await.unwrap();
    let into = extend("tea", 240, because("exam")).await.unwrap_err();
    assert_eq!(into.code, Code::BookConflict, "never past another");
    assert!(into.all_hints()[0].contains(&format!("until {}", at(210))), "{into:?}");
    let endless = extend("tea", 330, because("exam")).await.unwrap_err();
    assert_eq!(endless.code, Code::BookWindow, "nor past the longest");
    desk.add_maintenance(&Caller::Console, NOW, None, &new.id, window(200, 230), "new disk").await.unwrap();
    assert_eq!(extend("tea", 210, because("exam")).await.unwrap_err().code, Code::BookMaintenance);
    healthy(&desk).await;
}

pub async fn what_is_released_while_armed_never_opens(desk: Desk) {
    camp(&desk, &generous()).await;
    let (mine, edit) = (book(&desk, "amy", 60, 120).await, Edit::default());
    report(&desk, 1, &mine, Step::Arming, 56).await;
    let released = desk.release(&who("amy"), at(57), None, &mine.id, &edit).await.unwrap();
    assert_eq!((released.ended_by, released.charged), (Some(Who::Holder), 0));
    let plan = desk.plan_for(&agent("one"), at(57), &"one".parse().unwrap()).await.unwrap();
    assert_eq!(plan.slots[0].ended_by, Some(Who::Holder));
    let more = desk.extend(&who("amy"), at(58), None, &mine.id, at(150), &edit).await.unwrap_err();
    assert_eq!(more.code, Code::BookState, "what was given up is not taken back");
    assert_eq!(desk.release(&who("amy"), at(58), None, &mine.id, &edit).await.unwrap_err().code, Code::BookState);
    for (n, step) in [Step::Ending, Step::Resetting, Step::Done].into_iter().enumerate() {
        report(&desk, n as i64 + 2, &mine, step, 59).await;
    }
    desk.book(&who("bob"), at(59), None, &wish(Some("one"), 90, 150)).await.unwrap();
    healthy(&desk).await;
}

pub async fn others_bookings_need_a_teacher_with_a_reason(desk: Desk) {
    camp(&desk, &Policy { person_hours: 1, ..Policy::default() }).await;
    let booking = book(&desk, "amy", 60, 120).await;
    let denied = desk.cancel(&who("bob"), NOW, None, &booking.id, &because("mine!")).await.unwrap_err();
    assert_eq!(denied.code, Code::HubDenied);
    let mute = desk.cancel(&who("tea"), NOW, None, &booking.id, &Edit::default()).await.unwrap_err();
    assert_eq!(mute.code, Code::HubReason);
    desk.cancel(&who("tea"), NOW, None, &booking.id, &because("exam")).await.unwrap();
    let mut over = wish(Some("one"), 60, 240);
    over.person = Some("amy".parse().unwrap());
    assert_eq!(desk.book(&who("bob"), NOW, None, &over).await.unwrap_err().problem.code, Code::HubDenied);
    assert_eq!(desk.book(&who("tea"), NOW, None, &over).await.unwrap_err().problem.code, Code::BookQuota);
    for bad in [String::new(), " \n".into(), "x".repeat(501)] {
        let (why, booking) = (because(&bad), book(&desk, "cem", 600, 630).await);
        over.reason = Some(bad.clone());
        let codes = [
            desk.book(&who("tea"), NOW, None, &over).await.unwrap_err().problem.code,
            desk.wait(&who("tea"), NOW, None, &over).await.unwrap_err().code,
            desk.cancel(&who("tea"), NOW, None, &booking.id, &why).await.unwrap_err().code,
            desk.extend(&who("tea"), NOW, None, &booking.id, at(660), &why).await.unwrap_err().code,
            desk.give(&who("tea"), NOW, None, &booking.id, &"dan".parse().unwrap(), &why).await.unwrap_err().code,
            desk.set_health(&Caller::Console, NOW, None, &"one".parse().unwrap(), Health::Away, &bad)
                .await
                .unwrap_err()
                .code,
        ];
        assert_eq!(codes, [Code::HubReason; 6], "{} characters", bad.len());
        desk.cancel(&who("tea"), NOW, None, &booking.id, &because(" exam ")).await.unwrap();
    }
    over.reason = Some(" exam\n".into());
    let made = desk.book(&who("tea"), NOW, None, &over).await.unwrap();
    assert_eq!((made.person.as_str(), made.note.as_deref()), ("amy", Some("exam")));
    assert_eq!(desk.booking(&who("bob"), NOW, &made.id).await.unwrap().note, None, "reasons are not for everybody");
    let rows = desk.audit(&Caller::Console, NOW, None, Some("person:tea".into()), 10).await.unwrap();
    assert!(rows.iter().all(|r| r.reason.as_deref() == Some("exam")));
    for student in ["amy", "bob"] {
        assert_eq!(desk.people(&who(student), NOW).await.unwrap_err().code, Code::HubDenied);
        let health = desk.set_health(&who(student), NOW, None, &"one".parse().unwrap(), Health::Away, "x").await;
        assert_eq!(health.unwrap_err().code, Code::HubDenied);
    }
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
    let steps = [Step::Arming, Step::Active, Step::LoggedIn, Step::Ending, Step::Saving, Step::Resetting, Step::Done];
    for (step, number) in steps.into_iter().zip(1..) {
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

pub async fn shared_servers_hold_as_many_labs_as_fit(desk: Desk) {
    camp(&desk, &generous()).await;
    server(&desk, "big", Mode::Shared, 8, 40).await;
    let mut lab = wish(Some("big"), 60, 120);
    for (login, layout, good) in
        [("amy", "2x4c8g", true), ("bob", "3x2c4g", true), ("cem", "1x4c12g", false), ("dan", "3x2c4g", false)]
    {
        lab.layout = Some(layout.parse().unwrap());
        // 38 GiB and 8 cores: 16 + 12 GiB and 4 + 2 cores leave 10 GiB and 2 cores.
        assert_eq!(desk.book(&who(login), NOW, None, &lab).await.is_ok(), good, "{login}");
    }
    let want = FreeRequest {
        person: None,
        course: None,
        server: Some("big".parse().unwrap()),
        labels: [].into(),
        layout: Some("2x4c8g".parse().unwrap()),
        minutes: 60,
        within: window(60, 300),
        running: false,
        most: 1,
    };
    let free = desk.free(&who("dan"), NOW, &want).await.unwrap();
    assert_eq!(free[0].window, window(150, 210));
    let week = desk.week(&who("dan"), NOW, window(0, 1440)).await.unwrap();
    assert_eq!(week.servers.iter().map(|s| (s.places, s.bookings.len())).collect::<Vec<_>>(), [(3, 2), (1, 0)]);
    healthy(&desk).await;
}

pub async fn a_disk_that_holds_what_is_ahead_can_be_told_any_time(desk: Desk) {
    camp(&desk, &generous()).await;
    let new = new_server("big", Mode::Shared, 8, 40);
    let mut seen = desk.put_server(&Caller::Console, NOW, &new, None).await.unwrap();
    for (login, layout) in [("amy", "2x4c8g"), ("bob", "3x2c4g")] {
        let lab = BookRequest { layout: Some(layout.parse().unwrap()), ..wish(Some("big"), 60, 120) };
        desk.book(&who(login), NOW, None, &lab).await.unwrap();
    }
    // Five machines at a time, of 30 GiB each. Each booking has changed the server's plan, but nothing that is set.
    for (gib, good) in [(60, false), (149, false), (150, true), (500, true), (120, false)] {
        let told = NewServer { disk: Some(Bytes::gib(gib)), ..new.clone() };
        match desk.put_server(&Caller::Console, NOW, &told, Some(seen.version)).await {
            Ok(after) if good => seen = after,
            Err(problem) if !good => {
                assert_eq!(problem.code, Code::BookState);
                assert!(problem.what.contains("2 bookings ahead, and the disk does not hold them"), "{problem}");
            }
            other => panic!("{gib}: {other:?}"),
        }
    }
    let fewer = NewServer { cores: 7, disk: seen.disk, ..new };
    let refused = desk.put_server(&Caller::Console, NOW, &fewer, Some(seen.version)).await.unwrap_err();
    assert_eq!(refused.what, "server big has 2 bookings ahead");
    healthy(&desk).await;
}

pub async fn a_recurrence_is_cancelled_as_one(desk: Desk) {
    camp(&desk, &generous()).await;
    let weekly = Weekly {
        zone: "UTC".parse().unwrap(),
        starts: "2026-11-23T08:00:00".parse().unwrap(),
        ends: "2026-11-23T10:00:00".parse().unwrap(),
        weeks: 4,
    };
    let request = WeeklyRequest { first: wish(Some("one"), 0, 30), weekly };
    let made = desk.book_weekly(&who("amy"), NOW, None, &request).await.unwrap();
    let id = made[0].booking.series.clone().unwrap();
    desk.give(&who("amy"), NOW, None, &made[3].booking.id, &"bob".parse().unwrap(), &Edit::default()).await.unwrap();
    report(&desk, 1, &made[0].booking, Step::Arming, 0).await;
    let code = async |login: &str, edit: Edit| {
        desk.cancel_series(&who(login), at(1), None, &id, &edit).await.err().map(|p| p.code)
    };
    assert_eq!(code("dan", because("mine")).await, Some(Code::HubDenied));
    assert_eq!(code("tea", Edit::default()).await, Some(Code::HubReason));
    assert_eq!(code("amy", Edit { version: Some(1), reason: None }).await, Some(Code::HubInvalid));
    let gone = desk.cancel_series(&who("amy"), at(1), Some("k"), &id, &Edit::default()).await.unwrap();
    assert_eq!(
        gone.iter().map(|b| b.id.clone()).collect::<Vec<_>>(),
        [1, 2].map(|n: usize| made[n].booking.id.clone())
    );
    assert!(gone.iter().all(|b| b.state == State::Cancelled));
    assert_eq!(desk.cancel_series(&who("amy"), at(2), Some("k"), &id, &Edit::default()).await.unwrap(), gone);
    assert_eq!(code("amy", Edit::default()).await, Some(Code::BookState), "nothing is ahead");
    for (n, left) in [(0, State::Arming), (3, State::Booked)] {
        let booking = desk.booking(&Caller::Console, at(2), &made[n].booking.id).await.unwrap();
        assert_eq!(booking.state, left, "what runs, and what was given away, stays");
    }
    healthy(&desk).await;
}

pub async fn weeks_that_cannot_be_had_are_named_with_slots_near_the_first(desk: Desk) {
    camp(&desk, &generous()).await;
    let (week, first) = (7 * 1440, 1440 + 60);
    for taken in [1, 3] {
        book(&desk, "bob", taken * week + first + 60, taken * week + first + 120).await;
    }
    let weekly = Weekly {
        zone: "Europe/Berlin".parse().unwrap(),
        starts: "2026-11-24T10:00:00".parse().unwrap(),
        ends: "2026-11-24T12:00:00".parse().unwrap(),
        weeks: 4,
    };
    let request = WeeklyRequest { first: wish(Some("one"), 0, 30), weekly };
    let refusal = desk.book_weekly(&who("amy"), NOW, None, &request).await.unwrap_err();
    assert_eq!(refusal.problem.code, Code::BookConflict);
    let named = |n: i64| window(n * week + first, n * week + first + 120).to_string();
    let lines = &refusal.problem.detail;
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with(&named(1)) && lines[1].starts_with(&named(3)), "{lines:?}");
    assert_eq!(refusal.alternatives.len(), 3);
    for free in &refusal.alternatives {
        assert!((free.window.starts - at(week + first)).abs() <= 4 * 3600 && free.window.length() == 7200, "{free:?}");
    }
    assert!(refusal.problem.all_hints()[0].contains("weeks"), "another slot for one week is not all of the answer");
    let amy = Listing { person: Some("amy".parse().unwrap()), ..Listing::default() };
    assert!(desk.bookings(&who("amy"), NOW, &amy).await.unwrap().is_empty());
    healthy(&desk).await;
}

pub async fn weekly_is_all_or_nothing(desk: Desk) {
    camp(&desk, &Policy { open_ahead: 1, ..Policy::default() }).await;
    let weekly = |weeks| Weekly {
        zone: "Europe/Berlin".parse().unwrap(),
        starts: "2026-11-24T10:00:00".parse().unwrap(),
        ends: "2026-11-24T12:00:00".parse().unwrap(),
        weeks,
    };
    let request = |weeks| WeeklyRequest { first: wish(Some("one"), 0, 30), weekly: weekly(weeks) };
    let far = desk.book_weekly(&who("amy"), NOW, None, &request(6)).await.unwrap_err();
    assert_eq!(far.problem.code, Code::BookHorizon);
    assert!(desk.bookings(&who("amy"), NOW, &Listing::default()).await.unwrap().is_empty());
    let made = desk.book_weekly(&who("amy"), NOW, None, &request(4)).await.unwrap();
    assert_eq!(made.len(), 4);
    assert!(made.iter().all(|p| p.booking.series == made[0].booking.series && p.booking.series.is_some()));
    let more = desk
        .book_weekly(
            &who("amy"),
            NOW,
            None,
            &WeeklyRequest {
                weekly: Weekly {
                    weeks: 1,
                    starts: "2026-11-24T14:00:00".parse().unwrap(),
                    ends: "2026-11-24T15:00:00".parse().unwrap(),
                    ..weekly(1)
                },
                ..request(1)
            },
        )
        .await;
    assert_eq!(more.unwrap_err().problem.code, Code::BookAhead, "a recurrence counts as one, but it counts");
    healthy(&desk).await;
}
