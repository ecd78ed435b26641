//! What the agent of a server reports, and what the hub makes of it.

use kubecamp::{
    core::Code,
    hub::{
        desk::{BookRequest, Caller, Desk, Edit, Heartbeat, Report, Step, Taken},
        domain::{BookingId, Health, Mode, State},
        store::Listing,
    },
};

use super::{acknowledge, report, state};
use crate::hub::world::{NOW, agent, at, book, camp, clerk, generous, healthy, server, who, wish};

pub async fn a_slot_lives_from_booked_to_done(desk: Desk) {
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

pub async fn an_overrun_reset_delays_the_next_and_is_not_charged(desk: Desk) {
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
    assert_eq!(desk.accept(&who("bob"), at(90), None, &next.id).await.unwrap_err().code, Code::BookState);
    assert_eq!(state(&desk, &next).await, State::Delayed, "a yes to what is no offer changes nothing");
    assert_eq!(report(&desk, 10, &next, Step::Arming, 95).await, Taken::SetAside, "the server is not clear");
    report(&desk, 11, &first, Step::Resetting, 100).await;
    report(&desk, 12, &first, Step::Done, 110).await;
    assert_eq!(report(&desk, 13, &next, Step::Arming, 110).await, Taken::Applied);
    let after = desk.booking(&who("bob"), NOW, &next.id).await.unwrap();
    assert_eq!((after.state, after.charged), (State::Arming, 40 * 60));
    healthy(&desk).await;
}

pub async fn an_overrun_reset_on_a_shared_server_delays_its_place_only(desk: Desk) {
    camp(&desk, &generous()).await;
    server(&desk, "big", Mode::Shared, 8, 40).await;
    let book = async |login: &str, from: i64, to: i64| {
        desk.book(&who(login), NOW, None, &wish(Some("big"), from, to)).await.unwrap()
    };
    let first = book("amy", 0, 60).await;
    let (next, beside) = (book("bob", 90, 150).await, book("cem", 90, 150).await);
    assert_eq!((first.place, next.place, beside.place), (Some(0), Some(0), Some(1)));
    for (step, number) in [Step::Arming, Step::Active, Step::LoggedIn, Step::Ending, Step::Saving].into_iter().zip(1..)
    {
        assert_eq!(report(&desk, number, &first, step, 60).await, Taken::Applied, "{step:?}");
    }
    let clerk = clerk(&desk);
    clerk.settle(at(89)).await.unwrap();
    assert_eq!(state(&desk, &next).await, State::Booked);
    clerk.settle(at(90)).await.unwrap();
    assert_eq!((state(&desk, &next).await, state(&desk, &beside).await), (State::Delayed, State::Booked));
    assert_eq!(report(&desk, 6, &beside, Step::Arming, 90).await, Taken::Applied);
    assert_eq!(report(&desk, 7, &first, Step::Resetting, 95).await, Taken::Applied);
    assert_eq!(report(&desk, 8, &first, Step::Done, 100).await, Taken::Applied);
    assert_eq!(report(&desk, 9, &next, Step::Arming, 100).await, Taken::Applied);
    for (booking, minutes) in [(&next, 50), (&beside, 60)] {
        let after = desk.booking(&Caller::Console, at(100), &booking.id).await.unwrap();
        assert_eq!((after.state, after.charged), (State::Arming, minutes * 60), "{}", after.person);
    }

    // What was over before the clerk looked once more.
    let late = book("dan", 180, 240).await;
    assert_eq!(report(&desk, 10, &late, Step::Arming, 181).await, Taken::Applied);
    let after = desk.booking(&Caller::Console, at(181), &late.id).await.unwrap();
    assert_eq!((after.state, after.charged), (State::Arming, 59 * 60));
    healthy(&desk).await;
}

pub async fn a_no_show_is_released_but_not_resold_before_the_agent_knows(desk: Desk) {
    camp(&desk, &generous()).await;
    let booking = book(&desk, "amy", 0, 120).await;
    acknowledge(&desk, 0).await;
    report(&desk, 1, &booking, Step::Arming, 0).await;
    report(&desk, 2, &booking, Step::Active, 0).await;
    let clerk = clerk(&desk);
    clerk.settle(at(14)).await.unwrap();
    assert_eq!(state(&desk, &booking).await, State::Active);
    clerk.settle(at(15)).await.unwrap();
    assert_eq!(state(&desk, &booking).await, State::Active, "who came since its agent was heard nobody knows");
    acknowledge(&desk, 15).await;
    clerk.settle(at(15)).await.unwrap();
    assert_eq!(state(&desk, &booking).await, State::Active, "what it tells follows at once");
    clerk.settle(at(16)).await.unwrap();
    assert_eq!(state(&desk, &booking).await, State::NoShow);
    let again = wish(Some("one"), 30, 90);
    assert_eq!(desk.book(&who("bob"), at(16), None, &again).await.unwrap_err().problem.code, Code::BookConflict);
    acknowledge(&desk, 17).await;
    desk.book(&who("bob"), at(17), None, &again).await.unwrap();
    assert_eq!(report(&desk, 3, &booking, Step::Done, 18).await, Taken::Known, "closed and proven, apart");
    assert_eq!(desk.server(&Caller::Console, NOW, &"one".parse().unwrap()).await.unwrap().occupant, None);
    healthy(&desk).await;
}

pub async fn a_no_show_that_its_agent_forgot_keeps_nobody_out(desk: Desk) {
    camp(&desk, &generous()).await;
    let (first, next) = (book(&desk, "amy", 0, 60).await, book(&desk, "bob", 90, 150).await);
    report(&desk, 1, &first, Step::Arming, 0).await;
    report(&desk, 2, &first, Step::Active, 0).await;
    clerk(&desk).settle(at(15)).await.unwrap();
    assert_eq!(state(&desk, &first).await, State::NoShow);
    let notes = async |minute: i64| desk.doctor(&Caller::Console, at(minute)).await.unwrap().notes.join("\n");
    let told = format!("server one is still occupied by booking {}", first.id);
    assert!(!notes(20).await.contains(&told) && notes(80).await.contains(&told), "{}", notes(80).await);
    assert_eq!(report(&desk, 3, &next, Step::Arming, 85).await, Taken::Applied, "its agent has a clear place");
    let occupant = desk.server(&Caller::Console, at(85), &"one".parse().unwrap()).await.unwrap().occupant;
    assert_eq!(occupant, Some(next.id));
    healthy(&desk).await;
}

pub async fn a_no_show_is_found_while_its_agent_is_heard_again_and_again(desk: Desk) {
    camp(&desk, &generous()).await;
    let booking = book(&desk, "amy", 0, 120).await;
    acknowledge(&desk, 0).await;
    report(&desk, 1, &booking, Step::Arming, 0).await;
    report(&desk, 2, &booking, Step::Active, 0).await;
    let (clerk, one) = (clerk(&desk), "one".parse().unwrap());
    let revision = revision(&desk, "one").await;
    for second in 0..=10_i64 {
        let now = at(15) + second;
        // As an agent that nobody told another time: heard each 5 s, and just before the clerk looks.
        if second % 5 == 0 {
            let beat = Heartbeat { revision, clock: now, tick_age: None };
            desk.heartbeat(&agent("one"), now, &one, &beat).await.unwrap();
        }
        clerk.settle(now).await.unwrap();
    }
    assert_eq!(state(&desk, &booking).await, State::NoShow);
    healthy(&desk).await;
}

pub async fn who_is_at_work_is_no_no_show_though_the_report_is_late(desk: Desk) {
    camp(&desk, &generous()).await;
    server(&desk, "two", Mode::Exclusive, 8, 32).await;
    let booking = book(&desk, "amy", 0, 120).await;
    acknowledge(&desk, 0).await;
    report(&desk, 1, &booking, Step::Arming, 0).await;
    report(&desk, 2, &booking, Step::Active, 0).await;
    // Of more than a server has open: those that are not known hide nobody.
    let strange = (0..100).map(|n| (format!("b{n:010}").parse::<BookingId>().unwrap(), at(5)));
    let came: Vec<_> = strange.chain([(booking.id.clone(), at(5))]).collect();
    let (one, two) = ("one".parse().unwrap(), "two".parse().unwrap());
    assert_eq!(desk.came(&agent("two"), at(16), &one, &came).await.unwrap_err().code, Code::HubDenied);
    desk.came(&agent("two"), at(16), &two, &came).await.unwrap();
    let known = async || desk.booking(&who("amy"), NOW, &booking.id).await.unwrap().came;
    assert_eq!(known().await, None, "no server speaks for another");
    // Hub and agent find each other again, and what happened meanwhile takes long to tell.
    let before = revision(&desk, "one").await;
    for _ in 0..2 {
        desk.came(&agent("one"), at(16), &one, &came).await.unwrap();
    }
    assert_eq!(revision(&desk, "one").await, before + 1, "it is noted once");
    acknowledge(&desk, 16).await;
    clerk(&desk).settle(at(17)).await.unwrap();
    assert_eq!((state(&desk, &booking).await, known().await), (State::Active, Some(at(5))));
    assert_eq!(report(&desk, 3, &booking, Step::LoggedIn, 17).await, Taken::Known);
    healthy(&desk).await;
}

pub async fn a_quarantined_server_loses_its_bookings_to_another(desk: Desk) {
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
    let plan = desk.plan_for(&agent("one"), at(60), &one).await.unwrap();
    let slots: Vec<_> = plan.slots.iter().map(|s| (s.booking.clone(), s.state)).collect();
    assert_eq!(slots, [(first.id.clone(), State::Quarantined)], "nobody new is let in");
    assert_eq!(report(&desk, 6, &next, Step::Arming, 120).await, Taken::SetAside, "never a dirty machine");
    let clerk = clerk(&desk);
    assert_eq!(clerk.settle(at(61)).await.unwrap().moved, 0, "there is no other server");
    server(&desk, "two", Mode::Exclusive, 8, 32).await;
    let begun = clerk.clone().of_hub_begun(at(62));
    assert_eq!(begun.settle(at(62) + 29).await.unwrap().moved, 0, "it has heard nobody yet");
    assert_eq!(begun.settle(at(62) + 30).await.unwrap().moved, 1);
    let moved = desk.booking(&who("bob"), NOW, &next.id).await.unwrap();
    assert_eq!((moved.server.unwrap().to_string(), moved.state), ("two".into(), State::Booked));
    let events = desk.events(&who("bob"), NOW, 0, 1000).await.unwrap();
    assert!(events.iter().any(|e| e.kind == "booking.moved" && e.person == Some("bob".parse().unwrap())));
    desk.set_health(&Caller::Console, at(70), None, &one, Health::Healthy, "reinstalled").await.unwrap();
    assert_eq!(desk.server(&Caller::Console, NOW, &one).await.unwrap().occupant, None);
    healthy(&desk).await;
}

pub async fn a_slot_that_cannot_be_opened_ends_and_does_not_count(desk: Desk) {
    camp(&desk, &generous()).await;
    let booking = book(&desk, "amy", 0, 120).await;
    let one = "one".parse().unwrap();
    report(&desk, 1, &booking, Step::Arming, 0).await;
    let told = Report {
        number: 2,
        booking: booking.id.clone(),
        account: None,
        step: Step::NotOpened,
        moment: at(1),
        note: Some("the disk is full".into()),
    };
    assert_eq!(desk.report(&agent("one"), at(1), &one, &[told]).await.unwrap()[0].taken, Taken::Applied);
    let after = desk.booking(&who("amy"), at(1), &booking.id).await.unwrap();
    assert_eq!((after.state, after.charged, after.note.as_deref()), (State::Ending, 0, Some("the disk is full")));
    let events = desk.events(&who("amy"), at(1), 0, 1000).await.unwrap();
    let told = events.iter().find(|e| e.kind == "booking.stranded").unwrap();
    assert_eq!(told.payload["note"], "the disk is full");
    assert_eq!(told.payload["alternatives"].as_array().unwrap().len(), 3);
    assert_eq!(report(&desk, 3, &booking, Step::Resetting, 2).await, Taken::Applied, "there is nothing to save");
    assert_eq!(report(&desk, 4, &booking, Step::Done, 3).await, Taken::Applied);
    let after = desk.server(&Caller::Console, at(3), &one).await.unwrap();
    assert_eq!((after.health, after.occupant), (Health::Healthy, None));
    desk.book(&who("bob"), at(3), None, &wish(Some("one"), 30, 90)).await.unwrap();
    healthy(&desk).await;
}

pub async fn an_agent_that_was_enrolled_anew_is_heard_from_number_one(desk: Desk) {
    camp(&desk, &generous()).await;
    let one = "one".parse().unwrap();
    let first = desk.make_agent_token(&Caller::Console, NOW, &one).await.unwrap().text;
    desk.caller_of(NOW, &first).await.unwrap();
    let booking = book(&desk, "amy", 0, 60).await;
    let steps = [Step::Arming, Step::Active, Step::LoggedIn, Step::Ending, Step::Saving, Step::Resetting, Step::Done];
    for (step, number) in steps.into_iter().zip(1..) {
        assert_eq!(report(&desk, number, &booking, step, 5).await, Taken::Applied);
    }
    desk.lab(&agent("one"), NOW, &one, 8, "amy", Some(("gate-amy", "1x4c12g"))).await.unwrap();
    // Else nothing that this agent says later would count.
    for number in [(1_i64 << 40) + 9, i64::MAX] {
        let far = desk.stray(&agent("one"), NOW, &one, number, "amy").await.unwrap_err();
        assert!(far.code == Code::HubInvalid && !far.hints.is_empty(), "{far}");
    }
    desk.stray(&agent("one"), NOW, &one, 9, "amy").await.unwrap();
    desk.caller_of(at(61), &first).await.unwrap();
    let next = book(&desk, "bob", 120, 180).await;
    assert_eq!(report(&desk, 1, &next, Step::Arming, 120).await, Taken::Known, "the same agent");

    // The server was reinstalled: its agent has another token, no journal and no labs.
    let second = desk.make_agent_token(&Caller::Console, at(62), &one).await.unwrap().text;
    assert_eq!(desk.labs(&who("amy"), at(62), None).await.unwrap().len(), 1, "until the token is used");
    desk.caller_of(at(63), &second).await.unwrap();
    assert_eq!(desk.labs(&who("amy"), at(63), None).await.unwrap(), []);
    assert_eq!(report(&desk, 1, &next, Step::Arming, 120).await, Taken::Applied);

    // It is enrolled once more and keeps its journal of years: it goes on where it was.
    let third = desk.make_agent_token(&Caller::Console, at(121), &one).await.unwrap().text;
    desk.caller_of(at(121), &third).await.unwrap();
    assert_eq!(report(&desk, 5_000_000, &next, Step::Active, 122).await, Taken::Applied);
    healthy(&desk).await;
}

async fn revision(desk: &Desk, server: &str) -> i64 {
    desk.server(&Caller::Console, NOW, &server.parse().unwrap()).await.unwrap().revision
}

pub async fn a_hub_that_went_back_goes_on_above_what_its_agents_have(desk: Desk) {
    camp(&desk, &generous()).await;
    server(&desk, "two", Mode::Exclusive, 8, 32).await;
    book(&desk, "amy", 0, 60).await;
    acknowledge(&desk, 0).await;
    let one = "one".parse().unwrap();
    let (known, other) = (revision(&desk, "one").await, revision(&desk, "two").await);
    let beat = async |revision: i64| {
        let beat = Heartbeat { revision, clock: at(1), tick_age: None };
        desk.heartbeat(&agent("one"), at(1), &one, &beat).await.map(|heard| heard.revision)
    };
    assert_eq!(beat(known).await.unwrap(), known);
    // An older copy was put back: the agent carries out what this hub never gave it.
    for _ in 0..2 {
        assert_eq!(beat(known + 40).await.unwrap(), known + 41);
    }
    let plan = desk.plan_for(&agent("one"), at(1), &one).await.unwrap();
    assert_eq!((plan.revision, plan.slots.len()), (known + 41, 1));
    assert_eq!(beat(plan.revision).await.unwrap(), plan.revision);
    assert_eq!(desk.server(&Caller::Console, NOW, &one).await.unwrap().acked, plan.revision);
    // Changes have brought it to the very number that the agent has, of another plan.
    book(&desk, "bob", 120, 180).await;
    let same = revision(&desk, "one").await;
    assert!(same > plan.revision);
    assert_eq!(beat(same).await.unwrap(), same + 1);
    let audit = desk.audit(&Caller::Console, NOW, Some("server:one".into()), None, 100).await.unwrap();
    assert_eq!(audit.iter().filter(|row| row.action == "server.revision").count(), 2, "once each time");

    for far in [(1 << 53) + 1, i64::MAX] {
        let refused = beat(far).await.unwrap_err();
        assert!(refused.code == Code::HubInvalid && !refused.hints.is_empty(), "{refused}");
    }
    let lied = Heartbeat { revision: 1 << 50, clock: at(1), tick_age: None };
    assert_eq!(desk.heartbeat(&agent("two"), at(1), &one, &lied).await.unwrap_err().code, Code::HubDenied);
    assert_eq!((revision(&desk, "one").await, revision(&desk, "two").await), (same + 1, other));
    healthy(&desk).await;
}

/// By that the agent keeps their labs.
pub async fn who_has_a_later_booking_is_named_in_the_plan(desk: Desk) {
    camp(&desk, &generous()).await;
    let one = "one".parse().unwrap();
    let named = async |minute: i64| {
        let plan = desk.plan_for(&agent("one"), at(minute), &one).await.unwrap();
        (plan.slots.len(), plan.later.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let (amy, bob) = ("amy".to_owned(), "bob".to_owned());
    let day = 24 * 60;
    book(&desk, "amy", 60, 120).await;
    book(&desk, "bob", 4 * day, 4 * day + 60).await;
    book(&desk, "bob", 5 * day, 5 * day + 60).await;
    assert_eq!(named(0).await, (1, vec![bob.clone()]), "too far ahead for a plan");
    desk.set_health(&Caller::Console, NOW, None, &one, Health::Away, "a fan").await.unwrap();
    assert_eq!(named(0).await, (0, vec![amy, bob.clone()]), "nobody is let in now");
    desk.set_health(&Caller::Console, NOW, None, &one, Health::Healthy, "a new fan").await.unwrap();
    assert_eq!(named(day + 60).await, (2, vec![bob]));
    assert_eq!(named(2 * day + 60).await, (3, vec![]), "all are slots of the plan by now");
    healthy(&desk).await;
}

pub async fn clocks_that_are_off_arm_nothing(desk: Desk) {
    camp(&desk, &generous()).await;
    let booking = book(&desk, "amy", 0, 60).await;
    let one = "one".parse().unwrap();
    let beat = |offset: i64| {
        let (desk, one) = (desk.clone(), "one".parse().unwrap());
        async move {
            let beat = Heartbeat { revision: 1, clock: NOW + offset, tick_age: None };
            desk.heartbeat(&agent("one"), NOW, &one, &beat).await.unwrap()
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

pub async fn an_agent_that_hangs_is_not_heard(desk: Desk) {
    camp(&desk, &generous()).await;
    book(&desk, "amy", 30, 90).await;
    acknowledge(&desk, 0).await;
    let (one, known) = ("one".parse().unwrap(), revision(&desk, "one").await);
    let beat = async |second: i64, tick_age: Option<i64>| {
        let now = at(0) + second;
        let beat = Heartbeat { revision: known, clock: now, tick_age };
        desk.heartbeat(&agent("one"), now, &one, &beat).await.unwrap()
    };
    let is_silent = async |second: i64| {
        let now = at(0) + second;
        desk.server(&Caller::Console, now, &one).await.unwrap().is_silent(now)
    };
    for (second, age) in [(10, None), (20, Some(1)), (30, Some(60))] {
        let heard = beat(second, age).await;
        assert!(heard.may_arm && heard.warning.is_none(), "{age:?}: {heard:?}");
    }
    for (second, age) in [(31, 61), (90, 120), (150, 180)] {
        let heard = beat(second, Some(age)).await;
        assert!(!heard.may_arm && heard.warning.is_some_and(|why| why.contains("hangs")), "{age}");
    }
    assert!(!is_silent(150).await && is_silent(151).await, "it was heard at 30");
    let notes = desk.doctor(&Caller::Console, at(0) + 151).await.unwrap().notes.join("\n");
    assert!(notes.contains("the agent of server one was not heard for two minutes"), "{notes}");
    assert!(beat(160, Some(0)).await.may_arm && !is_silent(160).await);
    healthy(&desk).await;
}

pub async fn what_begins_soon_is_not_sold_on_a_silent_server(desk: Desk) {
    camp(&desk, &generous()).await;
    let (one, tea) = ("one".parse().unwrap(), who("tea"));
    let amys = book(&desk, "amy", 0, 30).await;
    acknowledge(&desk, 0).await;
    assert_eq!(desk.book(&who("bob"), at(2), None, &wish(Some("one"), 120, 150)).await.unwrap().state, State::Booked);
    // Three minutes later nobody has heard of it: until an hour from then on nothing new begins there.
    let soon = wish(Some("one"), 60, 90);
    let refusal = desk.book(&who("cem"), at(3), None, &soon).await.unwrap_err();
    assert_eq!((refusal.problem.code, refusal.alternatives.len()), (Code::ServerSilent, 3), "{refusal:?}");
    assert!(refusal.alternatives.iter().all(|free| free.window.starts >= at(63)), "{refusal:?}");
    let longer = async |now, ends| desk.extend(&who("amy"), now, None, &amys.id, ends, &Edit::default()).await;
    assert_eq!(
        longer(at(3), at(60)).await.unwrap_err().code,
        Code::ServerSilent,
        "its agent would end it at the old end"
    );
    clerk(&desk).settle(at(3)).await.unwrap();
    let there = desk.booking(&tea, at(3), &amys.id).await.unwrap();
    assert_eq!((there.state, there.server), (State::Booked, Some(one)), "its agent may have it in its plan");
    desk.book(&who("cem"), at(3), None, &wish(Some("one"), 180, 210)).await.unwrap();
    let known =
        BookRequest { person: Some("cem".parse().unwrap()), reason: Some("it restarts".into()), ..soon.clone() };
    let sure = desk.book(&tea, at(3), None, &known).await.unwrap();
    desk.cancel(&tea, at(3), None, &sure.id, &Edit { reason: Some("no".into()), ..Edit::default() }).await.unwrap();
    acknowledge(&desk, 4).await;
    let cems = desk.book(&who("cem"), at(4), None, &soon).await.unwrap();
    // What is only offered is in no plan: a yes that comes when the server is silent would open nothing.
    let waits = desk.wait(&who("dan"), at(4), None, &soon).await.unwrap();
    desk.cancel(&who("cem"), at(5), None, &cems.id, &Edit::default()).await.unwrap();
    acknowledge(&desk, 5).await;
    clerk(&desk).settle(at(5)).await.unwrap();
    assert_eq!(desk.booking(&tea, at(5), &waits.id).await.unwrap().state, State::Offered);
    let yes = async |now| desk.accept(&who("dan"), now, None, &waits.id).await;
    assert_eq!(yes(at(8)).await.unwrap_err().code, Code::ServerSilent);
    acknowledge(&desk, 9).await;
    assert_eq!(yes(at(9)).await.unwrap().state, State::Booked);
    healthy(&desk).await;
}

pub async fn what_is_open_counts_whatever_its_arming_was_worth(desk: Desk) {
    camp(&desk, &generous()).await;
    let one = "one".parse().unwrap();
    let (first, second) = (book(&desk, "amy", 0, 60).await, book(&desk, "bob", 90, 150).await);
    // A heartbeat that was long under way: by it the clock is off, and by the agent's own measure it is not.
    let late = Heartbeat { revision: 1, clock: at(-1), tick_age: None };
    desk.heartbeat(&agent("one"), at(0), &one, &late).await.unwrap();
    assert_eq!(report(&desk, 1, &first, Step::Arming, 0).await, Taken::SetAside);
    assert_eq!(report(&desk, 2, &first, Step::Active, 0).await, Taken::Applied);
    assert_eq!(desk.server(&Caller::Console, at(0), &one).await.unwrap().occupant, Some(first.id.clone()));
    assert_eq!(report(&desk, 3, &second, Step::Active, 1).await, Taken::SetAside, "it is another's place");
    for (step, number) in [Step::LoggedIn, Step::Ending, Step::Saving, Step::Resetting, Step::Done].into_iter().zip(4..)
    {
        assert_eq!(report(&desk, number, &first, step, 60).await, Taken::Applied, "{step:?}");
    }
    let after = desk.booking(&Caller::Console, at(60), &first.id).await.unwrap();
    assert_eq!((after.state, after.charged), (State::Done, 3600));
    healthy(&desk).await;
}

pub async fn a_buffer_that_is_too_short_is_told(desk: Desk) {
    camp(&desk, &generous()).await;
    let one = "one".parse().unwrap();
    let notes = async || desk.doctor(&Caller::Console, NOW).await.unwrap().notes.join("\n");
    let mut number = 0;
    for n in 0..5 {
        assert!(!notes().await.contains("hand-overs"), "{n} are too few");
        let start = n * 60;
        let booking = desk.book(&who("amy"), at(start), None, &wish(Some("one"), start, start + 30)).await.unwrap();
        // The hub was away meanwhile and hears all of it at once: the agent's clock counts.
        for (step, minute) in [
            (Step::Arming, 0),
            (Step::Active, 1),
            (Step::Ending, 30),
            (Step::Saving, 31),
            (Step::Resetting, 33),
            (Step::Done, 42),
        ] {
            number += 1;
            let id = booking.id.clone();
            let one_step = Report { number, booking: id, step, moment: at(start + minute), note: None, account: None };
            let told = desk.report(&agent("one"), at(start + 50), &one, &[one_step]).await.unwrap();
            assert_eq!(told[0].taken, Taken::Applied, "{step:?}");
        }
    }
    let told = notes().await;
    let want = "server one is 600 s, but 95 % of its last 5 hand-overs took up to 720 s";
    assert!(told.contains(want) && told.contains("hub server set one --buffer 12"), "{told}");
    healthy(&desk).await;
}

pub async fn what_an_agent_forgot_is_quarantined_and_its_server_comes_back(desk: Desk) {
    camp(&desk, &generous()).await;
    let (one, console) = ("one".parse().unwrap(), Caller::Console);
    let first = book(&desk, "amy", 0, 60).await;
    report(&desk, 1, &first, Step::Arming, 0).await;
    report(&desk, 2, &first, Step::Active, 0).await;
    // The server is reinstalled in the midst of the slot, and its agent has another journal.
    desk.set_health(&console, at(10), None, &one, Health::Away, "the disk is broken").await.unwrap();
    let token = desk.make_agent_token(&console, at(20), &one).await.unwrap().text;
    desk.caller_of(at(20), &token).await.unwrap();
    let plan = desk.plan_for(&agent("one"), at(61), &one).await.unwrap();
    assert_eq!(plan.slots.iter().map(|s| s.booking.clone()).collect::<Vec<_>>(), std::slice::from_ref(&first.id));
    assert_eq!(report(&desk, 1, &first, Step::Missed, 61).await, Taken::Applied);
    assert_eq!(state(&desk, &first).await, State::Quarantined, "nobody can prove what became of it");
    let there = desk.server(&console, at(61), &one).await.unwrap();
    assert_eq!(there.health, Health::Quarantined);
    assert!(there.health_note.as_ref().unwrap().contains(first.id.as_str()), "{there:?}");

    desk.set_health(&console, at(62), None, &one, Health::Healthy, "reinstalled").await.unwrap();
    let next = desk.book(&who("bob"), at(62), None, &wish(Some("one"), 90, 150)).await.unwrap();
    assert_eq!(report(&desk, 2, &next, Step::Arming, 90).await, Taken::Applied, "nobody occupies it any more");
    healthy(&desk).await;
}

pub async fn a_quarantined_server_comes_back_by_way_of_out_of_use(desk: Desk) {
    camp(&desk, &generous()).await;
    let (one, console) = ("one".parse().unwrap(), Caller::Console);
    let first = book(&desk, "amy", 0, 60).await;
    let steps = [Step::Arming, Step::Active, Step::LoggedIn, Step::Ending, Step::Quarantined];
    for (step, number) in steps.into_iter().zip(1..) {
        assert_eq!(report(&desk, number, &first, step, 60).await, Taken::Applied);
    }
    // It is reinstalled, so no agent will ever tell that the place is clean.
    for (minute, health, reason) in [(70, Health::Away, "no time today"), (80, Health::Healthy, "reinstalled")] {
        desk.set_health(&console, at(minute), None, &one, health, reason).await.unwrap();
    }
    assert_eq!(desk.server(&console, at(80), &one).await.unwrap().occupant, None);
    let next = desk.book(&who("bob"), at(80), None, &wish(Some("one"), 90, 150)).await.unwrap();
    // Out of use for a while it stays the place of who is at work there.
    assert_eq!(report(&desk, 6, &next, Step::Arming, 90).await, Taken::Applied);
    for (minute, health) in [(91, Health::Away), (92, Health::Healthy)] {
        desk.set_health(&console, at(minute), None, &one, health, "a look").await.unwrap();
    }
    assert_eq!(desk.server(&console, at(92), &one).await.unwrap().occupant, Some(next.id));
    healthy(&desk).await;
}

pub async fn a_server_that_is_gone_in_the_midst_of_a_slot_can_be_removed(desk: Desk) {
    camp(&desk, &generous()).await;
    let (one, console) = ("one".parse().unwrap(), Caller::Console);
    let (first, later) = (book(&desk, "amy", 0, 60).await, book(&desk, "bob", 90, 150).await);
    report(&desk, 1, &first, Step::Arming, 0).await;
    report(&desk, 2, &first, Step::Active, 0).await;
    let refused = async || desk.remove_server(&console, at(100), &one, None).await.err().map(|p| p.code);
    assert_eq!(refused().await, Some(Code::BookState));
    desk.set_health(&console, at(100), None, &one, Health::Away, "it burned").await.unwrap();
    assert_eq!(refused().await, Some(Code::BookState), "bob has a slot there");
    assert_eq!(state(&desk, &first).await, State::Active, "what was refused changed nothing");
    desk.cancel(&who("bob"), at(100), None, &later.id, &Edit::default()).await.unwrap();
    assert_eq!(refused().await, None);
    assert_eq!(state(&desk, &first).await, State::Quarantined);
    assert!(desk.servers(&console, at(100)).await.unwrap().is_empty());
    let of = |server: &str| Listing { server: Some(server.parse().unwrap()), open: true, ..Listing::default() };
    assert_eq!(desk.bookings(&console, at(100), &of("one")).await.unwrap(), [], "it had some, and none is open");
    let never = desk.bookings(&console, at(100), &of("never")).await.unwrap_err();
    assert_eq!(never.code, Code::HubUnknown);
    healthy(&desk).await;
}

pub async fn a_slot_that_passed_on_a_server_that_is_gone_keeps_nobody_from_removing_it(desk: Desk) {
    camp(&desk, &generous()).await;
    let (one, console) = ("one".parse().unwrap(), Caller::Console);
    let missed = book(&desk, "amy", 0, 60).await;
    acknowledge(&desk, 0).await;
    desk.set_health(&console, at(30), None, &one, Health::Away, "it burned").await.unwrap();
    clerk(&desk).settle(at(61)).await.unwrap();
    assert_eq!(state(&desk, &missed).await, State::Booked, "its agent might tell of it yet");
    assert_eq!(desk.remove_server(&console, at(59), &one, None).await.unwrap_err().code, Code::BookState);
    desk.remove_server(&console, at(61), &one, None).await.unwrap();
    assert_eq!(state(&desk, &missed).await, State::Cancelled);
    healthy(&desk).await;
}

pub async fn what_took_place_while_the_hub_was_away_counts(desk: Desk) {
    camp(&desk, &generous()).await;
    let one = "one".parse().unwrap();
    let first = book(&desk, "amy", 0, 60).await;
    let second = book(&desk, "bob", 90, 150).await;
    let third = book(&desk, "cem", 180, 240).await;
    acknowledge(&desk, 0).await;
    for (step, number) in [Step::Arming, Step::Active, Step::LoggedIn].into_iter().zip(1..) {
        assert_eq!(report(&desk, number, &first, step, 0).await, Taken::Applied);
    }
    // Hub and agent lose each other, and the clerk looks before the agent has found the hub again.
    let clerk = clerk(&desk);
    clerk.settle(at(100)).await.unwrap();
    clerk.settle(at(250)).await.unwrap();
    acknowledge(&desk, 251).await;
    clerk.settle(at(251)).await.unwrap();
    let all = [state(&desk, &first).await, state(&desk, &second).await, state(&desk, &third).await];
    assert_eq!(all, [State::Active, State::Delayed, State::Booked], "what it tells follows at once");
    let mut number = 3;
    for (booking, start) in [(&first, 0), (&second, 90), (&third, 180)] {
        for (step, minute) in [
            (Step::Arming, 0),
            (Step::Active, 0),
            (Step::LoggedIn, 1),
            (Step::Ending, 60),
            (Step::Saving, 61),
            (Step::Resetting, 62),
            (Step::Done, 65),
        ] {
            number += 1;
            let id = booking.id.clone();
            let told = Report { number, booking: id, step, moment: at(start + minute), note: None, account: None };
            desk.report(&agent("one"), at(251), &one, &[told]).await.unwrap();
        }
        let after = desk.booking(&Caller::Console, at(251), &booking.id).await.unwrap();
        assert_eq!((after.state, after.charged), (State::Done, 3600), "{start}");
    }

    // An agent that is not heard for a day is not waited for, nor is one that never was.
    let lost = desk.book(&who("dan"), at(252), None, &wish(Some("one"), 270, 330)).await.unwrap();
    clerk.settle(at(331)).await.unwrap();
    assert_eq!(state(&desk, &lost).await, State::Booked);
    clerk.settle(at(330 + 1440)).await.unwrap();
    assert_eq!(state(&desk, &lost).await, State::Cancelled);
    server(&desk, "two", Mode::Exclusive, 8, 32).await;
    let strange = desk.book(&who("dan"), at(1800), None, &wish(Some("two"), 1830, 1890)).await.unwrap();
    clerk.settle(at(1890)).await.unwrap();
    assert_eq!(state(&desk, &strange).await, State::Cancelled);
    healthy(&desk).await;
}
