//! When a server may go, and how its place counts as clean again.

use kubecamp::{
    core::Code,
    hub::{
        desk::{Caller, Desk, NewPerson, Report, Step},
        domain::{Health, Mode, Role, State},
    },
};

use super::{acknowledge, state};
use crate::hub::world::{
    NOW, agent, at, book, camp, clerk, generous, healthy, new_server, report, reports, who, window, wish,
};

pub async fn a_server_that_is_heard_is_not_removed_in_the_midst_of_a_slot(desk: Desk) {
    camp(&desk, &generous()).await;
    let (one, console) = ("one".parse().unwrap(), Caller::Console);
    let first = book(&desk, "amy", 0, 60).await;
    acknowledge(&desk, 0).await;
    reports(&desk, 1, &first, &[Step::Arming, Step::Active], 0).await;
    desk.set_health(&console, at(10), None, &one, Health::Away, "a new disk").await.unwrap();
    acknowledge(&desk, 11).await;
    let refused = desk.remove_server(&console, at(12), &one, None).await.unwrap_err();
    assert!(refused.code == Code::BookState && refused.all_hints()[0].contains("book release"), "{refused}");
    assert_eq!(state(&desk, &first).await, State::Active, "amy is at work there");
    // It burned after all: its agent was last heard three minutes ago.
    desk.remove_server(&console, at(14), &one, None).await.unwrap();
    assert_eq!(state(&desk, &first).await, State::Quarantined);
    healthy(&desk).await;
}

pub async fn a_place_that_is_proven_clean_leaves_the_plan(desk: Desk) {
    camp(&desk, &generous()).await;
    let (one, console) = ("one".parse().unwrap(), Caller::Console);
    let booking = book(&desk, "amy", 0, 120).await;
    reports(&desk, 1, &booking, &[Step::Arming, Step::Active], 0).await;
    clerk(&desk).settle(at(15)).await.unwrap();
    assert_eq!(state(&desk, &booking).await, State::NoShow);
    let unclean = async |minute: i64| {
        let plan = desk.plan_for(&agent("one"), at(minute), &one).await.unwrap();
        plan.unclean.into_iter().collect::<Vec<_>>()
    };
    for (number, minute) in [(3, 16), (5, 26)] {
        report(&desk, number, &booking, Step::Quarantined, minute).await;
        assert_eq!(unclean(minute).await, std::slice::from_ref(&booking.id));
        desk.set_health(&console, at(minute + 1), None, &one, Health::Healthy, "looked after").await.unwrap();
        assert_eq!(unclean(minute + 1).await.len(), 1, "its agent has yet to hear of it");
        report(&desk, number + 1, &booking, Step::Done, minute + 2).await;
        assert_eq!(unclean(minute + 2).await.len(), 0);
    }
    healthy(&desk).await;
}

pub async fn what_an_agent_found_is_for_teachers(desk: Desk) {
    camp(&desk, &generous()).await;
    let one = "one".parse().unwrap();
    let (first, next) = (book(&desk, "amy", 0, 60).await, book(&desk, "bob", 120, 180).await);
    reports(&desk, 1, &first, &[Step::Arming, Step::Active, Step::LoggedIn, Step::Ending], 60).await;
    let (booking, note) = (first.id.clone(), Some("/tmp/essay-of-amy is left".to_owned()));
    let found = Report { number: 5, booking, step: Step::Quarantined, moment: at(61), note, account: None };
    desk.report(&agent("one"), at(61), &one, &[found]).await.unwrap();
    clerk(&desk).settle(at(62)).await.unwrap();

    for (login, told) in [("tea", true), ("bob", false)] {
        let caller = who(login);
        let alone = desk.server(&caller, at(62), &one).await.unwrap();
        let all = desk.servers(&caller, at(62)).await.unwrap();
        let week = desk.week(&caller, at(62), window(0, 1440)).await.unwrap();
        for seen in [&alone, &all[0], &week.servers[0].server] {
            assert_eq!((seen.health, seen.health_note.is_some()), (Health::Quarantined, told), "{login}");
        }
    }
    let refused = desk.book(&who("cem"), at(62), None, &wish(Some("one"), 300, 360)).await.unwrap_err().problem;
    assert_eq!((refused.code, refused.what.as_str()), (Code::ServerAway, "server one is quarantined"));
    let why = desk.elsewhere(&who("bob"), at(62), &next.id).await.unwrap().why;
    assert_eq!(why.as_deref(), Some("server one is quarantined"));
    let events = desk.events(&who("bob"), at(62), 0, 1000).await.unwrap();
    assert!(events.iter().any(|event| event.kind == "booking.stranded"), "{events:?}");
    assert!(!format!("{events:?}").contains("essay"), "{events:?}");
    healthy(&desk).await;
}

pub async fn what_is_not_there_is_not_made_by_a_change(desk: Desk) {
    camp(&desk, &generous()).await;
    let (console, one) = (Caller::Console, "one".parse().unwrap());
    let seen = desk.server(&console, NOW, &one).await.unwrap().version;
    desk.remove_server(&console, NOW, &one, None).await.unwrap();
    let again = new_server("one", Mode::Exclusive, 8, 32);
    let refused = desk.put_server(&console, NOW, &again, Some(seen)).await.unwrap_err();
    assert_eq!(refused.code, Code::BookStale, "somebody removed it meanwhile");
    assert!(desk.servers(&console, NOW).await.unwrap().is_empty());
    let (id, name) = ("eve".parse().unwrap(), "Eve".to_owned());
    let eve = NewPerson { id, name, role: Role::Student, active: None, zone: None, keys: vec![] };
    assert_eq!(desk.put_person(&console, NOW, &eve, Some(1)).await.unwrap_err().code, Code::BookStale);
    let net = "net".parse().unwrap();
    let refused = desk.put_course(&console, NOW, &net, "Networks", &generous(), Some(1)).await.unwrap_err();
    assert_eq!(refused.code, Code::BookStale);
    healthy(&desk).await;
}

pub async fn who_is_at_work_on_a_server_that_an_admin_quarantines_goes_on(desk: Desk) {
    camp(&desk, &generous()).await;
    let (one, console) = ("one".parse().unwrap(), Caller::Console);
    let first = book(&desk, "amy", 0, 60).await;
    reports(&desk, 1, &first, &[Step::Arming, Step::Active], 0).await;
    let by_hand = async |minute, health| desk.set_health(&console, at(minute), None, &one, health, "a miner").await;
    by_hand(10, Health::Quarantined).await.unwrap();
    let refused = desk.book(&who("cem"), at(10), None, &wish(Some("one"), 300, 360)).await.unwrap_err().problem;
    assert_eq!((refused.code, refused.what.as_str()), (Code::ServerAway, "server one is quarantined"));
    let back = by_hand(20, Health::Healthy).await.unwrap();
    assert_eq!((back.health, back.occupant), (Health::Healthy, Some(first.id.clone())), "amy is there");
    assert_eq!(state(&desk, &first).await, State::Active);
    // So does what its agent clears up behind her.
    by_hand(30, Health::Quarantined).await.unwrap();
    reports(&desk, 3, &first, &[Step::Ending, Step::Saving, Step::Resetting], 60).await;
    acknowledge(&desk, 61).await;
    assert_eq!(by_hand(62, Health::Healthy).await.unwrap().occupant, Some(first.id.clone()));
    healthy(&desk).await;
    report(&desk, 6, &first, Step::Done, 63).await;
    assert_eq!(state(&desk, &first).await, State::Done);
    healthy(&desk).await;
}
