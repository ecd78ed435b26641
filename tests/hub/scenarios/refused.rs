//! Slots that their server does not take: who hears of it, and where they go.

use kubecamp::{
    core::Code,
    hub::{
        desk::{Caller, Desk, Edit, Report, Step, Taken},
        domain::{Booking, Free, Health, Mode, State},
        store::EventRow,
    },
};

use super::state;
use crate::hub::world::{
    NOW, agent, at, because, book, camp, clerk, generous, healthy, report, server, who, window, wish,
};

async fn refuse(desk: &Desk, number: i64, booking: &Booking, why: &str, minute: i64) -> Taken {
    let server = booking.server.clone().unwrap();
    let (id, note) = (booking.id.clone(), Some(why.to_owned()));
    let one = Report { number, booking: id, step: Step::Refused, moment: at(minute), note, account: None };
    desk.report(&Caller::Agent(server.clone()), at(minute), &server, &[one]).await.unwrap()[0].taken
}

async fn told(desk: &Desk, login: &str, kind: &str) -> Vec<EventRow> {
    let mut events = desk.events(&who(login), NOW, 0, 1000).await.unwrap();
    events.retain(|e| e.kind == kind);
    events
}

async fn now(desk: &Desk, booking: &Booking) -> Booking {
    desk.booking(&Caller::Console, NOW, &booking.id).await.unwrap()
}

pub async fn what_an_agent_refuses_is_told_and_can_be_moved(desk: Desk) {
    camp(&desk, &generous()).await;
    let booking = book(&desk, "amy", 60, 120).await;
    let to = Free { server: "one".parse().unwrap(), window: window(150, 210), lab: None, limit: None };
    let edit = Edit::default();
    let early = desk.move_to(&who("amy"), NOW, None, &booking.id, &to, &edit).await.unwrap_err();
    assert_eq!(early.code, Code::BookState, "nothing is known against its server");
    assert_eq!(desk.elsewhere(&who("amy"), NOW, &booking.id).await.unwrap().alternatives, []);

    assert_eq!(refuse(&desk, 1, &booking, "there is no key", 55).await, Taken::Applied);
    assert_eq!(refuse(&desk, 2, &booking, "there is no key", 56).await, Taken::Known, "a restarted agent repeats it");
    let after = now(&desk, &booking).await;
    assert_eq!((after.state, after.refused.as_deref(), after.version), (State::Booked, Some("there is no key"), 2));
    assert_eq!(desk.booking(&who("bob"), NOW, &booking.id).await.unwrap().refused, None, "not for everybody");
    assert_eq!(told(&desk, "amy", "booking.refused").await[0].payload["note"], "there is no key");
    let others = told(&desk, "bob", "booking.refused").await;
    assert!(!others[0].payload.to_string().contains("there is no key"), "{others:?}");

    let clerk = clerk(&desk);
    clerk.settle(at(59)).await.unwrap();
    assert!(told(&desk, "amy", "booking.stranded").await.is_empty(), "it may be mended until the start");
    for minute in [60, 61] {
        assert_eq!(clerk.settle(at(minute)).await.unwrap().moved, 0);
    }
    let stranded = told(&desk, "amy", "booking.stranded").await;
    assert_eq!(stranded.len(), 1, "once");
    assert_eq!(stranded[0].payload["alternatives"].as_array().unwrap().len(), 3);
    let others = told(&desk, "bob", "booking.stranded").await;
    assert!(others[0].payload.get("alternatives").is_none(), "they say where her saved labs are: {others:?}");
    let found = desk.elsewhere(&who("amy"), at(61), &booking.id).await.unwrap();
    assert_eq!((found.why.as_deref(), &found.alternatives[0]), (Some("there is no key"), &to));

    let denied = desk.move_to(&who("bob"), at(61), None, &booking.id, &to, &because("mine")).await.unwrap_err();
    assert_eq!(denied.code, Code::HubDenied);
    let long = Free { window: window(150, 270), ..to.clone() };
    let longer = desk.move_to(&who("amy"), at(61), None, &booking.id, &long, &edit).await.unwrap_err();
    assert_eq!(longer.code, Code::BookWindow);
    let moved = desk.move_to(&who("amy"), at(61), Some("k"), &booking.id, &to, &edit).await.unwrap();
    assert_eq!((moved.window, moved.state, moved.refused.clone()), (to.window, State::Booked, None));
    assert_eq!(desk.move_to(&who("amy"), at(62), Some("k"), &booking.id, &to, &edit).await.unwrap(), moved);
    assert_eq!(report(&desk, 3, &moved, Step::Arming, 149).await, Taken::Applied);
    healthy(&desk).await;
}

pub async fn a_refused_slot_is_tried_on_one_other_server_only(desk: Desk) {
    camp(&desk, &generous()).await;
    server(&desk, "two", Mode::Exclusive, 8, 32).await;
    let booking = book(&desk, "amy", 60, 120).await;
    refuse(&desk, 1, &booking, "there is no key", 55).await;
    let clerk = clerk(&desk);
    assert_eq!(clerk.settle(at(59)).await.unwrap().moved, 0);
    assert_eq!(clerk.settle(at(60)).await.unwrap().moved, 1);
    let moved = now(&desk, &booking).await;
    assert_eq!((moved.server.as_ref().unwrap().as_str(), moved.refused.clone()), ("two", None));
    refuse(&desk, 1, &moved, "there is no key", 61).await;
    assert_eq!(clerk.settle(at(61)).await.unwrap().moved, 0, "it would go to and fro");
    assert_eq!(told(&desk, "amy", "booking.stranded").await.len(), 1);
    // Mended after all: begun, and nothing stands against it any more.
    assert_eq!(report(&desk, 2, &moved, Step::Arming, 62).await, Taken::Applied);
    assert_eq!(now(&desk, &booking).await.refused, None);
    healthy(&desk).await;
}

/// Who had their turn is asked again also when a slot that was in the way goes to another server.
pub async fn what_is_moved_away_is_offered_to_who_let_an_offer_lapse(desk: Desk) {
    camp(&desk, &generous()).await;
    server(&desk, "two", Mode::Exclusive, 8, 32).await;
    let (clerk, wanted) = (clerk(&desk), wish(Some("one"), 180, 240));
    let taken = book(&desk, "cem", 180, 240).await;
    let amy = desk.wait(&who("amy"), NOW, None, &wanted).await.unwrap();
    desk.cancel(&who("cem"), at(1), None, &taken.id, &Edit::default()).await.unwrap();
    assert_eq!(clerk.settle(at(2)).await.unwrap().offered, 1);
    assert_eq!(clerk.settle(at(12)).await.unwrap().offered, 0);
    let long = desk.book(&who("dan"), at(13), None, &wish(Some("one"), 60, 240)).await.unwrap();
    refuse(&desk, 1, &long, "there is no key", 55).await;
    assert_eq!(clerk.settle(at(59)).await.unwrap().offered, 0, "it is in the way still");
    assert_eq!(clerk.settle(at(60)).await.unwrap().moved, 1);
    clerk.settle(at(61)).await.unwrap();
    assert_eq!(state(&desk, &amy).await, State::Offered);
    healthy(&desk).await;
}

pub async fn what_a_server_out_of_use_strands_is_told_once(desk: Desk) {
    camp(&desk, &generous()).await;
    let day = 1440;
    let next = book(&desk, "amy", day - 60, day).await;
    let mut exam = wish(Some("one"), 4 * day, 4 * day + 60);
    (exam.person, exam.reason) = (Some("bob".parse().unwrap()), Some("exam".into()));
    let later = desk.book(&who("tea"), NOW, None, &exam).await.unwrap();
    let one = "one".parse().unwrap();
    desk.set_health(&Caller::Console, NOW, None, &one, Health::Away, "new disk").await.unwrap();
    let clerk = clerk(&desk);
    for minute in [1, 2] {
        assert_eq!(clerk.settle(at(minute)).await.unwrap().moved, 0);
    }
    assert_eq!(told(&desk, "amy", "booking.stranded").await.len(), 1, "who comes within a day hears at once, and once");
    assert_eq!(now(&desk, &later).await.stranded, None, "the others a day before");
    assert!(desk.elsewhere(&who("bob"), at(3), &later.id).await.unwrap().why.unwrap().contains("new disk"));
    server(&desk, "two", Mode::Exclusive, 8, 32).await;
    // Its own time keeps it from no other start, though the two overlap.
    let half = desk.elsewhere_near(&who("amy"), at(3), &next.id, Some(at(day - 30))).await.unwrap().alternatives;
    assert_eq!((half[0].server.as_str(), half[0].window), ("two", window(day - 30, day + 30)));
    assert_eq!(clerk.settle(at(4)).await.unwrap().moved, 1);
    assert_eq!(now(&desk, &next).await.server.unwrap().as_str(), "two");
    // The server may be back by then: nobody is moved from the own saved lab for days that are far.
    for minute in [5, 3 * day] {
        assert_eq!(clerk.settle(at(minute)).await.unwrap().moved, 0);
    }
    assert_eq!(clerk.settle(at(3 * day + 1)).await.unwrap().moved, 1, "now it is a day until bob's");
    let note = now(&desk, &later).await.note.unwrap();
    assert!(note.starts_with("server one ") && note.ends_with("moved to two; exam"), "{note}");
    healthy(&desk).await;
}

pub async fn what_strands_nobody_any_more_is_taken_back(desk: Desk) {
    camp(&desk, &generous()).await;
    let (one, console) = ("one".parse().unwrap(), Caller::Console);
    let (first, second) = (book(&desk, "amy", 60, 120).await, book(&desk, "bob", 240, 300).await);
    let clerk = clerk(&desk);
    let stranded = async || [now(&desk, &first).await.stranded, now(&desk, &second).await.stranded];
    desk.set_health(&console, NOW, None, &one, Health::Away, "new disk").await.unwrap();
    clerk.settle(at(1)).await.unwrap();
    assert_eq!(stranded().await, [Some(at(60)), Some(at(240))]);
    let (work, _) = desk.add_maintenance(&console, at(2), None, &one, window(230, 310), "a fan").await.unwrap();
    desk.set_health(&console, at(2), None, &one, Health::Healthy, "it is in").await.unwrap();
    assert_eq!(clerk.settle(at(3)).await.unwrap().moved, 0);
    assert_eq!(stranded().await, [None, Some(at(240))], "work is still to be done in the second one");
    let changes = async || {
        let all = desk.events(&console, at(4), 0, 1000).await.unwrap();
        all.iter().filter(|event| event.kind == "server.changed").count()
    };
    let before = changes().await;
    desk.drop_maintenance(&console, at(4), work.id).await.unwrap();
    assert_eq!(changes().await, before + 1, "pages that show it hear that it is gone");
    for minute in [5, 6] {
        clerk.settle(at(minute)).await.unwrap();
        assert_eq!(stranded().await, [None, None]);
    }
    assert_eq!(now(&desk, &second).await.version, 3, "once");
    desk.set_health(&console, at(7), None, &one, Health::Away, "again").await.unwrap();
    clerk.settle(at(8)).await.unwrap();
    assert_eq!(told(&desk, "amy", "booking.stranded").await.len(), 4, "who was relieved is told anew");
    desk.give(&who("amy"), at(9), None, &first.id, &"cem".parse().unwrap(), &Edit::default()).await.unwrap();
    clerk.settle(at(10)).await.unwrap();
    let last = told(&desk, "cem", "booking.stranded").await.pop().unwrap();
    assert_eq!(last.person, "cem".parse().ok(), "who is given such a slot is told too");
    healthy(&desk).await;
}

pub async fn bookings_leave_a_server_in_maintenance(desk: Desk) {
    camp(&desk, &generous()).await;
    server(&desk, "two", Mode::Exclusive, 8, 32).await;
    let (during, after) = (book(&desk, "amy", 60, 120).await, book(&desk, "bob", 240, 300).await);
    desk.add_maintenance(&Caller::Console, NOW, None, &"one".parse().unwrap(), window(60, 200), "new disk")
        .await
        .unwrap();
    assert_eq!(clerk(&desk).settle(at(1)).await.unwrap().moved, 1);
    let moved = now(&desk, &during).await;
    assert_eq!((moved.server.unwrap().as_str(), moved.moves), ("two", 1));
    let note = moved.note.unwrap();
    assert!(note.contains("in maintenance") && note.ends_with("new disk; moved to two"), "{note}");
    assert_eq!(now(&desk, &after).await.server.unwrap().as_str(), "one");
    healthy(&desk).await;
}

pub async fn work_that_is_announced_moves_all_of_that_time_at_once(desk: Desk) {
    camp(&desk, &generous()).await;
    server(&desk, "two", Mode::Exclusive, 8, 32).await;
    let (one, week) = ("one".parse().unwrap(), 7 * 1440);
    let soon = book(&desk, "cem", 60, 120).await;
    let (first, second) = (book(&desk, "amy", week, week + 60).await, book(&desk, "bob", week + 120, week + 180).await);
    desk.book(&who("dan"), NOW, None, &wish(Some("two"), week + 120, week + 180)).await.unwrap();
    let (_, booked) =
        desk.add_maintenance(&Caller::Console, NOW, None, &one, window(week, week + 200), "a fan").await.unwrap();
    assert_eq!(booked, 2);
    let clerk = clerk(&desk);
    assert_eq!(clerk.settle(at(1)).await.unwrap().moved, 1);
    assert_eq!(now(&desk, &first).await.server.unwrap().as_str(), "two");
    assert_eq!(now(&desk, &second).await.stranded, Some(second.window.starts), "told a week before");
    assert_eq!(now(&desk, &soon).await, soon);
    healthy(&desk).await;
}

pub async fn who_booked_first_is_moved_first(desk: Desk) {
    camp(&desk, &generous()).await;
    server(&desk, "big", Mode::Shared, 32, 128).await;
    let mut times = vec![];
    for (from, order) in [(600, ["dan", "cem", "bob", "amy"]), (900, ["bob", "amy", "dan", "cem"])] {
        let mut made = vec![];
        for (login, minute) in order.into_iter().zip(1..) {
            let want = wish(Some("big"), from, from + 60);
            made.push(desk.book(&who(login), at(minute), None, &want).await.unwrap());
        }
        times.push(made);
    }
    let big = "big".parse().unwrap();
    desk.add_maintenance(&Caller::Console, at(10), None, &big, window(540, 1200), "a fan").await.unwrap();
    assert_eq!(clerk(&desk).settle(at(10)).await.unwrap().moved, 2, "one is free once at a time");
    for made in times {
        for (nth, b) in made.iter().enumerate() {
            let (b, to) = (now(&desk, b).await, if nth == 0 { "one" } else { "big" });
            assert_eq!((b.server.unwrap().as_str(), b.stranded.is_some()), (to, nth > 0), "{}", b.person);
        }
    }
    healthy(&desk).await;
}

pub async fn a_missed_slot_is_over_and_a_stray_is_told_to_teachers(desk: Desk) {
    camp(&desk, &generous()).await;
    let (first, one) = (book(&desk, "amy", 0, 60).await, "one".parse().unwrap());
    refuse(&desk, 1, &first, "there is no key", 0).await;
    assert_eq!(report(&desk, 2, &first, Step::Missed, 30).await, Taken::Known, "it was made longer meanwhile");
    assert_eq!(report(&desk, 3, &first, Step::Missed, 60).await, Taken::Applied);
    assert_eq!(state(&desk, &first).await, State::Cancelled);
    assert_eq!(now(&desk, &first).await.note.as_deref(), Some("there is no key"));
    for _ in 0..2 {
        desk.stray(&agent("one"), at(61), &one, 4, "amy").await.unwrap();
    }
    assert_eq!(desk.stray(&agent("two"), at(61), &one, 5, "amy").await.unwrap_err().code, Code::HubDenied);
    let audit = desk.audit(&Caller::Console, at(61), Some("server:one".into()), None, 100).await.unwrap();
    assert_eq!(audit.iter().filter(|row| row.action == "agent.stray").count(), 1);
    assert_eq!(told(&desk, "tea", "server.stray").await[0].payload["account"], "amy");
    assert!(!told(&desk, "bob", "server.stray").await[0].payload.to_string().contains("amy"));
    healthy(&desk).await;
}
