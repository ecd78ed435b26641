//! What the desk promises, one scenario each; every one begins with an empty database and ends with a healthy one.

use std::{fs, future::Future, pin::Pin, process::Command};

use kubecamp::{
    core::Code,
    hub::{
        desk::{
            Caller, ClassRequest, Desk, Edit, FreeRequest, Heartbeat, NewPerson, Report, Step, StudentWishes, Taken,
            WeeklyRequest,
        },
        domain::{Health, Mode, Policy, Role, State, Weekly, Wish},
        store::{Listing, TokenKind},
    },
};

use super::world::{NOW, agent, at, because, book, camp, clerk, generous, healthy, person, server, who, window, wish};

type Scenario = fn(Desk) -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        pub fn all() -> Vec<(&'static str, Scenario)> {
            vec![$((stringify!($name), |desk| Box::pin($name(desk)))),*]
        }
    };
}

scenarios![
    a_taken_slot_is_refused_with_three_alternatives,
    a_repeated_key_books_once,
    quotas_hold,
    rules_of_time_hold,
    the_waitlist_is_fair_and_offers_lapse,
    a_slot_lives_from_booked_to_done,
    an_overrun_reset_delays_the_next_and_is_not_charged,
    a_no_show_is_released_but_not_resold_before_the_agent_knows,
    extend_release_and_give,
    others_bookings_need_a_teacher_with_a_reason,
    a_quarantined_server_loses_its_bookings_to_another,
    shared_servers_hold_as_many_labs_as_fit,
    weekly_is_all_or_nothing,
    a_class_is_planned_and_booked,
    links_work_once_and_signatures_sign_in,
    a_roster_is_imported_whole_or_not,
    webhooks_are_signed_and_tried_again,
    clocks_that_are_off_arm_nothing,
    who_is_out_loses_tokens_and_slots,
];

async fn report(desk: &Desk, number: i64, booking: &kubecamp::hub::domain::Booking, step: Step, minute: i64) -> Taken {
    let one = Report { number, booking: booking.id.clone(), step, moment: at(minute), note: None };
    let server = booking.server.clone().unwrap();
    let caller = Caller::Agent(server.clone());
    desk.report(&caller, at(minute), &server, &[one]).await.unwrap()[0].taken
}

async fn state(desk: &Desk, booking: &kubecamp::hub::domain::Booking) -> State {
    desk.booking(&Caller::Console, NOW, &booking.id).await.unwrap().state
}

async fn acknowledge(desk: &Desk, minute: i64) {
    let server = "one".parse().unwrap();
    let plan = desk.plan_for(&agent("one"), at(minute), &server).await.unwrap();
    let beat = Heartbeat { revision: plan.revision, clock: at(minute) };
    desk.heartbeat(&agent("one"), at(minute), &server, &beat).await.unwrap();
}

async fn a_taken_slot_is_refused_with_three_alternatives(desk: Desk) {
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

async fn a_repeated_key_books_once(desk: Desk) {
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

async fn quotas_hold(desk: Desk) {
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

async fn rules_of_time_hold(desk: Desk) {
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
    desk.add_maintenance(&Caller::Console, NOW, &"one".parse().unwrap(), window(600, 700), "new disk").await.unwrap();
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

async fn the_waitlist_is_fair_and_offers_lapse(desk: Desk) {
    camp(&desk, &generous()).await;
    // Amy used an hour yesterday; the clerk counts what is past, so it is booked before and played by the agent.
    let past = desk.book(&who("amy"), at(-1440), None, &wish(Some("one"), -1440, -1380)).await.unwrap();
    for (n, step) in
        [Step::Arming, Step::Active, Step::Ending, Step::Saving, Step::Resetting, Step::Done].into_iter().enumerate()
    {
        assert_eq!(report(&desk, n as i64 + 1, &past, step, -1440).await, Taken::Applied);
    }
    let taken = book(&desk, "dan", 240, 300).await;
    let amy = desk.wait(&who("amy"), NOW, None, &wish(None, 240, 300)).await.unwrap();
    let bob = desk.wait(&who("bob"), at(1), None, &wish(Some("one"), 240, 300)).await.unwrap();
    assert_eq!(desk.wait(&who("bob"), at(1), None, &wish(None, 240, 300)).await.unwrap_err().code, Code::BookOwn);
    let clerk = clerk(&desk);
    assert_eq!(clerk.settle(at(2)).await.unwrap().offered, 0, "nothing is free");

    let refused = desk.extend(&who("dan"), NOW, None, &taken.id, at(330), &Edit::default()).await;
    assert!(refused.is_ok(), "nobody waits for the half hour after");
    desk.cancel(&who("dan"), NOW, None, &taken.id, &Edit::default()).await.unwrap();
    assert_eq!(clerk.settle(at(3)).await.unwrap().offered, 1);
    assert_eq!(state(&desk, &bob).await, State::Offered, "bob used least");
    assert_eq!(state(&desk, &amy).await, State::Waitlisted);
    assert!(
        desk.book(&who("cem"), at(4), None, &wish(Some("one"), 240, 300)).await.is_err(),
        "an offer holds the place"
    );

    assert_eq!(clerk.settle(at(12)).await.unwrap().settled, 0);
    let ticked = clerk.settle(at(13)).await.unwrap();
    assert_eq!((ticked.settled, ticked.offered), (1, 1));
    assert_eq!((state(&desk, &bob).await, state(&desk, &amy).await), (State::Waitlisted, State::Offered));
    assert_eq!(desk.accept(&who("bob"), at(14), &amy.id).await.unwrap_err().code, Code::HubDenied);
    let accepted = desk.accept(&who("amy"), at(14), &amy.id).await.unwrap();
    assert_eq!((accepted.state, accepted.place), (State::Booked, Some(0)));
    clerk.settle(at(240)).await.unwrap();
    assert_eq!(state(&desk, &bob).await, State::Cancelled, "its start has come");
    healthy(&desk).await;
}

async fn a_slot_lives_from_booked_to_done(desk: Desk) {
    camp(&desk, &generous()).await;
    let booking = book(&desk, "amy", 0, 60).await;
    let one = "one".parse().unwrap();
    assert_eq!(desk.plan_for(&agent("two"), NOW, &one).await.unwrap_err().code, Code::HubDenied);
    let plan = desk.plan_for(&agent("one"), NOW, &one).await.unwrap();
    assert_eq!((plan.slots.len(), plan.expires - plan.issued), (1, 72 * 3600));
    assert_eq!((plan.slots[0].booking.clone(), plan.slots[0].window), (booking.id.clone(), booking.window));

    let steps = [
        (Step::Arming, State::Arming),
        (Step::Active, State::Active),
        (Step::LoggedIn, State::Active),
        (Step::Ending, State::Ending),
        (Step::Saving, State::Saving),
        (Step::Resetting, State::Resetting),
        (Step::Done, State::Done),
    ];
    for (n, (step, after)) in steps.into_iter().enumerate() {
        let number = n as i64 + 1;
        assert_eq!(report(&desk, number, &booking, step, 5).await, Taken::Applied, "{step:?}");
        assert_eq!(report(&desk, number, &booking, step, 5).await, Taken::Known, "{step:?} again");
        assert_eq!(state(&desk, &booking).await, after);
        let occupant = desk.server(&Caller::Console, NOW, &one).await.unwrap().occupant;
        assert_eq!(occupant.is_some(), after != State::Done);
        healthy(&desk).await;
    }
    assert_eq!(report(&desk, 8, &booking, Step::Active, 5).await, Taken::Known, "late, but of the past");
    let newer = desk.plan_for(&agent("one"), NOW, &one).await.unwrap();
    assert!(newer.revision > plan.revision && newer.slots.is_empty());
    let audit = desk.audit(&Caller::Console, NOW, Some(format!("booking:{}", booking.id)), None, 100).await.unwrap();
    assert_eq!(audit.len(), 8);
    assert_eq!(
        desk.events(&who("bob"), NOW, 0, 1000).await.unwrap().iter().filter(|e| e.kind.starts_with("booking.")).count(),
        8
    );
}

async fn an_overrun_reset_delays_the_next_and_is_not_charged(desk: Desk) {
    camp(&desk, &generous()).await;
    let first = book(&desk, "amy", 0, 60).await;
    let next = book(&desk, "bob", 90, 150).await;
    for (n, step) in [Step::Arming, Step::Active, Step::LoggedIn, Step::Ending, Step::Saving].into_iter().enumerate() {
        report(&desk, n as i64 + 1, &first, step, 60).await;
    }
    let clerk = clerk(&desk);
    clerk.settle(at(89)).await.unwrap();
    assert_eq!(state(&desk, &next).await, State::Booked);
    clerk.settle(at(90)).await.unwrap();
    assert_eq!(state(&desk, &next).await, State::Delayed);
    assert_eq!(report(&desk, 10, &next, Step::Arming, 95).await, Taken::SetAside, "the server is not clear");
    report(&desk, 11, &first, Step::Resetting, 100).await;
    report(&desk, 12, &first, Step::Done, 110).await;
    assert_eq!(report(&desk, 13, &next, Step::Arming, 110).await, Taken::Applied);
    let after = desk.booking(&who("bob"), NOW, &next.id).await.unwrap();
    assert_eq!((after.state, after.charged), (State::Arming, 40 * 60));
    healthy(&desk).await;
}

async fn a_no_show_is_released_but_not_resold_before_the_agent_knows(desk: Desk) {
    camp(&desk, &generous()).await;
    let booking = book(&desk, "amy", 0, 120).await;
    acknowledge(&desk, 0).await;
    report(&desk, 1, &booking, Step::Arming, 0).await;
    report(&desk, 2, &booking, Step::Active, 0).await;
    let clerk = clerk(&desk);
    clerk.settle(at(14)).await.unwrap();
    assert_eq!(state(&desk, &booking).await, State::Active);
    clerk.settle(at(15)).await.unwrap();
    assert_eq!(state(&desk, &booking).await, State::NoShow);
    let again = wish(Some("one"), 30, 90);
    assert_eq!(desk.book(&who("bob"), at(16), None, &again).await.unwrap_err().problem.code, Code::BookConflict);
    acknowledge(&desk, 17).await;
    desk.book(&who("bob"), at(17), None, &again).await.unwrap();
    assert_eq!(report(&desk, 3, &booking, Step::Done, 18).await, Taken::Known, "closed and proven, apart");
    assert_eq!(desk.server(&Caller::Console, NOW, &"one".parse().unwrap()).await.unwrap().occupant, None);
    healthy(&desk).await;
}

async fn extend_release_and_give(desk: Desk) {
    camp(&desk, &Policy { person_hours: 3, ..Policy::default() }).await;
    let booking = book(&desk, "amy", 60, 120).await;
    let later = book(&desk, "bob", 180, 240).await;
    let edit = Edit::default();
    let longer = desk.extend(&who("amy"), NOW, None, &booking.id, at(150), &edit).await.unwrap();
    assert_eq!((longer.window, longer.version, longer.charged), (window(60, 150), 2, 90 * 60));
    let into = desk.extend(&who("amy"), NOW, None, &booking.id, at(180), &edit).await.unwrap_err();
    assert_eq!(into.code, Code::BookConflict, "the buffer would reach into bob's");
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

    report(&desk, 1, &longer, Step::Arming, 60).await;
    report(&desk, 2, &longer, Step::Active, 60).await;
    assert_eq!(desk.cancel(&who("amy"), at(70), None, &booking.id, &edit).await.unwrap_err().code, Code::BookState);
    let released = desk.release(&who("amy"), at(75), None, &booking.id, &edit).await.unwrap();
    assert_eq!((released.window.ends, released.busy_until, released.charged), (at(75), at(85), 15 * 60));
    assert_eq!(desk.release(&who("amy"), at(76), None, &booking.id, &edit).await.unwrap_err().code, Code::BookState);
    healthy(&desk).await;
}

async fn others_bookings_need_a_teacher_with_a_reason(desk: Desk) {
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
    over.reason = Some("exam".into());
    let made = desk.book(&who("tea"), NOW, None, &over).await.unwrap();
    assert_eq!((made.person.as_str(), made.note.as_deref()), ("amy", Some("exam")));
    assert_eq!(desk.booking(&who("bob"), NOW, &made.id).await.unwrap().note, None, "reasons are not for everybody");
    let rows = desk.audit(&Caller::Console, NOW, None, Some("person:tea".into()), 10).await.unwrap();
    assert!(rows.iter().all(|r| r.reason.as_deref() == Some("exam")));
    for student in ["amy", "bob"] {
        assert_eq!(desk.people(&who(student), NOW).await.unwrap_err().code, Code::HubDenied);
        let health = desk.set_health(&who(student), NOW, &"one".parse().unwrap(), Health::Away, "x").await;
        assert_eq!(health.unwrap_err().code, Code::HubDenied);
    }
    healthy(&desk).await;
}

async fn a_quarantined_server_loses_its_bookings_to_another(desk: Desk) {
    camp(&desk, &generous()).await;
    let first = book(&desk, "amy", 0, 60).await;
    let next = book(&desk, "bob", 120, 180).await;
    for (n, step) in
        [Step::Arming, Step::Active, Step::LoggedIn, Step::Ending, Step::Quarantined].into_iter().enumerate()
    {
        assert_eq!(report(&desk, n as i64 + 1, &first, step, 60).await, Taken::Applied);
    }
    let one = "one".parse().unwrap();
    assert_eq!(desk.server(&Caller::Console, NOW, &one).await.unwrap().health, Health::Quarantined);
    assert_eq!(
        desk.book(&who("cem"), NOW, None, &wish(Some("one"), 300, 360)).await.unwrap_err().problem.code,
        Code::ServerAway
    );
    assert_eq!(report(&desk, 6, &next, Step::Arming, 120).await, Taken::SetAside, "never a dirty machine");
    let clerk = clerk(&desk);
    assert_eq!(clerk.settle(at(61)).await.unwrap().moved, 0, "there is no other server");
    server(&desk, "two", Mode::Exclusive, 8, 32).await;
    assert_eq!(clerk.settle(at(62)).await.unwrap().moved, 1);
    let moved = desk.booking(&who("bob"), NOW, &next.id).await.unwrap();
    assert_eq!((moved.server.unwrap().to_string(), moved.state), ("two".into(), State::Booked));
    let events = desk.events(&who("bob"), NOW, 0, 1000).await.unwrap();
    assert!(events.iter().any(|e| e.kind == "booking.moved" && e.person == Some("bob".parse().unwrap())));
    desk.set_health(&Caller::Console, at(70), &one, Health::Healthy, "reinstalled").await.unwrap();
    assert_eq!(desk.server(&Caller::Console, NOW, &one).await.unwrap().occupant, None);
    healthy(&desk).await;
}

async fn shared_servers_hold_as_many_labs_as_fit(desk: Desk) {
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
        most: 1,
    };
    let free = desk.free(&who("dan"), NOW, &want).await.unwrap();
    assert_eq!(free[0].window, window(150, 210));
    let week = desk.week(&who("dan"), NOW, window(0, 1440)).await.unwrap();
    assert_eq!(week.servers.iter().map(|s| (s.places, s.bookings.len())).collect::<Vec<_>>(), [(3, 2), (1, 0)]);
    healthy(&desk).await;
}

async fn weekly_is_all_or_nothing(desk: Desk) {
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

async fn a_class_is_planned_and_booked(desk: Desk) {
    camp(&desk, &Policy { person_hours: 1, open_ahead: 1, ..Policy::default() }).await;
    let wishes =
        |login: &str| StudentWishes { person: login.parse().unwrap(), wishes: vec![Wish { within: window(60, 120) }] };
    let want = ClassRequest {
        course: "k8s".parse().unwrap(),
        layout: "1x4c12g".parse().unwrap(),
        minutes: 60,
        slots: 2,
        within: window(0, 1440),
        wishes: vec![wishes("bob"), wishes("amy")],
    };
    assert_eq!(desk.plan_class(&who("amy"), NOW, &want).await.unwrap_err().code, Code::HubDenied);
    let plan = desk.plan_class(&who("tea"), NOW, &want).await.unwrap();
    assert_eq!((plan.given, plan.wished), (8, 1));
    assert_eq!(plan, desk.plan_class(&who("tea"), NOW, &want).await.unwrap());
    let first = plan.rows.iter().find(|r| r.person.as_str() == "amy").unwrap();
    assert_eq!(first.given.as_ref().unwrap().wish, Some(1));
    let made = desk.book_class(&who("tea"), NOW, Some("k"), &want).await.unwrap();
    assert_eq!(made.len(), 8);
    assert_eq!(desk.book_class(&who("tea"), NOW, Some("k"), &want).await.unwrap().len(), 8);
    assert_eq!(desk.bookings(&who("tea"), NOW, &Listing::default()).await.unwrap().len(), 8);
    healthy(&desk).await;
}

async fn links_work_once_and_signatures_sign_in(desk: Desk) {
    camp(&desk, &Policy::default()).await;
    let amy = "amy".parse().unwrap();
    let link = desk.make_link(&who("tea"), NOW, &amy).await.unwrap();
    assert_eq!(desk.make_link(&who("bob"), NOW, &amy).await.unwrap_err().code, Code::HubDenied);
    assert_eq!(desk.caller_of(NOW, &link.text).await.unwrap_err().code, Code::HubSignIn, "a link is no token");
    let session = desk.use_link(at(1), &link.text).await.unwrap();
    assert_eq!(desk.use_link(at(1), &link.text).await.unwrap_err().code, Code::HubSignIn);
    assert_eq!(desk.caller_of(at(2), &session.text).await.unwrap(), who("amy"));
    assert_eq!(desk.caller_of(at(13 * 60), &session.text).await.unwrap_err().code, Code::HubSignIn, "it ends");
    let late = desk.make_link(&who("tea"), NOW, &amy).await.unwrap();
    assert_eq!(desk.use_link(at(16), &late.text).await.unwrap_err().code, Code::HubSignIn);
    desk.sign_out(&who("amy"), at(3), &session.text).await.unwrap();
    assert_eq!(desk.caller_of(at(3), &session.text).await.unwrap_err().code, Code::HubSignIn);
    let feed = desk.make_token(&who("amy"), NOW, TokenKind::Feed, "phone").await.unwrap();
    assert_eq!(desk.feed_of(NOW, &feed.text).await.unwrap(), amy);
    assert!(desk.caller_of(NOW, &feed.text).await.is_err());
    let machine = desk.make_agent_token(&Caller::Console, NOW, &"one".parse().unwrap()).await.unwrap();
    assert_eq!(desk.caller_of(NOW, &machine.text).await.unwrap(), agent("one"));

    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).output().unwrap();
    assert!(made.status.success());
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    let known = NewPerson {
        id: amy.clone(),
        name: "Amy".into(),
        role: Role::Student,
        active: None,
        zone: None,
        keys: vec![public],
    };
    desk.put_person(&who("tea"), NOW, &known, Some(1)).await.unwrap();
    let sign = |text: &str, namespace: &str| {
        let file = folder.path().join("text");
        fs::write(&file, text).unwrap();
        let _ = fs::remove_file(file.with_extension("sig"));
        let out = Command::new("ssh-keygen")
            .args(["-Y", "sign", "-n", namespace, "-f"])
            .arg(&key)
            .arg(&file)
            .output()
            .unwrap();
        assert!(out.status.success());
        fs::read_to_string(file.with_extension("sig")).unwrap()
    };
    let challenge = desk.challenge(NOW, &amy).await.unwrap();
    let good = sign(&challenge.text, "kubecamp-login");
    let token = desk.answer(at(1), &challenge.text, &good, "laptop").await.unwrap();
    assert_eq!(desk.caller_of(at(1), &token.text).await.unwrap(), who("amy"));
    assert_eq!(desk.answer(at(1), &challenge.text, &good, "laptop").await.unwrap_err().code, Code::HubSignIn, "once");
    for n in 0..6 {
        let challenge = desk.challenge(NOW, &amy).await.unwrap();
        let other = sign(&challenge.text, "kubecamp-plan");
        let expected = if n < 5 { Code::HubSignIn } else { Code::HubLocked };
        assert_eq!(desk.answer(at(2), &challenge.text, &other, "x").await.unwrap_err().code, expected, "try {n}");
    }
    let stranger = desk.challenge(NOW, &"nobody1".parse().unwrap()).await.unwrap();
    let signed = sign(&stranger.text, "kubecamp-login");
    assert_eq!(desk.answer(NOW, &stranger.text, &signed, "x").await.unwrap_err().code, Code::HubSignIn);
    let audit = serde_json::to_string(&desk.audit(&Caller::Console, NOW, None, None, 1000).await.unwrap()).unwrap();
    for secret in [&link.text, &session.text, &token.text, &feed.text] {
        assert!(!audit.contains(secret.expose()), "a token stands in the audit");
    }
    healthy(&desk).await;
}

async fn a_roster_is_imported_whole_or_not(desk: Desk) {
    camp(&desk, &Policy::default()).await;
    let course = "k8s".parse().unwrap();
    let import = |text: &'static str| {
        let (desk, course) = (desk.clone(), "k8s".parse().unwrap());
        async move { desk.import_roster(&who("tea"), NOW, &course, "roster.csv", text).await }
    };
    let wrong = import("eve,Eve,green\nBAD,x,green\n,y,green\n").await.unwrap_err();
    assert_eq!(wrong.iter().map(|p| p.at.as_ref().unwrap().line).collect::<Vec<_>>(), [2, 3]);
    assert!(desk.people(&who("tea"), NOW).await.unwrap().iter().all(|p| p.id.as_str() != "eve"));
    let teacher = import("eve,Eve,green\ntea,Tea,green\n").await.unwrap_err();
    assert_eq!(teacher.iter().next().unwrap().code, Code::HubRoster);
    assert!(desk.people(&who("tea"), NOW).await.unwrap().iter().all(|p| p.id.as_str() != "eve"), "all or nothing");
    let text = "login,name,group,zone\neve,Eve,green,Asia/Shanghai\namy,Amy,red\n";
    let done = import(text).await.unwrap();
    assert_eq!((done.added, done.changed, done.same), (1, 1, 0));
    let done = import(text).await.unwrap();
    assert_eq!((done.added, done.changed, done.same), (0, 0, 2));
    assert!(desk.import_roster(&who("amy"), NOW, &course, "r", text).await.is_err());
    person(&desk, "fay", Some("green")).await;
    healthy(&desk).await;
}

async fn webhooks_are_signed_and_tried_again(desk: Desk) {
    use wiremock::{Mock, MockServer, ResponseTemplate, matchers::method};
    let receiver = MockServer::start().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(500)).up_to_n_times(1).mount(&receiver).await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(204)).mount(&receiver).await;
    camp(&desk, &Policy::default()).await;
    for bad in ["ftp://x", "http://user:pw@x/", "file:///etc/passwd", "x"] {
        assert_eq!(desk.add_hook(&Caller::Console, NOW, bad).await.unwrap_err().code, Code::HubInvalid, "{bad}");
    }
    let (_, secret) = desk.add_hook(&Caller::Console, NOW, &receiver.uri()).await.unwrap();
    book(&desk, "amy", 60, 120).await;
    let clerk = clerk(&desk);
    assert_eq!(clerk.send_hooks(NOW).await.unwrap(), 0, "it answered 500");
    assert_eq!(clerk.send_hooks(NOW + 9).await.unwrap(), 0, "not yet");
    assert_eq!(clerk.send_hooks(NOW + 10).await.unwrap(), 1);
    assert_eq!(clerk.send_hooks(NOW + 3600).await.unwrap(), 0, "once is enough");
    let requests = receiver.received_requests().await.unwrap();
    assert_eq!(requests.len(), 2);
    let last = requests.last().unwrap();
    let body = String::from_utf8(last.body.clone()).unwrap();
    let expected = kubecamp::hub::clerk::signature(&secret, NOW + 10, &body);
    assert_eq!(last.headers["kubecamp-signature"].to_str().unwrap(), expected);
    assert_eq!(last.headers["kubecamp-event"], "booking.booked");
    healthy(&desk).await;
}

async fn clocks_that_are_off_arm_nothing(desk: Desk) {
    camp(&desk, &generous()).await;
    let booking = book(&desk, "amy", 0, 60).await;
    let one = "one".parse().unwrap();
    let beat = |offset: i64| {
        let (desk, one) = (desk.clone(), "one".parse().unwrap());
        async move {
            desk.heartbeat(&agent("one"), NOW, &one, &Heartbeat { revision: 1, clock: NOW + offset }).await.unwrap()
        }
    };
    for (offset, may_arm, warned) in
        [(0, true, false), (2, true, false), (-3, true, true), (29, true, true), (-31, false, true), (31, false, true)]
    {
        let heard = beat(offset).await;
        assert_eq!((heard.may_arm, heard.warning.is_some()), (may_arm, warned), "{offset}");
    }
    assert_eq!(report(&desk, 1, &booking, Step::Arming, 0).await, Taken::SetAside);
    beat(1).await;
    assert_eq!(report(&desk, 2, &booking, Step::Arming, 0).await, Taken::Applied);
    assert_eq!(desk.server(&Caller::Console, NOW, &one).await.unwrap().clock_offset, 1);
    healthy(&desk).await;
}

async fn who_is_out_loses_tokens_and_slots(desk: Desk) {
    camp(&desk, &generous()).await;
    let running = book(&desk, "amy", 0, 60).await;
    report(&desk, 1, &running, Step::Arming, 0).await;
    report(&desk, 2, &running, Step::Active, 0).await;
    let ahead = book(&desk, "amy", 120, 180).await;
    let waits = desk.wait(&who("amy"), NOW, None, &wish(None, 240, 300)).await.unwrap();
    let token = desk.make_token(&who("amy"), NOW, TokenKind::Api, "x").await.unwrap();
    let out = NewPerson {
        id: "amy".parse().unwrap(),
        name: "Amy".into(),
        role: Role::Student,
        active: Some(false),
        zone: None,
        keys: vec![],
    };
    desk.put_person(&who("tea"), at(10), &out, Some(1)).await.unwrap();
    assert_eq!(desk.caller_of(at(10), &token.text).await.unwrap_err().code, Code::HubSignIn);
    assert_eq!((state(&desk, &ahead).await, state(&desk, &waits).await), (State::Cancelled, State::Cancelled));
    assert_eq!(desk.booking(&Caller::Console, at(10), &running.id).await.unwrap().window.ends, at(10));
    assert_eq!(
        desk.book(&who("amy"), at(10), None, &wish(Some("one"), 300, 330)).await.unwrap_err().problem.code,
        Code::HubDenied
    );
    healthy(&desk).await;
}
