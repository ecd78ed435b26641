//! Servers that nobody new is let in to, how they come back, and those that are gone for good.

use kubecamp::{
    core::Code,
    hub::{
        desk::{Caller, Desk, Edit, Step, Taken},
        domain::{Health, Mode, State},
        store::Listing,
    },
};

use super::{acknowledge, state};
use crate::hub::world::{NOW, agent, at, book, camp, clerk, generous, healthy, report, reports, server, who, wish};

pub async fn a_quarantined_server_loses_its_bookings_to_another(desk: Desk) {
    camp(&desk, &generous()).await;
    let first = book(&desk, "amy", 0, 60).await;
    let next = book(&desk, "bob", 120, 180).await;
    reports(&desk, 1, &first, &[Step::Arming, Step::Active, Step::LoggedIn, Step::Ending, Step::Quarantined], 60).await;
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

pub async fn what_an_agent_forgot_is_quarantined_and_its_server_comes_back(desk: Desk) {
    camp(&desk, &generous()).await;
    let (one, console) = ("one".parse().unwrap(), Caller::Console);
    let first = book(&desk, "amy", 0, 60).await;
    reports(&desk, 1, &first, &[Step::Arming, Step::Active], 0).await;
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
    reports(&desk, 1, &first, &[Step::Arming, Step::Active, Step::LoggedIn, Step::Ending, Step::Quarantined], 60).await;
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
    reports(&desk, 1, &first, &[Step::Arming, Step::Active], 0).await;
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
