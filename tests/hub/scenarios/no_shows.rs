//! Slots that nobody came to: when they are given up, and what their servers do meanwhile.

use kubecamp::{
    core::Code,
    hub::{
        desk::{Caller, Desk, Heartbeat, Step, Taken},
        domain::{BookingId, Mode, State},
    },
};

use super::{acknowledge, revision, state};
use crate::hub::world::{NOW, agent, at, book, camp, clerk, generous, healthy, report, reports, server, who, wish};

pub async fn a_no_show_is_released_but_not_resold_before_the_agent_knows(desk: Desk) {
    camp(&desk, &generous()).await;
    let booking = book(&desk, "amy", 0, 120).await;
    acknowledge(&desk, 0).await;
    reports(&desk, 1, &booking, &[Step::Arming, Step::Active], 0).await;
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
    reports(&desk, 1, &first, &[Step::Arming, Step::Active], 0).await;
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
    reports(&desk, 1, &booking, &[Step::Arming, Step::Active], 0).await;
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
    reports(&desk, 1, &booking, &[Step::Arming, Step::Active], 0).await;
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
