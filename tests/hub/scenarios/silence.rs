//! Agents that are not heard, hang, or have another clock.

use kubecamp::{
    core::Code,
    hub::{
        desk::{BookRequest, Caller, Desk, Edit, Heartbeat, Step, Taken},
        domain::State,
    },
};

use super::{acknowledge, revision};
use crate::hub::world::{NOW, agent, at, book, camp, clerk, generous, healthy, report, reports, who, wish};

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
    reports(&desk, 4, &first, &[Step::LoggedIn, Step::Ending, Step::Saving, Step::Resetting, Step::Done], 60).await;
    let after = desk.booking(&Caller::Console, at(60), &first.id).await.unwrap();
    assert_eq!((after.state, after.charged), (State::Done, 3600));
    healthy(&desk).await;
}
