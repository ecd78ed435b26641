//! What the agent of a server reports of slots, and what the hub makes of it.

use kubecamp::{
    core::Code,
    hub::{
        desk::{Caller, Desk, Heartbeat, Report, Step, Taken},
        domain::{Health, Mode, State},
    },
};

use super::{acknowledge, revision, state};
use crate::hub::world::{
    NOW, WHOLE, agent, at, book, camp, clerk, generous, healthy, report, reports, server, who, wish,
};

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

pub async fn an_overrun_reset_delays_the_next_and_is_not_charged(desk: Desk) {
    camp(&desk, &generous()).await;
    let first = book(&desk, "amy", 0, 60).await;
    let next = book(&desk, "bob", 90, 150).await;
    reports(&desk, 1, &first, &[Step::Arming, Step::Active, Step::LoggedIn, Step::Ending, Step::Saving], 60).await;
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

pub async fn an_agent_that_was_enrolled_anew_is_heard_from_number_one(desk: Desk) {
    camp(&desk, &generous()).await;
    let one = "one".parse().unwrap();
    let first = desk.make_agent_token(&Caller::Console, NOW, &one).await.unwrap().text;
    desk.caller_of(NOW, &first).await.unwrap();
    let booking = book(&desk, "amy", 0, 60).await;
    reports(&desk, 1, &booking, &WHOLE, 5).await;
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

pub async fn what_took_place_while_the_hub_was_away_counts(desk: Desk) {
    camp(&desk, &generous()).await;
    let one = "one".parse().unwrap();
    let first = book(&desk, "amy", 0, 60).await;
    let second = book(&desk, "bob", 90, 150).await;
    let third = book(&desk, "cem", 180, 240).await;
    acknowledge(&desk, 0).await;
    reports(&desk, 1, &first, &[Step::Arming, Step::Active, Step::LoggedIn], 0).await;
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
